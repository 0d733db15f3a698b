"""Objects that are no answer: that there is none and why, and that an earlier one is rejected.

Both are made when they are sent, from what the database and the files say then. The report is a
Basic Text SR (PS3.3 A.35.1), which every archive takes and every viewer shows; the rejection is a
Key Object Selection (A.35.4, PS3.16 TID 2010) as IHE IOCM has it (RAD TF-3, 4.66).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.uid import BasicTextSRStorage, KeyObjectSelectionDocumentStorage

from dicomnode import __version__
from dicomnode.bundle import Code
from dicomnode.errors import ResultMismatch
from dicomnode.results import common
from dicomnode.results.checking.expected import same
from dicomnode.results.common import Result, Stamp
from dicomnode.results.part import Part

#: Stands in every object: what it is for.
FOR_RESEARCH = "For research. Not for diagnosis or treatment."
#: Says what a missing answer does not mean.
NO_CONCLUSION = "That there is no result says nothing about the images."

_TITLE = Code(value="18748-4", scheme="LN", meaning="Diagnostic Imaging Report")
_FINDINGS = Code(value="59776-5", scheme="LN", meaning="Procedure Findings")
_FINDING = Code(value="121071", scheme="DCM", meaning="Finding")
_REJECTED = Code(value="113001", scheme="DCM", meaning="Rejected for Quality Reasons")
_DESCRIPTION = Code(value="113012", scheme="DCM", meaning="Key Object Description")
_LANGUAGE = Code(value="121049", scheme="DCM", meaning="Language of Content Item and Descendants")
_ENGLISH = Code(value="en-US", scheme="RFC5646", meaning="English (United States)")
_OBSERVER_TYPE = Code(value="121005", scheme="DCM", meaning="Observer Type")
_DEVICE = Code(value="121007", scheme="DCM", meaning="Device")
_OBSERVER_UID = Code(value="121012", scheme="DCM", meaning="Device Observer UID")
_OBSERVER_NAME = Code(value="121013", scheme="DCM", meaning="Device Observer Name")
_SUPERSEDED = "Superseded: a newer answer has taken the place of these objects."
_DESCRIBED = 64  # characters of a LO
_KEY_OBJECTS, _TEXT_REPORT = "2010", "2000"


@dataclass(frozen=True, kw_only=True)
class Referenced:
    """An instance that a notice is about."""

    series_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, kw_only=True)
class NotAnalysed:
    """A study that was routed to a model and not analysed.

    Attributes:
        key: What the UIDs are derived from; another reason is another report.
        header: Of one of the images.
        model: Name of the model in the configuration.
        reason: A fixed word, and `detail` a sentence.
        images: What the model was to be shown.
        moment: When it was decided; zone-aware.
    """

    key: str
    header: Dataset
    model: str
    reason: str
    detail: str
    images: tuple[Referenced, ...]
    moment: datetime

    @property
    def sentences(self) -> tuple[str, ...]:
        """What the report says."""
        return (
            f"Not analysed by {_plain(self.model)}.",
            f"Reason: {_plain(self.detail)} ({self.reason})",
            NO_CONCLUSION,
            FOR_RESEARCH,
        )


@dataclass(frozen=True, kw_only=True)
class Rejection:
    """Objects that an earlier answer consists of and that are not to be used any more.

    Attributes:
        key: What the UIDs are derived from.
        header: Of one of the objects.
        objects: All of them.
        moment: When it was decided; zone-aware.
    """

    key: str
    header: Dataset
    objects: tuple[Referenced, ...]
    moment: datetime


def not_analysed(given: NotAnalysed) -> Result:
    """Make the report that says why a study was not analysed."""
    part = Part(kind="notice")
    dataset = common.new(BasicTextSRStorage)
    dataset.Modality = "SR"
    _document(dataset, _TITLE, template=_TEXT_REPORT)
    dataset.CompletionFlag, dataset.VerificationFlag = "COMPLETE", "UNVERIFIED"
    dataset.PreliminaryFlag = "PRELIMINARY"
    dataset.PerformedProcedureCodeSequence = []
    heading = _item("CONTAINER", _FINDINGS, "CONTAINS")
    heading.ContinuityOfContent = "SEPARATE"
    heading.ContentSequence = [_text(_FINDING, one) for one in given.sentences]
    dataset.ContentSequence = [_language(), *_observer(), heading]
    dataset.CurrentRequestedProcedureEvidenceSequence = _evidence(given.header, given.images)
    what = f"AI {_plain(given.model)} not analysed (RESEARCH)"
    _stamp(dataset, given, what, part)
    return Result(part=part, dataset=dataset)


def rejection(given: Rejection) -> Result:
    """Make the selection of objects that are rejected."""
    part = Part(kind="rejection")
    dataset = common.new(KeyObjectSelectionDocumentStorage)
    dataset.Modality = "KO"
    _document(dataset, _REJECTED, template=_KEY_OBJECTS)
    dataset.ContentSequence = [
        *_observer(),
        _text(_DESCRIPTION, _SUPERSEDED),
        *(_reference(one) for one in given.objects),
    ]
    dataset.CurrentRequestedProcedureEvidenceSequence = _evidence(given.header, given.objects)
    what = "AI result superseded (RESEARCH)"
    _stamp(dataset, given, what, part)
    return Result(part=part, dataset=dataset)


def check(path: Path, *, meant: Result, header: Dataset, about: Sequence[Referenced]) -> None:
    """Compare a written notice with what it is to say.

    Raises:
        ResultMismatch: It is another patient's, or says or names something else.
    """
    dataset = dcmread(path)
    for keyword in common.IDENTITY:
        if not same(dataset.get(keyword), header.get(keyword)):
            raise ResultMismatch("identity-differs", f"{keyword} is not what the source has.")
    named = [
        instance.ReferencedSOPInstanceUID
        for study in dataset.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for instance in series.ReferencedSOPSequence
    ]
    if sorted(named) != sorted(one.sop_instance_uid for one in about):
        raise ResultMismatch("reference-differs", "A notice names other objects.")
    if dataset.ContentSequence != meant.dataset.ContentSequence:
        raise ResultMismatch("finding-differs", "A notice says something else.")


def _plain(text: str) -> str:
    """All that is sure to be in every source's character set is ASCII."""
    return text.encode("ascii", "replace").decode()


