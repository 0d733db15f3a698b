"""What alerts follow from: failures, deliveries that do not get through, arrivals, slow models.

Each question goes by an index and is small: they are asked every few seconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, Integer, and_, cast, func, or_, select

from dicomnode.archive import tables
from dicomnode.archive.journal import Kind
from dicomnode.archive.studies.outcomes import Outcome
from dicomnode.archive.work import confirmations
from dicomnode.job import DeliveryState, JobState

_HELD = "held"
# Arrivals within so many seconds count as one: a study of many associations is one visit.
SLOT_S = 600


@dataclass(frozen=True, kw_only=True)
class Failures:
    """What has failed.

    Attributes:
        count: Studies, or deliveries.
        first_at: When the first of them failed, in seconds since the epoch.
        reasons: The fixed word of each → how many.
    """

    count: int
    first_at: float
    reasons: Mapping[str, int]


def failed_studies(tx: Connection, *, since: float) -> Failures | None:
    """The studies whose last failure came at or after `since`; `None` for none.

    One that was retried with success is none of them. A study counts once, by its last reason.
    """
    failed: dict[str, tuple[str, float]] = {}
    for uid, reason, at in (*_failed_jobs(tx, since), *_held(tx, since)):
        failed[uid] = max(failed.get(uid, ("", 0.0)), (reason, at), key=lambda one: one[1])
    return _failures(failed.values())


def _failures(found: Iterable[tuple[str, float]]) -> Failures | None:
    every = list(found)
    if not every:
        return None
    return Failures(
        count=len(every),
        first_at=min(at for _, at in every),
        reasons=dict(Counter(reason or "unknown" for reason, _ in every).most_common()),
    )


def _failed_jobs(tx: Connection, since: float) -> list[tuple[str, str, float]]:
    job, study = tables.job.c, tables.study.c
    rows = tx.execute(
        select(job.study_instance_uid, job.reason, job.ended_at)
        .join(tables.study, study.study_instance_uid == job.study_instance_uid)
        .where(
            job.ended_at >= since,
            job.state == JobState.FAILED,
            study.outcome == Outcome.FAILED,
        )
    )
    return [(row[0], row[1], row[2]) for row in rows]


def _held(tx: Connection, since: float) -> list[tuple[str, str, float]]:
    """The studies that a rule held: they have no job that failed."""
    event, study, decision = tables.event.c, tables.study.c, tables.decision.c
    is_held = (
        select(decision.rule)
        .where(
            decision.study_instance_uid == study.study_instance_uid,
            decision.revision == study.revision,
            decision.outcome == _HELD,
        )
        .exists()
    )
    rows = tx.execute(
        select(study.study_instance_uid, event.at)
        .join(tables.study, study.study_instance_uid == event.study_instance_uid)
        .where(
            event.kind.in_((Kind.STUDY_COMPLETE, Kind.ROUTING_FAILED)),
            event.at >= since,
            study.outcome == Outcome.FAILED,
            is_held,
        )
    )
    return [(row[0], _HELD, row[1]) for row in rows]


def anything_delivered(tx: Connection, *, since: float) -> bool:
    """Whether a job came to its good end at or after `since`."""
    job = tables.job.c
    found = select(job.id).where(job.ended_at >= since, job.state == JobState.DELIVERED).limit(1)
    return tx.scalar(found) is not None


@dataclass(frozen=True, kw_only=True)
class Stuck:
    """Deliveries to one destination that were tried in vain and go on being tried.

    Attributes:
        reasons: The fixed word of each → how many; of one that is just being tried again, none.
    """

    count: int
    reasons: Mapping[str, int]


def stuck(tx: Connection) -> dict[str, Stuck]:
    """Destination → what does not get through to it; a destination that takes all is not there."""
    columns = tables.delivery.c
    rows = tx.execute(
        select(columns.destination, columns.reason, func.count().label("deliveries"))
        .where(_is_stuck())
        .group_by(columns.destination, columns.reason)
    )
    found: dict[str, Counter[str]] = {}
    for row in rows:
        found.setdefault(row.destination, Counter())[row.reason] += int(row.deliveries)
    return {
        destination: Stuck(
            count=reasons.total(),
            reasons={word: n for word, n in reasons.most_common() if word},
        )
        for destination, reasons in found.items()
    }


def _is_stuck() -> ColumnElement[bool]:
    columns = tables.delivery.c
    # The word is taken away while another attempt is made: the number of attempts stays.
    tried = or_(
        columns.attempts > 1, and_(columns.state == DeliveryState.PENDING, columns.reason != "")
    )
    return and_(
        columns.state.in_((DeliveryState.PENDING, DeliveryState.SENDING)),
        columns.reason != confirmations.AWAITING,
        tried,
    )


def took_something(tx: Connection, destination: str, *, after: float) -> bool:
    """Whether a destination has confirmed anything later than a moment."""
    columns = tables.delivery.c
    found = (
        select(columns.id)
        .where(
            columns.destination == destination,
            columns.ended_at > after,
            columns.state == DeliveryState.CONFIRMED,
        )
        .limit(1)
    )
    return tx.scalar(found) is not None


def refused(tx: Connection, destination: str, *, since: float) -> Failures | None:
    """The deliveries that a destination has refused for good at or after `since`."""
    columns = tables.delivery.c
    rows = tx.execute(
        select(columns.reason, columns.ended_at).where(
            columns.destination == destination,
            columns.ended_at >= since,
            columns.state == DeliveryState.FAILED,
        )
    )
    return _failures((row[0], row[1]) for row in rows)


def stage_seconds(tx: Connection, stage: str, *, since: float) -> dict[str, list[float]]:
    """Model → the seconds that a stage of each of its jobs took that ended at or after `since`."""
    job = tables.job.c
    rows = tx.execute(
        select(job.model, job.timings).where(
            job.ended_at >= since, job.state != JobState.SUPERSEDED
        )
    )
    found: dict[str, list[float]] = {}
    for model, timings in rows:
        if stage in timings:
            found.setdefault(model, []).append(float(timings[stage]))
    return found


def last_arrival(tx: Connection) -> float | None:
    """When the last instance came, in seconds since the epoch; `None` before the first."""
    found: float | None = tx.scalar(select(func.max(tables.study.c.last_at)))
    return found


def first_visit(tx: Connection) -> float | None:
    """When the first association ended that brought something; `None` for never."""
    columns = tables.association.c
    found: float | None = tx.scalar(
        select(columns.ended_at)
        .where(columns.ended_at.is_not(None), columns.stored > 0)
        .order_by(columns.ended_at)
        .limit(1)
    )
    return found


def visits(tx: Connection, *, since: float, until: float) -> int:
    """In how many spans of `SLOT_S` seconds something came, from `since` until before `until`."""
    columns = tables.association.c
    slot = cast(columns.ended_at / SLOT_S, Integer)
    found = tx.scalar(
        select(func.count(slot.distinct())).where(
            columns.ended_at >= since, columns.ended_at < until, columns.stored > 0
        )
    )
    return int(found or 0)
