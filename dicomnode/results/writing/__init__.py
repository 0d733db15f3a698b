"""Everything that answers, as DICOM objects: one module for each kind of object.

Each has `build(run, part, ...)`, which gives the objects of one part of the plan.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pydicom import Dataset

from dicomnode.profile import Profile
from dicomnode.results.common import Result, Run
from dicomnode.results.part import Part
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


def write(run: Run, parts: Iterable[Part], profiles: Sequence[Profile]) -> tuple[Result, ...]:
    """Make the objects of every part, in their order."""
    made: list[Result] = []
    for part in parts:
        made += [Result(part=part, dataset=one) for one in _objects(run, part, profiles, made)]
    return tuple(made)


def _objects(
    run: Run, part: Part, profiles: Sequence[Profile], made: Sequence[Result]
) -> Iterable[Dataset]:
    match part.kind:
        case "seg":
            return [segmentation.build(run, part)]
        case "map":
            return [parametric_map.build(run, part)]
        case "image":
            return derived_image.build(run, part)
        case "registration":
            return [registration.build(run, part)]
        case "capture":
            return [capture.build(run, part)]
        case "regions":
            return [regions_report.build(run, part)]
        case "presentation":
            return [presentation.build(run, part)]
        case "key-images":
            return [key_images.build(run, part)]
        case "sr":
            (profile, *_) = [one for one in profiles if one.digest == part.variant]
            beside = [one for one in made if part.variant in one.part.profiles]
            return [report.build(run, part, beside, profile=profile)]
        case _:
            raise NotImplementedError(part.kind)
