"""Signing in at an OpenID Connect provider: to it, back from it, and out of it.

The provider is asked when somebody presses the button, and at no other time: while it is away the
accounts of the node sign in as ever.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from fastapi import APIRouter, HTTPException
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from dicomnode import log, oidc
from dicomnode.archive.access import audit, people
from dicomnode.archive.access.audit import Action, Result
from dicomnode.archive.access.people import Person, Role
from dicomnode.errors import Failed, Misconfigured, NodeError, RetryLater
from dicomnode.oidc import Flow, Identity, Provider, SignInRefused
from dicomnode.oidc.flow import LASTS_S
from dicomnode.web import provider, security, signing, surroundings
from dicomnode.web.shown import shown
from dicomnode.web.surroundings import Surroundings

_log = log.get(__name__)

router = APIRouter()

_BY = "OpenID Connect"


@dataclass(frozen=True, kw_only=True)
class _Attempt:
    """An answer of the provider that a browser has brought."""

    here: Surroundings
    provider: Provider
    flow: Flow
    address: str
    before: str


@router.get("/sign-in/oidc")
def begin(request: Request, next: str = "/") -> Response:  # noqa: A002 - as the URL says
    """Send the browser to the provider."""
    asked = _provider(request)
    where = signing.local(next)
    here = surroundings.of(request)
    if not security.is_from_here(request):
        # Another site may not send people through a sign-in that they have not asked for.
        return signing.form_page(request, where=where)
    flow = Flow.begin(security.new_token(), at=here.clock(), where=where)
    try:
        response = RedirectResponse(asked.begin(flow), 303)
    except NodeError as error:
        return _not_let_in(request, error, where=where)
    _leave_session(request, response)
    security.set_flow(response, here, flow)
    return response


def _leave_session(request: Request, response: Response) -> None:
    """End the session that there is: its "strict" cookie does not come with the answer."""
    here, before = surroundings.of(request), security.session_of(request)
    if before:
        with here.database.write() as tx:
            people.end(tx, before)
        security.drop_session(response, here)


@router.get("/sign-in/oidc/answer")
def answer(
    request: Request,
    code: str = "",
    state: str = "",
    error: str | None = None,
    iss: str | None = None,
) -> Response:
    """Take the provider's answer, and open a session."""
    asked = _provider(request)
    flow = security.flow_of(request)
    if flow is None or not flow.is_answered_by(state):
        refusal = SignInRefused(
            "not-begun-here",
            "This sign-in was not begun in this browser, or is too old. Try again.",
        )
        return _not_let_in(request, refusal, where="/")
    here = surroundings.of(request)
    attempt = _Attempt(
        here=here,
        provider=asked,
        flow=flow,
        address=security.address(request),
        before=security.session_of(request),
    )
    said = {"code": code, "error": error, "iss": iss}
    try:
        _count(attempt)
        found = _finish(attempt, {key: one for key, one in said.items() if one is not None})
        token = _enter(attempt, found)
    except NodeError as fault:
        return _not_let_in(request, fault, where=flow.where)
    return _let_in(request, token, where=flow.where)


@router.get("/sign-out/oidc")
def leave(request: Request) -> Response:
    """Send the browser to where the provider ends its own session."""
    where = _provider(request).end_session()
    if not where:
        raise HTTPException(404)
    return RedirectResponse(where, 303)


def _provider(request: Request) -> Provider:
    found = provider.of(request)
    if found is None:
        raise HTTPException(404)
    return found


def _count(attempt: _Attempt) -> None:
    """Count it before it is made, and take each answer once.

    Raises:
        SignInRefused: `too-many-attempts`, `answered-twice`.
    """
    here, now = attempt.here, attempt.here.clock()
    key = people.address_key(attempt.address)
    with signing.counting, here.database.write() as tx:
        wait_s = people.count_failure(tx, key, patience=signing.ADDRESS, at=now)
        is_first = not wait_s and people.take_once(
            tx, attempt.flow.digest, at=now, ends_at=attempt.flow.begun_at + LASTS_S + 1
        )
    if wait_s:
        said = f"Too many attempts. Wait {signing.spoken(wait_s)}, then try again."
        raise _TooMany("too-many-attempts", said, wait_s=wait_s)
    if not is_first:
        raise SignInRefused("answered-twice", "This sign-in was answered before. Try again.")


def _finish(attempt: _Attempt, said: Mapping[str, str]) -> Identity:
    """Ask the provider who it is.

    Raises:
        NodeError: As `Provider.finish`.
    """
    here = attempt.here
    try:
        return attempt.provider.finish(attempt.flow, said, at=here.clock())
    except (RetryLater, Misconfigured):
        # Nobody here has failed, and the accounts of the node are to sign in from there as ever.
        with signing.counting, here.database.write() as tx:
            people.take_back(tx, people.address_key(attempt.address))
        raise


