"""What the labels of an answer mean, guessed from the names that its makers gave them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dicomnode.bundle import Code
from dicomnode.onboarding import concepts
from dicomnode.onboarding.concepts import Concept
from dicomnode.onboarding.description import Description
from dicomnode.onboarding.page import Page, ascii_text

_BACKGROUND = re.compile(r"(?i)back ?ground|bg|everything else|other|none|void")
#: "1 is spleen", "channel 2 is pancreatic tumor", "3: ureter".
_SAID = re.compile(
    r"(?i)(?:channel\s+)?\b(\d{1,3})\s*(?:is|for|:|=|-)\s*(?:the\s+)?([a-z][a-z /\-]*[a-z])"
)
_STOPS = re.compile(r"(?i)\b(?:and|or|is|with)\b.*$")
_MAX_NAME = 64
#: Colours of what the table does not know, told apart by most eyes (Okabe and Ito).
_PALETTE = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7", "#b0b0b0")
_UNKNOWN = "UNKNOWN"
_TO_DO = "99TODO"


@dataclass(frozen=True, kw_only=True)
class Named:
    """One channel of the network.

    Attributes:
        channel: From 0.
        name: As its makers call it; "label 3" where they say nothing.
        known: Whether they say something.
    """

    channel: int
    name: str
    known: bool = True

    @property
    def is_background(self) -> bool:
        """Whether it stands for nothing."""
        return _BACKGROUND.fullmatch(self.name.strip()) is not None


def channels(
    description: Description, said: Mapping[str, Any], *, count: int, background: bool
) -> list[Named]:
    """What each channel is, in their order.

    Args:
        count: How many the network gives.
        background: Whether the first is background where nobody names it.
    """
    named = _defined(said) or _in_words(description)
    first = {0: "background"} if background else {}
    return [
        Named(
            channel=channel,
            name=(first | named).get(channel, f"label {channel}"),
            known=channel in first | named,
        )
        for channel in range(max([count, *(channel + 1 for channel in named)]))
    ]


def _defined(said: Mapping[str, Any]) -> dict[int, str]:
    """`channel_def`: a table of numbers, or a list; anything else says nothing."""
    defined = said.get("channel_def")
    if isinstance(defined, list):
        defined = dict(enumerate(defined))
    if not isinstance(defined, Mapping):
        return {}
    return {
        int(str(number)): name.strip()
        for number, name in defined.items()
        if str(number).isdigit() and isinstance(name, str) and name.strip()
    }


def _in_words(description: Description) -> dict[int, str]:
    for key in ("pred_classes", "label_classes"):
        found = {
            int(number): _STOPS.sub("", name).strip()
            for number, name in _SAID.findall(description.said(key))
        }
        found = {number: name for number, name in found.items() if name}
        if found:
            return found
    return {}


def unknown(meaning: str) -> Code:
    """What stands where a code must be looked up."""
    text = ascii_text(meaning, limit=_MAX_NAME) or "unknown"
    return Code(value=_UNKNOWN, scheme=_TO_DO, meaning=text)


def name_of(text: str) -> str:
    """A name as people read it: "kidney_left" → "Kidney left"."""
    words = ascii_text(re.sub(r"[_\s]+", " ", text).strip(" -"), limit=_MAX_NAME)
    return words[:1].upper() + words[1:] if words else "Unnamed"


def write(
    page: Page,
    path: str,
    labelled: Sequence[tuple[int, str]],
    *,
    context: str,
    measure: Sequence[str] = (),
) -> None:
    """Draft an array of segments, findings or landmarks.

    Args:
        path: "outputs.pred.segments".
        labelled: Label and name.
        context: Words that may say where something lies.
    """
    page.guess_at(path)
    colors: set[str] = set()
    for number, (label, name) in enumerate(labelled):
        page.member(path)
        page.put("label", label)
        page.put("name", name_of(name))
        concept = concepts.find(name)
        _write_type(page, name, concept)
        _write_region(page, concept or _likely(name), context)
        page.put("color", _color(concept, number, taken=colors))
        if measure:
            page.put("measure", measure)


def _write_type(page: Page, name: str, exact: Concept | None) -> None:
    concept = exact if exact and exact.code else _likely(name)
    if concept is None or concept.code is None:
        kind = exact or Concept(
            name=name, kind="anatomy", code=None, sided=False, region="", color="", source=""
        )
        page.put("category", code(kind.category), guess=exact is None)
        page.put("type", code(unknown(name)), guess=True, why="look the code up")
    else:
        page.put("category", code(concept.category))
        doubt = "" if concept is exact else "by a part of its name"
        page.put("type", code(concept.code), why=doubt, guess=bool(doubt))
    side = exact.laterality if exact else None
    if side is not None:
        page.put("laterality", code(side))


def _write_region(page: Page, concept: Concept | None, context: str) -> None:
    """Where an abnormal thing lies: as the table says, or as the bundle's words suggest."""
    if concept is None or concept.is_anatomy or concept.kind == "object":
        return
    if concept.region:
        region = concepts.find(concept.region)
        if region and region.code:
            page.put("anatomic_region", code(region.code))
        return
    region = concepts.within(context, anatomy=True)
    if region and region.code:
        page.put(
            "anatomic_region", code(region.code), guess=True, why="from the bundle's description"
        )


def _likely(name: str) -> Concept | None:
    return concepts.within(name)


def _color(concept: Concept | None, number: int, *, taken: set[str]) -> str:
    wanted = [concept.color] if concept and concept.color else []
    choice = next(
        (one for one in (*wanted, *_PALETTE) if one not in taken),
        f"#{(0x3F6C9D * (number + 1)) % 0x1000000:06x}",
    )
    taken.add(choice)
    return choice


def code(one: Code) -> dict[str, str]:
    """A code as an inline table."""
    return {"value": one.value, "scheme": one.scheme, "meaning": one.meaning}
