"""Images that are looked at one by one: radiographs, ultrasound, photographs, the phases of a cine.

They need no place in the patient, and may differ in size.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from dicomnode.bundle import Form
from dicomnode.volume.frames import SliceSource


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    """One frame.

    Attributes:
        array: Shape (rows, columns), or (rows, columns, 3) in RGB; what its numbers mean is said
            by the input's `values`.
        source: The frame that it came from.
        pixel_spacing: mm between rows, mm between columns, from Pixel Spacing (0028,0030) or, of a
            projection, Imager Pixel Spacing (0018,1164); `None` where the image does not say.
        affine: 4 by 4; maps (0, row, column, 1) to patient coordinates LPS in mm, where the image
            says where it lies; `None` for a projection or a photograph.
        header: The instance without its pixels.
    """

    array: NDArray[np.float32] = field(repr=False)
    source: SliceSource
    pixel_spacing: tuple[float, float] | None
    affine: NDArray[np.float64] | None
    header: Dataset = field(repr=False)


@dataclass(frozen=True, kw_only=True, eq=False)
class Images:
    """The frames of one input.

    They are in the order of instance number, then frame number; of a cine in the order of time.

    Attributes:
        form: "image" or "cine".
        modality: Modality (0008,0060).
    """

    frames: tuple[Picture, ...]
    form: Form
    modality: str

    @property
    def header(self) -> Dataset:
        """The header of the first frame: results copy the identity from it."""
        return self.frames[0].header

    @property
    def sources(self) -> tuple[SliceSource, ...]:
        """The frames that it came from, in order."""
        return tuple(frame.source for frame in self.frames)
