"""The matrix that a bundle gives → where the moving input lies in the space of the first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from dicomnode.bundle import RegistrationOutput
from dicomnode.errors import ModelFailed
from dicomnode.prediction import Registration
from workers.inference import grid

_SHAPE = (4, 4)
_LAST_ROW = (0.0, 0.0, 0.0, 1.0)
_ROUNDING = 1e-5  # of a last row that was computed in 32 bits
#: How much larger or smaller than it is no patient is registered: a matrix that does is singular,
#: or is not in mm.
_LEAST_SCALE, _MOST_SCALE = 0.1, 10.0


def of(
    value: torch.Tensor, name: str, output: RegistrationOutput, *, others: Sequence[str]
) -> Registration:
    """The answer, in patient coordinates as DICOM has them.

    Args:
        value: Shape (4, 4) or (1, 4, 4).
        name: The output's.
        output: What the bundle means by its matrix.
        others: The inputs after the first, by name, in the manifest's order.

    Raises:
        ModelFailed: `wrong-shape`, `not-finite`, `not-a-transformation` (the last row), `singular`
            or `mirrored`.
    """
    matrix = _matrix(value, name)
    if output.direction == "fixed_to_moving":
        matrix = np.linalg.inv(matrix).astype(np.float64)
        matrix[3] = _LAST_ROW
    if output.coordinates == "ras":
        matrix = grid.LPS_TO_RAS @ matrix @ grid.LPS_TO_RAS  # which is its own inverse
    return Registration(output=name, moving=others.index(output.moving), matrix=matrix)


def _matrix(value: torch.Tensor, name: str) -> NDArray[np.float64]:
    matrix: NDArray[np.float64] = value.double().numpy()
    if matrix.shape == (1, *_SHAPE):
        matrix = matrix[0]
    if matrix.shape != _SHAPE:
        raise ModelFailed(
            "wrong-shape", f"'{name}' has shape {matrix.shape}; a registration has {_SHAPE}."
        )
    if not np.isfinite(matrix).all():
        raise ModelFailed("not-finite", f"'{name}' has values that are infinite or no numbers.")
    if np.abs(matrix[3] - _LAST_ROW).max() > _ROUNDING:
        raise ModelFailed(
            "not-a-transformation", f"The last row of '{name}' is {matrix[3]}, not 0 0 0 1."
        )
    scales = np.linalg.svd(matrix[:3, :3], compute_uv=False)
    if scales.min() < _LEAST_SCALE or scales.max() > _MOST_SCALE:
        raise ModelFailed(
            "singular",
            f"'{name}' scales lengths by {scales.min():.3g} to {scales.max():.3g}: no patient is"
            " brought onto himself so.",
        )
    if np.linalg.det(matrix[:3, :3]) < 0:
        raise ModelFailed("mirrored", f"'{name}' swaps left and right.")
    exact = matrix.copy()
    exact[3] = _LAST_ROW
    return exact
