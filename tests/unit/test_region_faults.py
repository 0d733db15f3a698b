"""Reports of regions: faults that leave a readable report, all found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import examples
import numpy as np
import phantom
import pydicom
import pytest
from examples import Example
from made import BARE, Fault, Made, groups, make, sets
from numpy.typing import NDArray
from pydicom import Dataset

DRAWN = BARE.with_choices({"segmentation": "none", "regions": True})
PROFILES = {"image": DRAWN, "patient": DRAWN.with_choices({"coordinates": "patient"})}


def made(example: Example, folder: Path, coordinates: str) -> Made:
    return make(
        folder / "results", example.prediction, example.model, profile=PROFILES[coordinates]
    )


def in_group(number: int, value_type: str, then: Fault) -> Fault:
    def fault(report: Dataset) -> None:
        then(next(one for one in groups(report)[number].ContentSequence
                  if one.ValueType == value_type))  # fmt: skip

    return fault


def redrawn(change: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> Fault:
    """Other points in the first group."""

    def fault(report: Dataset) -> None:
        (place,) = [one for one in groups(report)[0].ContentSequence if "GraphicData" in one]
        axes = 3 if place.ValueType == "SCOORD3D" else 2
        points = np.array(place.GraphicData, dtype=np.float64).reshape(-1, axes)
        place.GraphicData = change(points).astype(np.float32).ravel().tolist()

    return fault


def mirrored(points: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([22 - points[:, :1], points[:, 1:]], axis=1)


def stretched(points: NDArray[np.float64]) -> NDArray[np.float64]:
    points[points[:, 0] == points[:, 0].max(), 0] += 1
    return points


def off_plane(points: NDArray[np.float64]) -> NDArray[np.float64]:
    orientation = phantom.ORIENTATIONS["oblique"]
    return points + 2.5 * np.cross(orientation[:3], orientation[3:])


def on_another_image(report: Dataset) -> None:
    (first, second, *_) = [one for group in groups(report) for one in group.ContentSequence
                           if one.ValueType == "SCOORD"]  # fmt: skip
    other = second.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID
    first.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID = other


def on_a_frame(report: Dataset) -> None:
    (place, *_) = [one for one in groups(report)[0].ContentSequence if one.ValueType == "SCOORD"]
    place.ContentSequence[0].ReferencedSOPSequence[0].ReferencedFrameNumber = 1


def without_a_group(report: Dataset) -> None:
    for item in report.ContentSequence:
        if item.ConceptNameCodeSequence[0].CodeValue == "126010":
            del item.ContentSequence[1]


def with_a_group_twice(report: Dataset) -> None:
    for item in report.ContentSequence:
        if item.ConceptNameCodeSequence[0].CodeValue == "126010":
            item.ContentSequence.append(item.ContentSequence[0])


def without_a_place(report: Dataset) -> None:
    content = groups(report)[0].ContentSequence
    content.remove(next(one for one in content if "GraphicData" in one))


def without_the_notice(report: Dataset) -> None:
    report.ContentSequence = [one for one in report.ContentSequence if "TextValue" not in one
                              or "Research use only" not in one.TextValue]  # fmt: skip


def without_evidence(report: Dataset) -> None:
    study = report.CurrentRequestedProcedureEvidenceSequence[0]
    del study.ReferencedSeriesSequence[0].ReferencedSOPSequence[0]


def _value(item: Dataset) -> None:
    item.MeasuredValueSequence[0].NumericValue = "0.1"


def _unit(item: Dataset) -> None:
    item.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue = "mm3"


def _name(item: Dataset) -> None:
    item.ConceptNameCodeSequence[0].CodeValue = "42798000"


def _finding(report: Dataset) -> None:
    for item in groups(report)[0].ContentSequence:
        if item.ConceptNameCodeSequence[0].CodeValue == "121071":
            item.ConceptCodeSequence[0].CodeValue = "4147007"


def _side(report: Dataset) -> None:
    for item in groups(report)[0].ContentSequence:
        if item.ConceptNameCodeSequence[0].CodeValue == "363698007":
            item.ContentSequence[0].ConceptCodeSequence[0].CodeValue = "24028007"


def _version(report: Dataset) -> None:
    for item in groups(report)[0].ContentSequence:
        if item.ConceptNameCodeSequence[0].CodeValue == "111003":
            item.TextValue = "1.2.4"


ANYWHERE: dict[str, tuple[Fault, str]] = {
    "moved by a pixel": (redrawn(lambda points: points + 1), "place-differs"),
    "stretched": (redrawn(stretched), "place-differs"),
    "a corner too few": (redrawn(lambda points: points[1:]), "place-differs"),
    "no place": (without_a_place, "place-differs"),
    "another value": (in_group(0, "NUM", _value), "measurement-differs"),
    "another unit": (in_group(0, "NUM", _unit), "measurement-differs"),
    "another quantity": (in_group(0, "NUM", _name), "measurement-differs"),
    "another name": (in_group(0, "TEXT", sets(TextValue="Egg")), "finding-differs"),
    "another finding": (_finding, "finding-differs"),
    "another side": (_side, "site-differs"),
    "another tracking identifier": (in_group(0, "UIDREF", sets(UID="1.2.3")), "tracking-differs"),
    "a group too few": (without_a_group, "tracking-differs"),
    "a group twice": (with_a_group_twice, "tracking-differs"),
    "another version": (_version, "algorithm-differs"),
    "no notice": (without_the_notice, "notice-missing"),
    "evidence left out": (without_evidence, "reference-differs"),
    "verified": (sets(VerificationFlag="VERIFIED"), "standing-differs"),
}
FAULTS: dict[str, dict[str, tuple[Fault, str]]] = {
    "image": ANYWHERE
    | {
        "mirrored": (redrawn(mirrored), "place-differs"),
        "on another image": (on_another_image, "reference-differs"),
        "on one frame": (on_a_frame, "reference-differs"),
    },
    "patient": ANYWHERE
    | {
        "mirrored": (redrawn(lambda points: points * [-1, 1, 1]), "place-differs"),
        "in the plane of another slice": (redrawn(off_plane), "place-differs"),
        "in another space": (
            in_group(0, "SCOORD3D", sets(ReferencedFrameOfReferenceUID="1.2.3")),
            "frame-of-reference-differs",
        ),
    },
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    """For tests that spoil a copy."""
    folder = tmp_path_factory.mktemp("regions")
    example = examples.bodies(folder / "images", orientation="oblique")
    return {name: made(example, folder / name, name) for name in PROFILES}


@pytest.mark.parametrize(
    ("coordinates", "case"), [(name, case) for name in FAULTS for case in FAULTS[name]]
)
def test_no_fault_passes_the_check(
    coordinates: str, case: str, sound: dict[str, Made], tmp_path: Path
) -> None:
    fault, reason = FAULTS[coordinates][case]
    assert sound[coordinates].spoilt(tmp_path, fault).reason() == reason


def test_the_other_coordinates_do_not_pass(sound: dict[str, Made], tmp_path: Path) -> None:
    def swap(report: Dataset) -> None:
        other = pydicom.dcmread(sound["patient"].files[0])
        report.ContentSequence = other.ContentSequence

    assert sound["image"].spoilt(tmp_path, swap).reason() == "place-differs"
