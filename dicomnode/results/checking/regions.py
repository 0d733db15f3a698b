"""Reads the report of regions back, and compares what is drawn with what the model said.

An outline is filled again, pixel by pixel, and compared with the mask that it is around: how it was
traced plays no part. Where it lies in the patient it is brought to the image first, by the image's
own file.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from scipy import ndimage

from dicomnode.bundle import Code
from dicomnode.results import finding_site, regions
from dicomnode.results.checking import report, sites
from dicomnode.results.checking.expected import Expected, has_code, require
from dicomnode.results.checking.tree import children, evidence, measurement_groups, text
from dicomnode.results.part import Part
from dicomnode.results.regions import Region
from dicomnode.results.writing.content import IMAGING_MEASUREMENT_REPORT
from dicomnode.volume.geometry import ORIENTATION_TOLERANCE, PIXEL_SPACING_TOLERANCE

_FINDING = Code(value="121071", scheme="DCM", meaning="Finding")
_COMMENT = Code(value="121106", scheme="DCM", meaning="Comment")
_TRACKING_ID = Code(value="112039", scheme="DCM", meaning="Tracking Identifier")
_RELATIVE = 1e-6
_PIXELS = 1e-2  # what gets lost in 32 bits, of patient coordinates, in pixels
_PATIENT = "patient"
_WRITING_MM = 1e-3  # what gets lost in 32 bits, of patient coordinates
# Of a way across the image: how far the slices of a volume may be turned and scaled against the
# first, by whose directions they are drawn on.
_TURNED = 2 * ORIENTATION_TOLERANCE
_DISTORTED = _TURNED + PIXEL_SPACING_TOLERANCE


def check(dataset: Dataset, part: Part, expected: Expected) -> None:
    """Check the report of regions.

    Raises:
        ResultMismatch: It draws something else than what the model said, or elsewhere.
    """
    report.check_standing(dataset, expected, title=IMAGING_MEASUREMENT_REPORT)
    remarks = [str(child.get("TextValue")) for child in children(dataset, _COMMENT)]
    require(
        expected.bundle.manifest.notice in remarks, "notice-missing", "The report has no notice."
    )
    meant = regions.of(expected.prediction, expected.bundle, expected.key)
    found = measurement_groups(dataset)
    require(
        [text(one, report.TRACKING_UID) for one in found] == [one.tracking_uid for one in meant],
        "tracking-differs",
        "The report has not one group for each region, with its tracking identifier.",
    )
    sources = expected.prediction.subject.sources
    require(
        set(evidence(dataset)) == {sources[one.frame].sop_instance_uid for one in meant},
        "reference-differs",
        "The report's evidence is not every image that something is drawn on.",
    )
    for group, region in zip(found, meant, strict=True):
        _check_words(group, region)
        _check_measurements(group, region)
        _check_place(group, region, part, expected)
        report.check_made_by(group, expected)


def _check_words(group: Dataset, region: Region) -> None:
    findings = [child.get("ConceptCodeSequence") for child in children(group, _FINDING)]
    require(
        text(group, _TRACKING_ID) == region.tracking_id
        and len(findings) == 1
        and has_code(findings[0], region.finding.type),
        "finding-differs",
        f"What is drawn as {region.tracking_id} is not what the manifest says.",
    )
    sites.check(group, finding_site.of(region.finding), region.tracking_id)


def _check_measurements(group: Dataset, region: Region) -> None:
    numbers = [child for child in group.ContentSequence if child.ValueType == "NUM"]
    require(
        len(numbers) == len(region.measurements)
        and all(
            _is(child, *meant) for child, meant in zip(numbers, region.measurements, strict=True)
        ),
        "measurement-differs",
        f"A measurement of {region.tracking_id} is not what was measured.",
    )


def _is(child: Dataset, name: Code, value: float, unit: Code) -> bool:
    (measured,) = child.MeasuredValueSequence
    return (
        has_code(child.ConceptNameCodeSequence, name)
        and has_code(measured.MeasurementUnitsCodeSequence, unit)
        and math.isclose(float(measured.NumericValue), value, rel_tol=_RELATIVE)
    )


def _check_place(group: Dataset, region: Region, part: Part, expected: Expected) -> None:
    places = [one for one in group.ContentSequence if one.ValueType in ("SCOORD", "SCOORD3D")]
    require(len(places) == 1, "place-differs", f"{region.tracking_id} has not exactly one place.")
    source = expected.prediction.subject.sources[region.frame]
    is_in_patient = places[0].ValueType == "SCOORD3D"
    can_be = regions.in_patient(region, expected.prediction) is not None
    require(
        is_in_patient == (part.variant == _PATIENT and can_be),
        "place-differs",
        f"{region.tracking_id} is not drawn in the coordinates that are asked for.",
    )
    if is_in_patient:
        header = expected.headers[source.sop_instance_uid]
        require(
            places[0].ReferencedFrameOfReferenceUID == header.FrameOfReferenceUID,
            "frame-of-reference-differs",
            f"{region.tracking_id} lies in another frame of reference than its source.",
        )
        drawn = _on_image(places[0], region, expected)
        tolerance = _PIXELS + _DISTORTED * float(np.abs(region.points).max())
    else:
        _check_image(places[0], region, expected)
        drawn = np.array(places[0].GraphicData, dtype=np.float64).reshape(-1, 2)
        tolerance = _PIXELS
    _check_drawn(drawn, region, tolerance)


def _check_image(place: Dataset, region: Region, expected: Expected) -> None:
    source = expected.prediction.subject.sources[region.frame]
    named: list[tuple[Any, ...]] = [
        (one.ReferencedSOPClassUID, one.ReferencedSOPInstanceUID, one.get("ReferencedFrameNumber"))
        for child in place.get("ContentSequence", ())
        for one in child.ReferencedSOPSequence
    ]
    number = source.frame_number if source.is_multiframe else None
    require(
        named == [(source.sop_class_uid, source.sop_instance_uid, number)],
        "reference-differs",
        f"{region.tracking_id} is drawn on another image.",
    )


def _on_image(place: Dataset, region: Region, expected: Expected) -> NDArray[np.float64]:
    """Patient coordinates as columns and rows of the image that they are drawn on."""
    source = expected.prediction.subject.sources[region.frame]
    points = np.array(place.GraphicData, dtype=np.float64).reshape(-1, 3)
    down, right = expected.across(source)
    offsets = points - expected.position(source)
    normal = np.cross(down, right)
    away = np.abs(offsets @ normal).max() / np.linalg.norm(normal)
    reach = np.linalg.norm(offsets, axis=1).max()
    require(
        bool(away <= _WRITING_MM + _TURNED * reach),
        "place-differs",
        f"{region.tracking_id} does not lie in the plane of the image that it is drawn on.",
    )
    columns = offsets @ right / (right @ right) + 0.5
    rows = offsets @ down / (down @ down) + 0.5
    return np.column_stack([columns, rows])


def _check_drawn(drawn: NDArray[np.float64], region: Region, tolerance: float) -> None:
    elsewhere = f"{region.tracking_id} is not drawn where the model said."
    require(drawn.shape == region.points.shape, "place-differs", elsewhere)
    require(bool(np.abs(drawn - region.points).max() <= tolerance), "place-differs", elsewhere)
    require_around(drawn, region)


def require_around(drawn: NDArray[np.float64], region: Region) -> None:
    """Make sure that an outline is around what the model marked, as far as it may stray.

    Raises:
        ResultMismatch: `outline-differs`.
    """
    if region.mask is not None:
        meant = ndimage.binary_fill_holes(region.mask)
        differs = filled(drawn, region.mask.shape) != meant
        require(
            not (differs & ~_near_edge(meant, region.stray)).any(),
            "outline-differs",
            f"The outline of {region.tracking_id} is not around what the model marked.",
        )


def _near_edge(mask: NDArray[np.bool_], stray: float) -> NDArray[np.bool_]:
    """The pixels that an outline which strays so far may have on its wrong side."""
    if not stray:
        return np.zeros_like(mask)
    steps = int(np.ceil(stray)) + 1
    padded = np.pad(mask, steps)
    grown = ndimage.binary_dilation(padded, iterations=steps)
    shrunk = ndimage.binary_erosion(padded, iterations=steps)
    near: NDArray[np.bool_] = (grown & ~shrunk)[steps:-steps, steps:-steps]
    return near


def filled(outline: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """The pixels whose centres lie inside a closed outline: even-odd, row by row."""
    inside = np.zeros(shape, dtype=np.bool_)
    centres = np.arange(shape[1]) + 0.5
    ends = np.roll(outline, -1, axis=0)
    first, last = np.clip([outline[:, 1].min() - 1, outline[:, 1].max() + 1], 0, shape[0])
    for row in range(int(first), int(last)):
        y = row + 0.5
        crosses = (outline[:, 1] > y) != (ends[:, 1] > y)
        begin, end = outline[crosses], ends[crosses]
        share = (y - begin[:, 1]) / (end[:, 1] - begin[:, 1])
        at = begin[:, 0] + share * (end[:, 0] - begin[:, 0])
        inside[row] = np.count_nonzero(at[:, None] > centres, axis=0) % 2 == 1
    return inside
