"""Storage commitment as a peer sees it: asked of us, answered by us, on whichever association."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage
from pynetdicom import AE, build_context, build_role, evt
from pynetdicom.association import Association
from pynetdicom.events import Event
from wire.receiving import HOST, NODE, Peer, Receiver, Start, dataset_bytes, instance, write

from dicomnode.archive import commitments, journal
from dicomnode.archive.commitments import Reference
from dicomnode.archive.database import Database
from dicomnode.archive.disk import contents, files
from dicomnode.archive.disk.contents import Content
from dicomnode.archive.disk.files import FileStore
from dicomnode.archive.studies import index
from dicomnode.errors import Failed, Misconfigured, RetryLater
from dicomnode.network import checkpoint
from dicomnode.network.calling.request import Destination
from dicomnode.network.commitment import call as commitment_call
from dicomnode.network.commitment import message as commitment_message
from dicomnode.network.commitment.message import SOP_CLASS, SOP_INSTANCE
from dicomnode.network.commitment.reporter import CommitmentReporter
from dicomnode.network.commitment.service import Commitments
from dicomnode.pauses import Pauses

WITHIN_S = 30
TRANSACTION = "1.2.3.9"

Answer = tuple[int, Dataset]

# Without the mend, pynetdicom would lose an answer now and then.
MENDED = (evt.EVT_CONN_OPEN, lambda event: checkpoint.install(event.assoc))


@dataclass(frozen=True, kw_only=True)
class Address:
    ae_title: str
    port: int
    host: str = HOST
    tls: bool = False
    tls_name: str = ""


@dataclass(frozen=True, kw_only=True)
class Asker(Peer):
    commitment_at: Address | None = None


class Keeper:
    """What the node keeps, in a database and as files."""

    def __init__(self, data_dir: Path) -> None:
        self.url = f"sqlite:///{data_dir}/node.db"
        self.database = Database(self.url)
        self.database.migrate()
        self.store = FileStore(data_dir)
        self._outside = data_dir.with_suffix(".dcm")

    def keep(self, number: int, *, indexed: bool = True) -> Reference:
        """Receive an object."""
        ds = instance(number)
        meta = files.file_meta(
            sop_class_uid=ds.SOPClassUID,
            sop_instance_uid=ds.SOPInstanceUID,
            transfer_syntax_uid=ExplicitVRLittleEndian,
        )
        with contextlib.closing(self.store.draft(meta)) as draft:
            draft.write(dataset_bytes(write(self._outside, ds)))
            stored = draft.commit(ds.SOPInstanceUID)
        if indexed:
            content = contents.read(self.store, stored.path)
            assert isinstance(content, Content)
            received = index.Received(
                instance=content.instance, association="a", size=content.size, at=1.0
            )
            with self.database.write() as tx:
                index.add(tx, [received])
        return Reference(sop_class_uid=ds.SOPClassUID, sop_instance_uid=ds.SOPInstanceUID)

    def file(self, reference: Reference) -> Path:
        return self.store.absolute(self.store.place(reference.sop_instance_uid))

    def commitments(self, *, called_at: Address | None = None) -> Commitments:
        return Commitments(self.database, self.store, peers(called_at), clock=time.time)

    def journal(self, kind: journal.Kind) -> list[dict[str, Any]]:
        with self.database.read() as tx:
            rows = tx.execute(
                journal.tables.event.select().where(journal.tables.event.c.kind == kind)
            ).all()
        return [row.facts for row in rows]

    def waiting(self) -> dict[str, list[str]]:
        with self.database.read() as tx:
            return commitments.due(tx, ["ct1"], at=time.time() + 1e6)


def peers(called_at: Address | None = None) -> dict[str, Asker]:
    return {
        "ct1": Asker(ae_title="CT1", commitment_at=called_at),
        "pacs": Asker(ae_title="PACS"),
    }


@pytest.fixture
def keeper(tmp_path: Path) -> Iterator[Keeper]:
    made = Keeper(tmp_path / "data")
    yield made
    made.database.close()


@pytest.fixture
def node(start: Start, keeper: Keeper) -> Receiver:
    """A node that has nowhere to call CT1."""
    return start(peers=peers(), commitment=keeper.commitments())


class Client:
    """An association of a peer that asks, and hears what it is told there."""

    def __init__(self, node: Receiver, *, calling: str = "CT1", as_scp: bool = False) -> None:
        self.told: queue.Queue[Answer] = queue.Queue()
        roles = [build_role(SOP_CLASS, scp_role=True)] if as_scp else []
        self.assoc: Association = AE(calling).associate(
            HOST,
            node.port,
            contexts=[build_context(SOP_CLASS)],
            ae_title=NODE,
            ext_neg=[*roles],
            evt_handlers=[(evt.EVT_N_EVENT_REPORT, self._hear), MENDED],
        )
        assert self.assoc.is_established

    def _hear(self, event: Event) -> tuple[int, None]:
        self.told.put((event.request.EventTypeID, event.event_information))
        return 0, None

    def ask(
        self,
        *references: Reference,
        transaction: str = TRANSACTION,
        action: int = 1,
        sop_instance: str = SOP_INSTANCE,
    ) -> int:
        information = commitment_message.action_information(transaction, references)
        return self.send(information, action=action, sop_instance=sop_instance)

    def send(
        self, information: Dataset, *, action: int = 1, sop_instance: str = SOP_INSTANCE
    ) -> int:
        response, _ = self.assoc.send_n_action(information, action, SOP_CLASS, sop_instance)
        return int(response.Status)

    def report(self, event_type: int, information: Dataset) -> int:
        response, _ = self.assoc.send_n_event_report(
            information, event_type, SOP_CLASS, SOP_INSTANCE
        )
        return int(response.Status)

    def hear(self) -> Answer:
        return self.told.get(timeout=WITHIN_S)


@pytest.fixture
def connect() -> Iterator[Callable[..., Client]]:
    """Associates as a peer; what is left open is aborted at the end."""
    made: list[Client] = []

    def _connect(node: Receiver, **how: Any) -> Client:
        made.append(Client(node, **how))
        return made[-1]

    yield _connect
    for client in made:
        if client.assoc.is_established:
            client.assoc.release()


Connect = Callable[..., Client]


def committed(answer: Answer) -> list[str]:
    items = answer[1].get("ReferencedSOPSequence") or []
    return [item.ReferencedSOPInstanceUID for item in items]


def failed(answer: Answer) -> dict[str, int]:
    items = answer[1].get("FailedSOPSequence") or []
    return {item.ReferencedSOPInstanceUID: item.FailureReason for item in items}


def wait_for(condition: Callable[[], object]) -> None:
    until = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_objects_that_are_kept_are_committed_on_the_same_association(
    node: Receiver, keeper: Keeper, connect: Connect
) -> None:
    references = [keeper.keep(1), keeper.keep(2)]
    client = connect(node)
    assert client.ask(*references) == 0
    answer = client.hear()
    assert answer[0] == 1
    assert answer[1].TransactionUID == TRANSACTION
    assert committed(answer) == ["1.2.3.4.1", "1.2.3.4.2"]
    assert "FailedSOPSequence" not in answer[1]
    assert answer[1].ReferencedSOPSequence[0].ReferencedSOPClassUID == CTImageStorage
    wait_for(lambda: not keeper.waiting())
    (fact,) = keeper.journal(journal.Kind.COMMITMENT_ANSWERED)
    assert (fact["peer"], fact["instances"], fact["failed"]) == ("ct1", 2, 0)


def test_only_what_is_there_byte_for_byte_is_committed(
    node: Receiver, keeper: Keeper, connect: Connect
) -> None:
    whole, changed, removed = keeper.keep(1), keeper.keep(2), keeper.keep(3)
    content = bytearray(keeper.file(changed).read_bytes())
    content[-1] ^= 1
    keeper.file(changed).write_bytes(content)
    keeper.file(removed).unlink()
    other_class = Reference(sop_class_uid=MRImageStorage, sop_instance_uid=whole.sop_instance_uid)
    never_seen = Reference(sop_class_uid=CTImageStorage, sop_instance_uid="1.2.3.4.99")
    client = connect(node)
    assert client.ask(whole, changed, removed, never_seen) == 0
    answer = client.hear()
    assert answer[0] == 2
    assert committed(answer) == ["1.2.3.4.1"]
    assert failed(answer) == {"1.2.3.4.2": 0x0110, "1.2.3.4.3": 0x0112, "1.2.3.4.99": 0x0112}
    wait_for(lambda: not keeper.waiting())
    (fact,) = keeper.journal(journal.Kind.COMMITMENT_ANSWERED)
    assert (fact["failed"], fact["reasons"]) == (3, ["0x0110", "0x0112"])
    assert client.ask(other_class, transaction="1.2.3.10") == 0
    answer = client.hear()
    assert (answer[0], failed(answer)) == (2, {"1.2.3.4.1": 0x0119})
    assert "ReferencedSOPSequence" not in answer[1]


def test_what_is_not_indexed_yet_is_judged_by_its_file(
    node: Receiver, keeper: Keeper, connect: Connect
) -> None:
    early, broken = keeper.keep(1, indexed=False), keeper.keep(2, indexed=False)
    keeper.file(broken).write_bytes(b"no DICOM file")
    other_class = Reference(sop_class_uid=MRImageStorage, sop_instance_uid="1.2.3.4.3")
    keeper.keep(3, indexed=False)
    client = connect(node)
    assert client.ask(early, broken, other_class) == 0
    answer = client.hear()
    assert committed(answer) == ["1.2.3.4.1"]
    assert failed(answer) == {"1.2.3.4.2": 0x0110, "1.2.3.4.3": 0x0119}


def test_what_was_promised_before_it_was_indexed_is_known_of_its_study(
    node: Receiver, keeper: Keeper, connect: Connect
) -> None:
    early = keeper.keep(1, indexed=False)
    client = connect(node)
    assert client.ask(early) == 0
    assert committed(client.hear()) == ["1.2.3.4.1"]
    wait_for(lambda: not keeper.waiting())
    with keeper.database.read() as tx:
        entries = journal.of_study(tx, instance(1).StudyInstanceUID)
    assert [one.kind for one in entries] == [journal.Kind.COMMITMENT_ANSWERED]


def test_an_answer_that_was_not_heard_is_known_of_its_study_when_it_is_told_again(
    keeper: Keeper,
) -> None:
    ours = keeper.commitments()
    information = commitment_message.action_information(
        TRANSACTION, [keeper.keep(1, indexed=False)]
    )
    asked = ours.asked(peer="ct1", calling_ae_title="CT1", information=information)
    assert asked.report is not None
    asked.report().answered(None)
    asked.report().answered(0)
    with keeper.database.read() as tx:
        entries = journal.of_study(tx, instance(1).StudyInstanceUID)
    assert [one.kind for one in entries] == [journal.Kind.COMMITMENT_ANSWERED]


def test_the_same_request_gets_the_same_answer_and_another_one_none_of_it(
    node: Receiver, keeper: Keeper, connect: Connect
) -> None:
    one, two = keeper.keep(1), keeper.keep(2)
    client = connect(node)
    assert client.ask(one, two) == 0
    first = client.hear()
    client = connect(node)
    assert client.ask(one, two) == 0
    assert client.hear() == first
    assert client.ask(one) == 0
    answer = client.hear()
    assert (answer[0], failed(answer)) == (2, {"1.2.3.4.1": 0x0131})


def test_what_is_no_request_gets_a_status_and_its_reason_is_kept(
    node: Receiver, keeper: Keeper, connect: Connect
) -> None:
    one = keeper.keep(1)
    client = connect(node)
    assert client.ask(one, sop_instance="1.2.3") == 0x0112
    assert client.ask(one, action=2) == 0x0123
    without_transaction = commitment_message.action_information(TRANSACTION, [one])
    del without_transaction.TransactionUID
    assert client.send(without_transaction) == 0x0115
    assert client.ask() == 0x0115
    nameless = commitment_message.action_information(TRANSACTION, [one])
    del nameless.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
    assert client.send(nameless) == 0x0115
    escaping = Reference(sop_class_uid=CTImageStorage, sop_instance_uid="../../node.db")
    assert client.ask(escaping) == 0x0115
    reasons = [fact["reason"] for fact in keeper.journal(journal.Kind.COMMITMENT_REFUSED)]
    assert reasons == ["bad-transaction-uid", "no-references", "bad-reference", "bad-reference"]
    assert client.assoc.is_established
    assert client.told.empty()


def test_what_nobody_foresaw_is_answered_with_a_failure_and_promises_nothing(
    node: Receiver, keeper: Keeper, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("a sequence that does not read")

    client = connect(node)
    monkeypatch.setattr(commitment_message, "request_of", fail)
    assert client.ask(keeper.keep(1)) == 0x0110
    monkeypatch.setattr(commitment_message, "transaction_uid_of", fail)
    pacs = connect(node, calling="PACS", as_scp=True)
    information = commitment_message.action_information(TRANSACTION, [])
    assert pacs.report(1, information) == 0x0110
    assert not keeper.waiting()


# Where the peer can be called.


class Listening:
    """A peer that listens for answers; `answers` are the statuses that it gives, the last again."""

    def __init__(
        self, port: int, *, roles: bool = True, answers: tuple[int | None, ...] = (0,)
    ) -> None:
        self.told: queue.Queue[Answer] = queue.Queue()
        self._answers = list(answers)
        self.asked = 0
        ae = AE("CT1")
        accepted = {"scu_role": True, "scp_role": True} if roles else {}
        ae.add_supported_context(SOP_CLASS, **accepted)
        self.server = ae.start_server(
            (HOST, port), block=False, evt_handlers=[(evt.EVT_N_EVENT_REPORT, self._hear)]
        )

    def _hear(self, event: Event) -> tuple[int, None]:
        self.asked += 1
        status = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if status is None:
            event.assoc.abort()
            return 0, None
        self.told.put((event.request.EventTypeID, event.event_information))
        return status, None

    def hear(self) -> Answer:
        return self.told.get(timeout=WITHIN_S)


@pytest.fixture
def listen(free_port: int) -> Iterator[Callable[..., Listening]]:
    made: list[Listening] = []

    def _listen(**how: Any) -> Listening:
        made.append(Listening(free_port, **how))
        return made[-1]

    yield _listen
    for one in made:
        one.server.shutdown()


@pytest.fixture
def report(keeper: Keeper, free_port: int) -> Iterator[Callable[[], CommitmentReporter]]:
    """Starts what the node's parent process reports with; a second one stands for a restart."""
    made: list[tuple[CommitmentReporter, Database]] = []

    def _report() -> CommitmentReporter:
        database = Database(keeper.url)
        reporter = CommitmentReporter(
            database,
            keeper.store,
            peers(Address(ae_title="CT1", port=free_port)),
            calling_ae_title=NODE,
            pauses=Pauses(first_s=0.05, longest_s=0.2),
            clock=time.time,
        )
        reporter.start()
        made.append((reporter, database))
        return reporter

    yield _report
    for reporter, database in made:
        reporter.stop()
        database.close()


