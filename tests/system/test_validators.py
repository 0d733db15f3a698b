"""No program that judges DICOM has anything against any kind of object that the node makes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import examples
import pictured
import pydicom
import pytest
import validators
from examples import Example
from pydicom import Dataset

from dicomnode import results
from dicomnode.profile import Profile
from dicomnode.results import notices

EVERYTHING = Profile(presentation=True, key_images=True)
PROFILES = {
    "binary": EVERYTHING,
    "labelmap": EVERYTHING.with_choices({
        "segmentation": "labelmap", "coordinates": "patient", "title": "oncology",
    }),
    "fractional": EVERYTHING.with_choices({"segmentation": "fractional"}),
    "aligned": EVERYTHING.with_choices({"workarounds": "ohif"}),
}  # fmt: skip

Make = Callable[[Path], Example]


def of_volume(kind: Callable[..., Example], **scan: Any) -> Make:
    return lambda folder: kind(folder, **scan)


def of_pictures(kind: Callable[..., Example], name: str) -> Make:
    return lambda folder: kind(pictured.PICTURES[name](folder))


def of_two_sizes(folder: Path) -> Example:
    return pictured.marked(pictured.radiographs(folder, ((20, 24), (21, 25), (20, 24))))


#: What has segments is made in every encoding, all else once.
SEGMENTED: dict[str, Make] = {
    "bodies": of_volume(examples.bodies),
    "bodies, enhanced": of_volume(examples.bodies, enhanced=True, orientation="oblique"),
    "nothing": of_volume(examples.nothing),
    "overlapping": of_volume(examples.overlapping),
    "probabilities": of_volume(examples.probabilities),
    "two sizes": of_two_sizes,
} | {f"marked {name}": of_pictures(pictured.marked, name) for name in pictured.PICTURES}

OTHERS: dict[str, Make] = {
    "bodies on half bytes": of_volume(examples.bodies, shape=(14, 42, 46), spacing=(2.5, 0.8, 0.8)),
    "located": of_volume(examples.located),
    "heated": of_volume(examples.heated),
    "derived from MR": of_volume(examples.derived),
    "derived from CT": of_volume(examples.derived, modality="CT"),
    "derived, enhanced": of_volume(examples.derived, enhanced=True, orientation="oblique"),
    "registered": of_volume(examples.registered),
} | {
    f"{kind.__name__} {name}": of_pictures(kind, name)
    for kind in (pictured.described, pictured.nowhere, pictured.warm, pictured.remade)
    for name in pictured.PICTURES
}

CASES = [
    *((name, encoding) for name in SEGMENTED for encoding in ("binary", "labelmap", "fractional")),
    ("bodies on half bytes", "aligned"),
    *((name, "binary") for name in OTHERS),
]
DOCUMENTS = {"sr", "regions", "key-images"}


def complaints(files: list[Path], example: Example, folder: Path) -> dict[str, list[str]]:
    """Program and file → what it says."""
    found = {
        f"dcentvfy: {len(files)} files": validators.complaints("dcentvfy", *example.sources, *files)
    }
    for path in files:
        found[f"dciodvfy: {path.name}"] = validators.complaints("dciodvfy", path)
        if path.stem in DOCUMENTS:
            found[f"dsrdump: {path.name}"] = validators.complaints("dsrdump", path)
        elif validators.is_label_map(path):
            dressed = validators.as_fractional(path, folder)
            found[f"dciodvfy: {dressed.name}"] = validators.complaints("dciodvfy", dressed)
    return {name: said for name, said in found.items() if said}


@pytest.mark.server("dicom3tools", "dcmtk")
@pytest.mark.parametrize(("name", "encoding"), CASES)
def test_the_objects_are_valid(name: str, encoding: str, tmp_path: Path) -> None:
    example = (SEGMENTED | OTHERS)[name](tmp_path / "images")
    files = list(example.write(tmp_path / "results", PROFILES[encoding]))
    assert complaints(files, example, tmp_path) == {}


#: A representative of each kind of group, alone: the program tries every template of TID 1500 on
#: every group, and takes a planar one beside a volumetric one for a broken volumetric one.
TEMPLATES: dict[str, tuple[Make, str]] = {
    "volumetric groups": (of_volume(examples.bodies), "sr"),
    "planar groups": (of_pictures(pictured.found, "radiographs"), "sr"),
    "planar groups on frames": (of_pictures(pictured.found, "ultrasound"), "sr"),
    "measurements and places": (of_pictures(pictured.described, "radiographs"), "sr"),
    "places in the patient": (of_volume(examples.located), "sr"),
    "nothing found": (of_pictures(pictured.nowhere, "photographs"), "sr"),
    "no finding": (of_volume(examples.derived), "sr"),
    "probabilities": (of_volume(examples.probabilities), "sr"),
    "regions of a volume": (of_volume(examples.bodies), "regions"),
    "regions of images": (of_pictures(pictured.marked, "slices"), "regions"),
}
FOR_TEMPLATES = {
    "sr": Profile(capture=False, regions=False, maps=False, images=False),
    "regions": Profile(report=False, capture=False),
}


@pytest.mark.server("pixelmed-apps")
@pytest.mark.parametrize("name", TEMPLATES)
def test_the_documents_keep_to_their_templates(name: str, tmp_path: Path) -> None:
    make, kind = TEMPLATES[name]
    files = make(tmp_path / "images").write(tmp_path / "results", FOR_TEMPLATES[kind])
    (document,) = [path for path in files if path.stem == kind]
    assert validators.complaints("DicomSRValidator", document) == []


@pytest.mark.server("pixelmed-apps", "dicom3tools", "dcmtk")
def test_a_report_with_another_title_that_names_its_predecessor_is_valid(tmp_path: Path) -> None:
    profile = FOR_TEMPLATES["sr"].with_choices({"title": "oncology", "segmentation": "labelmap"})
    earlier = results.Predecessor(
        study_instance_uid="1.2", series_instance_uid="1.2.3", sop_instance_uid="1.2.3.4"
    )
    example = examples.bodies(tmp_path / "images")
    *_, report = example.write(
        tmp_path / "results", profile, predecessors={profile.digest: earlier}
    )
    assert pydicom.dcmread(report).PredecessorDocumentsSequence
    for program in ("dciodvfy", "dsrdump", "DicomSRValidator"):
        assert validators.complaints(program, report) == []


@pytest.mark.server("pixelmed-apps")
def test_regions_in_the_patient_keep_to_their_template(tmp_path: Path) -> None:
    profile = FOR_TEMPLATES["regions"].with_choices({"coordinates": "patient"})
    *_, regions = examples.bodies(tmp_path / "images").write(tmp_path / "results", profile)
    assert validators.complaints("DicomSRValidator", regions) == []


def a_notice(example: Example) -> results.Result:
    """That a study was not analysed."""
    return notices.not_analysed(
        notices.NotAnalysed(
            key=examples.KEY,
            header=example.prediction.subject.header,
            model="lungs",
            reason="missing-slices",
            detail="3 slices are missing.",
            images=referenced(example),
            moment=examples.CREATED,
        )
    )


def a_rejection(example: Example) -> results.Result:
    """That some objects are not to be used any more."""
    return notices.rejection(
        notices.Rejection(
            key=examples.KEY,
            header=example.prediction.subject.header,
            objects=referenced(example),
            moment=examples.CREATED,
        )
    )


def referenced(example: Example) -> tuple[notices.Referenced, ...]:
    series = example.prediction.subject.header.SeriesInstanceUID
    return tuple(
        notices.Referenced(
            series_instance_uid=series,
            sop_class_uid=one.sop_class_uid,
            sop_instance_uid=one.sop_instance_uid,
        )
        for one in example.prediction.subject.sources
    )


@pytest.mark.server(*validators.PACKAGES)
@pytest.mark.parametrize("make", [a_notice, a_rejection])
def test_what_is_no_answer_is_valid(
    make: Callable[[Example], results.Result], tmp_path: Path
) -> None:
    example = examples.bodies(tmp_path / "images")
    (document,) = results.write([make(example)], tmp_path / "results")
    for program in ("dciodvfy", "dsrdump", "DicomSRValidator"):
        assert validators.complaints(program, document) == []
    assert validators.complaints("dcentvfy", *example.sources, document) == []


# What says nothing of a broken object is no witness.


def _group(document: Dataset) -> Dataset:
    (measurements,) = [
        item
        for item in document.ContentSequence
        if item.ConceptNameCodeSequence[0].CodeValue == "126010"
    ]
    group: Dataset = measurements.ContentSequence[0]
    return group


def _without_a_type(segmentation: Dataset) -> None:
    del segmentation.SegmentSequence[0].SegmentedPropertyTypeCodeSequence


def _of_another_birth(segmentation: Dataset) -> None:
    segmentation.PatientBirthDate = "19700130"


def _without_a_relationship(document: Dataset) -> None:
    del _group(document).ContentSequence[0].RelationshipType


def _without_a_place(document: Dataset) -> None:
    group = _group(document)
    group.ContentSequence = [one for one in group.ContentSequence if one.ValueType != "IMAGE"]


def _of_two_references(document: Dataset) -> None:
    (image, *_) = [one for one in _group(document).ContentSequence if one.ValueType == "IMAGE"]
    image.ReferencedSOPSequence[0].ReferencedFrameNumber = 1


FAULTS: list[tuple[str, int, Callable[[Dataset], None]]] = [
    ("dciodvfy", 0, _without_a_type),
    ("dciodvfy", -1, _of_two_references),
    ("dcentvfy", 0, _of_another_birth),
    ("dsrdump", -1, _without_a_relationship),
    ("dsrdump", -1, _of_two_references),
    ("DicomSRValidator", -1, _without_a_place),
]


@pytest.mark.server(*validators.PACKAGES)
@pytest.mark.parametrize(("program", "which", "spoil"), FAULTS)
def test_a_broken_object_is_found(
    program: str, which: int, spoil: Callable[[Dataset], None], tmp_path: Path
) -> None:
    example = examples.bodies(tmp_path / "images")
    files = example.write(tmp_path / "results", FOR_TEMPLATES["sr"])
    dataset = pydicom.dcmread(files[which])
    spoil(dataset)
    dataset.save_as(files[which])
    given = [files[which]] if program != "dcentvfy" else [*example.sources, *files]
    assert validators.complaints(program, *given)


@pytest.mark.server("dicom3tools")
def test_a_broken_label_map_is_found_under_its_dress(tmp_path: Path) -> None:
    profile = FOR_TEMPLATES["sr"].with_choices({"segmentation": "labelmap"})
    segmentation, _ = examples.bodies(tmp_path / "images").write(tmp_path / "results", profile)
    dataset = pydicom.dcmread(segmentation)
    del dataset.DimensionIndexSequence
    dataset.save_as(segmentation)
    assert validators.complaints("dciodvfy", validators.as_fractional(segmentation, tmp_path))


def test_everything_that_is_excused_has_a_reason() -> None:
    assert all(one.why and one.says for one in validators.ALLOWED)
    assert {one.program for one in validators.ALLOWED} <= set(validators.PROGRAMS)
