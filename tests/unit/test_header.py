"""Who an instance is, and what its header says: for real files, and for what is none."""

from __future__ import annotations

import contextlib
import json
import random
import struct
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset, Sequence, dcmread, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
)

from dicomnode import status
from dicomnode.archive.disk import elements, header
from dicomnode.archive.disk.header import Identity
from dicomnode.errors import Refused

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
TEST_FILES = Path(pydicom.__file__).parent / "data"

IMPLICIT, EXPLICIT = str(ImplicitVRLittleEndian), str(ExplicitVRLittleEndian)
BIG, DEFLATED = str(ExplicitVRBigEndian), str(DeflatedExplicitVRLittleEndian)
ENCODINGS = [IMPLICIT, EXPLICIT, BIG, DEFLATED]

IDENTITY = Identity(
    sop_class_uid=str(CTImageStorage),
    sop_instance_uid="1.2.3.4.1",
    series_instance_uid="1.2.3.2",
    study_instance_uid="1.2.3.1",
)


def instance(**more: Any) -> Dataset:
    ds = Dataset()
    ds.SOPClassUID = CTImageStorage
    ds.SOPInstanceUID = "1.2.3.4.1"
    ds.PatientID = "P1"
    ds.StudyInstanceUID = "1.2.3.1"
    ds.SeriesInstanceUID = "1.2.3.2"
    for keyword, value in more.items():
        setattr(ds, keyword, value)
    return ds


def encoded(ds: Dataset, transfer_syntax_uid: str = EXPLICIT) -> bytes:
    stream = DicomBytesIO()
    stream.is_implicit_VR = transfer_syntax_uid == IMPLICIT
    stream.is_little_endian = transfer_syntax_uid != BIG
    write_dataset(stream, ds)
    if transfer_syntax_uid != DEFLATED:
        return stream.getvalue()
    return deflated(stream.getvalue())


def deflated(content: bytes) -> bytes:
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return deflate.compress(content) + deflate.flush()


def scan(content: bytes, transfer_syntax_uid: str = EXPLICIT) -> Identity:
    return header.scan(content, transfer_syntax_uid=transfer_syntax_uid)


def write(path: Path, ds: Dataset, transfer_syntax_uid: str = EXPLICIT) -> Path:
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = transfer_syntax_uid
    dcmwrite(path, ds, enforce_file_format=True)
    return path


def refusal(content: bytes, transfer_syntax_uid: str = EXPLICIT) -> Refused:
    with pytest.raises(Refused) as raised:
        scan(content, transfer_syntax_uid)
    return raised.value


@pytest.mark.parametrize("transfer_syntax_uid", [*ENCODINGS, str(JPEG2000Lossless)])
def test_an_instance_is_identified_however_it_is_encoded(transfer_syntax_uid: str) -> None:
    ds = instance(Rows=4)
    assert scan(encoded(ds, transfer_syntax_uid), transfer_syntax_uid) == IDENTITY


@pytest.mark.parametrize("form", [bytes, BytesIO])
def test_bytes_and_a_stream_scan_alike(form: Any) -> None:
    content = encoded(instance())
    assert header.scan(form(content), transfer_syntax_uid=EXPLICIT) == IDENTITY


class Watched(BytesIO):
    """A stream that knows how far it was read."""

    furthest = 0

    def read(self, size: int | None = -1, /) -> bytes:
        content = super().read(size)
        self.furthest = max(self.furthest, self.tell())
        return content


@pytest.mark.parametrize("transfer_syntax_uid", [IMPLICIT, EXPLICIT, BIG])
def test_no_more_is_read_than_the_identity_takes(transfer_syntax_uid: str) -> None:
    up_to_here = len(encoded(instance(), transfer_syntax_uid))
    ds = instance(InstanceNumber=1, PixelData=bytes(2**20))
    ds["PixelData"].VR = "OW"
    stream = Watched(encoded(ds, transfer_syntax_uid))
    header.scan(stream, transfer_syntax_uid=transfer_syntax_uid)
    assert stream.furthest <= up_to_here + 12  # the head of the next element


def test_of_a_deflated_instance_a_piece_is_inflated() -> None:
    noise = random.Random(1).randbytes(2**22)
    ds = instance()
    ds.add_new("PixelData", "OW", noise)
    stream = Watched(encoded(ds, DEFLATED))
    header.scan(stream, transfer_syntax_uid=DEFLATED)
    assert stream.furthest < len(noise) / 10


