"""Results of one run on disk: built, checked, read again, and spoilt one fault at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom import Dataset

from dicomnode import bundle, results
from dicomnode.errors import ResultMismatch
from dicomnode.prediction import Prediction
from dicomnode.profile import Profile

KEY = "0123abcd"
CREATED = datetime(2026, 3, 4, 23, 6, 7, tzinfo=UTC)
#: What a destination is sent that gets neither pictures nor reports.
BARE = Profile(capture=False, regions=False, report=False)

Fault = Callable[[Dataset], Any]


@dataclass(frozen=True, kw_only=True)
class Made:
    """One run, and its results on disk."""

    prediction: Prediction
    model: bundle.Bundle
    files: tuple[Path, ...]
    profile: Profile

    @property
    def datasets(self) -> list[Dataset]:
        return [pydicom.dcmread(path) for path in self.files]

    def check(self) -> None:
        results.check(
            self.files,
            prediction=self.prediction,
            bundle=self.model,
            key=KEY,
            profiles=[self.profile],
        )

    def reason(self) -> str:
        """Why it does not pass."""
        with pytest.raises(ResultMismatch) as caught:
            self.check()
        return caught.value.reason

    def spoilt(self, folder: Path, fault: Fault, *, which: int = 0) -> Made:
        """The same with a fault in one object."""
        dataset = pydicom.dcmread(self.files[which])
        fault(dataset)
        path = folder / f"spoilt-{which}.dcm"
        dataset.save_as(path)
        files = tuple(path if n == which else file for n, file in enumerate(self.files))
        return replace(self, files=files)

    def again(self) -> list[bytes]:
        """The bytes of the same results, built once more."""
        built = results.build(
            self.prediction,
            bundle=self.model,
            key=KEY,
            created=CREATED,
            profiles=[self.profile],
        )
        return [one.encoded() for one in built]


def make(
    folder: Path, prediction: Prediction, model: bundle.Bundle, *, profile: Profile = BARE
) -> Made:
    """Build and write the results of a run, and check them."""
    built = results.build(prediction, bundle=model, key=KEY, created=CREATED, profiles=[profile])
    files = results.write(built, folder)
    made = Made(prediction=prediction, model=model, files=files, profile=profile)
    made.check()
    return made


def code(value: str, meaning: str, scheme: str = "SCT") -> bundle.Code:
    return bundle.Code(value=value, scheme=scheme, meaning=meaning)


def sets(**attributes: Any) -> Fault:
    """Sets attributes of the object."""

    def fault(dataset: Dataset) -> None:
        for keyword, value in attributes.items():
            setattr(dataset, keyword, value)

    return fault


def within(*path: str | int, then: Fault) -> Fault:
    """Does something in an item: keywords of sequences, each with the index of its item."""

    def fault(dataset: Dataset) -> None:
        item: Any = dataset
        for step in path:
            item = item[step] if isinstance(step, int) else getattr(item, step)
        then(item)

    return fault


def drops(keyword: str) -> Fault:
    return lambda dataset: delattr(dataset, keyword)


def kinds(prediction: Prediction, model: bundle.Bundle, profiles: Sequence[Profile]) -> list[str]:
    """What objects there are, in order."""
    built = results.build(prediction, bundle=model, key=KEY, created=CREATED, profiles=profiles)
    return [one.kind for one in built]


def groups(report: Dataset) -> list[Dataset]:
    """The measurement groups of a report on TID 1500."""
    (container,) = [
        item
        for item in report.ContentSequence
        if item.ConceptNameCodeSequence[0].CodeValue == "126010"
    ]
    return list(container.ContentSequence)
