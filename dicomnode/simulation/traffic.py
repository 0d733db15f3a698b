"""The plan of a day → associations with a node: each at its time, and every answer noted.

Each station has as many threads as it may have associations open. Who behaves well is patient, as
modalities are: what the node did not answer is sent again.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace

from pydicom import Dataset
from pynetdicom import build_context
from pynetdicom.association import Association

from dicomnode import log
from dicomnode import status as statuses
from dicomnode.errors import RetryLater
from dicomnode.network.calling import sender
from dicomnode.network.calling.request import Destination, Patience, requested
from dicomnode.simulation import crowd
from dicomnode.simulation.account import Account, Answer
from dicomnode.simulation.line import Laid
from dicomnode.simulation.planned import Day, Edit, Ending, Fault, Item, Transfer

_log = log.get(__name__)

Make = Callable[[Day, Item], Dataset]

_ATTEMPTS = 8
_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 15.0
_CROWD_STAYS_S = 1.0
_LAST_MESSAGE_ID = 65535  # Message ID (0000,0110) is US
# So much of an object goes out before its line is cut: its command, and some of its header.
_CUT_AFTER_BYTES = 700
_WRONG_AE_TITLE = "NOT_THE_NODE"
# What no patience mends.
_FOR_GOOD = frozenset({"called-ae-title-not-recognized", "calling-ae-title-not-recognized"})
_NOT_ACCEPTED = "not-accepted"
_NO_ANSWER = "no-answer"


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How fast the day goes.

    Attributes:
        speed: Seconds of the day in one of ours; `None` for as fast as the node answers.
        begins_s: Where in the day it begins, in seconds from midnight.
    """

    speed: float | None
    begins_s: float

    def due(self, at_s: float) -> float:
        """Seconds from the beginning of the simulation until a moment of the day."""
        return 0.0 if self.speed is None else (at_s - self.begins_s) / self.speed


