"""Walks over the elements of an encoded data set without decoding their values (PS3.5 chapter 7).

It stands on the path of each instance that is received, so it reads what it is asked for and no
more, skips the rest by length, and answers anything that is not a data set with a named refusal.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from dicomnode import status
from dicomnode.errors import Refused

IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"  # PS3.5 A.1
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"  # PS3.5 A.2
EXPLICIT_VR_BIG_ENDIAN = "1.2.840.10008.1.2.2"  # PS3.5 A.3, retired
DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1.99"  # PS3.5 A.5

_UNDEFINED_LENGTH = 0xFFFFFFFF  # PS3.5 7.1.1
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD  # PS3.5 7.5

# PS3.5 Table 7.1-2: these carry a length of 16 bits, every other VR one of 32 bits.
_SHORT_LENGTH = frozenset(
    {"AE", "AS", "AT", "CS", "DA", "DS", "DT", "FL", "FD", "IS", "LO"}
    | {"LT", "PN", "SH", "SL", "SS", "ST", "TM", "UI", "UL", "US"}
)

# Sequences within sequences. What nests deeper was made to do harm, or is no data set.
_MAX_DEPTH = 32

# What may be inflated of a deflated data set to get at its header: it ends where pixels begin.
_MAX_INFLATED = 64 * 1024 * 1024
_CHUNK = 64 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Coding:
    """How elements are encoded: explicit or implicit VR, little or big endian."""

    implicit: bool
    order: str  # "<" or ">", as `struct` writes it


IMPLICIT = Coding(implicit=True, order="<")
EXPLICIT = Coding(implicit=False, order="<")
_EXPLICIT_BIG = Coding(implicit=False, order=">")


def coding_of(transfer_syntax_uid: str) -> Coding:
    """How elements are encoded in a transfer syntax.

    All but three standard ones are Explicit VR Little Endian outside of the pixels (PS3.5 A.4).
    """
    if transfer_syntax_uid == IMPLICIT_VR_LITTLE_ENDIAN:
        return IMPLICIT
    return _EXPLICIT_BIG if transfer_syntax_uid == EXPLICIT_VR_BIG_ENDIAN else EXPLICIT


@dataclass(frozen=True, kw_only=True, slots=True)
class Element:
    """One element as it is encoded. `vr` is "" where the encoding does not say it."""

    tag: int
    vr: str
    value: bytes


class Source(Protocol):
    """Bytes that are read forward only."""

    def read(self, length: int) -> bytes:
        """The next `length` bytes; fewer only where the data end."""

    def skip(self, length: int) -> None:
        """Pass over `length` bytes; raises `Refused` where there are fewer."""


class _Plain:
    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        start = stream.tell()
        self._left = stream.seek(0, io.SEEK_END) - start
        stream.seek(start)

    def read(self, length: int) -> bytes:
        value = self._stream.read(min(length, self._left))
        self._left -= len(value)
        return value

    def skip(self, length: int) -> None:
        if length > self._left:
            raise _too_short()
        self._stream.seek(length, io.SEEK_CUR)
        self._left -= length


class _Inflated:
    """Inflates no more than is read (PS3.5 A.5: raw deflate, RFC 1951)."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        self._ready = b""
        self._inflated = 0

    def read(self, length: int) -> bytes:
        parts: list[bytes] = []
        missing = length
        while missing and (self._ready or self._fill()):
            parts.append(self._ready[:missing])
            self._ready = self._ready[missing:]
            missing -= len(parts[-1])
        return b"".join(parts)

    def skip(self, length: int) -> None:
        while length:
            passed = len(self.read(min(length, _CHUNK)))
            if not passed:
                raise _too_short()
            length -= passed

    def _fill(self) -> bool:
        """Inflate a little more; whether there was more."""
        while not self._ready and not self._inflate.eof:
            compressed = self._inflate.unconsumed_tail or self._stream.read(_CHUNK)
            self._ready = self._some(compressed)
            if not compressed:
                break
        self._inflated += len(self._ready)
        if self._inflated > _MAX_INFLATED:
            raise _unreadable("its header does not end")
        return bool(self._ready)

    def _some(self, compressed: bytes) -> bytes:
        try:
            return self._inflate.decompress(compressed, _CHUNK)
        except zlib.error as error:
            raise _unreadable("it does not inflate") from error


def source_of(stream: BinaryIO, *, transfer_syntax_uid: str) -> Source:
    """The bytes of a data set from where `stream` stands, inflated where that is needed."""
    if transfer_syntax_uid == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
        return _Inflated(stream)
    return _Plain(stream)


_LAST_OF_COMMANDS = 0x0000FFFF
_EXPLICIT_HEAD, _IMPLICIT_HEAD = struct.Struct("<HH2sH"), struct.Struct("<HHL")
_LONG = struct.Struct("<L")
_SHORT_LENGTH_VRS = frozenset(vr.encode() for vr in _SHORT_LENGTH)
_LONG_LENGTH_VRS = frozenset({b"OB", b"OW", b"SQ", b"UC", b"UN", b"UR", b"UT"})


