"""Reads a derived image's values back into the patient, and compares them with what was made."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
    SecondaryCaptureImageStorage,
)

from dicomnode.bundle import Code, ImageOutput
from dicomnode.prediction import DerivedImage
from dicomnode.results.checking.expected import Expected, has_code, require, same
from dicomnode.results.part import Part
from dicomnode.results.writing.image_modules import PET_UNITS
from dicomnode.volume import SliceSource, Volume

_BITS = 16
_WRITING_MM = 1e-4  # what may get lost when a position is written as a decimal string
_HALF = 0.5 + 1e-3  # of a step: what rounding to whole pixels may cost
_DECIMALS = 1e-9  # of a value: what a decimal string may cost
_SOURCE = Code(value="121322", scheme="DCM", meaning="Source image for image processing operation")

#: Modality → the SOP class that its images have unless they are Secondary Captures.
_CLASSES: dict[str, UID] = {
    "CT": CTImageStorage,
    "MR": MRImageStorage,
    "PT": PositronEmissionTomographyImageStorage,
}
#: Of the groups that say how an image was acquired: what does not come from the source.
_ACQUISITION_GROUPS = (0x0018, 0x0054)
_NOT_ACQUIRED = frozenset(
    {
        "ContributingEquipmentSequence",
        "DeviceSerialNumber",
        "SoftwareVersions",
        "SliceThickness",  # of an enhanced image it stands elsewhere
        "Units",
        "SUVType",
    }
)


def check(dataset: Dataset, part: Part, number: int, expected: Expected) -> None:
    """Check one image of a series: its values, where they lie, and what it was made of.

    Args:
        dataset: The image.
        part: Its series.
        number: Which of the series it is, from 1.
        expected: What it is compared with.

    Raises:
        ResultMismatch: A value, its place or its origin is another.
    """
    output = expected.bundle.manifest.outputs[part.output]
    if not isinstance(output, ImageOutput):
        raise TypeError(part.output)
    sources = expected.prediction.subject.sources
    place = part.frames[number - 1] if part.frames else number - 1
    source = sources[place]
    header = expected.headers[source.sop_instance_uid]
    of_series = [sources[one] for one in part.frames] if part.frames else sources
    _check_kind(dataset, output, header)
    _check_values(dataset, _meant(part, place, expected))
    _check_unit(dataset, output, header, expected)
    # A series of which an image does not say where it lies is one of images that lie nowhere.
    if header.get("FrameOfReferenceUID") and None not in [one.position for one in of_series]:
        _check_place(dataset, source, header, expected)
    else:
        _check_nowhere(dataset)
    _check_origin(dataset, output, source, header)
    _check_acquisition(dataset, header)


def _meant(part: Part, place: int, expected: Expected) -> NDArray[np.float64]:
    """The image as the model gave it: shape (rows, columns)."""
    answers = [
        one
        for one in expected.prediction.answers
        if one.output == part.output and isinstance(one, DerivedImage)
    ]
    if isinstance(expected.prediction.subject, Volume):
        return np.asarray(answers[0].array[place], dtype=np.float64)
    (array,) = [one.array for one in answers if one.frame == place]
    return np.asarray(array, dtype=np.float64)


def _check_kind(dataset: Dataset, output: ImageOutput, header: Dataset) -> None:
    modality = output.modality or header.Modality
    require(
        dataset.Modality == modality
        and dataset.SOPClassUID in (_CLASSES.get(modality), SecondaryCaptureImageStorage),
        "modality-differs",
        "The image is of another modality than it should be.",
    )
    is_pet = dataset.SOPClassUID == PositronEmissionTomographyImageStorage
    require(
        list(dataset.ImageType[:2]) == ["DERIVED", "PRIMARY" if is_pet else "SECONDARY"],
        "image-type-differs",
        "The image does not say that it is derived.",
    )


def _check_values(dataset: Dataset, meant: NDArray[np.float64]) -> None:
    """Every value, after the rescale, is the model's to within half a step."""
    require(
        (dataset.Rows, dataset.Columns) == meant.shape
        and (dataset.BitsAllocated, dataset.BitsStored, dataset.SamplesPerPixel)
        == (_BITS, _BITS, 1)
        and dataset.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian,
        "encoding-differs",
        "The image has another size, or other pixels, than it should have.",
    )
    kind = "<i2" if dataset.PixelRepresentation else "<u2"
    pixels = np.frombuffer(dataset.PixelData, dtype=kind).reshape(meant.shape)
    slope, intercept = float(dataset.RescaleSlope), float(dataset.RescaleIntercept)
    apart = np.abs(pixels * slope + intercept - meant)
    may_be_apart = _HALF * abs(slope) + _DECIMALS * (abs(intercept) + np.abs(meant))
    require(
        bool((apart <= may_be_apart).all()) and slope > 0,
        "image-differs",
        "A value of the image is not what the model gave.",
    )
    is_pet = dataset.SOPClassUID == PositronEmissionTomographyImageStorage
    require(
        not is_pet or intercept == 0,
        "encoding-differs",
        "The pixel 0 of a PET image does not stand for 0.",
    )
    for item in dataset.get("RealWorldValueMappingSequence", ()):
        require(
            bool(
                np.isclose(item.RealWorldValueSlope, slope, rtol=_DECIMALS, atol=0)
                and np.isclose(item.RealWorldValueIntercept, intercept, rtol=_DECIMALS, atol=0)
            )
            and item.RealWorldValueFirstValueMapped <= pixels.min()
            and item.RealWorldValueLastValueMapped >= pixels.max(),
            "meaning-differs",
            "The real world values of the image are others than its own.",
        )


