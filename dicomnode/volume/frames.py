"""Files → frames: what each single image says of itself, before it is known of the others."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.pixels.processing import apply_modality_lut

from dicomnode.errors import RetryLater, UnsuitableSeries

UNIT_TOLERANCE = 1e-3  # of the length and of the right angle of the two direction cosines

_PIXEL_KEYWORDS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_HAS_GROUPS = "PerFrameFunctionalGroupsSequence"
_TRANSFORMATION, _WINDOW = "PixelValueTransformation", "FrameVOILUT"
# Secondary captures with functional groups say these of the whole image (PS3.3 C.8.6.3).
_ALSO_OF_THE_IMAGE = (_TRANSFORMATION, _WINDOW)
# Functional group → what is read of it to show a frame; "" for the image itself.
_SHOWN = {
    "": ("BitsStored", "PixelRepresentation", "PhotometricInterpretation"),
    _TRANSFORMATION: ("RescaleSlope",),
    _WINDOW: ("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence"),
}
_UIDS = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")

#: What pydicom and its decoders raise for bytes that they cannot make sense of.
UNDECODABLE = (
    AttributeError,
    EOFError,
    InvalidDicomError,
    KeyError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)


@dataclass(frozen=True, kw_only=True)
class SliceSource:
    """The frame that one slice of a volume was read from.

    Attributes:
        path: The file, absolute.
        frame_number: 1 for a single-frame instance (PS3.3 counts frames from 1).
        is_multiframe: Whether the instance is an enhanced one, whose frames have numbers.
        position: Image Position (Patient) (0020,0032) as the source has it: LPS, mm; `None` for an
            image that does not say where it lies.
    """

    sop_instance_uid: str
    sop_class_uid: str
    path: str
    frame_number: int
    is_multiframe: bool
    position: tuple[float, float, float] | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Frame:
    """One frame of an image.

    Attributes:
        dataset: The whole instance.
        orientation: Image Orientation (Patient): direction cosines of the rows, of the columns.
        pixel_spacing: Pixel Spacing: mm between rows, mm between columns.
        slice_thickness: Slice Thickness in mm; `None` where the image does not say.
        rescale: Rescale Slope and Intercept; `None` where there are none.
        rescale_type: Rescale Type (0028,1054): what the values are then; "" where it is not said.
    """

    dataset: Dataset
    source: SliceSource
    orientation: NDArray[np.float64]
    pixel_spacing: NDArray[np.float64]
    slice_thickness: float | None
    rescale: tuple[float, float] | None
    rescale_type: str

    @property
    def position(self) -> NDArray[np.float64]:
        """Image Position (Patient): LPS, mm."""
        return np.array(self.source.position)


def read(path: Path) -> Dataset:
    """Read an instance, pixels included, and make sure that a result can refer to it.

    Raises:
        RetryLater: The file could not be read just now.
        UnsuitableSeries: `undecodable` or `no-identity`.
    """
    try:
        dataset = dcmread(path)
    except OSError as error:
        raise RetryLater(
            "file-unavailable", f"A file could not be read: {error.strerror}."
        ) from error
    except UNDECODABLE as error:
        raise UnsuitableSeries("undecodable", f"A file is not readable DICOM: {error}.") from error
    for keyword in _UIDS:
        if not dataset.get(keyword):
            raise UnsuitableSeries(
                "no-identity", f"{keyword} is missing or empty: no result could refer to the image."
            )
    return dataset


def split(dataset: Dataset) -> Iterator[Frame]:
    """Give each frame of an image: one of a single-frame image, all of an enhanced multi-frame one.

    Raises:
        UnsuitableSeries: `no-geometry` or `incomplete-rescale`.
    """
    if _HAS_GROUPS in dataset:
        for number in range(1, len(dataset.PerFrameFunctionalGroupsSequence) + 1):
            yield _frame(dataset, number)
    elif int(dataset.get("NumberOfFrames") or 1) > 1:
        raise UnsuitableSeries(
            "no-geometry", "The frames of a multi-frame image have no positions."
        )
    else:
        yield _frame(dataset, None)


def single(dataset: Dataset) -> Frame:
    """The place that all frames of a classic image share.

    Raises:
        UnsuitableSeries: As `split`.
    """
    return _frame(dataset, None)


def rescaled(stored: NDArray[Any], dataset: Dataset, number: int) -> NDArray[Any]:
    """The values of one frame after its Modality LUT (PS3.3 C.11.1).

    Raises:
        UnsuitableSeries: `incomplete-rescale`.
    """
    if dataset.get("ModalityLUTSequence"):
        return apply_modality_lut(stored, dataset)
    rescale = _rescale(dataset, number if _HAS_GROUPS in dataset else None)
    return stored if rescale is None else stored * rescale[0] + rescale[1]


def display(dataset: Dataset, number: int) -> Dataset:
    """What says how the values of one frame are shown: of an enhanced image, its own groups."""
    if _HAS_GROUPS not in dataset:
        return dataset
    found = Dataset()
    for group, keywords in _SHOWN.items():
        for keyword in keywords:
            value = attribute(dataset, number, group, keyword) if group else dataset.get(keyword)
            if value is not None:
                setattr(found, keyword, value)
    return found


def without_pixels(dataset: Dataset) -> Dataset:
    """The header of an instance."""
    return Dataset({e.tag: e for e in dataset if e.keyword not in _PIXEL_KEYWORDS})


def _frame(dataset: Dataset, number: int | None) -> Frame:
    """Read one frame; `number` is `None` for a single-frame image."""
    orientation = _numbers(dataset, number, "PlaneOrientation", "ImageOrientationPatient", count=6)
    spacing = _numbers(dataset, number, "PixelMeasures", "PixelSpacing", count=2)
    x, y, z = _numbers(dataset, number, "PlanePosition", "ImagePositionPatient", count=3)
    thickness = attribute(dataset, number, "PixelMeasures", "SliceThickness")
    rows, columns = orientation[:3], orientation[3:]
    skew = (rows @ rows - 1, columns @ columns - 1, rows @ columns)
    if np.abs(skew).max() > UNIT_TOLERANCE or spacing.min() <= 0:
        raise UnsuitableSeries(
            "no-geometry",
            "ImageOrientationPatient is not two perpendicular unit vectors, or PixelSpacing is not"
            " positive.",
        )
    if not dataset.get("FrameOfReferenceUID"):
        raise UnsuitableSeries("no-geometry", "FrameOfReferenceUID is missing or empty.")
    return Frame(
        dataset=dataset,
        source=SliceSource(
            sop_instance_uid=str(dataset.SOPInstanceUID),
            sop_class_uid=str(dataset.SOPClassUID),
            path=str(Path(str(dataset.filename)).absolute()),
            frame_number=number or 1,
            is_multiframe=number is not None,
            position=(float(x), float(y), float(z)),
        ),
        orientation=orientation,
        pixel_spacing=spacing,
        slice_thickness=float(thickness) if thickness else None,
        rescale=_rescale(dataset, number),
        rescale_type=str(attribute(dataset, number, _TRANSFORMATION, "RescaleType") or ""),
    )


def _rescale(dataset: Dataset, number: int | None) -> tuple[float, float] | None:
    keywords = ("RescaleSlope", "RescaleIntercept")
    values = [attribute(dataset, number, _TRANSFORMATION, keyword) for keyword in keywords]
    if values == [None, None]:
        return None
    if None in values:
        raise UnsuitableSeries("incomplete-rescale", f"{' and '.join(keywords)} go together.")
    slope, intercept = map(float, values)
    return slope, intercept


def _numbers(
    dataset: Dataset, number: int | None, group: str, keyword: str, *, count: int
) -> NDArray[np.float64]:
    try:
        values = np.array(attribute(dataset, number, group, keyword), dtype=np.float64)
    except (TypeError, ValueError):
        values = np.empty(0)
    if values.shape != (count,) or not np.isfinite(values).all():
        raise UnsuitableSeries("no-geometry", f"{keyword} is missing or not {count} numbers.")
    return values


def attribute(dataset: Dataset, number: int | None, group: str, keyword: str) -> Any:
    """The value of an attribute that an enhanced image keeps in a functional group.

    `None` where neither the frame's own group nor the shared one has it (PS3.3 C.7.6.16.1).

    Args:
        number: Of the frame, from 1; `None` of an image that has no functional groups.
    """
    if number is None:
        return dataset.get(keyword)
    own = dataset.PerFrameFunctionalGroupsSequence[number - 1]
    for groups in (own, *(dataset.get("SharedFunctionalGroupsSequence") or ())):
        if items := groups.get(f"{group}Sequence"):
            return items[0].get(keyword)
    return dataset.get(keyword) if group in _ALSO_OF_THE_IMAGE else None


def decode(dataset: Dataset) -> NDArray[Any]:
    """Decode the pixels of all frames: shape (frames, rows, columns).

    A Modality LUT that is a table is applied here; `Frame.rescale` is left to the caller.

    Raises:
        UnsuitableSeries: `undecodable`.
    """
    count = len(dataset.get(_HAS_GROUPS) or [None])
    try:
        stored = dataset.pixel_array.reshape(count, dataset.Rows, dataset.Columns)
        return apply_modality_lut(stored, dataset) if "ModalityLUTSequence" in dataset else stored
    except UNDECODABLE as error:
        raise UnsuitableSeries("undecodable", f"Pixels could not be decoded: {error}") from error
