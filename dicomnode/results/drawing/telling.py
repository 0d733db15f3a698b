"""What a model said, output by output, as lines and sentences for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from PIL import ImageColor

from dicomnode.bundle import (
    BoxesOutput,
    Bundle,
    ClassificationOutput,
    HeatMapOutput,
    ImageOutput,
    NumbersOutput,
    Output,
    PointsOutput,
    ProbabilityMapOutput,
    RegistrationOutput,
)
from dicomnode.prediction import (
    Answer,
    Boxes,
    Classification,
    HeatMap,
    Numbers,
    Points,
    Prediction,
    Registration,
)
from dicomnode.results import common, said
from dicomnode.results.drawing.canvas import WARNING, Color
from dicomnode.results.drawing.legend import Chapter, Told
from dicomnode.results.findings import NONE_CHOSEN
from dicomnode.results.layers import Layers, Numbered
from dicomnode.volume import Images, Volume

PROBABLE = "Outlined where the probability is 50 % and more."
#: The colour of what is told and not drawn.
SLATE: Color = (84, 94, 106)

#: Output → its segments: one for a volume, one for each image (by number) of images.
Segments = Mapping[str, Mapping[int | None, Layers]]


def chapters(prediction: Prediction, bundle: Bundle, segments: Segments) -> list[Chapter]:
    """Everything that was said, in the manifest's order, and what could not be said.

    Args:
        segments: Of the outputs that have any: those of label maps and masks, and of probability
            maps where they reach one half.
    """
    told: list[Chapter] = []
    for name, output in bundle.manifest.outputs.items():
        answers = [one for one in prediction.answers if one.output == name]
        if name in segments:
            told.append(_segments(output, segments[name], prediction))
        elif answers:
            told += _chapters(output, answers, prediction, bundle)
    sentences = tuple(f"Not analysed: {why}" for why in said.silent(prediction))
    return [*told, Chapter(sentences=sentences)]


def _chapters(
    output: Output, answers: Sequence[Answer], prediction: Prediction, bundle: Bundle
) -> Iterator[Chapter]:
    if isinstance(output, BoxesOutput):
        yield _boxes(output, answers)
    elif isinstance(output, PointsOutput):
        yield Chapter(told=tuple(_points(output, answers)))
    elif isinstance(output, ClassificationOutput):
        yield _classes(output, answers, prediction)
    elif isinstance(output, NumbersOutput):
        yield Chapter(told=tuple(_numbers(output, answers, prediction)))
    elif isinstance(output, HeatMapOutput):
        yield Chapter(sentences=(_heat(output, answers, bundle),), mark="heat")
    elif isinstance(output, ImageOutput):
        yield Chapter(sentences=(f"Made of the images: {output.description}.",))
    elif isinstance(output, RegistrationOutput):
        yield Chapter(told=tuple(_registrations(output, answers, prediction)))


def _segments(
    output: Output, of_frames: Mapping[int | None, Layers], prediction: Prediction
) -> Chapter:
    items = next(iter(of_frames.values())).items
    return Chapter(
        is_search=True,
        told=tuple(_segment(item, of_frames, prediction) for item in items),
        sentences=(PROBABLE,) if isinstance(output, ProbabilityMapOutput) else (),
    )


def _segment(
    item: Numbered, of_frames: Mapping[int | None, Layers], prediction: Prediction
) -> Told:
    counts = {frame: layers.count(item) for frame, layers in of_frames.items()}
    voxels = sum(counts.values())
    return Told(
        name=item.segment.name,
        color=ImageColor.getrgb(item.segment.color),
        value=_size(counts, prediction) if voxels else "not found",
        weight=voxels,
        is_found=bool(voxels),
    )


def _size(counts: Mapping[int | None, int], prediction: Prediction) -> str:
    """How large a segment is: millilitres, square millimetres of one image, or how many images."""
    subject = prediction.subject
    found = {frame: count for frame, count in counts.items() if count}
    if isinstance(subject, Volume):
        millilitres = common.volume_ml(sum(found.values()), voxel_mm3=subject.voxel_mm3)
        return f"{millilitres:.2f} mL" if millilitres < 100 else f"{millilitres:.0f} mL"  # noqa: PLR2004 - digits that mean something
    if not isinstance(subject, Images) or len(subject.frames) > 1:
        return f"on {len(found)} image{'s' * (len(found) > 1)}"
    spacing = subject.frames[0].pixel_spacing
    (count,) = found.values()
    if spacing is None:
        return "found"
    return f"{common.area_mm2(count, pixel_spacing=spacing):.4g} mm2"


def _boxes(output: BoxesOutput, answers: Sequence[Answer]) -> Chapter:
    boxes = [box for one in answers if isinstance(one, Boxes) for box in one.boxes]
    told = []
    for finding in output.findings:
        scores = [box.score for box in boxes if box.label == finding.label]
        value = f"{max(scores):.0%}" if len(scores) == 1 else f"{len(scores)} found"
        told.append(
            Told(
                name=finding.name,
                color=ImageColor.getrgb(finding.color),
                value=value if scores else "not found",
                weight=len(scores),
                is_found=bool(scores),
            )
        )
    return Chapter(told=tuple(told), is_search=True)


def _points(output: PointsOutput, answers: Sequence[Answer]) -> Iterator[Told]:
    points = [point for one in answers if isinstance(one, Points) for point in one.points]
    for number, landmark in enumerate(output.landmarks, start=1):
        at = [point.at for point in points if point.label == landmark.label]
        value = f"{len(at)} places" if len(at) > 1 else ""
        if len(at) == 1 and len(at[0]) == 3:  # noqa: PLR2004 - x, y, z in mm
            value = " ".join(_sides(at[0])) + " mm"
        color = ImageColor.getrgb(landmark.color)
        yield Told(name=f"{number}  {landmark.name}", color=color, value=value)


def _sides(at: Sequence[float]) -> Iterator[str]:
    """Patient coordinates as readers say them: L12 P4 H6 (PS3.3 C.7.6.1.1.1)."""
    for value, letters in zip(at, ("RL", "AP", "FH"), strict=True):
        yield f"{letters[int(value >= 0)]}{abs(value):.0f}"


def _classes(
    output: ClassificationOutput, answers: Sequence[Answer], prediction: Prediction
) -> Chapter:
    """Those that are said to be so stand out, and come first where there are too many."""
    told, is_any = [], False
    for one in answers:
        if not isinstance(one, Classification):
            continue
        is_any = is_any or bool(one.chosen)
        for index, (named, value) in enumerate(zip(output.classes, one.probabilities, strict=True)):
            is_chosen = index in one.chosen
            told.append(
                Told(
                    name=f"{_which(one, prediction)}{named.name}",
                    color=WARNING if is_chosen else SLATE,
                    value=f"{value:.1%}",
                    weight=value + is_chosen,
                )
            )
    return Chapter(told=tuple(told), sentences=() if is_any else (NONE_CHOSEN,))


def _numbers(
    output: NumbersOutput, answers: Sequence[Answer], prediction: Prediction
) -> Iterator[Told]:
    for one in answers:
        if not isinstance(one, Numbers):
            continue
        for quantity, value in zip(output.quantities, one.values, strict=True):
            name = f"{_which(one, prediction)}{quantity.name}"
            yield Told(name=name, color=SLATE, value=f"{value:.4g} {quantity.unit.value}")


def _which(answer: Answer, prediction: Prediction) -> str:
    """Of several images: the number of the one that an answer is about."""
    if answer.frame is None or len(prediction.subject.sources) == 1:
        return ""
    return f"{answer.frame + 1}: "


def _heat(output: HeatMapOutput, answers: Sequence[Answer], bundle: Bundle) -> str:
    of = bundle.manifest.outputs[output.of]
    explained = {one.explains for one in answers if isinstance(one, HeatMap)}
    if isinstance(of, ClassificationOutput) and len(explained) == 1:
        return f"warmer: what spoke most for {of.classes[explained.pop()].name}"
    return "warmer: what spoke most for the class"


def _registrations(
    output: RegistrationOutput, answers: Sequence[Answer], prediction: Prediction
) -> Iterator[Told]:
    """How far the middle of the image is from where it was, and the angle of the turn."""
    for one in answers:
        if not isinstance(one, Registration):
            continue
        volume = prediction.volume
        middle = volume.affine @ [*((size - 1) / 2 for size in volume.array.shape), 1]
        moved = np.linalg.norm((middle - np.linalg.solve(one.matrix, middle))[:3])
        cosine = (np.trace(one.matrix[:3, :3]) - 1) / 2
        turned = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
        yield Told(
            name=f"{output.moving} is moved by",
            color=SLATE,
            value=f"{moved:.1f} mm, {turned:.1f} deg",
        )
