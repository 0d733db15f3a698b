"""Programs that others wrote read what viewers show: captures, presentation states, key images."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import phantom
import pictures
import pydicom
import pytest
from numpy.typing import NDArray
from PIL import Image

from dicomnode import bundle, results, volume
from dicomnode.bundle import Bundle
from dicomnode.prediction import Box, Boxes, LabelMap, Prediction
from dicomnode.profile import Profile
from dicomnode.results import regions
from dicomnode.volume.display import displayed

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"

CREATED = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
SHOWN = Profile(
    segmentation="none", maps=False, images=False, registrations=False, regions=False,
    report=False, capture=True, presentation=True, key_images=True,
)  # fmt: skip
CODE = {"value": "39607008", "scheme": "SCT", "meaning": "Lung"}

Made = tuple[Prediction, Bundle]


def run(*command: str | Path) -> str:
    """What a program says, on both channels; it must end well."""
    done = subprocess.run(
        command, capture_output=True, encoding="latin-1", timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def objects(made: Made, folder: Path) -> dict[str, Path]:
    prediction, model = made
    built = results.build(prediction, bundle=model, key="key", created=CREATED, profiles=[SHOWN])
    paths = results.write(built, folder)
    results.check(paths, prediction=prediction, bundle=model, key="key", profiles=[SHOWN])
    return {path.stem: path for path in paths}


def a_phantom(folder: Path, **scan: Any) -> Made:
    # dcmpschk knows no zone of +0000 in a date with a time.
    scan["attributes"] = {"TimezoneOffsetFromUTC": "-0500"} | scan.get("attributes", {})
    written = phantom.write_series(folder, **scan)
    answer = LabelMap(output="bodies", array=written.labels)
    return Prediction(subject=volume.load(written.files), answers=(answer,)), phantom.a_bundle()


def a_picture(folder: Path, pixels: NDArray[Any] | None = None, **about: Any) -> Made:
    """One image with a box on it."""
    shown = np.arange(60 * 80, dtype=np.uint16).reshape(60, 80) if pixels is None else pixels
    whose = {
        "StudyDate": "20240229", "StudyTime": "101112", "StudyID": "S1", "SeriesNumber": 4,
        "PatientBirthDate": "19700131", "PatientSex": "O", "AccessionNumber": "A",
        "ReferringPhysicianName": "Ref^Errer", "TimezoneOffsetFromUTC": "-0500",
        "BurnedInAnnotation": "NO", "BodyPartExamined": "HAND", "Laterality": "L",
    }  # fmt: skip
    path = pictures.write(folder, shown, **(whose | about))
    contract = bundle.Input.model_validate(
        {
            "form": "image", "modality": "CR", "channels": 3 if shown.ndim == 3 else 1,
            "sop_classes": ["ComputedRadiographyImageStorage"],
        }
    )  # fmt: skip
    nodule = {"label": 1, "name": "Nodule", "category": CODE, "type": CODE, "color": "#ff8800"}
    output = bundle.BoxesOutput.model_validate(
        {"kind": "boxes", "scores": "s", "coordinates": "index", "findings": [nodule]}
    )
    model = phantom.a_bundle(inputs={"image": contract}, outputs={"nodules": output})
    box = Box(label=1, score=0.875, low=(2.0, 3.0), high=(19.5, 31.0))
    answer = Boxes(output="nodules", frame=0, boxes=(box,))
    return (
        Prediction(subject=volume.load_input([path], contract=contract), answers=(answer,)),
        model,
    )


def _rescaled(index: int, dataset: pydicom.Dataset) -> None:
    dataset.RescaleSlope, dataset.RescaleIntercept = 1 + index, 0
    dataset.WindowCenter, dataset.WindowWidth = 600, 1200


CASES: dict[str, Callable[[Path], Made]] = {
    "axial": a_phantom,
    "sagittal, enhanced": lambda folder: a_phantom(folder, orientation="sagittal", enhanced=True),
    "oblique, with a window": lambda folder: a_phantom(
        folder, orientation="oblique", attributes={"WindowCenter": 600, "WindowWidth": 1200}
    ),
    "CT": lambda folder: a_phantom(folder, modality="CT"),
    "a rescale for each slice": lambda folder: a_phantom(folder, edit=_rescaled),
    "radiograph": a_picture,
    "MONOCHROME1": lambda folder: a_picture(folder, PhotometricInterpretation="MONOCHROME1"),
    "colour": lambda folder: a_picture(folder, np.full((60, 80, 3), 90, dtype=np.uint8)),
}


@pytest.mark.server("dicom3tools")
@pytest.mark.parametrize("case", CASES)
def test_dciodvfy_has_nothing_against_them(tmp_path: Path, case: str) -> None:
    for path in objects(CASES[case](tmp_path / "images"), tmp_path / "results").values():
        said = run("dciodvfy", path)
        assert "Error" not in said, said


@pytest.mark.server("dicom3tools")
def test_dcentvfy_finds_one_patient_and_one_study(tmp_path: Path) -> None:
    made = a_phantom(tmp_path / "images")
    sources = [source.path for source in made[0].subject.sources]
    said = run("dcentvfy", *sources, *objects(made, tmp_path / "results").values())
    assert "Error" not in said, said


@pytest.mark.server("dcmtk")
@pytest.mark.parametrize("case", CASES)
def test_dcmtk_passes_the_presentation_state(tmp_path: Path, case: str) -> None:
    made = objects(CASES[case](tmp_path / "images"), tmp_path / "results")
    said = run("dcmpschk", made["presentation"])
    assert "Test passed" in said, said


@pytest.mark.server("dcmtk")
def test_dcmpschk_would_find_a_fault(tmp_path: Path) -> None:
    """What says nothing of a broken object is no witness."""
    path = objects(a_phantom(tmp_path / "images"), tmp_path / "results")["presentation"]
    dataset = pydicom.dcmread(path)
    del dataset.DisplayedAreaSelectionSequence
    dataset.save_as(path)
    assert "Test passed" not in run("dcmpschk", path)


@pytest.mark.server("dcmtk")
@pytest.mark.parametrize(
    "about",
    [
        {"WindowCenter": 2000, "WindowWidth": 1500},
        {"WindowCenter": 2000, "WindowWidth": 1500, "PhotometricInterpretation": "MONOCHROME1"},
        {"WindowCenter": 900, "WindowWidth": 600, "RescaleSlope": 0.5, "RescaleIntercept": -100},
        {"PhotometricInterpretation": "MONOCHROME1"},
    ],
)
def test_dcmtk_shows_the_image_through_it_as_the_image_says(
    tmp_path: Path, about: dict[str, Any]
) -> None:
    """Its own way from stored values to gray: window, rescale and polarity."""
    made = a_picture(tmp_path / "images", **about)
    state = objects(made, tmp_path / "results")["presentation"]
    (source,) = made[0].subject.sources
    shown = tmp_path / "shown.pgm"
    run("dcmp2pgm", "-p", state, source.path, shown)
    pixels = np.asarray(Image.open(shown)).astype(int)
    header = pydicom.dcmread(source.path)
    values = header.pixel_array * float(header.get("RescaleSlope", 1)) + float(
        header.get("RescaleIntercept", 0)
    )
    meant = displayed(values, header)
    assert pixels.shape == meant.shape
    tolerance = 2 if "WindowCenter" in about else 5  # without one: nearly from end to end
    assert np.abs(pixels - meant).max() <= tolerance


@pytest.mark.server("dcmtk")
@pytest.mark.parametrize("enhanced", [False, True])
def test_dsrdump_reads_which_images_are_of_interest(tmp_path: Path, enhanced: bool) -> None:
    made = a_phantom(tmp_path / "images", enhanced=enhanced)
    said = run("dsrdump", "+Pu", objects(made, tmp_path / "results")["key-images"])
    assert '"Of Interest"' in said
    assert "dicomnode" in said
    frames = sorted({one.frame for one in regions.of(*made)})
    named = re.findall(r"contains IMAGE:.*=\((.*)\)", said)
    assert len(named) == len(frames)
    for text, source in zip(named, (made[0].subject.sources[n] for n in frames), strict=True):
        assert source.sop_instance_uid in text
        assert text.endswith(f",{source.frame_number}" if enhanced else '"')


@pytest.mark.data
@pytest.mark.server("dicom3tools", "dcmtk")
@pytest.mark.parametrize(
    "folder",
    [
        "brain_mr_study/11_HCropVolume",
        "brain_mr_study/36468-FLAIRreg-58706",
        "ct_scanner_export/S2010",
        "pet_with_seg/PET",
    ],
)
def test_those_of_real_series_are_valid(tmp_path: Path, folder: str) -> None:
    files = [path for path in sorted((DATA / folder).iterdir()) if path.name != "DIRFILE"]
    shown = volume.load(files)
    labels = np.zeros(shown.array.shape, dtype=np.uint8)
    slices, rows, columns = (slice(size // 4, size // 2) for size in labels.shape)
    labels[slices, rows, columns] = 1
    labels[slices.stop :, : rows.start, columns] = 3
    model = phantom.a_bundle()
    prediction = Prediction(subject=shown, answers=(LabelMap(output="bodies", array=labels),))
    made = objects((prediction, model), tmp_path / "results")
    for path in made.values():
        said = run("dciodvfy", path)
        assert "Error" not in said, said
    run("dsrdump", made["key-images"])
    run("dcmpschk", made["presentation"])
