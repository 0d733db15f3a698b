"""Series → what a model is shown: the one place where DICOM becomes arrays.

========  =============  ==========================================
form      gives          made by
========  =============  ==========================================
volume    `Volume`       `stack`, from `frames` by `geometry`
image     `Images`       `pictures`, through `display`
cine      `Images`       `pictures`, in the order of time
slide     `Slide`        `slide`
========  =============  ==========================================

What does not make what a model asks for is refused by name; nothing is guessed, repaired or left
out.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dicomnode import bundle
from dicomnode.volume import pictures, slide
from dicomnode.volume.frames import SliceSource
from dicomnode.volume.images import Images, Picture
from dicomnode.volume.regrid import crop, resampled
from dicomnode.volume.slide import Slide
from dicomnode.volume.stack import Plane, Volume, load, meets

__all__ = [
    "Images",
    "Picture",
    "Plane",
    "SliceSource",
    "Slide",
    "Volume",
    "crop",
    "load",
    "load_input",
    "meets",
    "resampled",
]


def load_input(files: Sequence[Path], *, contract: bundle.Input) -> Volume | Images | Slide:
    """Read the files of one series, in any order, for one input of a model.

    Args:
        files: Every file of the series.
        contract: What the model asks of this input, and what it tolerates.

    Raises:
        NotApplicable: The series is not what `contract` asks for.
        UnsuitableSeries: The images do not make what the form asks for; the reason says why.
        RetryLater: A file could not be read just now.
    """
    if contract.form == "volume":
        return load(files, contract=contract)
    if contract.form == "slide":
        return slide.load(files, contract=contract)
    return pictures.load(files, contract=contract)
