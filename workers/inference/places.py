"""Boxes and points of a model → patient coordinates, or columns and rows of an image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dicomnode.bundle import BoxesOutput, Coordinates, PointsOutput
from dicomnode.errors import ModelFailed
from dicomnode.prediction import Box, Boxes, Point, Points
from dicomnode.volume import Images, Picture, Slide, Volume
from workers.inference import grid

_RAS_TO_LPS = np.array([-1.0, -1.0, 1.0])
_AXES = 2  # of a tensor that has points and coordinates
_PHASES = 3  # axes of a tensor that has points, coordinates and phases

Subject = Volume | Picture | Images | Slide


def boxes(
    said: Mapping[str, Any], name: str, output: BoxesOutput, subject: Subject, *, frame: int | None
) -> Boxes:
    """The boxes with a score that is enough, the highest first.

    Raises:
        ModelFailed: `no-answer`, `wrong-shape`, `not-finite`, `not-a-probability` or
            `unknown-label`.
    """
    size = _dimensions(subject, name)
    corners = _array(said, output.key or name).reshape(-1, 2 * size)
    scores = _array(said, output.scores).ravel()
    kinds = (
        np.ones(len(scores), dtype=np.int64)
        if output.classes is None
        else _array(said, output.classes).ravel().astype(np.int64) - output.first_class + 1
    )
    if not len(corners) == len(scores) == len(kinds):
        raise ModelFailed(
            "wrong-shape",
            f"'{name}' has {len(corners)} boxes, {len(scores)} scores and {len(kinds)} classes.",
        )
    _require_sound(scores, kinds, name, output)
    found = [
        _box(corners[index], int(kinds[index]), float(scores[index]), output, subject)
        for index in np.argsort(-scores, kind="stable")
        if scores[index] >= output.least_score
    ]
    return Boxes(output=name, frame=frame, boxes=tuple(found))


def _require_sound(
    scores: NDArray[Any], kinds: NDArray[Any], name: str, output: BoxesOutput
) -> None:
    if not np.isfinite(scores).all():
        raise ModelFailed("not-finite", f"'{name}' has scores that are no numbers.")
    if scores.size and (scores.min() < 0 or scores.max() > 1):
        raise ModelFailed("not-a-probability", f"'{name}' has scores beyond 0 and 1.")
    known = {finding.label for finding in output.findings}
    unknown = sorted(set(kinds.tolist()) - known)
    if unknown:
        raise ModelFailed(
            "unknown-label",
            f"'{name}' has class {unknown[0] + output.first_class - 1}, which no finding stands"
            " for.",
        )


def _box(
    numbers: NDArray[np.float64], label: int, score: float, output: BoxesOutput, subject: Subject
) -> Box:
    first, second = np.split(numbers, 2)
    if output.mode == "center":
        first, second = first - second / 2, first + second / 2
    if not np.isfinite(numbers).all() or (second < first).any():
        raise ModelFailed("not-finite", "A box has corners that are no numbers, or no box.")
    every = np.array(list(product(*zip(first, second, strict=True))))
    placed = _placed(every, output.coordinates, subject)
    low, high = placed.min(axis=0), placed.max(axis=0)
    return Box(label=label, score=score, low=tuple(low.tolist()), high=tuple(high.tolist()))


def points(
    value: Any, name: str, output: PointsOutput, subject: Subject, *, frame: int | None
) -> Iterator[Points]:
    """The landmarks of a volume or an image, or of each phase of a cine.

    Raises:
        ModelFailed: `wrong-shape` or `not-finite`.
    """
    size = _dimensions(subject, name)
    array = _numbers(value)
    if isinstance(subject, Images) and array.ndim == _PHASES:
        if array.shape[-1] != len(subject.frames):
            raise ModelFailed("wrong-shape", f"'{name}' has {array.shape[-1]} phases.")
        for phase in range(array.shape[-1]):
            yield _points(array[..., phase], name, output, subject, size=size, frame=phase)
    else:
        yield _points(_two_axes(array), name, output, subject, size=size, frame=frame)


def _two_axes(array: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points and coordinates, without a batch of one; of one landmark there is one point."""
    ones = [axis for axis, size in enumerate(array.shape) if size == 1]
    return array.squeeze(tuple(ones[: max(0, array.ndim - _AXES)]))


def _points(
    array: NDArray[np.float64],
    name: str,
    output: PointsOutput,
    subject: Subject,
    *,
    size: int,
    frame: int | None,
) -> Points:
    if output.layout == "axes":
        array = array.T
    if array.shape != (len(output.landmarks), size):
        raise ModelFailed(
            "wrong-shape",
            f"'{name}' has shape {array.shape}; {len(output.landmarks)} landmarks have {size}"
            " coordinates each.",
        )
    if not np.isfinite(array).all():
        raise ModelFailed("not-finite", f"'{name}' has coordinates that are no numbers.")
    placed = _placed(array, output.coordinates, subject)
    return Points(
        output=name,
        frame=frame,
        points=tuple(
            Point(label=landmark.label, at=tuple(at.tolist()))
            for landmark, at in zip(output.landmarks, placed, strict=True)
        ),
    )


def _placed(
    coordinates: NDArray[np.float64], kind: Coordinates, subject: Subject
) -> NDArray[np.float64]:
    """Coordinates of a model as the node has them: LPS in mm, or columns and rows."""
    if not isinstance(subject, Volume):
        return coordinates
    if kind == "lps":
        return coordinates
    if kind == "ras":
        lps: NDArray[np.float64] = coordinates * _RAS_TO_LPS
        return lps
    affine = grid.LPS_TO_RAS @ grid.ras_affine(subject.affine)  # its own inverse
    placed: NDArray[np.float64] = coordinates @ affine[:3, :3].T + affine[:3, 3]
    return placed


def _dimensions(subject: Subject, name: str) -> int:
    if isinstance(subject, Slide):
        raise ModelFailed("wrong-outputs", f"'{name}': a slide has maps of probabilities alone.")
    return 3 if isinstance(subject, Volume) else 2


def _array(said: Mapping[str, Any], key: str) -> NDArray[np.float64]:
    if key not in said:
        raise ModelFailed("no-answer", f"The bundle gave no '{key}'.")
    return _numbers(said[key])


def _numbers(value: Any) -> NDArray[np.float64]:
    raw = value.detach().cpu() if hasattr(value, "detach") else value
    return np.asarray(raw, dtype=np.float64)
