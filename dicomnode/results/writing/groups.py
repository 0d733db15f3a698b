"""Groups of the report as content items: TID 1410 where a finding has a place, else TID 1501."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import highdicom as hd

from dicomnode.results.findings import Group
from dicomnode.results.writing.content import concept, sites


def content(group: Group, *, algorithm: hd.sr.AlgorithmIdentification, space: str) -> Any:
    """The group as a content item: TID 1410 where it has a place, else TID 1501."""
    shared: dict[str, Any] = {
        "tracking_identifier": hd.sr.TrackingIdentifier(
            uid=group.tracking_uid, identifier=group.tracking_id
        ),
        "finding_type": concept(group.finding),
        "finding_category": concept(group.category) if group.category else None,
        "finding_sites": sites(group.site),
        "algorithm_id": algorithm,
        "measurements": [
            hd.sr.Measurement(name=concept(name), value=value, unit=concept(unit))
            for name, value, unit in group.measurements
        ],
        "qualitative_evaluations": [
            hd.sr.QualitativeEvaluation(name=concept(name), value=concept(value))
            for name, value in group.evaluations
        ],
    }
    if group.points is None:
        return hd.sr.MeasurementsAndQualitativeEvaluations(
            **shared, source_images=_images(group, hd.sr.SourceImageForMeasurementGroup)
        )
    region: Any
    if group.points.shape[1] == 2:  # noqa: PLR2004 - columns and rows
        (image,) = _images(group, hd.sr.SourceImageForRegion)
        region = hd.sr.ImageRegion(
            graphic_type=group.graphic, graphic_data=group.points, source_image=image
        )
    else:
        region = hd.sr.ImageRegion3D(
            graphic_type=group.graphic, graphic_data=group.points, frame_of_reference_uid=space
        )
    return hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(**shared, referenced_region=region)


def _images(group: Group, kind: Any) -> Sequence[Any]:
    return [
        kind(
            source.sop_class_uid,
            source.sop_instance_uid,
            [source.frame_number] if source.is_multiframe else None,
        )
        for source in group.about
    ]
