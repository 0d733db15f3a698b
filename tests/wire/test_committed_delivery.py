"""Deliveries that are over when the destination has committed itself: asked, waited for, heard."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE, build_context, build_role, evt
from pynetdicom.association import Association
from pynetdicom.events import Event
from structlog.testing import capture_logs
from wire.delivering import STUDY, UIDS, Sender
from wire.receiving import HOST, NODE, Peer, Receiver, Start

from dicomnode.archive.commitments import Reference
from dicomnode.archive.work import (
    deliveries,
    in_force,
    leases,
    revisions,
)
from dicomnode.archive.work.confirmations import State
from dicomnode.job import DeliveryState, JobState
from dicomnode.network import checkpoint
from dicomnode.network.commitment import call as commitment_call
from dicomnode.network.commitment import message as commitment_message
from dicomnode.network.commitment.message import SOP_CLASS, SOP_INSTANCE
from dicomnode.network.commitment.service import Commitments
from workers import deliver
from workers.context import Behind, Context

# Without the mend, pynetdicom would lose an answer now and then.
MENDED = (evt.EVT_CONN_OPEN, lambda event: checkpoint.install(event.assoc))


class Pacs:
    """A destination.

    Attributes:
        stored: The SOP Instance UIDs that it was sent, in their order.
        asked: The Action Information of each question.
        failing: SOP Instance UID → Failure Reason of what it does not keep.
        answers_at_once: Whether it answers on the association of the question.
        hangs_up: Whether it aborts the association when it is asked.
    """

    def __init__(self, *, supports_commitment: bool = True) -> None:
        self.stored: list[str] = []
        self.asked: list[Dataset] = []
        self.failing: dict[str, int] = {}
        self.answers_at_once = False
        self.hangs_up = False
        ae = AE("PACS")
        ae.add_supported_context(CTImageStorage, ExplicitVRLittleEndian)
        if supports_commitment:
            ae.add_supported_context(SOP_CLASS)
        handlers = [(evt.EVT_C_STORE, self._store), (evt.EVT_N_ACTION, self._ask), MENDED]
        self.server = ae.start_server((HOST, 0), block=False, evt_handlers=handlers)
        self.port: int = self.server.server_address[1]

    def _store(self, event: Event) -> int:
        uid = str(event.request.AffectedSOPInstanceUID)
        self.stored.append(uid)
        return 0x0111 if self.stored.count(uid) > 1 else 0

    def _ask(self, event: Event) -> tuple[int, None]:
        self.asked.append(event.action_information)
        if self.hangs_up:
            event.assoc.abort()
        elif self.answers_at_once:
            threading.Thread(
                target=self._report, args=[event.assoc, event.action_information]
            ).start()
        return 0, None

    def _report(self, assoc: Association, asked: Dataset) -> int:
        references = [
            Reference(
                sop_class_uid=item.ReferencedSOPClassUID,
                sop_instance_uid=item.ReferencedSOPInstanceUID,
            )
            for item in asked.ReferencedSOPSequence
        ]
        failures = [
            commitment_message.Failure(reference=one, reason=self.failing[one.sop_instance_uid])
            for one in references
            if one.sop_instance_uid in self.failing
        ]
        information = commitment_message.event_information(
            asked.TransactionUID, references, failures
        )
        response, _ = assoc.send_n_event_report(
            information, 2 if failures else 1, SOP_CLASS, SOP_INSTANCE
        )
        return int(response.Status)

    def report(self, node: Receiver, *, question: int = -1, calling: str = "PACS") -> int:
        """Answer a question on an association of its own; what the node says to that."""
        assoc = AE(calling).associate(
            HOST,
            node.port,
            contexts=[build_context(SOP_CLASS)],
            ae_title=NODE,
            ext_neg=[build_role(SOP_CLASS, scp_role=True)],
            evt_handlers=[MENDED],
        )
        assert assoc.is_established
        status = self._report(assoc, self.asked[question])
        assoc.release()
        return status


@pytest.fixture
def pacs() -> Iterator[Pacs]:
    made = Pacs()
    yield made
    made.server.shutdown()


@pytest.fixture
def sender(tmp_path: Path) -> Iterator[Callable[..., Sender]]:
    made: list[Sender] = []

    def _sender(pacs: Pacs, *, commitment_s: float = 600.0) -> Sender:
        worker = Sender(
            tmp_path / "worker", port=pacs.port, confirm="commitment", commitment_s=commitment_s
        )
        made.append(worker)
        return worker

    yield _sender
    for one in made:
        one.database.close()


@pytest.fixture
def reactor() -> str:
    """These tests are of the worker; who serves associations is tested elsewhere."""
    return "streaming"


@pytest.fixture
def listening(start: Start) -> Callable[[Sender], Receiver]:
    """The node's receiver beside a worker: it hears the answers."""

    def _listening(sender: Sender) -> Receiver:
        ours = Commitments(
            sender.database,
            sender.context.store,
            sender.context.configuration.peers,
            clock=time.time,
        )
        known = {"pacs": Peer(ae_title="PACS"), "other": Peer(ae_title="OTHER")}
        return start(peers=known, commitment=ours)

    return _listening


