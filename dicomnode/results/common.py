"""What all results share: whose they are, what made them, what they are called.

Nothing here is left to chance or to the clock: the same run gives the same bytes.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import UID
from pydicom.valuerep import DSfloat

from dicomnode import __version__, bundle, uid
from dicomnode.archive.files import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicomnode.bundle import Bundle, Code, Segment
from dicomnode.errors import Misconfigured, ModelFailed, UnsuitableSeries
from dicomnode.prediction import LabelMap, Prediction

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

#: Series Number: a fixed high block, so that the results stand below the images.
SERIES_NUMBER: dict[Kind, int] = {"seg": 9001, "sr": 9002}


NODE = "dicomnode"
#: The device that observes in a report (PS3.16 TID 1004).
NODE_DEVICE_UID = uid.derived(NODE, "device", __version__)

# Contributing Equipment Purpose of Reference: CID 7005, which has no code for an algorithm; the
# second is the one that IHE AI Results 6.5.3.1 prints.
_ACQUISITION = Code(value="109101", scheme="DCM", meaning="Acquisition Equipment")
PROCESSING_ALGORITHM = Code(value="Newcode1", scheme="99IHE", meaning="Processing Algorithm")

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

#: keyword → why the inputs of a model may have only one value of it.
_ONE_FOR_ALL_INPUTS = {
    "PatientID": "mixed-patients",
    "IssuerOfPatientID": "mixed-patients",
    "PatientName": "mixed-patients",
    "PatientBirthDate": "mixed-patients",
    "StudyInstanceUID": "mixed-studies",
    "AccessionNumber": "mixed-studies",
    "FrameOfReferenceUID": "two-frames-of-reference",
}

_UNDECODABLE = "\N{REPLACEMENT CHARACTER}"  # what pydicom puts for a byte that it cannot read

_VOLUME_DECIMALS = 6  # of a millilitre: a thousandth of a cubic millimetre

Kind = Literal["seg", "sr"]


@dataclass(frozen=True, kw_only=True)
class Result:
    """One object that answers, ready to be written.

    Attributes:
        kind: "seg" or "sr".
    """

    kind: Kind
    dataset: Dataset

    def encoded(self) -> bytes:
        """The file in the format of PS3.10: the same result gives the same bytes."""
        with BytesIO() as buffer:
            self.dataset.save_as(buffer, enforce_file_format=True)
            return buffer.getvalue()


@dataclass(frozen=True, kw_only=True)
class Predecessor:
    """The report of an earlier run that a new one takes the place of."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of a model: everything that its results are made from.

    Attributes:
        key: The idempotency key: the same key gives the same UIDs.
        created: When the model ran; zone-aware.
    """

    prediction: Prediction
    bundle: Bundle
    key: str
    created: datetime

    @property
    def header(self) -> Dataset:
        """The header of the first source."""
        return self.prediction.volume.header

    @property
    def local(self) -> datetime:
        """`created` in the zone that the source's dates and times are in, where it says so."""
        try:
            zone = datetime.strptime(str(self.header.TimezoneOffsetFromUTC), "%z").tzinfo
        except (AttributeError, ValueError):  # absent, or means nothing
            return self.created
        return self.created.astimezone(zone)


@dataclass(frozen=True, kw_only=True)
class Numbered:
    """A segment of an output, with its number in the SEG (PS3.3 C.8.20.2: from 1, without gaps)."""

    number: int
    segment: Segment


def numbered(model: Bundle, output: str) -> tuple[Numbered, ...]:
    """The segments of an output in the manifest's order."""
    segments = model.manifest.outputs[output].segments
    return tuple(Numbered(number=n, segment=s) for n, s in enumerate(segments, start=1))


def series_uid(key: str, kind: Kind, output: str = "") -> str:
    """Series Instance UID of a result."""
    return uid.derived(key, kind, output, "series")


def instance_uid(key: str, kind: Kind, output: str = "") -> str:
    """SOP Instance UID of a result."""
    return uid.derived(key, kind, output, "instance")


def tracking_uid(key: str, output: str, label: int) -> str:
    """Tracking UID of a finding: the same in the SEG and in the report."""
    return uid.derived(key, "tracking", output, str(label))


def device_uid(model: Bundle) -> str:
    """Device UID of the algorithm: another weight is another device (IHE AI Results 6.5.3.1)."""
    return uid.derived("algorithm", model.digest)


def volume_ml(voxels: int, *, voxel_mm3: float) -> float:
    """The volume of `voxels` voxels in millilitres."""
    return round(voxels * voxel_mm3 / 1000, _VOLUME_DECIMALS)


