"""Reads where a map of a slide's patches lies, and compares it with the slide's files."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from dicomnode.prediction import HeatMap, ProbabilityMap
from dicomnode.results.checking.expected import Expected, require

_OFFSETS = tuple(f"{axis}OffsetInSlideCoordinateSystem" for axis in "XYZ")
_WRITING = 1e-6  # mm: what may get lost when a number is written as a decimal string


def check(dataset: Dataset, answer: ProbabilityMap | HeatMap, expected: Expected) -> None:
    """Check that each pixel of a map lies on its patch.

    Raises:
        ResultMismatch: The map lies elsewhere, or names something else.
    """
    if not isinstance(answer, ProbabilityMap) or answer.step is None:
        raise TypeError("no map of a slide's patches")
    levels = sorted(
        expected.headers.values(),
        key=lambda one: -int(one.TotalPixelMatrixRows) * int(one.TotalPixelMatrixColumns),
    )
    shape = answer.array.shape[-2:]
    require(
        (dataset.Rows, dataset.Columns) == shape
        and (dataset.TotalPixelMatrixRows, dataset.TotalPixelMatrixColumns) == shape
        and dataset.NumberOfFrames == len(dataset.PerFrameFunctionalGroupsSequence) == 1,
        "grid-differs",
        "The map has not one pixel for each patch.",
    )
    require(
        all(
            dataset.FrameOfReferenceUID == level.FrameOfReferenceUID
            and dataset.ImageOrientationSlide == level.ImageOrientationSlide
            for level in levels
        ),
        "frame-of-reference-differs",
        "The map lies in another space than the slide.",
    )
    _check_place(dataset, answer, levels[0], levels[-1])
    _check_references(dataset, expected)


def _check_place(
    dataset: Dataset, answer: ProbabilityMap, finest: Dataset, coarsest: Dataset
) -> None:
    """The corners of the map are those of its patches, as the levels' corners lie on each other."""
    spacing = np.multiply(_spacing(finest), answer.step or (0, 0))
    require(
        bool(np.abs(_spacing(dataset) - spacing).max() <= _WRITING),
        "frame-elsewhere",
        "A pixel of the map has not the size of a patch.",
    )
    frame = dataset.PerFrameFunctionalGroupsSequence[0].PlanePositionSlideSequence[0]
    corner = _corner(finest, answer.origin, _spacing(finest))
    placed = [_corner(dataset, (0, 0), spacing), _point(frame)]
    halves = _inwards(dataset, (spacing - _spacing(finest)) / 2)
    grown = _inwards(finest, (_spacing(coarsest) - _spacing(finest)) / 2)
    moved = _corner(coarsest, (0, 0), spacing) - _corner(finest, (0, 0), spacing)
    # Origins of centres move inwards as pixels grow; origins of corners stay where they are.
    by_centres = bool(np.linalg.norm(moved - grown) < np.linalg.norm(grown) / 2)
    meant = corner + (halves if by_centres else 0)
    require(
        all(bool(np.abs(one - meant)[:2].max() <= _WRITING) for one in placed)
        and frame.RowPositionInTotalImagePixelMatrix == 1
        and frame.ColumnPositionInTotalImagePixelMatrix == 1,
        "frame-elsewhere",
        "The map does not lie where its patches lie.",
    )


def _spacing(dataset: Dataset) -> NDArray[np.float64]:
    measures = dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    return np.array(measures.PixelSpacing, dtype=np.float64)


def _point(item: Dataset) -> NDArray[np.float64]:
    return np.array([float(item.get(keyword) or 0) for keyword in _OFFSETS])


def _inwards(dataset: Dataset, steps: NDArray[np.float64]) -> NDArray[np.float64]:
    """A way in mm along the columns and along the rows of a level."""
    cosines = np.array(dataset.ImageOrientationSlide, dtype=np.float64)
    way: NDArray[np.float64] = cosines[3:] * steps[0] + cosines[:3] * steps[1]
    return way


def _corner(
    dataset: Dataset, pixel: tuple[float, float], spacing: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Where a pixel (row, column) of a level is said to lie."""
    origin = _point(dataset.TotalPixelMatrixOriginSequence[0])
    return origin + _inwards(dataset, np.multiply(pixel, spacing))


def _check_references(dataset: Dataset, expected: Expected) -> None:
    series = {str(one.SeriesInstanceUID) for one in expected.headers.values()}
    listed = [
        (str(item.SeriesInstanceUID), one.ReferencedSOPInstanceUID)
        for item in dataset.get("ReferencedSeriesSequence", ())
        for one in item.ReferencedInstanceSequence
    ]
    named = [
        one.ReferencedSOPInstanceUID
        for derivation in dataset.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence
        for one in derivation.SourceImageSequence
    ]
    require(
        sorted(uid for _, uid in listed) == sorted(named) == sorted(expected.headers)
        and {one for one, _ in listed} == series,
        "reference-differs",
        "The map does not name the levels of the slide.",
    )
