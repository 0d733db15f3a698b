"""A picture of the answer: key slices with the outlines of what was found, and what was measured.

For people, never for measuring: it shows nothing of the patient's identity, and says what it is.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageDraw, ImageFilter

from dicomnode.bundle import (
    BoxesOutput,
    Bundle,
    ClassificationOutput,
    NumbersOutput,
    PointsOutput,
)
from dicomnode.prediction import Boxes, Classification, Numbers, Points, Prediction
from dicomnode.results import common, layers, said
from dicomnode.results.drawing.canvas import (
    COLUMNS,
    FAINT,
    GAP,
    GROUND,
    INK,
    MARGIN,
    PANELS,
    SHADOW,
    WARNING,
    WIDTH,
    Color,
    fitted,
    font,
    footer,
    grid,
    stacked,
    write,
)
from dicomnode.volume import Volume

_FINE = 2  # everything on the slices is drawn this much larger and then shrunk: smooth lines
_OUTLINE = 9  # fine pixels, odd; half of it is seen
_ROUNDING = 0.42  # of a voxel: corners are rounded, and yet a single voxel does not vanish
_FILL = 0.16  # opacity of a segment's inside
_CROP_SHARE = 0.45  # the field of view is cropped where what was found takes less of it than this
_CROP_LEAST_MM = 90.0
_TALLEST = 1.6  # height of a panel to its width, at most
_PERCENTILES = (0.5, 99.7)  # what a window shows where the image suggests none
_SAMPLES = 500_000  # voxels that the percentiles are taken from
_WINDOW_IN_USE = 0.3  # a suggested window is taken if the image uses this share of it
_OBLIQUE = 0.35  # direction cosine from which a second letter is shown
_BARS_MM = (1, 2, 5, 10, 20, 50, 100, 200)
_BAR_SHARE = 0.35  # of the panel's width, at most


_Box = tuple[slice, slice]
#: Name, colour, and what is told of it.
Told = tuple[str, Color, str]
MARKED = 24  # boxes at most, the highest scores
SLATE = (84, 94, 106)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Layer:
    """One thing that was found, or was not: where it is, and what is told of it.

    Attributes:
        areas: How many voxels it has on each slice.
        plane: Gives where it is on one slice.
    """

    name: str
    color: Color
    areas: NDArray[np.int64]
    plane: Callable[[int], NDArray[np.bool_]]
    told: str

    @property
    def is_found(self) -> bool:
        return bool(self.areas.any())

    @property
    def shadow(self) -> NDArray[np.bool_]:
        """Where it is on any slice: shape (rows, columns)."""
        found = np.flatnonzero(self.areas).tolist()
        return functools.reduce(np.logical_or, map(self.plane, found))


def overlay(prediction: Prediction, *, bundle: Bundle) -> Image.Image:
    """Draw key slices with the outlines of all that was found, a legend, and the notice."""
    volume = prediction.volume
    layered = [*_segments(prediction, bundle), *_marks(prediction, bundle)]
    indices = _key_slices(layered, volume.array.shape[0])
    box = _field_of_view(layered, volume)
    columns = 2 if len(indices) == 4 else min(COLUMNS, len(indices))  # noqa: PLR2004 - two by two
    size = _panel_size(volume, box, columns)
    window = _window(volume)
    panels = [
        _panel(_gray(volume, index, window), index, layered, volume, box=box, size=size)
        for index in indices
    ]
    told = [(layer.name, layer.color, layer.told) for layer in layered]
    parts = [
        header(bundle, _described(volume)),
        grid(panels, columns),
        legend([*told, *classes(prediction, bundle)]),
        footer(bundle.manifest.notice),
    ]
    return stacked(parts)


def _segments(prediction: Prediction, bundle: Bundle) -> Iterator[_Layer]:
    for answer in said.segmented(prediction):
        segments = layers.of(prediction, bundle, answer.output)
        for item in segments.items:
            voxels = segments.count(item)
            volume_ml = common.volume_ml(voxels, voxel_mm3=prediction.volume.voxel_mm3)
            yield _Layer(
                name=item.segment.name,
                color=ImageColor.getrgb(item.segment.color),
                areas=segments.counts[item.number - 1],
                plane=functools.partial(segments.plane, item),
                told=f"{volume_ml:.2f} mL" if voxels else "not found",
            )


def _marks(prediction: Prediction, bundle: Bundle) -> Iterator[_Layer]:
    """Boxes and points as the voxels that they take in."""
    volume = prediction.volume
    for answer in prediction.answers:
        output = bundle.manifest.outputs[answer.output]
        if isinstance(answer, Boxes) and isinstance(output, BoxesOutput):
            findings = {one.label: one for one in output.findings}
            for box in answer.boxes[:MARKED]:
                finding = findings[box.label]
                yield _Layer(
                    name=finding.name,
                    color=ImageColor.getrgb(finding.color),
                    **_within(volume, box.low, box.high),
                    told=f"{box.score:.0%}",
                )
        elif isinstance(answer, Points) and isinstance(output, PointsOutput):
            for landmark, point in zip(output.landmarks, answer.points, strict=True):
                yield _Layer(
                    name=landmark.name,
                    color=ImageColor.getrgb(landmark.color),
                    **_within(volume, point.at, point.at),
                    told=", ".join(f"{mm:.1f}" for mm in point.at),
                )


def _within(volume: Volume, low: Sequence[float], high: Sequence[float]) -> dict[str, Any]:
    """The voxels around a box in the patient, as a layer has them; at least one."""
    corners = np.array(list(product(*zip(low, high, strict=True))))
    to_index = np.linalg.inv(volume.affine)
    placed = corners @ to_index[:3, :3].T + to_index[:3, 3]
    last = np.array(volume.array.shape) - 1
    first = np.clip(np.rint(placed.min(axis=0)), 0, last).astype(int)
    final = np.clip(np.rint(placed.max(axis=0)), 0, last).astype(int) + 1
    plane = np.zeros(volume.array.shape[1:], dtype=np.bool_)
    plane[first[1] : final[1], first[2] : final[2]] = True
    areas = np.zeros(volume.array.shape[0], dtype=np.int64)
    areas[first[0] : final[0]] = np.count_nonzero(plane)
    nothing = np.zeros_like(plane)
    return {"areas": areas, "plane": lambda index: plane if areas[index] else nothing}


def _key_slices(found: Sequence[_Layer], slices: int) -> list[int]:
    """The largest slice of each segment, and between them slices spread over all that was found."""
    areas = [layer.areas for layer in found if layer.is_found]
    total = np.sum(areas, axis=0) if areas else np.ones(slices)
    chosen = list(dict.fromkeys(int(np.argmax(area)) for area in areas))[:PANELS]
    share = np.cumsum(total) / total.sum()
    spread = {int(np.searchsorted(share, (n + 0.5) / PANELS)) for n in range(PANELS)}
    for candidates in (spread, set(np.flatnonzero(total).tolist())):
        while len(chosen) < PANELS and (left := sorted(candidates.difference(chosen))):
            chosen.append(max(left, key=lambda each: _distance(each, chosen)))
    return sorted(chosen)


def _distance(candidate: int, chosen: Sequence[int]) -> int:
    """How many slices lie between a candidate and what is shown already."""
    return min((abs(candidate - each) for each in chosen), default=0)


def _field_of_view(layered: Sequence[_Layer], volume: Volume) -> _Box:
    """Rows and columns to show: all, or around what was found where that is small."""
    found: NDArray[np.bool_] = np.zeros(volume.array.shape[1:], dtype=np.bool_)
    for layer in layered:
        if layer.is_found:
            found |= layer.shadow
    whole = (slice(0, found.shape[0]), slice(0, found.shape[1]))
    if not found.any():
        return whole
    row, column = (
        _window_around(np.flatnonzero(found.any(axis=axis)), found.shape[1 - axis], spacing)
        for axis, spacing in ((1, volume.spacing[1]), (0, volume.spacing[2]))
    )
    return row, column


def _window_around(found: NDArray[np.intp], length: int, spacing: float) -> slice:
    extent = found[-1] - found[0] + 1
    shown = round(max(extent / _CROP_SHARE, _CROP_LEAST_MM / spacing))
    if shown >= length:
        return slice(0, length)
    start = min(max(0, int(found[0] + found[-1] + 1 - shown) // 2), length - shown)
    return slice(start, start + shown)


def _panel_size(volume: Volume, box: _Box, columns: int) -> tuple[int, int]:
    """Pixels of a panel, as near to the shape of the slices in mm as fits."""
    width = (WIDTH - 2 * MARGIN - (columns - 1) * GAP) // columns
    height_mm = (box[0].stop - box[0].start) * volume.spacing[1]
    width_mm = (box[1].stop - box[1].start) * volume.spacing[2]
    tallest = _TALLEST * (WIDTH - 2 * MARGIN) / COLUMNS
    return width, round(min(width * height_mm / width_mm, tallest))


def _gray(volume: Volume, index: int, window: tuple[float, float]) -> NDArray[np.uint8]:
    """A slice through the window (PS3.3 C.11.2.1.2), 0 black to 255 white."""
    low, high = window
    scaled = np.clip((volume.array[index] - low) / max(high - low, 1e-6), 0, 1) * 255
    if volume.header.get("PhotometricInterpretation") == "MONOCHROME1":
        scaled = 255 - scaled
    gray: NDArray[np.uint8] = scaled.round().astype(np.uint8)
    return gray


def _window(volume: Volume) -> tuple[float, float]:
    """The lowest and the highest value shown: as the image suggests, if that shows something."""
    some = volume.array.ravel()[:: 1 + volume.array.size // _SAMPLES]
    low, high = (float(value) for value in np.percentile(some, _PERCENTILES))
    centers, widths = (
        np.atleast_1d(volume.header.get(keyword) or []).astype(float)
        for keyword in ("WindowCenter", "WindowWidth")
    )
    if not (centers.size and widths.size and widths[0] > 1):
        return low, high
    darkest = float(centers[0] - 0.5 - (widths[0] - 1) / 2)
    brightest = float(centers[0] - 0.5 + (widths[0] - 1) / 2)
    in_use = (min(high, brightest) - max(low, darkest)) / (brightest - darkest)
    return (darkest, brightest) if in_use >= _WINDOW_IN_USE else (low, high)


def _panel(
    gray: NDArray[np.uint8],
    index: int,
    layered: Iterable[_Layer],
    volume: Volume,
    *,
    box: _Box,
    size: tuple[int, int],
) -> Image.Image:
    """One slice with its outlines, in the middle of a panel of `size` pixels."""
    height_mm, width_mm = (
        (part.stop - part.start) * spacing
        for part, spacing in zip(box, volume.spacing[1:], strict=True)
    )
    pixels_per_mm = min(size[0] / width_mm, size[1] / height_mm)
    shown = (round(width_mm * pixels_per_mm), round(height_mm * pixels_per_mm))
    fine = (shown[0] * _FINE, shown[1] * _FINE)
    picture = Image.fromarray(gray[box]).resize(fine, Image.Resampling.BICUBIC).convert("RGB")
    for layer in layered:
        if layer.areas[index] and (shown_here := layer.plane(index)[box]).any():
            _draw_outline(picture, shown_here, layer.color)
    panel = Image.new("RGB", size, SHADOW)
    corner = ((size[0] - shown[0]) // 2, (size[1] - shown[1]) // 2)
    panel.paste(picture.resize(shown, Image.Resampling.LANCZOS), corner)
    _annotate(panel, index, volume)
    _draw_scale(panel, pixels_per_mm)
    return panel


def _draw_outline(picture: Image.Image, mask: NDArray[np.bool_], color: Color) -> None:
    """Tint the inside a little and draw the inner edge."""
    voxel = (picture.width / mask.shape[1], picture.height / mask.shape[0])
    blocks = Image.fromarray(mask.astype(np.uint8) * 255).resize(
        picture.size, Image.Resampling.NEAREST
    )
    rounded = blocks.filter(ImageFilter.GaussianBlur((voxel[0] * _ROUNDING, voxel[1] * _ROUNDING)))
    inside = rounded.point(lambda value: 255 if value >= 128 else 0)  # noqa: PLR2004 - half
    inner = inside.filter(ImageFilter.MinFilter(_OUTLINE))
    edge = Image.fromarray(np.asarray(inside) - np.asarray(inner))
    picture.paste(color, mask=inside.point(lambda value: int(value * _FILL)))
    picture.paste(color, mask=edge)


def _annotate(panel: Image.Image, index: int, volume: Volume) -> None:
    """Write the directions at the edges, and which slice it is."""
    draw = ImageDraw.Draw(panel)
    width, height = panel.size
    right, down = volume.affine[:3, 2], volume.affine[:3, 1]
    for direction, place, anchor in (
        (-right, (7, height // 2), "lm"),
        (right, (width - 7, height // 2), "rm"),
        (-down, (width // 2, 6), "mt"),
        (down, (width // 2, height - 6), "mb"),
    ):
        write(draw, place, _letters(direction), size=15, anchor=anchor, color=WARNING)
    label = f"{index + 1} / {volume.array.shape[0]}"
    write(draw, (7, 6), label, size=13, anchor="lt", color=INK)


def _letters(direction: NDArray[np.float64]) -> str:
    """Towards which side of the patient: L, R, A, P, H, F (PS3.3 C.7.6.1.1.1)."""
    cosines = direction / np.linalg.norm(direction)
    order = np.argsort(-np.abs(cosines))
    shown = [axis for axis in order if abs(cosines[axis]) >= _OBLIQUE][:2]
    return "".join(("RL", "AP", "FH")[axis][int(cosines[axis] > 0)] for axis in shown)


def _draw_scale(panel: Image.Image, pixels_per_mm: float) -> None:
    longest = panel.width * _BAR_SHARE
    length_mm = max((mm for mm in _BARS_MM if mm * pixels_per_mm <= longest), default=_BARS_MM[0])
    draw = ImageDraw.Draw(panel)
    y, right = panel.height - 10, panel.width - 10
    left = right - length_mm * pixels_per_mm
    for color, grow in ((SHADOW, 1), (INK, 0)):
        draw.rectangle((left - grow, y - 2 - grow, right + grow, y + grow), fill=color)
    write(draw, (right, y - 7), f"{length_mm} mm", size=12, anchor="rb", color=INK)


def header(bundle: Bundle, described: str) -> Image.Image:
    """Which model it was, and what it was shown."""
    part = Image.new("RGB", (WIDTH, 68), GROUND)
    draw = ImageDraw.Draw(part)
    write(draw, (MARGIN, 16), bundle.manifest.name, size=22, anchor="lt", color=INK)
    write(draw, (MARGIN, 46), described, size=14, anchor="lt", color=FAINT)
    made = (f"version {bundle.algorithm_version}", bundle.manifest.manufacturer)
    for y, text in zip((20, 46), made, strict=True):
        write(draw, (WIDTH - MARGIN, y), text, size=14, anchor="rt", color=FAINT)
    return part


def _described(volume: Volume) -> str:
    spacing = " x ".join(f"{mm:.3g}" for mm in volume.spacing)
    return f"{volume.modality}, {volume.plane}, {volume.array.shape[0]} slices, {spacing} mm"


def classes(prediction: Prediction, bundle: Bundle) -> Iterator[Told]:
    """What is told of classes and numbers: those that are said to be so stand out."""
    for answer in prediction.answers:
        output = bundle.manifest.outputs[answer.output]
        image = (
            ""
            if answer.frame is None or len(prediction.subject.sources) == 1
            else (f"{answer.frame + 1}: ")
        )
        if isinstance(answer, Classification) and isinstance(output, ClassificationOutput):
            for index, (one, value) in enumerate(
                zip(output.classes, answer.probabilities, strict=True)
            ):
                color = WARNING if index in answer.chosen else SLATE
                yield f"{image}{one.name}", color, f"{value:.1%}"
        elif isinstance(answer, Numbers) and isinstance(output, NumbersOutput):
            for quantity, value in zip(output.quantities, answer.values, strict=True):
                yield f"{image}{quantity.name}", SLATE, f"{value:.4g} {quantity.unit.value}"


def legend(told: Sequence[Told]) -> Image.Image:
    """Name, colour and what is told of each, in columns."""
    line, width = 28, (WIDTH - 2 * MARGIN) // COLUMNS
    part = Image.new("RGB", (WIDTH, line * -(-len(told) // COLUMNS) + 14), GROUND)
    draw = ImageDraw.Draw(part)
    for number, (name, color, measured) in enumerate(told):
        row, column = divmod(number, COLUMNS)
        x, y = MARGIN + column * width, 10 + row * line
        draw.rounded_rectangle((x, y, x + 15, y + 15), radius=3, fill=color)
        shown = fitted(name, width - 60 - font(15).getlength(measured))
        write(draw, (x + 24, y + 8), shown, size=15, color=FAINT)
        write(draw, (x + 34 + font(15).getlength(shown), y + 8), measured, size=15, color=INK)
    return part
