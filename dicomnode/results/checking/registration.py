"""Reads a registration back, and compares it with what the model said and with the files."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from dicomnode.prediction import Registration
from dicomnode.results.checking.expected import Expected, require
from dicomnode.results.part import Part

_WRITING = 1e-9  # what may get lost of a number when it is written as a decimal string, relative
# How far the linear part of a rigid matrix may be from a rotation; from where on it is not rigid.
_AT_MOST, _AT_LEAST = 2e-6, 5e-7
_SIZE = 16  # numbers of a matrix


def check(dataset: Dataset, part: Part, expected: Expected) -> None:
    """Check that the first input stays where it is, and the other goes where the model said.

    Raises:
        ResultMismatch: The object moves something else, or elsewhere.
    """
    answer = next(
        one
        for one in expected.prediction.answers
        if one.output == part.output and isinstance(one, Registration)
    )
    fixed, moving = _headers(expected, None), _headers(expected, answer.moving)
    spaces = [{str(one.FrameOfReferenceUID) for one in of.values()} for of in (fixed, moving)]
    require(
        dataset.Modality == "REG" and {str(dataset.get("FrameOfReferenceUID"))} == spaces[0],
        "frame-of-reference-differs",
        "The registered space is not that of the first input.",
    )
    require(
        len(dataset.RegistrationSequence) == len(spaces),
        "registration-differs",
        "The object has not one item for each of the two inputs.",
    )
    for item, headers, space, matrix in zip(
        dataset.RegistrationSequence,
        (fixed, moving),
        spaces,
        (np.eye(4), answer.matrix),
        strict=True,
    ):
        _check_images(item, headers, set() if spaces[0] == spaces[1] else space)
        _check_matrix(item, matrix)
    _check_references(dataset, (fixed, moving))


def _headers(expected: Expected, moving: int | None) -> dict[str, Dataset]:
    """SOP Instance UID → header of each source of an input, as its file has it."""
    prediction = expected.prediction
    shown = prediction.subject if moving is None else prediction.also_shown[moving]
    return {
        source.sop_instance_uid: expected.all_headers[source.sop_instance_uid]
        for source in shown.sources
    }


def _check_images(item: Dataset, headers: Mapping[str, Dataset], space: set[str]) -> None:
    """An item names every image of its input, and its space unless both inputs share it."""
    found = {str(item.FrameOfReferenceUID)} if "FrameOfReferenceUID" in item else set()
    require(
        found == space,
        "frame-of-reference-differs",
        "An item is about another frame of reference than its images.",
    )
    named = [
        (one.ReferencedSOPInstanceUID, one.ReferencedSOPClassUID)
        for one in item.ReferencedImageSequence
        if "ReferencedFrameNumber" not in one
    ]
    meant = [(uid, header.SOPClassUID) for uid, header in headers.items()]
    require(
        sorted(named) == sorted(meant),
        "reference-differs",
        "An item does not name the images of its input.",
    )


def _check_matrix(item: Dataset, meant: NDArray[np.float64]) -> None:
    matrices = [
        one
        for registration in item.MatrixRegistrationSequence
        for one in registration.MatrixSequence
    ]
    require(len(matrices) == 1, "matrix-differs", "An item has not exactly one matrix.")
    values = matrices[0].FrameOfReferenceTransformationMatrix
    require(len(values) == _SIZE, "matrix-differs", "A matrix has not 16 numbers.")
    found = np.array(values, dtype=np.float64).reshape(meant.shape)
    require(
        bool((np.abs(found - meant) <= _WRITING * (1 + np.abs(meant))).all()),
        "matrix-differs",
        "A matrix is not the one that the model gave.",
    )
    require(
        _is_right(matrices[0].FrameOfReferenceTransformationMatrixType, found),
        "matrix-differs",
        "The type of a matrix promises more than the matrix holds, or less.",
    )


def _is_right(kind: str, matrix: NDArray[np.float64]) -> bool:
    """Whether a matrix is called what it is (PS3.3 C.20.2.1.1)."""
    columns = matrix[:3, :3].T
    lengths = np.linalg.norm(columns, axis=1)
    stretched = float(np.abs(lengths - 1).max())
    across = max(abs(float(columns[a] @ columns[b])) for a, b in ((0, 1), (0, 2), (1, 2)))
    holds = {
        "RIGID": max(stretched, across) <= _AT_MOST,
        "RIGID_SCALE": across <= _AT_MOST and stretched >= _AT_LEAST / 2,
        "AFFINE": across >= _AT_LEAST,
    }
    return holds.get(kind, False)


def _check_references(dataset: Dataset, inputs: tuple[Mapping[str, Dataset], ...]) -> None:
    listed = [
        (series.SeriesInstanceUID, one.ReferencedSOPInstanceUID)
        for series in dataset.get("ReferencedSeriesSequence", ())
        for one in series.ReferencedInstanceSequence
    ]
    meant = [
        (header.SeriesInstanceUID, uid) for headers in inputs for uid, header in headers.items()
    ]
    require(
        sorted(listed) == sorted(meant),
        "reference-differs",
        "Referenced Series Sequence does not list the images of both inputs.",
    )