def _check_unit(dataset: Dataset, output: ImageOutput, header: Dataset, expected: Expected) -> None:
    """The unit is the manifest's or, where it names none, that of what the model was shown."""
    if output.unit is not None:
        items = dataset.get("RealWorldValueMappingSequence", ())
        require(
            len(items) == 1 and has_code(items[0].MeasurementUnitsCodeSequence, output.unit),
            "unit-differs",
            "The values are not said to be in the unit of the manifest.",
        )
    if dataset.SOPClassUID != PositronEmissionTomographyImageStorage:
        return
    given = next(iter(expected.bundle.manifest.inputs.values()))
    meant = (str(header.Units), str(header.get("SUVType") or ""))
    if output.unit is not None:
        meant = PET_UNITS[output.unit.value]
    elif given.values == "suvbw":
        meant = ("GML", "BW")
    require(
        (dataset.Units, dataset.get("SUVType") or "") == meant,
        "unit-differs",
        "The PET image is said to be in another unit.",
    )


def _check_nowhere(dataset: Dataset) -> None:
    require(
        "ImagePositionPatient" not in dataset and "FrameOfReferenceUID" not in dataset,
        "frame-of-reference-differs",
        "The image says where it lies, and its source does not.",
    )


def _check_place(
    dataset: Dataset, source: SliceSource, header: Dataset, expected: Expected
) -> None:
    """An image lies where its source lies."""
    require(
        dataset.get("FrameOfReferenceUID") == header.FrameOfReferenceUID,
        "frame-of-reference-differs",
        "The image lies in another frame of reference than its source.",
    )
    position = np.array(dataset.ImagePositionPatient, dtype=np.float64)
    cosines = np.array(dataset.ImageOrientationPatient, dtype=np.float64)
    between = [float(value) for value in dataset.PixelSpacing]
    across = np.stack([cosines[3:] * between[0], cosines[:3] * between[1]])
    size = np.array([dataset.Rows, dataset.Columns])
    meant = expected.across(source)
    require(
        bool(np.linalg.norm(position - expected.position(source)) <= _WRITING_MM)
        and bool(np.abs((across - meant) * size[:, np.newaxis]).max() <= _tolerance(header)),
        "frame-elsewhere",
        "The image does not lie where its source lies.",
    )


def _tolerance(header: Dataset) -> float:
    """How far in mm the far corner may stray.

    A classic image is copied to the letter. The frames of an enhanced one share the orientation of
    the first, which is that of all of them to four digits of each cosine.
    """
    is_enhanced = "PerFrameFunctionalGroupsSequence" in header
    return 0.1 if is_enhanced else _WRITING_MM


def _check_origin(
    dataset: Dataset, output: ImageOutput, source: SliceSource, header: Dataset
) -> None:
    """The image names the one image that it was made of, and what was done to it."""
    number = source.frame_number if source.is_multiframe else None
    named = [
        (
            one.ReferencedSOPClassUID,
            one.ReferencedSOPInstanceUID,
            one.get("ReferencedFrameNumber"),
            has_code(one.get("PurposeOfReferenceCodeSequence"), _SOURCE),
        )
        for one in dataset.SourceImageSequence
    ]
    listed = [
        (series.SeriesInstanceUID, one.ReferencedSOPInstanceUID)
        for series in dataset.ReferencedSeriesSequence
        for one in series.ReferencedInstanceSequence
    ]
    require(
        named == [(source.sop_class_uid, source.sop_instance_uid, number, True)]
        and listed == [(header.SeriesInstanceUID, source.sop_instance_uid)],
        "reference-differs",
        "The image names another source.",
    )
    require(
        dataset.DerivationDescription == output.description
        and has_code(dataset.DerivationCodeSequence, output.derivation),
        "derivation-differs",
        "The image does not say what was done to it.",
    )


def _check_acquisition(dataset: Dataset, header: Dataset) -> None:
    """Nothing of an acquisition was made up: it is empty, or stands in the source's file so."""
    for element in dataset:
        if element.tag.group in _ACQUISITION_GROUPS and element.keyword not in _NOT_ACQUIRED:
            require(
                element.is_empty or same(element.value, header.get(element.keyword)),
                "acquisition-differs",
                f"{element.keyword} is not what the source has.",
            )
    is_pet = dataset.SOPClassUID == PositronEmissionTomographyImageStorage
    for keyword in ("SeriesDate", "SeriesTime", "DecayCorrection") if is_pet else ():
        require(
            same(dataset.get(keyword), header.get(keyword)),
            "acquisition-differs",
            f"{keyword} is not what the source has: the decay of the tracer is reckoned by it.",
        )