@pytest.fixture
def asked(start: Start, keeper: Keeper, free_port: int, connect: Connect) -> Keeper:
    """A node that was asked for one object that it keeps and one that it does not."""
    called_at = Address(ae_title="CT1", port=free_port)
    node = start(peers=peers(called_at), commitment=keeper.commitments(called_at=called_at))
    never_seen = Reference(sop_class_uid=CTImageStorage, sop_instance_uid="1.2.3.4.99")
    client = connect(node)
    assert client.ask(keeper.keep(1), never_seen) == 0
    assert client.told.empty()
    return keeper


@pytest.mark.parametrize("roles", [True, False])
def test_a_peer_that_can_be_called_is_told_on_an_association_of_ours(
    asked: Keeper, listen: Callable[..., Listening], report: Callable[[], object], roles: bool
) -> None:
    """Some peers say nothing on roles, and take the answer all the same."""
    peer = listen(roles=roles)
    report()
    answer = peer.hear()
    assert answer[0] == 2
    assert answer[1].TransactionUID == TRANSACTION
    assert committed(answer) == ["1.2.3.4.1"]
    assert failed(answer) == {"1.2.3.4.99": 0x0112}
    wait_for(lambda: not asked.waiting())
    assert peer.asked == 1


def test_a_peer_that_is_down_is_told_once_it_is_up_whoever_was_restarted_meanwhile(
    asked: Keeper,
    listen: Callable[..., Listening],
    report: Callable[[], CommitmentReporter],
) -> None:
    def attempts() -> int:
        (waiting,) = asked.waiting()["ct1"]
        with asked.database.read() as tx:
            found = commitments.request(tx, waiting)
        assert found is not None
        return found.attempts

    first = report()
    wait_for(lambda: attempts() >= 2)
    first.stop()
    peer = listen()
    assert asked.waiting()
    report()
    assert peer.hear()[0] == 2
    wait_for(lambda: not asked.waiting())


