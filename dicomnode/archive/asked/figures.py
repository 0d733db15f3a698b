"""Numbers of the node as it stands: what waits, what is open, what has come and gone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Table, func, select

from dicomnode.archive import tables
from dicomnode.archive.journal import Kind
from dicomnode.archive.work import confirmations
from dicomnode.archive.work.leases import Task
from dicomnode.job import DeliveryState, JobState

_QUEUES = {Task.PREDICT: tables.job, Task.DELIVER: tables.delivery}


@dataclass(frozen=True, kw_only=True)
class Queue:
    """What waits for a worker.

    Attributes:
        oldest_at: When what has waited longest was asked for; `None` where nothing waits.
    """

    depth: int
    oldest_at: float | None


@dataclass(frozen=True, kw_only=True)
class Received:
    """Everything that ever came, removed or not.

    Attributes:
        last_at: When the last instance came; `None` before the first.
    """

    instances: int
    size: int
    last_at: float | None


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A job that has ended, with the seconds that each stage took."""

    id: str
    model: str
    ended_at: float
    timings: Mapping[str, float]


def studies(tx: Connection) -> dict[str, int]:
    """Outcome → studies."""
    return _counted(tx, tables.study.c.outcome)


def jobs(tx: Connection) -> dict[str, int]:
    """State → jobs."""
    return _counted(tx, tables.job.c.state)


def _counted(tx: Connection, column: Any) -> dict[str, int]:
    rows = tx.execute(select(column, func.count()).group_by(column))
    return {row[0]: int(row[1]) for row in rows}


def queues(tx: Connection) -> dict[Task, Queue]:
    """What waits of each kind of work."""
    return {task: _queue(tx, table) for task, table in _QUEUES.items()}


def _queue(tx: Connection, table: Table) -> Queue:
    columns = table.c
    depth, oldest = tx.execute(
        select(func.count(), func.min(columns.created_at)).where(columns.state == JobState.PENDING)
    ).one()
    return Queue(depth=int(depth), oldest_at=oldest)


def open_associations(tx: Connection) -> dict[str, int]:
    """Peer → associations that are open now; "" for unknown peers."""
    columns = tables.association.c
    rows = tx.execute(
        select(columns.peer, func.count()).where(columns.ended_at.is_(None)).group_by(columns.peer)
    )
    return {row[0]: int(row[1]) for row in rows}


def received(tx: Connection) -> Received:
    """What ever came."""
    study = tables.study.c
    instances, size = tx.execute(
        select(func.sum(study.received), func.sum(study.received_bytes))
    ).one()
    last_at = tx.scalar(select(func.max(study.last_at)))
    return Received(instances=int(instances or 0), size=int(size or 0), last_at=last_at)


def deliveries(tx: Connection) -> dict[tuple[str, str], int]:
    """Destination and state → deliveries."""
    columns = tables.delivery.c
    rows = tx.execute(
        select(columns.destination, columns.state, func.count()).group_by(
            columns.destination, columns.state
        )
    )
    return {(row[0], row[1]): int(row[2]) for row in rows}


def waiting_by_model(tx: Connection) -> dict[str, int]:
    """Model → the jobs that have yet to be predicted."""
    columns = tables.job.c
    rows = tx.execute(
        select(columns.model, func.count())
        .where(columns.state.in_((JobState.PENDING, JobState.PREDICTING)))
        .group_by(columns.model)
    )
    return {row[0]: int(row[1]) for row in rows}


def finished(tx: Connection, *, since: float) -> list[Finished]:
    """The jobs that ended at or after `since` (seconds since the epoch)."""
    columns = tables.job.c
    rows = tx.execute(
        select(columns.id, columns.model, columns.ended_at, columns.timings).where(
            columns.ended_at >= since, columns.state != JobState.SUPERSEDED
        )
    )
    return [
        Finished(id=row.id, model=row.model, ended_at=row.ended_at, timings=row.timings)
        for row in rows
    ]


def last_event(tx: Connection) -> int:
    """The number of the newest line of the journal."""
    return tx.scalar(select(func.max(tables.event.c.id))) or 0


def delivery_failures(tx: Connection, *, after: int, through: int) -> dict[str, int]:
    """Destination → attempts that did not succeed, by some lines of the journal."""
    event = tables.event.c
    found: dict[str, int] = {}
    rows = tx.scalars(
        select(event.facts).where(
            event.id > after, event.id <= through, event.kind == Kind.DELIVERY_MOVED
        )
    )
    for facts in rows:
        reason = facts.get("reason")
        if (
            reason
            and reason != confirmations.AWAITING
            and facts.get("state") != DeliveryState.CONFIRMED
        ):
            destination = str(facts.get("destination"))
            found[destination] = found.get(destination, 0) + 1
    return found


def pulse(tx: Connection) -> str:
    """A text that is another one once something has happened that a page may show."""
    newest = tx.scalar(select(func.max(tables.study.c.last_at)))
    return f"{last_event(tx)}-{newest or 0.0}"
