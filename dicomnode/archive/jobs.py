"""Jobs: which exist, and what became of them.

Each function is one step of the table of moves in `dicomnode.job`, made in the transaction that
is given. A worker holds a row by a lease; whoever does not hold it changes nothing, so a message
that comes twice, or a worker that wakes up too late, does no harm.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Row, select, update

from dicomnode.archive import journal, tables
from dicomnode.archive.journal import Kind
from dicomnode.job import MOVES, DeliveryState, JobState, Priority

_URGENCY = {Priority.STAT: 0, Priority.ROUTINE: 1}


@dataclass(frozen=True, kw_only=True)
class JobInput:
    """What one input of a model is fed with."""

    series: tuple[str, ...]
    instances: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class NewJob:
    """A job as routing asks for it."""

    key: str
    study_instance_uid: str
    revision: int
    rule: str
    model: str
    model_digest: str
    inputs: Mapping[str, JobInput]
    send_to: tuple[str, ...]
    priority: Priority

    @property
    def id(self) -> str:
        """The same rule, images and weights are the same job, however often they are routed."""
        return hashlib.sha256(f"{self.rule}\x1f{self.key}".encode()).hexdigest()[:32]


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
    state: JobState
    reason: str
    detail: str
    attempts: int
    created_at: float
    ended_at: float | None
    timings: Mapping[str, float]
    device: str


@dataclass(frozen=True, kw_only=True)
class ResultFile:
    """A result object that was checked and kept."""

    kind: str
    sop_instance_uid: str
    series_instance_uid: str
    path: str  # relative to the data folder
    digest: str


def create(tx: Connection, new: NewJob, *, at: float) -> bool:
    """Add a job, unless it exists, and let it supersede what came of earlier revisions.

    Returns:
        Whether it is new.
    """
    exists = tx.scalar(select(tables.job.c.id).where(tables.job.c.id == new.id))
    if exists:
        return False
    tx.execute(
        tables.job.insert().values(
            id=new.id,
            key=new.key,
            study_instance_uid=new.study_instance_uid,
            revision=new.revision,
            rule=new.rule,
            model=new.model,
            model_digest=new.model_digest,
            inputs={
                name: {"series": list(one.series), "instances": list(one.instances)}
                for name, one in new.inputs.items()
            },
            send_to=list(new.send_to),
            urgency=_URGENCY[new.priority],
            timings={},
            state=JobState.PENDING,
            created_at=at,
        )
    )
    journal.write(
        tx, Kind.JOB_CREATED, at=at, study=new.study_instance_uid, job=new.id, rule=new.rule
    )
    for older in _predecessors(tx, new):
        _supersede(tx, older, by=new.id, at=at)
    return True


def _predecessors(tx: Connection, new: NewJob) -> list[Job]:
    """The jobs of the same rule on the same series that `new` replaces."""
    wanted = {name: set(one.series) for name, one in new.inputs.items()}
    return [
        older
        for older in of_study(tx, new.study_instance_uid)
        if older.id != new.id
        and older.rule == new.rule
        and older.state is not JobState.SUPERSEDED
        and {name: set(one.series) for name, one in older.inputs.items()} == wanted
    ]


def _supersede(tx: Connection, older: Job, *, by: str, at: float) -> None:
    _move(
        tx,
        older.id,
        {s for s in MOVES if JobState.SUPERSEDED in MOVES[s]},
        JobState.SUPERSEDED,
        at=at,
        superseded_by=by,
        reason="superseded",
        detail="The study has a newer revision, or the model a newer version.",
        ended_at=at,
    )
    open_states = (DeliveryState.PENDING, DeliveryState.SENDING)
    tx.execute(
        update(tables.delivery)
        .where(tables.delivery.c.job == older.id, tables.delivery.c.state.in_(open_states))
        .values(state=DeliveryState.CANCELLED, ended_at=at, lease_owner=None, lease_until=None)
    )


def supersede_unwanted(
    tx: Connection, study_instance_uid: str, *, wanted: Sequence[str], at: float
) -> None:
    """End the open jobs of earlier revisions that the newest one does not ask for any more."""
    for job in of_study(tx, study_instance_uid):
        if job.id not in wanted and not job.state.is_final:
            _supersede(tx, job, by="", at=at)


def of_study(tx: Connection, study_instance_uid: str) -> list[Job]:
    """Every job of a study, oldest first."""
    columns = tables.job.c
    rows = tx.execute(
        select(tables.job)
        .where(columns.study_instance_uid == study_instance_uid)
        .order_by(columns.created_at, columns.id)
    )
    return [_job(row) for row in rows]


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
        state=JobState(row.state),
        reason=row.reason,
        detail=row.detail,
        attempts=row.attempts,
        created_at=row.created_at,
        ended_at=row.ended_at,
        timings=row.timings,
        device=row.device,
    )


def _move(
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
    lease = {"lease_owner": None, "lease_until": None, "queued_at": None} | values
    moved = tx.execute(update(tables.job).where(*where).values(state=after, **lease))
    if not moved.rowcount:
        return False
    study = tx.scalar(select(columns.study_instance_uid).where(columns.id == job_id))
    journal.write(
        tx,
        Kind.JOB_MOVED,
        at=at,
        study=study,
        job=job_id,
        state=str(after),
        reason=values.get("reason", ""),
        detail=values.get("detail", ""),
    )
    return True


def claim(tx: Connection, job_id: str, *, owner: str, at: float, lease_s: float) -> Job | None:
    """Take up a pending job: pending → predicting.

    Returns:
        The job, or `None` when it is not pending (any more) or its time has not come.
    """
    columns = tables.job.c
    taken = tx.execute(
        update(tables.job)
        .where(
            columns.id == job_id,
            columns.state == JobState.PENDING,
            columns.not_before <= at,
        )
        .values(
            state=JobState.PREDICTING,
            attempts=columns.attempts + 1,
            lease_owner=owner,
            lease_until=at + lease_s,
            reason="",
            detail="",
        )
    )
    if not taken.rowcount:
        return None
    found = job(tx, job_id)
    if found is not None:
        journal.write(
            tx,
            Kind.JOB_MOVED,
            at=at,
            study=found.study_instance_uid,
            job=job_id,
            state=str(JobState.PREDICTING),
            attempt=found.attempts,
        )
    return found


def hand_back(tx: Connection, job_id: str, *, owner: str, at: float) -> bool:
    """Give a job back that was not finished, as if it had not been taken: predicting → pending."""
    return _move(
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
) -> bool:
    """Let a job be taken up again later: predicting → pending."""
    return _move(
        tx,
        job_id,
        {JobState.PREDICTING},
        JobState.PENDING,
        at=at,
        owner=owner,
        not_before=not_before,
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
    return _move(
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
    results: Sequence[ResultFile],
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
    moved = _move(
        tx,
        job_id,
        {JobState.PREDICTING},
        JobState.DELIVERING,
        at=at,
        owner=owner,
        timings=dict(timings),
        device=device,
    )
    found = job(tx, job_id)
    if not moved or found is None:
        return False
    tx.execute(tables.result.delete().where(tables.result.c.job == job_id))
    for position, one in enumerate(results):
        tx.execute(
            tables.result.insert().values(
                job=job_id,
                position=position,
                kind=one.kind,
                sop_instance_uid=one.sop_instance_uid,
                series_instance_uid=one.series_instance_uid,
                path=one.path,
                digest=one.digest,
            )
        )
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


def results(tx: Connection, job_id: str) -> list[ResultFile]:
    """The kept results of a job, in the order in which they are sent."""
    columns = tables.result.c
    rows = tx.execute(select(tables.result).where(columns.job == job_id).order_by(columns.position))
    return [
        ResultFile(
            kind=row.kind,
            sop_instance_uid=row.sop_instance_uid,
            series_instance_uid=row.series_instance_uid,
            path=row.path,
            digest=row.digest,
        )
        for row in rows
    ]


def finish_delivering(
    tx: Connection, job_id: str, state: JobState, *, at: float, reason: str = "", detail: str = ""
) -> bool:
    """End a job whose deliveries are over: delivering → delivered or failed."""
    return _move(
        tx,
        job_id,
        {JobState.DELIVERING},
        state,
        at=at,
        reason=reason,
        detail=detail,
        ended_at=at,
    )
