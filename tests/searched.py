"""Whether something of a patient stands in a text, however it is written there.

What is looked for is what data sets say: every name with each of its parts, every identifier, date,
time and description, in each of the ways in which a program may come to write it.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from urllib.parse import quote

from pydicom import Dataset
from pydicom.charset import convert_encodings, encode_string

#: Text, dates and ages: PS3.5 Table 6.2-1.
PERSONAL_VRS = frozenset({"AS", "DA", "DT", "LO", "LT", "PN", "SH", "ST", "TM", "UT"})

# Its values are terms of the standard (PS3.3 C.11.1.1.2): nobody is called "HU".
_TERMS = frozenset({"RescaleType"})
# Escape sequences of ISO 2022 are part of what is looked for: without them a kanji may look like
# a piece of any hexadecimal number.
_SHORTEST = 4
_DIGITS = re.compile(rb"[0-9]+")
_ALPHANUMERIC = re.compile(rb"[0-9a-z]")


def spoken(dataset: Dataset) -> dict[str, tuple[str, ...]]:
    """What a data set says at its top level: text → the character sets that it is in."""
    named = dataset.get("SpecificCharacterSet")
    character_sets = ("",) if named is None else (named,) if isinstance(named, str) else (*named,)
    found: dict[str, tuple[str, ...]] = {}
    for element in dataset:
        if element.VR in PERSONAL_VRS and element.value and element.keyword not in _TERMS:
            for text in _parts(element.VR, str(element.value)):
                found[text] = character_sets
    if "StudyDate" in dataset:
        found[f"{dataset.StudyDate}{dataset.StudyTime}"] = character_sets
    return found


def _parts(vr: str, text: str) -> Iterator[str]:
    yield text
    if vr == "PN":
        for group in text.split("="):
            yield group
            yield from (part for part in group.split("^") if part)
    if vr == "DA":
        yield f"{text[:4]}-{text[4:6]}-{text[6:]}"
        yield f"{text[6:]}.{text[4:6]}.{text[:4]}"


def spellings(text: str, character_sets: Sequence[str]) -> set[bytes]:
    """The bytes that a text may have become, in small letters as far as they are ASCII."""
    encoded = encode_string(text, convert_encodings(list(character_sets)))
    as_utf8 = text.encode()
    found = {
        as_utf8,
        encoded,
        text.replace("^", " ").replace("=", " ").encode(),
        text.casefold().encode(),
        *_in_utf16(text),
        encoded.decode("latin-1").encode(),  # bytes taken for Latin-1
        as_utf8.decode("latin-1").encode(),
        text.encode("ascii", "backslashreplace"),
        text.casefold().encode("ascii", "backslashreplace"),
        json.dumps(text)[1:-1].encode(),
        json.dumps(text.casefold())[1:-1].encode(),
        json.dumps(encoded.decode("latin-1"))[1:-1].encode(),
        repr(encoded)[2:-1].encode(),
        repr(as_utf8)[2:-1].encode(),
        quote(text).encode(),
        as_utf8.hex().encode(),
        encoded.hex().encode(),
    }
    return {one.lower() for one in found}


def _in_utf16(text: str) -> Iterator[bytes]:
    """Two ideographs that read as four letters there are part of a name that does not."""
    for encoded in (text.encode("utf-16-le"), text.encode("utf-16-be")):
        if not encoded.decode("latin-1").isprintable():
            yield encoded


class Searched:
    """Many texts that are looked for at once."""

    def __init__(self, said: Iterable[tuple[str, Sequence[str]]]) -> None:
        """Look for each text; with it come the character sets that it may be written in."""
        self._by_beginning: dict[bytes, set[bytes]] = defaultdict(set)
        for text, character_sets in said:
            for one in spellings(text, character_sets):
                if len(one) < _SHORTEST:
                    raise ValueError(f"{text!r} may stand anywhere by chance")
                self._by_beginning[one[:_SHORTEST]].add(one)

    def __len__(self) -> int:
        return sum(map(len, self._by_beginning.values()))

    def found_in(self, content: bytes) -> list[bytes]:
        """What of it stands in `content`, each with some of what stands around it."""
        folded = content.lower()
        beginnings = self._by_beginning
        return [
            folded[max(0, at - 60) : at + 60]
            for at in range(len(folded) - _SHORTEST + 1)
            if (begun := folded[at : at + _SHORTEST]) in beginnings
            for one in beginnings[begun]
            if folded.startswith(one, at) and _stands_alone(folded, one, at)
        ]


def _stands_alone(content: bytes, one: bytes, at: int) -> bool:
    """A date is none within a longer number, such as a UID; everything else is itself anywhere."""
    if not _DIGITS.fullmatch(one):
        return True
    before, after = content[at - 1 : at] if at else b"", content[at + len(one) : at + len(one) + 1]
    return not _ALPHANUMERIC.match(before) and not _ALPHANUMERIC.match(after)
