"""C-STORE on the wire: acknowledged means safe, and everything else is named (PS3.4 Annex B)."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from pydicom import Dataset, dcmread
from pydicom.datadict import tag_for_keyword
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MRImageStorage,
)
from pynetdicom import AE, build_context
from pynetdicom.association import Association
from wire.receiving import (
    HOST,
    KIND,
    NODE,
    Associate,
    Receiver,
    Start,
    dataset_bytes,
    instance,
    write,
)

from dicomnode import status
from dicomnode.archive.arrival import End, Ended, Opened, Stored, TurnedAway
from dicomnode.archive.disk import header
from dicomnode.archive.disk.files import FileStore
from dicomnode.errors import Refused
from dicomnode.network import association
from dicomnode.network.connection import PromptSocket

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
TEST_FILES = Path(pydicom.__file__).parent / "data"


def kind_of(path: Path) -> tuple[str, str]:
    with path.open("rb") as file:
        meta = header.read_meta(file)
    return meta.sop_class_uid, meta.transfer_syntax_uid


def send(assoc: Association, path: Path) -> Dataset:
    """What the node answers to one file, sent as it is."""
    answer = assoc.send_c_store(path)
    assert "Status" in answer
    return answer


def test_an_instance_is_kept_byte_for_byte(
    node: Receiver, associate: Associate, tmp_path: Path
) -> None:
    sent = write(tmp_path / "sent.dcm", instance())
    assert send(associate(), sent).Status == status.SUCCESS
    (path,) = node.stored
    assert dataset_bytes(node.data_dir / path) == dataset_bytes(sent)
    assert node.on_disk == [path]
    assert node.leftovers == []


def test_what_is_reported_comes_in_order_and_ends_once(
    node: Receiver, associate: Associate, tmp_path: Path
) -> None:
    assoc = associate()
    for number in range(3):
        send(assoc, write(tmp_path / f"{number}.dcm", instance(number)))
    assoc.release()
    ended = node.ended()
    assert [type(fact) for fact in node.facts] == [Opened, Stored, Stored, Stored, Ended]
    assert len({fact.association for fact in node.facts}) == 1
    assert [fact.at for fact in node.facts] == [0, 1, 2, 3, 4]
    assert (ended.end, ended.stored, ended.refused) == (End.RELEASED, 3, 0)


def test_the_meta_names_the_object_and_nobody_who_sent_it(
    node: Receiver, associate: Associate, tmp_path: Path
) -> None:
    send(associate(), write(tmp_path / "sent.dcm", instance()))
    meta = dcmread(node.data_dir / node.stored[0]).file_meta
    assert meta.MediaStorageSOPClassUID == KIND[0]
    assert meta.MediaStorageSOPInstanceUID == "1.2.3.4.1"
    assert meta.TransferSyntaxUID == KIND[1]
    assert "SourceApplicationEntityTitle" not in meta


def test_the_same_instance_again_is_acknowledged_and_kept_once(
    node: Receiver, associate: Associate, tmp_path: Path
) -> None:
    sent = write(tmp_path / "sent.dcm", instance())
    for count in (1, 2):
        assoc = associate()
        assert send(assoc, sent).Status == status.SUCCESS
        assoc.release()
        assert node.ended(count=count).stored == 1
    assert len(node.stored) == len(node.on_disk) == 1


def test_other_content_under_the_same_uid_is_refused_and_the_first_stays(
    node: Receiver, associate: Associate, tmp_path: Path
) -> None:
    first = write(tmp_path / "first.dcm", instance())
    second = write(tmp_path / "second.dcm", instance(comment="not the same"))
    assoc = associate()
    assert send(assoc, first).Status == status.SUCCESS
    assert send(assoc, second).Status == status.DUPLICATE_SOP_INSTANCE
    assoc.release()
    assert (node.ended().stored, node.ended().refused) == (1, 1)
    assert node.turned_away.reason == "duplicate-with-other-content"
    assert node.turned_away.sop_instance_uid == "1.2.3.4.1"
    assert node.turned_away.study_instance_uid == "1.2.3.1"
    assert dataset_bytes(node.data_dir / node.on_disk[0]) == dataset_bytes(first)


def test_one_uid_in_two_studies_is_one_instance(
    node: Receiver, associate: Associate, tmp_path: Path
) -> None:
    elsewhere = instance()
    elsewhere.StudyInstanceUID = "1.2.3.99"
    assoc = associate()
    assert send(assoc, write(tmp_path / "a.dcm", instance())).Status == status.SUCCESS
    answer = send(assoc, write(tmp_path / "b.dcm", elsewhere))
    assert answer.Status == status.DUPLICATE_SOP_INSTANCE


def test_two_senders_of_one_instance_leave_one_file(
    start: Start, associate: Associate, tmp_path: Path
) -> None:
    node = start()
    sent = [write(tmp_path / f"{number}.dcm", instance(number)) for number in range(8)]
    senders = [associate(to=node) for _ in range(3)]
    answers: list[int] = []

    def send_all(assoc: Association) -> None:
        answers.extend(send(assoc, path).Status for path in sent)

    threads = [threading.Thread(target=send_all, args=[assoc]) for assoc in senders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [status.SUCCESS] * 24
    assert sorted(node.stored) == sorted(node.on_disk)
    assert len(node.on_disk) == 8


def test_one_association_does_not_wait_for_the_other(
    start: Start, associate: Associate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = start()
    slow, quick = associate(to=node), associate(to=node)
    write_out, may_go_on, is_held = os.fdatasync, threading.Event(), threading.Event()

    def hold_the_first(descriptor: int) -> None:
        if not is_held.is_set():
            is_held.set()
            assert may_go_on.wait(30)
        write_out(descriptor)

    monkeypatch.setattr(os, "fdatasync", hold_the_first)
    waiting = threading.Thread(target=send, args=[slow, write(tmp_path / "slow.dcm", instance(1))])
    waiting.start()
    assert is_held.wait(30)
    assert send(quick, write(tmp_path / "quick.dcm", instance(2))).Status == status.SUCCESS
    may_go_on.set()
    waiting.join()
    assert len(node.on_disk) == 2


def full(*_: object) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("call", ["writev", "fdatasync"])
def test_a_full_disk_is_out_of_resources_and_leaves_nothing(
    node: Receiver,
    associate: Associate,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
) -> None:
    sent = write(tmp_path / "sent.dcm", instance())
    assoc = associate()
    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        answer = send(assoc, sent)
    assert answer.Status == status.OUT_OF_RESOURCES
    assert answer.ErrorComment.startswith("out-of-space")
    assert node.turned_away.reason == "out-of-space"
    assert node.on_disk == node.leftovers == node.stored == []
    assert send(assoc, sent).Status == status.SUCCESS
    assert len(node.stored) == 1


def test_what_nobody_named_is_never_acknowledged(
    node: Receiver, associate: Associate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no name for this")

    sent = write(tmp_path / "sent.dcm", instance())
    assoc = associate()
    with monkeypatch.context() as patch:
        patch.setattr(node.store, "draft", fail)
        assert send(assoc, sent).Status == status.PROCESSING_FAILURE
    assert node.turned_away.reason == "unexpected-error"
    assert node.turned_away.sop_instance_uid == "1.2.3.4.1"
    assert send(assoc, sent).Status == status.SUCCESS
    assoc.release()
    assert (node.ended().stored, node.ended().refused) == (1, 1)


def without(keyword: str) -> Dataset:
    ds = instance()
    delattr(ds, keyword)
    return ds


def with_value(keyword: str, value: str) -> Dataset:
    ds = instance()
    setattr(ds, keyword, value)
    return ds


BLAME = {
    "missing-uid": (without("StudyInstanceUID"), "StudyInstanceUID"),
    "blank-uid": (with_value("SeriesInstanceUID", ""), "SeriesInstanceUID"),
    "malformed-uid": (with_value("StudyInstanceUID", "../1.2"), "StudyInstanceUID"),
}


@pytest.mark.parametrize("reason", BLAME)
def test_who_cannot_be_told_is_refused_with_the_element_to_blame(
    node: Receiver, associate: Associate, tmp_path: Path, reason: str
) -> None:
    ds, keyword = BLAME[reason]
    answer = send(associate(), write(tmp_path / "sent.dcm", ds))
    assert answer.Status == status.DATA_SET_DOES_NOT_MATCH
    assert answer.ErrorComment.startswith(reason)
    assert len(answer.ErrorComment) <= 64
    assert answer.OffendingElement == tag_for_keyword(keyword)
    assert node.turned_away.reason == reason
    assert node.on_disk == []


def test_a_data_set_of_another_class_or_instance_than_its_command_is_refused(
    node: Receiver, associate: Associate, tmp_path: Path
) -> None:
    assoc = associate()
    for keyword, value in (("SOPClassUID", MRImageStorage), ("SOPInstanceUID", "1.2.3.4.9")):
        path = write(tmp_path / "sent.dcm", instance())
        meta_length = len(path.read_bytes()) - len(dataset_bytes(path))
        other = write(tmp_path / "other.dcm", with_value(keyword, value))
        path.write_bytes(path.read_bytes()[:meta_length] + dataset_bytes(other))
        answer = send(assoc, path)
        assert answer.Status == status.DATA_SET_DOES_NOT_MATCH
        assert node.turned_away.reason == "does-not-match-command"
        assert keyword in node.turned_away.detail
    assert node.on_disk == []


def test_a_command_for_another_class_than_its_context_is_refused(
    node: Receiver, associate: Associate, tmp_path: Path
) -> None:
    ds = with_value("SOPClassUID", MRImageStorage)
    assoc = associate()
    (context,) = assoc.accepted_contexts
    context.abstract_syntax = MRImageStorage  # what this sender believes
    answer = send(assoc, write(tmp_path / "sent.dcm", ds))
    assert answer.Status == status.SOP_CLASS_NOT_SUPPORTED
    assert node.turned_away.reason == "sop-class-not-supported"


def test_bytes_that_are_no_data_set_are_not_understood(
    node: Receiver, associate: Associate, tmp_path: Path
) -> None:
    sent = write(tmp_path / "sent.dcm", instance())
    meta_length = len(sent.read_bytes()) - len(dataset_bytes(sent))
    sent.write_bytes(sent.read_bytes()[: meta_length + 100])
    answer = send(associate(), sent)
    assert answer.Status == status.CANNOT_UNDERSTAND
    assert node.turned_away.reason == "unreadable-data-set"


def test_a_uid_with_leading_zeros_is_taken_as_it_is(
    node: Receiver, associate: Associate, tmp_path: Path
) -> None:
    sent = write(tmp_path / "sent.dcm", with_value("SOPInstanceUID", "1.2.003.04"))
    assert send(associate(), sent).Status == status.SUCCESS
    assert node.on_disk[0].endswith("/1.2.003.04.dcm")


@pytest.mark.parametrize(
    "transfer_syntax_uid",
    [
        ImplicitVRLittleEndian,
        ExplicitVRLittleEndian,
        DeflatedExplicitVRLittleEndian,
        ExplicitVRBigEndian,
    ],
    ids=lambda uid: uid.name,
)
def test_each_way_to_encode_is_kept_as_it_is(
    node: Receiver, associate: Associate, tmp_path: Path, transfer_syntax_uid: str
) -> None:
    sent = write(tmp_path / "sent.dcm", instance(), transfer_syntax_uid=transfer_syntax_uid)
    assoc = associate((KIND[0], transfer_syntax_uid))
    assert send(assoc, sent).Status == status.SUCCESS
    stored = node.data_dir / node.stored[0]
    assert dataset_bytes(stored) == dataset_bytes(sent)
    assert dcmread(stored) == dcmread(sent)


def test_a_sender_that_aborts_leaves_what_was_acknowledged(
    node: Receiver, associate: Associate, tmp_path: Path
) -> None:
    assoc = associate()
    for number in range(2):
        send(assoc, write(tmp_path / f"{number}.dcm", instance(number)))
    assoc.abort()
    assert (node.ended().end, node.ended().stored) == (End.ABORTED, 2)
    assert len(node.on_disk) == 2


def test_a_sender_that_vanishes_in_the_middle_of_an_instance_is_lost(
    node: Receiver, associate: Associate, tmp_path: Path
) -> None:
    assoc = associate()
    send(assoc, write(tmp_path / "whole.dcm", instance(1)))
    connection = assoc.dul.socket.socket
    connection.send(b"\x04\x00\x00\x01\x00\x00")  # the head of a P-DATA-TF, and no more
    connection.shutdown(socket.SHUT_RDWR)
    assert (node.ended().end, node.ended().stored) == (End.LOST, 1)
    assert len(node.on_disk) == 1
    assert node.leftovers == []


def test_stopping_lets_the_instance_that_is_being_written_be_kept(
    node: Receiver, associate: Associate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_writing, may_go_on, link = threading.Event(), threading.Event(), os.link

    def hold(part: str, final: Path) -> None:
        is_writing.set()
        assert may_go_on.wait(30)
        link(part, final)

    monkeypatch.setattr(os, "link", hold)
    assoc = associate()
    sending = threading.Thread(
        target=assoc.send_c_store, args=[write(tmp_path / "sent.dcm", instance())]
    )
    sending.start()
    assert is_writing.wait(30)
    stopping = threading.Thread(target=node.acceptor.stop, kwargs={"grace_s": 0})
    stopping.start()
    may_go_on.set()
    stopping.join()
    sending.join()
    assert [type(fact) for fact in node.facts] == [Opened, Stored, Ended]
    assert node.ended().end is End.ABORTED


def storage_objects(*folders: Path) -> Iterator[Path]:
    """The files whose data set is what their meta says: an object of a standard storage class."""
    storage = {context.abstract_syntax for context in association.accepted_contexts()[1:]}
    for path in sorted(path for folder in folders for path in folder.rglob("*")):
        try:
            identity, *_ = header.index_header(path)
            with path.open("rb") as file:
                meta = header.read_meta(file)
        except (Refused, IsADirectoryError):
            continue
        is_itself = identity.sop_instance_uid == meta.sop_instance_uid
        if is_itself and identity.sop_class_uid == meta.sop_class_uid in storage:
            yield path


def send_everything(node: Receiver, associate: Associate, paths: list[Path]) -> None:
    """Send files by themselves; each has to arrive as it is, unless its UID is taken."""
    by_kind: dict[tuple[str, str], list[Path]] = defaultdict(list)
    for path in paths:
        by_kind[kind_of(path)].append(path)
    first_with: dict[str, bytes] = {}
    kinds = list(by_kind)
    for first in range(0, len(kinds), 128):
        assoc = associate(*kinds[first : first + 128])
        for path in (path for kind in kinds[first : first + 128] for path in by_kind[kind]):
            identity, *_ = header.index_header(path)
            expected = first_with.setdefault(identity.sop_instance_uid, dataset_bytes(path))
            answer = send(assoc, path)
            same = expected == dataset_bytes(path)
            assert answer.Status == (status.SUCCESS if same else status.DUPLICATE_SOP_INSTANCE)
        assoc.release()
    kept = {path.stem: path for path in (node.data_dir / one for one in node.on_disk)}
    assert kept.keys() == first_with.keys()
    for uid, expected in first_with.items():
        assert dataset_bytes(kept[uid]) == expected
        assert header.index_header(kept[uid])[0].sop_instance_uid == uid


def test_every_storage_object_of_pydicom_goes_in_as_it_is(
    node: Receiver, associate: Associate
) -> None:
    paths = list(storage_objects(TEST_FILES))
    assert len({kind_of(path) for path in paths}) > 20
    send_everything(node, associate, paths)


@pytest.mark.data
def test_real_images_go_in_as_they_are(node: Receiver, associate: Associate) -> None:
    folders = [DATA / "single_images", DATA / "ct_scanner_export", DATA / "pet_with_seg" / "SEG"]
    paths = list(storage_objects(*folders))
    assert len(paths) > 30
    send_everything(node, associate, paths)


@pytest.mark.data
def test_images_whose_uids_are_blank_are_refused_one_by_one(
    node: Receiver, associate: Associate
) -> None:
    folder = DATA / "ct_blank_uids" / "example_ct_dicom"
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    assert len(paths) == 20
    assoc = associate(*{kind_of(path) for path in paths})
    for path in paths:
        answer = send(assoc, path)
        assert answer.Status == status.DATA_SET_DOES_NOT_MATCH
        assert answer.ErrorComment.startswith("blank-uid: SOPClassUID")
    assoc.release()
    assert (node.ended().stored, node.ended().refused) == (0, 20)
    assert len(node.of(TurnedAway)) == 20
    assert node.on_disk == node.leftovers == []


# Options of storescu that propose each transfer syntax, and a file in it.
DCMTK = {
    "-xi": "MR_small_implicit.dcm",
    "-xe": "CT_small.dcm",
    "-xb": "MR_small_bigendian.dcm",
    "-xd": "image_dfl.dcm",
    "-xr": "MR_small_RLE.dcm",
    "-xv": "MR_small_jp2klossless.dcm",
    "-xt": "MR_small_jpeg_ls_lossless.dcm",
    "-xx": "JPEG-lossy.dcm",
}


@pytest.mark.server("dcmtk")
@pytest.mark.parametrize("option", DCMTK)
def test_dcmtk_sends_in_each_transfer_syntax(node: Receiver, option: str) -> None:
    (source,) = TEST_FILES.rglob(DCMTK[option])
    command = ["/usr/bin/storescu", "-R", option, "-aet", "CT1", "-aec", NODE, HOST]
    subprocess.run([*command, str(node.port), str(source)], check=True)
    assert (node.ended().end, node.ended().stored) == (End.RELEASED, 1)
    stored, sent = dcmread(node.data_dir / node.stored[0]), dcmread(source)
    assert stored.file_meta.TransferSyntaxUID == sent.file_meta.TransferSyntaxUID
    assert stored.PixelData == sent.PixelData
    assert stored.SOPInstanceUID == sent.SOPInstanceUID


@pytest.mark.server("dcmtk")
def test_dcmtk_sends_a_folder_over_one_association(node: Receiver, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for number in range(12):
        write(folder / f"{number}.dcm", instance(number))
    command = ["/usr/bin/storescu", "+sd", "-aet", "CT1", "-aec", NODE, HOST]
    subprocess.run([*command, str(node.port), str(folder)], check=True)
    assert node.ended().stored == 12
    assert len(node.on_disk) == 12


@pytest.mark.server("dcmtk")
def test_dcmtk_is_told_why_an_instance_is_refused(node: Receiver, tmp_path: Path) -> None:
    sent = write(tmp_path / "sent.dcm", with_value("SeriesInstanceUID", ""))
    command = ["/usr/bin/storescu", "-d", "-aet", "CT1", "-aec", NODE, HOST]
    done = subprocess.run(
        [*command, str(node.port), str(sent)], check=False, capture_output=True, text=True
    )
    said = done.stdout + done.stderr
    assert "0xa900" in said.lower()
    assert node.ended().refused == 1


RECEIVER = """
import sys
import threading
from pathlib import Path
from wire.receiving import Listen, Receiver

