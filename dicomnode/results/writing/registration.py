"""Where another input lies in the space of the first: a Spatial Registration (PS3.3 A.39.1).

The registered space (C.20.2) is that of the first input: its Frame of Reference UID is the
object's. There are two items, one for each input: the first stays where it is, the other is moved
by the matrix. Where both claim one Frame of Reference UID, neither item names it: a matrix for a
space would be one for all that lies in it, and only the images that are named are to be moved.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import SpatialRegistrationStorage

from dicomnode.bundle import Code
from dicomnode.prediction import Registration
from dicomnode.results import common
from dicomnode.results.common import Run
from dicomnode.results.part import Part
from dicomnode.results.writing import multiframe
from dicomnode.volume import SliceSource, Volume

_CONTENT_LABEL = "REGISTRATION"  # a CS
# Registration Type: CID 7100.
_IDENTITY = Code(value="125021", scheme="DCM", meaning="Frame of Reference Identity")
_BY_CONTENT = Code(value="125024", scheme="DCM", meaning="Image Content-based Alignment")
_SHARED = "Both inputs have one Frame of Reference UID: see the images."  # an LO
_TOLERANCE = 1e-6  # of what makes a linear part a rotation


def build(run: Run, part: Part) -> Dataset:
    """Make the object of one registration."""
    answer = _answer(run, part)
    fixed, moving = _volume(run, None), _volume(run, answer.moving)
    is_shared = fixed.frame_of_reference_uid == moving.frame_of_reference_uid
    dataset = common.new(SpatialRegistrationStorage)
    dataset.Modality = "REG"
    dataset.ContentLabel = _CONTENT_LABEL
    dataset.ContentDescription = run.bundle.manifest.name
    dataset.ContentCreatorName = None  # type 2 (PS3.3 Table 10-12): nobody placed this
    dataset.FrameOfReferenceUID = fixed.frame_of_reference_uid
    dataset.PositionReferenceIndicator = None
    dataset.RegistrationSequence = [
        _item(fixed, np.eye(4), _IDENTITY, is_shared=is_shared),
        _item(moving, answer.matrix, _BY_CONTENT, is_shared=is_shared),
    ]
    dataset.ReferencedSeriesSequence = [_series(fixed), _series(moving)]
    common.complete(dataset, run, part)
    return dataset


def _answer(run: Run, part: Part) -> Registration:
    for answer in run.prediction.answers:
        if answer.output == part.output and isinstance(answer, Registration):
            return answer
    raise TypeError(f"{part.output} is no registration")


def _volume(run: Run, moving: int | None) -> Volume:
    shown = run.prediction.subject if moving is None else run.prediction.also_shown[moving]
    if not isinstance(shown, Volume):
        raise TypeError("only a volume is registered to a volume")
    return shown


def _item(volume: Volume, matrix: NDArray[np.float64], kind: Code, *, is_shared: bool) -> Dataset:
    """An item of the Registration Sequence (PS3.3 Table C.20.2-1)."""
    transformation = Dataset()
    transformation.FrameOfReferenceTransformationMatrixType = _type(matrix)
    transformation.FrameOfReferenceTransformationMatrix = [
        common.decimal(value) for value in matrix.ravel().tolist()
    ]
    registration = Dataset()
    registration.MatrixSequence = [transformation]
    registration.RegistrationTypeCodeSequence = [common.code_item(kind)]
    if is_shared:
        registration.FrameOfReferenceTransformationComment = _SHARED
    item = Dataset()
    if not is_shared:
        item.FrameOfReferenceUID = volume.frame_of_reference_uid
    item.ReferencedImageSequence = _references(volume)
    item.MatrixRegistrationSequence = [registration]
    return item


def _type(matrix: NDArray[np.float64]) -> str:
    """Frame of Reference Transformation Matrix Type (PS3.3 C.20.2.1.1)."""
    products = matrix[:3, :3].T @ matrix[:3, :3]
    if np.abs(products - np.eye(3)).max() <= _TOLERANCE:
        return "RIGID"
    across = products - np.diag(np.diag(products))
    return "RIGID_SCALE" if np.abs(across).max() <= _TOLERANCE else "AFFINE"


def _series(volume: Volume) -> Dataset:
    """An item of Common Instance Reference (PS3.3 C.12.2)."""
    item = Dataset()
    item.SeriesInstanceUID = volume.header.SeriesInstanceUID
    item.ReferencedInstanceSequence = _references(volume)
    return item


def _references(volume: Volume) -> list[Dataset]:
    return [multiframe.point_at(Dataset(), source) for source in _instances(volume)]


def _instances(volume: Volume) -> Iterator[SliceSource]:
    """One source for each instance: of an enhanced one all frames are meant."""
    yield from {one.sop_instance_uid: one for one in volume.sources}.values()
