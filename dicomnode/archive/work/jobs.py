"""Jobs: which exist, and how each stands.

What a worker does to them is in `moves`, what a new revision of a study does in `revisions`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Row, select

from dicomnode.archive import tables
from dicomnode.job import JobState


@dataclass(frozen=True, kw_only=True)
class JobInput:
    """What one input of a model is fed with."""

    series: tuple[str, ...]
    instances: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job as it stands."""

    id: str
    key: str
    study_instance_uid: str
    revision: int
    rule: str
    model: str
    model_digest: str
    inputs: Mapping[str, JobInput] = field(repr=False)
    send_to: tuple[str, ...]
    notify: Mapping[str, str]
    state: JobState
    reason: str
    detail: str
    attempts: int
    created_at: float
    ended_at: float | None
    timings: Mapping[str, float]
    device: str

    @property
    def series(self) -> frozenset[str]:
        """The Series Instance UIDs of all its inputs."""
        return frozenset(uid for one in self.inputs.values() for uid in one.series)


def of_study(tx: Connection, study_instance_uid: str) -> list[Job]:
    """Every job of a study, oldest first."""
    columns = tables.job.c
    rows = tx.execute(
        select(tables.job)
        .where(columns.study_instance_uid == study_instance_uid)
        .order_by(columns.created_at, columns.id)
    )
    return [_job(row) for row in rows]


def of_studies(tx: Connection, study_instance_uids: Collection[str]) -> dict[str, list[Job]]:
    """Every job of some studies, oldest first, by study."""
    columns = tables.job.c
    rows = tx.execute(
        select(tables.job)
        .where(columns.study_instance_uid.in_(study_instance_uids))
        .order_by(columns.created_at, columns.id)
    )
    found: dict[str, list[Job]] = defaultdict(list)
    for row in rows:
        found[row.study_instance_uid].append(_job(row))
    return found


def first_with_key(tx: Connection, study_instance_uid: str, key: str) -> Job | None:
    """The oldest job of a study that asks for the same result, whichever rule asked.

    What was made of the same images is of the same study.
    """
    columns = tables.job.c
    row = tx.execute(
        select(tables.job)
        .where(columns.study_instance_uid == study_instance_uid, columns.key == key)
        .order_by(columns.created_at, columns.id)
        .limit(1)
    ).one_or_none()
    return None if row is None else _job(row)


def superseded_by(tx: Connection, job_ids: Collection[str]) -> list[str]:
    """The ids of the jobs that some jobs have taken the place of, the newest first.

    They are jobs of the same studies: nothing else is read.
    """
    older, newer = tables.job.c, tables.job.alias().c
    studies = select(newer.study_instance_uid).where(newer.id.in_(job_ids))
    return list(
        tx.scalars(
            select(older.id)
            .where(older.superseded_by.in_(job_ids), older.study_instance_uid.in_(studies))
            .order_by(older.created_at.desc(), older.id)
        )
    )


def job(tx: Connection, job_id: str) -> Job | None:
    """One job."""
    row = tx.execute(select(tables.job).where(tables.job.c.id == job_id)).one_or_none()
    return None if row is None else _job(row)


def _job(row: Row[Any]) -> Job:
    return Job(
        id=row.id,
        key=row.key,
        study_instance_uid=row.study_instance_uid,
        revision=row.revision,
        rule=row.rule,
        model=row.model,
        model_digest=row.model_digest,
        inputs={
            name: JobInput(series=tuple(one["series"]), instances=tuple(one["instances"]))
            for name, one in row.inputs.items()
        },
        send_to=tuple(row.send_to),
        notify=dict(row.notify),
        state=JobState(row.state),
        reason=row.reason,
        detail=row.detail,
        attempts=row.attempts,
        created_at=row.created_at,
        ended_at=row.ended_at,
        timings=row.timings,
        device=row.device,
    )