receiver = Receiver(Path(sys.argv[1]), listen=Listen(accept_unknown_peers=True), peers={})
receiver.acceptor.start()
print(receiver.port, flush=True)
threading.Event().wait()
"""


def test_a_killed_receiver_has_lost_nothing_that_it_acknowledged(tmp_path: Path) -> None:
    sent = [write(tmp_path / f"{number}.dcm", instance(number)) for number in range(30)]
    data_dir = tmp_path / "data"
    command = [sys.executable, "-c", RECEIVER, str(data_dir)]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as receiver:
        assert receiver.stdout is not None
        ae = AE("CT1")
        context = build_context(*KIND)
        port = int(receiver.stdout.readline())
        assoc = ae.associate(HOST, port, contexts=[context], ae_title=NODE)
        acknowledged = {path.stem for path in sent[:20] if send(assoc, path).Status == 0}
        in_flight = threading.Thread(target=assoc.send_c_store, args=[sent[20]])
        in_flight.start()
        receiver.kill()
        in_flight.join()
    store = FileStore(data_dir)
    store.remove_partial()
    on_disk = [store.absolute(path) for path in store.walk()]
    numbers = {path.stem.rpartition(".")[2] for path in on_disk}
    assert acknowledged == {str(number) for number in range(20)}
    assert acknowledged <= numbers <= acknowledged | {"20"}
    for path in on_disk:
        original = tmp_path / f"{path.stem.rpartition('.')[2]}.dcm"
        assert dataset_bytes(path) == dataset_bytes(original)


def test_what_is_read_is_acknowledged_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    options: list[int] = []

    def note(self: PromptSocket, _level: int, option: int, _value: int) -> None:
        options.append(option)

    monkeypatch.setattr(PromptSocket, "setsockopt", note)
    with (
        socket.create_server((HOST, 0)) as server,
        socket.create_connection(server.getsockname()) as sending,
        PromptSocket.taking_over(server.accept()[0]) as reading,
    ):
        sending.sendall(b"command data")
        assert (reading.recv(8), reading.recv(100)) == (b"command ", b"data")
        assert reading.getpeername() == sending.getsockname()
    assert options == [socket.TCP_QUICKACK] * 2