def test_an_answer_counts_only_when_the_peer_has_taken_it(
    asked: Keeper, listen: Callable[..., Listening], report: Callable[[], object]
) -> None:
    peer = listen(answers=(None, None, 0))
    report()
    assert peer.hear()[0] == 2
    wait_for(lambda: not asked.waiting())
    assert peer.asked == 3


def test_a_peer_that_wants_none_of_it_is_not_told_for_ever(
    asked: Keeper, listen: Callable[..., Listening], report: Callable[[], object]
) -> None:
    peer = listen(answers=(0x0115,))
    report()
    peer.hear()
    wait_for(lambda: not asked.waiting())
    (fact,) = asked.journal(journal.Kind.COMMITMENT_ANSWERED)
    assert fact["status"] == "0x0115"


def test_a_peer_that_was_away_for_long_is_told_what_is_true_now(
    asked: Keeper,
    listen: Callable[..., Listening],
    report: Callable[[], object],
) -> None:
    ((waiting,),) = asked.waiting().values()
    with asked.database.write() as tx:
        found = commitments.request(tx, waiting)
        assert found is not None
        missing = commitments.Failure(
            reference=Reference(sop_class_uid=CTImageStorage, sop_instance_uid="1.2.3.4.99"),
            reason=0x0112,
        )
        commitments.check(tx, found, [missing], at=time.time() - 1e6)
    asked.file(found.references[0]).unlink()
    peer = listen()
    report()
    assert failed(peer.hear()) == {"1.2.3.4.1": 0x0112, "1.2.3.4.99": 0x0112}


