"""What the node's own reactor promises beyond pynetdicom's."""

from __future__ import annotations

import contextlib
import random
import time
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from wire import raw
from wire.raw import Context, Speaker
from wire.receiving import HOST, KIND, Start, dataset_bytes, instance, write

from dicomnode import status
from dicomnode.archive.arrival import End, Opened, TurnedAway
from dicomnode.errors import Refused
from dicomnode.network.serving import listener

CT = Context(id=1, abstract_syntax=KIND[0], transfer_syntaxes=(KIND[1],))
ECHO = Context(id=3, abstract_syntax=raw.VERIFICATION, transfer_syntaxes=(raw.IMPLICIT,))


@pytest.fixture
def reactor() -> str:
    return "streaming"


def encoded(folder: Path, ds: Dataset) -> bytes:
    return dataset_bytes(write(folder / "sent.dcm", ds))


def stored_as(ds: Dataset) -> dict[int, bytes]:
    return raw.c_store_rq(KIND[0], ds.SOPInstanceUID)


def test_what_comes_together_with_the_request_is_not_lost(start: Start, tmp_path: Path) -> None:
    node = start()
    ds = instance()
    with Speaker(node.port, [CT]) as patient:
        limit = patient.longest
    said = [raw.associate_rq([CT], calling="CT1", called="NODE")]
    pieces = raw.fragments(
        raw.command(stored_as(ds)), context_id=1, is_command=True, longest=limit
    ) + raw.fragments(encoded(tmp_path, ds), context_id=1, longest=limit)
    said += [*raw.packed(pieces, longest=limit), raw.RELEASE]
    hasty = Speaker.__new__(Speaker)
    hasty.connection = raw.socket.create_connection(("127.0.0.1", node.port), timeout=30)
    with hasty:
        hasty.send(b"".join(said))
        assert hasty.receive()[0] == raw.ASSOCIATE_AC
        assert raw.number(hasty.answer(), raw.STATUS) == status.SUCCESS
        assert hasty.receive()[0] == raw.RELEASE_RP
    assert len(node.on_disk) == 1


def test_a_command_that_names_no_instance_is_answered(start: Start, tmp_path: Path) -> None:
    node = start()
    request = stored_as(instance())
    del request[raw.AFFECTED_SOP_INSTANCE_UID]
    with Speaker(node.port, [CT]) as speaker:
        for said in speaker.message(1, request, encoded(tmp_path, instance())):
            speaker.send(said)
        answer = speaker.answer()
        assert raw.number(answer, raw.STATUS) == status.DATA_SET_DOES_NOT_MATCH
        assert speaker.release()
    assert node.turned_away.reason == "does-not-match-command"


def test_a_command_without_a_data_set_is_answered(start: Start) -> None:
    node = start()
    request = {**stored_as(instance()), raw.COMMAND_DATA_SET_TYPE: raw.short(raw.NO_DATA_SET)}
    with Speaker(node.port, [CT]) as speaker:
        for said in speaker.message(1, request):
            speaker.send(said)
        assert raw.number(speaker.answer(), raw.STATUS) == status.DATA_SET_DOES_NOT_MATCH
        assert speaker.release()
    assert node.leftovers == []


def test_other_messages_are_served_between_instances(start: Start, tmp_path: Path) -> None:
    node = start()
    with Speaker(node.port, [CT, ECHO]) as speaker:
        for number in range(3):
            ds = instance(number)
            answer = speaker.store(CT, ds.SOPInstanceUID, encoded(tmp_path, ds))
            assert raw.number(answer, raw.STATUS) == status.SUCCESS
            assert raw.number(speaker.echo(3), raw.STATUS) == status.SUCCESS
        assert speaker.release()
    assert (node.ended().stored, len(node.on_disk)) == (3, 3)


