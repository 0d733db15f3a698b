"""The content tree of a report, as far as the checks look into it (PS3.3 C.17.3)."""

from __future__ import annotations

from collections.abc import Iterator

from pydicom import Dataset

from dicomnode.bundle import Code
from dicomnode.results.checking.expected import has_code

_IMAGING_MEASUREMENTS = Code(value="126010", scheme="DCM", meaning="Imaging Measurements")
_MEASUREMENT_GROUP = Code(value="125007", scheme="DCM", meaning="Measurement Group")


def children(item: Dataset, name: Code) -> Iterator[Dataset]:
    """The content items below `item` that have a name."""
    for child in item.get("ContentSequence", ()):
        if has_code(child.get("ConceptNameCodeSequence"), name):
            yield child


def text(item: Dataset, name: Code) -> str:
    """The text or UID of the one child of that name; empty where there is none, or more."""
    values = [str(c.get("TextValue") or c.get("UID") or "") for c in children(item, name)]
    return values[0] if len(values) == 1 else ""


def evidence(dataset: Dataset) -> list[str]:
    """The SOP Instance UIDs of everything that a document names as what it is about."""
    return [
        str(instance.ReferencedSOPInstanceUID)
        for study in dataset.get("CurrentRequestedProcedureEvidenceSequence", ())
        for series in study.ReferencedSeriesSequence
        for instance in series.ReferencedSOPSequence
    ]


def measurement_groups(dataset: Dataset) -> list[Dataset]:
    """The measurement groups of a report on TID 1500, in order."""
    return [
        group
        for container in children(dataset, _IMAGING_MEASUREMENTS)
        for group in children(container, _MEASUREMENT_GROUP)
    ]
