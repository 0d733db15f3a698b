"""Values → what a viewer shows of them, from 0 (black) to 255 (white).

The grayscale transformations of PS3.4 N.2.1: after the Modality LUT the VOI LUT (PS3.3 C.11.2),
then the photometric interpretation, of which MONOCHROME1 shows the lowest value white.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.pixels.processing import apply_voi

WHITE = 255.0
_BYTE = 8
_STEEPNESS = 4.0  # of the sigmoid, PS3.3 C.11.2.1.3.1


def displayed(values: NDArray[Any], dataset: Dataset) -> NDArray[np.float32]:
    """Bring monochrome values to 0 to 255.

    An image that says nothing of its window is shown from its lowest to its highest value; one of
    8 bits without a rescale as it is stored.

    Args:
        values: After the Modality LUT.
        dataset: The image; its first window, or its first VOI LUT.
    """
    if dataset.get("VOILUTSequence"):
        shown = _by_table(values, dataset)
    elif dataset.get("WindowCenter") not in (None, "") and dataset.get("WindowWidth"):
        shown = _by_window(values, dataset)
    elif dataset.get("BitsStored") == _BYTE and not dataset.get("RescaleSlope"):
        lowest = -128 if dataset.get("PixelRepresentation") else 0
        shown = values.astype(np.float32) - lowest
    else:
        shown = _stretched(values)
    if dataset.get("PhotometricInterpretation") == "MONOCHROME1":
        shown = WHITE - shown
    return shown.astype(np.float32, copy=False)


def _by_table(values: NDArray[Any], dataset: Dataset) -> NDArray[np.float32]:
    bits = int(dataset.VOILUTSequence[0].LUTDescriptor[2])
    looked_up = apply_voi(np.rint(values).astype(np.int32), dataset)
    shown: NDArray[np.float32] = looked_up.astype(np.float32) * (WHITE / (2**bits - 1))
    return shown


def _by_window(values: NDArray[Any], dataset: Dataset) -> NDArray[np.float32]:
    """PS3.3 C.11.2.1.2 (linear), C.11.2.1.3 (sigmoid and exactly linear)."""
    center, width = (
        float(np.atleast_1d(dataset[keyword].value)[0])
        for keyword in ("WindowCenter", "WindowWidth")
    )
    values = values.astype(np.float32, copy=False)
    function = str(dataset.get("VOILUTFunction") or "LINEAR")
    if function == "SIGMOID":
        power = np.clip(-_STEEPNESS * (values - center) / width, -80, 80)
        return (WHITE / (1 + np.exp(power))).astype(np.float32)
    if function != "LINEAR_EXACT":
        center, width = center - 0.5, width - 1
    if width <= 0:  # a step
        return np.where(values <= center, 0, WHITE).astype(np.float32)
    return np.clip(((values - center) / width + 0.5) * WHITE, 0, WHITE).astype(np.float32)


def _stretched(values: NDArray[Any]) -> NDArray[np.float32]:
    low, high = float(values.min()), float(values.max())
    if high <= low:
        return np.zeros(values.shape, dtype=np.float32)
    return ((values.astype(np.float32) - low) * (WHITE / (high - low))).astype(np.float32)
