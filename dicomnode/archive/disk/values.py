"""Element values as the rules compare them: text, numbers, lists of them (PS3.5 6.2)."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable

from pydicom.charset import decode_bytes, python_encoding
from pydicom.datadict import dictionary_has_tag, dictionary_VR, keyword_for_tag

from dicomnode.archive.disk.elements import Element
from dicomnode.study import HeaderValue, Scalar

MAX_CHARACTERS = 1024
_MAX_BYTES = 4 * MAX_CHARACTERS  # no character set takes more for one character

_SPECIFIC_CHARACTER_SET = 0x00080005
_PIXEL_REPRESENTATION = 0x00280103

# Value Representations → what `struct` calls them.
_BINARY = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "UV": "Q", "SV": "q", "FL": "f", "FD": "d"}
_SEVERAL_TEXTS = frozenset(
    {"AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "PN", "SH", "TM", "UC", "UI"}
)
_ONE_TEXT = frozenset({"LT", "ST", "UR", "UT"})  # a backslash is part of the text
_ATTRIBUTE_TAG = "AT"

_INTEGER = re.compile(r"[+-]?[0-9]+")
_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_MAX_DIGITS = 16  # PS3.5 6.2: of an IS 12, of a DS 16

_ESCAPE = b"\x1b"
_DELIMITERS = {ord("\\"), ord("^"), ord("=")}  # PS3.5 6.1.2.5.3: each resets the character set

Decode = Callable[[bytes], str]


def stripped(text: str) -> str:
    """`text` without its padding, and without the NULs that no database takes."""
    return text.replace("\0", "").strip()


def decoder(specific_character_set: bytes) -> Decode:
    """How text is decoded under a Specific Character Set (PS3.3 C.12.1.1.2).

    What the character set does not know becomes U+FFFD: a rule sees that something is there, and
    nothing that was made up. An unknown character set reads as ASCII.
    """
    terms = specific_character_set.decode("ascii", "replace").split("\\")
    encodings = [python_encoding.get(stripped(term), "ascii") for term in terms]

    def decode(value: bytes) -> str:
        if _ESCAPE in value and len(encodings) > 1:
            return decode_bytes(value, encodings, _DELIMITERS)
        return value.decode(encodings[0], "replace")

    return decode


def is_plain(tag: int, vr: str, length: int) -> bool:
    """Whether an element is known to the dictionary, short, and holds text or numbers."""
    return length <= _MAX_BYTES and bool(_vr(tag, vr, signed=False))


def _vr(tag: int, vr: str, *, signed: bool) -> str:
    """The VR to read a plain element with, or "" for one that is not plain."""
    if not dictionary_has_tag(tag):
        return ""
    if vr in ("", "UN"):  # not said, or hidden by a system that did not know it (PS3.5 6.2.2)
        vr = dictionary_VR(tag)
    if vr == "US or SS":
        vr = "SS" if signed else "US"
    plain = vr in _SEVERAL_TEXTS or vr in _ONE_TEXT or vr in _BINARY or vr == _ATTRIBUTE_TAG
    return vr if plain else ""


class Values:
    """Decodes the plain elements of one data set.

    They are to be given in the order in which they stand: Specific Character Set and Pixel
    Representation say how those behind them are read.
    """

    def __init__(self, *, order: str) -> None:
        self._order = order
        self._decode = decoder(b"")
        self._signed = False

    def read(self, element: Element) -> dict[str, HeaderValue]:
        """Keyword → value of a plain element; nothing where the value is none of its VR."""
        if element.tag == _SPECIFIC_CHARACTER_SET:
            self._decode = decoder(element.value)
        keyword = keyword_for_tag(element.tag)
        vr = _vr(element.tag, element.vr, signed=self._signed)
        found = self._scalars(vr, element)
        if found is None or not keyword:
            return {}
        if element.tag == _PIXEL_REPRESENTATION:
            self._signed = found == [1]
        return {keyword: found[0] if len(found) == 1 else found or None}

    def _scalars(self, vr: str, element: Element) -> list[Scalar] | None:
        if vr in _BINARY or vr == _ATTRIBUTE_TAG:
            # Inside UN, bytes stand in the order of the default encoding (PS3.5 6.2.2).
            order = "<" if element.vr == "UN" else self._order
            return _numbers(vr, element.value, order=order)
        text = self._decode(element.value)
        if len(text) > MAX_CHARACTERS:
            return None
        texts = [text] if vr in _ONE_TEXT else text.split("\\")
        scalars = [_scalar(vr, stripped(one)) for one in texts]
        return [] if scalars == [""] else scalars


def _numbers(vr: str, value: bytes, *, order: str) -> list[Scalar] | None:
    if vr == _ATTRIBUTE_TAG:
        pairs = _numbers("US", value, order=order) or []
        return [f"{g:04X}{e:04X}" for g, e in zip(pairs[::2], pairs[1::2], strict=False)]
    code = _BINARY[vr]
    count, rest = divmod(len(value), struct.calcsize(f"={code}"))
    if rest:
        return None
    # JSON has no word for what is no number.
    return [
        number if math.isfinite(number) else str(number)
        for number in struct.unpack(f"{order}{count}{code}", value)
    ]


def _scalar(vr: str, text: str) -> Scalar:
    """A number where the VR promises one and the text keeps the promise; else the text."""
    if len(text) > _MAX_DIGITS:
        return text
    if vr == "IS" and _INTEGER.fullmatch(text):
        return int(text)
    if vr == "DS" and _DECIMAL.fullmatch(text) and math.isfinite(float(text)):
        return float(text)
    return text
