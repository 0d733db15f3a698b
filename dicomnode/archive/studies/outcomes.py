"""What became of a study over all its rules, kept in a column of its row.

It follows from the study's state, its jobs and its decisions. Whoever changes one of these calls
`refresh` in the same transaction; so it can be counted at any moment, however many studies there
are.
"""

from __future__ import annotations

from enum import StrEnum

from sqlalchemy import ColumnElement, Connection, case, literal, select, update

from dicomnode.archive import tables
from dicomnode.job import JobState

#: `study.state` while more is expected.
RECEIVING = "receiving"


class Outcome(StrEnum):
    """What became of a study, over all its rules."""

    IN_PROGRESS = "in progress"
    FAILED = "failed"
    DELIVERED = "delivered"
    NOT_APPLICABLE = "not applicable"


def derived() -> ColumnElement[str]:
    """What became of a study, from everything that it follows from: the first that holds.

    A study that is being received, or has an open job, is in progress. One failed or held rule
    makes it failed: it needs somebody's eye, whatever the other rules gave. One whose files were
    removed counts as what it was.
    """
    return case(
        (tables.study.c.state == RECEIVING, literal(Outcome.IN_PROGRESS)),
        (_has_job(*(s for s in JobState if not s.is_final)), literal(Outcome.IN_PROGRESS)),
        (_has_job(JobState.FAILED) | _is_held(), literal(Outcome.FAILED)),
        (_has_job(JobState.DELIVERED), literal(Outcome.DELIVERED)),
        else_=literal(Outcome.NOT_APPLICABLE),
    )


def _has_job(*states: JobState) -> ColumnElement[bool]:
    job = tables.job.c
    return (
        select(job.id)
        .where(job.study_instance_uid == tables.study.c.study_instance_uid, job.state.in_(states))
        .exists()
    )


def _is_held() -> ColumnElement[bool]:
    decision = tables.decision.c
    return (
        select(decision.rule)
        .where(
            decision.study_instance_uid == tables.study.c.study_instance_uid,
            decision.revision == tables.study.c.revision,
            decision.outcome == "held",
        )
        .exists()
    )


def refresh(tx: Connection, study_instance_uid: str) -> None:
    """Write down what became of a study, after something that it follows from has changed."""
    lock(tx, study_instance_uid)
    tx.execute(
        update(tables.study)
        .where(tables.study.c.study_instance_uid == study_instance_uid)
        .values(outcome=derived())
    )


def lock(tx: Connection, study_instance_uid: str) -> None:
    """Let the transactions that change what becomes of a study come one after the other.

    Two jobs of one study that end at the same moment must see each other: the second waits here,
    and looks afterwards. The study comes before its jobs in every transaction that touches both.
    """
    column = tables.study.c.study_instance_uid
    tx.execute(select(column).where(column == study_instance_uid).with_for_update())


def lock_of_job(tx: Connection, job_id: str) -> str | None:
    """Lock the study of a job; returns which it is."""
    job = tables.job.c
    study: str | None = tx.scalar(select(job.study_instance_uid).where(job.id == job_id))
    if study is not None:
        lock(tx, study)
    return study
