"""Security alerts of refused associations: of one machine and one reason, one in a minute.

Who tries a thousand times a second must not push everything else out of the outbox. The journal has
each refusal.
"""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import Connection

from dicomnode.archive.arrival import TurnedAway
from dicomnode.archive.auditing import outbox, told

#: Seconds in which the same refusal is told of once.
QUIET_S = 60.0
# Who has not come back for so long is forgotten, with what was not told of.
_FORGET_S = 3600.0

_Key = tuple[str, str]


class Refusals:
    """Who was refused last, and why. For one thread."""

    def __init__(self) -> None:
        self._told_at: dict[_Key, float] = {}
        self._untold: dict[_Key, int] = {}
        # What was decided of the refusals that are not written down yet: a transaction that is
        # tried again tells the same. By identity, as two refusals may look the same.
        self._decided: dict[int, tuple[TurnedAway, TurnedAway | None]] = {}

    def tell(self, tx: Connection, arrival: TurnedAway) -> None:
        """Tell of a refusal, unless another one like it was told of a moment ago."""
        if arrival.association or arrival.reason not in told.ALERTS or not outbox.is_recorded(tx):
            return
        if id(arrival) not in self._decided:
            self._decided[id(arrival)] = arrival, self._alert(arrival)
        _, alert = self._decided[id(arrival)]
        if alert is not None:
            told.turned_away(tx, alert)

    def forget(self) -> None:
        """What was told of is written down."""
        self._decided.clear()

    def _alert(self, arrival: TurnedAway) -> TurnedAway | None:
        """What is told of a refusal, if anything."""
        key = (arrival.address, arrival.reason)
        if arrival.at - self._told_at.get(key, -QUIET_S) < QUIET_S:
            self._untold[key] = self._untold.get(key, 0) + 1
            return None
        more = self._untold.pop(key, 0)
        self._leave_out_quiet(at=arrival.at)
        self._told_at[key] = arrival.at
        if not more:
            return arrival
        return replace(arrival, detail=f"{arrival.detail} {more} more such since the last alert.")

    def _leave_out_quiet(self, *, at: float) -> None:
        """There are many addresses: not each that ever came is kept in mind."""
        for key, told_at in list(self._told_at.items()):
            keep_s = _FORGET_S if key in self._untold else QUIET_S
            if told_at < at - keep_s:
                del self._told_at[key]
                self._untold.pop(key, None)
