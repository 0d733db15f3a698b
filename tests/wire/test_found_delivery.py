"""Deliveries that are over when the destination lists them: sent, asked for, and not sent twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.events import Event
from sqlalchemy import update
from wire.delivering import UIDS, Sender
from wire.receiving import HOST

from dicomnode.archive import tables
from dicomnode.archive.work import results
from dicomnode.job import DeliveryState, JobState
from dicomnode.network import checkpoint

STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
OUT_OF_RESOURCES = 0xA700
# Without the mend, pynetdicom would lose an answer now and then.
MENDED = (evt.EVT_CONN_OPEN, lambda event: checkpoint.install(event.assoc))


class Pacs:
    """A destination.

    Attributes:
        sent: The SOP Instance UIDs that it was sent, in their order.
        kept: Those that it took.
        full_for: Those that it has no room for.
        is_slow: Whether it lists nothing yet.
    """

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.kept: set[str] = set()
        self.full_for: set[str] = set()
        self.is_slow = False
        ae = AE("PACS")
        ae.add_supported_context(CTImageStorage, ExplicitVRLittleEndian)
        ae.add_supported_context(STUDY_ROOT_FIND)
        handlers = [(evt.EVT_C_STORE, self._store), (evt.EVT_C_FIND, self._find), MENDED]
        self.server = ae.start_server((HOST, 0), block=False, evt_handlers=handlers)
        self.port: int = self.server.server_address[1]

    def _store(self, event: Event) -> int:
        uid = str(event.request.AffectedSOPInstanceUID)
        self.sent.append(uid)
        if uid in self.full_for:
            return OUT_OF_RESOURCES
        self.kept.add(uid)
        return 0

    def _find(self, event: Event) -> Iterator[tuple[int, Dataset | None]]:
        uid = event.identifier.SOPInstanceUID
        if uid in self.kept and not self.is_slow:
            found = Dataset()
            found.SOPInstanceUID = uid
            yield 0xFF00, found


@pytest.fixture
def pacs() -> Iterator[Pacs]:
    made = Pacs()
    yield made
    made.server.shutdown()


@pytest.fixture
def sender(pacs: Pacs, tmp_path: Path) -> Iterator[Sender]:
    made = Sender(tmp_path / "worker", port=pacs.port, confirm="find")
    yield made
    made.database.close()


def test_what_an_earlier_attempt_got_there_is_not_sent_again(pacs: Pacs, sender: Sender) -> None:
    pacs.full_for = {UIDS[1]}
    assert sender.work().reason == "destination-busy"
    assert sender.work().reason == "destination-busy"
    pacs.full_for = set()
    assert sender.work().state is DeliveryState.CONFIRMED
    assert pacs.sent == [UIDS[0], UIDS[1], UIDS[1], UIDS[1]]
    assert sender.job.state is JobState.DELIVERED


def test_what_is_listed_later_was_sent_once(pacs: Pacs, sender: Sender) -> None:
    pacs.is_slow = True
    assert sender.work().reason == results.NOT_LISTED
    pacs.is_slow = False
    assert sender.work().state is DeliveryState.CONFIRMED
    assert pacs.sent == UIDS


def test_results_that_are_not_kept_any_more_are_not_waited_for(pacs: Pacs, sender: Sender) -> None:
    with sender.database.write() as tx:
        tx.execute(update(tables.result).values(path=""))
    ended = sender.work()
    assert (ended.state, ended.reason) == (DeliveryState.FAILED, "no-results")
    assert pacs.sent == []
