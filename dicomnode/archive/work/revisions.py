"""What a new revision of a study does with jobs: it asks for some, and supersedes others."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, select, update

from dicomnode.archive import journal, tables
from dicomnode.archive.journal import Kind
from dicomnode.archive.studies import index, outcomes
from dicomnode.archive.work import confirmations, hold, jobs, moves, rejections
from dicomnode.archive.work.jobs import JobInput
from dicomnode.job import MOVES, DeliveryState, JobState, Priority, Purpose

_URGENCY = {Priority.STAT: 0, Priority.ROUTINE: 1}
# There is an answer, and destinations may have it.
_ANSWERED = (JobState.DELIVERING, JobState.DELIVERED)
# Why a delivery failed that only another run of the model can give something to send.
_NOTHING_TO_SEND = frozenset({"no-results", "result-missing", "result-changed"})


@dataclass(frozen=True, kw_only=True)
class NewJob:
    """A job as routing asks for it.

    Attributes:
        notify: Destination that is told why there is no answer → "keep" or "reject": what becomes
            of that once there is one.
    """

    key: str
    study_instance_uid: str
    revision: int
    rule: str
    model: str
    model_digest: str
    inputs: Mapping[str, JobInput]
    send_to: tuple[str, ...]
    priority: Priority
    notify: Mapping[str, str] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The same rule, images and weights are the same job, however often they are routed."""
        return hashlib.sha256(f"{self.rule}\x1f{self.key}".encode()).hexdigest()[:32]


def create(tx: Connection, new: NewJob, *, at: float) -> bool:
    """Add a job, unless it exists, and let it supersede what came of earlier revisions.

    Returns:
        Whether it is new.
    """
    existing = jobs.job(tx, new.id)
    if existing is not None and existing.state is not JobState.SUPERSEDED:
        return False
    if existing is not None:
        _revive(tx, new, at=at)
    else:
        _insert(tx, new, at=at)
    for older in _predecessors(tx, new):
        _supersede(tx, older, by=new.id, at=at)
    return True


def _revive(tx: Connection, new: NewJob, *, at: float) -> None:
    """Run a job again that was superseded and is now wanted once more."""
    moves.move(
        tx,
        new.id,
        {JobState.SUPERSEDED},
        JobState.PENDING,
        at=at,
        key=rejections.withdraw(tx, new.id, key=new.key),
        revision=new.revision,
        attempts=0,
        superseded_by=None,
        reason="",
        detail="",
        ended_at=None,
    )


def _insert(tx: Connection, new: NewJob, *, at: float) -> None:
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
            notify=dict(new.notify),
            urgency=_URGENCY[new.priority],
            timings={},
            state=JobState.PENDING,
            created_at=at,
        )
    )
    outcomes.refresh(tx, new.study_instance_uid)
    journal.write(
        tx, Kind.JOB_CREATED, at=at, study=new.study_instance_uid, job=new.id, rule=new.rule
    )


def _predecessors(tx: Connection, new: NewJob) -> list[jobs.Job]:
    """The jobs of the same rule on the same series that `new` replaces."""
    wanted = {name: set(one.series) for name, one in new.inputs.items()}
    return [
        older
        for older in jobs.of_study(tx, new.study_instance_uid)
        if older.id != new.id
        and older.rule == new.rule
        and older.state is not JobState.SUPERSEDED
        and {name: set(one.series) for name, one in older.inputs.items()} == wanted
    ]


