"""What a listener has under way, as far as it has said: who is to be ended when it dies."""

from __future__ import annotations

from dataclasses import dataclass

from dicomnode.archive.arrival import Arrival, End, Ended, Opened, Stored, TurnedAway


@dataclass(kw_only=True)
class _Brought:
    """What an association that is open has brought."""

    stored: int = 0
    refused: int = 0


class Ledger:
    """The open associations of one listener."""

    def __init__(self) -> None:
        self._open: dict[str, _Brought] = {}

    def note(self, fact: Arrival) -> None:
        """Take note of a fact, in its order."""
        if isinstance(fact, Opened):
            self._open[fact.association] = _Brought()
        elif isinstance(fact, Ended):
            self._open.pop(fact.association, None)
        elif fact.association in self._open:
            brought = self._open[fact.association]
            brought.stored += isinstance(fact, Stored)
            brought.refused += isinstance(fact, TurnedAway)

    def unended(self, *, at: float) -> list[Ended]:
        """The end of each association that is open; nobody saw it."""
        return [
            Ended(
                association=association,
                end=End.UNKNOWN,
                stored=brought.stored,
                refused=brought.refused,
                at=at,
            )
            for association, brought in self._open.items()
        ]