def require_sound(prediction: Prediction, model: Bundle) -> None:
    """Make sure that a model said what its manifest says it says, and nothing else.

    Raises:
        Misconfigured: The manifest's words cannot be written in every source's character set.
        ModelFailed: An output is missing or unknown, lies on another grid or has an unknown label.
        UnsuitableSeries: The model was shown images that do not belong together.
    """
    _require_belonging(prediction)
    manifest = model.manifest
    # The source's character set stays as it is, and all that it is sure to have is ASCII.
    if not manifest.model_dump_json(exclude={"intended_use"}).isascii():
        raise Misconfigured("manifest-not-ascii", "The manifest's words may only use ASCII.")
    said = [answer.output for answer in prediction.answers]
    if sorted(said) != sorted(manifest.outputs):
        raise ModelFailed(
            "wrong-outputs",
            f"The model gave {', '.join(said) or 'nothing'}; its manifest has the outputs"
            f" {', '.join(manifest.outputs)}.",
        )
    for answer in prediction.answers:
        _require_sound(answer, prediction.volume.array.shape, model)


def _require_belonging(prediction: Prediction) -> None:
    for other in prediction.also_shown:
        for keyword, reason in _ONE_FOR_ALL_INPUTS.items():
            if other.header.get(keyword) != prediction.volume.header.get(keyword):
                raise UnsuitableSeries(reason, f"{keyword} is not the same in all inputs.")


def _require_sound(answer: LabelMap, shape: tuple[int, ...], model: Bundle) -> None:
    if answer.array.shape != shape:
        raise ModelFailed(
            "wrong-grid", f"{answer.output} has the shape {answer.array.shape}, the image {shape}."
        )
    if answer.array.dtype not in (np.uint8, np.uint16):
        raise ModelFailed(
            "wrong-type", f"{answer.output} is {answer.array.dtype}, not a label map."
        )
    known = {item.segment.label for item in numbered(model, answer.output)}
    unknown = sorted(set(np.unique(answer.array).tolist()) - known - {0})
    if unknown:
        raise ModelFailed(
            "unknown-label", f"{answer.output} has labels that its manifest has not: {unknown[:5]}."
        )


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


def complete(dataset: Dataset, run: Run, *, kind: Kind) -> None:
    """Say in a result whose it is, which series it is in, what made it, and when."""
    _copy(IDENTITY, run.header, dataset)
    if kind == "seg":  # the series of a report has no body part (PS3.3 C.17.1)
        _copy(BODY, run.header, dataset)
    dataset.SeriesNumber = SERIES_NUMBER[kind]
    dataset.InstanceNumber = 1
    dataset.SeriesDescription = run.bundle.series_description
    date, time = run.local.strftime("%Y%m%d"), run.local.strftime("%H%M%S")
    dataset.SeriesDate = dataset.ContentDate = dataset.InstanceCreationDate = date
    dataset.SeriesTime = dataset.ContentTime = dataset.InstanceCreationTime = time
    dataset.Manufacturer = dataset.ManufacturerModelName = NODE
    # A SEG must have a serial number (PS3.3 C.7.5.2) and a program has none: its version stands in.
    dataset.SoftwareVersions = dataset.DeviceSerialNumber = __version__
    dataset.ContributingEquipmentSequence = _contributors(run)
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
    """Contributing Equipment (PS3.3 C.12.1): the scanner, if it is known, and the algorithm."""
    algorithm = Dataset()
    algorithm.PurposeOfReferenceCodeSequence = [code_item(PROCESSING_ALGORITHM)]
    algorithm.Manufacturer = run.bundle.manifest.manufacturer
    algorithm.ManufacturerModelName = run.bundle.manifest.name
    algorithm.SoftwareVersions = run.bundle.algorithm_version
    algorithm.DeviceUID = device_uid(run.bundle)
    algorithm.ContributionDateTime = run.local.strftime("%Y%m%d%H%M%S%z")
    if not run.header.get("Manufacturer"):
        return [algorithm]
    scanner = Dataset()
    scanner.PurposeOfReferenceCodeSequence = [code_item(_ACQUISITION)]
    for keyword in _ACQUIRED_BY:
        if run.header.get(keyword):
            scanner[keyword] = copy.deepcopy(run.header[keyword])
    return [scanner, algorithm]


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


def count(answer: LabelMap, label: int) -> int:
    """How many voxels have `label`."""
    return int(np.count_nonzero(answer.array == label))


def lookup(model: Bundle, output: str) -> NDArray[np.uint16]:
    """Label → segment number, as a table to index with labels."""
    items = numbered(model, output)
    table = np.zeros(max(item.segment.label for item in items) + 1, dtype=np.uint16)
    for item in items:
        table[item.segment.label] = item.number
    return table