@pytest.mark.parametrize("transfer_syntax_uid", ENCODINGS)
@pytest.mark.parametrize("is_undefined_length", [True, False])
def test_sequences_and_private_elements_on_the_way_are_passed_over(
    transfer_syntax_uid: str,
    is_undefined_length: bool,
) -> None:
    inner = Dataset()
    inner.StudyInstanceUID = "9.9.9"  # of somebody else
    inner.ReferencedSOPSequence = Sequence([instance(SOPInstanceUID="9.9.9.9")])
    ds = instance(ReferencedStudySequence=Sequence([inner, Dataset()]))
    block = ds.private_block(0x0009, "MAKER", create=True)
    block.add_new(0x01, "OB", bytes(100))
    block.add_new(0x02, "SQ", Sequence([inner]))
    for sequence in (ds["ReferencedStudySequence"], inner["ReferencedSOPSequence"]):
        sequence.is_undefined_length = is_undefined_length
        for item in sequence.value:
            item.is_undefined_length_sequence_item = is_undefined_length
    assert scan(encoded(ds, transfer_syntax_uid), transfer_syntax_uid) == IDENTITY


def element(tag: int, vr: bytes, value: bytes) -> bytes:
    return struct.pack("<HH2sHL", tag >> 16, tag & 0xFFFF, vr, 0, len(value)) + value


UNDEFINED = struct.pack("<L", 0xFFFFFFFF)
ITEM = struct.pack("<HH", 0xFFFE, 0xE000)
ITEM_END = struct.pack("<HHL", 0xFFFE, 0xE00D, 0)
SEQUENCE_END = struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)


def before_the_identity(content: bytes) -> bytes:
    """A data set whose first element is `content`."""
    return content + encoded(instance())


def test_within_un_of_undefined_length_elements_are_implicit() -> None:
    head = struct.pack("<HH2sH", 0x0008, 0x0001, b"UN", 0) + UNDEFINED
    inner = encoded(instance(SOPInstanceUID="9.9.9"), IMPLICIT)
    content = head + ITEM + UNDEFINED + inner + ITEM_END + SEQUENCE_END
    assert scan(before_the_identity(content)) == IDENTITY


def test_a_sequence_whose_items_change_to_implicit_is_passed_over() -> None:
    head = struct.pack("<HH2sH", 0x0008, 0x0001, b"SQ", 0) + UNDEFINED
    inner = encoded(instance(), IMPLICIT)
    content = head + ITEM + UNDEFINED + inner + ITEM_END + SEQUENCE_END
    assert scan(before_the_identity(content)) == IDENTITY


def test_a_vr_that_is_newer_than_the_node_has_a_long_length() -> None:
    assert scan(before_the_identity(element(0x00080001, b"ZZ", bytes(70_000)))) == IDENTITY


def test_uids_hidden_in_un_are_found() -> None:
    ds = instance()
    content = b"".join(
        element(int(one.tag), b"UN", str(one.value).encode() + b"\0" * (len(one.value) % 2))
        for one in ds
    )
    assert scan(content) == IDENTITY


def test_what_is_printed_of_an_identity_names_no_patient() -> None:
    assert "P1" not in repr(scan(encoded(instance())))


UIDS = ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"]


@pytest.mark.parametrize("keyword", UIDS)
def test_a_missing_uid_is_named(keyword: str) -> None:
    ds = instance()
    delattr(ds, keyword)
    refused = refusal(encoded(ds))
    assert (refused.reason, refused.element) == ("missing-uid", keyword)
    assert refused.status == status.DATA_SET_DOES_NOT_MATCH
    assert keyword in refused.detail


@pytest.mark.parametrize("value", ["", " ", "\0\0"])
@pytest.mark.parametrize("keyword", UIDS)
def test_a_blank_uid_is_named(keyword: str, value: str) -> None:
    refused = refusal(encoded(raw(keyword, value)))
    assert (refused.reason, refused.element) == ("blank-uid", keyword)


