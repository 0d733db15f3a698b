"""Everything that answers, as DICOM objects: one module for each kind of object.

Each has `build(run, part, ...)`, which gives the objects of one part of the plan.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from pydicom import Dataset

from dicomnode.profile import Profile
from dicomnode.results.common import Result, Run
from dicomnode.results.part import Kind, Part
from dicomnode.results.writing import (
    capture,
    derived_image,
    key_images,
    parametric_map,
    presentation,
    regions_report,
    registration,
    report,
    segmentation,
)

#: The objects that depend on the run alone, one for each part.
_BUILD: dict[Kind, Callable[[Run, Part], Dataset]] = {
    "seg": segmentation.build,
    "map": parametric_map.build,
    "registration": registration.build,
    "capture": capture.build,
    "regions": regions_report.build,
    "presentation": presentation.build,
    "key-images": key_images.build,
}


def write(run: Run, parts: Iterable[Part], profiles: Sequence[Profile]) -> tuple[Result, ...]:
    """Make the objects of every part, in their order."""
    made: list[Result] = []
    for part in parts:
        made += [Result(part=part, dataset=one) for one in _objects(run, part, profiles, made)]
    return tuple(made)


def _objects(
    run: Run, part: Part, profiles: Sequence[Profile], made: Sequence[Result]
) -> Iterable[Dataset]:
    if part.kind == "sr":
        (profile, *_) = [one for one in profiles if one.digest == part.variant]
        beside = [one for one in made if part.variant in one.part.profiles]
        return [report.build(run, part, beside, profile=profile)]
    if part.kind == "image":
        return derived_image.build(run, part)
    return [_BUILD[part.kind](run, part)]
