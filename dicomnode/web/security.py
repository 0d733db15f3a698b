"""Who may do what: sessions, roles, and forms that only our own pages can send.

A session is a random token in a cookie that scripts do not see and other sites do not send; the
database has its SHA-256. Every form carries a word that follows from the token: a page that cannot
read ours cannot know it. Browsers also say where a request comes from, and are believed when they
say: from elsewhere.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Annotated, Any, Literal, cast
from urllib.parse import urlsplit

from fastapi import Depends, HTTPException
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from dicomnode.archive.access import audit, people
from dicomnode.archive.access.audit import Action, Result
from dicomnode.archive.access.people import Person, Role
from dicomnode.oidc.flow import LASTS_S, Flow
from dicomnode.web import surroundings
from dicomnode.web.surroundings import Surroundings

#: The field, or the header, that a form's word comes in.
FIELD = "csrf"
HEADER = "x-csrf"

_TOKEN_BYTES = 32
_MOST_FIELDS = 32
_SESSION = "dicomnode"
_FORM = "dicomnode-form"
_FLOW = "dicomnode-oidc"
# RFC 6265bis: a browser takes such a cookie from this host alone, over TLS alone.
_HOST_ONLY = "__Host-"


@dataclass(frozen=True, kw_only=True)
class Visitor:
    """Who asks.

    Attributes:
        name: Of the account.
        issuer: The provider that has named this one; "" for an account of the node itself.
        word: What the forms of this session carry.
        address: Where the request comes from.
    """

    name: str
    role: Role
    word: str
    address: str
    issuer: str = ""

    def may(self, role: Role | str) -> bool:
        """Whether this one may do what somebody of that role may."""
        return self.role.includes(Role(role))


@dataclass(frozen=True, kw_only=True)
class Act:
    """A form that was sent by somebody who may."""

    visitor: Visitor
    form: FormData

    def text(self, field: str) -> str:
        """One field; "" where it is not there, or a file."""
        value = self.form.get(field, "")
        return value.strip() if isinstance(value, str) else ""


def new_token() -> str:
    """256 random bits."""
    return secrets.token_urlsafe(_TOKEN_BYTES)


def word_of(token: str) -> str:
    """What a form carries that belongs to the cookie with this token."""
    return hashlib.sha256(f"form\x1f{token}".encode()).hexdigest()


def address(connection: HTTPConnection) -> str:
    """Where a request comes from."""
    return connection.client.host if connection.client else ""


def session_of(request: HTTPConnection) -> str:
    """The token of the session cookie; "" where there is none."""
    return request.cookies.get(_named(_SESSION, surroundings.of(request)), "")


def set_session(response: Response, here: Surroundings, token: str) -> None:
    """Give the browser its session."""
    lasts_s = int(here.configuration.web.session_hours * 3600)
    _set(response, here, _SESSION, token, max_age=lasts_s)


def drop_session(response: Response, here: Surroundings) -> None:
    """Take it back."""
    response.delete_cookie(
        _named(_SESSION, here), secure=here.is_secure, httponly=True, samesite="strict"
    )


def form_token(request: Request) -> str:
    """The token of somebody who has not signed in yet: the one that the browser has, or a new."""
    return request.cookies.get(_named(_FORM, surroundings.of(request)), "") or new_token()


def set_form_token(response: Response, here: Surroundings, token: str) -> None:
    """Let the browser keep the token that the sign-in form belongs to."""
    _set(response, here, _FORM, token, max_age=None)


def flow_of(request: Request) -> Flow | None:
    """The sign-in that this browser has begun at a provider; `None` where there is none."""
    here = surroundings.of(request)
    return Flow.read(request.cookies.get(_named(_FLOW, here), ""), at=here.clock())


def set_flow(response: Response, here: Surroundings, flow: Flow) -> None:
    """Let the browser keep what its sign-in at a provider is bound to.

    It comes back with a navigation that another site has begun, the provider's: "strict" would keep
    it away.
    """
    _set(response, here, _FLOW, flow.cookie, max_age=LASTS_S, samesite="lax")


def drop_flow(response: Response, here: Surroundings) -> None:
    """Take it back: it has been answered."""
    response.delete_cookie(
        _named(_FLOW, here), secure=here.is_secure, httponly=True, samesite="lax"
    )


def _set(
    response: Response,
    here: Surroundings,
    name: str,
    value: str,
    *,
    max_age: int | None,
    samesite: Literal["strict", "lax"] = "strict",
) -> None:
    response.set_cookie(
        _named(name, here),
        value,
        max_age=max_age,
        path="/",
        secure=here.is_secure,
        httponly=True,
        samesite=samesite,
    )


def _named(name: str, here: Surroundings) -> str:
    return f"{_HOST_ONLY}{name}" if here.is_secure else name


def visitor_of(request: HTTPConnection) -> Visitor | None:
    """Who asks; `None` where nobody has signed in."""
    token = session_of(request)
    found = _person(surroundings.of(request), token) if token else None
    if found is None:
        return None
    return Visitor(
        name=found.name,
        role=found.role,
        word=word_of(token),
        address=address(request),
        issuer=found.issuer,
    )


def _person(here: Surroundings, token: str) -> Person | None:
    """Whose session it is; one whom a provider named that is none any more is nobody."""
    with here.database.read() as tx:
        found = people.signed_in(tx, token, at=here.clock())
    if found is None or found.issuer in ("", here.configuration.oidc.issuer):
        return found
    return None


def needs(role: Role) -> Callable[[Request], Visitor]:
    """What a page depends on that somebody of that role may see."""

    def visitor(request: Request) -> Visitor:
        found = visitor_of(request)
        if found is None:
            raise HTTPException(401)
        if not found.may(role):
            _refuse(request, found, f"needs {role}")
        request.state.visitor = found
        return found

    return visitor


def acting(role: Role) -> Callable[[Request], Coroutine[Any, Any, Act]]:
    """What a page depends on that changes something, as somebody of that role may."""
    look = needs(role)

    async def act(request: Request) -> Act:
        visitor = await run_in_threadpool(look, request)
        form = await form_of(request)
        if not (is_from_here(request) and _has_word(request, form, visitor.word)):
            await run_in_threadpool(_refuse, request, visitor, "the form is not of this session")
        return Act(visitor=visitor, form=form)

    return act


async def form_of(request: Request) -> FormData:
    """The form that was sent: some fields, and no file.

    Raises:
        HTTPException: 400 where it is none, 422 where a field is no text.
    """
    try:
        form = await request.form(max_files=0, max_fields=_MOST_FIELDS)
        written = "".join(str(value) for _, value in form.multi_items()).encode()
    except UnicodeError as error:  # whoever sends it names the charset
        raise HTTPException(422) from error
    if b"\0" in written:
        raise HTTPException(422)  # not every database can be asked for that
    return form


#: What a page asks for: somebody who may see it, or who may send its form.
Viewer = Annotated[Visitor, Depends(needs(Role.VIEWER))]
Administrator = Annotated[Visitor, Depends(needs(Role.ADMINISTRATOR))]
ActOfViewer = Annotated[Act, Depends(acting(Role.VIEWER))]
ActOfOperator = Annotated[Act, Depends(acting(Role.OPERATOR))]
ActOfAdministrator = Annotated[Act, Depends(acting(Role.ADMINISTRATOR))]


def is_from_here(request: Request) -> bool:
    """Whether the browser does not say that a form comes from another site."""
    fetched = request.headers.get("sec-fetch-site", "same-origin")
    origin = request.headers.get("origin")
    host = request.headers.get("host", "")
    return fetched == "same-origin" and (origin is None or _host_of(origin) == host)


def _host_of(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:  # no browser says such a thing
        return None


def _has_word(request: Request, form: FormData, word: str) -> bool:
    given = form.get(FIELD) or request.headers.get(HEADER, "")
    return isinstance(given, str) and is_word(given, word)


def is_word(given: str, word: str) -> bool:
    """Compare, without telling how much of it is right."""
    return hmac.compare_digest(given.encode(), word.encode())


def _refuse(request: Request, visitor: Visitor, why: str) -> None:
    here = surroundings.of(request)
    note(
        here,
        visitor,
        Action.REFUSED,
        subject=f"{request.method} {request.url.path}",
        outcome=Result.REFUSED,
        detail=why,
    )
    raise HTTPException(403, why)


def note(
    here: Surroundings,
    visitor: Visitor,
    action: Action,
    *,
    subject: str,
    outcome: Result = Result.DONE,
    detail: str = "",
    study: str = "",
) -> None:
    """Add a line to the audit trail, in a transaction of its own."""
    with here.database.write() as tx:
        audit.write(
            tx,
            action,
            at=here.clock(),
            person=visitor.name,
            address=visitor.address,
            subject=subject,
            outcome=outcome,
            detail=detail,
            study=study,
        )


def seen(request: Request) -> Visitor | None:
    """Who was let in to this request, for what every page shows."""
    return cast("Visitor | None", getattr(request.state, "visitor", None))
