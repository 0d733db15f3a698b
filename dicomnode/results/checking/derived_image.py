"""Reads it back."""

from __future__ import annotations

from pydicom import Dataset

from dicomnode.results.checking.expected import Expected
from dicomnode.results.part import Part


def check(dataset: Dataset, part: Part, number: int, expected: Expected) -> None:
    """Check it."""
    raise NotImplementedError(dataset, part, expected)
