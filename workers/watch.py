"""Whether this worker runs with the configuration that is in force, and what is done about it.

A worker runs what the node has in force, or what it ran before; never a third thing. The node's row
says which one that is. Where it is another than before, the worker reads its own file: what says
the same as the node's is taken up, by beginning anew once what runs has ended; anything else is
left alone, and the page says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from dicomnode import config, log
from dicomnode.archive.work import in_force
from dicomnode.archive.work.in_force import InForce
from dicomnode.bundle import Bundle
from dicomnode.config import Configuration
from dicomnode.config.difference import concerns_workers, waits_in_workers
from dicomnode.errors import Misconfigured
from workers.context import Context

_log = log.get(__name__)

_EVERY_S = 1.0
# A file that does not say what is in force may be brought up to date at any time.
_LOOK_AGAIN_S = 5.0


@dataclass(frozen=True, kw_only=True)
class Own:
    """What a worker was started with.

    Attributes:
        bundles: Reads the bundles of a configuration; none for one that only delivers.
    """

    file: Path
    configuration: Configuration
    bundles: Callable[[Configuration], Mapping[str, Bundle]]


class Watch:
    """Looks, now and then, at what is in force. One thread uses it."""

    def __init__(self, own: Own, *, loaded: Mapping[str, Bundle]) -> None:
        self._own = own
        self._running = own.configuration
        self._digests = {name: one.digest for name, one in loaded.items()}
        self._serial = -1
        self._behind = self._logged = ""
        self._look_at = 0.0
        self._read_at = 0.0

    def look_now(self) -> None:
        """Do not wait for the next time: somebody has said that the file has changed."""
        self._look_at = self._read_at = 0.0

    def look(self, context: Context) -> bool:
        """Look, if it is time; whether the worker is to begin anew.

        Raises:
            RetryLater: `database-unavailable`.
        """
        now = time.monotonic()
        if now < self._look_at:
            return False
        self._look_at = now + _EVERY_S
        with context.database.read() as tx:
            current = in_force.current(tx)
        if current is None or not self._has_to_read(current, now):
            return False
        self._read_at = now + _LOOK_AGAIN_S
        begin_anew = self._read(current)
        if not begin_anew:
            self._report(context, current.serial)
            # Only now: of what was not written down the worker would count as behind for ever.
            self._serial = current.serial
        return begin_anew

    def _has_to_read(self, current: InForce, now: float) -> bool:
        return current.serial != self._serial or (bool(self._behind) and now >= self._read_at)

    def _read(self, current: InForce) -> bool:
        """Compare the file with what is in force; whether the worker is to begin anew."""
        try:
            proposed = config.load(self._own.file)
            digests = {name: one.digest for name, one in self._own.bundles(proposed).items()}
        except Misconfigured as error:
            self._stays(current, f"its file cannot be used ({error.reason})")
            return False
        if config.digest(proposed) != current.digest:
            self._stays(current, "its file says something else than what the node has in force")
            return False
        waiting = waits_in_workers(self._running, proposed)
        if waiting:
            self._behind = f"waits for a restart: {', '.join(one.path for one in waiting)}"
            return False
        self._behind = ""
        if concerns_workers(self._running, proposed) or digests != self._digests:
            return True
        self._running = proposed
        return False

    def _stays(self, current: InForce, why: str) -> None:
        """Go on as before. That is well where it is what the node has in force, too."""
        self._behind = "" if config.digest(self._running) == current.digest else why

    def _report(self, context: Context, serial: int) -> None:
        with context.database.write() as tx:
            in_force.report(
                tx,
                owner=context.owner,
                serial=serial,
                digest=config.digest(self._running),
                behind=self._behind,
            )
        if self._behind and self._behind != self._logged:
            _log.warning("other configuration", worker=context.owner, detail=self._behind)
        self._logged = self._behind
