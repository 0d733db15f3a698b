"""What all results share: whose they are, what made them, what they are called.

Nothing here is left to chance or to the clock: the same run gives the same bytes.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from io import BytesIO
from typing import BinaryIO

from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, Comprehensive3DSRStorage, ExplicitVRLittleEndian
from pydicom.valuerep import DSfloat

from dicomnode import NAME, __version__, bundle, uid
from dicomnode.archive.disk.files import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicomnode.bundle import Bundle, Code
from dicomnode.errors import UnsuitableSeries
from dicomnode.prediction import Prediction
from dicomnode.results.part import Kind, Part

#: What says whose a result is, copied verbatim from the source: the modules Patient (PS3.3
#: C.7.1.1), Clinical Trial Subject (C.7.1.3), General Study (C.7.2.1), Patient Study (C.7.2.2) and
#: Clinical Trial Study (C.7.2.3), and what SOP Common (C.12.1) says of how they are written.
IDENTITY = (
    "SpecificCharacterSet",
    "TimezoneOffsetFromUTC",
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "IssuerOfPatientIDQualifiersSequence",
    "TypeOfPatientID",
    "OtherPatientIDs",
    "OtherPatientIDsSequence",
    "OtherPatientNames",
    "PatientBirthDate",
    "PatientBirthTime",
    "PatientSex",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "EthnicGroup",
    "PatientComments",
    "PatientSpeciesDescription",
    "PatientSpeciesCodeSequence",
    "PatientBreedDescription",
    "PatientBreedCodeSequence",
    "BreedRegistrationSequence",
    "PatientSexNeutered",
    "ResponsiblePerson",
    "ResponsiblePersonRole",
    "ResponsibleOrganization",
    "QualityControlSubject",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "DeidentificationMethodCodeSequence",
    "LongitudinalTemporalInformationModified",
    "ClinicalTrialSponsorName",
    "ClinicalTrialProtocolID",
    "ClinicalTrialProtocolName",
    "ClinicalTrialSiteID",
    "ClinicalTrialSiteName",
    "ClinicalTrialSubjectID",
    "ClinicalTrialSubjectReadingID",
    "ClinicalTrialTimePointID",
    "ClinicalTrialTimePointDescription",
    "StudyInstanceUID",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "StudyDescription",
    "AccessionNumber",
    "IssuerOfAccessionNumberSequence",
    "ReferringPhysicianName",
    "ReferringPhysicianIdentificationSequence",
    "AdmissionID",
    "IssuerOfAdmissionIDSequence",
    "ProcedureCodeSequence",
)

#: What a viewer sorts a series by: General Series (PS3.3 C.7.3.1).
BODY = ("BodyPartExamined", "Laterality")

# Body Part Examined of which there is one (PS3.16 Annex L).
_UNPAIRED = frozenset({
    "ABDOMEN", "ABDOMENPELVIS", "AORTA", "BLADDER", "BRAIN", "CHEST", "CHESTABDOMEN",
    "CHESTABDPELVIS", "COCCYX", "COLON", "CSPINE", "CTSPINE", "ESOPHAGUS", "HEAD", "HEADNECK",
    "HEART", "JAW", "LIVER", "LSPINE", "LSSPINE", "MEDIASTINUM", "NECK", "NECKCHEST",
    "NECKCHESTABDOMEN", "NECKCHESTABDPELV", "PANCREAS", "PELVIS", "PROSTATE", "SKULL", "SPINE",
    "SPLEEN", "SSPINE", "STERNUM", "STOMACH", "TLSPINE", "TSPINE", "UTERUS", "WHOLEBODY",
})  # fmt: skip

# Type 2: present in every result, empty where the source has nothing.
_NEVER_ABSENT = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
)

#: Objects whose series has no body part: documents (PS3.3 C.17.1, C.17.6.1).
_BODILESS = frozenset({"sr", "regions", "notice", "key-images", "rejection"})

NODE = NAME
#: The device that observes in a report (PS3.16 TID 1004).
NODE_DEVICE_UID = uid.derived(NODE, "device", __version__)

# Contributing Equipment Purpose of Reference (CID 7005); an algorithm is named by the second, as in
# IHE AI Results 6.5.3.1.
_ACQUISITION = Code(value="109101", scheme="DCM", meaning="Acquisition Equipment")
PROCESSING_EQUIPMENT = Code(value="109102", scheme="DCM", meaning="Processing Equipment")

_ACQUIRED_BY = (
    "Manufacturer",
    "InstitutionName",
    "InstitutionAddress",
    "StationName",
    "InstitutionalDepartmentName",
    "ManufacturerModelName",
    "DeviceSerialNumber",
    "SoftwareVersions",
)

_UNDECODABLE = "\N{REPLACEMENT CHARACTER}"  # what pydicom puts for a byte that it cannot read

_VOLUME_DECIMALS = 6  # of a millilitre: a thousandth of a cubic millimetre
_AREA_DECIMALS = 3  # of a square millimetre


@dataclass(frozen=True, kw_only=True)
class Result:
    """One object that answers, ready to be written.

    Attributes:
        part: What it is.
    """

    part: Part
    dataset: Dataset

    @property
    def kind(self) -> Kind:
        """What it is, in a word."""
        return self.part.kind

    def encoded(self) -> bytes:
        """The file in the format of PS3.10: the same result gives the same bytes."""
        with BytesIO() as buffer:
            self.write_to(buffer)
            return buffer.getvalue()

    def write_to(self, file: BinaryIO) -> None:
        """Write the same to an open file."""
        self.dataset.save_as(file, enforce_file_format=True)


@dataclass(frozen=True, kw_only=True)
class Predecessor:
    """The report of an earlier run that a new one takes the place of.

    Attributes:
        sop_class_uid: Of a report that says why there was no answer, another one.
    """

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str = Comprehensive3DSRStorage


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of a model: everything that its results are made from.

    Attributes:
        key: The idempotency key: the same key gives the same UIDs.
        created: When the model ran; zone-aware.
        predecessors: Digest of a profile → the report that its new one takes the place of.
    """

    prediction: Prediction
    bundle: Bundle
    key: str
    created: datetime
    predecessors: Mapping[str, Predecessor] = field(default_factory=dict)

    @property
    def header(self) -> Dataset:
        """The header of the first source."""
        return self.prediction.subject.header

    @property
    def local(self) -> datetime:
        """`created` in the zone that the source's dates and times are in, where it says so."""
        return in_zone_of(self.header, self.created)


