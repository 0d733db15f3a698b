"""Images that a model made of the images, as one series."""

from __future__ import annotations

from pydicom import Dataset

from dicomnode.results.common import Run
from dicomnode.results.part import Part


def build(run: Run, part: Part) -> list[Dataset]:
    """Make it."""
    raise NotImplementedError(run, part)
