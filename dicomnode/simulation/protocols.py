"""Which series a study of each kind has, and how large they are."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum

from dicomnode.simulation.hospital import Kind
from dicomnode.simulation.planned import Content, Series


class Size(StrEnum):
    """How large images are."""

    SMALL = "small"
    """Some kilobytes, and ten slices in a volume."""
    REAL = "real"
    """As modalities make them."""


@dataclass(frozen=True, kw_only=True)
class _Measure:
    """The size of one kind of content.

    Attributes:
        matrix: Rows and columns.
        count: How many objects a series has: at least, at most.
        frames: How many frames an object has.
    """

    matrix: int
    count: tuple[int, int]
    frames: tuple[int, int] = (1, 1)


_MEASURES: dict[Size, dict[Content, _Measure]] = {
    Size.SMALL: {
        Content.LOCALIZER: _Measure(matrix=16, count=(2, 2)),
        Content.SLICE: _Measure(matrix=24, count=(10, 12)),
        Content.FRAMES: _Measure(matrix=24, count=(1, 1), frames=(8, 12)),
        Content.RADIOGRAPH: _Measure(matrix=48, count=(1, 1)),
        Content.VIEW: _Measure(matrix=48, count=(4, 4)),
        Content.STILL: _Measure(matrix=32, count=(2, 4)),
        Content.CINE: _Measure(matrix=32, count=(1, 1), frames=(4, 6)),
        Content.REPORT: _Measure(matrix=0, count=(1, 1)),
    },
    Size.REAL: {
        Content.LOCALIZER: _Measure(matrix=512, count=(2, 2)),
        Content.SLICE: _Measure(matrix=512, count=(60, 300)),
        Content.FRAMES: _Measure(matrix=512, count=(1, 1), frames=(60, 300)),
        Content.RADIOGRAPH: _Measure(matrix=2048, count=(1, 1)),
        Content.VIEW: _Measure(matrix=3072, count=(4, 4)),
        Content.STILL: _Measure(matrix=768, count=(10, 40)),
        Content.CINE: _Measure(matrix=512, count=(1, 3), frames=(20, 60)),
        Content.REPORT: _Measure(matrix=0, count=(1, 1)),
    },
}

#: What a study is called, and its series: modality, content, description.
_PROTOCOLS: dict[Kind, tuple[str, tuple[tuple[str, Content, str], ...]]] = {
    Kind.CT: (
        "Thorax native",
        (
            ("CT", Content.LOCALIZER, "Topogram"),
            ("CT", Content.SLICE, "Thorax axial"),
            ("SR", Content.REPORT, "Dose report"),
        ),
    ),
    Kind.ENHANCED_CT: (
        "Abdomen venous",
        (
            ("CT", Content.FRAMES, "Abdomen axial"),
            ("SR", Content.REPORT, "Dose report"),
        ),
    ),
    Kind.MR: (
        "Head plain",
        (
            ("MR", Content.LOCALIZER, "Scout"),
            ("MR", Content.SLICE, "T1 axial"),
            ("MR", Content.LOCALIZER, "T2 planes"),
        ),
    ),
    Kind.ENHANCED_MR: ("Knee plain", (("MR", Content.FRAMES, "PD sagittal"),)),
    Kind.CR: (
        "Hand two planes",
        (("CR", Content.RADIOGRAPH, "Hand PA"), ("CR", Content.RADIOGRAPH, "Hand LL")),
    ),
    Kind.MG: ("Screening", (("MG", Content.VIEW, "Views"),)),
    Kind.US: (
        "Liver",
        (("US", Content.STILL, "Stills"), ("US", Content.CINE, "Cine")),
    ),
}

#: What an archive has of earlier years.
KEPT = (Kind.CT, Kind.MR, Kind.CR, Kind.CR, Kind.MG, Kind.US)


def title(kind: Kind) -> str:
    """What a study of this kind is called."""
    return _PROTOCOLS[kind][0]


def series(kind: Kind, size: Size, rng: random.Random, *, word: str) -> tuple[Series, ...]:
    """The series of one study; `word` stands in the description of each."""
    made = []
    for number, (modality, content, description) in enumerate(_PROTOCOLS[kind][1], start=1):
        measure = _MEASURES[size][content]
        made.append(
            Series(
                number=number,
                modality=modality,
                content=content,
                description=f"{description}, {word}",
                count=rng.randint(*measure.count),
                frames=rng.randint(*measure.frames),
                matrix=measure.matrix,
            )
        )
    return tuple(made)
