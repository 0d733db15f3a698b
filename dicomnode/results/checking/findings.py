"""Reads the groups of classes, numbers, boxes and points back, and compares them value by value."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from pydicom import Dataset

from dicomnode.bundle import Code
from dicomnode.results.checking import sites
from dicomnode.results.checking.expected import has_code, require
from dicomnode.results.checking.tree import children
from dicomnode.results.findings import Group

_FINDING = Code(value="121071", scheme="DCM", meaning="Finding")
_TRACKING_ID = Code(value="112039", scheme="DCM", meaning="Tracking Identifier")
_COMMENT = Code(value="121106", scheme="DCM", meaning="Comment")
_RELATIVE = 1e-6


def check(found: Mapping[str, Dataset], groups: Sequence[Group], *, space: str) -> None:
    """Compare each group with what the model said.

    Args:
        found: Tracking UID → group of the report.
        space: Frame of Reference UID of the subject; "" where it lies in none.

    Raises:
        ResultMismatch: A group says something else.
    """
    for group in groups:
        item = found[group.tracking_uid]
        _check_words(item, group)
        _check_evaluations(item, group)
        _check_measurements(item, group)
        _check_place(item, group, space)


def _check_words(item: Dataset, group: Group) -> None:
    texts = [str(child.get("TextValue")) for child in children(item, _TRACKING_ID)]
    require(
        texts == [group.tracking_id],
        "tracking-differs",
        f"The tracking identifier of {group.tracking_id} is another one.",
    )
    findings = [child.get("ConceptCodeSequence") for child in children(item, _FINDING)]
    require(
        len(findings) == 1 and has_code(findings[0], group.finding),
        "finding-differs",
        f"The finding of {group.tracking_id} is not what the manifest says.",
    )
    sites.check(item, group.site, group.tracking_id)
    comments = [str(child.get("TextValue")) for child in children(item, _COMMENT)]
    require(
        comments == list(group.comments),
        "finding-differs",
        f"What is remarked on {group.tracking_id} is not what was said.",
    )


def _check_evaluations(item: Dataset, group: Group) -> None:
    known = [
        child
        for child in item.get("ContentSequence", ())
        if child.ValueType == "CODE"
        and any(has_code(child.ConceptNameCodeSequence, name) for name, _ in group.evaluations)
    ]
    require(
        len(known) == len(group.evaluations)
        and all(
            has_code(child.ConceptCodeSequence, value)
            for child, (_, value) in zip(known, group.evaluations, strict=True)
        ),
        "finding-differs",
        f"The class of {group.tracking_id} is not the one that was said.",
    )


def _check_measurements(item: Dataset, group: Group) -> None:
    numbers = [c for c in item.get("ContentSequence", ()) if c.ValueType == "NUM"]
    require(
        len(numbers) == len(group.measurements),
        "measurement-differs",
        f"{group.tracking_id} has not the measurements that were said.",
    )
    for child, (name, value, unit) in zip(numbers, group.measurements, strict=True):
        (measured,) = child.MeasuredValueSequence
        require(
            has_code(child.ConceptNameCodeSequence, name)
            and has_code(measured.MeasurementUnitsCodeSequence, unit),
            "unit-differs",
            f"A measurement of {group.tracking_id} has another name or unit.",
        )
        require(
            math.isclose(float(measured.NumericValue), value, rel_tol=_RELATIVE, abs_tol=1e-9),
            "measurement-differs",
            f"A measurement of {group.tracking_id} is not what was said.",
        )


def _check_place(item: Dataset, group: Group, space: str) -> None:
    places = list(_places(item))
    require(
        len(places) == (group.points is not None),
        "place-differs",
        f"{group.tracking_id} has a place too many, or none.",
    )
    if group.points is None:
        images = _images(item)
    else:
        place = places[0]
        require(
            place.GraphicType == group.graphic
            and np.array_equal(
                np.array(place.GraphicData, dtype=np.float32).ravel(),
                group.points.astype(np.float32).ravel(),
            ),
            "place-differs",
            f"{group.tracking_id} does not lie where the model said.",
        )
        images = _images(place)
        if place.ValueType == "SCOORD3D":
            require(
                place.ReferencedFrameOfReferenceUID == space,
                "frame-of-reference-differs",
                f"{group.tracking_id} lies in another frame of reference than its source.",
            )
            return
    meant = [
        (one.sop_class_uid, one.sop_instance_uid, one.frame_number if one.is_multiframe else None)
        for one in group.about
    ]
    require(images == meant, "reference-differs", f"{group.tracking_id} names another image.")


def _places(item: Dataset) -> Iterator[Dataset]:
    for child in item.get("ContentSequence", ()):
        if child.ValueType in ("SCOORD", "SCOORD3D"):
            yield child


def _images(item: Dataset) -> list[tuple[Any, ...]]:
    return [
        (
            sop.ReferencedSOPClassUID,
            sop.ReferencedSOPInstanceUID,
            None if sop.get("ReferencedFrameNumber") is None else int(sop.ReferencedFrameNumber),
        )
        for child in item.get("ContentSequence", ())
        if child.ValueType == "IMAGE"
        for sop in child.ReferencedSOPSequence
    ]