class _TooMany(SignInRefused):
    """This address has failed too often lately."""

    def __init__(self, reason: str, detail: str, *, wait_s: float) -> None:
        super().__init__(reason, detail)
        self.wait_s = wait_s


def _enter(attempt: _Attempt, found: Identity) -> str:
    """Open a session with a token that nobody has seen; the one before it is over.

    Raises:
        SignInRefused: `no-role`, `name-taken`.
    """
    here, now = attempt.here, attempt.here.clock()
    try:
        role = Role(oidc.role(found, attempt.provider.settings.roles or {}))
    except SignInRefused:
        with here.database.write() as tx:
            # Who had a role and has none any more is out everywhere.
            gone = people.dismiss(tx, issuer=found.issuer, subject=found.subject)
            if gone is not None:
                _note(tx, attempt, gone.name, Action.REMOVE_PERSON, detail=_BY)
        raise
    token = security.new_token()
    ends_at = now + here.configuration.web.session_hours * 3600
    with signing.counting, here.database.write() as tx:
        known = people.named(tx, issuer=found.issuer, subject=found.subject)
        is_in = people.admit(
            tx, found.name, role=role, issuer=found.issuer, subject=found.subject, at=now
        )
        if is_in:
            people.take_back(tx, people.address_key(attempt.address))
            if attempt.before:
                people.end(tx, attempt.before)
            people.begin(
                tx, token, name=found.name, address=attempt.address, at=now, ends_at=ends_at
            )
            for action, name in _changes(known, found.name, role):
                _note(tx, attempt, name, action, detail=f"{_BY}, {role}")
            _note(tx, attempt, found.name, Action.SIGN_IN, detail=f"{_BY}, {role}")
    if not is_in:
        raise SignInRefused(
            "name-taken",
            f"The name {found.name} is another account's here. Whoever runs the node can remove"
            " that one: dicomnode users remove.",
            name=found.name,
        )
    return token


def _changes(known: Person | None, name: str, role: Role) -> Iterator[tuple[Action, str]]:
    """What a sign-in has done to the accounts, and to which."""
    if known is not None and known.name != name:
        yield Action.REMOVE_PERSON, known.name
    if known is None or known.name != name:
        yield Action.ADD_PERSON, name
    elif known.role is not role:
        yield Action.SET_ROLE, name


def _note(tx: Connection, attempt: _Attempt, name: str, action: Action, *, detail: str) -> None:
    audit.write(
        tx,
        action,
        at=attempt.here.clock(),
        person=name,
        address=attempt.address,
        subject="" if action is Action.SIGN_IN else name,
        detail=detail,
    )


def _let_in(request: Request, token: str, *, where: str) -> Response:
    """A page that goes on by itself.

    A redirection would still belong to the provider's site, and browsers would keep the session's
    cookie from it.
    """
    here = surroundings.of(request)
    response = shown(request, "signed_in.html", where=signing.local(where))
    security.set_session(response, here, token)
    security.drop_flow(response, here)
    return response


def _not_let_in(request: Request, error: NodeError, *, where: str) -> Response:
    """Write it down, and say it: on the page whose accounts work as ever."""
    here = surroundings.of(request)
    _note_refusal(here, error, address=security.address(request))
    if isinstance(error, Failed):
        status, said = 403, error.detail
    else:
        # Why is for whoever runs the node: it may name what nobody else should know.
        _log.warning("provider does not answer", reason=error.reason, detail=error.detail)
        status = 503
        said = f"Signing in this way does not work at the moment ({error.reason}). Accounts of this"
        said += " node do; whoever runs it finds more in its log."
    response = signing.form_page(request, where=where, said=said, status=status)
    if isinstance(error, _TooMany):
        response.status_code = 429
        response.headers["Retry-After"] = str(math.ceil(error.wait_s))
    security.drop_flow(response, here)
    return response


def _note_refusal(here: Surroundings, error: NodeError, *, address: str) -> None:
    name, detail, at = "", f"{_BY}: {error.reason}", here.clock()
    with here.database.write() as tx:
        if isinstance(error, SignInRefused) and error.name:
            if people.person(tx, error.name) is None:
                name = error.name
            else:  # whose name it is here has not tried, and no line says so
                detail += f", as {error.name}"
        if not name and audit.has_such(tx, Action.SIGN_IN, at=at, address=address, detail=detail):
            return
        audit.write(
            tx,
            Action.SIGN_IN,
            at=at,
            person=name,
            address=address,
            outcome=Result.REFUSED if isinstance(error, Failed) else Result.FAILED,
            detail=detail,
        )
