"""Rejections: which delivered answers are taken back, because a newer one has taken their place.

A delivery whose destination asks for it ("reject") is taken back by a delivery of its own: a key
object selection of IHE IOCM. It is due when the newer answer is confirmed by that destination, or
when there will be none: nothing is taken back while what follows may still fail.
"""

from __future__ import annotations

import hashlib
from typing import Any

from sqlalchemy import Connection, Row, select

from dicomnode.archive import tables
from dicomnode.archive.work import jobs, results
from dicomnode.job import DeliveryState, JobState, Purpose

_REJECT = "reject"


def ask(tx: Connection, job_id: str, *, at: float) -> None:
    """Take back what was delivered of a job, as far as that is due; so of others that say it."""
    for job in _with_its_objects(tx, job_id):
        for delivery in _standing(tx, job.id):
            if _is_due(tx, job, delivery):
                _insert(tx, delivery, at=at)


def _with_its_objects(tx: Connection, job_id: str) -> list[Row[Any]]:
    """A job, and those of other rules that gave the same objects: they have its key."""
    job, one = tables.job.c, tables.job.alias().c
    its_study = select(one.study_instance_uid).where(one.id == job_id).scalar_subquery()
    its_key = select(one.key).where(one.id == job_id).scalar_subquery()
    return list(
        tx.execute(
            select(tables.job)
            .where(job.study_instance_uid == its_study, job.key == its_key)
            .order_by(job.created_at, job.id)
        )
    )


def ask_after(tx: Connection, job_id: str, *, at: float) -> None:
    """Take back what a job's answer has taken the place of, and what it says otherwise itself."""
    pending = [job_id]
    seen: set[str] = set()
    while pending:
        one = pending.pop()
        if one in seen:
            continue
        seen.add(one)
        ask(tx, one, at=at)
        pending += jobs.superseded_by(tx, [one])


def withdraw(tx: Connection, job_id: str, *, key: str) -> str:
    """A superseded job is wanted again: what was to be taken back of it stays.

    Returns:
        The key of its results: where something was taken back already, another one, for an archive
        hides what was rejected for ever.
    """
    delivery = tables.delivery.c
    rejections = select(delivery.id).where(
        delivery.job == job_id, delivery.purpose == Purpose.REJECTION
    )
    tx.execute(
        tables.delivery.delete().where(
            delivery.id.in_(rejections), delivery.state == DeliveryState.PENDING
        )
    )
    done = tx.scalars(rejections.order_by(delivery.id)).all()
    if not done:
        return key
    current = tx.scalar(select(tables.job.c.key).where(tables.job.c.id == job_id)) or key
    return hashlib.sha256(f"{current}\x1fwanted again".encode()).hexdigest()


def _standing(tx: Connection, job_id: str) -> list[Row[Any]]:
    """What arrived of a job and is to be taken back some time, and is not yet."""
    delivery, other = tables.delivery.c, tables.delivery.alias().c
    taken_back = select(other.about).where(other.job == job_id, other.about.is_not(None))
    return list(
        tx.execute(
            select(tables.delivery).where(
                delivery.job == job_id,
                delivery.purpose != Purpose.REJECTION,
                results.has_arrived(),
                delivery.superseded == _REJECT,
                delivery.id.not_in(taken_back),
            )
        )
    )


def _is_due(tx: Connection, job: Row[Any], delivery: Row[Any]) -> bool:
    if delivery.purpose == Purpose.NOT_ANALYSED and _has_answer(tx, job.id, delivery.destination):
        return True
    if job.state != JobState.SUPERSEDED:
        return False
    successor = _last(tx, job)
    if successor is None:
        return not _is_still_said(tx, job, delivery.destination)
    if successor.state == JobState.NOT_APPLICABLE:
        return True
    return _has_answer(tx, successor.id, delivery.destination)


def _is_still_said(tx: Connection, job: Row[Any], destination: str) -> bool:
    """Whether another rule stands by the same objects at a destination."""
    return any(
        one.state != JobState.SUPERSEDED and destination in one.send_to
        for one in _with_its_objects(tx, job.id)
    )


def _last(tx: Connection, job: Row[Any]) -> Row[Any] | None:
    """The job that stands at the end of what superseded `job`; `None` where nothing does."""
    current: Row[Any] | None = job
    while current is not None and current.state == JobState.SUPERSEDED:
        following = current.superseded_by
        current = (
            tx.execute(select(tables.job).where(tables.job.c.id == following)).one_or_none()
            if following
            else None
        )
    return current


def _has_answer(tx: Connection, job_id: str, destination: str) -> bool:
    delivery = tables.delivery.c
    confirmed = select(delivery.id).where(
        delivery.job == job_id,
        delivery.destination == destination,
        delivery.purpose == Purpose.RESULTS,
        delivery.state == DeliveryState.CONFIRMED,
    )
    return tx.scalar(confirmed.limit(1)) is not None


def _insert(tx: Connection, delivery: Row[Any], *, at: float) -> None:
    name = f"{delivery.id}\x1f{Purpose.REJECTION}"
    tx.execute(
        tables.delivery.insert().values(
            id=hashlib.sha256(name.encode()).hexdigest()[:32],
            job=delivery.job,
            destination=delivery.destination,
            purpose=Purpose.REJECTION,
            profile=delivery.profile,
            about=delivery.id,
            state=DeliveryState.PENDING,
            created_at=at,
        )
    )
