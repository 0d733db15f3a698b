"""A frame, run-length encoded (PS3.5 Annex G), without a loop over its pixels.

The encoders that pydicom offers are slow, or end the process where a frame has an odd number of
bytes.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MOST = 128  # bytes that one run or one literal stretch stands for (G.3.1)
_OFFSETS = 15  # in the header, used or not (G.5)
_HEADER_BYTES = 4 * (1 + _OFFSETS)


def encoded(plane: NDArray[Any]) -> bytes:
    """One frame as RLE Lossless has it: a segment for each byte of a pixel, the highest first.

    Args:
        plane: Shape (rows, columns); uint8 or uint16.

    Raises:
        TypeError: It is of another type.
    """
    if plane.dtype not in (np.uint8, np.uint16):
        raise TypeError(f"a frame of {plane.dtype} is not run-length encoded")
    octets = np.ascontiguousarray(plane, dtype=plane.dtype.newbyteorder(">")).view(np.uint8)
    depth = plane.dtype.itemsize
    segments = [_segment(octets[:, place::depth]) for place in range(depth)]
    starts = np.cumsum([_HEADER_BYTES, *map(len, segments[:-1])]).tolist()
    unused = [0] * (_OFFSETS - depth)
    return struct.pack(f"<{1 + _OFFSETS}L", depth, *starts, *unused) + b"".join(segments)


def _segment(octets: NDArray[np.uint8]) -> bytes:
    """The bytes of all rows, none of which a run crosses; of even length (G.3.1)."""
    columns = octets.shape[1]
    flat = np.ascontiguousarray(octets).ravel()
    starts, lengths = _runs(flat, columns)
    # Runs of one byte that follow each other in a row stand together, as they are.
    is_single = lengths == 1
    rows = starts // columns
    is_first = np.ones(len(starts), dtype=np.bool_)
    is_first[1:] = ~(is_single[1:] & is_single[:-1]) | (rows[1:] != rows[:-1])
    is_first |= _places(is_first) % _MOST == 0
    firsts = np.flatnonzero(is_first)
    counts = np.diff(firsts, append=len(starts))
    # A count of n literal bytes is written as n - 1, one of n equal bytes as 257 - n.
    heads = np.where(is_single[firsts], counts - 1, 257 - lengths[firsts])
    written = np.empty(len(firsts) + len(starts) + (len(firsts) + len(starts)) % 2, dtype=np.uint8)
    written[-1] = 0
    written[firsts + np.arange(len(firsts))] = heads
    written[np.arange(len(starts)) + np.cumsum(is_first)] = flat[starts]
    return written.tobytes()


def _runs(flat: NDArray[np.uint8], columns: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Where each run of equal bytes starts, and how long it is, within its row and at most 128."""
    is_new = np.empty(flat.shape, dtype=np.bool_)
    np.not_equal(flat[1:], flat[:-1], out=is_new[1:])
    is_new[::columns] = True
    starts = np.flatnonzero(is_new)
    lengths = np.diff(starts, append=len(flat))
    pieces = -(-lengths // _MOST)
    is_first = np.zeros(int(pieces.sum()), dtype=np.bool_)
    is_first[np.cumsum(pieces) - pieces] = True
    before = _places(is_first) * _MOST
    return starts.repeat(pieces) + before, np.minimum(lengths.repeat(pieces) - before, _MOST)


def _places(is_first: NDArray[np.bool_]) -> NDArray[np.intp]:
    """The place of each within its stretch, counted from where a stretch begins."""
    firsts = np.flatnonzero(is_first)
    places: NDArray[np.intp] = np.arange(len(is_first)) - firsts[np.cumsum(is_first) - 1]
    return places
