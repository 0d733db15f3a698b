"""Between the node's volumes and MONAI's images: axes, frames, and the way back.

=======  ==========================  ==================  ==============================
who      array axes                  affine maps         patient coordinates
=======  ==========================  ==================  ==============================
node     (slice, row, column)        (s, r, c, 1) → mm   LPS (PS3.3 C.7.6.2.1.1)
MONAI    (column, row, slice)        (c, r, s, 1) → mm   RAS, as NIfTI
=======  ==========================  ==================  ==============================

A bundle that was made for NIfTI files meets the same array and the same affine here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike
from typing import Any

import numpy as np
from monai.data.image_reader import ImageReader
from monai.utils.enums import MetaKeys, SpaceKeys
from numpy.typing import NDArray
from scipy import ndimage  # type: ignore[import-untyped]  # SciPy ships no types

from dicomnode.volume import Volume

Name = str | PathLike[Any]

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_REVERSED = [2, 1, 0]

# Far less than half a voxel over the largest image: nearest neighbour gives each voxel itself.
_SAME_GRID = 1e-5


class VolumeReader(ImageReader):
    """A reader for MONAI's loaders: the file names are the model's input names.

    The loader then does with a volume in memory all that it does with a file.
    """

    def __init__(self) -> None:
        self._volumes: Mapping[str, Volume] = {}

    @contextmanager
    def showing(self, volumes: Mapping[str, Volume]) -> Iterator[None]:
        """Let the loaders find `volumes` within the `with` block."""
        self._volumes = volumes
        try:
            yield
        finally:
            self._volumes = {}

    def verify_suffix(self, filename: Any) -> bool:  # noqa: ARG002 - of the interface
        """Every name is readable, or unknown and an error."""
        return True

    def read(self, data: Sequence[Name] | Name, **_: Any) -> Volume:
        """The volume of one input name, which MONAI hands over as a tuple of one."""
        names = [data] if isinstance(data, str | PathLike) else list(data)
        (name,) = names
        return self._volumes[str(name)]

    def get_data(self, img: Volume) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """The array on MONAI's axes, a copy, and the metadata that its transforms expect."""
        array = np.array(img.array.transpose(_REVERSED), order="C")
        affine = ras_affine(img)
        return array, {
            MetaKeys.AFFINE: affine,
            MetaKeys.ORIGINAL_AFFINE: affine.copy(),
            MetaKeys.SPATIAL_SHAPE: np.asarray(array.shape),
            MetaKeys.SPACE: SpaceKeys.RAS,
            MetaKeys.ORIGINAL_CHANNEL_DIM: float("nan"),  # MONAI's way to say: there is none
        }


def ras_affine(volume: Volume) -> NDArray[np.float64]:
    """4x4; maps (column, row, slice, 1) of `volume` to patient coordinates RAS in mm."""
    affine: NDArray[np.float64] = _LPS_TO_RAS @ volume.affine[:, [*_REVERSED, 3]]
    return affine


def on_source_grid(
    labels: NDArray[Any], *, affine: NDArray[np.float64], volume: Volume
) -> NDArray[Any]:
    """Bring `labels` to the voxels of `volume`, through the affines alone.

    Args:
        labels: A label map on MONAI's axes, on whatever grid the bundle left it.
        affine: 4x4; maps its indices to patient coordinates RAS in mm.
        volume: The volume that the model was shown.

    Returns:
        Shape of `volume.array` (slices, rows, columns): each voxel has the label that is nearest to
        its centre, and 0 where the bundle's grid does not reach.
    """
    shape = tuple(volume.array.shape[axis] for axis in _REVERSED)
    to_labels = np.linalg.inv(affine) @ ras_affine(volume)
    if labels.shape != shape or not np.allclose(to_labels, np.eye(4), rtol=0, atol=_SAME_GRID):
        labels = ndimage.affine_transform(
            labels,
            to_labels[:3, :3],
            offset=to_labels[:3, 3],
            output_shape=shape,
            order=0,
            # "constant" would drop the outer half of the voxels at the border
            mode="grid-constant",
            cval=0,
        )
    return np.ascontiguousarray(labels.transpose(_REVERSED))
