"""Which rows wait for a worker, and which were left by one that died.

Jobs and deliveries carry the same columns of work. The row is the truth: a message to a worker is
only a hint, sent again when nobody has taken the row up.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, and_, func, or_, select, update

from dicomnode.archive import tables
from dicomnode.archive.work import deliveries, hold, moves
from dicomnode.job import DeliveryState, JobState


class Task(StrEnum):
    """What a worker can be asked to do."""

    PREDICT = "predict"
    DELIVER = "deliver"


_TABLES = {Task.PREDICT: tables.job, Task.DELIVER: tables.delivery}


def due(tx: Connection, task: Task, *, at: float, resend_s: float, window: int) -> list[str]:
    """The ids of the rows to tell a worker of now, the most urgent and oldest first.

    Each is marked, so that it is not returned again before `resend_s` have passed: by then either
    a worker has taken it up, or the broker has forgotten it.

    Deliveries to one destination go one after the other: a PACS that does not answer keeps one slot
    busy, and the others get their results.

    Args:
        window: At most so many may be on their way at once: what waits here keeps its order, what
            a broker holds does not.
    """
    table = _TABLES[task]
    columns = table.c
    told = columns.state == hold.PENDING, columns.queued_at > at - resend_s
    # Counted no further than it matters: thousands may wait behind, and are not to be read for it.
    on_their_way = tx.scalars(select(columns.id).where(*told).limit(window)).all()
    free = window - len(on_their_way)
    if not free:
        return []
    lane = columns.destination if task is Task.DELIVER else columns.id
    waiting = (
        select(columns.id, lane.label("lane"))
        .where(*_is_due(task, at=at, resend_s=resend_s))
        .order_by(*_order(task))
        .limit(free if task is Task.PREDICT else None)
        .with_for_update(skip_locked=True)
    )
    first_of_lane: dict[str, str] = {}
    for row in tx.execute(waiting):
        first_of_lane.setdefault(row.lane, row.id)
    ids = list(first_of_lane.values())[:free]
    _mark(tx, table, ids, at=at)
    return ids


def next_up(tx: Connection, *, at: float, models: Iterable[str], position: int = 0) -> str | None:
    """The id of the job that is predicted next, or `position` places after it; nothing is marked.

    Args:
        models: The models that the asking worker has.
    """
    columns = _TABLES[Task.PREDICT].c
    waiting = (
        select(columns.id)
        .where(
            columns.state == hold.PENDING,
            columns.not_before <= at,
            columns.model.in_(tuple(models)),
        )
        .order_by(*_order(Task.PREDICT))
        .offset(position)
        .limit(1)
    )
    found: str | None = tx.scalar(waiting)
    return found


def anything_due(tx: Connection, task: Task, *, at: float, resend_s: float) -> bool:
    """Whether `due` would have something to tell: a look that takes no lock."""
    column = _TABLES[task].c.id
    found = tx.scalar(select(column).where(*_is_due(task, at=at, resend_s=resend_s)).limit(1))
    return found is not None


def _is_due(task: Task, *, at: float, resend_s: float) -> list[ColumnElement[bool]]:
    columns = _TABLES[task].c
    due_now = [
        columns.state == hold.PENDING,
        columns.not_before <= at,
        or_(columns.queued_at.is_(None), columns.queued_at <= at - resend_s),
    ]
    return [*due_now, ~_is_busy(at - resend_s)] if task is Task.DELIVER else due_now


def _is_busy(told_after: float) -> ColumnElement[bool]:
    """Whether a delivery is on its way to the destination of this one; it is none of those itself.

    They are looked up once, by their state: asked of each row that waits, the question would read
    everything that its destination ever got.
    """
    other = tables.delivery.alias()
    on_its_way = or_(
        other.c.state == DeliveryState.SENDING,
        and_(other.c.state == hold.PENDING, other.c.queued_at > told_after),
    )
    return tables.delivery.c.destination.in_(select(other.c.destination).where(on_its_way))


def _order(task: Task) -> list[ColumnElement[Any]]:
    columns = _TABLES[task].c
    oldest: list[ColumnElement[Any]] = [columns.created_at, columns.id]
    return [columns.urgency, *oldest] if task is Task.PREDICT else oldest


def forget_hints(tx: Connection, task: Task, ids: Sequence[str] | None = None) -> None:
    """Let rows be told of again at once: the broker did not take them, or has just been started.

    Args:
        ids: Only these; `None` for all that are pending.
    """
    table = _TABLES[task]
    forget = update(table).where(table.c.state == hold.PENDING).values(queued_at=None)
    tx.execute(forget if ids is None else forget.where(table.c.id.in_(ids)))


def _mark(tx: Connection, table: Table, ids: list[str], *, at: float) -> None:
    if ids:
        tx.execute(update(table).where(table.c.id.in_(ids)).values(queued_at=at))


def renew(
    tx: Connection, task: Task, ids: Sequence[str], *, owner: str, at: float, lease_s: float
) -> int:
    """Lengthen the leases of the rows that a worker is running now, and of no others.

    A row whose task ended without a word is among none of them: its lease runs out.

    Returns:
        How many it holds.
    """
    columns = _TABLES[task].c
    held = tx.execute(
        update(_TABLES[task])
        .where(columns.lease_owner == owner, columns.id.in_(ids))
        .values(lease_until=at + lease_s)
    )
    return held.rowcount


def expire(tx: Connection, task: Task, *, at: float, attempts: int) -> list[str]:
    """Take back what workers that died were holding; park what has killed too many of them.

    Returns:
        The ids of the rows that were taken back.
    """
    if task is Task.PREDICT:
        return _expire_jobs(tx, at=at, attempts=attempts)
    return _expire_deliveries(tx, at=at)


def _expire_jobs(tx: Connection, *, at: float, attempts: int) -> list[str]:
    job, study = tables.job.c, tables.study.c
    is_lost = (job.state == JobState.PREDICTING, job.lease_until < at)
    # The study comes before its jobs; one that somebody works on now has its turn the next time.
    studies = tx.scalars(
        select(study.study_instance_uid)
        .where(study.study_instance_uid.in_(select(job.study_instance_uid).where(*is_lost)))
        .with_for_update(skip_locked=True)
    ).all()
    lost = tx.execute(
        select(job.id, job.attempts, job.lease_owner)
        .where(*is_lost, job.study_instance_uid.in_(studies))
        .with_for_update(skip_locked=True)
    ).all()
    for row in lost:
        left = attempts - row.attempts
        release(tx, row.id, owner=row.lease_owner, attempts_left=left, at=at)
    return [row.id for row in lost]


def _expire_deliveries(tx: Connection, *, at: float) -> list[str]:
    """Take deliveries back, however often: the answer is there, and waits for its destination."""
    delivery = tables.delivery.c
    lost = tx.scalars(
        select(delivery.id)
        .where(delivery.state == DeliveryState.SENDING, delivery.lease_until < at)
        .with_for_update(skip_locked=True)
    ).all()
    for delivery_id in lost:
        deliveries.release(tx, delivery_id, at=at)
    return list(lost)


def _let_go_of_deliveries(tx: Connection, which: ColumnElement[bool]) -> None:
    tx.execute(
        update(tables.delivery)
        .where(which, tables.delivery.c.state == DeliveryState.SENDING)
        .values({"state": DeliveryState.PENDING} | hold.LET_GO)
    )


def release(tx: Connection, job_id: str, *, owner: str, attempts_left: int, at: float) -> bool:
    """Give back the job of a worker that died while it ran: predicting → pending, or failed."""
    again = attempts_left > 0
    return moves.move(
        tx,
        job_id,
        {JobState.PREDICTING},
        JobState.PENDING if again else JobState.FAILED,
        at=at,
        owner=owner,
        reason="worker-lost",
        detail="The worker died while it ran; the job is taken up again."
        if again
        else "Each worker that ran this job died. Look for a lack of memory, then retry it.",
        ended_at=None if again else at,
    )


def hand_back(tx: Connection, *, owner: str, at: float) -> list[str]:
    """Give back all that a worker which ends in order still holds, as if it had not been taken.

    Returns:
        The ids of the jobs.
    """
    job = tables.job.c
    held = tx.scalars(
        select(job.id).where(job.lease_owner == owner, job.state == JobState.PREDICTING)
    ).all()
    for job_id in held:
        moves.hand_back(tx, job_id, owner=owner, at=at)
    _let_go_of_deliveries(tx, tables.delivery.c.lease_owner == owner)
    return list(held)


def live_slots(tx: Connection, *, since: float) -> int:
    """How many jobs the workers that were seen since `since` can run at once."""
    columns = tables.worker.c
    slots = tx.scalar(
        select(func.sum(columns.slots)).where(columns.seen_at >= since, columns.stopped.is_(False))
    )
    return int(slots or 0)


def report_worker(
    tx: Connection, *, owner: str, device: str, requested: str, slots: int, at: float
) -> None:
    """Say that a worker lives, what it runs on, and since when."""
    columns = tables.worker.c
    seen = tx.execute(
        update(tables.worker)
        .where(columns.id == owner)
        .values(seen_at=at, device=device, stopped=False)
    )
    if not seen.rowcount:
        tx.execute(
            tables.worker.insert().values(
                id=owner,
                device=device,
                requested=requested,
                slots=slots,
                started_at=at,
                seen_at=at,
                stopped=False,
            )
        )


def report_memory(tx: Connection, *, owner: str, used: int, total: int) -> None:
    """Say how many bytes of its GPU are in use, by anybody, and how many it has."""
    tx.execute(
        update(tables.worker)
        .where(tables.worker.c.id == owner)
        .values(memory_used=used, memory_total=total)
    )


def report_stopped(tx: Connection, *, owner: str, at: float) -> None:
    """Say that a worker has ended in order."""
    tx.execute(
        update(tables.worker).where(tables.worker.c.id == owner).values(seen_at=at, stopped=True)
    )