def quick(
    encoded: bytes, *, coding: Coding, last: int, wanted: frozenset[int]
) -> dict[int, bytes] | None:
    """The top-level elements up to the tag `last` that are wanted, where nothing is unusual.

    What `walk` does, ten times as fast, for the beginning of a data set in memory.

    Returns:
        Tag → value, or `None` where `walk` has to judge: sequences of undefined length, big endian,
        anything that might be wrong, or data that end before an element behind `last`.
    """
    if coding.order == ">":
        return None
    read = _quick_implicit if coding.implicit else _quick_explicit
    found: dict[int, bytes] = {}
    at, before, end = 0, _LAST_OF_COMMANDS, len(encoded) - 12
    while at <= end:
        tag, start, length = read(encoded, at)
        if tag > last:
            return found
        if tag <= before or length == _UNDEFINED_LENGTH:
            return None
        at, before = start + length, tag
        if tag in wanted:
            if at > len(encoded):
                return None
            found[tag] = encoded[start:at]
    return None


def _quick_explicit(encoded: bytes, at: int) -> tuple[int, int, int]:
    """Tag, start of the value and its length; a length that is undefined for what is unusual."""
    group, number, vr, length = _EXPLICIT_HEAD.unpack_from(encoded, at)
    tag = group << 16 | number
    if vr in _SHORT_LENGTH_VRS:
        return tag, at + 8, length
    if vr in _LONG_LENGTH_VRS:
        return tag, at + 12, _LONG.unpack_from(encoded, at + 8)[0]
    return 0, at, _UNDEFINED_LENGTH


def _quick_implicit(encoded: bytes, at: int) -> tuple[int, int, int]:
    group, number, length = _IMPLICIT_HEAD.unpack_from(encoded, at)
    return group << 16 | number, at + 8, length


@dataclass(frozen=True, kw_only=True, slots=True)
class _Head:
    tag: int
    vr: str
    length: int


def walk(
    source: Source, *, coding: Coding, last: int, wanted: Callable[[int, str, int], bool]
) -> Iterator[Element]:
    """The top-level elements up to the tag `last` for which `wanted(tag, vr, length)` holds.

    Elements of undefined length, which are sequences, are passed over. The head of the first
    element behind `last` has been read when the walk is over.

    Raises:
        Refused: `unreadable-data-set` where the bytes are no elements in `coding`, or where they
            end within one.
    """
    while (head := _head(source, coding)) is not None and head.tag <= last:
        if head.length == _UNDEFINED_LENGTH:
            _skip_items(source, _coding_within(head, coding), depth=1)
        elif wanted(head.tag, head.vr, head.length):
            yield Element(tag=head.tag, vr=head.vr, value=_exactly(source, head.length))
        else:
            source.skip(head.length)


def _head(source: Source, coding: Coding) -> _Head | None:
    """The tag, VR and length of the next element, or `None` at the end of the data."""
    raw = source.read(8)
    if not raw:
        return None
    if len(raw) < 8:  # noqa: PLR2004 - the length just asked for
        raise _too_short()
    group, number, long = struct.unpack(f"{coding.order}HHL", raw)
    if not group:
        # Only commands have it (PS3.7 6.3): mostly these are bytes that are all zero.
        raise _unreadable("it holds an element of group 0000")
    tag = group << 16 | number
    vr = raw[4:6]
    # Items and delimiters have no VR (PS3.5 7.5). Some writers change to implicit VR within
    # sequences; two bytes that are no capitals show it.
    if coding.implicit or not (vr.isalpha() and vr.isupper()):
        return _Head(tag=tag, vr="", length=long)
    name = vr.decode("ascii")
    if name in _SHORT_LENGTH:
        return _Head(tag=tag, vr=name, length=struct.unpack(f"{coding.order}H", raw[6:])[0])
    return _Head(tag=tag, vr=name, length=struct.unpack(f"{coding.order}L", _exactly(source, 4))[0])


def _coding_within(head: _Head, coding: Coding) -> Coding:
    """How the items of a sequence are encoded: those of a UN are implicit (PS3.5 6.2.2)."""
    return IMPLICIT if head.vr == "UN" else coding


def _skip_items(source: Source, coding: Coding, *, depth: int) -> None:
    """Pass over items up to the Sequence Delimitation Item."""
    if depth > _MAX_DEPTH:
        raise _unreadable("its sequences nest too deep")
    while True:
        group, number, length = struct.unpack(f"{coding.order}HHL", _exactly(source, 8))
        tag = group << 16 | number
        if tag == _SEQUENCE_END:
            return
        if tag != _ITEM:
            raise _unreadable("a sequence holds something else than items")
        if length == _UNDEFINED_LENGTH:
            _skip_item(source, coding, depth=depth)
        else:
            source.skip(length)


def _skip_item(source: Source, coding: Coding, *, depth: int) -> None:
    """Pass over the elements of an item up to its Item Delimitation Item."""
    while True:
        head = _head(source, coding)
        if head is None:
            raise _too_short()
        if head.tag == _ITEM_END:
            return
        if head.length == _UNDEFINED_LENGTH:
            _skip_items(source, _coding_within(head, coding), depth=depth + 1)
        else:
            source.skip(head.length)


def _exactly(source: Source, length: int) -> bytes:
    value = source.read(length)
    if len(value) < length:
        raise _too_short()
    return value


def _too_short() -> Refused:
    return _unreadable("it ends within an element")


def _unreadable(why: str) -> Refused:
    return Refused(
        "unreadable-data-set",
        f"The data set does not read as its transfer syntax says: {why}.",
        status=status.CANNOT_UNDERSTAND,
    )
