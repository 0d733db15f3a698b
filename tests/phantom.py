"""An asymmetric object in the patient, scanned on any grid: every answer is known in advance.

Three bodies of different shape, size and brightness lie at fixed places in patient coordinates
(LPS, mm). No mirroring, transposition or shift of a volume maps the object onto itself, so none can
stay unseen. `write_series` samples it on the grid that it is asked for and writes the DICOM files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
)
from pydicom.valuerep import DSfloat

from dicomnode import bundle, uid
from dicomnode.profile import Profile

Points = NDArray[np.float64]

#: Where the middle of every volume lies (LPS, mm): far from 0, so that a sign error shows.
CENTER = np.array([12.5, -33.25, 41.75])

#: What a destination is sent that gets segmentations and the report, and nothing beside.
PLAIN = Profile(capture=False, regions=False, maps=False, images=False)

#: The names of the grids → direction cosines of rows and of columns, six digits as scanners write.
ORIENTATIONS: dict[str, tuple[float, ...]] = {
    "axial": (1, 0, 0, 0, 1, 0),
    "sagittal": (0, 1, 0, 0, 0, -1),
    "coronal": (1, 0, 0, 0, 0, -1),
    "oblique": (0.920273, 0.371814, 0.121869, -0.391241, 0.878683, 0.273583),
}

#: Label → the brightness that is added where the body is.
BRIGHTNESS = {0: 0, 1: 300, 2: 700, 3: 1100}


def label_at(points: Points) -> NDArray[np.uint8]:
    """Which body each point (…, 3) in patient coordinates lies in; 0 is none."""
    x, y, z = np.moveaxis(points - CENTER, -1, 0)
    labels = np.zeros(x.shape, dtype=np.uint8)
    labels[((x + 5) / 5) ** 2 + ((y + 3) / 4) ** 2 + ((z - 2) / 6) ** 2 <= 1] = 1
    labels[(np.abs(x - 5) <= 2.6) & (np.abs(y - 4) <= 4.1) & (np.abs(z + 4) <= 3.1)] = 2
    labels[(x - 2) ** 2 + (y + 6) ** 2 + (z - 6) ** 2 <= 2.9**2] = 3
    return labels


def value_at(points: Points) -> NDArray[np.int16]:
    """The brightness at each point: a slope along each axis, and the bodies on it."""
    slopes = (points - CENTER) @ np.array([3.0, 2.0, 1.0]) + 150
    bodies = np.array([BRIGHTNESS[label] for label in sorted(BRIGHTNESS)])[label_at(points)]
    values: NDArray[np.int16] = np.round(slopes + bodies).astype(np.int16)
    return values


@dataclass(frozen=True, kw_only=True)
class Phantom:
    """What was written, and what a right reader makes of it.

    Attributes:
        files: In an order that means nothing.
        key: What the UIDs were derived from.
        affine: Maps (slice, row, column, 1) to patient coordinates; slices ascend along the normal.
    """

    folder: Path
    files: tuple[Path, ...]
    key: str
    affine: NDArray[np.float64]
    shape: tuple[int, int, int]

    def file_of(self, index: int) -> Path:
        """The file of one slice, counted along the normal; of a series of single frames."""
        return self.folder / _file_name(_instance_uid(self.key, str(index)))

    @property
    def points(self) -> Points:
        """The centre of every voxel in patient coordinates: shape (slices, rows, columns, 3)."""
        index = np.moveaxis(np.indices(self.shape), 0, -1)
        return index @ self.affine[:3, :3].T + self.affine[:3, 3]

    @property
    def labels(self) -> NDArray[np.uint8]:
        """The true label map on the volume's grid."""
        return label_at(self.points)

    @property
    def values(self) -> NDArray[np.int16]:
        """The true stored values on the volume's grid."""
        return value_at(self.points)


@dataclass(frozen=True, kw_only=True)
class _Scan:
    """The grid, and what stands in every header."""

    orientation: tuple[float, ...]
    spacing: tuple[float, float, float]
    shape: tuple[int, int, int]
    key: str
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def affine(self) -> NDArray[np.float64]:
        rows, columns = np.array(self.orientation[:3]), np.array(self.orientation[3:])
        affine = np.eye(4)
        affine[:3, :3] = np.stack([np.cross(rows, columns), columns, rows], axis=1) * self.spacing
        affine[:3, 3] = CENTER - affine[:3, :3] @ ((np.array(self.shape) - 1) / 2)
        # As a scanner writes it; what is read back is then exact.
        affine[:3, 3] = np.round(affine[:3, 3], 4)
        return affine

    def position(self, index: int) -> list[float]:
        return [float(v) for v in self.affine[:3, :3] @ [index, 0, 0] + self.affine[:3, 3]]


