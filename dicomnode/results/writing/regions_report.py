"""The report that viewers draw from: TID 1500 with planar groups (TID 1410) and nothing else.

Each group has its region on an image (SCOORD), or in the patient (SCOORD3D): some viewers show no
report at all in which a group has none. All that has no place stands in the other report.
"""

from __future__ import annotations

from typing import Any

import highdicom as hd
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from dicomnode.results import common, finding_site, regions
from dicomnode.results.common import Run
from dicomnode.results.part import Part
from dicomnode.results.regions import Region
from dicomnode.results.writing import content
from dicomnode.results.writing.content import concept

PATIENT = "patient"
#: What is said where a segment has more pieces than are drawn.
NOT_ALL = f"At most {regions.LESIONS} pieces of a structure are drawn, the largest."


def build(run: Run, part: Part) -> Dataset:
    """Make the report of all that can be drawn."""
    found = regions.of(run.prediction, run.bundle, run.key)
    report = hd.sr.MeasurementReport(
        observation_context=content.observation_context(),
        procedure_reported=concept(run.bundle.manifest.procedure),
        imaging_measurements=[_group(one, run, part) for one in found],
        title=concept(content.IMAGING_MEASUREMENT_REPORT),
    )
    report[0].ContentSequence.append(content.comment(run.bundle.manifest.notice))
    if _are_not_all(found):
        report[0].ContentSequence.append(content.comment(NOT_ALL))
    shown = {run.prediction.subject.sources[one.frame].sop_instance_uid for one in found}
    dataset = hd.sr.Comprehensive3DSR(
        evidence=[one for one in content.sources(run) if one.SOPInstanceUID in shown],
        content=report[0],
        series_instance_uid=part.series_uid(run.key),
        series_number=part.series_number,
        sop_instance_uid=part.instance_uid(run.key),
        instance_number=1,
        manufacturer=common.NODE,
        is_complete=True,
        is_final=False,
        is_verified=False,
        transfer_syntax_uid=ExplicitVRLittleEndian,
    )
    common.complete(dataset, run, part)
    return dataset


def _are_not_all(found: tuple[Region, ...]) -> bool:
    names = [one.finding.name for one in found if one.mask is not None]
    return any(names.count(name) >= regions.LESIONS for name in set(names))


def _group(region: Region, run: Run, part: Part) -> Any:
    return hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(
            uid=region.tracking_uid, identifier=region.tracking_id
        ),
        referenced_region=_placed(region, run, part),
        finding_type=concept(region.finding.type),
        finding_category=concept(region.finding.category),
        finding_sites=content.sites(finding_site.of(region.finding)),
        algorithm_id=content.algorithm(run),
        measurements=[
            hd.sr.Measurement(name=concept(name), value=value, unit=concept(unit))
            for name, value, unit in region.measurements
        ],
    )


def _placed(region: Region, run: Run, part: Part) -> Any:
    subject = run.prediction.subject
    in_patient = regions.in_patient(region, run.prediction) if part.variant == PATIENT else None
    if in_patient is not None:
        return hd.sr.ImageRegion3D(
            graphic_type="POLYGON" if region.graphic == "POLYLINE" else region.graphic,
            graphic_data=in_patient,
            frame_of_reference_uid=content.space(subject, region.frame),
        )
    source = subject.sources[region.frame]
    return hd.sr.ImageRegion(
        graphic_type=region.graphic,
        graphic_data=region.points,
        source_image=hd.sr.SourceImageForRegion(
            source.sop_class_uid,
            source.sop_instance_uid,
            [source.frame_number] if source.is_multiframe else None,
        ),
    )
