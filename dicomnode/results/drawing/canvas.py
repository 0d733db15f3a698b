"""What every picture of an answer is put together from: panels, texts, the notice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from PIL import Image, ImageDraw, ImageFont

WIDTH = 1024  # pixels of the whole picture
COLUMNS = 3  # of panels, and of the legend
PANELS = 6  # at most
MARGIN = 20
GAP = 8

INK = (232, 236, 241)
FAINT = (146, 156, 168)
WARNING = (255, 193, 77)
GROUND = (13, 16, 20)
SHADOW = (0, 0, 0)

Color = tuple[int, ...]


def grid(panels: Sequence[Image.Image], columns: int) -> Image.Image:
    """Panels of one size, row by row."""
    width, height = panels[0].size
    rows = -(-len(panels) // columns)
    whole = Image.new("RGB", (WIDTH, rows * (height + GAP) + GAP), GROUND)
    for number, panel in enumerate(panels):
        row, column = divmod(number, columns)
        whole.paste(panel, (MARGIN + column * (width + GAP), GAP + row * (height + GAP)))
    return whole


def fitted(text: str, room: float) -> str:
    """`text`, shortened with dots where it is longer than `room` pixels."""
    if font(15).getlength(text) <= room:
        return text
    return next(
        (
            cut
            for n in range(len(text), 0, -1)
            if font(15).getlength(cut := f"{text[:n]}...") <= room
        ),
        "...",
    )


def footer(notice: str) -> Image.Image:
    """The notice."""
    lines = list(wrapped(notice, WIDTH - 2 * MARGIN))
    part = Image.new("RGB", (WIDTH, 22 * len(lines) + 24), GROUND)
    draw = ImageDraw.Draw(part)
    draw.line((MARGIN, 2, WIDTH - MARGIN, 2), fill=(48, 54, 62))
    for number, text in enumerate(lines):
        write(draw, (MARGIN, 14 + 22 * number), text, size=16, anchor="lt", color=WARNING)
    return part


def wrapped(text: str, room: float) -> Iterator[str]:
    """`text` in lines that are no longer than `room` pixels."""
    line = ""
    for word in text.split():
        longer = f"{line} {word}".strip()
        if line and font(16).getlength(longer) > room:
            yield line
            longer = word
        line = longer
    yield line


def stacked(parts: Sequence[Image.Image]) -> Image.Image:
    """Parts of the whole width, one below the other."""
    picture = Image.new("RGB", (WIDTH, sum(part.height for part in parts)), GROUND)
    y = 0
    for part in parts:
        picture.paste(part, (0, y))
        y += part.height
    return picture


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The one font."""
    return ImageFont.load_default(size=size)


def write(
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
        font=font(size),
        anchor=anchor,
        stroke_width=1,
        stroke_fill=SHADOW,
    )
