"""Retention: the files of studies that ended well long ago are removed. The only thing that is.

Nothing is deleted to make room, and never before delivery: what `_has_ended_well` does not let go
stays for ever, however full the disk. Off unless `disk.keep_delivered_days` is given. A study whose
sender was told by Storage Commitment that it is kept (PS3.4 J) is kept: the sender may rely on it.

The steps for one study, each of which survives a crash behind it:

1. The study becomes "removing", if it may go at this moment (one statement decides and marks).
2. Its files, and the results of its jobs, are moved to a folder beside (`aside`).
3. A moment later, when whatever a listener was acknowledging meanwhile has been reported, the rows
   of its instances and series are deleted, it becomes "removed", and the journal gets its line:
   one transaction, synced.
4. What was set aside is deleted.

Until 3 every step can be taken back: after a crash `recover` moves the files back and makes the
study complete again, and the next look begins anew. After 3 it only deletes what lies aside.
The rows of study, jobs, deliveries, decisions and journal stay, so the accounting counts the study
as what it was. The results keep their UIDs, of which a later report may be the successor.

What comes of a study meanwhile, new or a repetition, calls its removal off: `index.add` makes it
receiving or complete again, its files go back, and it is routed whole. What comes after 3 is
received like any other: the study is receiving again, as its next revision. Sent whole, it gives
the jobs that it gave, which are delivered and do not run twice. Sent in part, the rules that would
run on a series of which something is missing are held (`revisions.torn`), and what was delivered of
it stays delivered.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import ColumnElement, Connection, Select, and_, func, select, update

from dicomnode import log
from dicomnode.archive import commitments, index, journal, results, tables
from dicomnode.archive.arrival import Arrival, Stored
from dicomnode.archive.aside import Aside
from dicomnode.archive.commitments import Reference
from dicomnode.archive.database import Database
from dicomnode.archive.journal import Kind
from dicomnode.errors import RetryLater
from dicomnode.job import DeliveryState, JobState

_log = log.get(__name__)

_EVERY_S = 3600.0
_AFTER_FAULT_S = 60.0  # what is set aside meanwhile must not stay there for long
_BATCH = 10  # studies that are set aside at once
# Until what was acknowledged while files were moved has been reported and indexed.
_LAG_S = 5.0
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

    It is complete. Of its jobs, each is delivered, not applicable or superseded; none is failed,
    pending, or being worked on. Each delivered one is confirmed by each of its destinations, and
    nothing is on its way anywhere, not even of a superseded one. No rule holds it. No peer has been
    promised that it is kept. And nothing at all has happened to it since `before` (seconds since
    the epoch).

    Each condition names what lets a study go: a state that is unknown here keeps it.
    """
    study, job, event = tables.study.c, tables.job.c, tables.event.c
    its_job = job.study_instance_uid == study.study_instance_uid
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


class Retention:
    """Removes what may go. One for each data folder: the receiver's."""

    def __init__(
        self,
        database: Database,
        data_dir: Path,
        *,
        keep_s: float,
        clock: Callable[[], float],
        report: Callable[[Arrival], None],
    ) -> None:
        """Prepare.

        Args:
            keep_s: Seconds for which a study stays after the last thing that happened to it;
                infinite: nothing is ever removed.
            clock: Seconds since the epoch.
            report: Is told of instances in place that are to be indexed (anew).
        """
        self._database = database
        self._data_dir = data_dir
        self._aside = Aside(data_dir)
        self._keep_s = keep_s
        self._clock = clock
        self._report = report

    def run(self, stop: threading.Event, *, lag_s: float = _LAG_S) -> None:
        """Look at once, and then every hour, until `stop` is set."""
        while not stop.is_set():
            pause_s = _AFTER_FAULT_S
            try:
                self.recover()
                self.remove_due(stop, lag_s=lag_s)
                pause_s = _EVERY_S
            except RetryLater as error:
                _log.warning("retention waits", reason=error.reason, detail=error.detail)
            except Exception:  # noqa: BLE001 - the edge: what cannot be removed now stays for now
                _log.exception("retention failed")
            stop.wait(pause_s)

    def recover(self) -> None:
        """Bring to an end what an earlier life or an error left half done: see the module."""
        with self._database.read() as tx:
            removing = set(index.in_state(tx, index.REMOVING))
            removed = set(index.in_state(tx, index.REMOVED))
        for study_instance_uid in sorted(removing | set(self._aside.studies())):
            if study_instance_uid in removed:
                self._aside.drop(study_instance_uid)
            else:
                self._call_off(study_instance_uid)

    def remove_due(self, stop: threading.Event, *, lag_s: float) -> None:
        """Remove what may go, in batches; what fails is passed by until the next look."""
        seen: set[str] = set()
        while not stop.is_set():
            before = self._clock() - self._keep_s
            with self._database.read() as tx:
                batch = removable(tx, before=before, limit=_BATCH, besides=seen)
            if not batch:
                return
            seen.update(batch)
            removals = [one for uid in batch if (one := self._set_aside(uid, before=before))]
            if removals and stop.wait(lag_s):
                return  # the next start calls it off
            for removal in removals:
                self._finish(removal)

    def _set_aside(self, study_instance_uid: str, *, before: float) -> Removal | None:
        with self._database.write() as tx:
            removal = begin(tx, study_instance_uid, before=before)
        if removal is None:
            return None
        try:
            self._aside.put(study_instance_uid, (*removal.paths, *removal.folders))
        except OSError as error:
            _log.exception("cannot set aside", study=study_instance_uid, error=error.strerror)
            self._call_off(study_instance_uid)
            return None
        return removal

    def _finish(self, removal: Removal) -> None:
        uid = removal.study_instance_uid
        if self._in_place(removal):
            self._call_off(uid)
            return
        with self._database.write(durable=True) as tx:
            removed = conclude(tx, removal, at=self._clock())
        if not removed:
            self._call_off(uid)
            return
        # What came between the look and the commit was taken for known, and is not.
        self._report_found(self._in_place(removal))
        self._aside.drop(uid)
        _log.info("study removed", study=uid, count=len(removal.paths), bytes=removal.size)

    def _in_place(self, removal: Removal) -> list[str]:
        """What has been stored again since it was set aside."""
        return [path for path in removal.paths if (self._data_dir / path).exists()]

    def _call_off(self, study_instance_uid: str) -> None:
        files = self._aside.files(study_instance_uid)
        taken = self._aside.bring_back(study_instance_uid)
        with self._database.write() as tx:
            unknown = call_off(tx, study_instance_uid, files=files, taken=taken)
        self._report_found(unknown)
        _log.info("removal called off", study=study_instance_uid, count=len(files))

    def _report_found(self, paths: Collection[str]) -> None:
        at = self._clock()
        for path in paths:
            self._report(Stored(association="", path=path, at=at))
