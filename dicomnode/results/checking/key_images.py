"""Reads the selection of key images again, and compares it with where something was found."""

from __future__ import annotations

from typing import Any

from pydicom import Dataset

from dicomnode.bundle import Code
from dicomnode.results import regions
from dicomnode.results.checking.expected import Expected, has_code, require
from dicomnode.results.checking.tree import text
from dicomnode.results.part import Part

_OF_INTEREST = Code(value="113000", scheme="DCM", meaning="Of Interest")
_DESCRIPTION = Code(value="113012", scheme="DCM", meaning="Key Object Description")


def check(dataset: Dataset, part: Part, expected: Expected) -> None:  # noqa: ARG001 - as all checks
    """Check the selection.

    Raises:
        ResultMismatch: It selects other images, or does not say what selected them.
    """
    templates = [one.TemplateIdentifier for one in dataset.get("ContentTemplateSequence", ())]
    require(
        dataset.Modality == "KO"
        and dataset.ValueType == "CONTAINER"
        and templates == ["2010"]
        and has_code(dataset.ConceptNameCodeSequence, _OF_INTEREST),
        "title-differs",
        "The selection of key images is not titled as images of interest.",
    )
    model = expected.bundle
    described = text(dataset, _DESCRIPTION)
    require(
        f"{model.manifest.name} {model.algorithm_version}" in described,
        "algorithm-differs",
        "The selection does not say which algorithm made it.",
    )
    require(model.manifest.notice in described, "notice-missing", "The selection has no notice.")
    _check_images(dataset, expected)


def _check_images(dataset: Dataset, expected: Expected) -> None:
    found = regions.of(expected.prediction, expected.bundle, expected.key)
    sources = expected.prediction.subject.sources
    frames = [sources[number] for number in sorted({one.frame for one in found})]
    named: list[tuple[Any, ...]] = [
        (one.ReferencedSOPClassUID, one.ReferencedSOPInstanceUID, one.get("ReferencedFrameNumber"))
        for item in dataset.ContentSequence
        if item.ValueType == "IMAGE"
        for one in item.ReferencedSOPSequence
    ]
    meant = [
        (one.sop_class_uid, one.sop_instance_uid, one.frame_number if one.is_multiframe else None)
        for one in frames
    ]
    require(
        named == meant,
        "reference-differs",
        "The key images are not those that something was found on, each once and in order.",
    )
    evidence = [
        (study.StudyInstanceUID, series.SeriesInstanceUID, one.ReferencedSOPInstanceUID)
        for study in dataset.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for one in series.ReferencedSOPSequence
    ]
    instances = dict.fromkeys(one.sop_instance_uid for one in frames)
    headers = [expected.headers[uid] for uid in instances]
    require(
        evidence == [(h.StudyInstanceUID, h.SeriesInstanceUID, h.SOPInstanceUID) for h in headers],
        "reference-differs",
        "The evidence of the selection is not the images that it names.",
    )
