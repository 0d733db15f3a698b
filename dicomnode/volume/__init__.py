"""Series → `Volume`: the one place where DICOM becomes an array with an affine.

What does not make a regular volume is refused by name; nothing is guessed, repaired or left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pydicom.uid
from numpy.typing import NDArray
from pydicom import Dataset

from dicomnode import bundle
from dicomnode.errors import NotApplicable, UnsuitableSeries
from dicomnode.volume import frames as reading
from dicomnode.volume import geometry
from dicomnode.volume.frames import Frame, SliceSource
from dicomnode.volume.images import Images, Picture
from dicomnode.volume.slide import Slide

__all__ = ["Images", "Picture", "Plane", "Slide", "SliceSource", "Volume", "load", "meets"]

Plane = Literal["axial", "sagittal", "coronal"]

_PLANES: tuple[Plane, Plane, Plane] = ("sagittal", "coronal", "axial")  # by the normal's main axis
_DECODERS = 4  # threads; most decoders let the others run while they work
_CONTRACT_DECIMALS = 4  # 1.0000000001 mm is 1 mm
_MONOCHROME = ("MONOCHROME1", "MONOCHROME2")
_PIXEL_KEYWORDS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")

#: keyword → why a series may have only one value of it.
_ONE_FOR_ALL = {
    "PatientID": "mixed-patients",
    "IssuerOfPatientID": "mixed-patients",
    "PatientName": "mixed-patients",
    "PatientBirthDate": "mixed-patients",
    "StudyInstanceUID": "mixed-studies",
    "AccessionNumber": "mixed-studies",
    "SeriesInstanceUID": "mixed-series",
    "Modality": "mixed-modalities",
    "FrameOfReferenceUID": "two-frames-of-reference",
    "Rows": "mixed-size",
    "Columns": "mixed-size",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Volume:
    """A series as an array with a position in the patient.

    Attributes:
        array: Shape (slices, rows, columns), after the Modality LUT (PS3.4 N.2.1.1). MONOCHROME1
            is not inverted: that is a matter of presentation.
        affine: 4 by 4; maps (slice, row, column, 1) to patient coordinates LPS in mm (PS3.3
            C.7.6.2.1.1). Slices are ordered along the normal, rows cross columns. Where irregular
            spacing was tolerated, the slice step is the mean one.
        sources: For each slice the frame that it came from.
        modality: Modality (0008,0060).
        frame_of_reference_uid: Frame of Reference UID (0020,0052).
        orientation: Image Orientation (Patient) (0020,0037) as the first slice has it.
        pixel_spacing: Pixel Spacing (0028,0030) as the first slice has it: mm between rows,
            mm between columns.
        slice_thickness: Slice Thickness (0018,0050) of the first slice in mm; `None` where the
            source does not say.
        header: The first slice's instance without its pixels: results copy the identity from it.
    """

    array: NDArray[np.float32] = field(repr=False)
    affine: NDArray[np.float64]
    sources: tuple[SliceSource, ...] = field(repr=False)
    modality: str
    frame_of_reference_uid: str
    orientation: tuple[float, ...] = field(repr=False)
    pixel_spacing: tuple[float, float] = field(repr=False)
    slice_thickness: float | None = field(repr=False)
    header: Dataset = field(repr=False)

    @cached_property
    def spacing(self) -> tuple[float, float, float]:
        """Step in mm to the next slice, row and column."""
        slices, rows, columns = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(slices), float(rows), float(columns)

    @cached_property
    def voxel_mm3(self) -> float:
        """Volume of one voxel in mm³; right for a tilted gantry, too."""
        return abs(float(np.linalg.det(self.affine[:3, :3])))

    @property
    def slice_distance(self) -> float:
        """Distance in mm between slices along their normal, even where the gantry is tilted."""
        return self.voxel_mm3 / (self.spacing[1] * self.spacing[2])

    @property
    def plane(self) -> Plane:
        """The plane that the slices are nearest to."""
        return _PLANES[int(np.argmax(np.abs(geometry.normal_of(self.orientation))))]


def load(files: Sequence[Path], *, contract: bundle.Input | None = None) -> Volume:
    """Read the files of one series, in any order, into a volume.

    Single-frame images and enhanced multi-frame ones (PS3.3 C.7.6.16) are read alike.

    Args:
        files: Every file of the series.
        contract: What the model asks of this input, and what it tolerates.

    Raises:
        NotApplicable: The series is not what `contract` asks for.
        UnsuitableSeries: The images do not make a regular volume; the reason says why.
        RetryLater: A file could not be read just now.
    """
    with ThreadPoolExecutor(_DECODERS) as pool:
        datasets = list(pool.map(reading.read, files))
        if contract is not None:
            for dataset in datasets:
                _meets_kind(
                    str(dataset.get("Modality") or ""), {str(dataset.SOPClassUID)}, contract
                )
        _check_images(datasets)
        frames = geometry.along_normal([f for d in datasets for f in reading.split(d)])
        affine = geometry.affine_of(
            frames,
            irregular=contract is not None and contract.irregular_spacing,
            tilted=contract is not None and contract.gantry_tilt,
        )
        pixels = zip(datasets, pool.map(reading.decode, datasets), strict=True)
        array = _array(frames, {id(dataset): decoded for dataset, decoded in pixels})
    volume = _volume(frames, affine=affine, array=array)
    if contract is not None:
        meets(volume, contract)
    return volume


def meets(volume: Volume, contract: bundle.Input) -> None:
    """Check `volume` against what a model asks of its input (`inputs` of `dicom.toml`).

    Raises:
        NotApplicable: The detail names the clause that does not hold.
    """
    _meets_kind(volume.modality, {s.sop_class_uid for s in volume.sources}, contract)
    if contract.planes and volume.plane not in contract.planes:
        raise NotApplicable(
            "wrong-plane",
            f"The slices are {volume.plane}; `planes` asks for {' or '.join(contract.planes)}.",
        )
    channels = bundle.Range(min=contract.channels, max=contract.channels)
    _within("wrong-slice-count", volume.array.shape[0], contract.slices, "slices")
    _within("wrong-channel-count", 1, channels, "channels")
    _within("wrong-spacing", volume.spacing[0], contract.slice_spacing_mm, "slice_spacing_mm")
    for voxels, spacing in zip(volume.array.shape, volume.spacing, strict=True):
        _within("wrong-spacing", spacing, contract.spacing_mm, "spacing_mm")
        _within("wrong-extent", voxels * spacing, contract.extent_mm, "extent_mm")


def _meets_kind(modality: str, sop_classes: set[str], contract: bundle.Input) -> None:
    if modality not in contract.modalities:
        raise NotApplicable(
            "wrong-modality",
            f"Modality is {modality or 'empty'}; `modality` asks for"
            f" {' or '.join(contract.modalities)}.",
        )
    meant = {getattr(pydicom.uid, keyword) for keyword in contract.sop_classes}
    for foreign in sorted(sop_classes - meant):
        raise NotApplicable(
            "wrong-sop-class",
            f"{pydicom.uid.UID(foreign).name} is not among `sop_classes`: "
            f"{', '.join(contract.sop_classes)}.",
        )


def _within(reason: str, value: float, limits: bundle.Range, clause: str) -> None:
    if not limits.holds(round(value, _CONTRACT_DECIMALS)):
        low = "any" if limits.min is None else f"{limits.min:g}"
        high = "any" if limits.max is None else f"{limits.max:g}"
        raise NotApplicable(reason, f"`{clause}` asks for {low} to {high}; found {value:.6g}.")


def _check_images(datasets: Sequence[Dataset]) -> None:
    """Refuse what is not one series of one patient's images, before looking at where they lie."""
    if not datasets:
        raise UnsuitableSeries("no-images", "The series has no images.")
    for keyword, reason in _ONE_FOR_ALL.items():
        if len({str(dataset.get(keyword) or "") for dataset in datasets}) > 1:
            raise UnsuitableSeries(reason, f"{keyword} is not the same in all images.")
    for dataset in datasets:
        if "LOCALIZER" in (dataset.get("ImageType") or ()):
            raise UnsuitableSeries("localizer", "There is a localizer among the images.")
        if dataset.get("PhotometricInterpretation") not in _MONOCHROME:
            raise UnsuitableSeries("not-monochrome", "There are images that are not monochrome.")


