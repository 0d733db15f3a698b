"""Between the node's images and MONAI's: axes, frames, and the way back.

=======  ==========================  ==================  ==============================
who      array axes                  affine maps         patient coordinates
=======  ==========================  ==================  ==============================
node     (slice, row, column)        (s, r, c, 1) → mm   LPS (PS3.3 C.7.6.2.1.1)
MONAI    (column, row, slice)        (c, r, s, 1) → mm   RAS, as NIfTI
=======  ==========================  ==================  ==============================

A bundle that was made for NIfTI files meets the same array and the same affine here; one that was
made for PNG files meets the same array, and an affine that counts pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dicomnode.volume import Images, Picture, Volume

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_REVERSED = [2, 1, 0]

# Far less than half a voxel over the largest image: nearest neighbour gives each voxel itself.
_SAME_GRID = 1e-5
NEAREST, LINEAR = 0, 1


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The grid of what was shown, on MONAI's axes.

    Attributes:
        shape: (columns, rows, slices), or (columns, rows) of an image.
        affine: 4 by 4; maps (column, row, slice, 1) to RAS in mm or, of an image, to its own
            columns and rows.
    """

    shape: tuple[int, ...]
    affine: NDArray[np.float64]

    def bring(
        self,
        array: NDArray[Any],
        *,
        affine: NDArray[np.float64],
        order: int,
        beyond: float = 0.0,
    ) -> NDArray[Any]:
        """Bring one channel of an answer to this grid, through the affines alone.

        Args:
            array: On MONAI's axes, on whatever grid the bundle left it.
            affine: Square; maps its indices as `Grid.affine` does.
            order: `NEAREST`: each voxel has the value that is nearest to its centre; or `LINEAR`.
            beyond: The value where the bundle's grid does not reach.

        Returns:
            On the node's axes: (slices, rows, columns) or (rows, columns).
        """
        size = len(self.shape)
        to_answer = np.linalg.inv(_square(affine)) @ self.affine
        if array.shape != self.shape or not np.allclose(
            to_answer, np.eye(4), rtol=0, atol=_SAME_GRID
        ):
            array = ndimage.affine_transform(
                array,
                to_answer[:size, :size],
                offset=to_answer[:size, 3],
                output_shape=self.shape,
                order=order,
                # "constant" would drop the outer half of the voxels at the border
                mode="grid-constant",
                cval=beyond,
            )
        return np.ascontiguousarray(array.transpose())


def _square(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """An affine of two dimensions as one of three."""
    size = affine.shape[0] - 1
    whole = np.eye(4)
    whole[:size, :size] = affine[:size, :size]
    whole[:size, 3] = affine[:size, size]
    return whole


def of(subject: Volume | Picture) -> Grid:
    """The grid of a volume or of one image."""
    if isinstance(subject, Volume):
        slices, rows, columns = subject.array.shape
        return Grid(shape=(columns, rows, slices), affine=ras_affine(subject.affine))
    rows, columns = subject.array.shape[:2]
    return Grid(shape=(columns, rows), affine=picture_affine(subject))


def ras_affine(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """4x4; maps (column, row, slice, 1) to patient coordinates RAS in mm.

    Args:
        affine: 4x4; maps (slice, row, column, 1) to LPS.
    """
    mapped: NDArray[np.float64] = LPS_TO_RAS @ affine[:, [*_REVERSED, 3]]
    return mapped


def picture_affine(picture: Picture) -> NDArray[np.float64]:
    """4x4; maps (column, row, 0, 1) of an image to RAS, or to itself where it lies nowhere."""
    return np.eye(4) if picture.affine is None else ras_affine(picture.affine)


def first_of(images: Images) -> Picture:
    """The image that gives a cine its grid."""
    return images.frames[0]
