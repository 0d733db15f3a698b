"""A picture for people, as a Secondary Capture (PS3.3 A.8.1)."""

from __future__ import annotations

from pydicom import Dataset

from dicomnode.results.common import Run
from dicomnode.results.part import Part


def build(run: Run, part: Part) -> Dataset:
    """Make it."""
    raise NotImplementedError(run, part)
