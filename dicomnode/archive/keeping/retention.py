"""What retention removes: the one rule, and the statements that mark, forget and keep rows.

Nothing is deleted to make room, and never before delivery: what `_in_the_way` does not let go
stays for ever, however full the disk. A study of which nothing was delivered is kept: that no rule
applied to it may be a rule with a typing error. A study whose sender was told by Storage Commitment
that it is kept (PS3.4 J) is kept: the sender may rely on it.

The files, and the order of the steps, are those of `remover`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import ColumnElement, Connection, Select, and_, case, func, or_, select, update

from dicomnode.archive import commitments, journal, tables
from dicomnode.archive.auditing import told
from dicomnode.archive.commitments import Reference
from dicomnode.archive.database import in_parts
from dicomnode.archive.journal import Kind
from dicomnode.archive.studies import index, outcomes
from dicomnode.archive.work import results
from dicomnode.job import DeliveryState, JobState

_ENDED_WELL = (JobState.DELIVERED, JobState.NOT_APPLICABLE, JobState.SUPERSEDED)
_CONFIRMED = DeliveryState.CONFIRMED
_OVER = (_CONFIRMED, DeliveryState.FAILED, DeliveryState.CANCELLED)


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


class Stays(StrEnum):
    """Why a study is not removed, however long ago its end: the first that is so is named."""

    RECEIVING = "it is still being received"
    IN_PROGRESS = "something is still to come of it"
    FAILED = "a job of it failed"
    NOT_CONFIRMED = "not every delivery of it is confirmed"
    HELD = "a rule could not be evaluated on it"
    NOT_DELIVERED = "no result of it was delivered: most likely no rule applied"
    PROMISED = "a peer was answered a storage commitment about it"


def _in_the_way() -> dict[Stays, ColumnElement[bool]]:
    """What keeps a study, in the order in which it is named.

    A study goes of which nothing is so: it is complete. Of its jobs, at least one is delivered, and
    each is delivered, not applicable or superseded. Each delivered one is confirmed by each of its
    destinations, and nothing is on its way anywhere, not even of a superseded one. No rule holds
    it. No peer has been promised that it is kept.

    Each condition names what lets a study go: a state that is unknown here keeps it.
    """
    study, job = tables.study.c, tables.job.c
    its_job = job.study_instance_uid == study.study_instance_uid
    delivered = select(job.id).where(its_job, _read(job.state) == JobState.DELIVERED)
    to_come = select(job.id).where(its_job, job.state.not_in((*_ENDED_WELL, JobState.FAILED)))
    failed = select(job.id).where(its_job, _read(job.state) == JobState.FAILED)
    on_its_way = select(job.id).where(its_job, _delivery(tables.delivery.c.state.not_in(_OVER)))
    without_delivery = delivered.where(~_delivery(_read(tables.delivery.c.state) == _CONFIRMED))
    not_confirmed = delivered.where(_delivery(tables.delivery.c.state != _CONFIRMED))
    return {
        Stays.RECEIVING: study.state != index.COMPLETE,
        Stays.IN_PROGRESS: or_(to_come.exists(), on_its_way.exists()),
        Stays.FAILED: failed.exists(),
        Stays.NOT_CONFIRMED: or_(without_delivery.exists(), not_confirmed.exists()),
        Stays.HELD: _held().exists(),
        Stays.NOT_DELIVERED: ~delivered.exists(),
        Stays.PROMISED: _promised(),
    }


def _has_ended_well(*, before: float) -> ColumnElement[bool]:
    """Whether a study may go: nothing is in the way, and nothing has happened since `before`."""
    study, event = tables.study.c, tables.event.c
    happened = select(event.id).where(
        event.study_instance_uid == study.study_instance_uid, event.at > before
    )
    return and_(
        study.completed_at <= before,
        study.last_at <= before,
        *(~kept for kept in _in_the_way().values()),
        ~happened.exists(),
    )


def _delivery(which: ColumnElement[bool]) -> ColumnElement[bool]:
    delivery = tables.delivery.c
    return select(delivery.id).where(delivery.job == tables.job.c.id, which).exists()


def _read(column: ColumnElement[str]) -> ColumnElement[str]:
    """A column that is not to be looked up by its own index.

    There are few rows of one job or study, and as many of one state or kind as there are studies.
    """
    return column.concat("")


def _promised() -> ColumnElement[bool]:
    """Whether a peer was told what is kept of a study; that something is not, counts as well."""
    event = tables.event.c
    answered = select(event.id).where(
        event.study_instance_uid == tables.study.c.study_instance_uid,
        _read(event.kind) == Kind.COMMITMENT_ANSWERED,
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


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How a study stands towards its removal.

    Attributes:
        size: Bytes that came of it.
        stays: What keeps it, whatever the time; `None` where nothing does.
        quiet_since: When something last happened to it (seconds since the epoch); of one that is
            kept it is not asked.
    """

    size: int
    stays: Stays | None
    quiet_since: float


def standings(tx: Connection) -> Iterator[Standing]:
    """Every study that is there, by the conditions that the remover goes by."""
    study, event = tables.study.c, tables.event.c
    asked_about = study.study_instance_uid.in_(_asked_about(tx))
    kept = case(
        *((condition, str(why)) for why, condition in _in_the_way().items()),
        (asked_about, str(Stays.PROMISED)),
        else_="",
    ).label("kept")
    every = (
        select(
            study.study_instance_uid, study.received_bytes, study.completed_at, study.last_at, kept
        )
        .where(study.state.not_in((index.REMOVING, index.REMOVED)))
        .subquery()
    )
    last = (
        select(func.max(event.at))
        .where(event.study_instance_uid == every.c.study_instance_uid)
        .scalar_subquery()
    )
    happened = case((every.c.kept == "", last), else_=None)
    rows = tx.execute(
        select(
            every.c.received_bytes, every.c.kept, every.c.completed_at, every.c.last_at, happened
        )
    )
    for size, why, *times in rows:
        yield Standing(
            size=size,
            stays=Stays(why) if why else None,
            quiet_since=max((one for one in times if one is not None), default=0.0),
        )


def begin(tx: Connection, study_instance_uid: str, *, before: float) -> Removal | None:
    """Mark a study as being removed: complete → removing.

    Returns:
        What is to be removed, or `None` where the study may not go (any more).
    """
    study, instance, job = tables.study.c, tables.instance.c, tables.job.c
    # Whoever begins something with it holds it meanwhile: the statement below must see that.
    outcomes.lock(tx, study_instance_uid)
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
    told.deleted(tx, uid, at=at)  # what it consisted of stands in the rows that go now
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
    for part in in_parts(taken):
        tx.execute(
            tables.instance.delete().where(
                instance.study_instance_uid == study_instance_uid, instance.path.in_(part)
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
