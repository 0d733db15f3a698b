"""A selection of the key images (PS3.3 A.35.4, PS3.16 TID 2010)."""

from __future__ import annotations

from pydicom import Dataset

from dicomnode.results.common import Run
from dicomnode.results.part import Part


def build(run: Run, part: Part) -> Dataset:
    """Make it."""
    raise NotImplementedError(run, part)
