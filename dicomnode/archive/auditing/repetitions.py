"""What associations that are open brought which was there before: no row says so.

It is told of when they end. A node that dies before forgets it; the instances themselves were told
of when they came first.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable

from sqlalchemy import Connection

from dicomnode.archive.arrival import Arrival, Ended, Stored
from dicomnode.archive.auditing import outbox
from dicomnode.archive.disk.files import sop_instance_uid_of
from dicomnode.auditing.codes import Kind


class Repetitions:
    """Association → the instances that came once more. For one thread."""

    def __init__(self) -> None:
        self._uids: dict[str, set[str]] = defaultdict(set)

    def note(self, tx: Connection, stored: Iterable[Stored]) -> None:
        """Keep in mind what came once more, where somebody is told of it."""
        if outbox.recorder(tx, Kind.TRANSFER) is not None:
            for one in stored:
                self._uids[one.association].add(sop_instance_uid_of(one.path))

    def of(self, association: str) -> Collection[str]:
        """The SOP Instance UIDs of what an association brought once more."""
        return self._uids.get(association, ())

    def forget(self, arrivals: Iterable[Arrival]) -> None:
        """The ends among these are written down."""
        for one in arrivals:
            if isinstance(one, Ended):
                self._uids.pop(one.association, None)
