"""A map of one output as a Parametric Map (PS3.3 A.75)."""

from __future__ import annotations

from pydicom import Dataset

from dicomnode.results.common import Run
from dicomnode.results.part import Part


def build(run: Run, part: Part) -> Dataset:
    """Make it."""
    raise NotImplementedError(run, part)
