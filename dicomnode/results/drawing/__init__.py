"""Pictures of the answer, for people: of volumes and of images."""

from __future__ import annotations

from PIL import Image

from dicomnode.bundle import Bundle
from dicomnode.prediction import Prediction
from dicomnode.results.drawing import images, slices
from dicomnode.volume import Images, Volume


def picture(prediction: Prediction, *, bundle: Bundle) -> Image.Image | None:
    """A picture of the answer; `None` of a slide, which is no picture."""
    if isinstance(prediction.subject, Volume):
        return slices.overlay(prediction, bundle=bundle)
    if isinstance(prediction.subject, Images):
        return images.overlay(prediction, bundle=bundle)
    return None
