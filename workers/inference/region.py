"""The part of a volume that a later step of a chain looks at, and the way back to the whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from dicomnode import volume
from dicomnode.bundle import (
    BoxesOutput,
    LabelMapOutput,
    MasksOutput,
    Output,
    ProbabilityMapOutput,
    Region,
)
from dicomnode.prediction import (
    Answer,
    Boxes,
    LabelMap,
    Masks,
    OnGrid,
    ProbabilityMap,
)
from dicomnode.volume import Volume


@dataclass(frozen=True, kw_only=True)
class Part:
    """A box of voxels, half open: slices, rows, columns."""

    low: tuple[int, int, int]
    high: tuple[int, int, int]

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """To index an array with."""
        first, second, third = (
            slice(low, high) for low, high in zip(self.low, self.high, strict=True)
        )
        return first, second, third


def around(answers: Sequence[Answer], asked: Region, subject: Volume, spec: Output) -> Part | None:
    """The smallest box around what was found, with its margin; `None` where nothing was.

    Args:
        spec: What the answers are of: masks stand in the order of its segments.
    """
    found = [place for one in answers for place in _places(one, asked.labels, subject, spec)]
    if not found:
        return None
    margin = np.array([asked.margin_mm / step for step in subject.spacing])
    low = np.min([low for low, _ in found], axis=0) - margin
    high = np.max([high for _, high in found], axis=0) + margin
    return _whole_voxels(low, high, subject)


def _whole_voxels(
    low: NDArray[np.float64], high: NDArray[np.float64], within: Volume
) -> Part | None:
    """The voxels that a box of indices (of voxel centres) touches."""
    shape = np.array(within.array.shape)
    first = np.clip(np.floor(low + 1e-6), 0, shape - 1).astype(int)
    last = np.clip(np.ceil(high - 1e-6), 0, shape - 1).astype(int)
    if (high < 0).any() or (low > shape - 1).any():
        return None
    a, b, c = (int(one) for one in first)
    d, e, f = (int(one) + 1 for one in last)
    return Part(low=(a, b, c), high=(d, e, f))


def _places(
    answer: Answer, labels: Sequence[int], subject: Volume, spec: Output
) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Lowest and highest index of each thing that was found."""
    if isinstance(answer, Boxes):
        to_index = np.linalg.inv(subject.affine)
        corners = [
            np.array(list(product(*zip(box.low, box.high, strict=True))))
            for box in answer.boxes
            if not labels or box.label in labels
        ]
        placed = [one @ to_index[:3, :3].T + to_index[:3, 3] for one in corners]
        return [(one.min(axis=0), one.max(axis=0)) for one in placed]
    if isinstance(answer, LabelMap):
        mask = np.isin(answer.array, labels) if labels else answer.array > 0
    elif isinstance(answer, Masks) and isinstance(spec, MasksOutput):
        chosen = [not labels or segment.label in labels for segment in spec.segments]
        mask = np.asarray(answer.array[chosen].any(axis=0))
    else:
        return []
    if not mask.any():
        return []
    ranges = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    low, high = (np.array([one[end] for one in ranges], dtype=np.float64) for end in (0, -1))
    return [(low, high)]


def cut(other: Volume, part: Part, subject: Volume) -> Volume:
    """The same part of the patient of another input, or of the subject itself."""
    if other is subject:
        return volume.crop(subject, low=part.low, high=part.high)
    corners = np.array(list(product(*zip(part.low, np.array(part.high) - 1, strict=True))))
    to_other = np.linalg.inv(other.affine) @ subject.affine
    placed = corners @ to_other[:3, :3].T + to_other[:3, 3]
    box = _whole_voxels(placed.min(axis=0), placed.max(axis=0), other)
    return other if box is None else volume.crop(other, low=box.low, high=box.high)


def put_back(answer: Answer, part: Part, shape: tuple[int, ...]) -> Answer:
    """An answer about a part as one about the whole; what is in the patient's mm stays as it is."""
    if not isinstance(answer, OnGrid):
        return answer
    array = answer.array
    whole = np.zeros((*array.shape[: array.ndim - len(shape)], *shape), dtype=array.dtype)
    whole[(..., *part.slices)] = array
    placed: Answer = replace(answer, array=whole)  # type: ignore[arg-type]  # of its own kind
    return placed


def nothing(name: str, output: Output, subject: Volume) -> list[Answer]:
    """How an output says that nothing was found; of one that cannot, no answer at all."""
    shape = subject.array.shape
    if isinstance(output, LabelMapOutput):
        highest = max(segment.label for segment in output.segments)
        return [LabelMap(output=name, array=np.zeros(shape, dtype=np.min_scalar_type(highest)))]
    if isinstance(output, MasksOutput):
        return [Masks(output=name, array=np.zeros((len(output.segments), *shape), dtype=bool))]
    if isinstance(output, ProbabilityMapOutput):
        empty = np.zeros((len(output.findings), *shape), dtype=np.float32)
        return [ProbabilityMap(output=name, array=empty)]
    if isinstance(output, BoxesOutput):
        return [Boxes(output=name, boxes=())]
    return []