def test_an_answer_that_a_peer_chokes_on_keeps_no_other_from_it(
    asked: Keeper, listen: Callable[..., Listening], report: Callable[[], object]
) -> None:
    kept = asked.keep(2)
    with asked.database.write() as tx:
        commitments.ask(
            tx,
            peer="ct1",
            calling_ae_title="CT1",
            transaction_uid="1.2.3.10",
            references=[kept],
            at=time.time(),
        )
    peer = listen(answers=(None, 0))
    report()
    told = [peer.hear()[1].TransactionUID, peer.hear()[1].TransactionUID]
    assert told == ["1.2.3.10", TRANSACTION]


# What we ask of others.


class Scp:
    """A peer that is asked; `status` is what it says to that, `answer` what it reports then."""

    def __init__(
        self, *, status: int = 0, event_type: int | None = 1, supported: bool = True
    ) -> None:
        self._status, self._event_type = status, event_type
        self.heard: queue.Queue[int] = queue.Queue()
        ae = AE("PACS")
        ae.add_supported_context("1.2.840.10008.1.1")
        if supported:
            ae.add_supported_context(SOP_CLASS)
        self.server = ae.start_server(
            (HOST, 0), block=False, evt_handlers=[(evt.EVT_N_ACTION, self._asked), MENDED]
        )
        self.to = Destination(ae_title="PACS", host=HOST, port=self.server.server_address[1])

    def _asked(self, event: Event) -> tuple[int, None]:
        if self._status == 0 and self._event_type is not None:
            threading.Thread(
                target=self._report, args=[event.assoc, event.action_information]
            ).start()
        return self._status, None

    def _report(self, assoc: Association, information: Dataset) -> None:
        response, _ = assoc.send_n_event_report(
            information, self._event_type, SOP_CLASS, SOP_INSTANCE
        )
        self.heard.put(int(response.Status))


