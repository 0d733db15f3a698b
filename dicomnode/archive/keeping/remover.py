"""The remover: deletes the files of studies that ended well long ago. The only thing that does.

Which those are `retention` says. Off unless `disk.keep_delivered_days` is given.

The steps for one study, each of which survives a crash behind it:

1. The study becomes "removing", if it may go at this moment (one statement decides and marks).
2. Its files, and the results of its jobs, are moved to a folder beside (`aside`).
3. A moment later, when whatever a listener was acknowledging meanwhile has been reported and
   indexed, the rows of its instances and series are deleted, it becomes "removed", and the journal
   gets its line: one transaction, synced. An index that is too far behind calls the removal off.
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
from pathlib import Path

from dicomnode import log
from dicomnode.archive.arrival import Arrival, Stored
from dicomnode.archive.database import Database
from dicomnode.archive.disk.aside import Aside
from dicomnode.archive.keeping import retention
from dicomnode.archive.studies import index
from dicomnode.errors import RetryLater

_log = log.get(__name__)

_EVERY_S = 3600.0
_AFTER_FAULT_S = 60.0  # what is set aside meanwhile must not stay there for long
_BATCH = 10  # studies that are set aside at once
# Until what was acknowledged while files were moved has been reported: listeners write to a pipe,
# which is read at once. That it is indexed, too, is asked of the index.
_LAG_S = 5.0
_LOOK_S = 0.1
_LOOKS = 600  # a minute: files stay aside no longer than that for an index that is behind


class Remover:
    """Removes what may go. One for each data folder: the receiver's."""

    def __init__(
        self,
        database: Database,
        data_dir: Path,
        *,
        keep_s: float,
        clock: Callable[[], float],
        report: Callable[[Arrival], None],
        indexed_through: Callable[[], float],
    ) -> None:
        """Prepare.

        Args:
            keep_s: Seconds for which a study stays after the last thing that happened to it;
                infinite: nothing is ever removed.
            clock: Seconds since the epoch.
            report: Is told of instances in place that are to be indexed (anew).
            indexed_through: Everything that was reported before that moment is indexed.
        """
        self._database = database
        self._data_dir = data_dir
        self._aside = Aside(data_dir)
        self._keep_s = keep_s
        self._clock = clock
        self._report = report
        self._indexed_through = indexed_through

    def change(self, *, keep_s: float) -> None:
        """Keep studies for another time, from the next look on; any thread may say so."""
        self._keep_s = keep_s

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
        """Remove what may go, in batches; what fails is passed by until the next look.

        Raises:
            RetryLater: `index-behind`; what was set aside last is in its place again.
        """
        seen: set[str] = set()
        while not stop.is_set():
            before = self._clock() - self._keep_s
            with self._database.read() as tx:
                batch = retention.removable(tx, before=before, limit=_BATCH, besides=seen)
            if not batch:
                return
            seen.update(batch)
            removals = [one for uid in batch if (one := self._set_aside(uid, before=before))]
            if removals:
                stop.wait(lag_s)
                self._wait_for_index(stop)
            if stop.is_set():
                return  # the next start calls it off
            for removal in removals:
                self._finish(removal)

    def _wait_for_index(self, stop: threading.Event) -> None:
        """Return when all that has been reported by now is indexed, or `stop` is set.

        A repetition that was acknowledged while its file was in place must be known of before the
        file is given up: its sender will not send it once more.

        Raises:
            RetryLater: `index-behind`; what was set aside is in its place again.
        """
        reported = self._clock()
        for _ in range(_LOOKS):
            if self._indexed_through() >= reported or stop.wait(_LOOK_S):
                return
        self.recover()
        raise RetryLater(
            "index-behind", "What was received is not indexed yet; nothing is removed meanwhile."
        )

    def _set_aside(self, study_instance_uid: str, *, before: float) -> retention.Removal | None:
        with self._database.write() as tx:
            removal = retention.begin(tx, study_instance_uid, before=before)
        if removal is None:
            return None
        try:
            self._aside.put(study_instance_uid, (*removal.paths, *removal.folders))
        except OSError as error:
            _log.exception("cannot set aside", study=study_instance_uid, error=error.strerror)
            self._call_off(study_instance_uid)
            return None
        return removal

    def _finish(self, removal: retention.Removal) -> None:
        uid = removal.study_instance_uid
        if self._in_place(removal):
            self._call_off(uid)
            return
        with self._database.write(durable=True) as tx:
            removed = retention.conclude(tx, removal, at=self._clock())
        if not removed:
            self._call_off(uid)
            return
        # What came between the look and the commit was taken for known, and is not.
        self._report_found(self._in_place(removal))
        self._aside.drop(uid)
        _log.info("study removed", study=uid, count=len(removal.paths), bytes=removal.size)

    def _in_place(self, removal: retention.Removal) -> list[str]:
        """What has been stored again since it was set aside."""
        return [path for path in removal.paths if (self._data_dir / path).exists()]

    def _call_off(self, study_instance_uid: str) -> None:
        files = self._aside.files(study_instance_uid)
        taken = self._aside.bring_back(study_instance_uid)
        with self._database.write() as tx:
            unknown = retention.call_off(tx, study_instance_uid, files=files, taken=taken)
        self._report_found(unknown)
        _log.info("removal called off", study=study_instance_uid, count=len(files))

    def _report_found(self, paths: Collection[str]) -> None:
        at = self._clock()
        for path in paths:
            self._report(Stored(association="", path=path, at=at))
