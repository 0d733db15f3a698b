"""What becomes of a job, step by step, as `dicomnode.job.MOVES` allows.

Each function makes one move in the transaction that is given. A worker holds a job by a lease;
whoever does not hold it changes nothing, so a message that comes twice, or a worker that wakes up
too late, does no harm.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, select, update

from dicomnode.archive import jobs, journal, results, tables, work
from dicomnode.archive.journal import Kind
from dicomnode.archive.results import ResultFile
from dicomnode.job import MOVES, DeliveryState, JobState


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
    columns = tables.job.c
    where = [columns.id == job_id, columns.state.in_(sorted(before))]
    if owner is not None:
        where.append(columns.lease_owner == owner)
    moved = tx.execute(
        update(tables.job).where(*where).values({"state": after} | work.LET_GO | values)
    )
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
    if not work.take(
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
) -> bool:
    """Record checked results and ask for their delivery: predicting → delivering.

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
        _ask_for_delivery(tx, job_id, destination, at=at)
    return True


def _ask_for_delivery(tx: Connection, job_id: str, destination: str, *, at: float) -> None:
    delivery_id = hashlib.sha256(f"{job_id}\x1f{destination}".encode()).hexdigest()[:32]
    tx.execute(tables.delivery.delete().where(tables.delivery.c.id == delivery_id))
    tx.execute(
        tables.delivery.insert().values(
            id=delivery_id,
            job=job_id,
            destination=destination,
            state=DeliveryState.PENDING,
            created_at=at,
        )
    )


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
