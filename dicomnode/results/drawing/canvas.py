"""What every picture of an answer is put together from: texts, panels, the heading, the notice.

A picture is `WIDTH` pixels wide and often shown at half of that: no text is smaller than `TEXT`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont

from dicomnode.bundle import Bundle

WIDTH = 1024  # pixels of the whole picture
COLUMNS = 3  # of panels
PANELS = 6  # at most
MARGIN = 20
GAP = 8
TEXT = 22  # pixels of the smallest text
TITLE = 34
LINE = 32  # from one line of text to the next

Color = tuple[int, ...]

INK: Color = (232, 236, 241)
FAINT: Color = (158, 168, 180)
WARNING: Color = (255, 193, 77)
GROUND: Color = (13, 16, 20)
BLACK: Color = (0, 0, 0)
WHITE: Color = (255, 255, 255)
RULE: Color = (48, 54, 62)


@dataclass(frozen=True, kw_only=True)
class Pen:
    """How texts are written on an image.

    Attributes:
        ink, bright: Of plain words, and of what should be seen first.
        rim: Around each letter.
    """

    ink: Color = INK
    bright: Color = WARNING
    rim: Color = BLACK


ON_DARK = Pen()
#: On images that are white where there is nothing, such as PET.
ON_LIGHT = Pen(ink=(24, 30, 38), bright=(140, 60, 0), rim=WHITE)


@lru_cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The one font."""
    return ImageFont.load_default(size=size)


def length(text: str, size: int = TEXT) -> float:
    """How many pixels wide a text is."""
    return font(size).getlength(text)


def write(
    draw: ImageDraw.ImageDraw,
    place: tuple[float, float],
    text: str,
    *,
    size: int = TEXT,
    anchor: str = "lt",
    color: Color = INK,
    rim: Color = BLACK,
) -> None:
    """Write with a rim, so that it can be read on any image."""
    draw.text(
        place,
        text,
        fill=color,
        font=font(size),
        anchor=anchor,
        stroke_width=2,
        stroke_fill=rim,
    )


def fitted(text: str, room: float, size: int = TEXT) -> str:
    """`text`, shortened with dots where it is longer than `room` pixels."""
    if length(text, size) <= room:
        return text
    letters = bisect_left(range(len(text)), True, key=lambda n: length(_cut(text, n), size) > room)
    return _cut(text, max(0, letters - 1))


def _cut(text: str, letters: int) -> str:
    return f"{text[:letters].rstrip()}..."


def wrapped(text: str, room: float, *, most: int = 20) -> list[str]:
    """`text` in lines that are no longer than `room` pixels; of what is left over, dots."""
    lines = list(_wrapped(text, room))
    kept = [*lines[: most - 1], " ".join(lines[most - 1 :])]
    return [fitted(line, room) for line in kept if line]


def _wrapped(text: str, room: float) -> Iterator[str]:
    line = ""
    for word in text.split():
        longer = f"{line} {word}".strip()
        if line and length(longer) > room:
            yield line
            longer = word
        line = longer
    yield line


def grid(panels: Sequence[Image.Image], columns: int) -> Image.Image:
    """Panels of one size, row by row."""
    width, height = panels[0].size
    rows = -(-len(panels) // columns)
    whole = Image.new("RGB", (WIDTH, rows * (height + GAP) + GAP), GROUND)
    for number, panel in enumerate(panels):
        row, column = divmod(number, columns)
        whole.paste(panel, (MARGIN + column * (width + GAP), GAP + row * (height + GAP)))
    return whole


def stacked(parts: Sequence[Image.Image]) -> Image.Image:
    """Parts, one below the other, as wide as the widest."""
    width = max(part.width for part in parts)
    picture = Image.new("RGB", (width, sum(part.height for part in parts)), GROUND)
    y = 0
    for part in parts:
        picture.paste(part, (0, y))
        y += part.height
    return picture


def beside(panel: Image.Image, told: Image.Image) -> Image.Image:
    """A panel that stands alone, and at its right what is told of it."""
    height = max(panel.height, told.height) + 2 * GAP
    whole = Image.new("RGB", (WIDTH, height), GROUND)
    whole.paste(panel, (MARGIN, GAP))
    whole.paste(told, (MARGIN + panel.width + GAP, GAP))
    return whole


def panel_width(columns: int) -> int:
    """Pixels of one of several panels side by side."""
    return (WIDTH - 2 * MARGIN - (columns - 1) * GAP) // columns


def header(bundle: Bundle, described: str) -> Image.Image:
    """Which model it was, and what it was shown: nothing of the patient."""
    room = WIDTH - 2 * MARGIN
    made = f"version {bundle.algorithm_version}, {bundle.manifest.manufacturer}"
    part = Image.new("RGB", (WIDTH, 16 + TITLE + 12 + 2 * LINE), GROUND)
    draw = ImageDraw.Draw(part)
    name = fitted(bundle.manifest.name, room, TITLE)
    write(draw, (MARGIN, 16), name, size=TITLE)
    write(draw, (MARGIN, 16 + TITLE + 12), fitted(made, room), color=FAINT)
    write(draw, (MARGIN, 16 + TITLE + 12 + LINE), fitted(described, room), color=FAINT)
    return part


def footer(notice: str) -> Image.Image:
    """The notice."""
    lines = wrapped(notice, WIDTH - 2 * MARGIN)
    part = Image.new("RGB", (WIDTH, LINE * len(lines) + 24), GROUND)
    draw = ImageDraw.Draw(part)
    draw.line((MARGIN, 2, WIDTH - MARGIN, 2), fill=RULE)
    for number, text in enumerate(lines):
        write(draw, (MARGIN, 18 + LINE * number), text, color=WARNING)
    return part
