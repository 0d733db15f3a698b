"""What becomes of a job, step by step, as `dicomnode.job.MOVES` allows.

Each function makes one move in the transaction that is given. A worker holds a job by a lease;
whoever does not hold it changes nothing, so a message that comes twice, or a worker that wakes up
too late, does no harm.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, or_, select, update

from dicomnode.archive import journal, tables
from dicomnode.archive.journal import Kind
from dicomnode.archive.studies import index, outcomes
from dicomnode.archive.work import hold, jobs, rejections, results
from dicomnode.archive.work.results import ResultFile
from dicomnode.job import MOVES, DeliveryState, JobState, Purpose

_WITHOUT_ANSWER = frozenset({JobState.NOT_APPLICABLE, JobState.FAILED})


@dataclass(frozen=True, kw_only=True)
class Shipment:
    """What a destination is to get of a job's results.

    Attributes:
        profile: The digest of its profile.
        superseded: "keep" or "reject": what becomes of them once a newer answer is delivered.
    """

    profile: str = ""
    superseded: str = "keep"


def move(
    tx: Connection,
    job_id: str,
    before: set[JobState],
    after: JobState,
    *,
    at: float,
    owner: str | None = None,
    **values: Any,
) -> bool:
    """Make one move, if the job stands where it may be made and `owner`, if given, holds it."""
    illegal = {state for state in before if after not in MOVES[state]}
    if illegal:
        raise ValueError(f"no such move: {', '.join(sorted(illegal))} → {after}")
    # From one open state to another, nothing changes for the study.
    matters = after.is_final or any(state.is_final for state in before)
    study = outcomes.lock_of_job(tx, job_id) if matters else None
    columns = tables.job.c
    where = [columns.id == job_id, columns.state.in_(sorted(before))]
    if owner is not None:
        where.append(columns.lease_owner == owner)
    moved = tx.execute(
        update(tables.job).where(*where).values({"state": after} | hold.LET_GO | values)
    )
    if moved.rowcount and study is not None:
        outcomes.refresh(tx, study)
    if moved.rowcount and after in _WITHOUT_ANSWER and JobState.DELIVERING not in before:
        _ask_for_notices(tx, job_id, at=at)
        rejections.ask_after(tx, job_id, at=at)
    if moved.rowcount:
        told = {key: values.get(key, "") for key in ("reason", "detail")}
        _journal(tx, job_id, after, at=at, **told)
    return moved.rowcount == 1


def _journal(tx: Connection, job_id: str, state: JobState, *, at: float, **facts: Any) -> None:
    columns = tables.job.c
    study = tx.scalar(select(columns.study_instance_uid).where(columns.id == job_id))
    journal.write(tx, Kind.JOB_MOVED, at=at, study=study, job=job_id, state=str(state), **facts)


def claim(tx: Connection, job_id: str, *, owner: str, at: float, lease_s: float) -> jobs.Job | None:
    """Take up a pending job: pending → predicting.

    Returns:
        The job, or `None` when it is not pending (any more) or its time has not come.
    """
    if not hold.take(
        tx, tables.job, job_id, state=JobState.PREDICTING, owner=owner, at=at, lease_s=lease_s
    ):
        return None
    found = jobs.job(tx, job_id)
    if found is not None:
        _journal(tx, job_id, JobState.PREDICTING, at=at, attempt=found.attempts)
    return found


def hand_back(tx: Connection, job_id: str, *, owner: str, at: float) -> bool:
    """Give a job back that was not finished, as if it had not been taken: predicting → pending."""
    return move(
        tx,
        job_id,
        {JobState.PREDICTING},
        JobState.PENDING,
        at=at,
        owner=owner,
        attempts=tables.job.c.attempts - 1,
        reason="handed-back",
        detail="The worker stopped before it was done.",
    )


def try_again(
    tx: Connection,
    job_id: str,
    *,
    owner: str,
    at: float,
    not_before: float,
    reason: str,
    detail: str,
    counts: bool = True,
) -> bool:
    """Let a job be taken up again later: predicting → pending.

    Args:
        counts: Whether it was an attempt; what is no fault of the job is none.
    """
    return move(
        tx,
        job_id,
        {JobState.PREDICTING},
        JobState.PENDING,
        at=at,
        owner=owner,
        not_before=not_before,
        attempts=tables.job.c.attempts - int(not counts),
        reason=reason,
        detail=detail,
    )


def end(
    tx: Connection,
    job_id: str,
    state: JobState,
    *,
    at: float,
    reason: str,
    detail: str,
    owner: str | None = None,
    timings: Mapping[str, float] | None = None,
) -> bool:
    """Park a job that is being predicted as not applicable or failed."""
    extra = {} if timings is None else {"timings": dict(timings)}
    return move(
        tx,
        job_id,
        {JobState.PREDICTING},
        state,
        at=at,
        owner=owner,
        reason=reason,
        detail=detail,
        ended_at=at,
        **extra,
    )


def predicted(
    tx: Connection,
    job_id: str,
    kept: Sequence[ResultFile],
    *,
    owner: str,
    at: float,
    timings: Mapping[str, float],
    device: str,
    shipments: Mapping[str, Shipment] | None = None,
) -> bool:
    """Record checked results and ask for their delivery: predicting → delivering.

    Args:
        shipments: Destination → what it gets; one that is not named gets everything.

    Returns:
        Whether `owner` still held the job; otherwise nothing changes.
    """
    moved = move(
        tx,
        job_id,
        {JobState.PREDICTING},
        JobState.DELIVERING,
        at=at,
        owner=owner,
        timings=dict(timings),
        device=device,
    )
    found = jobs.job(tx, job_id)
    if not moved or found is None:
        return False
    results.record(tx, job_id, kept)
    for destination in found.send_to:
        shipment = (shipments or {}).get(destination, Shipment())
        _ask_for_delivery(tx, job_id, destination, Purpose.RESULTS, shipment, at=at)
    return True


def _ask_for_notices(tx: Connection, job_id: str, *, at: float) -> None:
    """Let the destinations that want to know hear that there is no answer, and why."""
    found = jobs.job(tx, job_id)
    for destination, superseded in (found.notify if found else {}).items():
        shipment = Shipment(superseded=superseded)
        _ask_for_delivery(tx, job_id, destination, Purpose.NOT_ANALYSED, shipment, at=at)


def forget_notices(tx: Connection, job_id: str) -> None:
    """Take back what was to be said of a job that is run once more and has not been said yet."""
    delivery = tables.delivery.c
    tx.execute(
        tables.delivery.delete().where(
            delivery.job == job_id,
            delivery.purpose == Purpose.NOT_ANALYSED,
            delivery.state.in_((DeliveryState.PENDING, DeliveryState.FAILED)),
        )
    )


def _ask_for_delivery(
    tx: Connection,
    job_id: str,
    destination: str,
    purpose: Purpose,
    shipment: Shipment,
    *,
    at: float,
) -> None:
    delivery_id = _delivery_id(job_id, destination, purpose)
    delivery = tables.delivery.c
    # One that takes an earlier delivery of the same back says nothing of this one.
    tx.execute(
        tables.delivery.delete().where(
            delivery.job == job_id,
            or_(delivery.id == delivery_id, delivery.about == delivery_id),
        )
    )
    tx.execute(
        tables.delivery.insert().values(
            id=delivery_id,
            job=job_id,
            destination=destination,
            purpose=purpose,
            profile=shipment.profile,
            superseded=shipment.superseded,
            state=DeliveryState.PENDING,
            created_at=at,
        )
    )


def _delivery_id(job_id: str, destination: str, purpose: Purpose) -> str:
    named = (job_id, destination) if purpose is Purpose.RESULTS else (job_id, destination, purpose)
    return hashlib.sha256("\x1f".join(named).encode()).hexdigest()[:32]


def finish_delivering(
    tx: Connection, job_id: str, state: JobState, *, at: float, reason: str = "", detail: str = ""
) -> bool:
    """End a job whose deliveries are over: delivering → delivered or failed."""
    return move(
        tx,
        job_id,
        {JobState.DELIVERING},
        state,
        at=at,
        reason=reason,
        detail=detail,
        ended_at=at,
    )


def cancel(tx: Connection, job_id: str, *, at: float) -> bool:
    """Take a job back that nobody has begun: pending → failed. It may be retried."""
    return move(
        tx,
        job_id,
        {JobState.PENDING},
        JobState.FAILED,
        at=at,
        reason="cancelled",
        detail="Somebody cancelled the job before it was begun.",
        ended_at=at,
    )


def send_also(
    tx: Connection, job_id: str, destination: str, shipment: Shipment, *, at: float
) -> bool:
    """Have the results of a job sent to one more destination: delivered or failed → delivering.

    A delivery to it that failed or was cancelled is made anew.

    Args:
        shipment: What it is to get. Where its own profile had no objects made, it gets everything.

    Returns:
        Whether there is something to send, and it is not there or on its way already.
    """
    study = outcomes.lock_of_job(tx, job_id)
    kept = results.of_job(tx, job_id)
    if study is None or not kept or any(not one.path for one in kept):
        return False
    if index.is_going(tx, study):  # the files are out of their place already
        return False
    if not _may_be_sent(tx, job_id, destination):
        return False
    if not _is_delivering(tx, job_id) and not move(
        tx,
        job_id,
        {JobState.DELIVERED, JobState.FAILED},
        JobState.DELIVERING,
        at=at,
        ended_at=None,
        reason="",
        detail="",
    ):
        return False
    if not any(shipment.profile in one.profiles for one in kept):
        shipment = replace(shipment, profile="")
    _ask_for_delivery(tx, job_id, destination, Purpose.RESULTS, shipment, at=at)
    return True


def _is_delivering(tx: Connection, job_id: str) -> bool:
    return tx.scalar(select(tables.job.c.state).where(tables.job.c.id == job_id)) == str(
        JobState.DELIVERING
    )


def _may_be_sent(tx: Connection, job_id: str, destination: str) -> bool:
    """Whether a destination neither has the results of a job nor is about to get them."""
    delivery = tables.delivery.c
    state = tx.scalar(
        select(delivery.state).where(
            delivery.id == _delivery_id(job_id, destination, Purpose.RESULTS)
        )
    )
    return state in (None, DeliveryState.FAILED, DeliveryState.CANCELLED)
