"""The segments of one output, over the frames that they are about.

A label map with a hundred labels stays one array: a mask for each of them would be a hundred times
as large. What is asked of a segment is asked of one frame at a time, or of counts made once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dicomnode.bundle import Bundle, Finding, LabelMapOutput, MasksOutput, ProbabilityMapOutput
from dicomnode.prediction import LabelMap, Masks, Prediction, ProbabilityMap


@dataclass(frozen=True, kw_only=True)
class Numbered:
    """A segment of an output, with its number in the SEG (PS3.3 C.8.20.2: from 1, without gaps)."""

    number: int
    segment: Finding


def numbered(model: Bundle, output: str) -> tuple[Numbered, ...]:
    """The segments of an output, or what its maps are of, in the manifest's order."""
    spec = model.manifest.outputs[output]
    named: Sequence[Finding]
    if isinstance(spec, LabelMapOutput | MasksOutput):
        named = spec.segments
    elif isinstance(spec, ProbabilityMapOutput):
        named = spec.findings
    else:
        raise TypeError(f"an output of the kind {spec.kind} has no segments")
    return tuple(Numbered(number=n, segment=s) for n, s in enumerate(named, start=1))


@dataclass(frozen=True, kw_only=True, eq=False)
class Layers:
    """What was said of each segment on each frame.

    Attributes:
        items: The segments, in order.
        array: A label map, shape (frames, rows, columns); masks (bool) or probabilities (float32),
            shape (segments, frames, rows, columns).
    """

    items: tuple[Numbered, ...]
    array: NDArray[Any]

    @property
    def is_label_map(self) -> bool:
        """Whether each voxel has one label."""
        return self.array.ndim == 3  # noqa: PLR2004 - frames, rows, columns

    @property
    def is_fraction(self) -> bool:
        """Whether these are probabilities."""
        return bool(np.issubdtype(self.array.dtype, np.floating))

    @property
    def frames(self) -> int:
        """How many frames there are."""
        return int(self.array.shape[-3])

    def plane(self, item: Numbered, frame: int) -> NDArray[Any]:
        """One segment on one frame: bool or float32, shape (rows, columns)."""
        if self.is_label_map:
            found: NDArray[Any] = self.array[frame] == item.segment.label
            return found
        one: NDArray[Any] = self.array[item.number - 1, frame]
        return one

    def mask(self, item: Numbered) -> NDArray[Any]:
        """One segment on all frames: shape (frames, rows, columns)."""
        if self.is_label_map:
            found: NDArray[Any] = self.array == item.segment.label
            return found
        one: NDArray[Any] = self.array[item.number - 1]
        return one

    def numbers(self) -> NDArray[Any]:
        """The segment number of each voxel, 0 for none: uint8, or uint16 for more than 255."""
        count = len(self.items)
        depth = np.uint8 if count <= np.iinfo(np.uint8).max else np.uint16
        if self.is_label_map:
            table = np.zeros(int(np.iinfo(self.array.dtype).max) + 1, dtype=depth)
            for item in self.items:
                table[item.segment.label] = item.number
            mapped: NDArray[Any] = table[self.array]
            return mapped
        numbers = np.zeros(self.array.shape[1:], dtype=depth)
        for number, mask in enumerate(self.array, start=1):
            numbers[mask] = number
        return numbers

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """How many voxels each segment has on each frame (of probabilities: above 0).

        Shape (segments, frames).
        """
        if not self.is_label_map:
            found: NDArray[np.int64] = np.count_nonzero(self.array, axis=(2, 3)).astype(np.int64)
            return found
        most = int(np.iinfo(self.array.dtype).max) + 1
        labels = [item.segment.label for item in self.items]
        counted = [np.bincount(one.ravel(), minlength=most)[labels] for one in self.array]
        return np.array(counted, dtype=np.int64).T

    def count(self, item: Numbered) -> int:
        """How many voxels a segment has."""
        return int(self.counts[item.number - 1].sum())

    @cached_property
    def overlap(self) -> bool:
        """Whether a voxel belongs to more than one segment."""
        if self.is_label_map:
            return False
        return any(
            bool((np.count_nonzero(self.array[:, frame], axis=0) > 1).any())
            for frame in range(self.frames)
        )


def labels(array: NDArray[np.uint8 | np.uint16]) -> list[int]:
    """The values that occur in a label map."""
    most = int(np.iinfo(array.dtype).max) + 1
    occurs = np.zeros(most, dtype=np.bool_)
    # One by one: to count in all at once, numpy makes a copy of eight bytes for each voxel.
    for plane in array.reshape(-1, *array.shape[-2:]):
        occurs |= np.bincount(plane.ravel(), minlength=most) > 0
    return np.flatnonzero(occurs).tolist()


def of(prediction: Prediction, model: Bundle, output: str, frames: Sequence[int] = ()) -> Layers:
    """The layers of an output.

    Args:
        frames: Of images that are looked at one by one: which of them; none for a volume.

    Raises:
        TypeError: The output has no segments.
    """
    answers = [
        one
        for one in prediction.answers
        if one.output == output
        and isinstance(one, LabelMap | Masks | ProbabilityMap)
        and (not frames or one.frame in frames)
    ]
    if not answers:
        raise TypeError(f"{output} says nothing of segments")
    arrays = [one.array for one in answers]
    array = np.stack(arrays, axis=-3) if frames else arrays[0]
    return Layers(items=numbered(model, output), array=array)