def test_an_instance_that_is_too_long_is_refused_and_the_next_is_not(
    start: Start, tmp_path: Path
) -> None:
    node = start(max_instance_gib=20_000 / 1024**3)
    long, short = instance(1, pixels=200), instance(2)
    with Speaker(node.port, [CT]) as speaker:
        answer = speaker.store(CT, long.SOPInstanceUID, encoded(tmp_path, long), longest=4096)
        assert raw.number(answer, raw.STATUS) == status.CANNOT_UNDERSTAND
        assert node.leftovers == []
        answer = speaker.store(CT, short.SOPInstanceUID, encoded(tmp_path, short))
        assert raw.number(answer, raw.STATUS) == status.SUCCESS
        assert speaker.release()
    assert node.turned_away.reason == "instance-too-long"
    assert node.turned_away.study_instance_uid == long.StudyInstanceUID


@pytest.mark.parametrize("longest", [4096, 16_384])
def test_an_instance_may_say_late_who_it_is(start: Start, tmp_path: Path, longest: int) -> None:
    node = start()
    ds = instance()
    ds.DerivationDescription = "x" * 1000
    item = Dataset()
    item.DerivationDescription = "y" * 1000
    ds.SourceImageSequence = [item] * 30
    with Speaker(node.port, [CT]) as speaker:
        content = encoded(tmp_path, ds)
        answer = speaker.store(CT, ds.SOPInstanceUID, content, longest=longest)
        assert raw.number(answer, raw.STATUS) == status.SUCCESS
        assert speaker.release()
    assert dataset_bytes(node.data_dir / node.stored[0]) == content


def test_an_instance_that_says_late_that_it_is_another_is_refused(
    start: Start, tmp_path: Path
) -> None:
    node = start()
    ds = instance()
    ds.SourceImageSequence = [Dataset()] * 1000
    with Speaker(node.port, [CT]) as speaker:
        answer = speaker.store(CT, "1.2.3.99", encoded(tmp_path, ds), longest=4096)
        assert raw.number(answer, raw.STATUS) == status.DATA_SET_DOES_NOT_MATCH
        assert speaker.release()
    assert node.on_disk == node.leftovers == []


class FullUp:
    """A gate that lets one study in."""

    def __init__(self, study_instance_uid: str) -> None:
        self.open = study_instance_uid

    def admit(self, study_instance_uid: str) -> None:
        if study_instance_uid != self.open:
            raise Refused("disk-nearly-full", "No room.", status=status.OUT_OF_RESOURCES)