@pytest.mark.parametrize("value", ["../../x", "1.2.3/4", "1" * 65, "abc", "1.2\\1.3", "1..2", "1"])
def test_what_is_no_uid_is_named_and_not_repeated(value: str) -> None:
    refused = refusal(encoded(instance()).replace(b"1.2.3.4.1\0", pad(value)))
    assert refused.reason in {"malformed-uid", "unreadable-data-set"}
    refused = refusal(encoded(raw("SOPInstanceUID", value)))
    assert (refused.reason, refused.element) == ("malformed-uid", "SOPInstanceUID")
    assert value == "1" or value not in refused.detail


def pad(value: str) -> bytes:
    return value.encode()[:10].ljust(10, b"x")


def raw(keyword: str, value: str) -> Dataset:
    """An instance with a UID that pydicom would not write by itself."""
    ds = instance()
    del ds[keyword]
    ds.add_new(keyword, "LT", value)
    return ds


BROKEN = {
    "cut within a value": encoded(instance())[:40],
    "cut within a head": encoded(instance())[:5],
    "zeros": bytes(2**16),
    "a length beyond the end": struct.pack("<HH2sHL", 0x0008, 0x0001, b"OB", 0, 2**31),
    "a sequence of no items": struct.pack("<HH2sH", 8, 1, b"SQ", 0) + UNDEFINED + bytes(8),
    "a sequence without end": struct.pack("<HH2sH", 8, 1, b"SQ", 0) + UNDEFINED,
    "an item without end": struct.pack("<HH2sH", 8, 1, b"SQ", 0) + UNDEFINED + ITEM + UNDEFINED,
    "nests without end": (struct.pack("<HH2sH", 8, 1, b"SQ", 0) + UNDEFINED + ITEM + UNDEFINED)
    * 50_000,
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_data_set_is_not_understood(name: str) -> None:
    refused = refusal(BROKEN[name])
    assert (refused.reason, refused.status) == ("unreadable-data-set", status.CANNOT_UNDERSTAND)


@pytest.mark.parametrize("transfer_syntax_uid", ENCODINGS)
def test_nothing_at_all_lacks_its_uids(transfer_syntax_uid: str) -> None:
    assert refusal(b"", transfer_syntax_uid).reason == "missing-uid"


def test_text_lacks_its_uids() -> None:
    assert refusal(b"GET / HTTP/1.1\r\nHost: somewhere\r\n\r\n").reason == "missing-uid"


def test_implicit_elements_under_another_name_are_found_out() -> None:
    assert refusal(encoded(instance(), EXPLICIT), IMPLICIT).reason == "unreadable-data-set"
    assert refusal(encoded(instance(), BIG), EXPLICIT).status in {
        status.CANNOT_UNDERSTAND,
        status.DATA_SET_DOES_NOT_MATCH,
    }


def test_what_does_not_inflate_is_not_understood() -> None:
    assert refusal(b"\xff" * 100, DEFLATED).reason == "unreadable-data-set"
    cut = encoded(instance(), DEFLATED)[:-30]
    assert refusal(cut, DEFLATED).reason in {"unreadable-data-set", "missing-uid"}


def test_a_header_that_inflates_without_end_is_not_followed() -> None:
    endless = struct.pack("<HH2sHL", 0x0008, 0x0001, b"OB", 0, 2**31) + bytes(2**27)
    assert "does not end" in refusal(deflated(endless), DEFLATED).detail


def test_empty_blocks_in_a_deflated_instance_are_passed_over() -> None:
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    empty = b"".join(deflate.flush(zlib.Z_FULL_FLUSH) for _ in range(3))
    nothing = b"\x00\x00\x00\xff\xff" * 100_000
    content = empty + nothing + deflated(encoded(instance()))
    assert scan(content, DEFLATED) == IDENTITY


@given(content=st.binary(max_size=400), transfer_syntax_uid=st.sampled_from(ENCODINGS))
def test_any_bytes_give_an_identity_or_a_refusal(content: bytes, transfer_syntax_uid: str) -> None:
    with contextlib.suppress(Refused):
        assert isinstance(scan(content, transfer_syntax_uid), Identity)


@given(
    transfer_syntax_uid=st.sampled_from(ENCODINGS),
    changes=st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), min_size=1, max_size=6),
)
def test_a_damaged_instance_gives_an_identity_or_a_refusal(
    transfer_syntax_uid: str, changes: list[tuple[int, int]]
) -> None:
    item = instance(SOPInstanceUID="9.9.9")
    content = bytearray(
        encoded(instance(ReferencedStudySequence=Sequence([item])), transfer_syntax_uid)
    )
    for at, value in changes:
        content[at % len(content)] = value
    try:
        found = scan(bytes(content), transfer_syntax_uid)
    except Refused:
        return
    assert header.uid.is_acceptable(found.sop_instance_uid)


