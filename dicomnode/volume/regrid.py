"""A part of a volume, and a volume on the grid of another: through the affines alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dicomnode.errors import UnsuitableSeries
from dicomnode.volume.stack import Volume

Index = tuple[int, int, int]


def crop(volume: Volume, *, low: Index, high: Index) -> Volume:
    """The voxels from `low` up to, and without, `high` (slice, row, column), where they lie.

    Raises:
        ValueError: The box is empty, or reaches beyond the volume.
    """
    shape = volume.array.shape
    if not all(0 <= a < b <= size for a, b, size in zip(low, high, shape, strict=True)):
        raise ValueError(f"no box within {shape}: {low} to {high}")
    first, second, third = (slice(a, b) for a, b in zip(low, high, strict=True))
    affine = volume.affine.copy()
    affine[:3, 3] += volume.affine[:3, :3] @ np.array(low)
    return replace(
        volume,
        array=volume.array[first, second, third],
        affine=affine,
        sources=volume.sources[first],
    )


def resampled(volume: Volume, *, onto: Volume) -> Volume:
    """The same images on the grid of `onto`, by linear interpolation.

    Where the volume does not reach it has its lowest value: air of a CT, nothing of a PET. What it
    came from stays said: its sources are its own, and no longer one for each slice.

    Raises:
        UnsuitableSeries: `two-frames-of-reference`: the two are not in one space.
    """
    if volume.frame_of_reference_uid != onto.frame_of_reference_uid:
        raise UnsuitableSeries(
            "two-frames-of-reference",
            "FrameOfReferenceUID is not the same in the inputs that are brought to one grid.",
        )
    to_volume = np.linalg.inv(volume.affine) @ onto.affine
    array: NDArray[np.float32] = ndimage.affine_transform(
        volume.array,
        to_volume[:3, :3],
        offset=to_volume[:3, 3],
        output_shape=onto.array.shape,
        order=1,
        # "constant" would leave a whole slice out where a rounding error puts it beyond the edge
        mode="grid-constant",
        cval=float(volume.array.min()),
    )
    return replace(
        volume,
        array=array.astype(np.float32, copy=False),
        affine=onto.affine.copy(),
        orientation=onto.orientation,
        pixel_spacing=onto.pixel_spacing,
        slice_thickness=onto.slice_thickness,
    )
