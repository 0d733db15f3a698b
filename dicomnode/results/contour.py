"""A mask on one image → its outline, exactly: the edges of its pixels."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

_Vertex = tuple[int, int]

_FIRST_TOLERANCE = 0.5  # pixels: half a step of a staircase
_SPAN = 2  # corners that have another between them


def box_of(mask: NDArray[np.bool_]) -> tuple[slice, ...] | None:
    """The smallest box around a mask, of any number of axes; `None` around nothing."""
    box: tuple[slice, ...]
    for box in ndimage.find_objects(mask.view(np.uint8), max_label=1):
        return box
    return None


def largest_piece(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest piece of a mask, of any number of axes, whose pixels share sides.

    Of several as large, the first.
    """
    box = box_of(mask)
    pieces, count = ndimage.label(mask[box]) if box else (mask, 0)
    if box is None or count <= 1:
        return mask
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    largest = np.zeros_like(mask)
    largest[box] = pieces == int(np.argmax(sizes))
    return largest


def around(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    r"""The outer edge of one piece of shape (rows, columns); holes are passed over.

    Returns:
        Shape (n, 2): column and row of each corner, closed (the last is the first), where 0\0 is
        the corner of the first pixel (PS3.3 C.18.6.1.1). Filling it gives the mask without holes.

    Raises:
        ValueError: The mask is empty, or is several pieces.
    """
    box = box_of(mask)
    if box is None:
        raise ValueError("an outline is of one piece, not of none")
    filled = ndimage.binary_fill_holes(mask[box])
    _, count = ndimage.label(filled)
    if count != 1:
        raise ValueError(f"an outline is of one piece, not of {count}")
    # After filling, each corner has one edge that leaves it: two pieces that touch in a corner
    # alone would be joined around it, and what they enclose is filled.
    after = dict(_edges(filled))
    start = next(iter(after))
    corners = [start]
    while (corner := after[corners[-1]]) != start:
        corners.append(corner)
    rows, columns = box
    bends = np.array(_bends([*corners, start]), dtype=np.float64)
    bends += np.array([columns.start, rows.start])
    return bends


def thinned(outline: NDArray[np.float64], *, most: int) -> tuple[NDArray[np.float64], float]:
    """An outline with at most so many corners, as near to the given one as that allows.

    Returns:
        The outline, closed, and how far in pixels it strays from the given one; 0 where that had no
        more corners and is returned as it is.
    """
    tolerance = 0.0
    kept = outline
    while len(kept) > most:
        tolerance = tolerance * 2 or _FIRST_TOLERANCE
        kept = outline[_significant(outline, tolerance)]
    return kept, tolerance


def _significant(way: NDArray[np.float64], tolerance: float) -> NDArray[np.bool_]:
    """The corners without which a way would stray further than `tolerance` (Douglas-Peucker)."""
    kept = np.zeros(len(way), dtype=np.bool_)
    # A closed way is cut where it is furthest from its start.
    far = int(np.argmax(np.linalg.norm(way - way[0], axis=1)))
    kept[[0, far, -1]] = True
    spans = [(0, far), (far, len(way) - 1)]
    while spans:
        begin, end = spans.pop()
        if end - begin < _SPAN:
            continue
        strays = _strays(way[begin + 1 : end], way[begin], way[end])
        worst = int(np.argmax(strays))
        if strays[worst] > tolerance:
            middle = begin + 1 + worst
            kept[middle] = True
            spans += [(begin, middle), (middle, end)]
    return kept


def _strays(
    points: NDArray[np.float64], begin: NDArray[np.float64], end: NDArray[np.float64]
) -> NDArray[np.float64]:
    """How far points lie from the piece of a line between two others."""
    along = end - begin
    length = float(along @ along)
    share = np.clip((points - begin) @ along / length, 0, 1) if length else np.zeros(len(points))
    strays: NDArray[np.float64] = np.linalg.norm(points - begin - np.outer(share, along), axis=1)
    return strays


def _edges(mask: NDArray[np.bool_]) -> Iterator[tuple[_Vertex, _Vertex]]:
    """Each side of a pixel that borders on the outside, from corner to corner (column, row).

    The inside lies to the right of the way, as rows go down.
    """
    padded = np.pad(mask, 1)
    inside = padded[1:-1, 1:-1]
    outside = {
        "above": inside & ~padded[:-2, 1:-1],
        "right": inside & ~padded[1:-1, 2:],
        "below": inside & ~padded[2:, 1:-1],
        "left": inside & ~padded[1:-1, :-2],
    }
    for side, where in outside.items():
        for row, column in np.argwhere(where).tolist():
            yield _side(side, row, column)


def _side(side: str, row: int, column: int) -> tuple[_Vertex, _Vertex]:
    match side:
        case "above":
            return (column, row), (column + 1, row)
        case "right":
            return (column + 1, row), (column + 1, row + 1)
        case "below":
            return (column + 1, row + 1), (column, row + 1)
        case _:
            return (column, row + 1), (column, row)


def _bends(corners: list[_Vertex]) -> list[_Vertex]:
    """A closed way without the corners that it passes straight through."""
    way = np.array(corners)
    steps = np.diff(way, axis=0)
    bends = np.any(steps != np.roll(steps, 1, axis=0), axis=1)
    kept = [corner for corner, is_bend in zip(corners, bends.tolist(), strict=False) if is_bend]
    return [*kept, kept[0]]
