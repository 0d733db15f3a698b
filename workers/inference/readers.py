"""What MONAI reads in place of files: volumes, images and slides that are in memory already.

The names that a bundle's loaders are given are the names of the model's inputs; of images that are
looked at one by one a number follows: "image#3".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike
from typing import Any

import numpy as np
import torch
from monai.data.image_reader import ImageReader
from monai.data.wsi_reader import BaseWSIReader
from monai.utils.enums import MetaKeys, SpaceKeys
from numpy.typing import NDArray

from dicomnode.errors import UnsuitableSeries
from dicomnode.prediction import Shown
from dicomnode.volume import Images, Picture, Slide, Volume
from workers.inference import grid

Name = str | PathLike[Any]
#: What one name stands for.
Readable = Shown | Picture
_SAME_MM = 1e-3  # between two affines of one grid
_COLOUR = 3  # dimensions of an image in RGB


class Shelf:
    """What may be read just now."""

    def __init__(self) -> None:
        self._things: Mapping[str, Readable] = {}

    @contextmanager
    def showing(self, things: Mapping[str, Readable]) -> Iterator[None]:
        """Let the readers find `things` within the `with` block."""
        self._things = things
        try:
            yield
        finally:
            self._things = {}

    def __getitem__(self, name: Name) -> Readable:
        return self._things[str(name)]


class MemoryReader(ImageReader):
    """A reader for MONAI's loaders: they then do with an array all that they do with a file."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    def verify_suffix(self, filename: Any) -> bool:  # noqa: ARG002 - of the interface
        """Every name is readable, or unknown and an error."""
        return True

    def read(self, data: Sequence[Name] | Name, **_: Any) -> list[Readable]:
        """What the names stand for."""
        names = [data] if isinstance(data, str | PathLike) else list(data)
        return [self._shelf[name] for name in names]

    def get_data(self, img: list[Readable]) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """The array on MONAI's axes, a copy, and the metadata that its transforms expect.

        Several are stacked as channels, the first axis, as MONAI's readers of files do.

        Raises:
            UnsuitableSeries: `inputs-on-different-grids`.
        """
        read = [_read(one) for one in img]
        array, meta = read[0]
        if len(read) == 1:
            return array, meta
        for other, other_meta in read[1:]:
            _require_one_grid((array, meta), (other, other_meta))
        return np.stack([one for one, _ in read]), meta | {MetaKeys.ORIGINAL_CHANNEL_DIM: 0}


def _require_one_grid(
    first: tuple[NDArray[Any], dict[str, Any]], other: tuple[NDArray[Any], dict[str, Any]]
) -> None:
    mine, theirs = (meta.get(MetaKeys.AFFINE, np.eye(4)) for _, meta in (first, other))
    if first[0].shape != other[0].shape or not np.allclose(mine, theirs, rtol=0, atol=_SAME_MM):
        raise UnsuitableSeries(
            "inputs-on-different-grids",
            "Inputs that the model takes as channels of one image lie on different grids: name the"
            " one to resample to in the manifest (`on_grid_of`), if that is right for the model.",
        )


def _read(thing: Readable) -> tuple[NDArray[np.float32], dict[str, Any]]:
    if isinstance(thing, Volume):
        return _meta(thing.array.transpose(), affine=grid.ras_affine(thing.affine))
    if isinstance(thing, Picture):
        affine = None if thing.affine is None else grid.picture_affine(thing)
        return _meta(thing.array.swapaxes(0, 1), affine=affine, spatial=2)
    if isinstance(thing, Images):
        return _cine(thing)
    raise TypeError(f"a {type(thing).__name__} is read as patches")


def _cine(images: Images) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """(column, row, 1, phase): what a NIfTI file of one plane over time holds."""
    stacked = np.stack([frame.array.swapaxes(0, 1) for frame in images.frames], axis=-1)
    affine = grid.picture_affine(grid.first_of(images))
    return _meta(np.expand_dims(stacked, axis=2), affine=affine)


