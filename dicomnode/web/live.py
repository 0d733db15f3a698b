"""One light stream that says that something has changed; what, the page then asks for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

from fastapi import APIRouter, HTTPException
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from dicomnode.archive.asked import figures
from dicomnode.errors import NodeError
from dicomnode.web import security, surroundings
from dicomnode.web.security import Viewer
from dicomnode.web.surroundings import Surroundings

router = APIRouter()

_EVERY_S = 1.0
_STREAMS = 64
#: So often somebody who listens is asked whether the session is still open.
_ASK_AGAIN_S = 15.0


class Pulse:
    """What changes whenever something does; however many listen, it is asked for once a second."""

    def __init__(self, here: Surroundings) -> None:
        self._here = here
        self._lock = asyncio.Lock()
        self._asked_at = float("-inf")
        self._beat = ""
        self.listening = 0

    async def beat(self) -> str:
        """A text that is another one once something has changed."""
        async with self._lock:
            if time.monotonic() - self._asked_at >= _EVERY_S:
                self._beat = await run_in_threadpool(self._ask)
                self._asked_at = time.monotonic()
            return self._beat

    def _ask(self) -> str:
        try:
            with self._here.database.read() as tx:
                return figures.pulse(tx)
        except NodeError:  # it will have changed by the time that it answers again
            return self._beat


@router.get("/live")
async def live(request: Request, _visitor: Viewer) -> Response:
    """The stream."""
    pulse: Pulse = request.app.state.pulse
    if pulse.listening >= _STREAMS:
        raise HTTPException(503, "Too many pages are open.")
    return StreamingResponse(_beats(request, pulse), media_type="text/event-stream")


async def _beats(request: Request, pulse: Pulse) -> AsyncIterator[str]:
    here = surroundings.of(request)
    pulse.listening += 1
    try:
        last, asked_at = await pulse.beat(), time.monotonic()
        yield "retry: 3000\n: hello\n\n"
        while not here.ending.is_set():
            await asyncio.sleep(_EVERY_S)
            if time.monotonic() - asked_at > _ASK_AGAIN_S:
                asked_at = time.monotonic()
                if await run_in_threadpool(security.visitor_of, request) is None:
                    return
                yield ": still here\n\n"
            beat = await pulse.beat()
            if beat != last:
                last = beat
                yield f"event: changed\ndata: {beat}\n\n"
    finally:
        pulse.listening -= 1
