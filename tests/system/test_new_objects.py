"""dciodvfy has nothing against maps, derived images and registrations, and DCMTK reads them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import objects
import pictures
import pydicom
import pytest
from made import Made, make

from dicomnode import bundle, volume
from dicomnode.prediction import Prediction, Registration

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"


def run(program: str, *arguments: str | Path) -> str:
    """What a program says, on both channels; it must end well."""
    done = subprocess.run(
        [program, *arguments], capture_output=True, encoding="latin-1", timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def assert_valid(made: Made) -> None:
    for path in made.files:
        said = run("dciodvfy", path)
        assert "Error" not in said, said


def _radiograph(folder: Path) -> Made:
    shown = np.arange(48, dtype=np.uint16).reshape(6, 8) * 100
    about = {
        "PhotometricInterpretation": "MONOCHROME1",
        "ImagerPixelSpacing": [0.2, 0.2],
        "BodyPartExamined": "CHEST",
    }
    return objects.of_radiographs(folder, pictures.write(folder / "images", shown, **about))


CT_OF_MR = {"modality": "CT", "unit": objects.HOUNSFIELD}
CASES: dict[str, Callable[[Path], Made]] = {
    "maps": objects.maps,
    "maps of an enhanced image": lambda folder: objects.maps(
        folder, orientation="oblique", reversed=True, enhanced=True
    ),
    "a map of a slide": objects.map_of_slide,
    "an MR": lambda folder: objects.images(folder, attributes=objects.SPIN_ECHO),
    "an MR that says too little": objects.images,
    "an MR of an enhanced one": lambda folder: objects.images(
        folder, orientation="coronal", enhanced=True
    ),
    "a CT": lambda folder: objects.images(folder, given=objects.CT, orientation="oblique"),
    "a CT of an MR": lambda folder: objects.images(folder, output=CT_OF_MR),
    "a CT of an enhanced MR": lambda folder: objects.images(folder, output=CT_OF_MR, enhanced=True),
    "a PET": objects.pet_images,
    "a PET in uptake values": lambda folder: objects.pet_images(folder, values="suvbw"),
    "a radiograph": _radiograph,
    "a registration": objects.registration,
    "a registration within one space": lambda folder: objects.registration(folder, attributes={}),
    "a registration that stretches": lambda folder: objects.registration(
        folder, given=objects.matrix(scale=(1.01, 1, 0.98), shear=0.1), enhanced=True
    ),
}


@pytest.mark.server("dicom3tools")
@pytest.mark.parametrize("case", CASES)
def test_dciodvfy_has_nothing_against(tmp_path: Path, case: str) -> None:
    assert_valid(CASES[case](tmp_path))


@pytest.mark.server("dicom3tools")
@pytest.mark.parametrize(
    ("case", "keyword"),
    [
        ("maps", "ContentQualification"),
        ("an MR", "ScanningSequence"),
        ("a PET", "Units"),
        ("a registration", "RegistrationSequence"),
    ],
)
def test_dciodvfy_would_find_a_fault(tmp_path: Path, case: str, keyword: str) -> None:
    """What says nothing of a broken object is no witness."""
    made = CASES[case](tmp_path)
    dataset = pydicom.dcmread(made.files[0])
    delattr(dataset, keyword)
    dataset.save_as(made.files[0])
    with pytest.raises(AssertionError, match=keyword):
        assert_valid(made)


@pytest.mark.server("dicom3tools")
@pytest.mark.parametrize("case", ["maps", "an MR", "a registration"])
def test_dcentvfy_finds_one_patient_and_one_study(tmp_path: Path, case: str) -> None:
    made = CASES[case](tmp_path)
    sources = [source.path for shown in made.prediction.shown for source in shown.sources]
    said = run("dcentvfy", *sources, *made.files)
    assert "Error" not in said, said


@pytest.mark.server("dcmtk")
@pytest.mark.parametrize("case", CASES)
def test_dcmtk_reads_every_element(tmp_path: Path, case: str) -> None:
    for path in CASES[case](tmp_path).files[:3]:
        assert "(0008,0018)" in run("dcmdump", "--quiet", path)


@pytest.mark.data
@pytest.mark.server("dicom3tools")
@pytest.mark.filterwarnings("ignore:The value length")  # of a Study ID that came so
class TestRealSeries:
    TILTED = objects.CT.model_copy(update={"gantry_tilt": True})

    @pytest.mark.parametrize(
        ("folder", "given", "kind"),
        [
            ("brain_mr_study/36468-FLAIRreg-58706", objects.MR, "MR"),
            ("brain_mr_study/11_HCropVolume", objects.MR, "Secondary"),
            ("ct_scanner_export/S2010", TILTED, "CT"),
            ("pet_with_seg/PET", objects.PT, "Positron"),
            ("pet_with_seg/PET", objects.PT.model_copy(update={"values": "suvbw"}), "Positron"),
        ],
    )
    def test_what_is_made_of_a_real_series_is_valid(
        self, tmp_path: Path, folder: str, given: bundle.Input, kind: str
    ) -> None:
        files = _files(DATA / folder, given.modalities[0])
        subject = volume.load_input(files, contract=given)
        made = make(tmp_path / "results", *objects.derived(subject, given))
        assert made.datasets[0].SOPClassUID.name.startswith(kind)
        for path in made.files[::20]:
            said = run("dciodvfy", path)
            assert "Error" not in said, said

    def test_a_real_pair_is_registered(self, tmp_path: Path) -> None:
        folder = DATA / "brain_mr_study"
        shown = [
            volume.load_input(_files(folder / name, "MR"), contract=objects.MR)
            for name in ("36468-FLAIRreg-58706", "11-T1post-18670")
        ]
        answer = Registration(output="move", moving=0, matrix=objects.matrix())
        model = objects.registering({"now": objects.MR, "before": objects.MR})
        prediction = Prediction(subject=shown[0], also_shown=(shown[1],), answers=(answer,))
        assert_valid(make(tmp_path / "results", prediction, model))


def _files(folder: Path, modality: str) -> list[Path]:
    """The images of a modality: beside them lie other things."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and pydicom.misc.is_dicom(path):
            dataset = pydicom.dcmread(path, stop_before_pixels=True)
            if dataset.get("Modality") == modality and "PixelSpacing" in dataset:
                found.append(path)
    return found
