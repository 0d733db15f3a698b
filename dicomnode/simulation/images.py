"""Images of each kind, as the standard has them: slices, radiographs, mammographies, ultrasound."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.tag import Tag
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    CTImageStorage,
    DigitalMammographyXRayImageStorageForPresentation,
    MRImageStorage,
    UltrasoundImageStorage,
    UltrasoundMultiFrameImageStorage,
)

from dicomnode.simulation import chance, header
from dicomnode.simulation.header import Subject
from dicomnode.simulation.planned import Content, Edit

IMAGE_COMMENT = "SIMULATED: not an image of a patient."
SPACING_MM = 2.0
FIELD_MM = 320.0
AXIAL = (1, 0, 0, 0, 1, 0)
_BRIGHT = 900
_FRAME_TIME_MS = 40


def ct(subject: Subject) -> Dataset:
    """A CT image, or a localizer (PS3.3 A.3)."""
    dataset = _slice(subject, CTImageStorage)
    is_localizer = subject.series.content is Content.LOCALIZER
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER" if is_localizer else "AXIAL"]
    dataset.KVP = 120
    dataset.RescaleIntercept, dataset.RescaleSlope = -1024, 1
    if not is_localizer:
        dataset.RescaleType = "HU"
    dataset.PatientPosition = "HFS"
    dataset.AcquisitionNumber = 1
    return dataset


def mr(subject: Subject) -> Dataset:
    """An MR image (PS3.3 A.4)."""
    dataset = _slice(subject, MRImageStorage)
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
    dataset.ScanningSequence, dataset.SequenceVariant = "SE", "NONE"
    dataset.ScanOptions, dataset.MRAcquisitionType = "", "2D"
    dataset.RepetitionTime, dataset.EchoTime, dataset.EchoTrainLength = 500, 12, 1
    dataset.PatientPosition = "HFS"
    dataset.AcquisitionNumber = 1
    return dataset


def radiograph(subject: Subject) -> Dataset:
    """A computed radiography image (PS3.3 A.2)."""
    dataset = header.begun(subject, ComputedRadiographyImageStorage)
    dataset.ImageType = ["ORIGINAL", "PRIMARY"]
    dataset.BodyPartExamined = "HAND"
    dataset.Laterality = "L"
    dataset.ViewPosition = "PA" if subject.series.number == 1 else "LL"
    dataset.PatientOrientation = ["R", "F"]
    _pixels(dataset, subject, frames=1)
    return dataset


def view(subject: Subject) -> Dataset:
    """One of the four views of a mammography, for presentation (PS3.3 A.27)."""
    dataset = header.begun(subject, DigitalMammographyXRayImageStorageForPresentation)
    side = "RL"[subject.item.number % 2]
    is_oblique = subject.item.number > 2  # noqa: PLR2004 - two and two
    dataset.ImageType = ["ORIGINAL", "PRIMARY"]
    dataset.PresentationIntentType = "FOR PRESENTATION"
    dataset.BodyPartExamined = "BREAST"
    dataset.OrganExposed, dataset.PositionerType = "BREAST", "MAMMOGRAPHIC"
    dataset.ImageLaterality = side
    dataset.PatientOrientation = ["P", "F" + side] if side == "L" else ["A", "FR"]
    dataset.BreastImplantPresent, dataset.PartialView = "NO", "NO"
    dataset.AnatomicRegionSequence = [code("76752008", "SCT", "Breast")]
    dataset.ViewCodeSequence = [
        code("399368009", "SCT", "medio-lateral oblique")
        if is_oblique
        else code("399162004", "SCT", "cranio-caudal")
    ]
    dataset.ViewCodeSequence[0].ViewModifierCodeSequence = []
    dataset.AcquisitionContextSequence = []
    dataset.DetectorType, dataset.DetectorID = "DIRECT", "SIMULATED"
    dataset.ImagerPixelSpacing = dataset.PixelSpacing = [0.1, 0.1]
    dataset.PixelIntensityRelationship, dataset.PixelIntensityRelationshipSign = "LOG", 1
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = 0, 1, "US"
    dataset.PresentationLUTShape = "IDENTITY"
    dataset.WindowCenter, dataset.WindowWidth = 600, 1200
    dataset.VOILUTFunction = "LINEAR"
    _pixels(dataset, subject, frames=1)
    return dataset


def ultrasound(subject: Subject) -> Dataset:
    """A still, or a cine (PS3.3 A.6, A.7)."""
    frames = subject.series.frames
    is_cine = subject.series.content is Content.CINE
    sop_class = UltrasoundMultiFrameImageStorage if is_cine else UltrasoundImageStorage
    dataset = header.begun(subject, sop_class)
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "ABDOMINAL", "0001"]
    dataset.PatientOrientation = ""
    dataset.BodyPartExamined = "LIVER"
    if is_cine:
        dataset.NumberOfFrames = frames
        dataset.FrameTime = _FRAME_TIME_MS
        dataset.FrameIncrementPointer = Tag("FrameTime")
    _pixels(dataset, subject, frames=frames, bits=8)
    return dataset


def _slice(subject: Subject, sop_class_uid: str) -> Dataset:
    dataset = header.begun(subject, sop_class_uid)
    dataset.SliceThickness = SPACING_MM
    dataset.PixelSpacing = [spacing(subject)] * 2
    dataset.ImageOrientationPatient = list(AXIAL)
    dataset.ImagePositionPatient = position(subject.item.number)
    dataset.BodyPartExamined = "HEAD" if subject.series.modality == "MR" else "CHEST"
    _pixels(dataset, subject, frames=1)
    return dataset


def position(number: int) -> list[float]:
    """Where a slice lies (Image Position (Patient), mm)."""
    return [-FIELD_MM / 2, -FIELD_MM / 2, SPACING_MM * number]


def spacing(subject: Subject) -> float:
    """The step between rows and between columns (mm)."""
    return round(FIELD_MM / subject.series.matrix, 4)


def _pixels(dataset: Dataset, subject: Subject, *, frames: int, bits: int = 16) -> None:
    matrix = subject.series.matrix
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows = dataset.Columns = matrix
    dataset.BitsAllocated = bits
    dataset.BitsStored = min(bits, 12)
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = 0
    dataset.BurnedInAnnotation = "NO"
    dataset.LossyImageCompression = "00"
    dataset.ImageComments = IMAGE_COMMENT
    dataset.PixelData = pixels(subject, frames=frames, bits=bits)


def pixels(subject: Subject, *, frames: int, bits: int = 16) -> bytes:
    """A bright body on a slope, that changes from slice to slice and from object to object."""
    rng = chance.of(subject.sop_instance_uid, subject.item.edit is Edit.OTHER_CONTENT)
    shade = rng.randrange(100)
    body = _body(subject.series.matrix)
    volume = np.stack([np.roll(body, frame) + (shade + frame) for frame in range(frames)])
    if bits > 8:  # noqa: PLR2004 - bits of a byte
        return volume.astype("<u2").tobytes()
    encoded = (volume // 16).astype(np.uint8).tobytes()
    return encoded + b"\0" * (len(encoded) % 2)


@lru_cache(maxsize=8)
def _body(matrix: int) -> NDArray[np.int32]:
    rows, columns = np.indices((matrix, matrix)) / matrix - 0.5
    inside = (rows / 0.3) ** 2 + (columns / 0.2) ** 2 <= 1
    slope = ((rows + columns + 1) * 200).astype(np.int32)
    return np.asarray(slope + inside * _BRIGHT, dtype=np.int32)


def code(value: str, scheme: str, meaning: str) -> Dataset:
    """An item of a Code Sequence (PS3.3 8.8)."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def item(**attributes: Any) -> Dataset:
    """An item of a sequence."""
    made = Dataset()
    for keyword, value in attributes.items():
        setattr(made, keyword, value)
    return made
