"""What was found, in words and numbers: a Comprehensive 3D SR on TID 1500 (PS3.16).

Each segment of each SEG has one volumetric group (TID 1411) with its measurements, the algorithm
(TID 4019), and the same tracking identifiers as the segment. A segment without a voxel says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import highdicom as hd
from highdicom.sr import (
    CodedConcept,
    FindingSite,
    Measurement,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import Comprehensive3DSRStorage, ExplicitVRLittleEndian, SegmentationStorage

from dicomnode import __version__
from dicomnode.bundle import Code, Segment
from dicomnode.results import common, findings, said
from dicomnode.results.common import Predecessor, Run
from dicomnode.results.findings import concept as _concept
from dicomnode.results.said import Numbered, Segmented
from dicomnode.volume import Volume

#: CID 7021 "Measurement Report Document Titles".
IMAGING_MEASUREMENT_REPORT = Code(
    value="126000", scheme="DCM", meaning="Imaging Measurement Report"
)

#: What stands in the group of a segment that no voxel was given.
NOT_FOUND = "The algorithm marked no voxel as this structure."

_COMMENT = CodedConcept("121106", "DCM", "Comment")
_VOLUME = CodedConcept("118565006", "SCT", "Volume")
_MILLILITRE = CodedConcept("mL", "UCUM", "milliliter")
# "Anatomical Structure" of CID 7150 "Segmentation Property Categories", now and in older editions.
_ANATOMICAL_STRUCTURES = ("91723000", "123037004")


def build(
    run: Run,
    segmentations: Sequence[Dataset],
    *,
    predecessor: Predecessor | None = None,
    title: Code = IMAGING_MEASUREMENT_REPORT,
) -> Dataset:
    """Make the report of a run.

    Args:
        run: The run.
        segmentations: The SEG of each answer, in the order of the answers.
        predecessor: The report that this one takes the place of.
        title: The document's title (CID 7021); viewers choose how to show a report by it.
    """
    dataset = hd.sr.Comprehensive3DSR(
        evidence=[*_sources(run), *segmentations],
        content=_content(run, segmentations, title),
        series_instance_uid=common.series_uid(run.key, "sr"),
        series_number=common.SERIES_NUMBER["sr"],
        sop_instance_uid=common.instance_uid(run.key, "sr"),
        instance_number=1,
        manufacturer=common.NODE,
        is_complete=True,
        is_final=False,
        is_verified=False,
        previous_versions=[_reference(predecessor)] if predecessor else None,
        transfer_syntax_uid=ExplicitVRLittleEndian,
    )
    common.complete(dataset, run, kind="sr")
    return dataset


def _sources(run: Run) -> list[Dataset]:
    """Every instance that the model was shown, once."""
    sources = {
        source.sop_instance_uid: common.blank(
            source.sop_class_uid, source.sop_instance_uid, header=volume.header
        )
        for volume in run.prediction.shown
        for source in volume.sources
    }
    return list(sources.values())


def _reference(predecessor: Predecessor) -> Dataset:
    dataset = Dataset()
    dataset.StudyInstanceUID = predecessor.study_instance_uid
    dataset.SeriesInstanceUID = predecessor.series_instance_uid
    dataset.SOPClassUID = Comprehensive3DSRStorage
    dataset.SOPInstanceUID = predecessor.sop_instance_uid
    return dataset


def _content(run: Run, segmentations: Sequence[Dataset], title: Code) -> Dataset:
    """The content tree (TID 1500)."""
    answers = zip(said.segmented(run.prediction), segmentations, strict=True)
    segments = [
        _group(run, answer, item, segmentation.SOPInstanceUID)
        for answer, segmentation in answers
        for item in said.numbered(run.bundle, answer.output)
    ]
    report = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_device_context=_observer()),
        procedure_reported=_concept(run.bundle.manifest.procedure),
        imaging_measurements=[*segments, *_findings(run)],
        title=_concept(title),
    )
    root: Dataset = report[0]
    for sentence in (run.bundle.manifest.notice, *said.silent(run.prediction)):
        root.ContentSequence.append(_comment(sentence))
    return root


def _findings(run: Run) -> list[Any]:
    """The groups of what is no segment."""
    subject = run.prediction.subject
    space = subject.frame_of_reference_uid if isinstance(subject, Volume) else ""
    made: list[Any] = []
    for group in findings.groups(run.prediction, run.bundle.manifest.outputs, run.key):
        item = findings.content(group, algorithm=_algorithm(run), space=space)
        for sentence in group.comments:
            item[0].ContentSequence.append(_comment(sentence))
        made.append(item)
    return made


def _algorithm(run: Run) -> hd.sr.AlgorithmIdentification:
    """What made a finding (TID 4019), and how it was computed."""
    manifest = run.bundle.manifest
    return hd.sr.AlgorithmIdentification(
        name=manifest.name,
        version=run.bundle.algorithm_version,
        parameters=[run.prediction.computed],
        family=_concept(manifest.family),
        manufacturer=manifest.manufacturer,
    )


def _observer() -> hd.sr.ObserverContext:
    """The node itself (TID 1004)."""
    return hd.sr.ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=hd.sr.DeviceObserverIdentifyingAttributes(
            uid=common.NODE_DEVICE_UID,
            name=common.NODE,
            manufacturer_name=common.NODE,
            model_name=common.NODE,
            serial_number=__version__,
        ),
    )


def _group(
    run: Run, answer: Segmented, item: Numbered, segmentation: str
) -> VolumetricROIMeasurementsAndQualitativeEvaluations:
    """The volumetric group (TID 1411) of one segment."""
    segment = item.segment
    voxels = said.count(answer, item)
    group = VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(
            uid=said.tracking_uid(run.key, answer.output, segment.label),
            identifier=segment.name,
        ),
        referenced_segment=hd.sr.ReferencedSegment(
            sop_class_uid=SegmentationStorage,
            sop_instance_uid=segmentation,
            segment_number=item.number,
            source_series=hd.sr.SourceSeriesForSegmentation(run.header.SeriesInstanceUID),
        ),
        finding_category=_concept(segment.category),
        finding_type=_concept(segment.type),
        finding_sites=_sites(segment),
        algorithm_id=_algorithm(run),
        measurements=_measurements(run, segment, voxels),
    )
    if voxels == 0:
        group[0].ContentSequence.append(_comment(NOT_FOUND))
    return group


def _measurements(run: Run, segment: Segment, voxels: int) -> list[Measurement]:
    volume = common.volume_ml(voxels, voxel_mm3=run.prediction.volume.voxel_mm3)
    named = {"volume": (_VOLUME, volume, _MILLILITRE)}
    return [
        Measurement(name=name, value=value, unit=unit)
        for name, value, unit in (named[what] for what in segment.measure)
    ]


def _sites(segment: Segment) -> list[FindingSite] | None:
    """Where the finding is.

    An anatomical structure is its own site, and what the manifest says more exactly of it
    (anterior, left) is said of that site: TID 1411 has no modifier of the finding. Anything else
    lies in its anatomic region, of which only the side is known.
    """
    laterality = _concept(segment.laterality) if segment.laterality else None
    if segment.category.value in _ANATOMICAL_STRUCTURES:
        modifier = _concept(segment.type_modifier) if segment.type_modifier else None
        return [FindingSite(_concept(segment.type), laterality, modifier)]
    if segment.anatomic_region is not None:
        return [FindingSite(_concept(segment.anatomic_region), laterality)]
    return None


def _comment(text: str) -> hd.sr.TextContentItem:
    return hd.sr.TextContentItem(
        name=_COMMENT, value=text, relationship_type=hd.sr.RelationshipTypeValues.CONTAINS
    )