def test_what_there_is_no_room_for_is_refused_before_it_is_written(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = start(gate=FullUp(instance().StudyInstanceUID))
    other = instance(2, pixels=300)
    other.StudyInstanceUID = "1.2.3.77"
    drafts: list[object] = []
    draft = node.store.draft
    monkeypatch.setattr(node.store, "draft", lambda meta: drafts.append(meta) or draft(meta))
    with Speaker(node.port, [CT]) as speaker:
        answer = speaker.store(CT, other.SOPInstanceUID, encoded(tmp_path, other))
        assert raw.number(answer, raw.STATUS) == status.OUT_OF_RESOURCES
        assert drafts == []
        mine = instance(1)
        answer = speaker.store(CT, mine.SOPInstanceUID, encoded(tmp_path, mine))
        assert raw.number(answer, raw.STATUS) == status.SUCCESS
        assert speaker.release()
    assert (node.ended().stored, node.ended().refused) == (1, 1)


MISPLACED = {
    "data before a command": [raw.p_data(raw.Pdv(context_id=1, content=b"data", is_last=True))],
    "a command within a data set": [
        raw.p_data(
            *raw.fragments(
                raw.command(stored_as(instance())), context_id=1, is_command=True, longest=4096
            )
        )
    ]
    * 2,
    "a context that was not accepted": [
        raw.p_data(
            *raw.fragments(
                raw.command(stored_as(instance())), context_id=99, is_command=True, longest=4096
            )
        )
    ],
    "a second request": [raw.associate_rq([CT], calling="CT1", called="NODE")],
    "a command that pynetdicom does not know": [
        raw.p_data(
            *raw.fragments(
                raw.command({**raw.c_echo_rq(), raw.COMMAND_FIELD: raw.short(0x7777)}),
                context_id=1,
                is_command=True,
                longest=4096,
            )
        )
    ],
}


@pytest.mark.parametrize("what", MISPLACED)
def test_what_has_no_place_here_ends_the_association(start: Start, what: str) -> None:
    node = start()
    with Speaker(node.port, [CT]) as speaker:
        for said in MISPLACED[what]:
            speaker.send(said)
        assert speaker.receive()[0] == raw.ABORT
    assert node.ended().end is End.ABORTED
    assert node.leftovers == []


def test_an_abort_within_an_instance_leaves_nothing(start: Start, tmp_path: Path) -> None:
    node = start()
    ds = instance(pixels=300)
    with Speaker(node.port, [CT]) as speaker:
        *begun, _ = speaker.message(1, stored_as(ds), encoded(tmp_path, ds), longest=4096)
        for said in [*begun, raw.ABORTED]:
            speaker.send(said)
        assert node.ended().end is End.ABORTED
    assert node.on_disk == node.leftovers == []


def test_stopping_tells_who_is_in_the_middle_of_an_instance(start: Start, tmp_path: Path) -> None:
    node = start()
    ds = instance(pixels=300)
    with Speaker(node.port, [CT]) as speaker:
        *begun, _ = speaker.message(1, stored_as(ds), encoded(tmp_path, ds), longest=4096)
        for said in begun:
            speaker.send(said)
        node.wait_for(Opened)
        node.acceptor.stop(grace_s=0)
        assert speaker.receive()[0] in {raw.ABORT, 0}
    assert node.ended().end is End.ABORTED
    assert node.on_disk == node.leftovers == []


@pytest.mark.parametrize("seed", range(3))
def test_memory_holds_no_instance(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    node = start()
    longest: list[int] = []
    draft = node.store.draft

    def watched(meta: bytes) -> object:
        made = draft(meta)
        write_on = made.write

        def note(fragment: bytes) -> None:
            longest.append(len(fragment))
            write_on(fragment)

        monkeypatch.setattr(made, "write", note)
        return made

    monkeypatch.setattr(node.store, "draft", watched)
    ds = instance(pixels=1000)
    content = encoded(tmp_path, ds)
    with Speaker(node.port, [CT]) as speaker:
        answer = speaker.store(CT, ds.SOPInstanceUID, content, rng=random.Random(seed))
        assert raw.number(answer, raw.STATUS) == status.SUCCESS
        assert speaker.release()
    assert sum(longest) == len(content)
    assert max(longest) <= 128 * 1024


def test_who_releases_within_an_instance_has_not_ended_in_order(
    start: Start, tmp_path: Path
) -> None:
    node = start()
    ds = instance(pixels=300)
    with Speaker(node.port, [CT]) as speaker:
        *begun, _ = speaker.message(1, stored_as(ds), encoded(tmp_path, ds), longest=4096)
        for said in begun:
            speaker.send(said)
        assert speaker.release()
    assert node.ended().end is End.ABORTED
    assert node.on_disk == node.leftovers == []


@pytest.mark.parametrize("seed", range(3))
def test_who_is_not_admitted_and_hangs_up_is_journalled_all_the_same(
    start: Start, seed: int
) -> None:
    node = start()
    request = raw.associate_rq([CT], calling="CT1", called="ELSEWHERE")
    with raw.socket.create_connection((HOST, node.port)) as hasty:
        hasty.sendall(request)
        hasty.setsockopt(raw.socket.SOL_SOCKET, raw.socket.SO_LINGER, raw.struct.pack("ii", 1, 0))
    node.wait_for(TurnedAway)
    assert node.turned_away.reason == "wrong-called-ae-title"
    assert node.of(Opened) == []


@pytest.mark.parametrize(
    ("asked", "answer", "reason"),
    [
        ({"version": 2}, (1, 2, 2), "other-protocol-version"),
        ({"application_context": "1.2.3.4"}, (1, 1, 2), "other-application-context"),
    ],
)
def test_what_is_no_request_for_dicom_is_rejected_for_good(
    start: Start, asked: dict[str, Any], answer: tuple[int, int, int], reason: str
) -> None:
    node = start()
    request = raw.associate_rq([CT], calling="CT1", called="DICOMNODE", **asked)
    with raw.socket.create_connection((HOST, node.port)) as stranger:
        stranger.sendall(request)
        said = stranger.recv(10, raw.socket.MSG_WAITALL)
    assert said[0] == raw.ASSOCIATE_RJ
    assert tuple(said[7:10]) == answer
    node.wait_for(TurnedAway)
    assert node.turned_away.reason == reason


@pytest.mark.parametrize(
    "elements",
    [
        {**raw.c_echo_rq(), raw.COMMAND_FIELD: b""},
        {**raw.c_echo_rq(), raw.COMMAND_FIELD: b"\x30\x00\x00\x00"},
        {n: v for n, v in raw.c_echo_rq().items() if n != raw.COMMAND_FIELD},
        {n: v for n, v in raw.c_echo_rq().items() if n != raw.MESSAGE_ID},
    ],
    ids=["empty field", "long field", "no field", "no message id"],
)
def test_a_message_that_cannot_be_answered_ends_the_association(
    start: Start, elements: dict[int, bytes]
) -> None:
    node = start()
    with Speaker(node.port, [ECHO]) as speaker:
        for said in speaker.message(3, elements):
            speaker.send(said)
        assert speaker.receive()[0] == raw.ABORT
    assert node.ended().end is End.ABORTED


def test_a_context_without_a_transfer_syntax_is_a_fault(start: Start) -> None:
    node = start()
    nothing = Context(id=1, abstract_syntax=KIND[0], transfer_syntaxes=())
    with pytest.raises(ConnectionRefusedError, match="type 7"):
        Speaker(node.port, [nothing])
    assert node.of(Opened) == []


def test_an_instance_on_a_context_for_something_else_is_refused(
    start: Start, tmp_path: Path
) -> None:
    node = start()
    ds = instance()
    ds.SOPClassUID = raw.VERIFICATION
    with Speaker(node.port, [ECHO]) as speaker:
        answer = speaker.store(ECHO, ds.SOPInstanceUID, encoded(tmp_path, ds))
        assert raw.number(answer, raw.STATUS) == status.SOP_CLASS_NOT_SUPPORTED
    assert node.on_disk == []


def test_a_uid_that_is_none_is_not_sent_back_at_its_length(start: Start, tmp_path: Path) -> None:
    node = start()
    ds = instance()
    with Speaker(node.port, [CT]) as speaker:
        request = {**stored_as(ds), raw.AFFECTED_SOP_INSTANCE_UID: b"1." + b"2" * 40_000}
        for said in speaker.message(1, request, encoded(tmp_path, ds)):
            speaker.send(said)
        kind, body = speaker.receive()
        assert (kind, len(body) < 500) == (raw.P_DATA_TF, True)
    assert len(node.turned_away.sop_instance_uid) <= 64


def test_after_an_abort_nothing_more_is_served(start: Start, tmp_path: Path) -> None:
    node = start()
    ds = instance()
    wrong = {**raw.c_echo_rq(), raw.AFFECTED_SOP_CLASS_UID: raw.uid("1.2.3.4")}
    with Speaker(node.port, [CT, ECHO]) as speaker:
        said = speaker.message(3, wrong) + speaker.message(1, stored_as(ds), encoded(tmp_path, ds))
        speaker.send(b"".join(said))
        node.ended()
    assert node.ended().end is End.ABORTED
    assert node.on_disk == []


def drip(connection: raw.socket.socket, content: bytes) -> None:
    for byte in content:
        connection.sendall(bytes([byte]))
        time.sleep(0.05)


def test_a_request_that_drips_is_not_waited_for(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "ACSE_S", 0.5)
    node = start()
    request = raw.associate_rq([CT], calling="CT1", called="NODE")
    with raw.socket.create_connection((HOST, node.port)) as slow, pytest.raises(ConnectionError):
        drip(slow, request)
    assert node.of(Opened) == []


def test_who_does_not_read_does_not_hold_up_the_end(start: Start, tmp_path: Path) -> None:
    node = start(idle_s=60)
    with Speaker(node.port, [ECHO]) as speaker:
        speaker.connection.settimeout(0.5)
        echoes = b"".join(speaker.message(3, raw.c_echo_rq()))
        with contextlib.suppress(TimeoutError):
            while True:
                speaker.send(echoes * 1000)
        node.acceptor.stop(grace_s=0)
    assert node.ended().end in {End.ABORTED, End.LOST}
