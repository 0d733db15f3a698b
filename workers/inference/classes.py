"""Numbers of a classifier → probabilities, and the classes that are said to be so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dicomnode.bundle import ClassificationOutput
from dicomnode.errors import ModelFailed
from dicomnode.prediction import Classification

_BEYOND = 1e-3
_EVEN = 0.5
_TWO = 2


def of(value: Any, name: str, output: ClassificationOutput, *, frame: int | None) -> Classification:
    """One classification.

    Raises:
        ModelFailed: `wrong-shape`, `not-finite` or `not-a-probability`.
    """
    raw = getattr(value, "detach", lambda: value)()
    numbers = np.asarray(getattr(raw, "cpu", lambda: raw)(), dtype=np.float64).ravel()
    if not np.isfinite(numbers).all():
        raise ModelFailed("not-finite", f"'{name}' has values that are infinite or no numbers.")
    probabilities = _probabilities(numbers, output)
    if probabilities.size == 1 and len(output.classes) == _TWO and output.exclusive:
        # One number for two classes is that of the second: the first is its absence.
        probabilities = np.array([1 - probabilities[0], probabilities[0]])
    if probabilities.size != len(output.classes):
        raise ModelFailed(
            "wrong-shape",
            f"'{name}' has {probabilities.size} numbers; its manifest has {len(output.classes)}"
            " classes.",
        )
    if probabilities.min() < -_BEYOND or probabilities.max() > 1 + _BEYOND:
        raise ModelFailed(
            "not-a-probability",
            f"'{name}' has values from {probabilities.min():.3g} to {probabilities.max():.3g}; a"
            " probability lies between 0 and 1: does the manifest name the activation?",
        )
    return _classification(np.clip(probabilities, 0, 1), name, output, frame=frame)


def combined(
    parts: Sequence[Classification], name: str, output: ClassificationOutput
) -> Classification:
    """The classification of a series or a study, from those of its images."""
    table = np.array([one.probabilities for one in parts])
    joined = table.max(axis=0) if output.combine == "max" else table.mean(axis=0)
    return _classification(joined, name, output, frame=None)


def _classification(
    probabilities: NDArray[np.float64],
    name: str,
    output: ClassificationOutput,
    *,
    frame: int | None,
) -> Classification:
    values = tuple(float(one) for one in probabilities)
    return Classification(
        output=name, frame=frame, probabilities=values, chosen=chosen(values, output)
    )


def _probabilities(
    numbers: NDArray[np.float64], output: ClassificationOutput
) -> NDArray[np.float64]:
    scaled = numbers / output.calibration_temperature
    if output.activation == "sigmoid":
        sigmoid: NDArray[np.float64] = 1 / (1 + np.exp(-np.clip(scaled, -500, 500)))
        return sigmoid
    if output.activation == "softmax":
        powers = np.exp(scaled - scaled.max())
        softmax: NDArray[np.float64] = powers / powers.sum()
        return softmax
    return scaled


def chosen(probabilities: Sequence[float], output: ClassificationOutput) -> tuple[int, ...]:
    """The classes that are said to be so, by their operating points."""
    points = [one.operating_point for one in output.classes]
    if not output.exclusive:
        return tuple(
            index
            for index, (value, point) in enumerate(zip(probabilities, points, strict=True))
            if value >= (_EVEN if point is None else point)
        )
    reached = [
        index
        for index, (value, point) in enumerate(zip(probabilities, points, strict=True))
        if point is not None and value >= point
    ]
    # Where no operating point is reached, it is one of the classes that have none.
    candidates = reached or [index for index, point in enumerate(points) if point is None]
    return (max(candidates, key=lambda index: probabilities[index]),) if candidates else ()
