"""Enhanced CT and MR: a volume as the frames of one object (PS3.3 A.38, A.36)."""

from __future__ import annotations

from pydicom import Dataset
from pydicom.tag import Tag
from pydicom.uid import EnhancedCTImageStorage, EnhancedMRImageStorage

from dicomnode import uid
from dicomnode.simulation import header, images
from dicomnode.simulation.header import Subject
from dicomnode.simulation.images import AXIAL, IMAGE_COMMENT, SPACING_MM, code, item

# The images were made of others: most of what only a scanner knows need not be said then.
_TYPE = ["DERIVED", "PRIMARY", "VOLUME", "NONE"]


def ct(subject: Subject) -> Dataset:
    """An Enhanced CT image."""
    dataset = _begun(subject, EnhancedCTImageStorage)
    shared = dataset.SharedFunctionalGroupsSequence[0]
    shared.CTImageFrameTypeSequence = [_frame_type()]
    shared.PixelValueTransformationSequence = [_values(-1024, "HU")]
    event = uid.derived(subject.sop_instance_uid, "irradiation")
    shared.IrradiationEventIdentificationSequence = [item(IrradiationEventUID=event)]
    dataset.MultienergyCTAcquisition = "NO"
    return dataset


def mr(subject: Subject) -> Dataset:
    """An Enhanced MR image."""
    dataset = _begun(subject, EnhancedMRImageStorage)
    shared = dataset.SharedFunctionalGroupsSequence[0]
    contrast = {"ComplexImageComponent": "MAGNITUDE", "AcquisitionContrast": "PROTON_DENSITY"}
    shared.MRImageFrameTypeSequence = [_frame_type(**contrast)]
    shared.PixelValueTransformationSequence = [_values(0, "US")]
    for keyword, value in contrast.items():
        setattr(dataset, keyword, value)
    dataset.ApplicableSafetyStandardAgency = "IEC"
    return dataset


def _begun(subject: Subject, sop_class_uid: str) -> Dataset:
    dataset = header.begun(subject, sop_class_uid)
    frames, matrix = subject.series.frames, subject.series.matrix
    dataset.ImageType = _TYPE
    dataset.PixelPresentation, dataset.VolumetricProperties = "MONOCHROME", "VOLUME"
    dataset.VolumeBasedCalculationTechnique = "NONE"
    dataset.ContentQualification = "RESEARCH"
    dataset.AcquisitionNumber = 1
    dataset.PatientPosition = "HFS"
    dataset.NumberOfFrames = frames
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows = dataset.Columns = matrix
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    dataset.BurnedInAnnotation, dataset.LossyImageCompression = "NO", "00"
    dataset.PresentationLUTShape = "IDENTITY"
    dataset.ImageComments = IMAGE_COMMENT
    dataset.AcquisitionContextSequence = []
    _dimensions(dataset, subject)
    dataset.SharedFunctionalGroupsSequence = [_shared(subject)]
    dataset.PerFrameFunctionalGroupsSequence = [_frame(n) for n in range(1, frames + 1)]
    dataset.PixelData = images.pixels(subject, frames=frames)
    return dataset


def _dimensions(dataset: Dataset, subject: Subject) -> None:
    organization = uid.derived(subject.sop_instance_uid, "dimensions")
    dataset.DimensionOrganizationSequence = [item(DimensionOrganizationUID=organization)]
    dataset.DimensionIndexSequence = [
        item(
            DimensionOrganizationUID=organization,
            DimensionIndexPointer=Tag("InStackPositionNumber"),
            FunctionalGroupPointer=Tag("FrameContentSequence"),
        )
    ]


def _shared(subject: Subject) -> Dataset:
    region = code("818981001", "SCT", "Abdomen")
    if subject.series.modality == "MR":
        region = code("72696002", "SCT", "Knee")
    return item(
        PixelMeasuresSequence=[
            item(
                PixelSpacing=[images.spacing(subject)] * 2,
                SliceThickness=SPACING_MM,
                SpacingBetweenSlices=SPACING_MM,
            )
        ],
        PlaneOrientationSequence=[item(ImageOrientationPatient=list(AXIAL))],
        FrameAnatomySequence=[item(FrameLaterality="U", AnatomicRegionSequence=[region])],
    )


def _frame_type(**more: str) -> Dataset:
    return item(
        FrameType=_TYPE,
        PixelPresentation="MONOCHROME",
        VolumetricProperties="VOLUME",
        VolumeBasedCalculationTechnique="NONE",
        **more,
    )


def _values(intercept: int, unit: str) -> Dataset:
    return item(RescaleIntercept=intercept, RescaleSlope=1, RescaleType=unit)


def _frame(number: int) -> Dataset:
    return item(
        FrameContentSequence=[
            item(StackID="1", InStackPositionNumber=number, DimensionIndexValues=[number])
        ],
        PlanePositionSequence=[item(ImagePositionPatient=images.position(number))],
    )