def device_uid(model: Bundle) -> str:
    """Device UID of the algorithm: another weight is another device (IHE AI Results 6.5.3.1)."""
    return uid.derived("algorithm", model.digest)


def in_zone_of(header: Dataset, moment: datetime) -> datetime:
    """A moment in the zone that a source's dates and times are in, where it says so."""
    try:
        zone = datetime.strptime(str(header.TimezoneOffsetFromUTC), "%z").tzinfo
    except (AttributeError, ValueError):  # absent, or means nothing
        return moment
    return moment.astimezone(zone)


def volume_ml(voxels: int, *, voxel_mm3: float) -> float:
    """The volume of `voxels` voxels in millilitres."""
    return round(voxels * voxel_mm3 / 1000, _VOLUME_DECIMALS)


def area_mm2(pixels: int, *, pixel_spacing: tuple[float, float]) -> float:
    """The area of `pixels` pixels in square millimetres."""
    return round(pixels * pixel_spacing[0] * pixel_spacing[1], _AREA_DECIMALS)


def code_item(code: bundle.Code) -> Dataset:
    """An item of a code sequence (PS3.3 Table 8.8-1)."""
    item = Dataset()
    item.CodeValue = code.value
    item.CodingSchemeDesignator = code.scheme
    item.CodeMeaning = code.meaning
    return item


def decimal(value: float) -> DSfloat:
    """A decimal string of at most 16 characters (PS3.5 6.2)."""
    return DSfloat(value, auto_format=True)


def new(sop_class_uid: str) -> Dataset:
    """An object that says nothing yet but what it is."""
    dataset = Dataset()
    dataset.SOPClassUID = UID(sop_class_uid)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = UID(sop_class_uid)
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return dataset


def say_lossiness(dataset: Dataset, header: Dataset) -> None:
    """Say of an image whether what it was made of was once compressed with loss (PS3.3 C.7.6.1)."""
    dataset.LossyImageCompression = str(header.get("LossyImageCompression") or "00")
    for keyword in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"):
        if dataset.LossyImageCompression == "01" and keyword in header:
            dataset[keyword] = copy.deepcopy(header[keyword])


def has_body(kind: Kind) -> bool:
    """Whether an object of this kind says which part of the body it shows."""
    return kind not in _BODILESS


@dataclass(frozen=True, kw_only=True)
class Stamp:
    """Whose an object is, what made it, and when.

    Attributes:
        header: The header of a source: the identity is copied from it.
        key: What the UIDs are derived from.
        local: When it was made, in the zone that the source's dates and times are in.
        description: Series Description.
        contributors: Items of Contributing Equipment Sequence.
    """

    header: Dataset
    key: str
    local: datetime
    description: str
    contributors: tuple[Dataset, ...]