def _supersede(tx: Connection, older: jobs.Job, *, by: str, at: float) -> None:
    moves.move(
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
    # What is on its way to a destination now may arrive, and the newer result names it if it does;
    # what would have to be sent anew is cancelled when it is taken up.
    delivery = tables.delivery.c
    tx.execute(
        update(tables.delivery)
        .where(
            delivery.job == older.id,
            delivery.state == DeliveryState.PENDING,
            delivery.purpose != Purpose.REJECTION,
        )
        .values({"state": DeliveryState.CANCELLED, "ended_at": at} | hold.LET_GO)
    )
    rejections.ask(tx, older.id, at=at)


def retry(
    tx: Connection, study_instance_uid: str, *, at: float, only: str | None = None
) -> list[str]:
    """Run the failed jobs of a study once more; those that only failed to arrive are only sent.

    What a destination said of them is forgotten: it is asked anew. A job whose results are gone, or
    are not what was checked, runs again, and all of its destinations get them, under the same UIDs.
    So is said again what a destination would not hear: that there is no answer, or that one is
    taken back.

    Args:
        only: The id of the one job that is meant, if not all are.

    Returns:
        The ids of the jobs.
    """
    outcomes.lock(tx, study_instance_uid)
    failed = [
        one.id
        for one in jobs.of_study(tx, study_instance_uid)
        if one.state is JobState.FAILED and only in (None, one.id)
    ]
    for job_id in failed:
        refused = _refused_deliveries(tx, job_id)
        moves.forget_notices(tx, job_id)
        state = JobState.DELIVERING if refused else JobState.PENDING
        moves.move(tx, job_id, {JobState.FAILED}, state, at=at, **_anew(at))
        _make_again(tx, refused, at=at)
    unheard = _unheard(tx, study_instance_uid, only=only)
    _make_again(tx, unheard, at=at)
    return list(dict.fromkeys([*failed, *unheard.values()]))


def _anew(at: float) -> dict[str, Any]:
    """The columns of a row that begins once more."""
    return {"reason": "", "detail": "", "ended_at": None, "attempts": 0, "not_before": at}


def _make_again(tx: Connection, delivery_ids: Collection[str], *, at: float) -> None:
    confirmations.forget(tx, delivery_ids)
    tx.execute(
        update(tables.delivery)
        .where(tables.delivery.c.id.in_(delivery_ids))
        .values({"state": DeliveryState.PENDING} | hold.LET_GO | _anew(at))
    )


def _unheard(tx: Connection, study_instance_uid: str, *, only: str | None) -> dict[str, str]:
    """The failed deliveries of a study that are there for no results → the jobs they are about."""
    delivery, job = tables.delivery.c, tables.job.c
    its_jobs = select(job.id).where(job.study_instance_uid == study_instance_uid)
    rows = tx.execute(
        select(delivery.id, delivery.job)
        .where(
            delivery.job.in_(its_jobs),
            delivery.state == DeliveryState.FAILED,
            delivery.purpose != Purpose.RESULTS,
        )
        .order_by(delivery.created_at, delivery.id)
    )
    return {row.id: row.job for row in rows if only in (None, row.job)}


def _refused_deliveries(tx: Connection, job_id: str) -> list[str]:
    """The failed deliveries of a job that can be made with what there is.

    Where one cannot, the model runs again and asks for them anew: then there are none any more.
    """
    delivery = tables.delivery.c
    failed = (
        delivery.job == job_id,
        delivery.state == DeliveryState.FAILED,
        delivery.purpose == Purpose.RESULTS,
    )
    found = tx.execute(select(delivery.id, delivery.reason).where(*failed)).all()
    if _NOTHING_TO_SEND.isdisjoint(row.reason for row in found):
        return [row.id for row in found]
    tx.execute(tables.delivery.delete().where(*failed))
    return []


def supersede_unwanted(
    tx: Connection,
    study_instance_uid: str,
    *,
    rules: Collection[str],
    wanted: Sequence[str],
    held: Collection[tuple[str, str]] = (),
    at: float,
) -> None:
    """End what came of earlier revisions and the newest one does not ask for any more.

    A job whose images were removed since stands: that they are not there says nothing against it.
    So does an answer about a series for which its rule is held: it is not known yet whether another
    takes its place, and the one that does is to name it.

    Args:
        rules: The rules that were asked; the jobs of others are left alone.
        wanted: The ids of the jobs that were asked for.
        held: Rule and series of each decision that is left to a person.
    """
    for job in jobs.of_study(tx, study_instance_uid):
        is_past = job.state is JobState.SUPERSEDED
        if job.rule not in rules or job.id in wanted or is_past or _removed(tx, job):
            continue
        if job.state in _ANSWERED and any((job.rule, uid) in held for uid in job.series):
            continue
        _supersede(tx, job, by="", at=at)


def torn(tx: Connection, study_instance_uid: str) -> dict[str, int]:
    """The series of which something was removed and has not come again (`retention`).

    Only those that a job was made of are known so well; and of a series that nothing has come again
    of, nothing new is made.

    Returns:
        Series Instance UID → how many instances are missing.
    """
    missing: dict[str, int] = {}
    for job in jobs.of_study(tx, study_instance_uid):
        for series, gone in _removed(tx, job).items():
            missing[series] = max(gone, missing.get(series, 0))
    return missing


def _removed(tx: Connection, job: jobs.Job) -> dict[str, int]:
    """Series → how many of the instances that a job was made of are not kept any more.

    What was indexed stays so until it is removed: before, there are none.
    """
    gone = {
        one.series: len(set(one.instances)) - len(index.paths_of(tx, set(one.instances)))
        for one in job.inputs.values()
    }
    return {series: count for of, count in gone.items() if count for series in of}
