"""The bundle that comes with the node: its files, its sample, its answer."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import bundles
import numpy as np
import pydicom
import pytest
from pydicom.sr.codedict import codes

from dicomnode import bundle, uid, volume
from dicomnode.bundle import Bundle
from dicomnode.errors import NotApplicable
from dicomnode.prediction import Prediction
from workers import inference

pytestmark = bundles.QUIET

PROJECT = Path(__file__).resolve().parents[2]
ROOT = PROJECT / "models" / "hippocampus_mr_segmentation"
DATA = PROJECT.parent / "shared" / "data"

ANTERIOR, POSTERIOR = 1, 2


@pytest.fixture(scope="module")
def hippocampus() -> Bundle:
    return bundle.load(ROOT)


@pytest.fixture(scope="module")
def model(hippocampus: Bundle) -> Any:
    return inference.load_model(hippocampus, device="cpu")


def predicted(model: Any, folder: Path) -> Prediction:
    contract = model.bundle.manifest.inputs["image"]
    shown = volume.load(sorted(folder.iterdir()), contract=contract)
    prediction: Prediction = model.predict({"image": shown})
    return prediction


def require_a_hippocampus(prediction: Prediction) -> None:
    """Both parts of a plausible size, the anterior one in front of and below the posterior one."""
    (answer,) = prediction.answers
    parts = {label: answer.array == label for label in (ANTERIOR, POSTERIOR)}
    for part in parts.values():
        assert 0.5 <= part.sum() * prediction.volume.voxel_mm3 / 1000 <= 4
    centres = {label: np.argwhere(part).mean(axis=0) for label, part in parts.items()}
    to_the_back = prediction.volume.affine[:3, :3] @ (centres[POSTERIOR] - centres[ANTERIOR])
    assert to_the_back[1] > 8  # mm, LPS
    assert to_the_back[2] > 2


def test_the_files_are_those_that_are_locked(hippocampus: Bundle) -> None:
    assert bundle.verify(ROOT) == hippocampus.digest


def test_the_sample_is_segmented_as_a_hippocampus(model: Any) -> None:
    require_a_hippocampus(predicted(model, ROOT / "sample"))


@pytest.mark.data
def test_a_real_crop_is_segmented_as_a_hippocampus(model: Any) -> None:
    require_a_hippocampus(predicted(model, DATA / "brain_mr_study" / "11_HCropVolume"))


@pytest.mark.data
def test_the_weights_know_images_that_they_were_not_trained_on(model: Any) -> None:
    nibabel = pytest.importorskip("nibabel", reason="needs the extra `train`")
    lines = (DATA / "hippocampus" / "split.csv").read_text().splitlines()
    case = next(line.split(",")[0] for line in lines if line.endswith(",val"))
    image = nibabel.load(DATA / "hippocampus" / "images" / f"{case}.nii.gz")
    label = nibabel.load(DATA / "hippocampus" / "labels" / f"{case}.nii.gz")

    said = model.predict({"image": _volume(image)}).answers[0].array

    expected = np.asarray(label.dataobj).transpose(2, 1, 0)
    for part in (ANTERIOR, POSTERIOR):
        overlap = ((said == part) & (expected == part)).sum()
        assert 2 * overlap / ((said == part).sum() + (expected == part).sum()) > 0.79


def _volume(image: Any) -> volume.Volume:
    template = volume.load(sorted((ROOT / "sample").iterdir()))
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ image.affine[:, [2, 1, 0, 3]]
    array = np.asarray(image.dataobj, dtype=np.float32).transpose(2, 1, 0)
    return volume.Volume(
        **{**vars(template), "array": array, "affine": lps, "sources": template.sources[:0]}
    )


@pytest.mark.data
@pytest.mark.parametrize("series", ["11-T1post-18670", "36468-FLAIRreg-58706"])
def test_a_whole_head_is_not_applicable(hippocampus: Bundle, series: str) -> None:
    files = sorted((DATA / "brain_mr_study" / series).iterdir())

    with pytest.raises(NotApplicable):
        volume.load(files, contract=hippocampus.manifest.inputs["image"])


def test_a_whole_head_at_one_millimetre_is_not_applicable(hippocampus: Bundle) -> None:
    contract = hippocampus.manifest.inputs["image"]

    assert not contract.extent_mm.holds(150)
    assert all(contract.extent_mm.holds(length) for length in (24, 31, 59))  # of the training data


def test_each_code_is_the_one_that_the_dictionary_has(hippocampus: Bundle) -> None:
    manifest = hippocampus.manifest
    segments = manifest.outputs["pred"].segments

    assert _is(manifest.family, codes.CID7162.ArtificialIntelligence)
    assert _is(manifest.procedure, codes.CID100.MRIUnspecifiedBodyRegion)
    assert [segment.label for segment in segments] == [ANTERIOR, POSTERIOR]
    for segment, modifier in zip(segments, (codes.SCT.Anterior, codes.SCT.Posterior), strict=True):
        assert _is(segment.category, codes.CID7150.AnatomicalStructure)
        assert _is(segment.type, codes.SCT.Hippocampus)
        assert _is(segment.type_modifier, modifier)
        assert _is(segment.anatomic_region, codes.SCT.Brain)


def _is(code: bundle.Code | None, expected: Any) -> bool:
    return code is not None and (code.value, code.scheme, code.meaning) == (
        expected.value,
        expected.scheme_designator,
        expected.meaning,
    )


def test_metadata_and_configurations_agree() -> None:
    metadata, inference_, train = (
        json.loads((ROOT / "configs" / f"{name}.json").read_text())
        for name in ("metadata", "inference", "train")
    )

    assert metadata["version"] in metadata["changelog"]
    assert inference_["network_def"] == train["network_def"]
    assert inference_["inferer"] == train["validate"]["inferer"]
    figures = metadata["eval_metrics"]
    readme = (ROOT / "docs" / "README.md").read_text()
    assert f"| anterior | {figures['dice_anterior']} |" in readme
    assert f"| posterior | {figures['dice_posterior']} |" in readme
    assert f"| both | {figures['mean_dice']} |" in readme


def test_the_sample_is_nobody_and_small() -> None:
    files = sorted((ROOT / "sample").iterdir())
    images = [pydicom.dcmread(file) for file in files]

    assert {str(image.PatientName) for image in images} == {"Sample^Average"}
    assert {image.PatientID for image in images} == {"SAMPLE"}
    assert {image.SeriesDescription for image in images} == {"HippoCrop"}
    assert len({image.SOPInstanceUID for image in images}) == len(images)
    assert all(uid.is_acceptable(image.SOPInstanceUID) for image in images)
    assert sum(file.stat().st_size for file in files) < 1_000_000


@pytest.mark.server("dicom3tools")
def test_the_sample_is_sound_dicom() -> None:
    for file in sorted((ROOT / "sample").iterdir()):
        said = subprocess.run(["dciodvfy", file], check=False, capture_output=True, text=True)
        assert (said.stdout + said.stderr).split() == ["MRImage"]
