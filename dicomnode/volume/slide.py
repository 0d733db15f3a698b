"""A whole-slide image (PS3.3 A.32.8): a pyramid of tiles, read as far as a model asks."""

from __future__ import annotations

from dataclasses import dataclass, field

from pydicom import Dataset

from dicomnode.volume.frames import SliceSource


@dataclass(frozen=True, kw_only=True, eq=False)
class Level:
    """One level of the pyramid.

    Attributes:
        rows, columns: Total Pixel Matrix Rows (0048,0007) and Columns (0048,0006).
        spacing: mm between rows, mm between columns.
        source: Its instance.
    """

    rows: int
    columns: int
    spacing: tuple[float, float]
    source: SliceSource


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
