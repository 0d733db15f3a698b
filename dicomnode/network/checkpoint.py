"""A mend for associations that pynetdicom serves: an answer always reaches who waits for it.

An association has a thread that takes up what the peer asks. Who sends a request stops that thread
first, so that the answer is left to him. pynetdicom stops it by an event, and tells that it stands
by a flag that the thread sets before it waits and clears after: a thread that goes on, or is just
being woken, looks for a moment like one that stands. It then takes the answer, makes nothing of it,
and the sender waits in vain until its timeout. Under load one answer in a hundred was lost so.
"""

from __future__ import annotations

import threading

from pynetdicom.association import Association


class Checkpoint(threading.Event):
    """Where the thread of an association waits: from `set` on it does not stand any more.

    Whoever clears it afterwards sees that, and waits until the thread has come round again.
    """

    def __init__(self, assoc: Association) -> None:
        super().__init__()
        self._assoc = assoc
        self._changed = threading.Condition()
        self._times_set = 0
        self.set()

    def set(self) -> None:
        """Let the thread go on, once round at least."""
        with self._changed:
            super().set()
            self._times_set += 1
            self._goes_on()
            self._changed.notify_all()

    def clear(self) -> None:
        """Stop the thread when it comes here next."""
        with self._changed:
            super().clear()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the thread may go on. One that was let go on does, however soon cleared."""
        with self._changed:
            before = self._times_set
            may_go_on = self._changed.wait_for(
                lambda: self.is_set() or self._times_set != before, timeout
            )
            self._goes_on()
        return may_go_on

    def _goes_on(self) -> None:
        self._assoc._is_paused = False  # noqa: SLF001 - the flag that pynetdicom clears too late


def install(assoc: Association) -> None:
    """Mend an association whose thread does not run yet."""
    assoc._reactor_checkpoint = Checkpoint(assoc)  # noqa: SLF001 - see above