def _array(frames: Sequence[Frame], pixels: Mapping[int, NDArray[Any]]) -> NDArray[np.float32]:
    """Stack the rescaled pixels of the ordered frames; `pixels` are found by `id(dataset)`."""
    rows, columns = frames[0].dataset.Rows, frames[0].dataset.Columns
    array = np.empty((len(frames), rows, columns), dtype=np.float32)
    for index, frame in enumerate(frames):
        slope, intercept = frame.rescale or (1.0, 0.0)
        stored = pixels[id(frame.dataset)][frame.source.frame_number - 1]
        array[index] = stored * slope + intercept
    if not np.isfinite(array).all():
        raise UnsuitableSeries("not-finite", "Some voxels are not finite numbers.")
    return array


def _volume(
    frames: Sequence[Frame], *, affine: NDArray[np.float64], array: NDArray[np.float32]
) -> Volume:
    first = frames[0]
    between_rows, between_columns = map(float, first.pixel_spacing)
    return Volume(
        array=array,
        affine=affine,
        sources=tuple(frame.source for frame in frames),
        modality=str(first.dataset.Modality),
        frame_of_reference_uid=str(first.dataset.FrameOfReferenceUID),
        orientation=tuple(map(float, first.orientation)),
        pixel_spacing=(between_rows, between_columns),
        slice_thickness=first.slice_thickness,
        header=Dataset({e.tag: e for e in first.dataset if e.keyword not in _PIXEL_KEYWORDS}),
    )
