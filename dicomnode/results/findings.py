r"""What stands in the report alone: classes, numbers, boxes and points (TID 1501 and TID 1410).

==============  ==============================================================================
classes         one group for each image, series or study: a qualitative evaluation for each class
                that is said to be so, and the certainty of each class in percent
numbers         one group with a measurement for each quantity
boxes           one group for each: the rectangle on the slice through its middle (SCOORD3D, mm) or
                on the image (SCOORD, where the centre of the first pixel is 0.5\0.5, PS3.3
                C.18.6.1.1), its extent, and the certainty
points          one group for each: a point, likewise
probabilities   one group for each finding, with the tracking identifier of its segment
==============  ==============================================================================
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dicomnode.bundle import (
    BoxesOutput,
    ClassificationOutput,
    Code,
    NumbersOutput,
    PointsOutput,
    ProbabilityMapOutput,
)
from dicomnode.prediction import (
    Answer,
    Box,
    Boxes,
    Classification,
    Numbers,
    Points,
    Prediction,
    ProbabilityMap,
)
from dicomnode.results import finding_site, said
from dicomnode.results.finding_site import Site
from dicomnode.volume import SliceSource, Volume

CERTAINTY = Code(value="111012", scheme="DCM", meaning="Certainty of Finding")
PERCENT = Code(value="%", scheme="UCUM", meaning="Percent")
LENGTH = Code(value="410668003", scheme="SCT", meaning="Length")
MILLIMETRE = Code(value="mm", scheme="UCUM", meaning="millimeter")
CLINICAL_FINDING = Code(value="404684003", scheme="SCT", meaning="Clinical finding")

NONE_CHOSEN = "No class reached its operating point."
NONE_FOUND = "The algorithm found none."
EACH_VOXEL = "The algorithm gave a probability for each voxel."
#: Of an answer in which there is nothing to report: images that were made, a registration, silence.
NO_FINDING = "The algorithm reports no finding."

_CENTRE_OF_PIXEL = 0.5  # PS3.3 C.18.6.1.1: the corner of the first pixel is 0, its centre 0.5


@dataclass(frozen=True, kw_only=True, eq=False)
class Group:
    """One group of the report, as plain values: what is written, and what is compared with it.

    Attributes:
        about: Frames that it is about; empty: all that was shown.
        finding: What was found.
        category: Of what kind that is (CID 7150).
        site: Where it is, and on which side.
        evaluations: Name → value.
        measurements: Name, value, unit.
        graphic: POINT or POLYGON (mm) or POLYLINE (columns and rows); "" without a place.
        points: Shape (n, 3) in mm, or (n, 2) in columns and rows.
        comments: Sentences.
    """

    tracking_uid: str
    tracking_id: str
    finding: Code
    category: Code | None = None
    site: Site | None = None
    about: tuple[SliceSource, ...] = ()
    evaluations: tuple[tuple[Code, Code], ...] = ()
    measurements: tuple[tuple[Code, float, Code], ...] = ()
    graphic: str = ""
    points: NDArray[np.float64] | None = None
    comments: tuple[str, ...] = ()


def groups(prediction: Prediction, outputs: Any, key: str) -> tuple[Group, ...]:
    """Everything that is reported and is no segment, in order.

    A report says at least one thing (TID 1500): if need be, that there is no finding.

    Args:
        outputs: The manifest's outputs by name.
    """
    found = tuple(
        group
        for answer in prediction.answers
        for group in _of(answer, outputs[answer.output], prediction, key)
    )
    if found or said.segmented(prediction):
        return found
    return (
        Group(
            tracking_uid=said.tracking_uid(key, "", 0),
            tracking_id="Answer",
            finding=CLINICAL_FINDING,
            comments=(NO_FINDING,),
        ),
    )


def _of(answer: Answer, output: Any, prediction: Prediction, key: str) -> Iterator[Group]:
    if isinstance(answer, Classification) and isinstance(output, ClassificationOutput):
        yield from _classes(answer, output, prediction, key)
    elif isinstance(answer, Numbers) and isinstance(output, NumbersOutput):
        yield from _numbers(answer, output, prediction, key)
    elif isinstance(answer, Boxes) and isinstance(output, BoxesOutput):
        yield from _boxes(answer, output, prediction, key)
    elif isinstance(answer, Points) and isinstance(output, PointsOutput):
        yield from _points(answer, output, prediction, key)
    elif isinstance(answer, ProbabilityMap) and isinstance(output, ProbabilityMapOutput):
        yield from _probabilities(answer, output, prediction, key)


def _classes(
    answer: Classification, output: ClassificationOutput, prediction: Prediction, key: str
) -> Iterator[Group]:
    about = _about(answer.frame, prediction)
    chosen = [output.classes[index] for index in answer.chosen]
    yield Group(
        tracking_uid=said.tracking_uid(key, answer.output, 0, frame=answer.frame),
        tracking_id=answer.output,
        finding=output.concept,
        about=about,
        evaluations=tuple((output.concept, one.code) for one in chosen),
        comments=() if chosen else (NONE_CHOSEN,),
    )
    for number, (one, value) in enumerate(
        zip(output.classes, answer.probabilities, strict=True), start=1
    ):
        point = one.operating_point
        yield Group(
            tracking_uid=said.tracking_uid(key, answer.output, number, frame=answer.frame),
            tracking_id=one.name,
            finding=one.code,
            about=about,
            measurements=((CERTAINTY, _percent(value), PERCENT),),
            comments=() if point is None else (f"Said to be so from {point * 100:g} % on.",),
        )


def _numbers(
    answer: Numbers, output: NumbersOutput, prediction: Prediction, key: str
) -> Iterator[Group]:
    for number, (one, value) in enumerate(
        zip(output.quantities, answer.values, strict=True), start=1
    ):
        yield Group(
            tracking_uid=said.tracking_uid(key, answer.output, number, frame=answer.frame),
            tracking_id=one.name,
            finding=one.anatomic_region or CLINICAL_FINDING,
            site=finding_site.of_quantity(one),
            about=_about(answer.frame, prediction),
            measurements=((one.code, value, one.unit),),
        )


def _boxes(answer: Boxes, output: BoxesOutput, prediction: Prediction, key: str) -> Iterator[Group]:
    findings = {one.label: one for one in output.findings}
    about = _about(answer.frame, prediction)
    if not answer.boxes:
        first = output.findings[0]
        yield Group(
            tracking_uid=said.tracking_uid(key, answer.output, 0, frame=answer.frame),
            tracking_id=answer.output,
            finding=first.type,
            category=first.category,
            site=finding_site.of(first),
            about=about,
            comments=(NONE_FOUND,),
        )
    for number, box in enumerate(answer.boxes, start=1):
        finding = findings[box.label]
        extent = np.subtract(box.high, box.low)
        is_placed = isinstance(prediction.subject, Volume)
        longest = ((LENGTH, float(extent.max()), MILLIMETRE),) if is_placed else ()
        yield Group(
            tracking_uid=said.tracking_uid(key, answer.output, number, frame=answer.frame),
            tracking_id=f"{finding.name} {number}",
            finding=finding.type,
            category=finding.category,
            site=finding_site.of(finding),
            about=about,
            measurements=((CERTAINTY, _percent(box.score), PERCENT), *longest),
            graphic="POLYGON" if is_placed else "POLYLINE",
            points=_rectangle(box),
        )


def _points(
    answer: Points, output: PointsOutput, prediction: Prediction, key: str
) -> Iterator[Group]:
    landmarks = {one.label: one for one in output.landmarks}
    for number, point in enumerate(answer.points, start=1):
        landmark = landmarks[point.label]
        yield Group(
            tracking_uid=said.tracking_uid(key, answer.output, number, frame=answer.frame),
            tracking_id=landmark.name,
            finding=landmark.type,
            category=landmark.category,
            site=finding_site.of(landmark),
            about=_about(answer.frame, prediction),
            graphic="POINT",
            points=_written(np.array([point.at])),
        )


def _probabilities(
    answer: ProbabilityMap, output: ProbabilityMapOutput, prediction: Prediction, key: str
) -> Iterator[Group]:
    first = next(one for one in prediction.answers if one.output == answer.output)
    if answer is not first:  # a finding of several images is one, as it is one segment
        return
    for one in output.findings:
        yield Group(
            tracking_uid=said.tracking_uid(key, answer.output, one.label),
            tracking_id=one.name,
            finding=one.type,
            category=one.category,
            site=finding_site.of(one),
            comments=(EACH_VOXEL,),
        )


def _rectangle(box: Box) -> NDArray[np.float64]:
    """The box's rectangle, closed: on an image, or on the axial plane through its middle."""
    (left, top), (right, bottom) = box.low[:2], box.high[:2]
    corners = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
    if len(box.low) == 2:  # noqa: PLR2004 - columns and rows
        return _written(np.array(corners))
    middle = (box.low[2] + box.high[2]) / 2
    return _written(np.array([(x, y, middle) for x, y in corners]))


def _written(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Coordinates as SCOORD and SCOORD3D have them: 32 bits, and pixels by their corner."""
    shift = _CENTRE_OF_PIXEL if points.shape[1] == 2 else 0.0  # noqa: PLR2004 - columns and rows
    return (points + shift).astype(np.float32).astype(np.float64)


def _percent(value: float) -> float:
    return round(value * 100, 2)


def _about(frame: int | None, prediction: Prediction) -> tuple[SliceSource, ...]:
    return () if frame is None else (prediction.subject.sources[frame],)
