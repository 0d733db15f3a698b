"""What jobs and deliveries have in common: a worker takes a row up, holds it, and lets it go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Table, select, update

from dicomnode.archive import tables
from dicomnode.job import JobState

# Both kinds of work use the same word for what nobody has taken up.
PENDING = "pending"

#: The columns of a row that nobody holds and of which no worker has been told.
LET_GO: dict[str, Any] = {"lease_owner": None, "lease_until": None, "queued_at": None}


def take(
    tx: Connection, table: Table, row_id: str, *, state: str, owner: str, at: float, lease_s: float
) -> bool:
    """Let `owner` hold a pending row whose time has come: pending → `state`.

    Returns:
        Whether it was there to be taken; otherwise nothing changes.
    """
    columns = table.c
    taken = tx.execute(
        update(table)
        .where(columns.id == row_id, columns.state == PENDING, columns.not_before <= at)
        .values(
            state=state,
            attempts=columns.attempts + 1,
            lease_owner=owner,
            lease_until=at + lease_s,
            reason="",
            detail="",
        )
    )
    return taken.rowcount == 1


@dataclass(frozen=True, kw_only=True)
class Unit:
    """A job that is being run, or waits.

    Attributes:
        since: When it was taken up last, or asked for; seconds since the epoch.
        owner: The worker that holds it.
    """

    job: str
    study_instance_uid: str
    model: str
    rule: str
    attempts: int
    since: float
    owner: str
    reason: str


def running(tx: Connection, *, limit: int) -> list[Unit]:
    """The jobs that workers run now, the oldest first."""
    return _units(tx, JobState.PREDICTING, limit=limit)


def waiting(tx: Connection, *, limit: int) -> list[Unit]:
    """The jobs that wait for a worker, in the order in which they are taken up."""
    return _units(tx, JobState.PENDING, limit=limit)


def _units(tx: Connection, state: JobState, *, limit: int) -> list[Unit]:
    columns = tables.job.c
    rows = tx.execute(
        select(tables.job)
        .where(columns.state == state)
        .order_by(columns.urgency, columns.created_at, columns.id)
        .limit(limit)
    )
    return [
        Unit(
            job=row.id,
            study_instance_uid=row.study_instance_uid,
            model=row.model,
            rule=row.rule,
            attempts=row.attempts,
            since=row.queued_at or row.created_at,
            owner=row.lease_owner or "",
            reason=row.reason,
        )
        for row in rows
    ]
