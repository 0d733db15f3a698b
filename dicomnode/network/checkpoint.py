"""A mend for associations that pynetdicom serves: an answer always reaches who waits for it.

An association has a thread that takes up what the peer asks. Who sends a request stops that thread
first, so that the answer is left to him. pynetdicom stops it by an event, and sees that it stands
by a flag that the thread sets before it waits and clears after: in between, a thread that goes on
looks like one that stands. It then takes the answer, makes nothing of it, and the sender waits in
vain until its timeout. Under load one answer in a hundred was lost so.
"""

from __future__ import annotations

import threading

from pynetdicom.association import Association


class Checkpoint(threading.Event):
    """Where the thread of an association waits; it clears its flag before anyone can stop it."""

    def __init__(self, assoc: Association) -> None:
        super().__init__()
        self._assoc = assoc
        self._passing = threading.Condition()
        self.set()

    def set(self) -> None:
        """Let the thread go on."""
        with self._passing:
            super().set()
            self._passing.notify_all()

    def clear(self) -> None:
        """Stop the thread when it comes here next."""
        with self._passing:
            super().clear()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the thread may go on: it does not stand any more when this returns."""
        with self._passing:
            is_set = self._passing.wait_for(self.is_set, timeout)
            self._assoc._is_paused = False  # noqa: SLF001 - the flag that comes too late
        return is_set


def install(assoc: Association) -> None:
    """Mend an association whose thread does not run yet."""
    assoc._reactor_checkpoint = Checkpoint(assoc)  # noqa: SLF001 - see above
