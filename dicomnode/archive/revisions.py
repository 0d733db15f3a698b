"""What a new revision of a study does with jobs: it asks for some, and supersedes others."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, select, update

from dicomnode.archive import jobs, journal, moves, tables, work
from dicomnode.archive.jobs import JobInput
from dicomnode.archive.journal import Kind
from dicomnode.job import MOVES, DeliveryState, JobState, Priority

_URGENCY = {Priority.STAT: 0, Priority.ROUTINE: 1}


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
    open_states = (DeliveryState.PENDING, DeliveryState.SENDING)
    tx.execute(
        update(tables.delivery)
        .where(tables.delivery.c.job == older.id, tables.delivery.c.state.in_(open_states))
        .values({"state": DeliveryState.CANCELLED, "ended_at": at} | work.LET_GO)
    )


def supersede_unwanted(
    tx: Connection, study_instance_uid: str, *, wanted: Sequence[str], at: float
) -> None:
    """End the open jobs of earlier revisions that the newest one does not ask for any more."""
    for job in jobs.of_study(tx, study_instance_uid):
        if job.id not in wanted and not job.state.is_final:
            _supersede(tx, job, by="", at=at)
