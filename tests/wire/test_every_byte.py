"""What was received is what was sent, however it was cut; both reactors say and keep the same.

The sender is `raw`: it cuts messages into PDVs anywhere, puts several into one PDU, sends empty
ones, and lets the bytes trickle in (PS3.8 9.3.5 and Annex E).
"""

from __future__ import annotations

import random
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from itertools import islice
from pathlib import Path

import pydicom
import pytest
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from wire import raw
from wire.raw import Context, Speaker
from wire.receiving import Receiver, Start, dataset_bytes, instance

from dicomnode import status
from dicomnode.archive.disk import elements, header
from dicomnode.errors import Refused
from dicomnode.network import association

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
TEST_FILES = Path(pydicom.__file__).parent / "data"

REACTORS = ("streaming", "stock")

# Such a test starts a receiver of each kind by itself.
each_reactor = pytest.mark.parametrize("reactor", ["each"])
MOST_CONTEXTS = 128  # PS3.8 7.1.1.13: their ids are odd, and a byte
LONGEST_KIB = 1024
STORAGE = {context.abstract_syntax for context in association.accepted_contexts()[1:]}


@dataclass(frozen=True, kw_only=True)
class Item:
    """What goes out as one C-STORE-RQ."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    dataset: bytes = field(repr=False)

    @property
    def uids(self) -> tuple[str, str]:
        return self.sop_class_uid, self.sop_instance_uid

    @property
    def kind(self) -> tuple[str, str]:
        return self.sop_class_uid, self.transfer_syntax_uid


@dataclass(frozen=True, kw_only=True)
class Cut:
    """How messages are cut.

    Attributes:
        longest: Length of the longest PDU's content, bytes.
        is_random: Whether PDVs end anywhere and share PDUs; otherwise each fills a PDU.
        is_trickling: Whether the bytes come a few at a time.
    """

    longest: int
    is_random: bool = False
    is_trickling: bool = False

    def __str__(self) -> str:
        return f"{self.longest}{' anywhere' * self.is_random}"


def item(content: bytes) -> Item | None:
    """What a DICOM file holds; `None` where it is no object of a standard storage class."""
    file = BytesIO(content)
    try:
        meta = header.read_meta(file)
    except Refused:
        return None
    if meta.sop_class_uid not in STORAGE:
        return None
    return Item(
        sop_class_uid=meta.sop_class_uid,
        sop_instance_uid=meta.sop_instance_uid,
        transfer_syntax_uid=meta.transfer_syntax_uid,
        dataset=content[meta.offset :],
    )


def items(*folders: Path) -> list[Item]:
    """What is in all files below some folders, unpacked where it is packed."""
    found = (item(content) for folder in folders for content in _contents(folder))
    return [one for one in found if one is not None]


def _contents(folder: Path) -> Iterator[bytes]:
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if path.name.endswith(".tar.xz"):
            with tarfile.open(path) as packed:
                members = (packed.extractfile(member) for member in packed)
                yield from (member.read() for member in members if member is not None)
        else:
            yield path.read_bytes()


def batches(sent: Iterable[Item]) -> Iterator[tuple[dict[tuple[str, str], Context], list[Item]]]:
    """Items in the order of their kinds, as many to an association as it has contexts for."""
    in_order = sorted(sent, key=lambda one: one.kind)
    kinds = iter(dict.fromkeys(one.kind for one in in_order))
    while together := tuple(islice(kinds, MOST_CONTEXTS)):
        contexts = {
            kind: Context(id=2 * n + 1, abstract_syntax=kind[0], transfer_syntaxes=(kind[1],))
            for n, kind in enumerate(together)
        }
        yield contexts, [one for one in in_order if one.kind in contexts]


def send_all(receiver: Receiver, sent: Sequence[Item], cut: Cut) -> list[dict[int, bytes]]:
    """Send items; returns the answers, in the order of `batches`. The same cuts each time."""
    rng = random.Random(cut.longest)
    answers = []
    for contexts, together in batches(sent):
        with Speaker(receiver.port, list(contexts.values())) as speaker:
            for message_id, one in enumerate(together, start=1):
                request = raw.c_store_rq(*one.uids, message_id=message_id)
                chance = rng if cut.is_random else None
                said = speaker.message(
                    contexts[one.kind].id, request, one.dataset, longest=cut.longest, rng=chance
                )
                for pdu in said:
                    speaker.trickle(pdu, rng=rng) if cut.is_trickling else speaker.send(pdu)
                answers.append(speaker.answer())
            assert speaker.release()
    return answers


def kept(receiver: Receiver) -> dict[str, bytes]:
    """Every file that there is: its path below the data folder → its content."""
    return {path: (receiver.data_dir / path).read_bytes() for path in receiver.on_disk}


def assert_same_everywhere(start: Start, tmp_path: Path, sent: Sequence[Item], cut: Cut) -> None:
    """Send everything to both reactors; each keeps each byte, and both the same ones."""
    answers, files = [], []
    for reactor in REACTORS:
        receiver = start(reactor=reactor, data_dir=tmp_path / reactor, max_pdu_kib=LONGEST_KIB)
        answers.append(send_all(receiver, sent, cut))
        files.append(kept(receiver))
        assert receiver.leftovers == []
        assert_kept_as_sent(receiver, sent, answers[-1])
    assert answers[0] == answers[1]
    assert files[0] == files[1]


def assert_kept_as_sent(
    receiver: Receiver, sent: Sequence[Item], answers: Sequence[dict[int, bytes]]
) -> None:
    """What was answered with success is kept as it was sent; nothing else is kept."""
    in_order = [one for _contexts, together in batches(sent) for one in together]
    expected: dict[str, bytes] = {}
    for one, answer in zip(in_order, answers, strict=True):
        code = raw.number(answer, raw.STATUS)
        if code == status.SUCCESS:
            assert expected.setdefault(one.sop_instance_uid, one.dataset) == one.dataset
        elif code == status.DUPLICATE_SOP_INSTANCE:
            assert expected[one.sop_instance_uid] != one.dataset
        else:
            assert code in {status.DATA_SET_DOES_NOT_MATCH, status.CANNOT_UNDERSTAND}
    paths = {Path(path).stem: receiver.data_dir / path for path in receiver.on_disk}
    assert paths.keys() == expected.keys()
    assert [uid for uid in expected if dataset_bytes(paths[uid]) != expected[uid]] == []


CUTS = [
    Cut(longest=4096),
    Cut(longest=4096, is_random=True),
    Cut(longest=16384, is_random=True),
    Cut(longest=131_072),
    Cut(longest=131_072, is_random=True),
    Cut(longest=LONGEST_KIB * 1024),
    Cut(longest=LONGEST_KIB * 1024, is_random=True),
]


@each_reactor
@pytest.mark.parametrize("cut", CUTS, ids=str)
def test_every_object_of_pydicom_arrives_as_it_was_sent(
    start: Start, tmp_path: Path, cut: Cut
) -> None:
    sent = items(TEST_FILES)
    assert len({one.kind for one in sent}) > 20
    assert_same_everywhere(start, tmp_path, sent, cut)


@each_reactor
@pytest.mark.data
@pytest.mark.timeout(900)
def test_every_real_object_arrives_as_it_was_sent(start: Start, tmp_path: Path) -> None:
    sent = items(DATA)
    assert len(sent) > 1000
    assert_same_everywhere(start, tmp_path, sent, Cut(longest=131_072, is_random=True))
    assert len(list((tmp_path / "streaming" / "instances").rglob("*.dcm"))) > 1000


@each_reactor
@pytest.mark.data
def test_blank_uids_are_refused_alike(start: Start, tmp_path: Path) -> None:
    sent = items(DATA / "ct_blank_uids")
    assert len(sent) == 20
    assert_same_everywhere(start, tmp_path, sent, Cut(longest=16384, is_random=True))
    for reactor in REACTORS:
        assert list((tmp_path / reactor / "instances").rglob("*.dcm")) == []


def encoded(number: int, *, transfer_syntax_uid: str) -> Item:
    """A small image whose data set is encoded as a transfer syntax has it, pixels aside."""
    ds = instance(number)
    coding = elements.coding_of(transfer_syntax_uid)
    to = DicomBytesIO()
    to.is_implicit_VR = coding.implicit
    to.is_little_endian = coding.order == "<"
    write_dataset(to, ds)
    return Item(
        sop_class_uid=str(ds.SOPClassUID),
        sop_instance_uid=str(ds.SOPInstanceUID),
        transfer_syntax_uid=transfer_syntax_uid,
        dataset=to.getvalue(),
    )


@each_reactor
@pytest.mark.parametrize("is_trickling", [False, True], ids=["at once", "trickling"])
def test_every_transfer_syntax_is_kept_as_it_is(
    start: Start, tmp_path: Path, is_trickling: bool
) -> None:
    sent = [
        encoded(number, transfer_syntax_uid=syntax)
        for number, syntax in enumerate(association.transfer_syntaxes(), start=1)
        if syntax != elements.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN
    ]
    assert len(sent) > 30
    cut = Cut(longest=4096, is_random=True, is_trickling=is_trickling)
    assert_same_everywhere(start, tmp_path, sent, cut)
    assert len(list((tmp_path / "streaming" / "instances").rglob("*.dcm"))) == len(sent)


@pytest.mark.parametrize("seed", range(5))
def test_a_command_and_its_data_may_be_cut_at_every_byte(start: Start, seed: int) -> None:
    """Each byte a PDV of its own, with empty ones between, some in one PDU and some not."""
    node, rng = start(), random.Random(seed)
    one = encoded(1, transfer_syntax_uid=raw.EXPLICIT)
    content = one.dataset[: one.dataset.index(b"\xe0\x7f\x10\x00")]  # without the pixels
    context = Context(id=1, abstract_syntax=one.sop_class_uid, transfer_syntaxes=(raw.EXPLICIT,))
    with Speaker(node.port, [context]) as speaker:
        values = []
        for is_command, part in (
            (True, raw.command(raw.c_store_rq(*one.uids))),
            (False, content),
        ):
            for at in range(len(part)):
                empty = raw.Pdv(context_id=1, content=b"", is_command=is_command)
                values += [empty] * (rng.random() < 0.1)
                values.append(
                    raw.Pdv(context_id=1, content=part[at : at + 1], is_command=is_command)
                )
            # The last fragment is empty: what it ends was whole before.
            values.append(raw.Pdv(context_id=1, content=b"", is_command=is_command, is_last=True))
        for pdu in raw.packed(values, longest=4096, rng=rng):
            speaker.send(pdu)
        assert raw.number(speaker.answer(), raw.STATUS) == status.SUCCESS
        assert speaker.release()
    assert dataset_bytes(node.data_dir / node.stored[0]) == content


@pytest.mark.parametrize("reactor", ["streaming"])
def test_a_pdu_longer_than_agreed_ends_the_association_and_nothing_is_kept(start: Start) -> None:
    node = start(max_pdu_kib=4)
    one = encoded(1, transfer_syntax_uid=raw.EXPLICIT)
    context = Context(id=1, abstract_syntax=one.sop_class_uid, transfer_syntaxes=(raw.EXPLICIT,))
    with Speaker(node.port, [context]) as speaker:
        assert speaker.longest == 4096
        said = raw.fragments(one.dataset, context_id=1, longest=100_000)
        assert len(one.dataset) > speaker.longest
        request = raw.c_store_rq(*one.uids)
        for pdu in (*speaker.message(1, request), *raw.packed(said, longest=100_000)):
            speaker.send(pdu)
        with pytest.raises(ConnectionAbortedError):
            speaker.answer()
    assert node.ended().stored == 0
    assert node.on_disk == node.leftovers == []
