"""The answers of an ensemble → one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dicomnode.bundle import ClassificationOutput, Output
from dicomnode.errors import Misconfigured
from dicomnode.prediction import (
    Answer,
    Classification,
    DerivedImage,
    HeatMap,
    LabelMap,
    Masks,
    Numbers,
    Points,
    ProbabilityMap,
)
from workers.inference import classes

How = Literal["mean", "vote"]


def merged(
    name: str, output: Output, given: Sequence[Sequence[Answer]], *, how: How
) -> Iterator[Answer]:
    """One answer in place of those of each step, for each frame.

    Args:
        given: For each step its answers to the output, in the order of frames.

    Raises:
        Misconfigured: `merge-unsupported`: answers of this kind cannot be merged so.
    """
    for same in zip(*given, strict=True):
        made = _vote(same) if how == "vote" else _mean(same, name, output)
        if made is None:
            raise Misconfigured(
                "merge-unsupported",
                f"merges.{name}: answers of the kind {output.kind} have no {how}.",
            )
        yield replace(made, output=name)


def _vote(same: Sequence[Answer]) -> Answer | None:
    first = same[0]
    if isinstance(first, LabelMap):
        return replace(first, array=_most([a.array for a in same if isinstance(a, LabelMap)]))
    if isinstance(first, Masks):
        votes = np.sum([a.array for a in same if isinstance(a, Masks)], axis=0)
        return replace(first, array=votes * 2 > len(same))
    return None


def _most(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """For each voxel the label that most say, and of a tie the lowest."""
    labels = np.unique(np.concatenate([np.unique(array) for array in arrays]))
    best: NDArray[Any] = np.zeros(arrays[0].shape, dtype=arrays[0].dtype)
    most = np.zeros(arrays[0].shape, dtype=np.uint8)
    for label in labels:
        votes = _votes(arrays, label)
        np.copyto(best, label, where=votes > most)
        np.maximum(most, votes, out=most)
    return best


def _votes(arrays: Sequence[NDArray[Any]], label: int) -> NDArray[np.uint8]:
    votes = np.zeros(arrays[0].shape, dtype=np.uint8)
    for array in arrays:
        votes += array == label
    return votes


def _mean(same: Sequence[Answer], name: str, output: Output) -> Answer | None:
    first = same[0]
    if isinstance(first, Classification) and isinstance(output, ClassificationOutput):
        parts = [one for one in same if isinstance(one, Classification)]
        joined = classes.combined(parts, name, output.model_copy(update={"combine": "mean"}))
        return replace(joined, frame=first.frame)
    if isinstance(first, Numbers):
        table = np.array([one.values for one in same if isinstance(one, Numbers)])
        return replace(first, values=tuple(table.mean(axis=0).tolist()))
    if isinstance(first, Points):
        places = np.array([[p.at for p in a.points] for a in same if isinstance(a, Points)])
        return replace(
            first,
            points=tuple(
                replace(point, at=tuple(at.tolist()))
                for point, at in zip(first.points, places.mean(axis=0), strict=True)
            ),
        )
    if isinstance(first, ProbabilityMap | HeatMap | DerivedImage):
        arrays = [one.array for one in same if isinstance(one, type(first))]
        return replace(first, array=np.mean(arrays, axis=0, dtype=np.float32))
    return None