@given(data=st.data())
def test_a_damaged_file_gives_a_header_or_a_refusal(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    source = TEST_FILES / "test_files" / "MR_small_implicit.dcm"
    content = bytearray(source.read_bytes()[:2500])
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(128, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "one.dcm"
    path.write_bytes(content)
    try:
        _, _, found = header.index_header(path)
    except Refused:
        return
    json.dumps(found, allow_nan=False)


def test_a_header_holds_text_numbers_lists_and_empty_elements(tmp_path: Path) -> None:
    ds = instance(
        Modality=" CT",
        ImageType=["ORIGINAL", "PRIMARY", "AXIAL"],
        SeriesDescription="",
        InstanceNumber=7,
        SliceThickness="1.5",
        ImagePositionPatient=["-1.5", "0", "2e1"],
        Rows=512,
        PixelSpacing=["0.5", "0.5"],
        ImageComments="one\\two",
        NumberOfFrames=3,
    )
    _, transfer_syntax_uid, found = header.index_header(write(tmp_path / "one.dcm", ds))
    assert transfer_syntax_uid == EXPLICIT
    assert found["Modality"] == "CT"
    assert found["ImageType"] == ["ORIGINAL", "PRIMARY", "AXIAL"]
    assert found["SeriesDescription"] is None
    assert found["InstanceNumber"] == 7
    assert isinstance(found["InstanceNumber"], int)
    assert found["SliceThickness"] == 1.5
    assert found["ImagePositionPatient"] == [-1.5, 0.0, 20.0]
    assert found["Rows"] == 512
    assert found["ImageComments"] == "one\\two"
    assert found["NumberOfFrames"] == 3
    assert "BodyPartExamined" not in found


def test_a_header_holds_no_pixels_sequences_private_or_long_elements(tmp_path: Path) -> None:
    ds = instance(
        PixelData=b"\0\0",
        ReferencedStudySequence=Sequence([Dataset()]),
        ImageComments="x" * 1025,
        AdditionalPatientHistory="x" * 1024,
    )
    ds["PixelData"].VR = "OW"
    ds.private_block(0x0029, "MAKER", create=True).add_new(0x01, "LO", "secret")
    ds.add_new(0x60000010, "US", 4)
    _, _, found = header.index_header(write(tmp_path / "one.dcm", ds))
    assert sorted(found) == ["AdditionalPatientHistory", "PatientID", *sorted(UIDS)]


@pytest.mark.parametrize("transfer_syntax_uid", ENCODINGS)
def test_numbers_read_alike_however_they_are_encoded(
    tmp_path: Path, transfer_syntax_uid: str
) -> None:
    ds = instance(
        PixelRepresentation=1,
        Rows=258,
        SmallestImagePixelValue=-2,
        RecommendedDisplayFrameRateInFloat=0.5,
        FrameIncrementPointer=0x00181063,
    )
    ds.SmallestImagePixelValue = -2
    ds["SmallestImagePixelValue"].VR = "SS"
    ds.RecommendedDisplayFrameRateInFloat = 0.5
    path = write(tmp_path / "one.dcm", ds, transfer_syntax_uid)
    _, _, found = header.index_header(path)
    assert found["Rows"] == 258
    assert found["SmallestImagePixelValue"] == -2
    assert found["RecommendedDisplayFrameRateInFloat"] == 0.5
    assert found["FrameIncrementPointer"] == "00181063"


def test_unsigned_pixels_have_unsigned_values(tmp_path: Path) -> None:
    ds = instance(PixelRepresentation=0)
    ds.add_new("SmallestImagePixelValue", "US", 65534)
    path = write(tmp_path / "one.dcm", ds, IMPLICIT)
    assert header.index_header(path)[2]["SmallestImagePixelValue"] == 65534


@pytest.mark.parametrize(
    ("vr", "value", "found"),
    [
        (b"IS", b"12 ", 12),
        (b"IS", b"1.5 ", "1.5"),
        (b"IS", b"1_0 ", "1_0"),
        (b"DS", b"-1.5e3", -1500.0),
        (b"DS", b"abc ", "abc"),
        (b"DS", b"1e999 ", "1e999"),
        (b"DS", b"nan ", "nan"),
        (b"DS", b"1\\\\2", [1.0, "", 2.0]),
        (b"FD", struct.pack("<d", float("inf")), "inf"),
        (b"US", b"\x01\x00\x02\x00", [1, 2]),
    ],
)
def test_a_value_that_is_no_number_stays_the_text_that_it_is(
    tmp_path: Path, vr: bytes, value: bytes, found: object
) -> None:
    # Slice Thickness (0018,0050), with a VR of its own choosing.
    path = write(tmp_path / "one.dcm", instance())
    short = struct.pack("<HH2sH", 0x0018, 0x0050, vr, len(value)) + value
    content = path.read_bytes()
    at = content.index(struct.pack("<HH2s", 0x0020, 0x000D, b"UI"))
    path.write_bytes(content[:at] + short + content[at:])
    assert header.index_header(path)[2]["SliceThickness"] == found


def test_a_number_of_the_wrong_length_is_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "one.dcm", instance())
    path.write_bytes(path.read_bytes() + struct.pack("<HH2sH", 0x28, 0x10, b"US", 3) + b"abc")
    assert "Rows" not in header.index_header(path)[2]


def test_known_elements_hidden_in_un_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / "one.dcm", instance())
    hidden = element(0x00280010, b"UN", struct.pack("<H", 512))
    path.write_bytes(path.read_bytes() + hidden)
    assert header.index_header(path)[2]["Rows"] == 512