@pytest.fixture(autouse=True)
def short_stay(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody answers at once here unless a test says so: then there is nothing to stay for."""
    if "pacs_at_once" not in request.fixturenames:
        monkeypatch.setattr(commitment_call, "_STAY_S", 0.1)


@pytest.fixture
def pacs_at_once(pacs: Pacs) -> Pacs:
    pacs.answers_at_once = True
    return pacs


Senders = Callable[..., Sender]


def test_a_delivery_is_over_when_the_destination_commits_itself_at_once(
    pacs_at_once: Pacs, sender: Senders
) -> None:
    worker = sender(pacs_at_once)
    done = worker.work()
    assert (done.state, done.attempts) == (DeliveryState.CONFIRMED, 1)
    assert worker.job.state is JobState.DELIVERED
    assert pacs_at_once.stored == UIDS
    (asked,) = pacs_at_once.asked
    assert [item.ReferencedSOPInstanceUID for item in asked.ReferencedSOPSequence] == UIDS
    assert {item.ReferencedSOPClassUID for item in asked.ReferencedSOPSequence} == {CTImageStorage}


def test_a_delivery_waits_for_an_answer_that_comes_on_an_association_of_the_destination(
    pacs: Pacs, sender: Senders, listening: Callable[[Sender], Receiver]
) -> None:
    worker = sender(pacs)
    node = listening(worker)
    waiting = worker.work()
    assert (waiting.state, waiting.reason) == (DeliveryState.PENDING, "awaiting-commitment")
    assert waiting.attempts == 0
    assert not worker.is_due()
    assert worker.job.state is JobState.DELIVERING
    assert pacs.report(node) == 0
    assert worker.work().state is DeliveryState.CONFIRMED
    assert pacs.stored == UIDS
    assert len(pacs.asked) == 1
    assert pacs.report(node) == 0  # it says so again


def test_only_the_destination_that_was_asked_may_answer(
    pacs: Pacs, sender: Senders, listening: Callable[[Sender], Receiver]
) -> None:
    worker = sender(pacs)
    node = listening(worker)
    worker.work()
    assert pacs.report(node, calling="OTHER") == 0x0115
    assert not worker.is_due()
    assert worker.states == [State.ASKED]


def test_a_destination_that_does_not_answer_is_asked_again_and_sent_nothing_again(
    pacs: Pacs, sender: Senders, listening: Callable[[Sender], Receiver]
) -> None:
    worker = sender(pacs, commitment_s=0.3)
    node = listening(worker)
    assert worker.work().reason == "awaiting-commitment"
    waiting = worker.work()
    assert waiting.reason == "awaiting-commitment"
    assert "know this node" in waiting.detail
    assert len({asked.TransactionUID for asked in pacs.asked}) == 2
    assert pacs.stored == UIDS
    # The answer to the first question comes after all.
    assert pacs.report(node, question=0) == 0
    assert worker.work().state is DeliveryState.CONFIRMED
    assert worker.states == [State.CONFIRMED, State.ASKED]


def test_what_the_destination_does_not_keep_is_sent_again_after_a_while(
    pacs_at_once: Pacs, sender: Senders
) -> None:
    pacs_at_once.failing = {UIDS[1]: 0x0112}
    worker = sender(pacs_at_once)
    failed = worker.work()
    assert (failed.state, failed.reason) == (DeliveryState.PENDING, "commitment-failed")
    assert "0x0112" in failed.detail
    assert failed.attempts == 1
    assert not worker.is_due()
    pacs_at_once.failing = {}
    assert worker.work().state is DeliveryState.CONFIRMED
    assert pacs_at_once.stored == [*UIDS, UIDS[1]]
    assert worker.states == [State.FAILED, State.CONFIRMED]


def test_a_failure_that_comes_later_is_put_off_like_any_other(
    pacs: Pacs, sender: Senders, listening: Callable[[Sender], Receiver]
) -> None:
    pacs.failing = {UIDS[0]: 0x0110}
    worker = sender(pacs)
    node = listening(worker)
    worker.work()
    assert pacs.report(node) == 0
    failed = worker.work()
    assert (failed.reason, failed.attempts) == ("commitment-failed", 1)
    assert pacs.stored == UIDS
    pacs.failing = {}
    assert worker.work().reason == "awaiting-commitment"
    assert pacs.stored == [*UIDS, UIDS[0]]
    assert pacs.report(node) == 0
    assert worker.work().state is DeliveryState.CONFIRMED


def test_a_worker_that_is_behind_makes_no_attempt_of_it(pacs: Pacs, sender: Senders) -> None:
    worker = sender(pacs)
    known = worker.context
    with worker.database.write() as tx:
        leases.report_worker(tx, owner="me", device="", requested="", slots=0, at=time.time())
        in_force.record(tx, digest="with the peer", at=time.time())
    without = known.configuration.model_copy(update={"peers": {}})
    worker.context = replace(known, configuration=without)
    before = time.time()
    put_off = worker.work()
    assert (put_off.state, put_off.reason) == (DeliveryState.PENDING, "configuration-behind")
    assert put_off.attempts == 0
    assert worker.not_before() >= before + Behind(retry_s=2.0).retry_s


def test_the_newest_word_counts_whichever_question_it_answers(
    pacs: Pacs, sender: Senders, listening: Callable[[Sender], Receiver]
) -> None:
    worker = sender(pacs, commitment_s=0.3)
    node = listening(worker)
    worker.work()
    worker.work()
    assert len(pacs.asked) == 2
    assert pacs.report(node, question=0) == 0
    pacs.failing = {UIDS[1]: 0x0112}
    assert pacs.report(node, question=1) == 0
    assert worker.states == [State.CONFIRMED, State.FAILED]
    assert worker.work().reason == "commitment-failed"
    pacs.failing = {}
    worker.work()
    assert pacs.stored == [*UIDS, UIDS[1]]
    assert pacs.report(node) == 0
    assert worker.work().state is DeliveryState.CONFIRMED


def test_a_failure_that_answers_an_earlier_question_is_acted_upon(
    pacs: Pacs, sender: Senders, listening: Callable[[Sender], Receiver]
) -> None:
    worker = sender(pacs, commitment_s=0.3)
    node = listening(worker)
    worker.work()
    worker.work()
    pacs.failing = {UIDS[1]: 0x0119}
    assert pacs.report(node, question=0) == 0
    assert worker.work().reason == "commitment-failed"
    assert worker.states == [State.FAILED, State.ASKED]


def test_a_delivery_that_is_tried_once_more_asks_anew(pacs_at_once: Pacs, sender: Senders) -> None:
    pacs_at_once.failing = {UIDS[0]: 0x0119}
    worker = sender(pacs_at_once)
    assert worker.work().state is DeliveryState.FAILED
    pacs_at_once.failing = {}
    with worker.database.write() as tx:
        revisions.retry(tx, STUDY, at=time.time())
    assert worker.work().state is DeliveryState.CONFIRMED
    assert worker.job.state is JobState.DELIVERED


def test_a_destination_that_does_not_answer_is_asked_more_and_more_seldom(
    pacs: Pacs, sender: Senders, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = sender(pacs, commitment_s=120.0)
    ahead_s = 0.0
    monkeypatch.setattr(Context, "now", lambda _: time.time() + ahead_s)
    pauses = []
    with capture_logs() as logs:
        for _ in range(7):
            deliver.deliver(worker.context, worker.delivery.id)
            pauses.append(worker.not_before() - worker.asked_at())
            ahead_s = worker.not_before() - time.time() + 1
    assert pauses == pytest.approx([120, 240, 480, 960, 1920, 3600, 3600])
    assert len(pacs.asked) == 7
    levels = [one["log_level"] for one in logs if one["event"] == "commitment not answered"]
    assert levels == ["info"] * 2 + ["warning"] * 4


@pytest.mark.parametrize("reason", [0x0119, 0x0122])
def test_what_no_repetition_helps_ends_the_delivery(
    pacs_at_once: Pacs, sender: Senders, reason: int
) -> None:
    pacs_at_once.failing = {UIDS[0]: reason}
    worker = sender(pacs_at_once)
    ended = worker.work()
    assert (ended.state, ended.reason) == (DeliveryState.FAILED, "commitment-failed")
    assert worker.job.state is JobState.FAILED


def test_a_destination_without_the_service_fails_by_name_and_says_what_to_do(
    sender: Senders,
) -> None:
    pacs = Pacs(supports_commitment=False)
    try:
        ended = sender(pacs).work()
    finally:
        pacs.server.shutdown()
    assert (ended.state, ended.reason) == (DeliveryState.FAILED, "commitment-not-supported")
    assert 'confirm` to "find"' in ended.detail


def test_a_question_that_was_not_taken_is_asked_again_under_another_uid(
    pacs_at_once: Pacs, sender: Senders
) -> None:
    pacs_at_once.hangs_up = True
    worker = sender(pacs_at_once)
    assert worker.work().reason == "no-answer"
    pacs_at_once.hangs_up = False
    assert worker.work().state is DeliveryState.CONFIRMED
    assert worker.states == [State.LOST, State.CONFIRMED]
    assert pacs_at_once.stored == UIDS
    assert len({asked.TransactionUID for asked in pacs_at_once.asked}) == 2


def test_a_worker_that_died_while_it_waited_asks_nothing_twice(pacs: Pacs, sender: Senders) -> None:
    worker = sender(pacs)
    worker.work()
    with worker.database.write() as tx:
        deliveries.hasten(tx, worker.delivery.id, at=time.time())
    again: Any = worker.work()
    assert (again.state, again.reason) == (DeliveryState.PENDING, "awaiting-commitment")
    assert len(pacs.asked) == 1
    assert pacs.stored == UIDS
