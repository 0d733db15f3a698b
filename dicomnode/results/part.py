"""One object that answers, before it is made: what it is about, and how it is named."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dicomnode import uid

#: What an object is:
#:
#: ============  ================================================================================
#: seg           the segments of one output (PS3.3 A.51)
#: map           a parametric map of one output (A.75)
#: image         images that were made of the images: one series
#: registration  where another input lies in the space of the first (A.39.1)
#: capture       a picture for people (A.8.1)
#: regions       a report that viewers draw from: TID 1500 with regions on images alone
#: presentation  a presentation state that draws the same (A.33)
#: key-images    a selection of the key images (A.35.4)
#: sr            the report of everything that was found: TID 1500, the root of the answer
#: notice        a report that says why a study was not analysed
#: rejection     a selection of objects that are not to be used any more (IHE IOCM)
#: ============  ================================================================================
Kind = Literal[
    "seg",
    "map",
    "image",
    "registration",
    "capture",
    "regions",
    "presentation",
    "key-images",
    "sr",
    "notice",
    "rejection",
]

#: Series Number: a fixed high block, so that the results stand below the images.
SERIES_NUMBER: dict[Kind, int] = {
    "seg": 9001,
    "sr": 9002,
    "capture": 9003,
    "regions": 9004,
    "map": 9005,
    "image": 9006,
    "registration": 9007,
    "presentation": 9008,
    "key-images": 9009,
    "notice": 9010,
    "rejection": 9011,
}


#: What tells the series of one run apart in a list; the segmentation and the report need no word.
_WORDS: dict[Kind, str] = {
    "capture": "summary",
    "regions": "contours",
    "map": "map",
    "image": "images",
    "registration": "registration",
    "presentation": "annotations",
    "key-images": "key images",
}


@dataclass(frozen=True, kw_only=True)
class Part:
    """One object of an answer; of images that were made, one series of objects.

    Attributes:
        kind: What it is.
        output: The name of the output that it holds; "" where it is about all.
        variant: What else its content depends on: how it is encoded, or the digest of the profile
            that it is made for. Parts that differ in this alone say the same.
        frames: Of images that are looked at one by one: which of them it is about.
        profiles: The digests of the profiles that it is sent for.
    """

    kind: Kind
    output: str = ""
    variant: str = ""
    frames: tuple[int, ...] = ()
    profiles: frozenset[str] = frozenset()

    @property
    def series_number(self) -> int:
        """Series Number (0020,0011)."""
        return SERIES_NUMBER[self.kind]

    @property
    def word(self) -> str:
        """What its Series Description calls it beside the model; "" for nothing."""
        return _WORDS.get(self.kind, "")

    def series_uid(self, key: str) -> str:
        """Series Instance UID of the object, derived from the idempotency key of its run."""
        return uid.derived(key, *self._name, "series")

    def instance_uid(self, key: str, number: int = 1) -> str:
        """SOP Instance UID of the object; of a series of several, of the one with that number."""
        return uid.derived(key, *self._name, "instance", str(number))

    def other_uid(self, key: str, what: str) -> str:
        """A UID within the object, such as that of its dimensions."""
        return uid.derived(key, *self._name, what)

    @property
    def _name(self) -> tuple[str, ...]:
        frames = ",".join(map(str, self.frames))
        return (self.kind, self.output, self.variant, frames)
