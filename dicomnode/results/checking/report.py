"""Reads a report's content tree, and compares it with what the pixels of the SEG say."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

from pydicom import Dataset

from dicomnode.bundle import Code, Segment
from dicomnode.results import finding_site, findings, layers, said
from dicomnode.results.checking import findings as check_findings
from dicomnode.results.checking import sites
from dicomnode.results.checking.expected import Expected, Read, has_code, require
from dicomnode.results.checking.tree import children, evidence, measurement_groups, text
from dicomnode.results.layers import Numbered
from dicomnode.results.part import Part
from dicomnode.results.writing.report import NOT_FOUND, TITLES
from dicomnode.volume import Images, Volume

_TRACKING_ID = Code(value="112039", scheme="DCM", meaning="Tracking Identifier")
TRACKING_UID = Code(value="112040", scheme="DCM", meaning="Tracking Unique Identifier")
_FINDING = Code(value="121071", scheme="DCM", meaning="Finding")
_SEGMENT = Code(value="121191", scheme="DCM", meaning="Referenced Segment")
_SOURCE_SERIES = Code(value="121232", scheme="DCM", meaning="Source series for segmentation")
_ALGORITHM_NAME = Code(value="111001", scheme="DCM", meaning="Algorithm Name")
_ALGORITHM_VERSION = Code(value="111003", scheme="DCM", meaning="Algorithm Version")
_PROCEDURE = Code(value="121058", scheme="DCM", meaning="Procedure Reported")
_COMMENT = Code(value="121106", scheme="DCM", meaning="Comment")
_VOLUME = Code(value="118565006", scheme="SCT", meaning="Volume")
_MILLILITRE = Code(value="mL", scheme="UCUM", meaning="milliliter")

_AREA = Code(value="42798000", scheme="SCT", meaning="Area")
_SQUARE_MILLIMETRE = Code(value="mm2", scheme="UCUM", meaning="square millimeter")

_RELATIVE = 1e-5  # between a volume by the affine and one by the frames' positions
_ABSOLUTE_ML = 1e-6  # the last decimal that is written
_ABSOLUTE_MM2 = 1e-3  # likewise


def check(dataset: Dataset, part: Part, beside: Sequence[Read], expected: Expected) -> None:
    """Check the report.

    Args:
        beside: Every other object that the same destination gets.

    Raises:
        ResultMismatch: It says something else than the SEG, or names something else.
    """
    profile = next(one for one in expected.profiles if one.digest == part.variant)
    check_standing(dataset, expected, title=TITLES[profile.title])
    _check_remarks(dataset, expected)
    _check_evidence(dataset, beside, expected)
    groups = measurement_groups(dataset)
    claimed = _check_segments(groups, beside, expected)
    others = findings.groups(expected.prediction, expected.bundle.manifest.outputs, expected.key)
    rest = {text(group, TRACKING_UID): group for group in groups if id(group) not in claimed}
    require(
        sorted(rest) == sorted(one.tracking_uid for one in others)
        and len(rest) + len(claimed) == len(groups),
        "tracking-differs",
        "The report has not one group for each finding, with its tracking identifier.",
    )
    subject = expected.prediction.subject
    space = subject.frame_of_reference_uid if isinstance(subject, Volume) else ""
    check_findings.check(rest, others, space=space)
    for group in others:
        check_made_by(rest[group.tracking_uid], expected)


def _check_segments(
    groups: Sequence[Dataset], beside: Sequence[Read], expected: Expected
) -> set[int]:
    """Check the groups of all segments; gives them by `id`."""
    outputs = dict.fromkeys(one.output for one in said.segmented(expected.prediction))
    claimed: set[int] = set()
    by_tracking: dict[str, list[Dataset]] = defaultdict(list)
    for group in groups:
        by_tracking[text(group, TRACKING_UID)].append(group)
    for output in outputs:
        segs = [one for one in beside if one.part.kind == "seg" and one.part.output == output]
        for item in layers.numbered(expected.bundle, output):
            tracked = said.tracking_uid(expected.key, output, item.segment.label)
            own = by_tracking[tracked]
            claimed.update(map(id, own))
            for group in own:
                _check_finding(group, item, expected)
            if isinstance(expected.prediction.subject, Images):
                _check_on_images(own, output, item, segs, expected)
                continue
            require(
                len(own) == 1,
                "tracking-differs",
                f"Segment {item.number} has not exactly one group in the report.",
            )
            _check_source(own[0], segs, item, expected)
            volumes_ml = segs[0].volumes_ml if segs else expected.volumes_ml[output]
            _check_volume(own[0], volumes_ml[item.number], item)
    return claimed


def _check_on_images(
    own: Sequence[Dataset], output: str, item: Numbered, segs: Sequence[Read], expected: Expected
) -> None:
    """Of a segment of single images: a group for each that it is on, and each names it."""
    answers = [one for one in said.segmented(expected.prediction) if one.output == output]
    counts = {
        answer.frame: layers.of(
            expected.prediction, expected.bundle, output, (answer.frame,)
        ).count(item)
        for answer in answers
        if answer.frame is not None
    }
    frames = [frame for frame, count in counts.items() if count]
    if not frames:
        require(
            len(own) == 1 and text(own[0], _COMMENT) == NOT_FOUND,
            "finding-differs",
            f"The report does not say that segment {item.number} was not found.",
        )
        return
    require(
        len(own) == len(frames),
        "finding-differs",
        f"Segment {item.number} has not one group for each image that it is on.",
    )
    for group, frame in zip(own, frames, strict=True):
        source = expected.prediction.subject.sources[frame]
        named = [
            (
                sop.ReferencedSOPInstanceUID,
                sop.get("ReferencedFrameNumber"),
                sop.get("ReferencedSegmentNumber"),
            )
            for child in group.ContentSequence
            if child.ValueType == "IMAGE"
            for sop in child.ReferencedSOPSequence
        ]
        number = source.frame_number if source.is_multiframe else None
        meant: list[tuple[str, int | None, int | None]] = [(source.sop_instance_uid, number, None)]
        meant[:0] = [_on_frame(one, item, frame) for one in segs if frame in one.part.frames]
        require(
            named == meant,
            "reference-differs",
            f"The finding of segment {item.number} names another segment, or another image.",
        )
        _check_area(group, counts[frame], expected.pixel_mm2(source), item)


def _check_area(group: Dataset, pixels: int, pixel_mm2: float | None, item: Numbered) -> None:
    """The area on one image stands there where it is asked for and the size of a pixel is known."""
    asked = isinstance(item.segment, Segment) and "area" in item.segment.measure
    numbers = [child for child in group.ContentSequence if child.ValueType == "NUM"]
    require(
        len(numbers) == (asked and pixel_mm2 is not None),
        "measurement-differs",
        f"Segment {item.number} has a measurement too many on an image, or none.",
    )
    for number in numbers:
        (value,) = number.MeasuredValueSequence
        require(
            has_code(number.ConceptNameCodeSequence, _AREA)
            and has_code(value.MeasurementUnitsCodeSequence, _SQUARE_MILLIMETRE),
            "unit-differs",
            f"The area of segment {item.number} is not one in mm2.",
        )
        require(
            math.isclose(
                float(value.NumericValue),
                pixels * (pixel_mm2 or 0),
                rel_tol=_RELATIVE,
                abs_tol=_ABSOLUTE_MM2,
            ),
            "measurement-differs",
            f"The area of segment {item.number} is not that of its pixels.",
        )


def _on_frame(seg: Read, item: Numbered, frame: int) -> tuple[str, int | None, int | None]:
    """How a segment on one image is named: by its frame, or of a label map by its number."""
    if seg.part.variant == "labelmap":
        return seg.sop_instance_uid, None, item.number
    place = seg.part.frames.index(frame)
    return seg.sop_instance_uid, seg.frames.index((item.number, place)) + 1, None


def check_standing(dataset: Dataset, expected: Expected, *, title: Code) -> None:
    """The report is complete and verified by nobody, and says what it is about."""
    flags = [dataset.get(f"{what}Flag") for what in ("Completion", "Preliminary", "Verification")]
    require(
        flags == ["COMPLETE", "PRELIMINARY", "UNVERIFIED"],
        "standing-differs",
        "The report passes for more, or for less, than an algorithm's unverified answer.",
    )
    require(
        has_code(dataset.ConceptNameCodeSequence, title),
        "title-differs",
        "The report has not the title that its destination asks for.",
    )
    procedures = [item.get("ConceptCodeSequence") for item in children(dataset, _PROCEDURE)]
    require(
        len(procedures) == 1 and has_code(procedures[0], expected.bundle.manifest.procedure),
        "procedure-differs",
        "The procedure reported is not the one of the manifest.",
    )


def _check_remarks(dataset: Dataset, expected: Expected) -> None:
    remarks = [str(child.get("TextValue")) for child in children(dataset, _COMMENT)]
    require(
        remarks == [expected.bundle.manifest.notice, *said.silent(expected.prediction)],
        "notice-missing",
        "The report has no notice, or does not say what could not be said.",
    )


def _check_evidence(dataset: Dataset, beside: Sequence[Read], expected: Expected) -> None:
    meant = [*expected.all_headers, *(one.sop_instance_uid for one in beside)]
    require(
        sorted(evidence(dataset)) == sorted(meant),
        "reference-differs",
        "The report's evidence is not every source and every object of the run.",
    )


def _check_finding(group: Dataset, item: Numbered, expected: Expected) -> None:
    number = item.number
    require(
        text(group, _TRACKING_ID) == item.segment.name,
        "tracking-differs",
        f"The finding of segment {number} has another tracking identifier than the segment.",
    )
    findings = [child.get("ConceptCodeSequence") for child in children(group, _FINDING)]
    require(
        len(findings) == 1 and has_code(findings[0], item.segment.type),
        "finding-differs",
        f"The finding of segment {number} is not what the manifest says.",
    )
    sites.check(group, finding_site.of(item.segment), f"Segment {number}")
    check_made_by(group, expected)


def check_made_by(group: Dataset, expected: Expected) -> None:
    """A group names the algorithm which ran."""
    model = expected.bundle
    require(
        text(group, _ALGORITHM_NAME) == model.manifest.name
        and text(group, _ALGORITHM_VERSION) == model.algorithm_version,
        "algorithm-differs",
        "A finding names another algorithm, or another version of it.",
    )


def _check_source(group: Dataset, segs: Sequence[Read], item: Numbered, expected: Expected) -> None:
    named = [
        (sop.ReferencedSOPInstanceUID, sop.get("ReferencedSegmentNumber"))
        for child in children(group, _SEGMENT)
        for sop in child.get("ReferencedSOPSequence", ())
    ]
    series = {header.SeriesInstanceUID for header in expected.headers.values()}
    require(
        named == [(one.sop_instance_uid, item.number) for one in segs]
        and (not segs or text(group, _SOURCE_SERIES) in series),
        "reference-differs",
        f"The finding of segment {item.number} names another segment, or another series.",
    )


def _check_volume(group: Dataset, volume_ml: float, item: Numbered) -> None:
    values = [
        value
        for child in children(group, _VOLUME)
        for value in child.get("MeasuredValueSequence", ())
    ]
    require(
        len(values) == (isinstance(item.segment, Segment) and "volume" in item.segment.measure),
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
        (text(group, _COMMENT) == NOT_FOUND) == (volume_ml == 0),
        "finding-differs",
        f"Whether segment {item.number} was found is not said as it is.",
    )
