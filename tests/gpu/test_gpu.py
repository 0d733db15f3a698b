"""On a CUDA device: `pytest -m gpu`. The same answers as on the CPU, within its memory, in time."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import bundles
import numpy as np
import pytest

from dicomnode import bundle
from dicomnode.errors import ModelFailed
from dicomnode.prediction import Classification, LabelMap
from workers import inference, synthetic, tune

ROOT = Path(__file__).resolve().parents[2]
MODELS = [
    ROOT / "models" / name for name in ("hippocampus_mr_segmentation", "chest_xray_pneumonia")
]
CUDA = "cuda:0"


def _has_cuda() -> bool:
    if importlib.util.find_spec("torch") is None:
        return False
    import torch

    return torch.cuda.is_available()


pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not _has_cuda(), reason="torch sees no CUDA device"),
    *bundles.QUIET,
]


@pytest.mark.parametrize("folder", MODELS, ids=lambda path: path.name)
def test_the_answer_is_that_of_the_cpu(folder: Path) -> None:
    model = bundle.load(folder)
    inputs = tune.sample(model)

    expected = inference.load_model(model, device="cpu").predict(inputs)
    found = inference.load_model(model, device=CUDA).predict(inputs)

    agreement = tune.compared(expected, found)
    assert agreement.get("dice", 1.0) >= 0.999
    assert agreement.get("probability", 0.0) <= 1e-3
    assert [type(one) for one in found.answers] == [type(one) for one in expected.answers]


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_lower_precision_says_nearly_the_same(precision: str) -> None:
    model = bundle.load(MODELS[0])
    loaded = inference.load_model(model, device=CUDA)
    inputs = tune.sample(model)
    plain = loaded.predict(inputs)
    settings = inference.Settings(precision=precision, channels_last=True)  # type: ignore[arg-type]
    fast = loaded.using(settings).predict(inputs)
    assert tune.compared(plain, fast)["dice"] >= 0.98


def test_models_leave_when_the_device_is_full_and_their_memory_is_given_back() -> None:
    import torch

    models = inference.Models(CUDA, budget_bytes=8_000_000)
    held = []
    for folder in (*MODELS, *MODELS):
        models.get(bundle.load(folder))
        held.append(torch.cuda.memory_allocated(CUDA))
    assert len(models.digests) == 1
    assert max(held) < 64_000_000


def test_how_full_the_device_is_can_be_told() -> None:
    models = inference.Models(CUDA)
    models.get(bundle.load(MODELS[0]))
    used, total = models.gpu_memory() or (0, 0)
    assert 0 < used < total


def test_a_device_that_is_too_small_ends_the_job_with_what_was_tried() -> None:
    import torch

    model = bundle.load(MODELS[0])
    models = inference.Models(CUDA)
    models.get(model)
    torch.cuda.set_per_process_memory_fraction(1e-4, CUDA)
    try:
        with pytest.raises(ModelFailed) as caught:
            models.predict(model, synthetic.inputs(model))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, CUDA)
    assert caught.value.reason == "out-of-memory"
    assert models.predict(model, synthetic.inputs(model)).answers


def test_a_device_that_is_too_small_may_leave_the_network_to_the_cpu() -> None:
    import torch

    model = bundle.load(MODELS[1])
    models = inference.Models(CUDA, cpu_when_full=True)
    expected = models.predict(model, synthetic.inputs(model))
    torch.cuda.set_per_process_memory_fraction(1e-4, CUDA)
    try:
        found = models.predict(model, synthetic.inputs(model))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, CUDA)
    one, other = expected.answers[0], found.answers[0]
    assert isinstance(one, Classification)
    assert isinstance(other, Classification)
    np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-2)


def test_what_is_measured_is_a_table_with_every_stage(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "tests" / "bench" / "inference.py"), "--quick", "--json"]
    done = subprocess.run(
        [*command, "--device", CUDA], capture_output=True, text=True, check=True, cwd=ROOT
    )
    found = json.loads(done.stdout)
    assert found["device"] == CUDA
    assert {"load", "infer", "build", "check"} <= found["stages_s"].keys()


def test_a_label_map_stays_one_on_the_device() -> None:
    model = bundle.load(MODELS[0])
    (answer,) = inference.load_model(model, device=CUDA).predict(synthetic.inputs(model)).answers
    assert isinstance(answer, LabelMap)
    assert answer.array.dtype == np.uint8
