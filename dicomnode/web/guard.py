"""What stands before every page: headers, the longest body, and the edge where errors end."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dicomnode import log

_log = log.get(__name__)

#: The longest body that is read: a form.
MAX_BODY_BYTES = 64 * 1024
#: The longest head: what is asked for, and the headers.
MAX_HEAD_BYTES = 32 * 1024
#: Seconds within which it must be there, however it trickles in.
BODY_S = 15.0

# Everything comes from this server, nothing is inline, and nobody frames it. No
# Strict-Transport-Security: it would bind every other service on this host as well.
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
        " connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Not "no-referrer": a form would then be sent with the origin "null".
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
_KEPT = "/static/"
# What was not read to its end: nothing more is taken from whoever sent it.
_LAST_WORDS = {400, 408, 413, 431}


class TooLong(ValueError):
    """A body is longer than any form."""


class TooLongHead(ValueError):
    """A head is longer than any browser's."""


class NoText(ValueError):
    """Something has a NUL in it: no name has, and not every database can be asked for one."""


class TooSlow(ValueError):
    """A body does not arrive."""


class Ambiguous(ValueError):
    """A body ends in two places: a proxy before us may think that it is the other one."""


_SAID = {
    TooLong: (413, "This is longer than any form."),
    TooLongHead: (431, "This is longer than anything that a browser asks."),
    NoText: (404, "There is nothing here."),
    TooSlow: (408, "The form did not arrive in time."),
    Ambiguous: (400, "This request says twice how long it is."),
}


class Guard:
    """Wraps the application."""

    def __init__(self, inner: ASGIApp) -> None:
        self._inner = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return  # there is nothing else here
        begun = False

        async def with_headers(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                _add_headers(message, path=scope["path"])
            await send(message)

        try:
            _look_at_head(scope)
            await self._inner(scope, _limited(receive), with_headers)
        except (TooLong, TooLongHead, NoText, TooSlow, Ambiguous) as error:
            status, said = _SAID[type(error)]
            await _answer(scope, receive, with_headers, said, status=status)
        except Exception as error:  # noqa: BLE001 - the edge of the page: the node goes on
            # Neither the query nor the form is told: they may name a patient.
            _log.exception("page failed", path=scope["path"], error=type(error).__name__)
            if not begun:
                said = "Something went wrong here; the log of the node says more."
                await _answer(scope, receive, with_headers, said, status=500)


async def _answer(scope: Scope, receive: Receive, send: Send, text: str, *, status: int) -> None:
    await PlainTextResponse(text, status)(scope, receive, send)


def _add_headers(message: Message, *, path: str) -> None:
    headers = MutableHeaders(scope=message)
    for name, value in HEADERS.items():
        headers[name] = value
    if message["status"] in _LAST_WORDS:
        headers["Connection"] = "close"
    if not path.startswith(_KEPT):
        headers["Cache-Control"] = "no-store"


def _head_bytes(scope: Scope) -> int:
    headers = sum(len(name) + len(value) for name, value in scope["headers"])
    return headers + len(scope["path"]) + len(scope["query_string"])


def _look_at_head(scope: Scope) -> None:
    """Refuse what is no browser's before any of it is used."""
    if _head_bytes(scope) > MAX_HEAD_BYTES:
        raise TooLongHead("the head")
    if "\0" in scope["path"] or b"%00" in scope["query_string"]:
        raise NoText("%00")
    given = dict(scope["headers"])
    if b"content-length" in given and b"transfer-encoding" in given:
        raise Ambiguous("RFC 9112 6.1")
    announced = given.get(b"content-length", b"0")
    read = int(announced) if announced.isdigit() else 0
    if read > MAX_BODY_BYTES:
        raise TooLong(f"{read} bytes")


def _limited(receive: Receive) -> Receive:
    """The same body, as far as it may go."""
    seen, is_whole = 0, False
    until = asyncio.get_running_loop().time() + BODY_S

    async def limited() -> Any:
        nonlocal seen, is_whole
        if is_whole:
            return await receive()  # whether somebody is still there: that may take for ever
        try:
            async with asyncio.timeout_at(until):
                message = await receive()
        except TimeoutError as error:
            raise TooSlow from error
        seen += len(message.get("body", b""))
        is_whole = not message.get("more_body", False)
        if seen > MAX_BODY_BYTES:
            raise TooLong(f"{seen} bytes")
        return message

    return limited
