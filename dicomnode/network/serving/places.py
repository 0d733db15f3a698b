"""How many associations may be open at once: over everything, and for one peer.

An association that finds no place is rejected for now (PS3.8 Table 9-21: local limit exceeded); its
sender tries again.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from dicomnode.errors import Refused
from dicomnode.network import association

UNKNOWN_PEER = ""

# A count in the shared table is an unsigned integer of the machine, written in one piece.
_CELL_BYTES = 4


class Places(Protocol):
    """Where an association gets its place, and gives it back when it is over."""

    def take(self, peer: str) -> None:
        """Take a place for an association of `peer`, "" for a peer that is not configured.

        Raises:
            Refused: `too-many-associations` where none is free; nothing was taken.
        """

    def give_back(self, peer: str) -> None:
        """Give back what `take` took."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How many associations may be open at once.

    Attributes:
        total: Of all peers together.
        per_peer: Of one peer. All unknown peers together count as one.
        of_peer: The peers to which another number applies.
    """

    total: int
    per_peer: int
    of_peer: Mapping[str, int]

    def require_place(self, peer: str, *, held: int, held_by_peer: int) -> None:
        """Refuse one more association of `peer`, should so many be open already.

        Raises:
            Refused: `too-many-associations`.
        """
        limit = self.of_peer.get(peer, self.per_peer)
        if held >= self.total:
            raise _too_many(f"{held} associations are open, and listen.max_associations is that")
        if held_by_peer >= limit:
            whose = f"The peer {peer} has" if peer else "Unknown peers have"
            raise _too_many(f"{whose} {held_by_peer} associations open, and may have {limit}")


def _too_many(what: str) -> Refused:
    return Refused(
        "too-many-associations",
        f"{what}; try again later.",
        status=association.LOCAL_LIMIT_EXCEEDED,
    )


class Counts:
    """A table in memory that processes share: for each process and peer, the open associations.

    A process writes its own row alone, so that the row of a process that died can be cleared
    without asking anyone.
    """

    def __init__(self, descriptor: int, *, rows: int, columns: int) -> None:
        """See a table that `create` made, here or in another process."""
        self.descriptor = descriptor
        self._columns = columns
        self._memory = mmap.mmap(descriptor, rows * columns * _CELL_BYTES)
        self._cells = memoryview(self._memory).cast("I")

    @classmethod
    def create(cls, *, rows: int, columns: int) -> Counts:
        """A table of zeros. Who is given the descriptor sees the same table."""
        descriptor = os.memfd_create("dicomnode-places")
        os.ftruncate(descriptor, rows * columns * _CELL_BYTES)
        return cls(descriptor, rows=rows, columns=columns)

    def total(self) -> int:
        """The sum over everything."""
        return sum(self._cells)

    def of_column(self, column: int) -> int:
        """The sum over all processes."""
        return sum(self._cells[column :: self._columns])

    def add(self, row: int, column: int, change: int) -> None:
        """Change one count; a row has one writer at a time."""
        self._cells[row * self._columns + column] += change

    def clear(self, row: int) -> None:
        """Forget what a process that is no more had open."""
        for column in range(self._columns):
            self._cells[row * self._columns + column] = 0

    @contextmanager
    def locked(self) -> Iterator[None]:
        """No other process is in here meanwhile; one that dies in here lets go."""
        fcntl.lockf(self.descriptor, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self.descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        """Let go of the table; other processes keep it."""
        self._cells.release()
        self._memory.close()
        os.close(self.descriptor)


class SharedPlaces:
    """Places over several listener processes: the limits hold for their sum."""

    def __init__(
        self, counts: Counts, *, row: int, column: Mapping[str, int], limits: Limits
    ) -> None:
        """The places of one process.

        Args:
            counts: A table that has every column.
            row: The row of this process.
            column: Peer → its column in the table (`columns`).
            limits: What holds over all processes.
        """
        self._counts = counts
        self._row = row
        self._column = column
        self._limits = limits
        self._lock = threading.Lock()  # a lock of the kernel's knows processes, not threads

    def change(self, *, column: Mapping[str, int], limits: Limits) -> None:
        """Go by other limits from now on; no open association loses its place.

        Args:
            column: As before, with the peers that are new.
        """
        with self._lock:
            self._column, self._limits = column, limits

    def take(self, peer: str) -> None:
        """See `Places`."""
        column = self._column[peer]
        with self._lock, self._counts.locked():
            self._limits.require_place(
                peer, held=self._counts.total(), held_by_peer=self._counts.of_column(column)
            )
            self._counts.add(self._row, column, 1)

    def give_back(self, peer: str) -> None:
        """See `Places`."""
        with self._lock:
            self._counts.add(self._row, self._column[peer], -1)


def columns(peers: Iterable[str], *, known: Mapping[str, int] | None = None) -> dict[str, int]:
    """Peer → its column in the shared table; the first is that of the unknown ones.

    Args:
        known: Columns that are given already. A peer keeps its own, also one that is no peer any
            more: an association of it may still be open.
    """
    given = dict(known or {UNKNOWN_PEER: 0})
    for peer in sorted(set(peers) - given.keys()):
        given[peer] = len(given)
    return given