def _meta(
    array: NDArray[np.float32], *, affine: NDArray[np.float64] | None, spatial: int = 3
) -> tuple[NDArray[np.float32], dict[str, Any]]:
    # torch turns axes round faster than NumPy does
    copy = torch.from_numpy(array).clone(memory_format=torch.contiguous_format).numpy()
    # MONAI's way to say that there is no channel is a number that is none.
    channel: float = -1 if spatial < copy.ndim == _COLOUR else float("nan")
    meta: dict[str, Any] = {
        MetaKeys.SPATIAL_SHAPE: np.asarray(copy.shape[:spatial]),
        MetaKeys.ORIGINAL_CHANNEL_DIM: channel,
    }
    if affine is not None:
        meta |= {
            MetaKeys.AFFINE: affine,
            MetaKeys.ORIGINAL_AFFINE: affine.copy(),
            MetaKeys.SPACE: SpaceKeys.RAS,
        }
    return copy, meta


class SlideReader(BaseWSIReader):
    """A reader for MONAI's datasets of patches."""

    supported_suffixes: list[str] = []  # noqa: RUF012 - of the interface
    backend = "dicomnode"

    def __init__(self, shelf: Shelf) -> None:
        super().__init__(level=0)
        self._shelf = shelf

    def read(self, data: Sequence[Name] | Name | NDArray[Any], **_: Any) -> Slide:
        """The slide of one name."""
        names = [data] if isinstance(data, str | PathLike) else list(data)
        thing = self._shelf[str(names[0])]
        if not isinstance(thing, Slide):
            raise TypeError(f"a {type(thing).__name__} has no patches")
        return thing

    def get_size(self, wsi: Slide, level: int) -> tuple[int, int]:
        """Rows and columns of a level."""
        return wsi.levels[level].rows, wsi.levels[level].columns

    def get_level_count(self, wsi: Slide) -> int:
        """How many levels there are."""
        return len(wsi.levels)

    def get_downsample_ratio(self, wsi: Slide, level: int) -> float:
        """How many pixels of the finest level lie along one of `level`."""
        finest, asked = wsi.levels[0], wsi.levels[level]
        return (finest.rows / asked.rows + finest.columns / asked.columns) / 2

    def get_file_path(self, wsi: Slide) -> str:  # noqa: ARG002 - of the interface
        """A name for messages; nothing that identifies the patient."""
        return "slide"

    def get_mpp(self, wsi: Slide, level: int) -> tuple[float, float]:
        """Micrometres between rows and between columns."""
        rows, columns = wsi.levels[level].spacing
        return rows * 1000, columns * 1000

    def get_power(self, wsi: Slide, level: int) -> float:  # noqa: ARG002 - of the interface
        """Unknown: patches are asked for by level or by micrometres."""
        raise ValueError("The power of the objective is not read: ask by level.")

    def _get_patch(  # noqa: PLR0917 - of the interface
        self,
        wsi: Slide,
        location: tuple[int, int],
        size: tuple[int, int],
        level: int,
        dtype: Any,
        mode: str,
    ) -> NDArray[Any]:
        """A patch, channels first.

        Args:
            location: Row and column of its corner on the finest level, as MONAI counts.
            size: Rows and columns on `level`.
        """
        if mode != "RGB":
            raise ValueError(f"patches are RGB, not {mode}")
        ratio = self.get_downsample_ratio(wsi, level)
        row, column = (round(place / ratio) for place in location)
        region = wsi.region(level, row=row, column=column, rows=size[0], columns=size[1])
        patch: NDArray[Any] = np.moveaxis(region, -1, self.channel_dim).astype(dtype)
        return patch


def one_by_one(inputs: Mapping[str, Shown]) -> Iterator[dict[str, Picture]]:
    """Images that are looked at one by one: for each the input names → its frames.

    Raises:
        UnsuitableSeries: `several-images`: a model of several inputs takes one of each.
    """
    by_name = {name: thing for name, thing in inputs.items() if isinstance(thing, Images)}
    if len(by_name) > 1 or len(by_name) != len(inputs):
        several = [name for name, images in by_name.items() if len(images.frames) != 1]
        if several or len(by_name) != len(inputs):
            raise UnsuitableSeries(
                "several-images",
                "A model of several inputs takes one image of each; not so:"
                f" {', '.join(several) or 'an input that is no image'}.",
            )
    for frames in zip(*(images.frames for images in by_name.values()), strict=True):
        yield dict(zip(by_name, frames, strict=True))