def complete(dataset: Dataset, run: Run, part: Part, *, number: int = 1) -> None:
    """Say in a result whose it is, which series it is in, what made it, and when.

    Args:
        number: Of a series of several objects: which.
    """
    stamp = Stamp(
        header=run.header,
        key=run.key,
        local=run.local,
        description=run.bundle.described(part.word),
        contributors=tuple(_contributors(run)),
    )
    stamped(dataset, stamp, part, number=number)


def stamped(dataset: Dataset, stamp: Stamp, part: Part, *, number: int = 1) -> None:
    """As `complete`, of an object that no run of a model made."""
    _copy(IDENTITY, stamp.header, dataset)
    if has_body(part.kind):
        _copy(BODY, stamp.header, dataset)
        # Type 2C (PS3.3 C.7.3.1): the body part may be one of two. A segmentation says it of each
        # segment.
        is_paired = part.kind != "seg" and dataset.get("BodyPartExamined") not in _UNPAIRED
        if "Laterality" not in dataset and is_paired:
            dataset.Laterality = None
    dataset.SeriesInstanceUID = part.series_uid(stamp.key)
    dataset.SOPInstanceUID = part.instance_uid(stamp.key, number)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.SeriesNumber = part.series_number
    dataset.InstanceNumber = number
    dataset.SeriesDescription = stamp.description
    date, time = stamp.local.strftime("%Y%m%d"), stamp.local.strftime("%H%M%S")
    dataset.SeriesDate = dataset.ContentDate = dataset.InstanceCreationDate = date
    dataset.SeriesTime = dataset.ContentTime = dataset.InstanceCreationTime = time
    dataset.Manufacturer = dataset.ManufacturerModelName = NODE
    # A SEG must have a serial number (PS3.3 C.7.5.2) and a program has none: its version stands in.
    dataset.SoftwareVersions = dataset.DeviceSerialNumber = __version__
    if stamp.contributors:
        dataset.ContributingEquipmentSequence = list(stamp.contributors)
    dataset.file_meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    dataset.file_meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME


def _copy(keywords: Iterable[str], header: Dataset, dataset: Dataset) -> None:
    for keyword in keywords:
        if keyword in header:
            element = copy.deepcopy(header[keyword])
            if _UNDECODABLE in str(element.value):
                raise UnsuitableSeries(
                    "identity-not-decodable",
                    f"{keyword} does not read in the character set that the source names, so it"
                    " cannot be copied verbatim.",
                )
            dataset[keyword] = element
        elif keyword in _NEVER_ABSENT:
            setattr(dataset, keyword, None)
        elif keyword in dataset:
            delattr(dataset, keyword)


def _contributors(run: Run) -> list[Dataset]:
    """Contributing Equipment (PS3.3 C.12.1): the scanner, if it is known, and each algorithm."""
    algorithms = [_algorithm(model, run) for model in run.bundle.models]
    if not run.header.get("Manufacturer"):
        return algorithms
    scanner = Dataset()
    scanner.PurposeOfReferenceCodeSequence = [code_item(_ACQUISITION)]
    for keyword in _ACQUIRED_BY:
        if run.header.get(keyword):
            scanner[keyword] = copy.deepcopy(run.header[keyword])
    return [scanner, *algorithms]


def _algorithm(model: Bundle, run: Run) -> Dataset:
    """The model, or a step of a chain."""
    algorithm = Dataset()
    algorithm.PurposeOfReferenceCodeSequence = [code_item(PROCESSING_EQUIPMENT)]
    algorithm.Manufacturer = model.manifest.manufacturer
    algorithm.ManufacturerModelName = model.manifest.name
    algorithm.SoftwareVersions = model.algorithm_version
    algorithm.DeviceUID = device_uid(model)
    algorithm.ContributionDateTime = run.local.strftime("%Y%m%d%H%M%S%z")
    return algorithm


def blank(sop_class_uid: str, sop_instance_uid: str, *, header: Dataset) -> Dataset:
    """A stand-in for a source of the series of `header`: its place, and of the patient nothing.

    highdicom takes identity from the sources and refuses what it finds odd there; the identity is
    not its business here: `complete` copies it.
    """
    dataset = Dataset()
    dataset.SOPClassUID = sop_class_uid
    dataset.SOPInstanceUID = sop_instance_uid
    dataset.StudyInstanceUID = header.StudyInstanceUID
    dataset.SeriesInstanceUID = header.SeriesInstanceUID
    for keyword in _NEVER_ABSENT:
        setattr(dataset, keyword, None)
    return dataset
