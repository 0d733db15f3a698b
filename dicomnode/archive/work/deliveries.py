"""Deliveries: the results of a job on their way to a destination, one row for each destination."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, or_, select, update

from dicomnode.archive import journal, tables
from dicomnode.archive.journal import Kind
from dicomnode.archive.studies import outcomes
from dicomnode.archive.work import hold, moves, rejections
from dicomnode.job import DeliveryState, JobState, Purpose

_OPEN = (DeliveryState.PENDING, DeliveryState.SENDING)
#: Where a job stands while what a delivery would bring of it is true.
_WANTED = {
    Purpose.RESULTS: (JobState.DELIVERING,),
    Purpose.NOT_ANALYSED: (JobState.NOT_APPLICABLE, JobState.FAILED),
}


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """What is on its way from one job to one destination.

    Attributes:
        profile: The digest of the destination's profile when its results were made; "" for all.
        about: Of a rejection: the delivery that it takes back.
    """

    id: str
    job: str
    destination: str
    purpose: Purpose
    profile: str
    about: str | None
    state: DeliveryState
    reason: str
    detail: str
    attempts: int
    created_at: float
    ended_at: float | None


def of_job(tx: Connection, job_id: str) -> list[Delivery]:
    """Every delivery of one job."""
    columns = tables.delivery.c
    rows = tx.execute(
        select(tables.delivery).where(columns.job == job_id).order_by(columns.destination)
    )
    return [_delivery(row) for row in rows]


def claim(
    tx: Connection, delivery_id: str, *, owner: str, at: float, lease_s: float
) -> Delivery | None:
    """Take up a pending delivery: pending → sending.

    What was being sent when its job was superseded, or run once more, and did not arrive waits like
    any other. It is cancelled here: an older answer must not come after the newer one.

    Returns:
        The delivery, or `None` when it is not pending (any more) or its time has not come.
    """
    if _cancel_unwanted(tx, delivery_id, at=at):
        return None
    if not hold.take(
        tx,
        tables.delivery,
        delivery_id,
        state=DeliveryState.SENDING,
        owner=owner,
        at=at,
        lease_s=lease_s,
    ):
        return None
    row = tx.execute(select(tables.delivery).where(tables.delivery.c.id == delivery_id)).one()
    return _delivery(row)


def _cancel_unwanted(tx: Connection, delivery_id: str, *, at: float) -> bool:
    """Cancel a pending delivery that nobody waits for any more; whether it was one."""
    delivery = tables.delivery.c
    unwanted = (delivery.id == delivery_id, delivery.state == DeliveryState.PENDING, _is_unwanted())
    job_id = tx.scalar(select(delivery.job).where(*unwanted))
    if job_id is None:
        return False
    outcomes.lock_of_job(tx, job_id)  # the study comes first, before the row that is looked at
    cancelled = tx.execute(
        update(tables.delivery)
        .where(*unwanted)
        .values({"state": DeliveryState.CANCELLED, "ended_at": at} | hold.LET_GO)
    )
    rejections.ask(tx, job_id, at=at)
    return cancelled.rowcount == 1


def _is_unwanted() -> ColumnElement[bool]:
    delivery, job = tables.delivery.c, tables.job.c
    state = select(job.state).where(job.id == delivery.job).scalar_subquery()
    return or_(
        *(
            and_(delivery.purpose == purpose, state.not_in(wanted))
            for purpose, wanted in _WANTED.items()
        )
    )


def try_again(
    tx: Connection,
    delivery: Delivery,
    *,
    owner: str,
    at: float,
    not_before: float,
    reason: str,
    detail: str,
    counts: bool = True,
) -> bool:
    """Put a delivery off: sending → pending. Nothing is lost, however often.

    Args:
        counts: Whether it was an attempt. Where it waits for a word of its destination nothing went
            wrong, and the pauses after a fault stay short.
    """
    return _move(
        tx,
        delivery,
        DeliveryState.PENDING,
        owner=owner,
        at=at,
        not_before=not_before,
        attempts=delivery.attempts - int(not counts),
        reason=reason,
        detail=detail,
    )


def release(tx: Connection, delivery_id: str, *, at: float) -> bool:
    """Give back the delivery of a worker that died while it sent, or was stopped at its limit."""
    row = tx.execute(select(tables.delivery).where(tables.delivery.c.id == delivery_id)).one()
    return _move(
        tx,
        _delivery(row),
        DeliveryState.PENDING,
        owner=row.lease_owner,
        at=at,
        reason="worker-lost",
        detail="The worker died while it sent, or was stopped at its limit; it is sent again.",
    )


def hasten(tx: Connection, delivery_id: str, *, at: float) -> None:
    """Let a delivery that waits be taken up now. One that is being made is left alone."""
    columns = tables.delivery.c
    tx.execute(
        update(tables.delivery)
        .where(
            columns.id == delivery_id,
            columns.state == DeliveryState.PENDING,
            columns.not_before > at,
        )
        .values(not_before=at)
    )


def confirm(tx: Connection, delivery: Delivery, *, owner: str, at: float) -> bool:
    """The destination has everything: sending → confirmed; the last one ends the job.

    Returns:
        Whether `owner` still held it; otherwise nothing changes.
    """
    _lock_job(tx, delivery)
    moved = _move(
        tx, delivery, DeliveryState.CONFIRMED, owner=owner, at=at, ended_at=at, reason="", detail=""
    )
    if moved:
        _settle_job(tx, delivery, at=at)
        rejections.ask_after(tx, delivery.job, at=at)
    return moved


def fail(
    tx: Connection, delivery: Delivery, *, owner: str, at: float, reason: str, detail: str
) -> bool:
    """The destination will not have it: sending → failed; the last one ends the job.

    Returns:
        As `confirm`.
    """
    _lock_job(tx, delivery)
    moved = _move(
        tx,
        delivery,
        DeliveryState.FAILED,
        owner=owner,
        at=at,
        ended_at=at,
        reason=reason,
        detail=detail,
    )
    if moved:
        _settle_job(tx, delivery, at=at)
    return moved


def _lock_job(tx: Connection, delivery: Delivery) -> None:
    """Let the deliveries of one job end one after the other: each must see how the others stand.

    Their study comes first, then the job, in every transaction that touches them.
    """
    outcomes.lock_of_job(tx, delivery.job)
    tx.execute(select(tables.job.c.id).where(tables.job.c.id == delivery.job).with_for_update())


def is_held(tx: Connection, delivery: Delivery, *, owner: str) -> bool:
    """Whether `owner` still holds a delivery that is being made."""
    columns = tables.delivery.c
    held = select(columns.id).where(
        columns.id == delivery.id,
        columns.state == DeliveryState.SENDING,
        columns.lease_owner == owner,
    )
    return tx.scalar(held) is not None


def _move(
    tx: Connection,
    delivery: Delivery,
    after: DeliveryState,
    *,
    owner: str,
    at: float,
    **values: Any,
) -> bool:
    columns = tables.delivery.c
    moved = tx.execute(
        update(tables.delivery)
        .where(
            columns.id == delivery.id,
            columns.state == DeliveryState.SENDING,
            columns.lease_owner == owner,
        )
        .values({"state": after} | hold.LET_GO | values)
    )
    if not moved.rowcount:
        return False
    study = tx.scalar(
        select(tables.job.c.study_instance_uid).where(tables.job.c.id == delivery.job)
    )
    journal.write(
        tx,
        Kind.DELIVERY_MOVED,
        at=at,
        study=study,
        job=delivery.job,
        destination=delivery.destination,
        purpose=str(delivery.purpose),
        state=str(after),
        attempt=delivery.attempts,
        reason=values.get("reason", ""),
        detail=values.get("detail", ""),
    )
    return True


def _settle_job(tx: Connection, delivery: Delivery, *, at: float) -> None:
    """End the job once none of the deliveries of its results is open; one that is over stays so."""
    if delivery.purpose is not Purpose.RESULTS:
        return
    job_id = delivery.job
    every = [one for one in of_job(tx, job_id) if one.purpose is Purpose.RESULTS]
    if any(one.state in _OPEN for one in every):
        return
    failed = [one for one in every if one.state is DeliveryState.FAILED]
    if not failed:
        moves.finish_delivering(tx, job_id, JobState.DELIVERED, at=at)
        return
    moves.finish_delivering(
        tx,
        job_id,
        JobState.FAILED,
        at=at,
        reason=failed[0].reason,
        detail="; ".join(f"{one.destination}: {one.detail}" for one in failed),
    )


def _delivery(row: Row[Any]) -> Delivery:
    return Delivery(
        id=row.id,
        job=row.job,
        destination=row.destination,
        purpose=Purpose(row.purpose),
        profile=row.profile,
        about=row.about,
        state=DeliveryState(row.state),
        reason=row.reason,
        detail=row.detail,
        attempts=row.attempts,
        created_at=row.created_at,
        ended_at=row.ended_at,
    )
