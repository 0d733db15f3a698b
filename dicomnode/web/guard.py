"""What stands before every page: headers, the longest body, and the edge where errors end."""

from __future__ import annotations

from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dicomnode import log

_log = log.get(__name__)

#: The longest body that is read: a form.
MAX_BODY_BYTES = 64 * 1024

# Everything comes from this server, nothing is inline, and nobody frames it. No
# Strict-Transport-Security: it would bind every other service on this host as well.
_HEADERS = {
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


class TooLong(ValueError):
    """A body is longer than any form."""


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
                _add_headers(MutableHeaders(scope=message), path=scope["path"])
            await send(message)

        try:
            await self._inner(scope, _limited(scope, receive), with_headers)
        except TooLong:
            await _answer(scope, receive, with_headers, "This is longer than any form.", status=413)
        except Exception as error:  # noqa: BLE001 - the edge of the page: the node goes on
            # Neither the query nor the form is told: they may name a patient.
            _log.exception("page failed", path=scope["path"], error=type(error).__name__)
            if not begun:
                said = "Something went wrong here; the log of the node says more."
                await _answer(scope, receive, with_headers, said, status=500)


async def _answer(scope: Scope, receive: Receive, send: Send, text: str, *, status: int) -> None:
    await PlainTextResponse(text, status)(scope, receive, send)


def _add_headers(headers: MutableHeaders, *, path: str) -> None:
    for name, value in _HEADERS.items():
        headers[name] = value
    if not path.startswith(_KEPT):
        headers["Cache-Control"] = "no-store"


def _limited(scope: Scope, receive: Receive) -> Receive:
    """The same body, as far as it may go."""
    announced = dict(scope["headers"]).get(b"content-length", b"0")
    read = int(announced) if announced.isdigit() else 0
    if read > MAX_BODY_BYTES:
        raise TooLong(f"{read} bytes")
    seen = 0

    async def limited() -> Any:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > MAX_BODY_BYTES:
            raise TooLong(f"{seen} bytes")
        return message

    return limited
