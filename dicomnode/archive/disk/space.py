"""Whether the disk has room for one more instance, asked before it is made safe.

Nothing is ever deleted to make room: what does not fit is turned away while there is still space
for what was begun, for the database, and for the results. Below `min_free` a study that is being
received may come to its end and a new one is refused; below `floor` everything is. What lies under
the floor is what database, results and retention work with until somebody has made room.
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

from dicomnode import log, status
from dicomnode.errors import NodeError, Refused

_log = log.get(__name__)

# The index knows of an instance a moment after it was admitted; where the database itself has no
# room, when that is over. Each further instance of the study begins this time anew.
_LATELY_S = 60.0
_REMEMBERED = 4096  # studies; far more than are being received at once


class Level(StrEnum):
    """How much room there is."""

    ENOUGH = "enough"
    NEARLY_FULL = "nearly full"
    FULL = "full"


class Space:
    """The gate of the receiver: any thread may ask, each process has its own."""

    def __init__(
        self,
        data_dir: Path,
        *,
        min_free_bytes: int,
        floor_bytes: int,
        is_open: Callable[[str], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare.

        Args:
            data_dir: Any folder of the file system that is watched.
            min_free_bytes: Below it new studies are refused.
            floor_bytes: Below it everything is.
            is_open: Whether the index says that a study is being received. May raise a `NodeError`
                where it cannot tell.
            clock: Seconds that only ever grow.
        """
        self._data_dir = data_dir
        self._min_free_bytes = min_free_bytes
        self._floor_bytes = floor_bytes
        self._is_open = is_open
        self._clock = clock
        self._lock = threading.Lock()
        self._level = Level.ENOUGH
        self._admitted: OrderedDict[str, float] = OrderedDict()  # study → when, oldest first

    def change(self, *, min_free_bytes: int, floor_bytes: int) -> None:
        """Go by other limits from now on."""
        with self._lock:
            self._min_free_bytes, self._floor_bytes = min_free_bytes, floor_bytes

    def admit(self, study_instance_uid: str) -> None:
        """Let an instance of this study be kept.

        Raises:
            Refused: `disk-nearly-full` for a study that is not being received, `disk-full`,
                `cannot-write` where the file system does not answer; all with A700 (PS3.4 B.2.3).
        """
        free_bytes = self._free_bytes()
        level = self._level_of(free_bytes)
        self._note(level, free_bytes)
        if level is Level.FULL:
            raise Refused(
                "disk-full",
                f"The disk of the node has {_mib(free_bytes)} free and takes nothing below"
                f" {_mib(self._floor_bytes)} (disk.floor_gib): make room, then send again.",
                status=status.OUT_OF_RESOURCES,
            )
        if level is Level.NEARLY_FULL and not self._is_being_received(study_instance_uid):
            raise Refused(
                "disk-nearly-full",
                f"The disk of the node has {_mib(free_bytes)} free and takes no new study below"
                f" {_mib(self._min_free_bytes)} (disk.min_free_gib): make room, then send again.",
                status=status.OUT_OF_RESOURCES,
            )
        self._remember(study_instance_uid)

    def _free_bytes(self) -> int:
        """What a process without privileges may still write."""
        try:
            found = os.statvfs(self._data_dir)
        except OSError as error:
            raise Refused(
                "cannot-write",
                f"The disk of the node does not say how full it is ({error.strerror}); send again"
                " later.",
                status=status.OUT_OF_RESOURCES,
            ) from error
        return found.f_bavail * found.f_frsize

    def _level_of(self, free_bytes: int) -> Level:
        if free_bytes < self._floor_bytes:
            return Level.FULL
        return Level.NEARLY_FULL if free_bytes < self._min_free_bytes else Level.ENOUGH

    def _note(self, level: Level, free_bytes: int) -> None:
        with self._lock:
            before, self._level = self._level, level
        if level is before:
            return
        if level is Level.ENOUGH:
            _log.info("disk has room again", state=str(level), free_bytes=free_bytes)
        else:
            _log.warning("disk is filling up", state=str(level), free_bytes=free_bytes)

    def _is_being_received(self, study_instance_uid: str) -> bool:
        with self._lock:
            at = self._admitted.get(study_instance_uid)
        if at is not None and self._clock() - at <= _LATELY_S:
            return True
        try:
            return self._is_open(study_instance_uid)
        except NodeError as error:  # the database is away: a new study can wait, space cannot
            _log.warning("cannot tell an open study", reason=error.reason, detail=error.detail)
            return False

    def _remember(self, study_instance_uid: str) -> None:
        now = self._clock()
        with self._lock:
            self._admitted[study_instance_uid] = now
            self._admitted.move_to_end(study_instance_uid)
            while len(self._admitted) > _REMEMBERED:
                self._admitted.popitem(last=False)


def _mib(size: int) -> str:
    return f"{size / 2**20:.0f} MiB"
