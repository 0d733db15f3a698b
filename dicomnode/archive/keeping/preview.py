"""What retention would remove, and when; what it keeps, and why. Nothing is changed by looking."""

from __future__ import annotations

from dataclasses import dataclass, field

from sqlalchemy import Connection

from dicomnode.archive.keeping import retention
from dicomnode.archive.keeping.retention import Stays

DAY_S = 86_400.0
#: How far ahead is looked (days): now, a day, a week, a month.
HORIZONS = (0, 1, 7, 30)


@dataclass(kw_only=True)
class Amount:
    """So many studies, and what came of them.

    Attributes:
        size: Bytes.
    """

    studies: int = 0
    size: int = 0

    def add(self, size: int) -> None:
        """Count one more study."""
        self.studies += 1
        self.size += size


@dataclass(frozen=True, kw_only=True)
class Preview:
    """What would be removed.

    Attributes:
        days: How long studies are kept; `None`: nothing is ever removed.
        due: Days from now → everything that is due by then, what is due before among it.
        later: What may go and is due only after the last of them; where nothing is ever removed,
            all that could be.
        oldest: When something last happened to the study that is due first (s since the epoch).
        kept: Reason → what stays, whatever the time; those reasons that there are.
    """

    days: float | None
    due: dict[int, Amount]
    later: Amount
    oldest: float | None
    kept: dict[Stays, Amount] = field(default_factory=dict)


def preview(tx: Connection, *, days: float | None, now: float) -> Preview:
    """Look at every study, by the conditions of the remover.

    Args:
        days: How long studies are kept after the last thing that happened to them.
        now: Seconds since the epoch.
    """
    due, later, oldest = {ahead: Amount() for ahead in HORIZONS}, Amount(), None
    kept: dict[Stays, Amount] = {}
    for one in retention.standings(tx):
        if one.stays is not None:
            kept.setdefault(one.stays, Amount()).add(one.size)
            continue
        oldest = one.quiet_since if oldest is None else min(oldest, one.quiet_since)
        for amount in _places(one.quiet_since, days=days, now=now, due=due) or [later]:
            amount.add(one.size)
    return Preview(
        days=days,
        due=due,
        later=later,
        oldest=oldest,
        kept={why: kept[why] for why in Stays if why in kept},
    )


def _places(
    quiet_since: float, *, days: float | None, now: float, due: dict[int, Amount]
) -> list[Amount]:
    """Where a study that may go is counted."""
    if days is None:
        return []
    goes_at = quiet_since + days * DAY_S
    return [amount for ahead, amount in due.items() if goes_at <= now + ahead * DAY_S]
