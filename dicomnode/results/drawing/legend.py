"""The part of a picture that tells in words what was found: lines, sentences, the colours of heat.

However much was found, it stays readable: of too many lines the largest are shown, and the rest is
counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw

from dicomnode.results.drawing import canvas, marks
from dicomnode.results.drawing.canvas import FAINT, GROUND, INK, LINE, MARGIN, Color

MOST = 24  # lines of a chapter
_SWATCH = 20  # pixels
_BETWEEN = 28  # pixels between columns
_RAMP = 150  # pixels of the colours of heat
_MOST_LINES = 2  # of many names
_MOST_OF_A_SENTENCE = 5


@dataclass(frozen=True, kw_only=True)
class Told:
    """One line.

    Attributes:
        value: What is told of it.
        weight: By which the largest are picked, where there are too many.
        is_found: Whether there is any of it.
    """

    name: str
    color: Color
    value: str
    weight: float = 0.0
    is_found: bool = True


@dataclass(frozen=True, kw_only=True)
class Chapter:
    """What is told of one output.

    Attributes:
        is_search: Whether something was looked for, so that nothing found must be said.
        sentences: What is said below the lines.
        mark: What stands before the sentences: nothing, or the colours of heat.
    """

    told: tuple[Told, ...] = ()
    is_search: bool = False
    sentences: tuple[str, ...] = ()
    mark: Literal["", "heat"] = ""


def drawn(
    chapters: Sequence[Chapter], *, width: int = canvas.WIDTH, columns: int = 2
) -> Image.Image:
    """All that is told, as a part of the picture `width` pixels wide."""
    space = Image.new("RGB", (width, 10), GROUND)
    parts = [part for chapter in chapters for part in _chapter(chapter, width, columns)]
    return canvas.stacked([space, *parts, space])


def _chapter(chapter: Chapter, width: int, columns: int) -> Iterator[Image.Image]:
    found = [one for one in chapter.told if one.is_found]
    missing = [one for one in chapter.told if not one.is_found]
    if chapter.is_search and not found:
        yield _sentence("Nothing found.", width, color=INK)
        yield _sentence(f"Looked for: {_names(missing)}.", width)
    elif len(chapter.told) <= MOST:
        yield _lines(chapter.told, width, columns)
    else:
        largest = sorted(found, key=lambda one: -one.weight)
        yield _lines(largest[:MOST], width, columns)
        if len(found) > MOST:
            yield _sentence(f"and {len(found) - MOST} smaller ones.", width)
        if missing:
            yield _sentence(f"{len(missing)} not found: {_names(missing)}.", width)
    for text in chapter.sentences:
        yield _sentence(text, width, mark=chapter.mark, most=_MOST_OF_A_SENTENCE)


def _names(told: Sequence[Told]) -> str:
    return ", ".join(dict.fromkeys(one.name for one in told))


def _lines(told: Sequence[Told], width: int, columns: int) -> Image.Image:
    """Colour, name and what is told of each, in columns that are read downwards."""
    rows = -(-len(told) // columns)
    room = (width - 2 * MARGIN - (columns - 1) * _BETWEEN) // columns
    part = Image.new("RGB", (width, max(1, LINE * rows)), GROUND)
    draw = ImageDraw.Draw(part)
    for number, one in enumerate(told):
        column, row = divmod(number, rows)
        x, y = MARGIN + column * (room + _BETWEEN), row * LINE + 6
        draw.rounded_rectangle((x, y, x + _SWATCH - 1, y + _SWATCH - 1), radius=4, fill=one.color)
        value = canvas.fitted(one.value, room / 2)
        name = canvas.fitted(one.name, room - _SWATCH - 26 - canvas.length(value))
        begin = x + _SWATCH + 10
        canvas.write(draw, (begin, y + 10), name, anchor="lm", color=FAINT)
        leader = (begin + canvas.length(name) + 10, x + room - canvas.length(value) - 10)
        if leader[1] > leader[0]:
            draw.line((leader[0], y + 16, leader[1], y + 16), fill=canvas.RULE, width=2)
        color = INK if one.is_found else FAINT
        canvas.write(draw, (x + room, y + 10), value, anchor="rm", color=color)
    return part


def _sentence(
    text: str, width: int, *, color: Color = FAINT, mark: str = "", most: int = _MOST_LINES
) -> Image.Image:
    left = MARGIN + (_RAMP + 16 if mark else 0)
    lines = canvas.wrapped(text, width - MARGIN - left, most=most)
    part = Image.new("RGB", (width, LINE * len(lines)), GROUND)
    draw = ImageDraw.Draw(part)
    for number, line in enumerate(lines):
        canvas.write(draw, (left, LINE * number + 16), line, anchor="lm", color=color)
    if mark:
        heat = np.broadcast_to(np.linspace(0, 1, _RAMP, dtype=np.float32), (_SWATCH, _RAMP))
        gray = Image.new("RGB", (_RAMP, _SWATCH), (96, 96, 96))
        part.paste(marks.warmed(gray, heat), (MARGIN, 6))
    return part
