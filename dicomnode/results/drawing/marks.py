"""What is drawn on one plane of an image: outlines of segments, boxes, points, warmth.

Lines are drawn `FINE` times as large as they are seen and then shrunk, so that they are smooth.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter
from scipy import ndimage

from dicomnode.results.drawing import canvas
from dicomnode.results.drawing.canvas import TEXT, Color, Pen

FINE = 2
_LINE = 5  # fine pixels of an outline, which lies inside of what it is around
_RIM = 2  # fine pixels of the dark rim around an outline: it is seen on what is bright, too
_DARK = 0.5  # opacity of the rim
_BEYOND = _LINE + _RIM + 1  # fine pixels that are drawn beyond a mask, at most
_ROUNDING = 0.42  # of a pixel: corners are rounded, and yet a single one does not vanish
_ROUNDED = 3.0  # fine pixels of a pixel from which on it has corners that are seen
_FILL = 0.14  # opacity of a segment's inside
_HALF = 128
_POINT = 9  # pixels: radius of the ring around a point
_LABEL_ABOVE = 4  # pixels between a box and its label

_WARMEST = 0.65  # opacity of the hottest place
_FAINTEST = 0.15  # of the heat: below, the image is left as it is
#: From the faintest to the hottest place: red, orange, yellow.
_WARMTH = np.array([(170, 20, 40), (240, 100, 30), (255, 225, 90)], dtype=np.float32)

_Rectangle = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True, eq=False)
class Mark:
    """One thing on a plane: a mask, a box or a point.

    Places are in columns and rows of the plane, where the corner of the first pixel is 0.

    Attributes:
        mask: Shape (rows, columns).
        box: Left, top, right, bottom.
        point: Column and row.
        label: Written beside a box or a point.
    """

    color: Color
    mask: NDArray[np.bool_] | None = None
    box: _Rectangle | None = None
    point: tuple[float, float] | None = None
    label: str = ""


def draw(
    shown: NDArray[np.uint8],
    marks: Iterable[Mark],
    *,
    size: tuple[int, int],
    heat: NDArray[np.float32] | None = None,
    pen: Pen = canvas.ON_DARK,
) -> Image.Image:
    """A plane with everything on it.

    Args:
        shown: The plane: (rows, columns) of gray, or (rows, columns, 3).
        marks: Later ones lie on earlier ones.
        size: Pixels of the picture: width and height.
        heat: From 0 to 1, shape (rows, columns).
        pen: How labels are written.
    """
    marks = list(marks)
    fine = (size[0] * FINE, size[1] * FINE)
    # Finer ways of magnifying overshoot: dark rims around what is bright, which are not there.
    picture = Image.fromarray(shown).convert("RGB").resize(fine, Image.Resampling.BILINEAR)
    if heat is not None:
        picture = warmed(picture, heat)
    scale = (fine[0] / shown.shape[1], fine[1] / shown.shape[0])
    for mark in marks:
        if mark.mask is not None:
            _outline(picture, mark.mask, mark.color, scale)
    drawing = ImageDraw.Draw(picture)
    for mark in marks:
        _lines(drawing, mark, scale)
    picture = picture.resize(size, Image.Resampling.LANCZOS)
    drawing = ImageDraw.Draw(picture)
    for mark in marks:
        _label(drawing, mark, (scale[0] / FINE, scale[1] / FINE), size, pen)
    return picture


def warmed(picture: Image.Image, heat: NDArray[np.float32]) -> Image.Image:
    """Warmth on a picture."""
    smooth = Image.fromarray(np.clip(heat, 0, 1).astype(np.float32))
    warmth = np.asarray(smooth.resize(picture.size, Image.Resampling.BILINEAR))
    warm = Image.fromarray(warm_colors(warmth))
    share = np.clip((warmth - _FAINTEST) / (1 - _FAINTEST), 0, 1)
    return Image.composite(
        warm, picture, Image.fromarray((share * 255 * _WARMEST).astype(np.uint8))
    )


def warm_colors(heat: NDArray[Any]) -> NDArray[np.uint8]:
    """The colours of heat from 0 to 1: one axis more, RGB."""
    at = np.linspace(_FAINTEST, 1, len(_WARMTH))
    channels = [np.interp(heat, at, _WARMTH[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).astype(np.uint8)


def _outline(
    picture: Image.Image, mask: NDArray[np.bool_], color: Color, scale: tuple[float, float]
) -> None:
    """Tint the inside of a mask a little and draw its inner edge; what is tiny gets a ring."""
    if not mask.any():
        return
    place, inside = _seen(mask, scale)
    line = 2 * _LINE + 1
    if min(np.ptp(np.argwhere(inside), axis=0)) < line:
        whole = ndimage.maximum_filter(inside, size=line, mode="constant")
        edge = whole & ~inside
    else:
        whole = inside
        edge = inside & ~ndimage.minimum_filter(inside, size=line, mode="constant")
    rim = ndimage.maximum_filter(whole, size=2 * _RIM + 1, mode="constant") & ~whole
    for ink, share, opacity in (
        (canvas.BLACK, rim, _DARK),
        (color, whole, _FILL),
        (color, edge, 1),
    ):
        opaque = Image.fromarray((share * round(255 * opacity)).astype(np.uint8))
        picture.paste(ink, place, opaque)


def _seen(
    mask: NDArray[np.bool_], scale: tuple[float, float]
) -> tuple[tuple[int, int, int, int], NDArray[np.bool_]]:
    """A mask in fine pixels, with rounded corners: only where it is, and a little beyond.

    Returns:
        Left, top, right, bottom of the part in the picture (it may reach beyond), and the mask.
    """
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    margin = 1 + math.ceil(_BEYOND / min(scale))
    inside = np.pad(mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], margin)
    begin = (int(columns[0]) - margin, int(rows[0]) - margin)
    # The whole fine pixels within it, and what of the mask they are of.
    (left, right), (top, bottom) = (
        (math.ceil(start * step), math.floor((start + length) * step))
        for start, step, length in zip(begin, scale, inside.shape[::-1], strict=True)
    )
    part = (
        left / scale[0] - begin[0],
        top / scale[1] - begin[1],
        min(right / scale[0] - begin[0], inside.shape[1]),
        min(bottom / scale[1] - begin[1], inside.shape[0]),
    )
    # Where a pixel is smaller than a fine one, none may be passed over.
    way = Image.Resampling.NEAREST if min(scale) >= 1 else Image.Resampling.BOX
    blocks = Image.fromarray(inside.astype(np.uint8) * 255).resize(
        (right - left, bottom - top), way, box=part
    )
    if min(scale) < _ROUNDED:
        return (left, top, right, bottom), np.asarray(blocks) > 0
    radius = (scale[0] * _ROUNDING, scale[1] * _ROUNDING)
    rounded = np.asarray(blocks.filter(ImageFilter.GaussianBlur(radius))) >= _HALF
    return (left, top, right, bottom), rounded


def _lines(drawing: ImageDraw.ImageDraw, mark: Mark, scale: tuple[float, float]) -> None:
    width = _LINE + 1
    if mark.box is not None:
        left, top, right, bottom = mark.box
        corners = [left * scale[0], top * scale[1], right * scale[0], bottom * scale[1]]
        drawing.rectangle(corners, outline=mark.color, width=width)
    if mark.point is not None:
        x, y = mark.point[0] * scale[0], mark.point[1] * scale[1]
        ring, dot = _POINT * FINE, FINE * 2
        drawing.ellipse((x - ring, y - ring, x + ring, y + ring), outline=mark.color, width=width)
        drawing.ellipse((x - dot, y - dot, x + dot, y + dot), fill=mark.color)


def _label(
    drawing: ImageDraw.ImageDraw,
    mark: Mark,
    scale: tuple[float, float],
    size: tuple[int, int],
    pen: Pen,
) -> None:
    """Write a mark's label beside it: within the picture, and above a box where there is room."""
    if not mark.label:
        return
    width = canvas.length(mark.label)
    if mark.box is not None:
        left, top, _, bottom = (value * scale[axis % 2] for axis, value in enumerate(mark.box))
        above = top - TEXT - _LABEL_ABOVE
        place = (left, above if above >= 0 else bottom + _LABEL_ABOVE)
    elif mark.point is not None:
        x, y = mark.point[0] * scale[0], mark.point[1] * scale[1]
        place = (x + _POINT + _LABEL_ABOVE, y - TEXT / 2)
    else:
        return
    x = min(max(place[0], 2), max(2.0, size[0] - width - 2))
    y = min(max(place[1], 2), max(2.0, size[1] - TEXT - 2))
    canvas.write(drawing, (x, y), mark.label, color=pen.bright, rim=pen.rim)
