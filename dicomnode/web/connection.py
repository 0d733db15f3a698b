"""A connection to the page: it says within a time what it wants, or is closed.

uvicorn waits for as long as anybody likes to send half a request, and the page takes so many
connections and no more: a few hundred that say nothing would keep everybody else out.
"""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from dicomnode.web.guard import HEADERS

#: Seconds within which the head of a request must be there, counted from when it may begin.
REQUEST_S = 15.0


class Connection(H11Protocol):
    """HTTP/1.1, for those who do not dawdle."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._until: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Somebody is there."""
        super().connection_made(transport)
        self._expect_request()

    def data_received(self, data: bytes) -> None:
        """Some of a request, or all of it."""
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        """One is answered; the next may begin, or be there already."""
        self._expect_request()
        super().on_response_complete()
        self._look()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no request, as everything is answered: see `guard`."""
        headers = {"Content-Type": "text/plain; charset=utf-8", "Cache-Control": "no-store"}
        told = [*(HEADERS | headers).items(), ("Connection", "close")]
        for part in (
            h11.Response(status_code=400, headers=told, reason=b"Bad Request"),
            h11.Data(data=msg.encode()),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(part) or b"")
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody is there any more."""
        super().connection_lost(exc)
        self._stop_waiting()

    def _expect_request(self) -> None:
        self._stop_waiting()
        self._until = self.loop.call_later(REQUEST_S, self._too_late)

    def _look(self) -> None:
        is_answering = self.cycle is not None and not self.cycle.response_complete
        if is_answering or self.transport.is_closing():
            self._stop_waiting()

    def _stop_waiting(self) -> None:
        if self._until is not None:
            self._until.cancel()
            self._until = None

    def _too_late(self) -> None:
        # Not `close`, which would wait for somebody who does not read either.
        self.transport.abort()
