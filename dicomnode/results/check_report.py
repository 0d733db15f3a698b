"""Reads a report's content tree, and compares it with what the bits of the SEG say."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from pydicom import Dataset

from dicomnode.bundle import Code
from dicomnode.results import check_findings, findings, said
from dicomnode.results.checking import Expected, Measured, has_code, require
from dicomnode.results.report import NOT_FOUND
from dicomnode.results.said import Numbered
from dicomnode.volume import Volume

_IMAGING_MEASUREMENTS = Code(value="126010", scheme="DCM", meaning="Imaging Measurements")
_MEASUREMENT_GROUP = Code(value="125007", scheme="DCM", meaning="Measurement Group")
_TRACKING_ID = Code(value="112039", scheme="DCM", meaning="Tracking Identifier")
_TRACKING_UID = Code(value="112040", scheme="DCM", meaning="Tracking Unique Identifier")
_FINDING = Code(value="121071", scheme="DCM", meaning="Finding")
_SEGMENT = Code(value="121191", scheme="DCM", meaning="Referenced Segment")
_SOURCE_SERIES = Code(value="121232", scheme="DCM", meaning="Source series for segmentation")
_ALGORITHM_NAME = Code(value="111001", scheme="DCM", meaning="Algorithm Name")
_ALGORITHM_VERSION = Code(value="111003", scheme="DCM", meaning="Algorithm Version")
_PROCEDURE = Code(value="121058", scheme="DCM", meaning="Procedure Reported")
_COMMENT = Code(value="121106", scheme="DCM", meaning="Comment")
_VOLUME = Code(value="118565006", scheme="SCT", meaning="Volume")
_MILLILITRE = Code(value="mL", scheme="UCUM", meaning="milliliter")

_RELATIVE = 1e-5  # between a volume by the affine and one by the frames' positions
_ABSOLUTE_ML = 1e-6  # the last decimal that is written


def check(dataset: Dataset, measured: Sequence[Measured], expected: Expected) -> None:
    """Check the report.

    Raises:
        ResultMismatch: It says something else than the SEG, or names something else.
    """
    _check_standing(dataset, expected)
    _check_evidence(dataset, measured, expected)
    groups = {
        _text(group, _TRACKING_UID): group
        for container in _children(dataset, _IMAGING_MEASUREMENTS)
        for group in _children(container, _MEASUREMENT_GROUP)
    }
    segments = [
        (said.tracking_uid(expected.key, one.answer.output, item.segment.label), one, item)
        for one in measured
        for item in said.numbered(expected.bundle, one.answer.output)
    ]
    subject = expected.prediction.subject
    others = findings.groups(expected.prediction, expected.bundle.manifest.outputs, expected.key)
    require(
        sorted(groups)
        == sorted(
            [*(tracked for tracked, _, _ in segments), *(one.tracking_uid for one in others)]
        ),
        "tracking-differs",
        "The report has not one group for each finding, with its tracking identifier.",
    )
    for tracked, one, item in segments:
        _check_finding(groups[tracked], item, expected)
        _check_source(groups[tracked], one, item, expected)
        _check_volume(groups[tracked], one.volumes_ml[item.number], item)
    space = subject.frame_of_reference_uid if isinstance(subject, Volume) else ""
    check_findings.check(groups, others, space=space)
    for group in others:
        _check_made_by(groups[group.tracking_uid], expected)


def _check_standing(dataset: Dataset, expected: Expected) -> None:
    """The report is complete and verified by nobody, and says that it is for research."""
    flags = [dataset.get(f"{what}Flag") for what in ("Completion", "Preliminary", "Verification")]
    require(
        flags == ["COMPLETE", "PRELIMINARY", "UNVERIFIED"],
        "standing-differs",
        "The report passes for more, or for less, than an algorithm's unverified answer.",
    )
    manifest = expected.bundle.manifest
    remarks = [str(child.get("TextValue")) for child in _children(dataset, _COMMENT)]
    require(
        remarks == [manifest.notice, *said.silent(expected.prediction)],
        "notice-missing",
        "The report has no notice, or does not say what could not be said.",
    )
    procedures = [item.get("ConceptCodeSequence") for item in _children(dataset, _PROCEDURE)]
    require(
        len(procedures) == 1 and has_code(procedures[0], manifest.procedure),
        "procedure-differs",
        "The procedure reported is not the one of the manifest.",
    )


def _check_evidence(dataset: Dataset, measured: Sequence[Measured], expected: Expected) -> None:
    found = [
        instance.ReferencedSOPInstanceUID
        for study in dataset.get("CurrentRequestedProcedureEvidenceSequence", ())
        for series in study.ReferencedSeriesSequence
        for instance in series.ReferencedSOPSequence
    ]
    meant = [*expected.all_headers, *(one.sop_instance_uid for one in measured)]
    require(
        sorted(found) == sorted(meant),
        "reference-differs",
        "The report's evidence is not every source and every SEG.",
    )


def _check_finding(group: Dataset, item: Numbered, expected: Expected) -> None:
    number = item.number
    require(
        _text(group, _TRACKING_ID) == item.segment.name,
        "tracking-differs",
        f"The finding of segment {number} has another tracking identifier than the segment.",
    )
    findings = [child.get("ConceptCodeSequence") for child in _children(group, _FINDING)]
    require(
        len(findings) == 1 and has_code(findings[0], item.segment.type),
        "finding-differs",
        f"The finding of segment {number} is not what the manifest says.",
    )
    _check_made_by(group, expected)


def _check_made_by(group: Dataset, expected: Expected) -> None:
    model = expected.bundle
    require(
        _text(group, _ALGORITHM_NAME) == model.manifest.name
        and _text(group, _ALGORITHM_VERSION) == model.algorithm_version,
        "algorithm-differs",
        "A finding names another algorithm, or another version of it.",
    )


def _check_source(group: Dataset, one: Measured, item: Numbered, expected: Expected) -> None:
    named = [
        (sop.ReferencedSOPInstanceUID, sop.get("ReferencedSegmentNumber"))
        for child in _children(group, _SEGMENT)
        for sop in child.get("ReferencedSOPSequence", ())
    ]
    series = {header.SeriesInstanceUID for header in expected.headers.values()}
    require(
        named == [(one.sop_instance_uid, item.number)] and _text(group, _SOURCE_SERIES) in series,
        "reference-differs",
        f"The finding of segment {item.number} names another segment, or another series.",
    )


def _check_volume(group: Dataset, volume_ml: float, item: Numbered) -> None:
    values = [
        value
        for child in _children(group, _VOLUME)
        for value in child.get("MeasuredValueSequence", ())
    ]
    require(
        len(values) == item.segment.measure.count("volume"),
        "measurement-differs",
        f"The volume of segment {item.number} does not stand in the report exactly once.",
    )
    for value in values:
        require(
            has_code(value.get("MeasurementUnitsCodeSequence"), _MILLILITRE),
            "unit-differs",
            f"The volume of segment {item.number} is not in mL.",
        )
        for keyword in ("NumericValue", "FloatingPointValue"):
            number = float(value.get(keyword, math.nan))
            require(
                math.isclose(number, volume_ml, rel_tol=_RELATIVE, abs_tol=_ABSOLUTE_ML),
                "measurement-differs",
                f"The volume of segment {item.number} is not that of its bits in the SEG.",
            )
    require(
        (_text(group, _COMMENT) == NOT_FOUND) == (volume_ml == 0),
        "finding-differs",
        f"Whether segment {item.number} was found is not said as it is.",
    )


def _children(item: Dataset, name: Code) -> Iterator[Dataset]:
    for child in item.get("ContentSequence", ()):
        if has_code(child.get("ConceptNameCodeSequence"), name):
            yield child


def _text(item: Dataset, name: Code) -> str:
    """The text or UID of the one child of that name; empty where there is none, or more."""
    values = [str(c.get("TextValue") or c.get("UID") or "") for c in _children(item, name)]
    return values[0] if len(values) == 1 else ""