@pytest.fixture
def scp() -> Iterator[Callable[..., Scp]]:
    made: list[Scp] = []

    def _scp(**how: Any) -> Scp:
        made.append(Scp(**how))
        return made[-1]

    yield _scp
    for one in made:
        one.server.shutdown()


ASKED_FOR = Reference(sop_class_uid=CTImageStorage, sop_instance_uid="1.2.3.4.1")


def ask(peer: Scp) -> list[Answer]:
    told: list[Answer] = []

    def reported(event_type: int, information: Dataset) -> int:
        told.append((event_type, information))
        return 0

    commitment_call.ask(
        peer.to,
        calling_ae_title=NODE,
        transaction_uid=TRANSACTION,
        references=[ASKED_FOR],
        reported=reported,
        is_answered=lambda: bool(told),
    )
    return told


def test_an_answer_on_the_association_of_the_question_is_heard(scp: Callable[..., Scp]) -> None:
    peer = scp()
    (answer,) = ask(peer)
    assert answer[0] == 1
    assert answer[1].TransactionUID == TRANSACTION
    assert committed(answer) == ["1.2.3.4.1"]
    assert peer.heard.get(timeout=WITHIN_S) == 0


def test_a_question_ends_although_no_answer_comes(
    scp: Callable[..., Scp], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commitment_call, "_STAY_S", 0.2)
    assert ask(scp(event_type=None)) == []


