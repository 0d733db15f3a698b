"""A picture of the answer about images that are looked at one by one.

Each image with its outlines, boxes and points, its heat map as warmth, and what was said of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from PIL import Image, ImageColor

from dicomnode.bundle import BoxesOutput, Bundle, PointsOutput
from dicomnode.prediction import (
    Answer,
    Boxes,
    DerivedImage,
    HeatMap,
    LabelMap,
    Masks,
    Points,
    Prediction,
    ProbabilityMap,
)
from dicomnode.results import layers
from dicomnode.results.drawing import canvas, gray, legend, panels, telling
from dicomnode.results.drawing.canvas import COLUMNS, GAP, MARGIN, PANELS, WIDTH
from dicomnode.results.drawing.legend import Chapter
from dicomnode.results.drawing.marks import Mark
from dicomnode.results.drawing.panels import Plane
from dicomnode.results.layers import Layers
from dicomnode.volume import Images, Picture

_HALF = 0.5  # from which probability on a pixel is outlined
_ALONE = (620, 820)  # pixels of a panel that stands alone, at most
_WIDE = 0.6  # height to width: a wider image takes the whole width
_TALLEST = 1.6
_CENTRE = 0.5  # of a pixel: its corner is 0 here, its centre where boxes and points are counted

#: Output → image → its segments.
_Segments = Mapping[str, Mapping[int | None, Layers]]


def overlay(prediction: Prediction, *, bundle: Bundle) -> Image.Image:
    """Draw the first images with what was said of each, a legend, and the notice."""
    images = prediction.subject
    if not isinstance(images, Images):
        raise TypeError(f"the subject is {type(images).__name__}, not images")
    segments = _segments(prediction, bundle)
    numbers = _shown(prediction, len(images.frames))
    planes = [
        (_plane(images, number, prediction, bundle), _marks(number, segments, prediction, bundle))
        for number in numbers
    ]
    planes += [(one, []) for one in _made(images, numbers, prediction)]
    told = telling.chapters(prediction, bundle, segments)
    return canvas.stacked(
        [
            canvas.header(bundle, _described(images, numbers)),
            *_laid_out(planes, told),
            canvas.footer(bundle.manifest.notice),
        ]
    )


def _laid_out(
    planes: Sequence[tuple[Plane, Sequence[Mark]]], told: Sequence[Chapter]
) -> Iterator[Image.Image]:
    """One image with the legend beside it; several, or a wide one, above it."""
    shape = max(plane.shape for plane, _ in planes)
    if len(planes) == 1 and shape >= _WIDE:
        (plane, marks) = planes[0]
        width = round(min(_ALONE[0], _ALONE[1] / shape))
        panel = panels.draw(plane, marks, size=(width, round(width * shape)))
        room = WIDTH - MARGIN - width - GAP
        yield canvas.beside(panel, legend.drawn(told, width=room, columns=1))
        return
    columns = 2 if len(planes) == 4 else min(COLUMNS, len(planes))  # noqa: PLR2004 - two by two
    width = canvas.panel_width(columns)
    size = (width, round(width * min(shape, _TALLEST)))
    yield canvas.grid([panels.draw(plane, marks, size=size) for plane, marks in planes], columns)
    yield legend.drawn(told)


def _segments(prediction: Prediction, bundle: Bundle) -> dict[str, dict[int | None, Layers]]:
    """The segments of each output and image; of probabilities, where they reach one half."""
    found: dict[str, dict[int | None, Layers]] = {}
    for answer in prediction.answers:
        frame = answer.frame
        if frame is None:
            continue
        if isinstance(answer, LabelMap | Masks):
            made = layers.of(prediction, bundle, answer.output, (frame,))
        elif isinstance(answer, ProbabilityMap):
            items = layers.numbered(bundle, answer.output)
            made = Layers(items=items, array=answer.array[:, None] >= _HALF)
        else:
            continue
        found.setdefault(answer.output, {})[frame] = made
    return found


def _shown(prediction: Prediction, count: int) -> list[int]:
    """The images that something is drawn on come first, and then the others."""
    marked = {one.frame for one in prediction.answers if _finds(one)}
    order = sorted(range(count), key=lambda number: (number not in marked, number))
    made = any(isinstance(one, DerivedImage) for one in prediction.answers)
    return sorted(order[: COLUMNS if made else PANELS])


def _finds(answer: Answer) -> bool:
    if isinstance(answer, LabelMap | Masks):
        return bool(answer.array.any())
    if isinstance(answer, ProbabilityMap):
        return bool((answer.array >= _HALF).any())
    if isinstance(answer, Boxes):
        return bool(answer.boxes)
    return isinstance(answer, Points)


def _plane(images: Images, number: int, prediction: Prediction, bundle: Bundle) -> Plane:
    picture, count = images.frames[number], len(images.frames)
    first = next(iter(bundle.manifest.inputs.values()))
    heat = [
        one.array
        for one in prediction.answers
        if isinstance(one, HeatMap) and one.frame in (None, number)
    ]
    return Plane(
        shown=gray.picture(picture, is_displayed=first.values == "displayed"),
        aspect=_aspect(picture),
        pixel_mm=picture.pixel_spacing[1] if picture.pixel_spacing else None,
        scale_note="" if "PixelSpacing" in picture.header else " at detector",
        directions=_directions(picture),
        label=f"{number + 1} / {count}" if count > 1 else "",
        heat=heat[0] if heat else None,
    )


def _made(images: Images, numbers: Sequence[int], prediction: Prediction) -> Iterator[Plane]:
    """The images that were made of those that are shown."""
    for one in prediction.answers:
        if isinstance(one, DerivedImage) and one.frame is not None and one.frame in numbers:
            picture = images.frames[one.frame]
            yield Plane(
                shown=gray.of_values(one.array).gray(one.array),
                aspect=_aspect(picture),
                pixel_mm=picture.pixel_spacing[1] if picture.pixel_spacing else None,
                scale_note="",
                directions=_directions(picture),
                label=f"{one.frame + 1} / {len(images.frames)}, made",
            )


def _aspect(picture: Picture) -> float:
    """Height of a pixel to its width, from spacing or Pixel Aspect Ratio (PS3.3 C.7.6.3.1.7)."""
    if picture.pixel_spacing is not None:
        return picture.pixel_spacing[0] / picture.pixel_spacing[1]
    ratio = picture.header.get("PixelAspectRatio") or (1, 1)
    vertical, horizontal = (float(value) for value in ratio)
    return vertical / horizontal if vertical > 0 and horizontal > 0 else 1.0


def _directions(picture: Picture) -> panels.Directions | None:
    if picture.affine is not None:
        return panels.of_affine(picture.affine)
    return panels.of_letters(picture.header.get("PatientOrientation") or ())


def _marks(number: int, segments: _Segments, prediction: Prediction, bundle: Bundle) -> list[Mark]:
    """What was found on one image: larger things first, so that smaller ones lie on them."""
    outlined = [
        (of_frame[number].count(item), of_frame[number], item)
        for of_frame in segments.values()
        if number in of_frame
        for item in of_frame[number].items
    ]
    marks = [
        Mark(color=ImageColor.getrgb(item.segment.color), mask=found.plane(item, 0))
        for pixels, found, item in sorted(outlined, key=lambda one: -one[0])
        if pixels
    ]
    for answer in prediction.answers:
        if answer.frame == number:
            marks += _places(answer, bundle)
    return marks


def _places(answer: Answer, bundle: Bundle) -> Iterator[Mark]:
    """Boxes and points."""
    output = bundle.manifest.outputs[answer.output]
    if isinstance(answer, Boxes) and isinstance(output, BoxesOutput):
        colors = {one.label: one.color for one in output.findings}
        for box in reversed(answer.boxes):  # the highest score on top
            left, top, right, bottom = (value + _CENTRE for value in (*box.low, *box.high))
            yield Mark(
                color=ImageColor.getrgb(colors[box.label]),
                box=(left, top, right, bottom),
                label=f"{box.score:.0%}",
            )
    elif isinstance(answer, Points) and isinstance(output, PointsOutput):
        numbers = {one.label: n for n, one in enumerate(output.landmarks, start=1)}
        for point in answer.points:
            number = numbers[point.label]
            yield Mark(
                color=ImageColor.getrgb(output.landmarks[number - 1].color),
                point=(point.at[0] + _CENTRE, point.at[1] + _CENTRE),
                label=str(number),
            )


def _described(images: Images, numbers: Sequence[int]) -> str:
    count, (rows, columns) = len(images.frames), images.frames[0].array.shape[:2]
    several = f"{count} images, " if count > 1 else ""
    fewer = f"{len(numbers)} of them shown, " if len(numbers) < count else ""
    one_size = len({frame.array.shape[:2] for frame in images.frames}) == 1
    size = f"{columns} x {rows} pixels" if one_size else "of several sizes"
    return f"{images.modality}, {several}{fewer}{size}"