@pytest.mark.parametrize(
    ("character_set", "text"),
    [
        ("ISO_IR 100", "Schädel"),
        ("ISO_IR 192", "Schädel 头"),
        ("GB18030", "王"),
        ("ISO_IR 144", "голова"),
        (["", "ISO 2022 IR 87"], "頭部"),
        (["", "ISO 2022 IR 149"], "두부"),
    ],
)
def test_text_reads_in_its_character_set(
    tmp_path: Path, character_set: str | list[str], text: str
) -> None:
    ds = instance(SpecificCharacterSet=character_set, SeriesDescription=text)
    assert header.index_header(write(tmp_path / "one.dcm", ds))[2]["SeriesDescription"] == text


def test_a_backslash_within_a_character_separates_nothing(tmp_path: Path) -> None:
    # U+4FF6 is 82 5C in GB18030: its second byte is a backslash.
    ds = instance(SpecificCharacterSet="GB18030", ImageComments="俓", SeriesDescription="俓")
    assert "俓".encode("gb18030")[1:2] == b"\\"
    assert header.index_header(write(tmp_path / "one.dcm", ds))[2]["SeriesDescription"] == "俓"


def test_what_a_character_set_does_not_know_is_shown_as_such(tmp_path: Path) -> None:
    path = write(tmp_path / "one.dcm", instance(SpecificCharacterSet="ISO_IR 192"))
    path.write_bytes(path.read_bytes().replace(b"P1", b"\xff1"))
    assert header.index_header(path)[2]["PatientID"] == "\ufffd1"
    path = write(tmp_path / "two.dcm", instance())
    content = path.read_bytes().replace(b"P1", b"\xe41")
    unknown = struct.pack("<HH2sH", 0x0008, 0x0005, b"CS", 4) + b"X Y "
    at = content.index(struct.pack("<HH2s", 0x0008, 0x0016, b"UI"))
    path.write_bytes(content[:at] + unknown + content[at:])
    assert header.index_header(path)[2]["PatientID"] == "\ufffd1"


def test_nuls_within_text_do_not_reach_the_database(tmp_path: Path) -> None:
    path = write(tmp_path / "one.dcm", instance(PatientID="P1xx"))
    path.write_bytes(path.read_bytes().replace(b"P1xx", b"P\x001\x00"))
    assert header.index_header(path)[2]["PatientID"] == "P1"


