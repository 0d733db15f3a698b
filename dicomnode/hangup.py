"""SIGHUP: whoever runs the node has changed its file.

A process that has not said otherwise is ended by this signal. So it is taken before anything else
is done, kept, and heard when it is time.
"""

from __future__ import annotations

import queue
import signal
import threading
from collections.abc import Callable

from dicomnode import log

_log = log.get(__name__)


class Hangups:
    """The SIGHUPs of this process. Several that come together are one."""

    def __init__(self) -> None:
        """Take the signal from now on; for the main thread."""
        # Its `put` may interrupt itself and everything else: see `ending`.
        self._heard: queue.SimpleQueue[None] = queue.SimpleQueue()
        signal.signal(signal.SIGHUP, lambda *_: self._heard.put(None))
        # Who started us may have held it back until now, so that none is lost.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})

    def follow(self, do: Callable[[], None]) -> None:
        """Do something at each, in a thread that ends with the process."""
        threading.Thread(target=self._run, args=[do], name="hangups", daemon=True).start()

    def any(self) -> bool:
        """Whether one has come since this was asked last; for who has a loop of his own."""
        came = not self._heard.empty()
        while not self._heard.empty():
            self._heard.get()
        return came

    def _run(self, do: Callable[[], None]) -> None:
        while True:
            self._heard.get()
            self.any()
            try:
                do()
            except Exception:  # noqa: BLE001 - the edge of this thread: the next one is heard, too
                _log.exception("reload failed")


def hold_back() -> None:
    """Keep SIGHUP for a process that is started here until it makes its `Hangups`."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
