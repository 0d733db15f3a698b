"""One image with all that is on it: in its true shape, with directions, a scale and its number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from dicomnode.results.drawing import canvas, marks
from dicomnode.results.drawing.canvas import Pen
from dicomnode.results.drawing.marks import Mark

_LETTER = 26  # pixels of the directions
_EDGE = 8  # pixels between a text and the edge
_OBLIQUE = 0.35  # direction cosine from which a second letter is shown
_BARS_MM = (1, 2, 5, 10, 20, 50, 100, 200)
_BAR_SHARE = 0.35  # of the panel's width, at most
_OPPOSITE = {"L": "R", "R": "L", "A": "P", "P": "A", "H": "F", "F": "H"}

#: Letters for the left, the right, the upper and the lower edge.
Directions = tuple[str, str, str, str]


@dataclass(frozen=True, kw_only=True, eq=False)
class Plane:
    """An image as it is shown.

    Attributes:
        shown: (rows, columns) of gray, or (rows, columns, 3).
        aspect: Height of a pixel to its width.
        pixel_mm: Width of a pixel in mm; `None` where it is not known.
        directions: Towards which side of the patient each edge lies, where that is known.
        scale_note: Of a projection, whose millimetres are not those of the patient: where.
        label: Which image it is.
        heat: From 0 to 1, on the image's grid.
        is_inverse: Whether it is white where there is nothing.
    """

    shown: NDArray[np.uint8]
    aspect: float
    pixel_mm: float | None
    directions: Directions | None
    label: str
    scale_note: str = ""
    heat: NDArray[np.float32] | None = None
    is_inverse: bool = False

    @property
    def shape(self) -> float:
        """Height to width, as it is seen."""
        rows, columns = self.shown.shape[:2]
        return float(rows * self.aspect / columns)


def draw(plane: Plane, on_it: Sequence[Mark], *, size: tuple[int, int]) -> Image.Image:
    """An image in the middle of a panel of `size` pixels, as large as fits."""
    width = min(size[0], size[1] / plane.shape)
    seen = (max(1, round(width)), max(1, round(width * plane.shape)))
    pen = canvas.ON_LIGHT if plane.is_inverse else canvas.ON_DARK
    picture = marks.draw(plane.shown, on_it, size=seen, heat=plane.heat, pen=pen)
    panel = Image.new("RGB", size, canvas.WHITE if plane.is_inverse else canvas.BLACK)
    panel.paste(picture, ((size[0] - seen[0]) // 2, (size[1] - seen[1]) // 2))
    drawing = ImageDraw.Draw(panel)
    if plane.directions is not None:
        _write_directions(drawing, plane.directions, size, pen)
    canvas.write(drawing, (_EDGE, _EDGE), plane.label, color=pen.ink, rim=pen.rim)
    if plane.pixel_mm is not None:
        pixels_per_mm = seen[0] / (plane.shown.shape[1] * plane.pixel_mm)
        _scale(drawing, pixels_per_mm, size, pen, note=plane.scale_note)
    return panel


def _write_directions(
    drawing: ImageDraw.ImageDraw, directions: Directions, size: tuple[int, int], pen: Pen
) -> None:
    middle_x, middle_y = size[0] // 2, size[1] // 2
    sides = [(_EDGE, middle_y), (size[0] - _EDGE, middle_y)]
    places = [*sides, (middle_x, _EDGE), (middle_x, size[1] - _EDGE)]
    for text, place, anchor in zip(directions, places, ("lm", "rm", "mt", "mb"), strict=True):
        canvas.write(
            drawing, place, text, size=_LETTER, anchor=anchor, color=pen.bright, rim=pen.rim
        )


def of_affine(affine: NDArray[np.float64]) -> Directions:
    """From the affine that maps (slice, row, column, 1) to patient coordinates (LPS)."""
    right, down = affine[:3, 2], affine[:3, 1]
    return letters(-right), letters(right), letters(-down), letters(down)


def of_letters(orientation: Sequence[str]) -> Directions | None:
    """From Patient Orientation (0020,0020): of the rows, of the columns (PS3.3 C.7.6.1.1.1)."""
    if len(orientation) != 2:  # noqa: PLR2004 - rows and columns
        return None
    right, down = (str(one) for one in orientation)
    if not (right and down) or set(right + down) - set(_OPPOSITE):
        return None
    left, up = ("".join(_OPPOSITE[letter] for letter in one) for one in (right, down))
    return left, right, up, down


def letters(direction: NDArray[np.float64]) -> str:
    """Towards which side of the patient: L, R, A, P, H, F (PS3.3 C.7.6.1.1.1)."""
    cosines = direction / np.linalg.norm(direction)
    order = np.argsort(-np.abs(cosines), kind="stable")
    shown = [axis for axis in order if abs(cosines[axis]) >= _OBLIQUE][:2]
    return "".join(("RL", "AP", "FH")[axis][int(cosines[axis] > 0)] for axis in shown)


def _scale(
    drawing: ImageDraw.ImageDraw,
    pixels_per_mm: float,
    size: tuple[int, int],
    pen: Pen,
    *,
    note: str,
) -> None:
    """A bar of a round length, where one fits."""
    longest = size[0] * _BAR_SHARE
    length_mm = max((mm for mm in _BARS_MM if mm * pixels_per_mm <= longest), default=0)
    if not length_mm:
        return
    bottom, right = size[1] - _EDGE - 2, size[0] - _EDGE - 2
    left = right - length_mm * pixels_per_mm
    for color, grow in ((pen.rim, 2), (pen.ink, 0)):
        drawing.rectangle((left - grow, bottom - 4 - grow, right + grow, bottom + grow), fill=color)
    text, place = f"{length_mm} mm{note}", (right, bottom - 10)
    canvas.write(drawing, place, text, anchor="rb", color=pen.ink, rim=pen.rim)
