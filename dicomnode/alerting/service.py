"""Alerts in threads of the node: one looks, another tells. Neither holds up anything else."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable
from contextlib import suppress

from dicomnode import log
from dicomnode.alert import Channel
from dicomnode.alerting.helpers import Helpers
from dicomnode.alerting.postman import Postman
from dicomnode.alerting.watcher import Watcher
from dicomnode.archive.database import Database
from dicomnode.config import Configuration
from dicomnode.errors import RetryLater

_log = log.get(__name__)

_LOOK_EVERY_S = 5.0
_SEND_EVERY_S = 1.0
_CLEAR_EVERY_S = 3600.0
_STOP_S = 5.0


class Alerting:
    """Looks for what is wrong and tells of it. `start`, then `stop`.

    A mail server that hangs keeps its channel waiting, at most for as long as an attempt may take;
    what is wrong is written down meanwhile, the other channel tells of it, and nothing of the node
    waits for either thread.
    """

    def __init__(
        self,
        database: Database,
        configuration: Callable[[], Configuration],
        *,
        clock: Callable[[], float],
    ) -> None:
        """Prepare.

        Args:
            database: Where the account of alerts is kept.
            configuration: What is in force, whenever it is asked for.
            clock: Seconds since the epoch.
        """
        self._database = database
        self._configuration = configuration
        self._clock = clock
        self._stop = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._telling: asyncio.Task[None] | None = None
        self._threads = [
            threading.Thread(target=self._watch, name="alerts", daemon=True),
            threading.Thread(target=self._tell, name="alert messages", daemon=True),
        ]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End; a message that is just being sent is sent again after the next start."""
        self._stop.set()
        loop, task = self._loop, self._telling
        if loop is not None and task is not None:
            with suppress(RuntimeError):  # it has ended by itself
                loop.call_soon_threadsafe(task.cancel)
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(_STOP_S)

    def _watch(self) -> None:
        watcher = Watcher(self._database, started_at=self._clock())
        cleared_at = -math.inf
        while not self._stop.wait(_LOOK_EVERY_S):
            now = self._clock()
            try:
                watcher.step(self._configuration(), now=now)
                if now - cleared_at >= _CLEAR_EVERY_S:
                    watcher.clear(now=now)
                    cleared_at = now
            except RetryLater as error:
                _log.warning("alerts wait", reason=error.reason, detail=error.detail)
            except Exception:  # noqa: BLE001 - the edge of this thread: without it nobody is told
                _log.exception("alerts failed")

    def _tell(self) -> None:
        with suppress(asyncio.CancelledError):
            asyncio.run(self._tell_on())

    async def _tell_on(self) -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(Helpers())
        self._telling, self._loop = asyncio.current_task(), loop
        postman = Postman(self._database, clock=self._clock)
        async with asyncio.TaskGroup() as group:
            for channel in Channel:
                group.create_task(self._tell_by(channel, postman))

    async def _tell_by(self, channel: Channel, postman: Postman) -> None:
        while not self._stop.is_set():
            await postman.send_one(channel, self._configuration())
            await asyncio.sleep(_SEND_EVERY_S)
