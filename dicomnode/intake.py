"""The loop between receiving and working: new instances → complete studies → routed jobs.

The receiver reports what happened; nothing here stands between a sender and its answer. What was
reported and not yet written when the process dies is found again on disk at the next start.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from dicomnode import completeness, log, routed, routing
from dicomnode.archive import journal
from dicomnode.archive.arrival import Arrival, End, Ended, Opened, Stored, TurnedAway
from dicomnode.archive.auditing import told
from dicomnode.archive.auditing.refusals import Refusals
from dicomnode.archive.auditing.repetitions import Repetitions
from dicomnode.archive.database import Database
from dicomnode.archive.disk import contents
from dicomnode.archive.disk.contents import Content, Unreadable
from dicomnode.archive.disk.files import FileStore, sop_instance_uid_of
from dicomnode.archive.journal import Kind
from dicomnode.archive.studies import associations, index, progress
from dicomnode.errors import RetryLater
from dicomnode.study import Study

_log = log.get(__name__)

_BATCH = 500
_TICK_S = 0.05
_RETRY_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long a study is waited for (seconds).

    Attributes:
        settle_s: After the last association ended in order and left every series gap-free.
        quiet_s: Otherwise, without a new instance.
    """

    settle_s: float
    quiet_s: float

    @property
    def shortest_s(self) -> float:
        """No study is complete sooner after something happened to it."""
        return min(self.settle_s, self.quiet_s)


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What a study is completed and routed by, all of it together."""

    rules: tuple[routing.Rule, ...]
    patience: Patience


class Intake:
    """Indexes what is received, and routes each study once it is complete."""

    def __init__(
        self,
        database: Database,
        store: FileStore,
        rules: Sequence[routing.Rule],
        *,
        patience: Patience,
        clock: Callable[[], float],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._store = store
        self._plan = _Plan(rules=tuple(rules), patience=patience)
        self._clock, self._monotonic = clock, monotonic
        self._reported: queue.SimpleQueue[Arrival] = queue.SimpleQueue()
        self._backlog: list[Arrival] = []
        self._due: dict[str, float] = {}
        self._due_by = self._plan
        self._indexed_through = self._listens_since = -math.inf
        self._repetitions, self._refusals = Repetitions(), Refusals()

    def change(self, rules: Sequence[routing.Rule], *, patience: Patience) -> None:
        """Go by other rules from now on; any thread may say so.

        A study that is just being routed is routed by the ones before, and each whole.
        """
        self._plan = _Plan(rules=tuple(rules), patience=patience)

    def report(self, arrival: Arrival) -> None:
        """Take note of what the receiver saw. Returns at once; any thread may call it."""
        self._reported.put(arrival)

    def indexed_through(self) -> float:
        """Everything that was reported before that moment (s since the epoch) is indexed."""
        return self._indexed_through

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set, then write down what was reported before."""
        # What did not come while the node was down is no sign that there is no more of it. After a
        # power cut the clock is often wrong, and set a moment later.
        self._listens_since = self._monotonic()
        while not stop.is_set():
            stop.wait(self._step())
        self._step()

    def _step(self) -> float:
        """Do what can be done now; returns how long to wait before the next step."""
        try:
            now = self._clock()
            self.catch_up()  # what is not indexed yet would look like silence
            self.complete_due(now)
        except RetryLater as error:
            _log.warning("intake waits", reason=error.reason, detail=error.detail)
            return _RETRY_S
        return _TICK_S if self._reported.empty() else 0.0

    def reconcile(self) -> None:
        """Bring rows and files together after a start: nothing that was acknowledged is missing.

        Files without rows are indexed; rows without files are reported; associations that an
        earlier life left open are closed as unknown; studies that were being received go on.
        """
        at = self._clock()
        with self._database.write() as tx:
            for orphan in associations.end_orphans(tx, at=at):
                _record_end(tx, orphan.association, end=End.UNKNOWN, at=at, stored=orphan.stored)
                told.received(tx, orphan.association, at=at)
            known = index.known_paths(tx)
        on_disk = set(self._store.walk())
        found = sorted(on_disk - known)
        for start in range(0, len(found), _BATCH):
            self._index_found(found[start : start + _BATCH], at=at)
        self._report_missing(sorted(known - on_disk), at=at)
        with self._database.read() as tx:
            for study_instance_uid in index.receiving(tx):
                self._due[study_instance_uid] = at

    def _index_found(self, paths: Sequence[str], *, at: float) -> None:
        found = [Stored(association="", path=path, at=at) for path in paths]
        read = {path: contents.read(self._store, path) for path in paths}
        with self._database.write() as tx:
            for study in self._index(tx, found, read):
                journal.write(tx, Kind.FOUND_AT_START, at=at, study=study)
            told.found(tx, [sop_instance_uid_of(path) for path in paths], at=at)
        _log.info("found at start", count=len(paths))

    def _report_missing(self, paths: Sequence[str], *, at: float) -> None:
        if not paths:
            return
        with self._database.write() as tx:
            # Each once, not at every start: a disk that is not mounted lacks all of them.
            told_before = journal.missing_files(tx)
            uids = {one: sop_instance_uid_of(one) for one in paths if one not in told_before}
            studies = index.studies_of(tx, uids.values())
            for path, uid in uids.items():
                journal.write(tx, Kind.FILE_MISSING, at=at, study=studies.get(uid), path=path)
        _log.error("files missing", count=len(paths), path=paths[0])

    def catch_up(self) -> None:
        """Index everything that was reported by now, however much."""
        now = self._clock()
        for _ in range(1 + (len(self._backlog) + self._reported.qsize()) // _BATCH):
            self.index_reported()
        self._indexed_through = now

    def index_reported(self) -> None:
        """Write down what was reported, one batch of it, in one transaction."""
        while len(self._backlog) < _BATCH and not self._reported.empty():
            self._backlog.append(self._reported.get())
        if not self._backlog:
            return
        # Files are read before the transaction: nobody waits for our disk with the lock held.
        read = {path: contents.read(self._store, path) for path in self._not_indexed()}
        with self._database.write() as tx:
            touched = self._index(tx, self._backlog, read)
        # While a study keeps coming it is not asked for: to load it takes longer than a batch.
        earliest = min(one.at for one in self._backlog) + self._plan.patience.shortest_s
        self._repetitions.forget(self._backlog)
        self._refusals.forget()
        self._backlog.clear()
        for study_instance_uid in touched:
            self._due[study_instance_uid] = earliest

    def _not_indexed(self) -> list[str]:
        """The files of the backlog that are to be read: of one that came again there may be a row.

        Whether there is cannot be taken for granted: a listener may have died before it reported.
        """
        stored = [one for one in self._backlog if isinstance(one, Stored)]
        again = {one.path: sop_instance_uid_of(one.path) for one in stored if one.repeated}
        if not again:
            return [one.path for one in stored]
        with self._database.read() as tx:
            known = index.paths_of(tx, again.values())
        return [one.path for one in stored if again.get(one.path) not in known]

    def _index(
        self,
        tx: Connection,
        arrivals: Sequence[Arrival],
        read: Mapping[str, Content | Unreadable],
    ) -> set[str]:
        touched: set[str] = set()
        waiting: list[index.Received] = []
        again = [one for one in arrivals if isinstance(one, Stored) and one.path not in read]
        index.came_again(tx, {sop_instance_uid_of(one.path): one.at for one in again})
        self._repetitions.note(tx, again)
        for arrival in arrivals:
            if isinstance(arrival, Stored):
                if arrival.path in read:
                    waiting += _received(tx, arrival, read[arrival.path])
                continue
            touched |= index.add(tx, waiting)
            waiting.clear()
            if isinstance(arrival, TurnedAway):
                self._refusals.tell(tx, arrival)
            touched |= _record(tx, arrival, again=self._repetitions.of(arrival.association))
        return touched | index.add(tx, waiting)

    def complete_due(self, now: float) -> None:
        """Complete and route each study whose time has come by `now`."""
        if self._due_by is not self._plan:
            # How long a study is waited for may have become shorter: each is asked for anew.
            self._due_by, self._due = self._plan, dict.fromkeys(self._due, now)
        for study_instance_uid in [uid for uid, at in self._due.items() if at <= now]:
            wait_until = self._try_to_complete(study_instance_uid, now=now)
            if wait_until is None:
                del self._due[study_instance_uid]
            else:
                self._due[study_instance_uid] = wait_until

    def _try_to_complete(self, study_instance_uid: str, *, now: float) -> float | None:
        plan = self._plan
        try:
            with self._database.write() as tx:
                return self._complete(tx, study_instance_uid, plan, now=now)
        except RetryLater:
            raise
        except Exception as error:  # noqa: BLE001 - one odd study must not stop all the others
            _log.exception("routing failed unexpectedly", study=study_instance_uid)
            with self._database.write() as tx:
                routed.hold(tx, study_instance_uid, plan.rules, type(error).__name__, at=now)
            return None

    def _evidence(
        self, tx: Connection, study_instance_uid: str, *, now: float
    ) -> completeness.Evidence:
        so_far = progress.of_study(tx, study_instance_uid)
        return completeness.Evidence(
            last_received=max(so_far.last_at, now - (self._monotonic() - self._listens_since)),
            last_again=so_far.last_again,
            last_ended=so_far.last_ended,
            ended_in_order=so_far.ended_in_order,
            open_associations=so_far.open_associations,
            turned_away=so_far.turned_away,
        )

    def _complete(
        self, tx: Connection, study_instance_uid: str, plan: _Plan, *, now: float
    ) -> float | None:
        """Complete a study, or say until when it is waited for."""
        if not index.is_receiving(tx, study_instance_uid):
            return None  # it was complete before an association ended that had brought it
        patience = plan.patience
        evidence = self._evidence(tx, study_instance_uid, now=now)
        earliest = completeness.earliest_release(
            evidence, settle_s=patience.settle_s, quiet_s=patience.quiet_s
        )
        if earliest > now:
            return earliest
        received = index.study(tx, study_instance_uid)
        if received is None:
            return None
        release = completeness.release_at(
            received, evidence, settle_s=patience.settle_s, quiet_s=patience.quiet_s
        )
        if release.at > now:
            return release.at
        study = Study(
            study_instance_uid=study_instance_uid,
            revision=received.revision + 1,
            series=received.series,
        )
        if index.complete(
            tx, study_instance_uid, revision=study.revision, because=release.because, at=now
        ):
            journal.write(
                tx,
                Kind.STUDY_COMPLETE,
                at=now,
                study=study_instance_uid,
                revision=study.revision,
                because=release.because,
            )
            count = routed.apply(tx, study, plan.rules, at=now)
            _log.info(
                "study complete", study=study_instance_uid, revision=study.revision, count=count
            )
        return None


def _received(
    tx: Connection, stored: Stored, content: Content | Unreadable
) -> list[index.Received]:
    """What the index is told of a stored file: nothing of one that cannot be read any more."""
    if isinstance(content, Unreadable):
        journal.write(tx, Kind.UNREADABLE, at=stored.at, path=stored.path, detail=content.detail)
        _log.error("stored file unreadable", path=stored.path, detail=content.detail)
        return []
    if content.fault:
        journal.write(
            tx,
            Kind.UNREADABLE,
            at=stored.at,
            study=content.instance.study_instance_uid,
            path=stored.path,
            detail=content.fault,
        )
    received = index.Received(
        instance=content.instance,
        association=stored.association,
        size=content.size,
        at=stored.at,
    )
    return [received]


def _record(
    tx: Connection, arrival: Opened | TurnedAway | Ended, *, again: Collection[str]
) -> set[str]:
    """Write down what is no instance; returns the studies whose evidence it changes.

    Args:
        again: SOP Instance UIDs of what its association brought that was there before.
    """
    if isinstance(arrival, Opened):
        associations.opened(tx, arrival)
        journal.write(
            tx,
            Kind.ASSOCIATION_OPENED,
            at=arrival.at,
            association=arrival.association,
            peer=arrival.peer,
            calling_ae_title=arrival.calling_ae_title,
            address=arrival.address,
        )
        return set()
    if isinstance(arrival, TurnedAway):
        journal.write(
            tx,
            Kind.TURNED_AWAY,
            at=arrival.at,
            study=arrival.study_instance_uid,
            association=arrival.association,
            peer=arrival.peer,
            reason=arrival.reason,
            detail=arrival.detail,
            status=f"0x{arrival.status:04X}",
            sop_instance=arrival.sop_instance_uid,
        )
        return set()
    _record_end(
        tx,
        arrival.association,
        end=arrival.end,
        at=arrival.at,
        stored=arrival.stored,
        refused=arrival.refused,
    )
    told.received(tx, arrival.association, again=again, at=arrival.at)
    return associations.ended(tx, arrival)


def _record_end(tx: Connection, association: str, *, end: End, at: float, **counts: Any) -> None:
    journal.write(
        tx, Kind.ASSOCIATION_ENDED, at=at, association=association, end=str(end), **counts
    )