@pytest.mark.parametrize("content", [b"", b"nothing", bytes(200), bytes(128) + b"DICM"])
def test_what_is_no_dicom_file_says_so(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "one.dcm"
    path.write_bytes(content)
    with pytest.raises(Refused, match="not-dicom"):
        header.index_header(path)


def test_a_header_that_is_cut_is_no_header(tmp_path: Path) -> None:
    path = write(tmp_path / "one.dcm", instance(SeriesDescription="x", Rows=4, Columns=4))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(Refused, match="unreadable-data-set"):
        header.index_header(path)


def files_of(*folders: Path) -> list[Path]:
    return [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]


def agrees_with_pydicom(path: Path) -> bool:
    """Whether the header is what pydicom reads, as far as it has an identity."""
    try:
        identity, transfer_syntax_uid, found = header.index_header(path)
    except Refused:
        return False
    ds = dcmread(path, stop_before_pixels=True)
    assert identity.sop_instance_uid == ds.SOPInstanceUID
    assert transfer_syntax_uid == ds.file_meta.TransferSyntaxUID
    for keyword in ("Modality", "Manufacturer", "Rows", "StudyDate", "BitsStored", "KVP"):
        value = ds.get(keyword)
        plain = (value.strip() or None) if isinstance(value, str) else value
        assert found.get(keyword) == plain
    spacing = ds.get("PixelSpacing")
    assert found.get("PixelSpacing") == ([float(one) for one in spacing] if spacing else None)
    return True


@pytest.mark.filterwarnings("ignore:Expected explicit VR, but found implicit")
def test_headers_agree_with_pydicom_on_its_own_files() -> None:
    agreed = [agrees_with_pydicom(path) for path in files_of(TEST_FILES / "test_files")]
    assert agreed.count(True) > 60


@pytest.mark.data
def test_headers_agree_with_pydicom_on_real_images() -> None:
    agreed = [
        agrees_with_pydicom(path)
        for path in files_of(DATA / "single_images", DATA / "ct_scanner_export")
    ]
    assert agreed.count(True) > 40


@pytest.mark.data
@pytest.mark.parametrize("name", ["explicit_VR-UN.dcm", "eCT_Supplemental.dcm"])
def test_odd_real_images_are_read(name: str) -> None:
    _, _, found = header.index_header(DATA / "single_images" / name)
    assert found["Modality"] in {"CT", "MR", "US"}
    assert found["Rows"]


KEYWORDS = ("PatientID", "Modality", "StudyDescription", "PatientComments")


@given(
    values=st.dictionaries(st.sampled_from(KEYWORDS), st.text("A1 ", max_size=9)),
    is_explicit=st.booleans(),
    cut=st.integers(0, 400),
    spoilt=st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=3),
)
def test_the_quick_way_finds_what_the_whole_way_finds(
    values: dict[str, str], is_explicit: bool, cut: int, spoilt: list[tuple[int, int]]
) -> None:
    syntax = EXPLICIT if is_explicit else IMPLICIT
    content = bytearray(encoded(instance(**values, Rows=4, Columns=4), syntax)[:cut])
    for at, byte in spoilt:
        if at < len(content):
            content[at] = byte
    wanted, coding = frozenset({0x0020000D, 0x00100020}), elements.coding_of(syntax)
    quick = elements.quick(bytes(content), coding=coding, last=0x0020000E, wanted=wanted)
    if quick is None:
        return
    walked = elements.walk(
        elements.source_of(BytesIO(content), transfer_syntax_uid=syntax),
        coding=coding,
        last=0x0020000E,
        wanted=lambda tag, _vr, _length: tag in wanted,
    )
    assert quick == {element.tag: element.value for element in walked}


def test_the_quick_way_is_taken_for_what_is_usual() -> None:
    for syntax in (EXPLICIT, IMPLICIT):
        found = elements.quick(
            encoded(instance(Rows=4, Columns=4), syntax),
            coding=elements.coding_of(syntax),
            last=0x0020000E,
            wanted=frozenset({0x0020000D}),
        )
        assert found is not None
        assert 0x0020000D in found


def test_what_is_too_long_for_an_identity_is_not_read() -> None:
    long = struct.pack("<HH2sxxL", 0x0008, 0x0005, b"UN", 10_000_000) + bytes(10_000_000)
    watched = Watched(long + encoded(instance(Rows=4)))
    reads: list[int] = []
    read = watched.read

    def note(size: int | None = -1, /) -> bytes:
        reads.append(size or 0)
        return read(size)

    watched.read = note  # type: ignore[method-assign]
    assert header.scan(watched, transfer_syntax_uid=EXPLICIT) == IDENTITY
    assert max(reads) <= 1024
