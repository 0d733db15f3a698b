"""What a model says, on the grid of the volume that it was shown."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dicomnode.volume import Volume


@dataclass(frozen=True, kw_only=True)
class LabelMap:
    """One label for each voxel.

    Attributes:
        output: The name of the model's output, as in the manifest.
        array: Shape of `volume.array` (slices, rows, columns), dtype uint8 or uint16; 0 is
            background.
    """

    output: str
    array: NDArray[np.uint8 | np.uint16] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Everything that one run of a model said about `volume`.

    Attributes:
        volume: The grid of the answers.
        also_shown: What else the model was shown, on grids of its own.
    """

    volume: Volume
    answers: tuple[LabelMap, ...]
    also_shown: tuple[Volume, ...] = ()

    @property
    def shown(self) -> tuple[Volume, ...]:
        """Everything that the model was shown."""
        return (self.volume, *self.also_shown)
