"""Series → `Volume`: parallel slices become an array with an affine.

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
from numpy.typing import NDArray
from pydicom import Dataset

from dicomnode import bundle
from dicomnode.errors import NotApplicable, UnsuitableSeries
from dicomnode.volume import frames as reading
from dicomnode.volume import geometry, kind, suv
from dicomnode.volume.frames import Frame, SliceSource

Plane = Literal["axial", "sagittal", "coronal"]

_PLANES: tuple[Plane, Plane, Plane] = ("sagittal", "coronal", "axial")  # by the normal's main axis
# Rescale Types (PS3.3 C.11.1.1.2) on the scale of Hounsfield units; "US" says nothing of it.
_HOUNSFIELD = frozenset({"", "HU", "HU_MOD", "US"})
_DECODERS = 4  # threads; most decoders let the others run while they work


@dataclass(frozen=True, kw_only=True, eq=False)
class Volume:
    """A series as an array with a position in the patient.

    Attributes:
        array: Shape (slices, rows, columns), after the Modality LUT (PS3.4 N.2.1.1), or in
            standardized uptake values where the model asks for them. MONOCHROME1 is not inverted:
            that is a matter of presentation.
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
                kind.meets(str(dataset.get("Modality") or ""), {str(dataset.SOPClassUID)}, contract)
        kind.require_slices(datasets)
        frames = geometry.along_normal([f for d in datasets for f in reading.split(d)])
        if contract is not None and contract.values == "modality":
            _require_hounsfield(frames)
        affine = geometry.affine_of(
            frames,
            irregular=contract is not None and contract.irregular_spacing,
            tilted=contract is not None and contract.gantry_tilt,
        )
        pixels = zip(datasets, pool.map(reading.decode, datasets), strict=True)
        array = _array(frames, {id(dataset): decoded for dataset, decoded in pixels})
    if contract is not None and contract.values == "suvbw":
        array *= np.float32(suv.factor(datasets))
    volume = _volume(frames, affine=affine, array=array)
    if contract is not None:
        meets(volume, contract)
    return volume


def meets(volume: Volume, contract: bundle.Input) -> None:
    """Check `volume` against what a model asks of its input (`inputs` of `dicom.toml`).

    Raises:
        NotApplicable: The detail names the clause that does not hold.
    """
    kind.meets(volume.modality, {s.sop_class_uid for s in volume.sources}, contract)
    if contract.planes and volume.plane not in contract.planes:
        raise NotApplicable(
            "wrong-plane",
            f"The slices are {volume.plane}; `planes` asks for {' or '.join(contract.planes)}.",
        )
    kind.within("wrong-slice-count", volume.array.shape[0], contract.slices, "slices")
    kind.within("wrong-spacing", volume.spacing[0], contract.slice_spacing_mm, "slice_spacing_mm")
    for voxels, spacing in zip(volume.array.shape, volume.spacing, strict=True):
        kind.within("wrong-spacing", spacing, contract.spacing_mm, "spacing_mm")
        kind.within("wrong-extent", voxels * spacing, contract.extent_mm, "extent_mm")


def _require_hounsfield(frames: Sequence[Frame]) -> None:
    """Make sure that the values of a CT are Hounsfield units: a model knows no others.

    Raises:
        NotApplicable: `not-hounsfield`: a map of iodine, of electron density, of atomic numbers.
        UnsuitableSeries: `incomplete-rescale`.
    """
    for frame in frames:
        if frame.dataset.get("Modality") != "CT":
            continue
        if frame.rescale_type not in _HOUNSFIELD:
            raise NotApplicable(
                "not-hounsfield",
                f"RescaleType is {frame.rescale_type}; the model takes Hounsfield units.",
            )
        if frame.rescale is None and "ModalityLUTSequence" not in frame.dataset:
            raise UnsuitableSeries(
                "incomplete-rescale", "RescaleSlope and RescaleIntercept of a CT are missing."
            )


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
        header=reading.without_pixels(first.dataset),
    )
