"""Signing in and out."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass

from fastapi import APIRouter
from sqlalchemy import Connection
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from dicomnode.archive.access import audit, people
from dicomnode.archive.access.audit import Action, Result
from dicomnode.archive.access.people import Patience, Person
from dicomnode.web import passwords, provider, security, surroundings
from dicomnode.web.security import ActOfViewer
from dicomnode.web.shown import shown
from dicomnode.web.surroundings import Surroundings

router = APIRouter()

# Several people may share an address, so it may fail more often than an account.
_ACCOUNT = Patience(free=4)
ADDRESS = Patience(free=19)
# Counting looks, then writes: of two attempts at the same moment both must count.
counting = threading.Lock()


@dataclass(frozen=True, kw_only=True)
class _Attempt:
    name: str
    password: str
    address: str


@router.get("/sign-in")
def sign_in_page(
    request: Request,
    next: str = "/",  # noqa: A002 - as the URL says
    left: str = "",
) -> Response:
    """The form; who has left a session that a provider opened may end the provider's, too."""
    return form_page(request, where=next, has_left=bool(left))


@router.post("/sign-in")
async def sign_in(request: Request) -> Response:
    """Take the form, and open a session."""
    form = await security.form_of(request)
    given = {key: value for key, value in form.items() if isinstance(value, str)}
    where = local(given.get("next", "/"))
    token = security.form_token(request)
    has_word = security.is_word(given.get(security.FIELD, ""), security.word_of(token))
    if not (has_word and security.is_from_here(request)):
        said = "The form was too old, or not ours. Try again."
        return await run_in_threadpool(form_page, request, where=where, said=said, status=403)
    attempt = _Attempt(
        name=given.get("name", "").strip()[:64],
        password=given.get("password", ""),
        address=security.address(request),
    )
    return await run_in_threadpool(_try, request, attempt, where=where)


def _try(request: Request, attempt: _Attempt, *, where: str) -> Response:
    here = surroundings.of(request)
    wait_s = _count(here, attempt)
    if wait_s > 0:
        said = f"Too many attempts. Wait {spoken(wait_s)}, then try again."
        response = form_page(request, where=where, said=said, status=429)
        response.headers["Retry-After"] = str(math.ceil(wait_s))
        return response
    with here.database.read() as tx:
        person = people.person(tx, attempt.name)
    token = None
    if passwords.is_right(attempt.password, person.password_hash if person else None):
        assert person is not None  # noqa: S101 - nobody's password is right
        token = _begin(here, attempt, person, before=security.session_of(request))
    if token is None:
        _note_failure(here, attempt, known=person)
        said = "Name or password is wrong."
        return form_page(request, where=where, said=said, status=401)
    response = RedirectResponse(where, 303)
    security.set_session(response, here, token)
    return response


def _count(here: Surroundings, attempt: _Attempt) -> float:
    """Count an attempt before it is made; returns how long it has to wait."""
    address, account = people.address_key(attempt.address), people.account_key(attempt.name)
    with counting, here.database.write() as tx:
        wait_s = people.count_failure(tx, address, patience=ADDRESS, at=here.clock())
        if not wait_s:
            wait_s = people.count_failure(tx, account, patience=_ACCOUNT, at=here.clock())
        said = "too many attempts"
        if wait_s and not audit.has_such(
            tx, Action.SIGN_IN, at=here.clock(), address=attempt.address, detail=said
        ):
            _note(here, tx, attempt, outcome=Result.REFUSED, detail=said)
    return wait_s


def _note_failure(here: Surroundings, attempt: _Attempt, *, known: Person | None) -> None:
    detail = "wrong password" if known else "no such account"
    with here.database.write() as tx:
        _note(here, tx, attempt, outcome=Result.FAILED, detail=detail, known=known)


def _note(
    here: Surroundings,
    tx: Connection,
    attempt: _Attempt,
    *,
    outcome: Result,
    detail: str = "",
    known: Person | None = None,
) -> None:
    """Write it down; a name that is no account's may be a password in the wrong field."""
    audit.write(
        tx,
        Action.SIGN_IN,
        at=here.clock(),
        person=known.name if known else "",
        address=attempt.address,
        outcome=outcome,
        detail=detail,
    )


def _begin(here: Surroundings, attempt: _Attempt, person: Person, *, before: str) -> str | None:
    """Open a session with a token that nobody has seen; the one before it is over.

    Returns:
        The token; `None` where the account was removed, or its password changed, meanwhile.
    """
    token, now = security.new_token(), here.clock()
    ends_at = now + here.configuration.web.session_hours * 3600
    renewed = (
        passwords.hashed(attempt.password) if passwords.is_dated(person.password_hash) else None
    )
    with counting, here.database.write() as tx:
        if not people.is_as_it_was(tx, person):
            return None
        people.take_back(tx, people.address_key(attempt.address))
        people.forget_failures(tx, people.account_key(person.name))
        if before:
            people.end(tx, before)
        if renewed is not None:
            people.rehash(tx, person.name, password_hash=renewed, at=now)
        people.begin(tx, token, name=person.name, address=attempt.address, at=now, ends_at=ends_at)
        _note(here, tx, attempt, outcome=Result.DONE, known=person)
    return token


@router.post("/sign-out")
def sign_out(request: Request, act: ActOfViewer) -> Response:
    """End the session."""
    here = surroundings.of(request)
    with here.database.write() as tx:
        people.end(tx, security.session_of(request))
        audit.write(
            tx,
            Action.SIGN_OUT,
            at=here.clock(),
            person=act.visitor.name,
            address=act.visitor.address,
        )
    asked = provider.of(request) if act.visitor.issuer else None
    has_more = asked is not None and asked.end_session()
    response = RedirectResponse("/sign-in?left=provider" if has_more else "/sign-in", 303)
    security.drop_session(response, here)
    return response


def form_page(
    request: Request, *, where: str, said: str = "", status: int = 200, has_left: bool = False
) -> Response:
    """The page to sign in on, with what is to be said."""
    here = surroundings.of(request)
    token = security.form_token(request)
    response = shown(
        request,
        "sign_in.html",
        status=status,
        where=local(where),
        said=said,
        word=security.word_of(token),
        button=here.configuration.oidc.button if here.configuration.oidc.issuer else "",
        has_left=has_left,
    )
    security.set_form_token(response, here, token)
    return response


def local(where: str) -> str:
    """A path on this server; the first page for everything else, another host above all."""
    is_path = where.startswith("/") and not where.startswith(("//", "/\\"))
    return where if is_path and where.isprintable() else "/"


def spoken(seconds: float) -> str:
    """A wait, for people."""
    whole = math.ceil(seconds)
    return f"{whole} seconds" if whole < 120 else f"{math.ceil(whole / 60)} minutes"  # noqa: PLR2004
