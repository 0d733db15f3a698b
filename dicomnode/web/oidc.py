"""Signing in at an OpenID Connect provider: to it, back from it, and out of it.

The provider is asked when somebody presses the button, and at no other time: while it is away the
accounts of the node sign in as ever.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from fastapi import APIRouter, HTTPException
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from dicomnode import log, oidc
from dicomnode.archive.access import audit, people
from dicomnode.archive.access.audit import Action, Result
from dicomnode.archive.access.people import Role
from dicomnode.errors import Failed, NodeError
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
    security.set_flow(response, here, flow)
    return response


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
        found = asked.finish(
            flow, {key: one for key, one in said.items() if one is not None}, at=here.clock()
        )
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
            people.dismiss(tx, issuer=found.issuer, subject=found.subject)
        raise
    token = security.new_token()
    ends_at = now + here.configuration.web.session_hours * 3600
    with signing.counting, here.database.write() as tx:
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
            _note(tx, attempt, found.name, detail=f"{_BY}, {role}")
    if not is_in:
        raise SignInRefused(
            "name-taken",
            f"The name {found.name} is another account's here. Whoever runs the node can remove"
            " that one: dicomnode users remove.",
            name=found.name,
        )
    return token


def _note(tx: Connection, attempt: _Attempt, name: str, *, detail: str) -> None:
    audit.write(
        tx,
        Action.SIGN_IN,
        at=attempt.here.clock(),
        person=name,
        address=attempt.address,
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
    with here.database.write() as tx:
        audit.write(
            tx,
            Action.SIGN_IN,
            at=here.clock(),
            person=error.name if isinstance(error, SignInRefused) else "",
            address=security.address(request),
            outcome=Result.REFUSED if isinstance(error, Failed) else Result.FAILED,
            detail=f"{_BY}: {error.reason}",
        )
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
