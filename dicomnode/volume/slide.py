"""A whole-slide image (PS3.3 A.32.8): a pyramid of tiles, read as far as a model asks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.pixels.utils import pixel_array

from dicomnode import bundle
from dicomnode.errors import RetryLater, UnsuitableSeries
from dicomnode.volume import kind
from dicomnode.volume.frames import UNDECODABLE, SliceSource

_WHITE = 255
_COLOURS = 3
#: What accompanies a slide and is none of its levels (PS3.3 C.8.12.4.1.1).
_BESIDE = frozenset({"LABEL", "OVERVIEW", "THUMBNAIL", "LOCALIZER"})


@dataclass(frozen=True, kw_only=True, eq=False)
class Level:
    """One level of the pyramid.

    Attributes:
        rows, columns: Total Pixel Matrix Rows (0048,0007) and Columns (0048,0006).
        spacing: mm between rows, mm between columns.
        source: Its instance.
        header: The instance without its pixels.
    """

    rows: int
    columns: int
    spacing: tuple[float, float]
    source: SliceSource
    header: Dataset = field(repr=False)

    @property
    def tile(self) -> tuple[int, int]:
        """Rows and columns of one tile."""
        return int(self.header.Rows), int(self.header.Columns)

    @cached_property
    def tiles(self) -> Mapping[tuple[int, int], int]:
        """Row and column of a tile's first pixel, from 0 → index of its frame."""
        # A full tiling may have groups as well, which need not say where a tile lies (C.7.6.17.3).
        is_full = self.header.get("DimensionOrganizationType") == "TILED_FULL"
        if not is_full and "PerFrameFunctionalGroupsSequence" in self.header:
            return _sparse(self.header)
        height, width = self.tile
        corners = product(range(0, self.rows, height), range(0, self.columns, width))
        return {corner: index for index, corner in enumerate(corners)}

    def region(self, *, row: int, column: int, rows: int, columns: int) -> NDArray[np.uint8]:
        """Pixels of a rectangle; only its tiles are decoded. See `Slide.region`."""
        out = np.full((rows, columns, _COLOURS), _WHITE, dtype=np.uint8)
        height, width = self.tile
        for (top, left), index in self.tiles.items():
            above, below = max(top, row), min(top + height, row + rows, self.rows)
            before, after = max(left, column), min(left + width, column + columns, self.columns)
            if above < below and before < after:
                tile = _decoded(self.source.path, index)
                out[above - row : below - row, before - column : after - column] = tile[
                    above - top : below - top, before - left : after - left
                ]
        return out


@dataclass(frozen=True, kw_only=True, eq=False)
class Slide:
    """The levels of a slide, the finest first.

    Attributes:
        modality: Modality (0008,0060): SM.
        header: The instance of the finest level without its pixels.
    """

    levels: tuple[Level, ...]
    modality: str
    header: Dataset = field(repr=False)

    @property
    def sources(self) -> tuple[SliceSource, ...]:
        """The instances that it is made of."""
        return tuple(level.source for level in self.levels)

    def region(
        self, level: int, *, row: int, column: int, rows: int, columns: int
    ) -> NDArray[np.uint8]:
        """Pixels of a rectangle of a level: shape (rows, columns, 3), RGB, white beyond the slide.

        Args:
            level: 0 is the finest.
            row, column: Its first pixel, from 0, on that level.

        Raises:
            UnsuitableSeries: `undecodable`.
            RetryLater: The file could not be read just now.
        """
        return self.levels[level].region(row=row, column=column, rows=rows, columns=columns)


def load(files: Sequence[Path], *, contract: bundle.Input) -> Slide:
    """Read the headers of a slide's instances; pixels are read when they are asked for.

    Raises:
        NotApplicable: They are not what `contract` asks for.
        UnsuitableSeries: They are not the levels of one slide.
        RetryLater: A file could not be read just now.
    """
    headers = [_header(path) for path in files]
    kind.require_one([header for _, header in headers], kind.ONE_PATIENT)
    found = [
        _level(path, header)
        for path, header in headers
        if not _BESIDE & set(header.get("ImageType") or ())
    ]
    if not found:
        raise UnsuitableSeries("no-images", "The series has no level of a slide.")
    for level in found:
        kind.meets(str(level.header.Modality), {str(level.header.SOPClassUID)}, contract)
    levels = sorted(found, key=lambda level: -level.rows * level.columns)
    kind.within("wrong-image-count", len(levels), contract.images, "images")
    return Slide(
        levels=tuple(levels), modality=str(levels[0].header.Modality), header=levels[0].header
    )


def _header(path: Path) -> tuple[Path, Dataset]:
    try:
        return path, dcmread(path, stop_before_pixels=True)
    except OSError as error:
        raise RetryLater(
            "file-unavailable", f"A file could not be read: {error.strerror}."
        ) from error
    except UNDECODABLE as error:
        raise UnsuitableSeries("undecodable", f"A file is not readable DICOM: {error}.") from error


def _level(path: Path, header: Dataset) -> Level:
    try:
        shared = header.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
        between_rows, between_columns = map(float, shared.PixelSpacing)
        rows, columns = header.TotalPixelMatrixRows, header.TotalPixelMatrixColumns
        if int(header.get("TotalPixelMatrixFocalPlanes") or 1) > 1 or (
            int(header.get("NumberOfOpticalPaths") or 1) > 1
        ):
            raise UnsuitableSeries(
                "several-planes", "The slide has several focal or optical paths."
            )
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        raise UnsuitableSeries("no-geometry", f"A level says too little: {error}.") from error
    return Level(
        rows=int(rows),
        columns=int(columns),
        spacing=(between_rows, between_columns),
        source=SliceSource(
            sop_instance_uid=str(header.SOPInstanceUID),
            sop_class_uid=str(header.SOPClassUID),
            path=str(path.absolute()),
            frame_number=1,
            is_multiframe=True,
            position=None,
        ),
        header=header,
    )


def _sparse(header: Dataset) -> dict[tuple[int, int], int]:
    """TILED_SPARSE: each frame says where it lies, counted from 1 (PS3.3 C.8.12.6.1)."""
    tiles: dict[tuple[int, int], int] = {}
    for index, frame in enumerate(header.PerFrameFunctionalGroupsSequence):
        place = frame.PlanePositionSlideSequence[0]
        corner = (
            int(place.RowPositionInTotalImagePixelMatrix) - 1,
            int(place.ColumnPositionInTotalImagePixelMatrix) - 1,
        )
        tiles[corner] = index
    return tiles


def _decoded(path: str, index: int) -> NDArray[np.uint8]:
    try:
        tile: NDArray[np.uint8] = pixel_array(path, index=index)
    except OSError as error:
        raise RetryLater(
            "file-unavailable", f"A file could not be read: {error.strerror}."
        ) from error
    except UNDECODABLE as error:
        raise UnsuitableSeries("undecodable", f"Pixels could not be decoded: {error}") from error
    if tile.ndim != _COLOURS or tile.dtype != np.uint8:
        raise UnsuitableSeries("unknown-colours", "The tiles are not in colour of 8 bits.")
    return tile