def write_series(
    folder: Path,
    *,
    orientation: str | Sequence[float] = "axial",
    reversed: bool = False,  # noqa: A002 - the word for a stack that runs against its normal
    spacing: tuple[float, float, float] = (2.5, 1.25, 1.5),
    shape: tuple[int, int, int] = (14, 24, 22),
    enhanced: bool = False,
    modality: str = "MR",
    key: str = "phantom",
    attributes: Mapping[str, Any] | None = None,
    edit: Callable[[int, Dataset], None] | None = None,
) -> Phantom:
    """Scan the object and write one series.

    Args:
        folder: Made if it is not there.
        orientation: A name of `ORIENTATIONS`, or six direction cosines.
        reversed: Whether instance numbers run against the normal of the slices.
        spacing: mm between slices, rows, columns.
        shape: Slices, rows, columns.
        enhanced: One Enhanced MR image, its frames stored in an order of their own.
        modality: "MR" or "CT" (with a rescale intercept of -1024).
        key: Another key gives other UIDs.
        attributes: Keyword → value for every instance.
        edit: Called with the slice's index along the normal, and its dataset, before it is written.
    """
    cosines = ORIENTATIONS[orientation] if isinstance(orientation, str) else tuple(orientation)
    scan = _Scan(
        orientation=cosines, spacing=spacing, shape=shape, key=key, attributes=attributes or {}
    )
    folder.mkdir(parents=True, exist_ok=True)
    phantom = Phantom(folder=folder, files=(), key=key, affine=scan.affine, shape=shape)
    numbers = range(shape[0], 0, -1) if reversed else range(1, shape[0] + 1)
    if enhanced:
        datasets = [_enhanced(scan, phantom.values, numbers)]
    else:
        datasets = [
            _single(scan, index, phantom.values[index], number=number, modality=modality)
            for index, number in enumerate(numbers)
        ]
    for index, dataset in enumerate(datasets):
        if edit is not None:
            edit(index, dataset)
    files = tuple(sorted(_write(folder, dataset) for dataset in datasets))
    return replace(phantom, files=files)


def a_bundle(**manifest: Any) -> bundle.Bundle:
    """A bundle that labels the three bodies of the phantom, with `manifest` to change it."""
    left = bundle.Code(value="7771000", scheme="SCT", meaning="Left")
    tissue = bundle.Code(value="85756007", scheme="SCT", meaning="Tissue")
    anatomy = bundle.Code(value="123037004", scheme="SCT", meaning="Anatomical Structure")
    segments = (
        bundle.Segment(
            label=1,
            name="Ellipsoid",
            category=anatomy,
            type=bundle.Code(value="10200004", scheme="SCT", meaning="Liver"),
            type_modifier=bundle.Code(value="255549009", scheme="SCT", meaning="Anterior"),
            laterality=left,
            color="#ff5c38",
            measure=("volume",),
        ),
        bundle.Segment(
            label=2,
            name="Box",
            category=bundle.Code(
                value="49755003", scheme="SCT", meaning="Morphologically Abnormal Structure"
            ),
            type=bundle.Code(value="4147007", scheme="SCT", meaning="Mass"),
            anatomic_region=bundle.Code(value="12738006", scheme="SCT", meaning="Brain"),
            laterality=left,
            color="#3fa7ff",
            measure=("volume",),
        ),
        bundle.Segment(
            label=5, name="Nowhere", category=tissue, type=tissue, color="#ffe14d",
            measure=("volume",),
        ),
        bundle.Segment(
            label=3, name="Ball", category=tissue, type=tissue, color="#61e294", measure=("volume",)
        ),
    )  # fmt: skip
    fields: dict[str, Any] = {
        "name": "Phantom bodies",
        "manufacturer": "Example makers",
        "family": bundle.Code(value="113092", scheme="DCM", meaning="Deformable Models"),
        "intended_use": "Tests.",
        "notice": "Research use only. Not for diagnosis.",
        "procedure": bundle.Code(
            value="25056-3", scheme="LN", meaning="MRI unspecified body region"
        ),
        "inputs": {"image": bundle.Input(modality="MR", sop_classes=("MRImageStorage",))},
        "outputs": {"bodies": bundle.LabelMapOutput(kind="label_map", segments=segments)},
    }
    return bundle.Bundle(
        root=Path("phantom_bundle"),
        manifest=bundle.Manifest(**(fields | manifest)),
        version="1.2.3",
        digest="ab" * 32,
    )


