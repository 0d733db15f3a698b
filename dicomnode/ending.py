"""The end of a process: told by a signal or by a thread, and waited for.

`threading.Event.set` takes a lock that the waiting thread holds for moments. A signal handler runs
in that thread: in such a moment it would wait for itself, for ever.
"""

from __future__ import annotations

import contextlib
import queue
import signal


class Ending:
    """Whether it is time to end."""

    def __init__(self) -> None:
        self._is_told = False
        # Its `put` may interrupt itself and everything else.
        self._told: queue.SimpleQueue[None] = queue.SimpleQueue()

    def tell(self) -> None:
        """It is. Any thread may say so, and any signal handler."""
        self._is_told = True
        self._told.put(None)

    def on_signals(self) -> None:
        """Be told by SIGTERM and SIGINT; for the main thread."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.tell())

    @property
    def is_told(self) -> bool:
        """Whether it was told."""
        return self._is_told

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until it is told; whether it was. One thread may wait."""
        if not self._is_told:
            with contextlib.suppress(queue.Empty):
                self._told.get(timeout=timeout_s)
        return self._is_told
