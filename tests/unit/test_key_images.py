"""The selection of key images: which they are, and that no fault in it passes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import examples
import numpy as np
import phantom
import pytest
from made import KEY, Fault, Made, make, sets
from pydicom import Dataset

from dicomnode import volume
from dicomnode.prediction import LabelMap, Prediction
from dicomnode.profile import Profile
from dicomnode.results import plan, regions

PROFILE = Profile(
    segmentation="none", maps=False, images=False, registrations=False, capture=False,
    regions=False, report=False, key_images=True,
)  # fmt: skip


def of_phantom(folder: Path, **scan: Any) -> Prediction:
    return examples.bodies(folder, **scan).prediction


def selected(prediction: Prediction, folder: Path) -> Made:
    return make(folder, prediction, phantom.a_bundle(), profile=PROFILE)


def document_of(prediction: Prediction, folder: Path) -> Dataset:
    (document,) = selected(prediction, folder).datasets
    return document


def images(document: Dataset) -> list[tuple[str, int | None]]:
    return [
        (sop.ReferencedSOPInstanceUID, sop.get("ReferencedFrameNumber"))
        for item in document.ContentSequence
        if item.ValueType == "IMAGE"
        for sop in item.ReferencedSOPSequence
    ]


@pytest.mark.parametrize("enhanced", [False, True])
def test_each_slice_that_something_is_drawn_on_is_named_once_in_order(
    tmp_path: Path, enhanced: bool
) -> None:
    prediction = of_phantom(tmp_path / "images", enhanced=enhanced, reversed=True)
    document = document_of(prediction, tmp_path / "results")
    found = regions.of(prediction, phantom.a_bundle(), KEY)
    frames = sorted({one.frame for one in found})
    assert len(frames) == 3
    sources = [prediction.volume.sources[n] for n in frames]
    assert images(document) == [
        (one.sop_instance_uid, one.frame_number if enhanced else None) for one in sources
    ]
    (study,) = document.CurrentRequestedProcedureEvidenceSequence
    (series,) = study.ReferencedSeriesSequence
    evidence = [one.ReferencedSOPInstanceUID for one in series.ReferencedSOPSequence]
    assert evidence == list(dict.fromkeys(one.sop_instance_uid for one in sources))


def test_a_slice_with_two_findings_is_named_once(tmp_path: Path) -> None:
    scan = phantom.write_series(tmp_path / "images")
    labels = np.zeros_like(scan.labels)
    labels[4, 2:5, 2:5], labels[4, 9:12, 9:12], labels[2, 3:5, 3:6] = 1, 2, 3
    prediction = Prediction(
        subject=volume.load(scan.files), answers=(LabelMap(output="bodies", array=labels),)
    )
    named = [uid for uid, _ in images(document_of(prediction, tmp_path / "results"))]
    assert named == [prediction.volume.sources[n].sop_instance_uid for n in (2, 4)]


def test_it_says_what_it_is_and_what_selected_them(tmp_path: Path) -> None:
    document = document_of(of_phantom(tmp_path / "images"), tmp_path / "results")
    assert document.SOPClassUID.name == "Key Object Selection Document Storage"
    assert document.Modality == "KO"
    assert document.SeriesNumber == 9009
    title = document.ConceptNameCodeSequence[0]
    assert (title.CodeValue, title.CodingSchemeDesignator) == ("113000", "DCM")
    assert document.ContentTemplateSequence[0].TemplateIdentifier == "2010"
    assert document.ContinuityOfContent == "SEPARATE"
    (described,) = [
        item.TextValue
        for item in document.ContentSequence
        if item.ConceptNameCodeSequence[0].CodeValue == "113012"
    ]
    assert described == (
        "Images with findings of Phantom bodies 1.2.3+abababababababab."
        " Research use only. Not for diagnosis."
    )
    assert "BodyPartExamined" not in document


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    made = selected(of_phantom(tmp_path / "images"), tmp_path / "results")
    assert [path.read_bytes() for path in made.files] == made.again()


def test_where_nothing_was_found_nothing_is_selected(tmp_path: Path) -> None:
    scan = phantom.write_series(tmp_path / "images")
    answer = LabelMap(output="bodies", array=scan.labels * 0)
    prediction = Prediction(subject=volume.load(scan.files), answers=(answer,))
    assert plan.of(prediction, phantom.a_bundle(), [PROFILE]) == ()


def _image(number: int, **attributes: Any) -> Fault:
    def fault(dataset: Dataset) -> None:
        chosen = [item for item in dataset.ContentSequence if item.ValueType == "IMAGE"]
        sets(**attributes)(chosen[number].ReferencedSOPSequence[0])

    return fault


def _without_the_last(dataset: Dataset) -> None:
    del dataset.ContentSequence[-1]


def _the_other_way_round(dataset: Dataset) -> None:
    *before, first, second, third = dataset.ContentSequence
    dataset.ContentSequence = [*before, third, second, first]


def _without_evidence(dataset: Dataset) -> None:
    study = dataset.CurrentRequestedProcedureEvidenceSequence[0]
    del study.ReferencedSeriesSequence[0].ReferencedSOPSequence[0]


def _described(text: str) -> Fault:
    def fault(dataset: Dataset) -> None:
        for item in dataset.ContentSequence:
            if item.ConceptNameCodeSequence[0].CodeValue == "113012":
                item.TextValue = text

    return fault


def _titled(dataset: Dataset) -> None:
    dataset.ConceptNameCodeSequence[0].CodeValue = "113010"


FAULTS: dict[str, tuple[Fault, str]] = {
    "another patient": (sets(PatientID="PHANTOM-2"), "identity-differs"),
    "another instance UID": (sets(SOPInstanceUID="1.2.3"), "uid-differs"),
    "another description": (sets(SeriesDescription="Bodies"), "description-differs"),
    "another title": (_titled, "title-differs"),
    "another image": (_image(1, ReferencedSOPInstanceUID="1.2.3"), "reference-differs"),
    "another class": (_image(1, ReferencedSOPClassUID="1.2.3"), "reference-differs"),
    "a frame": (_image(0, ReferencedFrameNumber=2), "reference-differs"),
    "an image too few": (_without_the_last, "reference-differs"),
    "another order": (_the_other_way_round, "reference-differs"),
    "evidence left out": (_without_evidence, "reference-differs"),
    "another version": (_described("Phantom bodies 9 Research use only."), "algorithm-differs"),
    "no notice": (_described("Phantom bodies 1.2.3+abababababababab"), "notice-missing"),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("made")
    return selected(of_phantom(folder / "images"), folder / "results")


@pytest.mark.parametrize("case", FAULTS)
def test_no_fault_passes_the_check(made: Made, tmp_path: Path, case: str) -> None:
    fault, reason = FAULTS[case]
    assert made.spoilt(tmp_path, fault).reason() == reason
