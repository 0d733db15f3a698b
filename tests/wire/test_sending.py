"""What the node sends arrives as it is, and every answer is looked at."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import channels
import numpy as np
import pydicom
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)
from pynetdicom import AE, AllStoragePresentationContexts, build_context, evt
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]
from servers import Orthanc
from wire.receiving import HOST, NODE, Receiver, Start, dataset_bytes, instance, write

from dicomnode import status
from dicomnode.errors import Misconfigured, RetryLater
from dicomnode.network.calling import request, sender
from dicomnode.network.calling.sender import Destination, Sent

TEST_FILES = Path(pydicom.__file__).parent / "data" / "test_files"
FIND = "1.2.840.10008.5.1.4.1.2.2.1"
PENDING = 0xFF00


@dataclass(kw_only=True)
class Pacs:
    """A peer that keeps in memory what it gets, and answers as it is told."""

    to: Destination
    got: list[tuple[str, str, bytes]] = field(default_factory=list)
    associations: int = 0

    @property
    def uids(self) -> list[str]:
        return [uid for uid, *_ in self.got]


StartPacs = Callable[..., Pacs]
Answer = Callable[[evt.Event], Any]


@pytest.fixture
def start_pacs() -> Iterator[StartPacs]:
    """Starts peers that are not ours."""
    servers: list[Any] = []

    def _start(
        *,
        syntaxes: Sequence[str] = (ExplicitVRLittleEndian, ImplicitVRLittleEndian),
        on_store: Answer = lambda _: status.SUCCESS,
        on_find: Answer | None = None,
        on_echo: Answer = lambda _: status.SUCCESS,
    ) -> Pacs:
        ae = AE("PACS")
        ae.require_called_aet = True
        ae.require_calling_aet = [NODE]
        for context in AllStoragePresentationContexts:
            ae.add_supported_context(context.abstract_syntax, list(syntaxes))
        ae.add_supported_context("1.2.840.10008.1.1")
        if on_find is not None:
            ae.add_supported_context(FIND)

        def store(event: evt.Event) -> Any:
            answer = on_store(event)
            if answer == status.SUCCESS:
                name = event.request.AffectedSOPInstanceUID
                syntax = event.context.transfer_syntax
                pacs.got.append((name, syntax, event.request.DataSet.getvalue()))
            return answer

        def count(_: evt.Event) -> None:
            pacs.associations += 1

        handlers = [
            (evt.EVT_C_STORE, store),
            (evt.EVT_C_FIND, on_find or (lambda _: iter(()))),
            (evt.EVT_C_ECHO, on_echo),
            (evt.EVT_ACCEPTED, count),
        ]
        server = ae.start_server((HOST, 0), block=False, evt_handlers=handlers)
        servers.append(server)
        port = server.socket.getsockname()[1]
        pacs = Pacs(to=Destination(ae_title="PACS", host=HOST, port=port))
        return pacs

    yield _start
    for server in servers:
        server.shutdown()


@pytest.fixture
def pacs(start_pacs: StartPacs) -> Pacs:
    return start_pacs()


def send(paths: Sequence[Path], to: Destination, **more: Any) -> tuple[Sent, ...]:
    return sender.send(paths, to=to, calling_ae_title=NODE, **more)


def files(folder: Path, count: int) -> list[Path]:
    return [write(folder / f"{number}.dcm", instance(number)) for number in range(count)]


def test_files_go_out_in_their_order_and_byte_for_byte(pacs: Pacs, tmp_path: Path) -> None:
    paths = files(tmp_path, 5)[::-1]
    told: list[Sent] = []
    sent = send(paths, pacs.to, progress=told.append)
    assert [one.path for one in sent] == paths
    assert told == list(sent)
    assert {sender.outcome(one.status) for one in sent} == {"stored"}
    assert pacs.uids == [one.sop_instance_uid for one in sent]
    assert [content for *_, content in pacs.got] == [dataset_bytes(path) for path in paths]
    assert pacs.associations == 1


def test_what_the_acceptor_keeps_is_what_the_sender_was_given(
    node: Receiver, tmp_path: Path
) -> None:
    paths = files(tmp_path, 4)
    to = Destination(ae_title=NODE, host=HOST, port=node.port)
    sent = sender.send(paths, to=to, calling_ae_title="CT1")
    assert [one.status for one in sent] == [status.SUCCESS] * 4
    assert node.ended().stored == 4
    for path, kept in zip(paths, node.stored, strict=True):
        assert dataset_bytes(node.data_dir / kept) == dataset_bytes(path)


@pytest.mark.parametrize("name", ["MR_small_jp2klossless.dcm", "JPEG-lossy.dcm", "image_dfl.dcm"])
def test_a_transfer_syntax_that_the_peer_takes_is_left_alone(
    start_pacs: StartPacs, name: str
) -> None:
    path = TEST_FILES / name
    syntax = dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID
    pacs = start_pacs(syntaxes=[ExplicitVRLittleEndian, syntax])
    send([path], pacs.to)
    assert [(used, content) for _, used, content in pacs.got] == [(syntax, dataset_bytes(path))]


@pytest.mark.parametrize(
    ("name", "syntax"),
    [
        ("MR_small_jp2klossless.dcm", JPEG2000Lossless),
        ("MR_small_RLE.dcm", RLELossless),
        ("SC_rgb_rle.dcm", RLELossless),
        ("image_dfl.dcm", DeflatedExplicitVRLittleEndian),
        ("CT_small.dcm", ExplicitVRLittleEndian),
    ],
)
@pytest.mark.parametrize("taken", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_what_loses_nothing_is_converted_for_a_peer_that_takes_it_plain(
    start_pacs: StartPacs, name: str, syntax: str, taken: str
) -> None:
    original = dcmread(TEST_FILES / name)
    assert original.file_meta.TransferSyntaxUID == syntax
    pacs = start_pacs(syntaxes=[taken])
    (sent,) = send([TEST_FILES / name], pacs.to)
    assert sent.status == status.SUCCESS
    ((uid, used, content),) = pacs.got
    assert (uid, used) == (original.SOPInstanceUID, taken)
    arrived = read(content, taken)
    assert arrived.SOPInstanceUID == original.SOPInstanceUID
    assert arrived.PhotometricInterpretation == original.PhotometricInterpretation
    np.testing.assert_array_equal(arrived.pixel_array, original.pixel_array)


def read(content: bytes, transfer_syntax_uid: str) -> Dataset:
    arrived = pydicom.filereader.read_dataset(
        pydicom.filebase.DicomBytesIO(content),
        is_implicit_VR=transfer_syntax_uid == ImplicitVRLittleEndian,
        is_little_endian=True,
    )
    arrived.file_meta = pydicom.dataset.FileMetaDataset()
    arrived.file_meta.TransferSyntaxUID = transfer_syntax_uid
    return arrived


@pytest.mark.parametrize("name", ["JPEG-lossy.dcm", "MR_small_bigendian.dcm"])
def test_what_would_lose_something_is_not_sent_and_says_so(pacs: Pacs, name: str) -> None:
    (sent,) = send([TEST_FILES / name], pacs.to)
    assert sent.status == status.SOP_CLASS_NOT_SUPPORTED
    assert sender.outcome(sent.status) == "refused"
    assert "transfer syntax" in sent.comment
    assert pacs.got == []


def test_pixels_that_do_not_decode_are_a_failure_of_that_file_alone(
    pacs: Pacs, tmp_path: Path
) -> None:
    broken = dcmread(TEST_FILES / "MR_small_jp2klossless.dcm")
    broken.PixelData = pydicom.encaps.encapsulate([b"no image"])
    broken.save_as(tmp_path / "broken.dcm")
    sent = send([tmp_path / "broken.dcm", *files(tmp_path, 1)], pacs.to)
    assert [sender.outcome(one.status) for one in sent] == ["refused", "stored"]
    assert "does not decode" in sent[0].comment


def test_more_kinds_than_one_association_carries_go_out_on_several(
    pacs: Pacs, tmp_path: Path
) -> None:
    paths = []
    for number, context in enumerate(AllStoragePresentationContexts[:100]):
        ds = instance(number, pixels=8)
        ds.SOPClassUID = context.abstract_syntax
        paths.append(write(tmp_path / f"{number}.dcm", ds))
    sent = send(paths, pacs.to)
    assert [one.status for one in sent] == [status.SUCCESS] * 100
    assert pacs.uids == [f"1.2.3.4.{number}" for number in range(100)]
    assert pacs.associations == 2


def test_a_class_that_the_peer_does_not_take_is_named(pacs: Pacs, tmp_path: Path) -> None:
    ds = instance()
    ds.SOPClassUID = "1.2.826.0.1.3680043.2.1"
    strange = write(tmp_path / "strange.dcm", ds)
    assert [one.status for one in send([strange], pacs.to)] == [status.SOP_CLASS_NOT_SUPPORTED]
    both = send([strange, *files(tmp_path, 1)], pacs.to)
    assert [sender.outcome(one.status) for one in both] == ["refused", "stored"]


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        (0x0000, "stored"),
        (0xB000, "stored"),
        (0xB007, "stored"),
        (0xA700, "retry"),
        (0xA7FF, "retry"),
        (0xA900, "refused"),
        (0xC000, "refused"),
        (0x0122, "refused"),
        (0x0110, "retry"),
    ],
)
def test_each_answer_has_one_meaning(
    start_pacs: StartPacs, tmp_path: Path, code: int, outcome: str
) -> None:
    pacs = start_pacs(on_store=lambda _: code)
    (sent,) = send(files(tmp_path, 1), pacs.to)
    assert (sent.status, sender.outcome(sent.status)) == (code, outcome)


def test_a_refused_object_does_not_stop_the_others(start_pacs: StartPacs, tmp_path: Path) -> None:
    def refuse_the_second(event: evt.Event) -> Dataset | int:
        answer = Dataset()
        answer.Status = status.DATA_SET_DOES_NOT_MATCH
        answer.ErrorComment = "not this one"
        return answer if event.request.MessageID == 2 else status.SUCCESS

    pacs = start_pacs(on_store=refuse_the_second)
    sent = send(files(tmp_path, 3), pacs.to)
    assert [sender.outcome(one.status) for one in sent] == ["stored", "refused", "stored"]
    assert sent[1].comment == "not this one"


def test_what_is_no_dicom_file_is_named_and_the_others_go_out(pacs: Pacs, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    paths = [tmp_path / "notes.txt", tmp_path / "absent.dcm", *files(tmp_path, 1)]
    sent = send(paths, pacs.to)
    assert [sender.outcome(one.status) for one in sent] == ["refused", "refused", "stored"]
    assert "no DICOM file" in sent[0].comment
    assert "Cannot be read" in sent[1].comment
    assert [one.path for one in sent] == paths


def test_a_file_that_goes_away_while_it_is_sent_is_tried_later(
    start_pacs: StartPacs, tmp_path: Path
) -> None:
    paths = files(tmp_path, 2)

    def take_away(_: evt.Event) -> int:
        paths[1].unlink(missing_ok=True)
        return status.SUCCESS

    with pytest.raises(RetryLater, match="unreadable-file"):
        send(paths, start_pacs(on_store=take_away).to)


def test_nothing_to_send_asks_for_no_association(pacs: Pacs, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    assert send([], pacs.to) == ()
    assert len(send([tmp_path / "notes.txt"], pacs.to)) == 1
    assert pacs.associations == 0


def test_a_peer_that_is_down_is_tried_later(tmp_path: Path, free_port: int) -> None:
    with pytest.raises(RetryLater, match="peer-unreachable"):
        send(files(tmp_path, 1), Destination(ae_title="PACS", host=HOST, port=free_port))


def test_a_host_that_nobody_knows_is_tried_later(tmp_path: Path) -> None:
    with pytest.raises(RetryLater, match="peer-unreachable"):
        send(files(tmp_path, 1), Destination(ae_title="PACS", host="nowhere.invalid", port=104))


def test_a_peer_that_does_not_know_us_says_so(pacs: Pacs, tmp_path: Path) -> None:
    with pytest.raises(RetryLater, match="calling-ae-title-not-recognized") as raised:
        sender.send(files(tmp_path, 1), to=pacs.to, calling_ae_title="STRANGER")
    assert "STRANGER" in raised.value.detail


def test_a_rejection_is_named_however_late_it_is_looked_at(pacs: Pacs) -> None:
    ended = threading.Event()
    late = [
        (evt.EVT_CONN_CLOSE, lambda _: ended.set()),
        # In pynetdicom's thread that is to look whether there is a connection, and an answer.
        (evt.EVT_REQUESTED, lambda _: ended.wait(30)),
    ]
    contexts = [build_context(Verification)]
    with (
        pytest.raises(RetryLater, match="calling-ae-title-not-recognized"),
        request.requested(pacs.to, calling_ae_title="STRANGER", contexts=contexts, handlers=late),
    ):
        pass


def test_a_wrong_ae_title_of_the_peer_is_named(pacs: Pacs, tmp_path: Path) -> None:
    wrong = Destination(ae_title="OTHER", host=HOST, port=pacs.to.port)
    with pytest.raises(RetryLater, match="called-ae-title-not-recognized"):
        send(files(tmp_path, 1), wrong)


def test_a_busy_peer_is_tried_later(start: Start, tmp_path: Path) -> None:
    node = start(max_associations=1)
    to = Destination(ae_title=NODE, host=HOST, port=node.port)
    contexts = [request.association.accepted_contexts()[0]]
    with (
        request.requested(to, calling_ae_title="CT1", contexts=contexts),
        pytest.raises(RetryLater, match="peer-busy"),
    ):
        sender.send(files(tmp_path, 1), to=to, calling_ae_title="CT1")


def test_a_peer_that_breaks_off_is_tried_later_and_what_it_took_is_told(
    start_pacs: StartPacs, tmp_path: Path
) -> None:
    def break_off(event: evt.Event) -> int:
        if event.request.MessageID == 2:
            event.assoc.abort()
        return status.SUCCESS

    pacs = start_pacs(on_store=break_off)
    told: list[Sent] = []
    with pytest.raises(RetryLater, match="no-answer"):
        send(files(tmp_path, 3), pacs.to, progress=told.append)
    assert [one.sop_instance_uid for one in told] == ["1.2.3.4.0"]


def test_a_peer_that_takes_the_connection_and_says_nothing_is_tried_later() -> None:
    contexts = [request.association.accepted_contexts()[0]]
    with socket.create_server((HOST, 0)) as silent:
        to = Destination(ae_title="PACS", host=HOST, port=silent.getsockname()[1])
        with (
            pytest.raises(RetryLater, match="association-aborted"),
            request.requested(
                to,
                calling_ae_title=NODE,
                contexts=contexts,
                patience=request.Patience(acse_s=0.2),
            ),
        ):
            pass


def test_a_failure_of_ours_ends_the_association(pacs: Pacs, tmp_path: Path) -> None:
    def fail(_: Sent) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        send(files(tmp_path, 2), pacs.to, progress=fail)
    assert not any("RequestorThread" in thread.name for thread in threading.enumerate())


def found(*uids: str) -> Answer:
    def answer(event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        assert event.identifier.QueryRetrieveLevel == "IMAGE"
        for uid in uids:
            if event.identifier.SOPInstanceUID in ("", uid):
                match = Dataset()
                match.QueryRetrieveLevel = "IMAGE"
                match.SOPInstanceUID = uid
                yield PENDING, match

    return answer


def find(to: Destination, *uids: str) -> set[str]:
    return sender.find_instances(
        to,
        calling_ae_title=NODE,
        study_instance_uid="1.2.3.1",
        series_instance_uid="1.2.3.2",
        sop_instance_uids=uids,
    )


def test_what_a_peer_lists_is_found(start_pacs: StartPacs) -> None:
    pacs = start_pacs(on_find=found("1.2.3", "1.2.4", "1.2.5"))
    assert find(pacs.to, "1.2.4") == {"1.2.4"}
    assert find(pacs.to, "1.2.3", "1.2.4", "1.2.9") == {"1.2.3", "1.2.4"}
    assert find(pacs.to, "1.2.9") == set()


def test_a_query_that_fails_is_asked_again_later(start_pacs: StartPacs) -> None:
    pacs = start_pacs(on_find=lambda _: iter([(0xC001, None)]))
    with pytest.raises(RetryLater, match="find-refused"):
        find(pacs.to, "1.2.3")


def test_a_peer_without_queries_is_named(pacs: Pacs) -> None:
    with pytest.raises(RetryLater, match="find-refused"):
        find(pacs.to, "1.2.3")


def test_orthanc_takes_an_object_and_finds_it_again(orthanc: Orthanc, tmp_path: Path) -> None:
    to = Destination(ae_title=orthanc.ae_title, host=orthanc.host, port=orthanc.dicom_port)
    (sent,) = send(files(tmp_path, 1), to)
    assert sent.status == status.SUCCESS
    assert find(to, sent.sop_instance_uid) == {sent.sop_instance_uid}
    assert find(to, "1.2.3.4.99") == set()
    sender.echo(to, calling_ae_title=NODE)


def test_echo_is_answered_by_a_peer_that_knows_us(pacs: Pacs, node: Receiver) -> None:
    sender.echo(pacs.to, calling_ae_title=NODE)
    ours = Destination(ae_title=NODE, host=HOST, port=node.port)
    sender.echo(ours, calling_ae_title="CT1")


def test_echo_names_what_is_wrong(pacs: Pacs) -> None:
    wrong = Destination(ae_title="OTHER", host=HOST, port=pacs.to.port)
    with pytest.raises(RetryLater, match="called-ae-title-not-recognized"):
        sender.echo(wrong, calling_ae_title=NODE, timeout_s=2)


def test_a_peer_whose_answer_never_ends_is_left() -> None:
    came: list[RetryLater] = []

    def ask(port: int) -> None:
        with pytest.raises(RetryLater) as caught:
            sender.echo(
                Destination(ae_title="X", host=HOST, port=port), calling_ae_title="A", timeout_s=0.3
            )
        came.append(caught.value)

    with channels.rude(channels.drips_an_association) as port:
        # In a thread of its own: what is tested would otherwise wait for ever.
        asking = threading.Thread(target=ask, args=[port], daemon=True)
        asking.start()
        asking.join(30)
        assert [one.reason for one in came] == ["association-aborted"]


def test_echo_fails_where_the_answer_is_a_failure(start_pacs: StartPacs) -> None:
    pacs = start_pacs(on_echo=lambda _: 0x0122)
    with pytest.raises(RetryLater, match="echo-refused"):
        sender.echo(pacs.to, calling_ae_title=NODE)


@pytest.mark.parametrize(
    ("text", "destination"),
    [
        ("PACS@10.0.0.5:104", Destination(ae_title="PACS", host="10.0.0.5", port=104)),
        ("A B@pacs.example:11112", Destination(ae_title="A B", host="pacs.example", port=11112)),
        ("PACS@[::1]:104", Destination(ae_title="PACS", host="::1", port=104)),
    ],
)
def test_a_destination_is_read(text: str, destination: Destination) -> None:
    assert sender.parse_destination(text) == destination


@pytest.mark.parametrize(
    "text", ["", "PACS", "PACS@host", "@host:104", "PACS@host:0", "PACS@host:65536", "PACS@::1:104"]
)
def test_what_is_no_destination_is_a_misconfiguration(text: str) -> None:
    with pytest.raises(Misconfigured, match="bad-destination"):
        sender.parse_destination(text)


def test_a_folder_gives_its_dicom_files_and_says_what_it_leaves_out(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    second, first = write(tmp_path / "b" / "2", instance(2)), write(tmp_path / "1", instance(1))
    (tmp_path / "notes.txt").write_text("nothing")
    directory = instance(3)
    directory.SOPClassUID = "1.2.840.10008.1.3.10"
    write(tmp_path / "DICOMDIR", directory)
    left_out: dict[str, str] = {}
    found = sender.dicom_files(
        [tmp_path, first], skipped=lambda path, why: left_out.update({path.name: why})
    )
    assert found == [first, second]
    assert left_out.keys() == {"notes.txt", "DICOMDIR"}
    assert "DICOMDIR" in left_out["DICOMDIR"]


def test_a_path_that_is_not_there_is_a_misconfiguration(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="no-such-file"):
        sender.dicom_files([tmp_path / "absent"])


def test_big_endian_is_sent_to_who_takes_it(start_pacs: StartPacs) -> None:
    pacs = start_pacs(syntaxes=[ExplicitVRBigEndian])
    (sent,) = send([TEST_FILES / "MR_small_bigendian.dcm"], pacs.to)
    assert sent.status == status.SUCCESS
