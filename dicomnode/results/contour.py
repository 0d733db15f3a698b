"""A mask on one image → its outline, exactly: the edges of its pixels."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

_Vertex = tuple[int, int]


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


def within(mask: NDArray[np.bool_], *, most: int) -> tuple[NDArray[np.float64], float]:
    """The outer edge of one piece with at most so many corners.

    Where it has more, only every second, third, ... corner is kept.

    Returns:
        As `around`, and how far in pixels, along rows and columns together, the outline may stray
        from the mask; 0 where it is exact.
    """
    outline = around(mask)
    if len(outline) <= most:
        return outline, 0.0
    every = -(-(len(outline) - 1) // (most - 1))
    kept = np.arange(0, len(outline) - 1, every)
    ends = np.append(kept[1:], len(outline) - 1)
    # Each corner that is left out, and the line that passes it by.
    left_out = np.setdiff1d(np.arange(len(outline) - 1), kept)
    line = np.searchsorted(kept, left_out, side="right") - 1
    begin, along = outline[kept[line]], outline[ends[line]] - outline[kept[line]]
    offset = outline[left_out] - begin
    length = np.maximum((along**2).sum(axis=1), 1.0)
    share = np.clip((offset * along).sum(axis=1) / length, 0, 1)
    stray = np.abs(offset - share[:, None] * along).sum(axis=1).max()
    # What lies between the way and the line is as far from the line, and that from the way.
    return np.concatenate([outline[kept], outline[-1:]]), 2 * float(stray)


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