class Traffic:
    """Everything that the stations of a day send."""

    def __init__(
        self, day: Day, *, make: Make, to: Destination, pace: Pace, account: Account
    ) -> None:
        self._day = day
        self._make = make
        self._to = to
        self._pace = pace
        self._account = account
        self._is_over = threading.Event()
        self._began = 0.0
        self._queues = [queue.SimpleQueue[Transfer]() for _ in day.profile.stations]
        for transfer in day.transfers:
            self._queues[transfer.station].put(transfer)

    def run(self) -> None:
        """Send everything; returns when all of it has its answer, or `stop` was called."""
        self._began = time.monotonic()
        threads = [
            threading.Thread(target=self._work, args=(index,), name=station.ae_title, daemon=True)
            for index, station in enumerate(self._day.profile.stations)
            for _ in range(station.parallel)
        ]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        finally:
            self.stop()

    def stop(self) -> None:
        """Let every station end after the association that it has open."""
        self._is_over.set()

    def _work(self, station: int) -> None:
        waiting = self._queues[station]
        while not self._is_over.is_set():
            try:
                transfer = waiting.get_nowait()
            except queue.Empty:
                return
            left_s = self._began + self._pace.due(transfer.at_s) - time.monotonic()
            if left_s > 0 and self._is_over.wait(left_s):
                return
            try:
                self._do(transfer)
            except Exception:  # noqa: BLE001 - the edge of the thread: the others go on
                _log.exception("a simulated sender failed")
                self._about(transfer, reason="sender-failed")

    def _do(self, transfer: Transfer) -> None:
        if transfer.fault is Fault.CROWD:
            self._crowd(transfer)
        elif transfer.fault is Fault.ECHO:
            self._patiently(transfer, lambda: self._echo(transfer))
        elif transfer.is_called_wrong:
            self._call_wrongly(transfer)
        elif transfer.ending is Ending.CUT:
            self._cut(transfer)
        else:
            self._bring(transfer)

    def _bring(self, transfer: Transfer) -> None:
        """Send what an association is to bring, until all of it has its answer."""
        pending = list(transfer.items)

        def send() -> None:
            self._associate(transfer, pending)

        if not self._patiently(transfer, send):
            for item in pending:
                self._answered(transfer, item, self._make(self._day, item), reason=_NO_ANSWER)

    def _patiently(self, transfer: Transfer, act: Callable[[], None]) -> bool:
        """Do something, and again where it may help; whether it was done in the end."""
        for attempt in range(_ATTEMPTS):
            try:
                act()
            except RetryLater as error:
                is_last = attempt + 1 == _ATTEMPTS or error.reason in _FOR_GOOD
                self._about(transfer, reason=error.reason, is_final=is_last)
                if is_last or self._is_over.wait(min(_LONGEST_PAUSE_S, _PAUSE_S * 2**attempt)):
                    return False
            else:
                self._about(transfer)
                return True
        return False

    def _associate(self, transfer: Transfer, pending: list[Item]) -> None:
        """One association; what has its answer for good leaves `pending`."""
        contexts = [build_context(*kind) for kind in self._kinds(pending)]
        with (
            closing(Laid(bytes_per_s=transfer.bytes_per_s)) as laid,
            requested(
                self._to,
                calling_ae_title=self._ae_title(transfer),
                contexts=contexts,
                patience=self._patience(transfer),
                handlers=laid.handlers if transfer.bytes_per_s else (),
            ) as assoc,
        ):
            for number, item in enumerate(list(pending)):
                if self._send(assoc, transfer, item, number % _LAST_MESSAGE_ID + 1):
                    pending.remove(item)
            if transfer.ending is Ending.ABORTED and assoc.is_established:
                assoc.abort()
        if pending:
            raise RetryLater("out-of-resources", f"{self._to} has no room for everything now.")

    def _kinds(self, items: Iterable[Item]) -> list[tuple[str, str]]:
        """SOP class and transfer syntax of what is to be sent."""
        found = (
            (str(one.SOPClassUID), str(one.file_meta.TransferSyntaxUID))
            for one in self._of_each_series(items)
        )
        return list(dict.fromkeys(found))

    def _of_each_series(self, items: Iterable[Item]) -> Iterator[Dataset]:
        """One object speaks for its series."""
        alike = {(one.study, one.series, one.edit): one for one in items}
        return (self._make(self._day, item) for item in alike.values())

    def _patience(self, transfer: Transfer) -> Patience:
        """How long an answer may take, the sending included: longer where that is slow by plan."""
        usual = Patience()
        if transfer.bytes_per_s is None:
            return usual
        made = self._of_each_series(transfer.items)
        most = max(len(one.get("PixelData") or b"") for one in made)
        return replace(usual, answer_s=usual.answer_s + 2 * most / transfer.bytes_per_s)

    def _send(self, assoc: Association, transfer: Transfer, item: Item, message_id: int) -> bool:
        """Send one object; whether its answer is the last word."""
        dataset = self._make(self._day, item)
        kind = (str(dataset.SOPClassUID), str(dataset.file_meta.TransferSyntaxUID))
        accepted = {(str(c.abstract_syntax), c.transfer_syntax[0]) for c in assoc.accepted_contexts}
        if kind not in accepted:
            self._answered(transfer, item, dataset, reason=_NOT_ACCEPTED)
            return True
        begin = time.perf_counter()
        try:
            response = assoc.send_c_store(dataset, msg_id=message_id)
        except RuntimeError as error:  # the association is gone
            raise self._no_answer() from error
        if "Status" not in response:
            raise self._no_answer()
        seconds = time.perf_counter() - begin
        outcome = statuses.outcome(response.Status)
        self._answered(
            transfer,
            item,
            dataset,
            reason="" if outcome == "stored" else f"0x{response.Status:04X}",
            is_final=outcome != "retry",
            # What is slow on purpose says nothing about the node.
            seconds=None if transfer.bytes_per_s else seconds,
        )
        return outcome != "retry"

    def _no_answer(self) -> RetryLater:
        return RetryLater(_NO_ANSWER, f"{self._to} stopped answering.")

    def _cut(self, transfer: Transfer) -> None:
        """Send all objects but the last, and hang up in the middle of that one."""
        *whole, last = transfer.items
        try:
            with (
                closing(Laid(bytes_per_s=None)) as laid,
                requested(
                    self._to,
                    calling_ae_title=self._ae_title(transfer),
                    contexts=[build_context(*kind) for kind in self._kinds(transfer.items)],
                    handlers=laid.handlers,
                ) as assoc,
            ):
                for number, item in enumerate(whole, start=1):
                    self._send(assoc, transfer, item, number)
                if laid.line is not None:
                    laid.line.cut_after(_CUT_AFTER_BYTES)
                self._send(assoc, transfer, last, len(transfer.items))
        except RetryLater as error:
            self._about(transfer, reason=error.reason, is_meant=True)
        else:
            self._about(transfer, is_meant=True)

    def _call_wrongly(self, transfer: Transfer) -> None:
        """Call somebody else, who is not there."""
        wrong = replace(self._to, ae_title=_WRONG_AE_TITLE)
        try:
            with requested(
                wrong,
                calling_ae_title=self._ae_title(transfer),
                contexts=[build_context(*kind) for kind in self._kinds(transfer.items)],
            ):
                self._about(transfer, is_meant=True)
        except RetryLater as error:
            self._about(transfer, reason=error.reason, is_meant=True)

    def _echo(self, transfer: Transfer) -> None:
        sender.echo(self._to, calling_ae_title=self._ae_title(transfer))

    def _crowd(self, transfer: Transfer) -> None:
        came = crowd.gather(
            self._to,
            calling_ae_title=self._ae_title(transfer),
            count=transfer.copies,
            hold=lambda: self._is_over.wait(_CROWD_STAYS_S),
        )
        for reason, count in came.items():
            for _ in range(count):
                self._about(transfer, reason=reason, is_meant=reason == crowd.NO_ROOM)

    def _ae_title(self, transfer: Transfer) -> str:
        return self._day.profile.stations[transfer.station].ae_title

    def _about(
        self, transfer: Transfer, *, reason: str = "", is_final: bool = True, is_meant: bool = False
    ) -> None:
        self._account.note(
            Answer(
                station=self._ae_title(transfer),
                reason=reason,
                is_final=is_final,
                is_meant=is_meant,
            )
        )

    def _answered(
        self,
        transfer: Transfer,
        item: Item,
        dataset: Dataset,
        *,
        reason: str,
        is_final: bool = True,
        seconds: float | None = None,
    ) -> None:
        self._account.note(
            Answer(
                station=self._ae_title(transfer),
                study_instance_uid=str(dataset.StudyInstanceUID),
                sop_instance_uid=str(dataset.SOPInstanceUID),
                reason=reason,
                is_final=is_final,
                is_meant=item.edit not in {Edit.NONE, Edit.OTHER_PATIENT},
                seconds=seconds,
            )
        )
