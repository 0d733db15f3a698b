"""The images that something was found on: a Key Object Selection Document (PS3.3 A.35.4).

Its content follows TID 2010 (PS3.16): the title "Of Interest", who selected them and why, and each
image once, in the order in which they are looked at.
"""

from __future__ import annotations

from collections.abc import Sequence

import highdicom as hd
from pydicom import Dataset
from pydicom.uid import KeyObjectSelectionDocumentStorage

from dicomnode.bundle import Code
from dicomnode.results import common, regions
from dicomnode.results.common import Run
from dicomnode.results.part import Part
from dicomnode.results.writing import content
from dicomnode.results.writing.content import concept
from dicomnode.volume import SliceSource

#: CID 7010 "Key Object Selection Document Titles".
OF_INTEREST = Code(value="113000", scheme="DCM", meaning="Of Interest")
DESCRIPTION = Code(value="113012", scheme="DCM", meaning="Key Object Description")

_TEMPLATE = "2010"
_SOURCE = Code(value="260753009", scheme="SCT", meaning="Source")


def build(run: Run, part: Part) -> Dataset:
    """Make the selection."""
    chosen = key_images(run)
    dataset = common.new(KeyObjectSelectionDocumentStorage)
    dataset.Modality = "KO"
    dataset.ReferencedPerformedProcedureStepSequence = []  # type 2 (C.17.6.1)
    dataset.CurrentRequestedProcedureEvidenceSequence = [_evidence(run, chosen)]
    dataset.update(
        hd.sr.ContainerContentItem(
            name=concept(OF_INTEREST), template_id=_TEMPLATE, is_content_continuous=False
        )
    )
    dataset.ContentSequence = [
        *content.observation_context(),
        hd.sr.TextContentItem(
            name=concept(DESCRIPTION),
            value=described(run),
            relationship_type=hd.sr.RelationshipTypeValues.CONTAINS,
        ),
        *(_image(source) for source in chosen),
    ]
    common.complete(dataset, run, part)
    return dataset


def key_images(run: Run) -> list[SliceSource]:
    """The frames that something can be drawn on, each once, in their order."""
    found = regions.of(run.prediction, run.bundle, run.key)
    return [run.prediction.subject.sources[n] for n in sorted({one.frame for one in found})]


def described(run: Run) -> str:
    """Key Object Description: what selected the images."""
    manifest = run.bundle.manifest
    return (
        f"Images with findings of {manifest.name} {run.bundle.algorithm_version}. {manifest.notice}"
    )


def _image(source: SliceSource) -> Dataset:
    item: Dataset = hd.sr.ImageContentItem(
        name=concept(_SOURCE),
        referenced_sop_class_uid=source.sop_class_uid,
        referenced_sop_instance_uid=source.sop_instance_uid,
        referenced_frame_numbers=[source.frame_number] if source.is_multiframe else None,
        relationship_type=hd.sr.RelationshipTypeValues.CONTAINS,
    )
    return item


def _evidence(run: Run, chosen: Sequence[SliceSource]) -> Dataset:
    """Every instance that is named, once (C.17.6.2)."""
    study, series = Dataset(), Dataset()
    study.StudyInstanceUID = run.header.StudyInstanceUID
    series.SeriesInstanceUID = run.header.SeriesInstanceUID
    series.ReferencedSOPSequence = []
    for source in {one.sop_instance_uid: one for one in chosen}.values():
        item = Dataset()
        item.ReferencedSOPClassUID = source.sop_class_uid
        item.ReferencedSOPInstanceUID = source.sop_instance_uid
        series.ReferencedSOPSequence.append(item)
    study.ReferencedSeriesSequence = [series]
    return study
