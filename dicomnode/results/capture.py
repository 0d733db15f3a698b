"""A picture of the answer: key slices with the outlines of what was found, and what was measured.

For people, never for measuring: it shows nothing of the patient's identity, and says what it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageDraw, ImageFilter, ImageFont

from dicomnode.bundle import Bundle, Segment
from dicomnode.prediction import Prediction
from dicomnode.results import common
from dicomnode.volume import Volume

WIDTH = 1024  # pixels of the whole picture
PANELS = 6  # slices at most
COLUMNS = 3  # of panels, and of the legend

_MARGIN = 20
_GAP = 8
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

_INK = (232, 236, 241)
_FAINT = (146, 156, 168)
_WARNING = (255, 193, 77)
_GROUND = (13, 16, 20)
_SHADOW = (0, 0, 0)

Color = tuple[int, ...]
_Box = tuple[slice, slice]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Layer:
    """One segment: where it is, and how it is shown."""

    segment: Segment
    mask: NDArray[np.bool_]
    volume_ml: float

    @property
    def color(self) -> Color:
        return ImageColor.getrgb(self.segment.color)

    @property
    def is_found(self) -> bool:
        return bool(self.mask.any())


def overlay(prediction: Prediction, *, bundle: Bundle) -> Image.Image:
    """Draw key slices with the outlines of all segments, a legend with volumes, and the notice."""
    volume = prediction.volume
    layers = [
        _Layer(
            segment=item.segment,
            mask=(mask := answer.array == item.segment.label),
            volume_ml=common.volume_ml(int(mask.sum()), voxel_mm3=volume.voxel_mm3),
        )
        for answer in prediction.answers
        for item in common.numbered(bundle, answer.output)
    ]
    indices = _key_slices(layers, volume.array.shape[0])
    box = _field_of_view(layers, volume)
    columns = 2 if len(indices) == 4 else min(COLUMNS, len(indices))  # noqa: PLR2004 - two by two
    size = _panel_size(volume, box, columns)
    window = _window(volume)
    panels = [
        _panel(_gray(volume, index, window), index, layers, volume, box=box, size=size)
        for index in indices
    ]
    parts = [
        _header(bundle, volume),
        _grid(panels, columns),
        _legend(layers),
        _footer(bundle.manifest.notice),
    ]
    return _stacked(parts)


def _key_slices(layers: Sequence[_Layer], slices: int) -> list[int]:
    """The largest slice of each segment, and between them slices spread over all that was found."""
    areas = [layer.mask.sum(axis=(1, 2)) for layer in layers if layer.is_found]
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


def _field_of_view(layers: Iterable[_Layer], volume: Volume) -> _Box:
    """Rows and columns to show: all, or around what was found where that is small."""
    found = np.any([layer.mask.any(axis=0) for layer in layers], axis=0)
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
    width = (WIDTH - 2 * _MARGIN - (columns - 1) * _GAP) // columns
    height_mm = (box[0].stop - box[0].start) * volume.spacing[1]
    width_mm = (box[1].stop - box[1].start) * volume.spacing[2]
    tallest = _TALLEST * (WIDTH - 2 * _MARGIN) / COLUMNS
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
    layers: Iterable[_Layer],
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
    for layer in layers:
        if layer.mask[index][box].any():
            _draw_outline(picture, layer.mask[index][box], layer.color)
    panel = Image.new("RGB", size, _SHADOW)
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
        _write(draw, place, _letters(direction), size=15, anchor=anchor, color=_WARNING)
    label = f"{index + 1} / {volume.array.shape[0]}"
    _write(draw, (7, 6), label, size=13, anchor="lt", color=_INK)


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
    for color, grow in ((_SHADOW, 1), (_INK, 0)):
        draw.rectangle((left - grow, y - 2 - grow, right + grow, y + grow), fill=color)
    _write(draw, (right, y - 7), f"{length_mm} mm", size=12, anchor="rb", color=_INK)


def _grid(panels: Sequence[Image.Image], columns: int) -> Image.Image:
    width, height = panels[0].size
    rows = -(-len(panels) // columns)
    grid = Image.new("RGB", (WIDTH, rows * (height + _GAP) + _GAP), _GROUND)
    for number, panel in enumerate(panels):
        row, column = divmod(number, columns)
        grid.paste(panel, (_MARGIN + column * (width + _GAP), _GAP + row * (height + _GAP)))
    return grid


def _header(bundle: Bundle, volume: Volume) -> Image.Image:
    part = Image.new("RGB", (WIDTH, 68), _GROUND)
    draw = ImageDraw.Draw(part)
    spacing = " x ".join(f"{mm:.3g}" for mm in volume.spacing)
    described = f"{volume.modality}, {volume.plane}, {volume.array.shape[0]} slices, {spacing} mm"
    _write(draw, (_MARGIN, 16), bundle.manifest.name, size=22, anchor="lt", color=_INK)
    _write(draw, (_MARGIN, 46), described, size=14, anchor="lt", color=_FAINT)
    made = (f"version {bundle.algorithm_version}", bundle.manifest.manufacturer)
    for y, text in zip((20, 46), made, strict=True):
        _write(draw, (WIDTH - _MARGIN, y), text, size=14, anchor="rt", color=_FAINT)
    return part


def _legend(layers: Sequence[_Layer]) -> Image.Image:
    line, width = 28, (WIDTH - 2 * _MARGIN) // COLUMNS
    part = Image.new("RGB", (WIDTH, line * -(-len(layers) // COLUMNS) + 14), _GROUND)
    draw = ImageDraw.Draw(part)
    for number, layer in enumerate(layers):
        row, column = divmod(number, COLUMNS)
        x, y = _MARGIN + column * width, 10 + row * line
        draw.rounded_rectangle((x, y, x + 15, y + 15), radius=3, fill=layer.color)
        measured = f"{layer.volume_ml:.2f} mL" if layer.is_found else "not found"
        name = _fitted(layer.segment.name, width - 60 - _font(15).getlength(measured))
        _write(draw, (x + 24, y + 8), name, size=15, color=_FAINT)
        place = (x + 34 + _font(15).getlength(name), y + 8)
        _write(draw, place, measured, size=15, color=_INK)
    return part


def _fitted(text: str, room: float) -> str:
    """`text`, shortened with dots where it is longer than `room` pixels."""
    if _font(15).getlength(text) <= room:
        return text
    return next(
        (
            cut
            for n in range(len(text), 0, -1)
            if _font(15).getlength(cut := f"{text[:n]}...") <= room
        ),
        "...",
    )


def _footer(notice: str) -> Image.Image:
    lines = list(_wrapped(notice, WIDTH - 2 * _MARGIN))
    part = Image.new("RGB", (WIDTH, 22 * len(lines) + 24), _GROUND)
    draw = ImageDraw.Draw(part)
    draw.line((_MARGIN, 2, WIDTH - _MARGIN, 2), fill=(48, 54, 62))
    for number, text in enumerate(lines):
        _write(draw, (_MARGIN, 14 + 22 * number), text, size=16, anchor="lt", color=_WARNING)
    return part


def _wrapped(text: str, room: float) -> Iterator[str]:
    line = ""
    for word in text.split():
        longer = f"{line} {word}".strip()
        if line and _font(16).getlength(longer) > room:
            yield line
            longer = word
        line = longer
    yield line


def _stacked(parts: Sequence[Image.Image]) -> Image.Image:
    picture = Image.new("RGB", (WIDTH, sum(part.height for part in parts)), _GROUND)
    y = 0
    for part in parts:
        picture.paste(part, (0, y))
        y += part.height
    return picture


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)


def _write(
    draw: ImageDraw.ImageDraw,
    place: tuple[float, float],
    text: str,
    *,
    size: int,
    anchor: str = "lm",
    color: Color,
) -> None:
    """Write with a dark rim, so that it can be read on any image."""
    draw.text(
        place,
        text,
        fill=color,
        font=_font(size),
        anchor=anchor,
        stroke_width=1,
        stroke_fill=_SHADOW,
    )
