"""What the header of a derived image says, beside its pixels: the modules of its SOP class.

=======================  =========================================================================
CT Image Storage         where the modality is CT and the image lies in the patient; what is not
                         known of an acquisition stays empty (all of it is of type 2)
MR Image Storage         of an MR Image alone: Scanning Sequence and Sequence Variant (type 1)
                         stand in its header, and nowhere else
PET Image Storage        of a PET Image alone, where its modules have what they must, and the
                         values are in a unit that they know
Secondary Capture Image  everything else: it says nothing of an acquisition. Where the image lies
                         in the patient it has the Image Plane Module, too (PS3.3 A.8.1)
=======================  =========================================================================

Attributes of an acquisition are the source's own, verbatim, and there only where the image is of
the source's SOP class: a CT that was made of an MR has none.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pydicom import Dataset
from pydicom.uid import (
    CTImageStorage,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
    SecondaryCaptureImageStorage,
)

from dicomnode.bundle import Code, ImageOutput, Input
from dicomnode.results import common
from dicomnode.results.writing.multiframe import Plane

_HOUNSFIELD = Code(value="[hnsf'U]", scheme="UCUM", meaning="Hounsfield unit")
_UPTAKE = Code(value="g/ml{SUVbw}", scheme="UCUM", meaning="Standardized Uptake Value body weight")
_ACTIVITY = Code(value="Bq/ml", scheme="UCUM", meaning="Becquerels/milliliter")

#: UCUM → Units (0054,1001) and SUV Type (0054,1006) of a PET image (PS3.3 C.8.9.1).
PET_UNITS: dict[str, tuple[str, str]] = {
    "Bq/ml": ("BQML", ""),
    "g/ml{SUVbw}": ("GML", "BW"),
    "g/ml{SUVlbm}": ("GML", "LBMJANMA"),
    "cm2/ml{SUVbsa}": ("CM2ML", "BSA"),
    "{counts}": ("CNTS", ""),
    "{counts}/s": ("CPS", ""),
}

# General Series, General Acquisition, General Image, Frame of Reference.
_GENERAL = (
    "PatientPosition",
    "AcquisitionDate",
    "AcquisitionTime",
    "AcquisitionDateTime",
    "AcquisitionNumber",
    "AnatomicRegionSequence",
    "ImageLaterality",
    "BurnedInAnnotation",
    "RecognizableVisualFeatures",
)
# Image Plane (PS3.3 C.7.6.2).
_PLANE = (
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SliceThickness",
    "SpacingBetweenSlices",
    "SliceLocation",
)
# How large the pixels of an image are that lies nowhere, and how it is turned.
_SIZE = (
    "PatientOrientation",
    "PixelAspectRatio",
    "PixelSpacing",
    "PixelSpacingCalibrationType",
    "PixelSpacingCalibrationDescription",
    "ImagerPixelSpacing",
)
# Contrast/Bolus (PS3.3 C.7.6.4).
_CONTRAST = (
    "ContrastBolusAgent",
    "ContrastBolusAgentSequence",
    "ContrastBolusRoute",
    "ContrastBolusVolume",
    "ContrastBolusStartTime",
    "ContrastBolusStopTime",
    "ContrastBolusTotalDose",
    "ContrastFlowRate",
    "ContrastFlowDuration",
    "ContrastBolusIngredient",
    "ContrastBolusIngredientConcentration",
)
_CT = (
    "ScanOptions", "KVP", "DataCollectionDiameter", "ReconstructionDiameter",
    "DistanceSourceToDetector", "DistanceSourceToPatient", "GantryDetectorTilt", "TableHeight",
    "RotationDirection", "ExposureTime", "XRayTubeCurrent", "Exposure", "FilterType",
    "GeneratorPower", "FocalSpots", "ConvolutionKernel", "RevolutionTime",
    "SingleCollimationWidth", "TotalCollimationWidth", "TableSpeed", "TableFeedPerRotation",
    "SpiralPitchFactor", "ExposureModulationType",
)  # fmt: skip
_MR = (
    "ScanningSequence", "SequenceVariant", "ScanOptions", "MRAcquisitionType", "SequenceName",
    "AngioFlag", "RepetitionTime", "EchoTime", "InversionTime", "NumberOfAverages",
    "ImagingFrequency", "ImagedNucleus", "EchoNumbers", "MagneticFieldStrength",
    "NumberOfPhaseEncodingSteps", "EchoTrainLength", "PercentSampling", "PercentPhaseFieldOfView",
    "PixelBandwidth", "TriggerTime", "NominalInterval", "HeartRate", "CardiacNumberOfImages",
    "ReconstructionDiameter", "ReceiveCoilName", "TransmitCoilName", "AcquisitionMatrix",
    "InPlanePhaseEncodingDirection", "FlipAngle", "VariableFlipAngleFlag",
    "TemporalPositionIdentifier", "NumberOfTemporalPositions", "TemporalResolution",
)  # fmt: skip
_PET = (
    "AcquisitionStartCondition", "AcquisitionTerminationCondition", "ReconstructionDiameter",
    "GantryDetectorTilt", "GantryDetectorSlew", "FieldOfViewShape", "FieldOfViewDimensions",
    "CollimatorType", "ConvolutionKernel", "CorrectedImage", "EnergyWindowRangeSequence",
    "NumberOfRRIntervals", "NumberOfTimeSlots", "NumberOfSlices", "NumberOfTimeSlices",
    "TypeOfDetectorMotion", "SeriesType", "Units", "SUVType", "CountsSource",
    "ReprojectionMethod", "RandomsCorrectionMethod", "AttenuationCorrectionMethod",
    "DecayCorrection", "ReconstructionMethod", "ScatterCorrectionMethod", "AxialAcceptance",
    "RadiopharmaceuticalInformationSequence", "PatientOrientationCodeSequence",
    "PatientGantryRelationshipCodeSequence", "TriggerTime", "FrameTime", "LowRRValue",
    "HighRRValue", "BeatRejectionFlag", "ActualFrameDuration", "FrameReferenceTime",
    "SliceSensitivityFactor", "DecayFactor", "DoseCalibrationFactor", "ScatterFractionFactor",
    "DeadTimeFactor", "ImageIndex",
)  # fmt: skip
# What there may only be where another attribute has one of some values (type 1C and 2C).
_ONLY_WHERE: dict[str, dict[str, tuple[str, frozenset[str]]]] = {
    MRImageStorage: {
        "InversionTime": ("ScanningSequence", frozenset({"IR"})),
        "TriggerTime": ("ScanOptions", frozenset({"CG", "PPG"})),
    },
    PositronEmissionTomographyImageStorage: {
        "TriggerTime": ("SeriesType", frozenset({"GATED"})),
        "FrameTime": ("SeriesType", frozenset({"GATED"})),
        "NumberOfRRIntervals": ("SeriesType", frozenset({"GATED"})),
        "NumberOfTimeSlots": ("SeriesType", frozenset({"GATED"})),
        "NumberOfTimeSlices": ("SeriesType", frozenset({"DYNAMIC"})),
        "ReprojectionMethod": ("SeriesType", frozenset({"REPROJECTION"})),
        "LowRRValue": ("BeatRejectionFlag", frozenset({"Y"})),
        "HighRRValue": ("BeatRejectionFlag", frozenset({"Y"})),
    },
}
# When the series was acquired: the decay of a tracer is corrected to it (PS3.3 C.8.9.1.1.4).
_PET_TIME = ("SeriesDate", "SeriesTime")
# How the source is shown: of values that mean what the source's mean.
_WINDOW = ("WindowCenter", "WindowWidth", "WindowCenterWidthExplanation", "VOILUTFunction")


@dataclass(frozen=True, kw_only=True)
class _Class:
    """What an image of a SOP class has to have.

    Attributes:
        modality: Modality (0008,0060) of its images.
        image_type: Image Type (0008,0008).
        acquired: The attributes of an acquisition that are taken from a source of this class.
        required: Those of type 1: without them an image is of another class.
        empty: Those of type 2.
    """

    modality: str
    image_type: tuple[str, ...]
    acquired: tuple[str, ...]
    required: tuple[str, ...] = ()
    empty: tuple[str, ...] = ()


_CLASSES: dict[str, _Class] = {
    CTImageStorage: _Class(
        modality="CT",
        image_type=("DERIVED", "SECONDARY", "AXIAL"),
        acquired=(*_CT, *_CONTRAST),
        empty=("KVP", "AcquisitionNumber", "PatientPosition", "SliceThickness"),
    ),
    MRImageStorage: _Class(
        modality="MR",
        image_type=("DERIVED", "SECONDARY", "OTHER"),
        acquired=(*_MR, *_CONTRAST),
        required=("ScanningSequence", "SequenceVariant"),
        empty=(
            "ScanOptions",
            "MRAcquisitionType",
            "RepetitionTime",
            "EchoTime",
            "EchoTrainLength",
            "PatientPosition",
            "SliceThickness",
        ),
    ),
    PositronEmissionTomographyImageStorage: _Class(
        modality="PT",
        image_type=("DERIVED", "PRIMARY"),  # C.8.9.4.1.1: there is no other value 2
        acquired=(*_PET, *_PET_TIME),
        required=(
            *_PET_TIME,
            "NumberOfSlices",
            "SeriesType",
            "Units",
            "CountsSource",
            "DecayCorrection",
            "FrameReferenceTime",
            "ImageIndex",
        ),
        empty=(
            "CollimatorType",
            "CorrectedImage",
            "RadiopharmaceuticalInformationSequence",
            "PatientOrientationCodeSequence",
            "PatientGantryRelationshipCodeSequence",
            "AcquisitionDate",
            "AcquisitionTime",
            "ActualFrameDuration",
            "SliceThickness",
        ),
    ),
}
_CAPTURE = _Class(
    modality="",
    image_type=("DERIVED", "SECONDARY"),
    acquired=(),
    empty=("PatientOrientation",),  # C.7.6.1: of every image whose class asks for no place
)


@dataclass(frozen=True, kw_only=True)
class Look:
    """What the images of one series are.

    Attributes:
        sop_class_uid: Their SOP class.
        modality: Modality (0008,0060).
        unit: Of their values; `None` where it is not known.
        is_as_source: Whether their values mean what the source's do.
        is_inverted: Whether they are shown with the lowest value white, as the source.
    """

    sop_class_uid: str
    modality: str
    unit: Code | None
    is_as_source: bool
    is_inverted: bool

    @property
    def is_pet(self) -> bool:
        """Whether the rules of PET hold for the pixels (PS3.3 C.8.9.4)."""
        return self.sop_class_uid == PositronEmissionTomographyImageStorage


def look(output: ImageOutput, given: Input, headers: Sequence[Dataset], *, placed: bool) -> Look:
    """Decide what the images of a series are.

    Args:
        output: What the manifest says of them.
        given: And of the first input.
        headers: Of the source of each of them.
        placed: Whether all of them lie in the patient.
    """
    first = headers[0]
    source_modality = str(first.get("Modality") or "")
    modality = output.modality or source_modality
    is_same = modality == source_modality and output.unit is None
    unit = output.unit or (_unit(given, first) if is_same else None)
    found = next((uid for uid, one in _CLASSES.items() if one.modality == modality), "")
    if not (placed and found and _can_be(found, headers, unit)):
        found = SecondaryCaptureImageStorage
    return Look(
        sop_class_uid=found,
        modality=modality,
        unit=unit,
        is_as_source=is_same and given.values == "modality",
        is_inverted=(
            is_same
            and given.values != "displayed"
            and first.get("PhotometricInterpretation") == "MONOCHROME1"
        ),
    )


def _unit(given: Input, header: Dataset) -> Code | None:
    """The unit of the values that the model was shown."""
    if given.values == "suvbw":
        return _UPTAKE
    if given.values != "modality":
        return None
    if header.get("Modality") == "CT" and header.get("RescaleType", "HU") == "HU":
        return _HOUNSFIELD
    return _ACTIVITY if header.get("Units") == "BQML" else None


def _can_be(sop_class: str, headers: Sequence[Dataset], unit: Code | None) -> bool:
    """Whether images of these sources can be of a SOP class without inventing anything."""
    required = _CLASSES[sop_class].required
    if not required:
        return True
    are_of_class = all(
        one.get("SOPClassUID") == sop_class and all(_has(one, keyword) for keyword in required)
        for one in headers
    )
    if sop_class != PositronEmissionTomographyImageStorage:
        return are_of_class
    is_decayed = any(one.get("DecayCorrection") != "NONE" for one in headers)
    return (
        are_of_class
        and (unit is None or unit.value in PET_UNITS)
        and (not is_decayed or all(_has(one, "DecayFactor") for one in headers))
    )


def _has(header: Dataset, keyword: str) -> bool:
    """Whether an attribute has a value; 0 is one."""
    return keyword in header and not header[keyword].is_empty


def describe(dataset: Dataset, look: Look, header: Dataset, plane: Plane | None) -> None:
    """Say of one image what it is and where it lies.

    Args:
        dataset: The image, which says already whose it is.
        look: What the images of its series are.
        header: Of its source: of one frame of a multi-frame image, that of the image.
        plane: Where it lies; `None` where it lies nowhere.
    """
    spec = _CLASSES.get(look.sop_class_uid, _CAPTURE)
    dataset.Modality = look.modality
    dataset.ImageType = list(spec.image_type)
    _copy(_GENERAL, header, dataset)
    if header.get("SOPClassUID") == look.sop_class_uid:
        _copy(spec.acquired, header, dataset)
    if look.is_as_source:
        _copy(_WINDOW, header, dataset)
    if spec is _CAPTURE:
        dataset.ConversionType = "WSD"
    if plane is None:
        _copy([one for one in _SIZE if _is_sensible(one, header)], header, dataset)
    else:
        _place(dataset, header, plane)
    if look.is_pet and look.unit is not None:
        _say_units(dataset, look.unit)
    for keyword in spec.empty:
        if keyword not in dataset:
            setattr(dataset, keyword, None)
    _drop(dataset, look)


def _drop(dataset: Dataset, look: Look) -> None:
    """Take out what the source has and an image of the class may not."""
    for keyword, (other, values) in _ONLY_WHERE.get(look.sop_class_uid, {}).items():
        found = dataset.get(other) or ()
        if keyword in dataset and not values & set([found] if isinstance(found, str) else found):
            delattr(dataset, keyword)
    if "PatientOrientationCodeSequence" in dataset and "PatientPosition" in dataset:
        del dataset.PatientPosition  # C.7.3.1: the code says it
    if dataset.get("ImageLaterality") and not dataset.get("Laterality", "of its own"):
        del dataset.Laterality  # C.7.3.1: the image says it


def _is_sensible(keyword: str, header: Dataset) -> bool:
    """Some images say that their pixels have no size: that is to say nothing."""
    return "Spacing" not in keyword or 0 not in (header.get(keyword) or ())


def _place(dataset: Dataset, header: Dataset, plane: Plane) -> None:
    """Frame of Reference and Image Plane (PS3.3 C.7.4.1, C.7.6.2), as the source has them."""
    dataset.FrameOfReferenceUID = header.FrameOfReferenceUID
    dataset.PositionReferenceIndicator = header.get("PositionReferenceIndicator")
    if "ImagePositionPatient" in header:
        _copy(_PLANE, header, dataset)
        return
    dataset.ImagePositionPatient = [common.decimal(value) for value in plane.position]
    dataset.ImageOrientationPatient = [common.decimal(value) for value in plane.orientation]
    dataset.PixelSpacing = [common.decimal(value) for value in plane.pixel_spacing]
    if plane.thickness is not None:
        dataset.SliceThickness = common.decimal(plane.thickness)


def _say_units(dataset: Dataset, unit: Code) -> None:
    dataset.Units, kind = PET_UNITS[unit.value]
    if kind:
        dataset.SUVType = kind
    elif "SUVType" in dataset:
        del dataset.SUVType


def _copy(keywords: Iterable[str], header: Dataset, dataset: Dataset) -> None:
    for keyword in keywords:
        if keyword in header:
            dataset[keyword] = copy.deepcopy(header[keyword])
