"""What retention removes: the one rule, and the statements that mark, forget and keep rows.

Nothing is deleted to make room, and never before delivery: what `_has_ended_well` does not let go
stays for ever, however full the disk. A study of which nothing was delivered is kept: that no rule
applied to it may be a rule with a typing error. A study whose sender was told by Storage Commitment
that it is kept (PS3.4 J) is kept: the sender may rely on it.

The files, and the order of the steps, are those of `remover`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, Select, and_, func, select, update

from dicomnode.archive import commitments, journal, tables
from dicomnode.archive.commitments import Reference
from dicomnode.archive.journal import Kind
from dicomnode.archive.studies import index
from dicomnode.archive.work import results
from dicomnode.job import DeliveryState, JobState

_CHUNK = 500

_ENDED_WELL = (JobState.DELIVERED, JobState.NOT_APPLICABLE, JobState.SUPERSEDED)
_OVER = (DeliveryState.CONFIRMED, DeliveryState.FAILED, DeliveryState.CANCELLED)


@dataclass(frozen=True, kw_only=True)
class Removal:
    """A study whose files are being removed.

    Attributes:
        paths: Its instances, relative to the data folder.
        folders: The results of its jobs, likewise.
        size: Bytes of its instances.
    """

    study_instance_uid: str
    paths: tuple[str, ...]
    folders: tuple[str, ...]
    size: int


def _has_ended_well(*, before: float) -> ColumnElement[bool]:
    """Whether a study may go: everything that was to come of it has, and long ago.

    It is complete. Of its jobs, at least one is delivered, and each is delivered, not applicable or
    superseded; none is failed, pending, or being worked on. Each delivered one is confirmed by each
    of its destinations, and nothing is on its way anywhere, not even of a superseded one. No rule
    holds it. No peer has been promised that it is kept. And nothing at all has happened to it since
    `before` (seconds since the epoch).

    Each condition names what lets a study go: a state that is unknown here keeps it.
    """
    study, job, event = tables.study.c, tables.job.c, tables.event.c
    its_job = job.study_instance_uid == study.study_instance_uid
    delivered = select(job.id).where(its_job, job.state == JobState.DELIVERED)
    other_job = select(job.id).where(its_job, job.state.not_in(_ENDED_WELL))
    without_delivery = select(job.id).where(
        its_job,
        job.state == JobState.DELIVERED,
        ~_delivery(tables.delivery.c.state == DeliveryState.CONFIRMED),
    )
    on_its_way = select(job.id).where(its_job, _delivery(tables.delivery.c.state.not_in(_OVER)))
    not_confirmed = select(job.id).where(
        its_job,
        job.state == JobState.DELIVERED,
        _delivery(tables.delivery.c.state != DeliveryState.CONFIRMED),
    )
    happened = select(event.id).where(
        event.study_instance_uid == study.study_instance_uid, event.at > before
    )
    return and_(
        study.state == index.COMPLETE,
        study.completed_at <= before,
        study.last_at <= before,
        delivered.exists(),
        ~other_job.exists(),
        ~without_delivery.exists(),
        ~on_its_way.exists(),
        ~not_confirmed.exists(),
        ~_held().exists(),
        ~_promised(),
        ~happened.exists(),
    )


def _delivery(which: ColumnElement[bool]) -> ColumnElement[bool]:
    delivery = tables.delivery.c
    return select(delivery.id).where(delivery.job == tables.job.c.id, which).exists()


def _promised() -> ColumnElement[bool]:
    """Whether a peer was told what is kept of a study; that something is not, counts as well."""
    event = tables.event.c
    answered = select(event.id).where(
        event.study_instance_uid == tables.study.c.study_instance_uid,
        event.kind == Kind.COMMITMENT_ANSWERED,
    )
    return answered.exists()


def _held() -> Select[tuple[str]]:
    decision, study = tables.decision.c, tables.study.c
    return select(decision.rule).where(
        decision.study_instance_uid == study.study_instance_uid,
        decision.revision == study.revision,
        decision.outcome.not_in(("job", "not_applicable")),
    )


def removable(
    tx: Connection, *, before: float, limit: int, besides: Collection[str] = ()
) -> list[str]:
    """The studies that may go, those first that ended first.

    Args:
        before: Nothing has happened to them since (seconds since the epoch).
        besides: Studies that are not asked for.
    """
    study = tables.study.c
    stay = {*besides, *_asked_about(tx)}
    found = tx.scalars(
        select(study.study_instance_uid)
        .where(_has_ended_well(before=before), study.study_instance_uid.not_in(stay))
        .order_by(study.completed_at, study.study_instance_uid)
        .limit(limit)
    )
    return list(found)


def _asked_about(tx: Connection) -> set[str]:
    """The studies of which a peer has yet to hear whether they are kept."""
    commitment = tables.commitment.c
    asked = tx.scalars(
        select(commitment.references).where(commitment.state != commitments.State.ANSWERED)
    )
    references = [
        Reference(sop_class_uid=sop_class, sop_instance_uid=sop_instance)
        for one in asked
        for sop_class, sop_instance in one
    ]
    return {one.study_instance_uid for one in commitments.kept(tx, references).values()}


def begin(tx: Connection, study_instance_uid: str, *, before: float) -> Removal | None:
    """Mark a study as being removed: complete → removing.

    Returns:
        What is to be removed, or `None` where the study may not go (any more).
    """
    study, instance, job = tables.study.c, tables.instance.c, tables.job.c
    if study_instance_uid in _asked_about(tx):
        return None
    marked = tx.execute(
        update(tables.study)
        .where(study.study_instance_uid == study_instance_uid, _has_ended_well(before=before))
        .values(state=index.REMOVING)
    )
    if not marked.rowcount:
        return None
    its_own = instance.study_instance_uid == study_instance_uid
    size = tx.scalar(select(func.coalesce(func.sum(instance.size), 0)).where(its_own))
    jobs = tx.scalars(select(job.id).where(job.study_instance_uid == study_instance_uid))
    return Removal(
        study_instance_uid=study_instance_uid,
        paths=tuple(tx.scalars(select(instance.path).where(its_own).order_by(instance.path))),
        folders=tuple(results.folder(job_id) for job_id in jobs),
        size=int(size or 0),
    )


def conclude(tx: Connection, removal: Removal, *, at: float) -> bool:
    """Forget the instances of a study whose files are out of place: removing → removed.

    Returns:
        Whether it was still being removed, and nobody was promised it meanwhile; otherwise nothing
        changes.
    """
    study, uid = tables.study.c, removal.study_instance_uid
    if uid in _asked_about(tx):
        return False
    removed = tx.execute(
        update(tables.study)
        .where(study.study_instance_uid == uid, study.state == index.REMOVING, ~_promised())
        .values(state=index.REMOVED)
    )
    if not removed.rowcount:
        return False
    for table in (tables.instance, tables.series):
        tx.execute(table.delete().where(table.c.study_instance_uid == uid))
    jobs = select(tables.job.c.id).where(tables.job.c.study_instance_uid == uid)
    tx.execute(update(tables.result).where(tables.result.c.job.in_(jobs)).values(path=""))
    deliveries = select(tables.delivery.c.id).where(tables.delivery.c.job.in_(jobs))
    tx.execute(
        update(tables.notice).where(tables.notice.c.delivery.in_(deliveries)).values(path="")
    )
    journal.write(
        tx,
        Kind.FILES_REMOVED,
        at=at,
        study=uid,
        instances=len(removal.paths),
        bytes=removal.size,
    )
    return True


def call_off(
    tx: Connection, study_instance_uid: str, *, files: Collection[str], taken: Collection[str]
) -> list[str]:
    """Let a study stay: removing → complete, where nothing has made it receiving again.

    Args:
        files: The paths of what was set aside and is back in place.
        taken: Those of them whose places another file has taken since.

    Returns:
        The paths of instances that are to be indexed anew.
    """
    study, instance = tables.study.c, tables.instance.c
    for start in range(0, len(taken), _CHUNK):
        tx.execute(
            tables.instance.delete().where(
                instance.study_instance_uid == study_instance_uid,
                instance.path.in_(list(taken)[start : start + _CHUNK]),
            )
        )
    tx.execute(
        update(tables.study)
        .where(study.study_instance_uid == study_instance_uid, study.state == index.REMOVING)
        .values(state=index.COMPLETE)
    )
    known = tx.scalars(
        select(instance.path).where(instance.study_instance_uid == study_instance_uid)
    )
    return sorted(path for path in set(files) - set(known) if not results.is_result(path))
