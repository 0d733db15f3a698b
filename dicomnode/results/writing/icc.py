"""The colours of an image for a presentation state: an ICC Input Profile (PS3.3 C.11.15)."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import ImageCms

from dicomnode.prediction import Prediction
from dicomnode.volume import Images

# Places in the header of a profile (ISO 15076-1, 7.2).
_CLASS, _DATE = slice(12, 16), slice(24, 36)
_INPUT = b"scnr"
_A_DAY = bytes([7, 208, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0])  # 2000-01-01: the same every time


def profile(prediction: Prediction, frames: Sequence[int]) -> bytes:
    """The profile that the images have, if they have one and the same; else that of sRGB."""
    subject = prediction.subject
    if isinstance(subject, Images):
        own = {bytes(subject.frames[n].header.get("ICCProfile") or b"") for n in frames}
        if len(own) == 1 and (one := own.pop()):
            return one
    return srgb()


def srgb() -> bytes:
    """SRGB as the profile of an input device: the standard has no other (C.11.15.1.1)."""
    made = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    made[_CLASS] = _INPUT
    made[_DATE] = _A_DAY
    return bytes(made)
