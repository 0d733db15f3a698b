"""Names that bundles give to what they find → coded concepts (`concepts.csv`).

Each row is one concept. Where `value` is empty, no code could be verified: that is a named gap, and
whoever drafts a manifest writes a placeholder. `source` says where a code was checked that the
dictionary of PS3.16 in pydicom does not hold. A concept is sided where one lies on each side of the
body: the side is a code of its own (PS3.16 CID 244).
"""

from __future__ import annotations

import csv
import functools
import re
from dataclasses import dataclass, replace
from importlib import resources

from dicomnode.bundle import Code

_FILE = "concepts.csv"
_DARKER = 0.7  # of a colour: the right side of a pair

#: Segmented Property Category (PS3.16 CID 7150), and what has none: values of a classification.
CATEGORIES = {
    "anatomy": Code(value="91723000", scheme="SCT", meaning="Anatomical Structure"),
    "tissue": Code(value="85756007", scheme="SCT", meaning="Tissue"),
    "abnormal": Code(value="49755003", scheme="SCT", meaning="Morphologically Abnormal Structure"),
    "object": Code(value="260787004", scheme="SCT", meaning="Physical object"),
    "finding": Code(value="91723000", scheme="SCT", meaning="Anatomical Structure"),
}
LEFT = Code(value="7771000", scheme="SCT", meaning="Left")
RIGHT = Code(value="24028007", scheme="SCT", meaning="Right")

_SIDES = {"left": LEFT, "l": LEFT, "lh": LEFT, "right": RIGHT, "r": RIGHT, "rh": RIGHT}
_SPELLINGS = {
    "tumour": "tumor",
    "tumours": "tumors",
    "oesophagus": "esophagus",
    "oedema": "edema",
    "haemorrhage": "hemorrhage",
    "grey": "gray",
    "kideny": "kidney",  # as a published bundle has it
}


@dataclass(frozen=True, kw_only=True)
class Concept:
    """What a name means.

    Attributes:
        name: As the table has it, in lower case.
        kind: "anatomy", "tissue", "abnormal", "object", "finding".
        code: `None` where the table has a gap.
        sided: Whether there is one on each side.
        laterality: Which side the name said.
        region: Where an abnormal thing or a tissue lies, in words of the table; "" for nowhere.
        color: "#rrggbb"; "" for what is not drawn.
        source: Where the code was checked, if not in the dictionary of PS3.16.
    """

    name: str
    kind: str
    code: Code | None
    sided: bool
    region: str
    color: str
    source: str
    laterality: Code | None = None

    @property
    def category(self) -> Code:
        """Segmented Property Category."""
        return CATEGORIES[self.kind]

    @property
    def is_anatomy(self) -> bool:
        """Whether it is a place where other things may lie."""
        return self.kind == "anatomy"


def find(name: str) -> Concept | None:
    """The concept that is called exactly so, whatever its spelling, order of words and side.

    "kidney_left", "Left Kidney" and "Kidney L" are the same. A gap is found, too.
    """
    words = _words(name)
    whole = _table().get(" ".join(words))
    if whole is not None:
        return whole
    sides = [word for word in words if word in _SIDES]
    rest = " ".join(word for word in words if word not in _SIDES)
    concept = _table().get(rest) or _table().get(rest.removesuffix("s"))
    if concept is None or not sides:
        return concept
    if len({_SIDES[side].value for side in sides}) > 1 or not concept.sided:
        return None
    return _on_side(concept, _SIDES[sides[0]])


def within(text: str, *, anatomy: bool | None = None) -> Concept | None:
    """The concept with the longest name among the words of `text`; a guess, and never a gap.

    Args:
        anatomy: Only places, or only what is none.
    """
    words = _words(text)
    spans = sorted(
        ((begin, end) for begin in range(len(words)) for end in range(begin + 1, len(words) + 1)),
        key=lambda span: span[0] - span[1],
    )
    for begin, end in spans:
        phrase = " ".join(words[begin:end])
        concept = _table().get(phrase) or _table().get(phrase.removesuffix("s"))
        if concept is None or concept.code is None or len(phrase) < _SHORTEST:
            continue
        if anatomy is None or concept.is_anatomy == anatomy:
            return concept
    return None


_SHORTEST = 4  # letters: "et" and "ra" are abbreviations only where they stand alone


def every() -> list[Concept]:
    """Each row of the table."""
    return list({concept.name: concept for concept in _table().values()}.values())


def names() -> set[str]:
    """Every name and synonym, as words in lower case."""
    return set(_table())


def _on_side(concept: Concept, side: Code) -> Concept:
    color = _shaded(concept.color) if side is RIGHT and concept.color else concept.color
    return replace(concept, laterality=side, color=color)


def _shaded(color: str) -> str:
    parts = (int(color[at : at + 2], 16) for at in (1, 3, 5))
    return "#" + "".join(f"{round(part * _DARKER):02x}" for part in parts)


def _words(name: str) -> list[str]:
    words = re.sub(r"[^a-z0-9]+", " ", name.lower()).split()
    return [_SPELLINGS.get(word, word) for word in words]


@functools.cache
def _table() -> dict[str, Concept]:
    text = resources.files(__package__).joinpath(_FILE).read_text(encoding="utf-8")
    table: dict[str, Concept] = {}
    for row in csv.DictReader(text.splitlines()):
        concept = _concept(row)
        for name in (row["name"], *filter(None, row["synonyms"].split("|"))):
            table[" ".join(_words(name))] = concept
    return table


def _concept(row: dict[str, str]) -> Concept:
    code = None
    if row["value"]:
        code = Code(value=row["value"], scheme=row["scheme"], meaning=row["meaning"])
    return Concept(
        name=row["name"],
        kind=row["category"],
        code=code,
        sided=row["sided"] == "yes",
        region=row["region"],
        color=row["color"],
        source=row["source"],
    )
