"""Reads where the frames of a multi-frame result lie, and compares it with their sources' files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from dicomnode.results.checking.expected import Expected, require
from dicomnode.results.part import Part
from dicomnode.volume import SliceSource, Volume
from dicomnode.volume.geometry import POSITION_TOLERANCE

_WRITING_MM = 1e-4  # what may get lost when a position is written as a decimal string
_UNEVEN = 0.5  # of the slice spacing: still nearest to its own slice


def check(dataset: Dataset, part: Part, expected: Expected) -> list[int]:
    """Check that each frame of an object lies on a frame of the source, and names it.

    Returns:
        For each frame of the object, which of the source's it is on: of a volume the slice, of
        images the place in `part.frames`.

    Raises:
        ResultMismatch: A frame lies elsewhere, or names something else.
    """
    subject = expected.prediction.subject
    if isinstance(subject, Volume):
        sources: Sequence[SliceSource] = subject.sources
        where = _in_volume(dataset, subject, expected)
    else:
        sources = [subject.sources[number] for number in part.frames]
        where = _by_reference(dataset, sources)
        _check_planes(dataset, where, sources, expected)
    _check_space(dataset, sources, expected)
    _check_references(dataset, where, sources, expected)
    return where


def voxel_mm3(dataset: Dataset, sources: Sequence[SliceSource], expected: Expected) -> float:
    """The volume of a voxel of a volume: by the pixels of an object, and the slices' own files.

    `check` has seen that each frame lies on its slice. Of few frames the mean distance is another
    than that of all slices, as far as these stray from where they should lie.

    Args:
        sources: Of the slices, in order.
    """
    down, right = _across(dataset, dataset.PerFrameFunctionalGroupsSequence[0])
    whole = expected.position(sources[-1]) - expected.position(sources[0])
    # The length of the normal is the area of a pixel.
    return abs(float(np.cross(down, right) @ whole)) / (len(sources) - 1)


def _positions(dataset: Dataset) -> NDArray[np.float64]:
    frames = dataset.PerFrameFunctionalGroupsSequence
    return np.array(
        [frame.PlanePositionSequence[0].ImagePositionPatient for frame in frames], dtype=np.float64
    )


def _across(dataset: Dataset, frame: Dataset) -> NDArray[np.float64]:
    """The step in mm to the next row and to the next column: shape (2, 3)."""
    orientation = _group(dataset, frame, "PlaneOrientationSequence").ImageOrientationPatient
    between = _group(dataset, frame, "PixelMeasuresSequence").PixelSpacing
    cosines = np.array(orientation, dtype=np.float64)
    return np.stack([cosines[3:] * float(between[0]), cosines[:3] * float(between[1])])


def _group(dataset: Dataset, frame: Dataset, keyword: str) -> Dataset:
    """A functional group of a frame: its own, or the shared one."""
    for groups in (frame, dataset.SharedFunctionalGroupsSequence[0]):
        if keyword in groups:
            item: Dataset = groups[keyword].value[0]
            return item
    raise KeyError(keyword)


def _in_volume(dataset: Dataset, volume: Volume, expected: Expected) -> list[int]:
    require(
        (dataset.Rows, dataset.Columns) == volume.array.shape[1:],
        "grid-differs",
        "The frames have not the size of the source's.",
    )
    across = _across(dataset, dataset.PerFrameFunctionalGroupsSequence[0])
    to_index: NDArray[np.float64] = np.linalg.inv(volume.affine).astype(np.float64)
    return [
        _slice(position, across, to_index, volume, expected) for position in _positions(dataset)
    ]


def _slice(
    position: NDArray[np.float64],
    across: NDArray[np.float64],
    to_index: NDArray[np.float64],
    volume: Volume,
    expected: Expected,
) -> int:
    """The slice of the volume that a frame lies on, corner on corner."""
    index = round(float((to_index @ [*position, 1])[0]))
    slices, rows, columns = volume.array.shape
    require(0 <= index < slices, "frame-elsewhere", "A frame lies beyond the slices of the source.")
    last_row, last_column = rows - 1, columns - 1
    corners = np.array([[0, 0], [last_row, 0], [0, last_column], [last_row, last_column]])
    found = position + corners @ across
    placed = np.column_stack([np.full(4, index), corners, np.ones(4)]) @ volume.affine[:3].T
    source = expected.position(volume.sources[index])
    require(
        bool(np.linalg.norm(found - placed, axis=1).max() <= _tolerance(expected))
        and bool(np.linalg.norm(position - source) <= _WRITING_MM),
        "frame-elsewhere",
        f"A frame does not lie where slice {index} of the source lies.",
    )
    return index


def _tolerance(expected: Expected) -> float:
    """How far in mm a slice may lie from where the affine puts it."""
    uneven = any(given.irregular_spacing for given in expected.bundle.manifest.inputs.values())
    share = _UNEVEN if uneven else POSITION_TOLERANCE
    return share * expected.prediction.volume.spacing[0] + _WRITING_MM


def _check_space(dataset: Dataset, sources: Sequence[SliceSource], expected: Expected) -> None:
    has_places = "PlanePositionSequence" in dataset.PerFrameFunctionalGroupsSequence[0]
    for uid in {source.sop_instance_uid for source in sources}:
        header = expected.headers[uid]
        meant = header.get("FrameOfReferenceUID") if has_places else None
        require(
            dataset.get("FrameOfReferenceUID") == meant,
            "frame-of-reference-differs",
            "The object lies in another frame of reference than its source.",
        )


def _by_reference(dataset: Dataset, sources: Sequence[SliceSource]) -> list[int]:
    """Which source each frame names: what there is to go by where nothing says where it lies."""
    known = {_reference(source): index for index, source in enumerate(sources)}
    found = [_named(frame) for frame in dataset.PerFrameFunctionalGroupsSequence]
    require(
        all(len(one) == 1 and one[0] in known for one in found),
        "reference-differs",
        "A frame names another image than those that the model was shown.",
    )
    return [known[one[0]] for one in found]


def _check_planes(
    dataset: Dataset, where: Sequence[int], sources: Sequence[SliceSource], expected: Expected
) -> None:
    """Images that say where they lie: so do the frames on them, and equally."""
    headers = [expected.headers[source.sop_instance_uid] for source in sources]
    require(
        {(header.Rows, header.Columns) for header in headers} == {(dataset.Rows, dataset.Columns)},
        "grid-differs",
        "The frames have not the size of the source's.",
    )
    frames = dataset.PerFrameFunctionalGroupsSequence
    spaces = {str(header.get("FrameOfReferenceUID")) for header in headers}
    have_places = all(one.position is not None for one in sources) and len(spaces) == 1
    require(
        all(("PlanePositionSequence" in frame) == have_places for frame in frames),
        "frame-elsewhere",
        "The frames do not say where they lie, or say it where no source does.",
    )
    if not have_places:
        return
    for frame, index in zip(frames, where, strict=True):
        found = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, dtype=np.float64)
        across = _across(dataset, frame)
        meant = expected.across(sources[index])
        require(
            bool(np.linalg.norm(found - expected.position(sources[index])) <= _WRITING_MM)
            and bool(np.abs(across - meant).max() <= _WRITING_MM),
            "frame-elsewhere",
            f"A frame does not lie where image {index + 1} lies.",
        )


def _check_references(
    dataset: Dataset, where: Sequence[int], sources: Sequence[SliceSource], expected: Expected
) -> None:
    """Each frame names the frame that it lies on, and the object names all of them."""
    for frame, index in zip(dataset.PerFrameFunctionalGroupsSequence, where, strict=True):
        require(
            _named(frame) == [_reference(sources[index])],
            "reference-differs",
            f"The frame on slice {index} names another source.",
        )
    listed = [
        (item.SeriesInstanceUID, instance.ReferencedSOPInstanceUID)
        for item in dataset.get("ReferencedSeriesSequence", ())
        for instance in item.ReferencedInstanceSequence
    ]
    uids = {source.sop_instance_uid for source in sources}
    meant = [(expected.headers[uid].SeriesInstanceUID, uid) for uid in uids]
    require(
        sorted(listed) == sorted(meant),
        "reference-differs",
        "Referenced Series Sequence does not list the sources.",
    )


def _reference(source: SliceSource) -> tuple[Any, ...]:
    number = source.frame_number if source.is_multiframe else None
    return (source.sop_class_uid, source.sop_instance_uid, number)


def _named(frame: Dataset) -> list[tuple[Any, ...]]:
    return [
        (i.ReferencedSOPClassUID, i.ReferencedSOPInstanceUID, i.get("ReferencedFrameNumber"))
        for derivation in frame.get("DerivationImageSequence", ())
        for i in derivation.get("SourceImageSequence", ())
    ]