@pytest.mark.parametrize(
    ("how", "error", "reason"),
    [
        ({"supported": False}, Misconfigured, "commitment-not-supported"),
        ({"status": 0x0122}, Misconfigured, "commitment-not-supported"),
        ({"status": 0x0211}, Misconfigured, "commitment-not-supported"),
        ({"status": 0x0115}, Failed, "commitment-refused"),
        ({"status": 0x0110}, RetryLater, "commitment-busy"),
        ({"status": 0x0213}, RetryLater, "commitment-busy"),
    ],
)
def test_a_peer_that_does_not_take_the_question_is_told_apart(
    scp: Callable[..., Scp], how: dict[str, Any], error: type[Exception], reason: str
) -> None:
    with pytest.raises(error, match=reason):
        ask(scp(**how))


def test_a_report_that_nobody_asked_for_is_refused_and_kept_in_the_journal(
    node: Receiver, keeper: Keeper, connect: Connect
) -> None:
    pacs = connect(node, calling="PACS", as_scp=True)
    information = commitment_message.action_information(TRANSACTION, [ASKED_FOR])
    assert pacs.report(1, information) == 0x0115
    assert pacs.report(3, information) == 0x0113
    del information.TransactionUID
    assert pacs.report(1, information) == 0x0115
    reasons = [fact["reason"] for fact in keeper.journal(journal.Kind.COMMITMENT_REFUSED)]
    assert reasons == ["unknown-transaction", "no-such-event-type", "bad-transaction-uid"]
