"""A picture of the answer about images that are looked at one by one.

Each image with its boxes and points, its heat map as warmth, and beside it what was said of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageDraw

from dicomnode.bundle import BoxesOutput, Bundle, PointsOutput
from dicomnode.prediction import Answer, Boxes, HeatMap, Points, Prediction
from dicomnode.results.drawing import slices
from dicomnode.results.drawing.canvas import (
    COLUMNS,
    GAP,
    INK,
    MARGIN,
    PANELS,
    SHADOW,
    WARNING,
    WIDTH,
    footer,
    grid,
    stacked,
    write,
)
from dicomnode.volume import Images, Picture
from dicomnode.volume.display import displayed

_WARMEST = 0.55  # opacity of the hottest place
_POINT = 5  # pixels
_COLOURS = 3
_ALONE = 560  # pixels of a panel that stands alone


def overlay(prediction: Prediction, *, bundle: Bundle) -> Image.Image:
    """Draw the first images with what was said of each, a legend, and the notice."""
    images = prediction.subject
    if not isinstance(images, Images):
        raise TypeError(f"the subject is {type(images).__name__}, not images")
    numbers = _shown(prediction, len(images.frames))
    columns = min(COLUMNS, len(numbers))
    side = _ALONE if columns == 1 else (WIDTH - 2 * MARGIN - (columns - 1) * GAP) // columns
    panels = [
        _panel(
            images.frames[number],
            [one for one in prediction.answers if one.frame in (None, number)],
            bundle,
            side=side,
            label=f"{number + 1} / {len(images.frames)}",
        )
        for number in numbers
    ]
    rows, width = images.frames[0].array.shape[:2]
    several = f"{len(images.frames)} images, first " if len(images.frames) > 1 else ""
    described = f"{images.modality}, {several}{width} x {rows} pixels"
    return stacked(
        [
            slices.header(bundle, described),
            grid(panels, columns),
            slices.legend([*_marks(prediction, bundle), *slices.classes(prediction, bundle)]),
            footer(bundle.manifest.notice),
        ]
    )


def _shown(prediction: Prediction, count: int) -> list[int]:
    """The images that something was found on come first, and then the others."""
    marked = {
        one.frame
        for one in prediction.answers
        if one.frame is not None and not (isinstance(one, Boxes) and not one.boxes)
    }
    order = sorted(range(count), key=lambda number: (number not in marked, number))
    return sorted(order[:PANELS])


def _panel(
    picture: Picture, answers: Iterable[Answer], bundle: Bundle, *, side: int, label: str
) -> Image.Image:
    rows, columns = picture.array.shape[:2]
    scale = side / max(rows, columns)
    size = (max(1, round(columns * scale)), max(1, round(rows * scale)))
    shown = Image.fromarray(_visible(picture)).convert("RGB")
    shown = shown.resize(size, Image.Resampling.LANCZOS)
    for answer in answers:
        if isinstance(answer, HeatMap):
            shown = _warmed(shown, answer.array)
    draw = ImageDraw.Draw(shown)
    for answer in answers:
        _mark(draw, answer, bundle, scale)
    panel = Image.new("RGB", (side, side), SHADOW)
    panel.paste(shown, ((side - size[0]) // 2, (side - size[1]) // 2))
    write(ImageDraw.Draw(panel), (7, 6), label, size=13, anchor="lt", color=INK)
    return panel


def _visible(picture: Picture) -> NDArray[np.uint8]:
    """From 0 to 255, whatever the numbers were that the model saw."""
    array = picture.array
    is_visible = array.min() >= 0 and array.max() <= 255  # noqa: PLR2004 - as stored
    if array.ndim != _COLOURS and not is_visible:
        array = displayed(array, picture.header)
    return np.clip(array, 0, 255).astype(np.uint8)


def _warmed(shown: Image.Image, heat: NDArray[np.float32]) -> Image.Image:
    opacity = Image.fromarray((np.clip(heat, 0, 1) * 255 * _WARMEST).astype(np.uint8))
    warm = Image.new("RGB", shown.size, (255, 96, 32))
    return Image.composite(warm, shown, opacity.resize(shown.size, Image.Resampling.BICUBIC))


def _mark(draw: ImageDraw.ImageDraw, answer: Answer, bundle: Bundle, scale: float) -> None:
    output = bundle.manifest.outputs[answer.output]
    if isinstance(answer, Boxes) and isinstance(output, BoxesOutput):
        colors = {one.label: one.color for one in output.findings}
        for box in answer.boxes:
            (left, top), (right, bottom) = box.low, box.high
            corners = [(value + 0.5) * scale for value in (left, top, right, bottom)]
            draw.rectangle(corners, outline=colors[box.label], width=2)
            place = (corners[0], corners[1] - 9)
            write(draw, place, f"{box.score:.0%}", size=12, color=WARNING)
    elif isinstance(answer, Points) and isinstance(output, PointsOutput):
        for landmark, point in zip(output.landmarks, answer.points, strict=True):
            x, y = ((value + 0.5) * scale for value in point.at)
            around = (x - _POINT, y - _POINT, x + _POINT, y + _POINT)
            draw.ellipse(around, outline=landmark.color, width=2)


def _marks(prediction: Prediction, bundle: Bundle) -> Iterator[slices.Told]:
    """How many of each finding there are, over all images."""
    for name, output in bundle.manifest.outputs.items():
        if isinstance(output, BoxesOutput):
            boxes = [
                box
                for one in prediction.answers
                if isinstance(one, Boxes) and one.output == name
                for box in one.boxes
            ]
            for finding in output.findings:
                count = sum(box.label == finding.label for box in boxes)
                yield finding.name, ImageColor.getrgb(finding.color), str(count or "none")
        elif isinstance(output, PointsOutput):
            for landmark in output.landmarks:
                yield landmark.name, ImageColor.getrgb(landmark.color), ""
