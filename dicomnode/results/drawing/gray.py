"""Values → gray: which of them are shown, and from which to which, as a reader is used to it.

===========  =====================================================================================
first        the window that the image suggests (PS3.3 C.11.2), if it shows something
CT           without one: soft tissue, 400 HU wide around 40 HU
PT           standardized uptake from 0 to 7, black on white, if it can be computed; else from 0 to
             nearly the highest value
else         from nearly the lowest to nearly the highest value
===========  =====================================================================================
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from dicomnode.bundle import Bundle
from dicomnode.errors import UnsuitableSeries
from dicomnode.volume import Picture, Volume, suv
from dicomnode.volume.display import displayed

_PERCENTILES = (0.5, 99.7)
_SAMPLES = 500_000  # values that the percentiles are taken from
_IN_USE = 0.3  # a suggested window is taken if the image uses this share of it
_SOFT_TISSUE = (40.0, 400.0)  # centre and width in HU
_UPTAKE = 7.0  # g/mL
_COLOURS = 3


@dataclass(frozen=True, kw_only=True)
class Window:
    """The lowest and the highest value shown.

    Attributes:
        is_inverse: Whether the lowest is white.
        described: For people; "" where there is nothing to say.
    """

    low: float
    high: float
    is_inverse: bool = False
    described: str = ""

    def gray(self, values: NDArray[np.float32]) -> NDArray[np.uint8]:
        """From 0, black, to 255."""
        scaled = np.clip((values - self.low) / max(self.high - self.low, 1e-6), 0, 1) * 255
        shown: NDArray[np.uint8] = scaled.round().astype(np.uint8)
        return 255 - shown if self.is_inverse else shown


def window(volume: Volume, bundle: Bundle) -> Window:
    """What is shown of a volume."""
    if volume.modality == "PT":
        return _of_pet(volume, bundle)
    is_inverse = volume.header.get("PhotometricInterpretation") == "MONOCHROME1"
    low, high = _usual(volume.array)
    suggested = _suggested(volume.header)
    if suggested is not None and _shows(*suggested, low, high):
        return _described(*suggested, volume, is_inverse=is_inverse)
    if volume.modality == "CT" and _shows(*_limits(*_SOFT_TISSUE), low, high):
        return _described(*_limits(*_SOFT_TISSUE), volume, is_inverse=is_inverse)
    return Window(low=low, high=high, is_inverse=is_inverse)


def of_values(values: NDArray[np.float32]) -> Window:
    """From nearly the lowest to nearly the highest value of an image that says nothing of it."""
    low, high = _usual(values)
    return Window(low=low, high=high)


def picture(image: Picture, *, is_displayed: bool) -> NDArray[np.uint8]:
    """What is shown of a single image: shape (rows, columns), or (rows, columns, 3) of colour.

    Args:
        is_displayed: Whether its values are as displayed already (`values` of the input).
    """
    array = image.array
    is_gray = image.header.get("SamplesPerPixel") == 1
    if array.ndim == _COLOURS and (is_displayed or not is_gray or _has_palette(image.header)):
        return _bytes(array)
    values = array[..., 0] if array.ndim == _COLOURS else array
    if is_displayed:
        return _bytes(values)
    low, high = _usual(values)
    if _says_how(image.header, low, high):
        return _bytes(displayed(values, image.header))
    is_inverse = image.header.get("PhotometricInterpretation") == "MONOCHROME1"
    return Window(low=low, high=high, is_inverse=is_inverse).gray(values)


def _bytes(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _has_palette(header: Dataset) -> bool:
    return str(header.get("PhotometricInterpretation")) == "PALETTE COLOR"


def _says_how(header: Dataset, low: float, high: float) -> bool:
    """Whether an image has a window that shows something, or 8 bits that are shown as they are."""
    if header.get("VOILUTSequence"):
        return True
    suggested = _suggested(header)
    if suggested is not None:
        return _shows(*suggested, low, high)
    return header.get("BitsStored") == 8 and not header.get("RescaleSlope")  # noqa: PLR2004


def uptake(volume: Volume) -> float | None:
    """What stands for the highest uptake shown in values after the Modality LUT, if it is known."""
    try:
        return _UPTAKE / suv.factor([volume.header])
    except UnsuitableSeries:
        return None


def _of_pet(volume: Volume, bundle: Bundle) -> Window:
    is_uptake = next(iter(bundle.manifest.inputs.values())).values == "suvbw"
    high = _UPTAKE if is_uptake else uptake(volume)
    if high is None:
        _, high = _usual(volume.array)
        return Window(low=0, high=high, is_inverse=True, described=f"0 to {high:.3g}")
    return Window(low=0, high=high, is_inverse=True, described=f"SUV 0 to {_UPTAKE:g}")


def _usual(values: NDArray[np.float32]) -> tuple[float, float]:
    some = values.ravel()[:: 1 + values.size // _SAMPLES]
    low, high = (float(value) for value in np.percentile(some, _PERCENTILES))
    return (low, high) if high > low else (float(values.min()), float(values.max()))


def _suggested(header: Dataset) -> tuple[float, float] | None:
    """The first window of an image."""
    centers, widths = (
        np.atleast_1d([] if header.get(keyword) in (None, "") else header[keyword].value)
        for keyword in ("WindowCenter", "WindowWidth")
    )
    if not (centers.size and widths.size and float(widths[0]) > 1):
        return None
    return _limits(float(centers[0]), float(widths[0]))


def _limits(center: float, width: float) -> tuple[float, float]:
    """PS3.3 C.11.2.1.2: up to the first black, from the second on white."""
    return center - 0.5 - (width - 1) / 2, center - 0.5 + (width - 1) / 2


def _shows(darkest: float, brightest: float, low: float, high: float) -> bool:
    """Whether values from `low` to `high` use enough of a window."""
    in_use = (min(high, brightest) - max(low, darkest)) / (brightest - darkest)
    return in_use >= _IN_USE


def _described(low: float, high: float, volume: Volume, *, is_inverse: bool) -> Window:
    """With center and width in words where the values have a unit that readers know."""
    center, width = (low + high) / 2 + 0.5, high - low + 1
    described = f"W {width:.0f} L {center:.0f}" if volume.modality == "CT" else ""
    return Window(low=low, high=high, is_inverse=is_inverse, described=described)
