"""The accounting: what became of every study, and what the node holds at this moment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from dicomnode.archive import commitments, tables
from dicomnode.archive.studies.outcomes import Outcome

__all__ = ["Account", "Outcome", "StudyLine", "WorkerLine"]


@dataclass(frozen=True, kw_only=True)
class Account:
    """Studies by what became of them. `received` is the sum of the others, at any moment."""

    received: int
    delivered: int
    not_applicable: int
    failed: int
    in_progress: int


@dataclass(frozen=True, kw_only=True)
class StudyLine:
    """One study in a list."""

    study_instance_uid: str
    revision: int
    outcome: Outcome
    instances: int
    first_at: float
    last_at: float


@dataclass(frozen=True, kw_only=True)
class WorkerLine:
    """One worker process.

    Attributes:
        behind: Why it does not run with the configuration that is in force; "" where it does.
        memory_used: Bytes of its GPU that were in use after its last job; `None` before, and
            without a GPU.
        memory_total: Bytes that the GPU has.
    """

    id: str
    device: str
    requested: str
    slots: int
    started_at: float
    seen_at: float
    stopped: bool
    behind: str
    memory_used: int | None
    memory_total: int | None


def account(tx: Connection, *, since: float = 0.0) -> Account:
    """Count the studies that first arrived at or after `since` (seconds since the epoch)."""
    study = tables.study.c
    rows = tx.execute(
        select(study.outcome, func.count().label("studies"))
        .where(study.first_at >= since)
        .group_by(study.outcome)
    )
    found = {row.outcome: int(row.studies) for row in rows}
    return Account(
        received=sum(found.values()),
        delivered=found.get(Outcome.DELIVERED, 0),
        not_applicable=found.get(Outcome.NOT_APPLICABLE, 0),
        failed=found.get(Outcome.FAILED, 0),
        in_progress=found.get(Outcome.IN_PROGRESS, 0),
    )


def untold(tx: Connection) -> int:
    """How many storage commitments were asked for by peers that have not heard the answer yet."""
    is_open = tables.commitment.c.state != commitments.State.ANSWERED
    return tx.scalar(select(func.count()).where(is_open)) or 0


def studies(tx: Connection, *, limit: int) -> list[StudyLine]:
    """The studies that were received last, newest first."""
    return _lines(tx, limit=limit)


def study(tx: Connection, study_instance_uid: str) -> StudyLine | None:
    """One study's line."""
    found = _lines(tx, limit=1, only=study_instance_uid)
    return found[0] if found else None


def _lines(tx: Connection, *, limit: int, only: str | None = None) -> list[StudyLine]:
    columns, instance = tables.study.c, tables.instance.c
    count = (
        select(func.count())
        .where(instance.study_instance_uid == columns.study_instance_uid)
        .scalar_subquery()
    )
    query = select(tables.study, count.label("instances"))
    if only is not None:
        query = query.where(columns.study_instance_uid == only)
    rows = tx.execute(query.order_by(columns.first_at.desc()).limit(limit))
    return [
        StudyLine(
            study_instance_uid=row.study_instance_uid,
            revision=row.revision,
            outcome=Outcome(row.outcome),
            instances=row.instances,
            first_at=row.first_at,
            last_at=row.last_at,
        )
        for row in rows
    ]


def matching(tx: Connection, beginning: str) -> Sequence[str]:
    """The Study Instance UIDs that begin with `beginning`: nobody types one whole."""
    column = tables.study.c.study_instance_uid
    return tx.scalars(
        select(column).where(column.startswith(beginning, autoescape=True)).order_by(column)
    ).all()


def workers(tx: Connection, *, since: float) -> list[WorkerLine]:
    """The workers that were seen at or after `since`, and have not stopped."""
    columns = tables.worker.c
    rows = tx.execute(
        select(tables.worker)
        .where(columns.seen_at >= since, columns.stopped.is_(False))
        .order_by(columns.id)
    )
    return [
        WorkerLine(
            id=row.id,
            device=row.device,
            requested=row.requested,
            slots=row.slots,
            started_at=row.started_at,
            seen_at=row.seen_at,
            stopped=row.stopped,
            behind=row.behind,
            memory_used=row.memory_used,
            memory_total=row.memory_total,
        )
        for row in rows
    ]
