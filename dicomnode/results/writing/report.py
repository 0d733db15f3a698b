"""Everything that was found, in words and numbers: a Comprehensive 3D SR on TID 1500 (PS3.16).

The root of the answer: it names every other object of the run that its destination gets. A segment
of a volume has one volumetric group (TID 1411) with its measurements, the algorithm (TID 4019), and
the same tracking identifiers as the segment; one of single images a planar group (TID 1410) for
each image that it is on. A segment without a voxel says so. All else is in `findings`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import highdicom as hd
from highdicom.sr import Measurement
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from dicomnode.bundle import Code, Finding, Segment
from dicomnode.profile import Profile
from dicomnode.results import common, finding_site, findings, layers, said
from dicomnode.results.common import Predecessor, Result, Run
from dicomnode.results.layers import Layers, Numbered
from dicomnode.results.part import Part
from dicomnode.results.regions import AREA, MILLILITRE, SQUARE_MILLIMETRE, VOLUME
from dicomnode.results.said import Segmented
from dicomnode.results.writing import content, groups
from dicomnode.results.writing.content import concept
from dicomnode.volume import Images

#: What stands in the group of a segment that no voxel was given.
NOT_FOUND = "The algorithm marked no voxel as this structure."

TITLES: dict[str, Code] = {
    "imaging": content.IMAGING_MEASUREMENT_REPORT,
    "oncology": content.ONCOLOGY_MEASUREMENT_REPORT,
}


def build(run: Run, part: Part, beside: Sequence[Result], *, profile: Profile) -> Dataset:
    """Make the report of a run.

    Args:
        run: The run.
        part: The report.
        beside: Every other object that the same destination gets.
        profile: The destination's; viewers choose by the title how to show a report.
    """
    predecessor = run.predecessors.get(profile.digest)
    dataset = hd.sr.Comprehensive3DSR(
        evidence=[*content.sources(run), *(one.dataset for one in beside)],
        content=_content(run, beside, TITLES[profile.title]),
        series_instance_uid=part.series_uid(run.key),
        series_number=part.series_number,
        sop_instance_uid=part.instance_uid(run.key),
        instance_number=1,
        manufacturer=common.NODE,
        is_complete=True,
        is_final=False,
        is_verified=False,
        previous_versions=[_reference(predecessor)] if predecessor else None,
        transfer_syntax_uid=ExplicitVRLittleEndian,
    )
    common.complete(dataset, run, part)
    return dataset


def _reference(predecessor: Predecessor) -> Dataset:
    dataset = Dataset()
    dataset.StudyInstanceUID = predecessor.study_instance_uid
    dataset.SeriesInstanceUID = predecessor.series_instance_uid
    dataset.SOPClassUID = predecessor.sop_class_uid
    dataset.SOPInstanceUID = predecessor.sop_instance_uid
    return dataset


def _content(run: Run, beside: Sequence[Result], title: Code) -> Dataset:
    """The content tree (TID 1500)."""
    report = hd.sr.MeasurementReport(
        observation_context=content.observation_context(),
        procedure_reported=concept(run.bundle.manifest.procedure),
        imaging_measurements=[*_segments(run, beside), *_findings(run)],
        title=concept(title),
    )
    root: Dataset = report[0]
    for sentence in (run.bundle.manifest.notice, *said.silent(run.prediction)):
        root.ContentSequence.append(content.comment(sentence))
    return root


def _findings(run: Run) -> Iterator[Any]:
    """The groups of what is no segment."""
    space = content.space(run.prediction.subject)
    for group in findings.groups(run.prediction, run.bundle.manifest.outputs, run.key):
        item = groups.content(group, algorithm=content.algorithm(run), space=space)
        for sentence in group.comments:
            item[0].ContentSequence.append(content.comment(sentence))
        yield item


def _segments(run: Run, beside: Sequence[Result]) -> Iterator[Any]:
    """The groups of the segments of every output."""
    outputs = dict.fromkeys(one.output for one in said.segmented(run.prediction))
    for output in outputs:
        answers = [one for one in said.segmented(run.prediction) if one.output == output]
        if isinstance(run.prediction.subject, Images):
            for item in layers.numbered(run.bundle, output):
                yield from _on_images(run, answers, item, beside)
            continue
        segments, seg = layers.of(run.prediction, run.bundle, output), _segmentation(beside, output)
        for item in segments.items:
            yield _in_volume(run, output, segments, item, seg)


def _segmentation(beside: Sequence[Result], output: str, frame: int | None = None) -> Result | None:
    """The SEG that holds an output, if the destination gets one."""
    for one in beside:
        is_about = frame is None or frame in one.part.frames
        if one.kind == "seg" and one.part.output == output and is_about:
            return one
    return None


def _in_volume(run: Run, output: str, segments: Layers, item: Numbered, seg: Result | None) -> Any:
    """The group of one segment of a volume: TID 1411, or without a SEG to refer to TID 1501."""
    voxels = segments.count(item)
    shared = _shared(run, output, item)
    shared["measurements"] = _volume(run, item.segment, voxels)
    group: Any
    if seg is None:
        group = hd.sr.MeasurementsAndQualitativeEvaluations(**shared)
    else:
        group = hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
            **shared,
            referenced_segment=hd.sr.ReferencedSegment(
                sop_class_uid=seg.dataset.SOPClassUID,
                sop_instance_uid=seg.dataset.SOPInstanceUID,
                segment_number=item.number,
                source_series=hd.sr.SourceSeriesForSegmentation(run.header.SeriesInstanceUID),
            ),
        )
    if voxels == 0:
        group[0].ContentSequence.append(content.comment(NOT_FOUND))
    return group


def _on_images(
    run: Run, answers: Sequence[Segmented], item: Numbered, beside: Sequence[Result]
) -> Iterator[Any]:
    """The groups of one segment of single images: TID 1410 for each that it is on."""
    output = answers[0].output
    found = False
    for answer in answers:
        frame = answer.frame or 0
        segments = layers.of(run.prediction, run.bundle, output, (frame,))
        pixels = segments.count(item)
        if not pixels:
            continue
        found = True
        shared = _shared(run, output, item)
        shared["measurements"] = _area(run, item.segment, pixels, frame)
        seg = _segmentation(beside, output, frame)
        if seg is None:
            yield hd.sr.MeasurementsAndQualitativeEvaluations(
                **shared, source_images=[_source(run, frame, hd.sr.SourceImageForMeasurementGroup)]
            )
        else:
            yield hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(
                **shared, referenced_segment=_on_frame(run, seg, item, frame)
            )
    if not found:
        group: Any = hd.sr.MeasurementsAndQualitativeEvaluations(**_shared(run, output, item))
        group[0].ContentSequence.append(content.comment(NOT_FOUND))
        yield group


def _on_frame(run: Run, seg: Result, item: Numbered, frame: int) -> Any:
    """What of a SEG holds one segment on one image.

    The frame of it alone, or of a label map the segment alone: an image reference has a frame
    number or a segment number, and not both (PS3.3 Table 10-3).
    """
    place = seg.part.frames.index(frame) + 1
    number = next(
        n
        for n, group in enumerate(seg.dataset.PerFrameFunctionalGroupsSequence, start=1)
        if _is_of(group, item.number, place)
    )
    named = hd.sr.ReferencedSegmentationFrame(
        sop_class_uid=seg.dataset.SOPClassUID,
        sop_instance_uid=seg.dataset.SOPInstanceUID,
        frame_number=number,
        segment_number=item.number,
        source_image=_source(run, frame, hd.sr.SourceImageForSegmentation),
    )
    (reference,) = named[0].ReferencedSOPSequence
    if seg.part.variant == "labelmap":
        del reference.ReferencedFrameNumber
    else:
        del reference.ReferencedSegmentNumber
    return named


def _is_of(group: Dataset, segment: int, place: int) -> bool:
    """Whether a frame is of a segment (or, of a label map, of all) on one frame of the source."""
    values = group.FrameContentSequence[0]["DimensionIndexValues"]
    *before, last = values.value if values.VM > 1 else [values.value]
    return last == place and before in ([], [segment])


def _source(run: Run, frame: int, kind: Any) -> Any:
    source = run.prediction.subject.sources[frame]
    return kind(
        source.sop_class_uid,
        source.sop_instance_uid,
        [source.frame_number] if source.is_multiframe else None,
    )


def _shared(run: Run, output: str, item: Numbered) -> dict[str, Any]:
    """What the group of a segment says whatever its form."""
    segment = item.segment
    return {
        "tracking_identifier": hd.sr.TrackingIdentifier(
            uid=said.tracking_uid(run.key, output, segment.label), identifier=segment.name
        ),
        "finding_category": concept(segment.category),
        "finding_type": concept(segment.type),
        "finding_sites": content.sites(finding_site.of(segment)),
        "algorithm_id": content.algorithm(run),
    }


def _volume(run: Run, segment: Finding, voxels: int) -> list[Measurement]:
    millilitres = common.volume_ml(voxels, voxel_mm3=run.prediction.volume.voxel_mm3)
    return _measured(segment, {"volume": (VOLUME, millilitres, MILLILITRE)})


def _area(run: Run, segment: Finding, pixels: int, frame: int) -> list[Measurement]:
    images = run.prediction.subject
    spacing = images.frames[frame].pixel_spacing if isinstance(images, Images) else None
    if spacing is None:
        return []
    area = common.area_mm2(pixels, pixel_spacing=spacing)
    return _measured(segment, {"area": (AREA, area, SQUARE_MILLIMETRE)})


def _measured(segment: Finding, known: dict[str, tuple[Code, float, Code]]) -> list[Measurement]:
    asked = segment.measure if isinstance(segment, Segment) else ()
    return [
        Measurement(name=concept(name), value=value, unit=concept(unit))
        for name, value, unit in (known[what] for what in asked if what in known)
    ]
