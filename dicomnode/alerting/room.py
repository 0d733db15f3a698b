"""How much room is left on the disk of the data folder, and whether it will last the day."""

from __future__ import annotations

import os
from collections import deque
from dataclasses import dataclass
from pathlib import Path

_KEPT_S = 6 * 3600.0
_EVERY_S = 60.0
# Before so long nothing can be said of the hours to come.
_LEAST_S = 3600.0
_AHEAD_S = 24 * 3600.0


@dataclass(frozen=True, kw_only=True)
class Room:
    """What a file system says of itself.

    Attributes:
        disk: What tells it from others, on whatever machine it is looked at.
        free_bytes: What a process without privileges may still write.
    """

    disk: str
    free_bytes: int


def look(folder: Path) -> Room | None:
    """The room on the disk of a folder; `None` where it does not answer."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return None
    return Room(disk=f"{found.f_fsid:x}", free_bytes=found.f_bavail * found.f_frsize)


class Trend:
    """How the free space has changed in the last six hours of this process."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()

    def note(self, free_bytes: int, *, at: float) -> None:
        """Remember how much was free at a moment (seconds since the epoch)."""
        if self._samples and at < self._samples[-1][0]:
            self._samples.clear()  # the clock was set back
        if self._samples and at - self._samples[-1][0] < _EVERY_S:
            return
        self._samples.append((at, free_bytes))
        while at - self._samples[0][0] > _KEPT_S:
            self._samples.popleft()

    def in_a_day(self, free_bytes: int) -> float | None:
        """The bytes that will be free a day from now; `None` before an hour is known.

        A straight line through the samples, by least squares, from what is free now.
        """
        first, last = (self._samples[0][0], self._samples[-1][0]) if self._samples else (0, 0)
        if last - first < _LEAST_S:
            return None
        times = [at - first for at, _ in self._samples]
        middle = sum(times) / len(times)
        spread = sum((at - middle) ** 2 for at in times)
        slope = sum(
            (at - middle) * free for at, (_, free) in zip(times, self._samples, strict=True)
        )
        return free_bytes + slope / spread * _AHEAD_S