def _header(scan: _Scan, *, sop_class: str, instance: str) -> Dataset:
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "M"]
    dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = _instance_uid(scan.key, instance)
    dataset.StudyDate = dataset.SeriesDate = dataset.AcquisitionDate = dataset.ContentDate = (
        "20240229"
    )
    dataset.StudyTime = dataset.SeriesTime = dataset.AcquisitionTime = dataset.ContentTime = (
        "101112"
    )
    dataset.AccessionNumber = "A-0815"
    dataset.Modality = "MR"
    dataset.Manufacturer = "Scanner makers"
    dataset.ManufacturerModelName = "Tesla 1"
    dataset.DeviceSerialNumber = "SN7"
    dataset.SoftwareVersions = "9.9"
    dataset.ReferringPhysicianName = "Ref^Errer"
    dataset.StudyDescription = "Phantom study"
    dataset.SeriesDescription = "Bodies"
    dataset.PatientName = "Fantôme^Amélie"
    dataset.PatientID = "PHANTOM-1"
    dataset.IssuerOfPatientID = "Example hospital"
    dataset.PatientBirthDate = "19700131"
    dataset.PatientSex = "O"
    dataset.PatientAge = "054Y"
    dataset.BodyPartExamined = "BRAIN"
    dataset.StudyInstanceUID = uid.derived("phantom", "study")
    dataset.SeriesInstanceUID = uid.derived(scan.key, "series")
    dataset.StudyID = "S1"
    dataset.SeriesNumber = 4
    dataset.FrameOfReferenceUID = uid.derived("phantom", "frame of reference")
    dataset.PositionReferenceIndicator = ""
    _describe_pixels(dataset, scan)
    return dataset


def _describe_pixels(dataset: Dataset, scan: _Scan) -> None:
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    _, dataset.Rows, dataset.Columns = scan.shape
    dataset.BitsAllocated = 16
    dataset.BitsStored = 16
    dataset.HighBit = 15
    dataset.PixelRepresentation = 1


def _single(
    scan: _Scan, index: int, values: NDArray[np.int16], *, number: int, modality: str
) -> Dataset:
    sop_class = CTImageStorage if modality == "CT" else MRImageStorage
    dataset = _header(scan, sop_class=sop_class, instance=str(index))
    dataset.Modality = modality
    dataset.InstanceNumber = number
    dataset.SliceThickness = _ds(scan.spacing[0])
    dataset.PixelSpacing = [_ds(v) for v in scan.spacing[1:]]
    dataset.ImageOrientationPatient = [_ds(v) for v in scan.orientation]
    dataset.ImagePositionPatient = [_ds(v) for v in scan.position(index)]
    if modality == "CT":
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
    dataset.PixelData = values.astype("<i2").tobytes()
    for keyword, value in scan.attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def _enhanced(scan: _Scan, values: NDArray[np.int16], numbers: Sequence[int]) -> Dataset:
    """One instance; its frames go by twos, so that no order of frames is the order of slices."""
    order = sorted(range(scan.shape[0]), key=lambda index: (numbers[index] % 2, numbers[index]))
    dataset = _header(scan, sop_class=EnhancedMRImageStorage, instance="enhanced")
    dataset.InstanceNumber = 1
    dataset.NumberOfFrames = scan.shape[0]
    shared = Dataset()
    shared.PlaneOrientationSequence = [Dataset()]
    shared.PlaneOrientationSequence[0].ImageOrientationPatient = [_ds(v) for v in scan.orientation]
    shared.PixelMeasuresSequence = [Dataset()]
    shared.PixelMeasuresSequence[0].PixelSpacing = [_ds(v) for v in scan.spacing[1:]]
    shared.PixelMeasuresSequence[0].SliceThickness = _ds(scan.spacing[0])
    dataset.SharedFunctionalGroupsSequence = [shared]
    dataset.PerFrameFunctionalGroupsSequence = [_groups(scan, index) for index in order]
    dataset.PixelData = values[order].astype("<i2").tobytes()
    for keyword, value in scan.attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def _groups(scan: _Scan, index: int) -> Dataset:
    groups = Dataset()
    groups.PlanePositionSequence = [Dataset()]
    groups.PlanePositionSequence[0].ImagePositionPatient = [_ds(v) for v in scan.position(index)]
    groups.PixelValueTransformationSequence = [Dataset()]
    groups.PixelValueTransformationSequence[0].RescaleSlope = 1
    groups.PixelValueTransformationSequence[0].RescaleIntercept = 0
    groups.PixelValueTransformationSequence[0].RescaleType = "US"
    return groups


def _ds(value: float) -> DSfloat:
    return DSfloat(value, auto_format=True)


def _write(folder: Path, dataset: Dataset) -> Path:
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    path = folder / _file_name(dataset.SOPInstanceUID)
    dataset.save_as(path, enforce_file_format=True)
    return path


def _instance_uid(key: str, instance: str) -> str:
    return uid.derived(key, "instance", instance)


def _file_name(sop_instance_uid: str) -> str:
    return f"{hashlib.sha256(sop_instance_uid.encode()).hexdigest()[:12]}.dcm"