def _stamp(dataset: Dataset, given: NotAnalysed | Rejection, what: str, part: Part) -> None:
    stamp = Stamp(
        header=given.header,
        key=given.key,
        local=common.in_zone_of(given.header, given.moment),
        description=what[:_DESCRIBED],
        contributors=(),
    )
    common.stamped(dataset, stamp, part)


def _document(dataset: Dataset, title: Code, *, template: str) -> None:
    """The root of the content tree, and what is empty in the series (PS3.3 C.17.1, C.17.3)."""
    dataset.ReferencedPerformedProcedureStepSequence = []
    dataset.ValueType = "CONTAINER"
    dataset.ConceptNameCodeSequence = [common.code_item(title)]
    dataset.ContinuityOfContent = "SEPARATE"
    identification = Dataset()
    identification.MappingResource = "DCMR"
    identification.TemplateIdentifier = template
    dataset.ContentTemplateSequence = [identification]


def _item(value_type: str, name: Code | None, relationship: str) -> Dataset:
    item = Dataset()
    item.RelationshipType = relationship
    item.ValueType = value_type
    if name is not None:
        item.ConceptNameCodeSequence = [common.code_item(name)]
    return item


def _text(name: Code, value: str) -> Dataset:
    item = _item("TEXT", name, "CONTAINS")
    item.TextValue = value
    return item


def _language() -> Dataset:
    """Language of Content (TID 1204), which TID 2000 requires."""
    item = _item("CODE", _LANGUAGE, "HAS CONCEPT MOD")
    item.ConceptCodeSequence = [common.code_item(_ENGLISH)]
    return item


def _observer() -> list[Dataset]:
    """The node itself (TID 1004)."""
    kind = _item("CODE", _OBSERVER_TYPE, "HAS OBS CONTEXT")
    kind.ConceptCodeSequence = [common.code_item(_DEVICE)]
    device = _item("UIDREF", _OBSERVER_UID, "HAS OBS CONTEXT")
    device.UID = common.NODE_DEVICE_UID
    name = _item("TEXT", _OBSERVER_NAME, "HAS OBS CONTEXT")
    name.TextValue = f"{common.NODE} {__version__}"
    return [kind, device, name]


_DOCUMENTS = (
    "1.2.840.10008.5.1.4.1.1.88.",
    "1.2.840.10008.5.1.4.1.1.11.",
    "1.2.840.10008.5.1.4.1.1.66.1",
)


def _reference(one: Referenced) -> Dataset:
    """An image, or another composite object: reports, presentation states and registrations."""
    is_image = not one.sop_class_uid.startswith(_DOCUMENTS)
    item = _item("IMAGE" if is_image else "COMPOSITE", None, "CONTAINS")
    item.ReferencedSOPSequence = [_sop(one)]
    return item


def _sop(one: Referenced) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = one.sop_class_uid
    item.ReferencedSOPInstanceUID = one.sop_instance_uid
    return item


def _evidence(header: Dataset, instances: Iterable[Referenced]) -> list[Dataset]:
    """Everything that is named, by study and series (PS3.3 Table C.17-3)."""
    study = Dataset()
    study.StudyInstanceUID = header.StudyInstanceUID
    study.ReferencedSeriesSequence = []
    ordered = sorted(instances, key=lambda one: one.series_instance_uid)
    for uid, members in groupby(ordered, key=lambda one: one.series_instance_uid):
        series = Dataset()
        series.SeriesInstanceUID = uid
        series.ReferencedSOPSequence = [_sop(one) for one in members]
        study.ReferencedSeriesSequence.append(series)
    return [study]
