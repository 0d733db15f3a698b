"""What the node reads of an instance: who it is while it is received, its header afterwards.

Neither touches pixels. PS3.10 chapter 7 for the file format.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pydicom.datadict import tag_for_keyword

from dicomnode import status, uid
from dicomnode.archive.disk import elements
from dicomnode.archive.disk.values import Values, is_plain, stripped
from dicomnode.errors import Refused
from dicomnode.study import HeaderValue

PREAMBLE_LENGTH = 128  # PS3.10 7.1
PREFIX = b"DICM"

_UID_KEYWORDS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
_META_KEYWORDS = ("MediaStorageSOPClassUID", "MediaStorageSOPInstanceUID", "TransferSyntaxUID")


def _tag(keyword: str) -> int:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise KeyError(keyword)
    return tag


_IDENTITY = frozenset(_tag(keyword) for keyword in _UID_KEYWORDS)
_LAST_OF_IDENTITY = _tag("SeriesInstanceUID")
# No UID is longer: what is, is not even read.
_LONGEST_OF_IDENTITY = 1024
_LAST_OF_META = 0x0002FFFF
_LAST_OF_HEADER = 0x7FDFFFFF  # group 7FE0 holds the pixels


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Which instance of which study a data set is. Whose it is, nobody asks who receives it."""

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str


@dataclass(frozen=True, kw_only=True)
class FileMeta:
    """File Meta Information (PS3.10 7.1), as far as it matters here.

    Attributes:
        offset: Where in the file the data set begins.
    """

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    offset: int


def scan(dataset: bytes | BinaryIO, *, transfer_syntax_uid: str) -> Identity:
    """Read who an encoded data set is, no further than Series Instance UID (0020,000E).

    Args:
        dataset: The encoded elements, without File Meta Information; a stream is read from where
            it stands.
        transfer_syntax_uid: How they are encoded.

    Raises:
        Refused: `unreadable-data-set` (Cxxx); `missing-uid`, `blank-uid` or `malformed-uid` (A9xx)
            with the element to blame.
    """
    found = _identity_elements(dataset, transfer_syntax_uid)
    uids = {keyword: _uid(found, keyword) for keyword in _UID_KEYWORDS}
    return Identity(
        sop_class_uid=uids["SOPClassUID"],
        sop_instance_uid=uids["SOPInstanceUID"],
        series_instance_uid=uids["SeriesInstanceUID"],
        study_instance_uid=uids["StudyInstanceUID"],
    )


def _identity_elements(dataset: bytes | BinaryIO, transfer_syntax_uid: str) -> dict[int, bytes]:
    coding = elements.coding_of(transfer_syntax_uid)
    is_deflated = transfer_syntax_uid == elements.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN
    if isinstance(dataset, bytes) and not is_deflated:
        found = elements.quick(dataset, coding=coding, last=_LAST_OF_IDENTITY, wanted=_IDENTITY)
        if found is not None:
            return found
    stream = io.BytesIO(dataset) if isinstance(dataset, bytes) else dataset
    return {
        element.tag: element.value
        for element in elements.walk(
            elements.source_of(stream, transfer_syntax_uid=transfer_syntax_uid),
            coding=coding,
            last=_LAST_OF_IDENTITY,
            wanted=lambda tag, _vr, length: tag in _IDENTITY and length <= _LONGEST_OF_IDENTITY,
        )
    }


def _uid(found: dict[int, bytes], keyword: str) -> str:
    """A Type 1 UID, or the refusal that names it."""
    raw = found.get(_tag(keyword))
    if raw is None:
        raise _unidentified("missing-uid", keyword, "is missing")
    value = stripped(raw.decode("ascii", "replace"))
    if not value:
        raise _unidentified("blank-uid", keyword, "is empty")
    if not uid.is_acceptable(value):
        raise _unidentified("malformed-uid", keyword, "is no UID of digits and dots")
    return value


def _unidentified(reason: str, keyword: str, what: str) -> Refused:
    return Refused(
        reason,
        f"{keyword} {what}: without it nobody can say what was received.",
        status=status.DATA_SET_DOES_NOT_MATCH,
        element=keyword,
    )


def read_meta(file: BinaryIO) -> FileMeta:
    """Read the File Meta Information of a DICOM file, which is left somewhere behind it.

    Raises:
        Refused: `not-dicom` where the prefix or one of the three UIDs is missing,
            `unreadable-data-set` where it is no data set.
    """
    if file.read(PREAMBLE_LENGTH + len(PREFIX))[PREAMBLE_LENGTH:] != PREFIX:
        raise _not_dicom("it does not begin as PS3.10 says")
    found, offset = _meta_elements(file)
    uids = {keyword: found.get(_tag(keyword), "") for keyword in _META_KEYWORDS}
    for keyword, value in uids.items():
        if not value:
            raise _not_dicom(f"it does not say its {keyword}")
    return FileMeta(
        sop_class_uid=uids["MediaStorageSOPClassUID"],
        sop_instance_uid=uids["MediaStorageSOPInstanceUID"],
        transfer_syntax_uid=uids["TransferSyntaxUID"],
        offset=offset,
    )


def _meta_elements(file: BinaryIO) -> tuple[dict[int, str], int]:
    """The elements of group 0002, and where they end: their own length is often wrong."""
    found: dict[int, str] = {}
    offset = file.tell()
    for element in elements.walk(
        elements.source_of(file, transfer_syntax_uid=elements.EXPLICIT_VR_LITTLE_ENDIAN),
        coding=elements.EXPLICIT,
        last=_LAST_OF_META,
        wanted=lambda _tag, _vr, _length: True,
    ):
        found[element.tag] = stripped(element.value.decode("ascii", "replace"))
        offset = file.tell()
    return found, offset


def _not_dicom(why: str) -> Refused:
    return Refused("not-dicom", f"This is no DICOM file: {why}.", status=status.CANNOT_UNDERSTAND)


def identify(path: Path) -> tuple[Identity, str]:
    """Read who a stored file is, and its transfer syntax UID: `index_header` without the header.

    Raises:
        Refused: As `scan` and `read_meta`.
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        identity, meta = _identified(file)
        return identity, meta.transfer_syntax_uid


def _identified(file: BinaryIO) -> tuple[Identity, FileMeta]:
    meta = read_meta(file)
    file.seek(meta.offset)
    return scan(file, transfer_syntax_uid=meta.transfer_syntax_uid), meta


def index_header(path: Path) -> tuple[Identity, str, dict[str, HeaderValue]]:
    """Read the header of a stored file: its identity, transfer syntax UID, and plain elements.

    The plain elements are those at the top level, before the pixels, that the dictionary knows and
    that hold text or numbers: keyword → value. There are no sequences, no private elements and no
    value of more than 1,024 characters. IS and the integer VRs become `int`, DS, FL and FD
    `float`; a text that should be a number stays the text that it is. Text is stripped, several
    values are a list, an empty element is `None`.

    Raises:
        Refused: As `scan` and `read_meta`.
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        identity, meta = _identified(file)
        file.seek(meta.offset)
        return identity, meta.transfer_syntax_uid, _header(file, meta.transfer_syntax_uid)


def _header(file: BinaryIO, transfer_syntax_uid: str) -> dict[str, HeaderValue]:
    coding = elements.coding_of(transfer_syntax_uid)
    values = Values(order=coding.order)
    header: dict[str, HeaderValue] = {}
    for element in elements.walk(
        elements.source_of(file, transfer_syntax_uid=transfer_syntax_uid),
        coding=coding,
        last=_LAST_OF_HEADER,
        wanted=is_plain,
    ):
        header.update(values.read(element))
    return header
