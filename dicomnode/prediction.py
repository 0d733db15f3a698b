"""What a model says, about the images that it was shown.

An answer about a volume lies on the volume's grid: arrays have its shape, and boxes and points are
in patient coordinates (LPS, mm). An answer about one image of several (`frame`) has the image's
rows and columns, and boxes and points are in its columns and rows, where (0, 0) is the centre of
the first pixel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dicomnode.volume import Images, Slide, Volume

#: Everything that a model may be shown.
Shown = Volume | Images | Slide


@dataclass(frozen=True, kw_only=True)
class _Answer:
    """What all answers share.

    Attributes:
        output: The name of the model's output, as in the manifest.
        frame: Of images: which of `Images.frames` it is about, from 0; `None` where it is about
            all, or about a volume or a slide.
    """

    output: str
    frame: int | None = None


@dataclass(frozen=True, kw_only=True)
class LabelMap(_Answer):
    """One label for each voxel.

    Attributes:
        array: Shape (slices, rows, columns) or, of a frame, (rows, columns); dtype uint8 or uint16;
            0 is background.
    """

    array: NDArray[np.uint8 | np.uint16] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Masks(_Answer):
    """One mask for each segment of the manifest, in its order; they may overlap.

    Attributes:
        array: Shape (segments, slices, rows, columns) or (segments, rows, columns).
    """

    array: NDArray[np.bool_] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class ProbabilityMap(_Answer):
    """A probability for each voxel and finding of the manifest, in its order.

    Attributes:
        array: From 0 to 1; shape (findings, slices, rows, columns) or (findings, rows, columns);
            of a slide (findings, patch rows, patch columns).
        step: Of a slide: pixels of its finest level from one patch to the next, and `origin`
            those of the first patch's corner, in rows and columns; NaN where no patch was seen.
    """

    array: NDArray[np.float32] = field(repr=False)
    step: tuple[float, float] | None = None
    origin: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True, kw_only=True)
class Box:
    """One box.

    Attributes:
        label: Of the manifest's findings.
        score: From 0 to 1.
        low: Its corner with the lowest coordinates, and `high` that with the highest: of a volume
            (x, y, z) in mm, of an image (column, row).
    """

    label: int
    score: float
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Boxes(_Answer):
    """Boxes, the highest score first; none is an answer, too."""

    boxes: tuple[Box, ...]


@dataclass(frozen=True, kw_only=True)
class Point:
    """One landmark.

    Attributes:
        label: Of the manifest's landmarks.
        at: Of a volume (x, y, z) in mm, of an image (column, row).
    """

    label: int
    at: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Points(_Answer):
    """Landmarks, in the manifest's order."""

    points: tuple[Point, ...]


@dataclass(frozen=True, kw_only=True)
class Classification(_Answer):
    """How probable each class of the manifest is, in its order.

    Attributes:
        chosen: The indices of the classes that are said to be so, by the operating points; of
            classes that exclude each other the most probable of those.
    """

    probabilities: tuple[float, ...]
    chosen: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Numbers(_Answer):
    """The quantities of the manifest, in its order."""

    values: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class HeatMap(_Answer):
    """Where a classification looked.

    Attributes:
        array: From 0 to 1; shape (slices, rows, columns) or (rows, columns).
        of: The classification's output, and `explains` the index of the class.
    """

    array: NDArray[np.float32] = field(repr=False)
    of: str
    explains: int


@dataclass(frozen=True, kw_only=True)
class DerivedImage(_Answer):
    """An image made of the images.

    Attributes:
        array: Shape (slices, rows, columns) or (rows, columns).
    """

    array: NDArray[np.float32] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Registration(_Answer):
    """Where another input lies in the space of the first.

    Attributes:
        moving: Which of `Prediction.also_shown`.
        matrix: 4 by 4; maps patient coordinates (LPS, mm) of the moving input's frame of reference
            to those of the subject's. Its linear part is a rotation ("RIGID"), or any
            ("AFFINE": PS3.3 C.20.2).
    """

    moving: int
    matrix: NDArray[np.float64]


Answer = (
    LabelMap
    | Masks
    | ProbabilityMap
    | Boxes
    | Points
    | Classification
    | Numbers
    | HeatMap
    | DerivedImage
    | Registration
)

#: Answers whose arrays lie on the grid of what was shown.
OnGrid = LabelMap | Masks | ProbabilityMap | HeatMap | DerivedImage


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Everything that one run of a model said about `subject`.

    Attributes:
        subject: What was shown as the manifest's first input: the grid of the answers.
        answers: For each output one, or one for each frame; in the manifest's order.
        also_shown: What else the model was shown, on grids of its own.
        silent: Outputs about which nothing could be said, and why: of a chain, what it says of a
            region where no region was found.
        computed: How the answer was computed, for people: "float32", "bfloat16, channels last".
    """

    subject: Shown
    answers: tuple[Answer, ...]
    also_shown: tuple[Shown, ...] = ()
    silent: Mapping[str, str] = field(default_factory=dict)
    computed: str = "float32"

    @property
    def shown(self) -> tuple[Shown, ...]:
        """Everything that the model was shown."""
        return (self.subject, *self.also_shown)

    @property
    def volume(self) -> Volume:
        """The grid of the answers, where it is a volume.

        Raises:
            TypeError: The model was shown images that make no volume.
        """
        if not isinstance(self.subject, Volume):
            raise TypeError(f"the subject is {type(self.subject).__name__}, not a volume")
        return self.subject
