"""Tuning keeps what says the same, and nothing else; a trial says what a bundle answers."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import bundles
import numpy as np
import pytest

from dicomnode import bundle
from dicomnode.bundle import Bundle
from dicomnode.prediction import Box, Boxes, Classification, LabelMap, Numbers, Prediction
from dicomnode.volume import Images
from workers import synthetic, tune
from workers.inference import Settings, tuning

ROOT = Path(__file__).resolve().parents[2]
CHEST = ROOT / "models" / "chest_xray_pneumonia"
HIPPOCAMPUS = ROOT / "models" / "hippocampus_mr_segmentation"

pytestmark = bundles.QUIET


def said(*answers: object) -> Prediction:
    subject = Images(frames=(), form="image", modality="CR")
    return Prediction(subject=subject, answers=answers)  # type: ignore[arg-type]


def agrees(one: object, other: object) -> bool:
    return tune._is_same(tune.compared(said(one), said(other)))


def test_masks_must_overlap_almost_wholly() -> None:
    array = np.zeros((40, 40), dtype=np.uint8)
    array[5:35, 5:35] = 1
    array[10:20, 10:20] = 2
    one_voxel, many = array.copy(), array.copy()
    one_voxel[5, 5] = 0
    many[10:12, 10:12] = 1
    assert agrees(LabelMap(output="m", array=array), LabelMap(output="m", array=one_voxel))
    assert not agrees(LabelMap(output="m", array=array), LabelMap(output="m", array=many))


def test_what_float32_did_not_find_is_a_difference_too() -> None:
    empty, full = np.zeros((40, 40), dtype=np.uint8), np.ones((40, 40), dtype=np.uint8)
    two = full.copy()
    two[:2] = 2
    assert agrees(LabelMap(output="m", array=empty), LabelMap(output="m", array=empty))
    assert not agrees(LabelMap(output="m", array=empty), LabelMap(output="m", array=full))
    assert not agrees(LabelMap(output="m", array=full), LabelMap(output="m", array=two))


def test_probabilities_may_differ_by_a_hundredth_and_the_class_not_at_all() -> None:
    def classified(probability: float, chosen: int) -> Classification:
        values = (1 - probability, probability)
        return Classification(output="c", probabilities=values, chosen=(chosen,))

    assert agrees(classified(0.6, 1), classified(0.609, 1))
    assert not agrees(classified(0.6, 1), classified(0.611, 1))
    assert not agrees(classified(0.499, 0), classified(0.501, 1))


def test_numbers_and_boxes_may_differ_by_a_hundredth_of_their_size() -> None:
    assert agrees(Numbers(output="n", values=(100.0, 2.0)), Numbers(output="n", values=(100.9, 2)))
    assert not agrees(Numbers(output="n", values=(100.0,)), Numbers(output="n", values=(101.1,)))
    box = Box(label=1, score=0.9, low=(0.0, 0.0), high=(50.0, 50.0))
    assert not agrees(Boxes(output="b", boxes=(box,)), Boxes(output="b", boxes=()))
    for other in (replace(box, score=0.6), replace(box, label=2), replace(box, low=(0.0, 2.0))):
        assert not agrees(Boxes(output="b", boxes=(box,)), Boxes(output="b", boxes=(other,)))


def test_the_fastest_that_agrees_is_kept_however_fast_the_others_are() -> None:
    ways = [("float32", 3.0, True), ("bfloat16", 1.0, False), ("float16", 2.0, True)]
    found = [
        tune.Measured(settings=Settings(precision=p), seconds=s, agreement={}, is_same=same)  # type: ignore[arg-type]
        for p, s, same in ways
    ]
    assert tune._fastest(found).settings.precision == "float16"


def test_a_model_is_tuned_on_its_sample_and_the_record_can_be_read() -> None:
    model = bundle.load(CHEST)
    sentences: list[str] = []

    found = tune.tune(model, device="cpu", say=sentences.append)

    assert found.seconds <= found.seconds_float32
    assert found.digest == model.digest
    assert any(sentence.startswith("float32: ") for sentence in sentences)
    assert any("bfloat16" in sentence for sentence in sentences)
    document = json.loads(json.dumps(found.document()))
    assert document["machine"] == tuning.machine("cpu")
    assert set(document["agreement"]) >= {"probability"}


@pytest.mark.parametrize("folder", [CHEST, HIPPOCAMPUS])
def test_what_is_made_up_meets_the_manifest(folder: Path) -> None:
    from dicomnode import volume
    from dicomnode.volume import Volume

    model = bundle.load(folder)
    for name, shown in synthetic.inputs(model).items():
        if isinstance(shown, Volume):
            import dataclasses

            contract = model.manifest.inputs[name]
            kind = shown.sources[0]
            uid = "1.2.840.10008.5.1.4.1.1.4"
            sources = (dataclasses.replace(kind, sop_class_uid=uid),) * len(shown.sources)
            volume.meets(dataclasses.replace(shown, sources=sources), contract)


def workers(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "workers", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def test_a_trial_prints_what_a_bundle_answers(tmp_path: Path) -> None:
    done = workers("try", str(CHEST), "--device", "cpu", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["ran"]
    assert [one["kind"] for one in document["answers"]] == ["classification", "heat_map"]
    assert document["memory_bytes"] > 1_000_000

    done = workers("try", str(tmp_path), "--device", "cpu", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout) | {"detail": ""} == {
        "ran": False,
        "reason": "bundle-incomplete",
        "detail": "",
    }


def test_an_unknown_model_is_named_with_those_that_there_are(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text(f'[node]\ndata_dir = "data"\n[models.chest]\nbundle = "{CHEST}"\n')
    done = workers("tune", str(file), "heart")
    assert done.returncode == 2
    assert "there are: chest" in done.stderr


def test_a_draft_runs_in_a_trial_alone(tmp_path: Path) -> None:
    import shutil

    root: Path = tmp_path / "chest"
    shutil.copytree(CHEST, root)
    manifest = root / "dicom.toml"
    manifest.write_text('draft = ["procedure"]\n' + manifest.read_text())
    bundle.write_lock(root)
    assert isinstance(bundle.load(root, draft=True), Bundle)
    assert json.loads(workers("try", str(root), "--json").stdout)["reason"] == "manifest-draft"
    assert workers("try", str(root), "--draft", "--device", "cpu").returncode == 0
