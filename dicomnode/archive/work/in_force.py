"""Which configuration is in force: what the node tells its workers, on whichever machine.

The node reads a file, and so does each worker, each its own. The row says which one the node goes
by. Its serial grows with each start and each reload of the node: a worker that sees another one
than before looks at its file. Its digest (`config.digest`) says whether that is the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from sqlalchemy import Connection, select, update

from dicomnode.archive import tables

_ID = 1


@dataclass(frozen=True, kw_only=True)
class InForce:
    """What the node goes by.

    Attributes:
        serial: Another one after each start and each reload.
        at: Since when (seconds since the epoch).
    """

    serial: int
    digest: str
    at: float


def current(tx: Connection) -> InForce | None:
    """What is in force; `None` where the node has not started yet."""
    row = tx.execute(select(tables.in_force)).one_or_none()
    return None if row is None else InForce(serial=row.serial, digest=row.digest, at=row.at)


def record(tx: Connection, *, digest: str, at: float) -> InForce:
    """Write down that another configuration is in force, or the same one once more."""
    table = tables.in_force
    begun = tx.execute(
        update(table)
        .where(table.c.id == _ID)
        .values(serial=table.c.serial + 1, digest=digest, at=at)
    )
    if not begun.rowcount:
        tx.execute(table.insert().values(id=_ID, serial=1, digest=digest, at=at))
    recorded = current(tx)
    assert recorded is not None  # noqa: S101 - written a moment ago
    return recorded


def report(tx: Connection, *, owner: str, serial: int, digest: str, behind: str) -> None:
    """Say what a worker runs with.

    Args:
        serial: Of what was in force when it looked.
        behind: Why it does not run with that; "" where it does.
    """
    tx.execute(
        update(tables.worker)
        .where(tables.worker.c.id == owner)
        .values(serial=serial, configuration=digest, behind=behind)
    )


class Lag(Enum):
    """Whether a worker has yet to take up what is in force: what it lacks may only be late."""

    NONE = auto()
    SECONDS = auto()  # it has not looked yet
    UNKNOWN = auto()  # it has looked, and cannot: its file has to change


def lag(tx: Connection, *, owner: str) -> Lag:
    """How far a worker is behind."""
    row, worker = current(tx), tables.worker.c
    seen = tx.execute(select(worker.serial, worker.behind).where(worker.id == owner)).one_or_none()
    if row is None or seen is None:
        return Lag.NONE
    if seen.serial != row.serial:
        return Lag.SECONDS
    return Lag.UNKNOWN if seen.behind else Lag.NONE
