"""Which frames a binary or fractional segmentation has, and in which order they stand.

Segment by segment, in the order of the source's frames; empty frames are there, too, up to
`ALL_FRAMES` of them all. Some viewers want it otherwise: see `aligned`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from dicomnode.results.layers import Layers

#: Frames up to which empty ones are written, too.
ALL_FRAMES = 2000

#: The number of a segment, and the frame of the source that its frame lies on, from 0.
Frame = tuple[int, int]

_BYTE = 8


def plain(segments: Layers) -> list[Frame]:
    """The frames that are written where nothing speaks against it."""
    every = range(segments.frames)
    if len(segments.items) * len(every) <= ALL_FRAMES:
        return [(item.number, index) for item in segments.items for index in every]
    return [
        (item.number, index)
        for item, counts in zip(segments.items, segments.counts, strict=True)
        for index in np.flatnonzero(counts).tolist() or [0]
    ]


def is_aligned(segments: Layers) -> bool:
    """Whether each frame of `plain` fills whole bytes, and all together an even number of them."""
    size = _size(segments)
    return size % _BYTE == 0 and len(plain(segments)) * size // _BYTE % 2 == 0


def aligned(segments: Layers) -> list[Frame] | None:
    """An order in which each frame that has something on it starts on a whole byte.

    OHIF 3.13 reads a frame of single bits that starts within a byte as another picture, and does
    not open a segmentation whose bits fill an odd number of bytes. Empty frames between the others
    move them to where they are read right.

    Returns:
        `None` where there are too few empty frames for that, or where the last pixels of a frame,
        those that share a byte with the next one, are not empty.
    """
    size = _size(segments)
    full = [(item.number, i) for item in segments.items for i in _found(segments, item.number)]
    if size % _BYTE and any(_tail(segments, *one, size).any() for one in full):
        return None
    spare = _spare(segments, set(full))
    apart = _BYTE // math.gcd(size, _BYTE) - 1
    order: list[Frame] = []
    for number, frame in enumerate(full):
        between = [next(spare, None) for _ in range(apart)] if number else []
        if None in between:
            return None
        order += [one for one in between if one is not None]
        order.append(frame)
    return _rounded(order, spare, segments, size)


def _rounded(
    order: list[Frame], spare: Iterator[Frame], segments: Layers, size: int
) -> list[Frame] | None:
    """With a frame at least for each segment, and an even number of bytes."""
    absent = {item.number for item in segments.items} - {number for number, _ in order}
    for number, index in spare:
        is_even = -(-len(order) * size // _BYTE) % 2 == 0
        if is_even and not absent:
            return order
        order.append((number, index))
        absent.discard(number)
    is_even = -(-len(order) * size // _BYTE) % 2 == 0
    return order if is_even and not absent else None


def _size(segments: Layers) -> int:
    return int(np.prod(segments.array.shape[-2:]))


def _found(segments: Layers, number: int) -> list[int]:
    found: list[int] = np.flatnonzero(segments.counts[number - 1]).tolist()
    return found


def _spare(segments: Layers, full: set[Frame]) -> Iterator[Frame]:
    """The empty frames; first one of each segment that has no other."""
    empty = [
        (item.number, index)
        for item in segments.items
        for index in range(segments.frames)
        if (item.number, index) not in full
    ]
    alone = {item.number for item in segments.items} - {number for number, _ in full}
    first = {number: (number, 0) for number in sorted(alone)}
    return iter([*first.values(), *(one for one in empty if one not in first.values())])


def _tail(segments: Layers, number: int, index: int, size: int) -> np.ndarray:
    """The last pixels of a frame, which share a byte with the next one."""
    plane: np.ndarray = segments.plane(segments.items[number - 1], index)
    return plane.ravel()[size - size % _BYTE :]
