"""A bundle is run as MONAI runs it, and what it says is judged before it is believed."""

from __future__ import annotations

import dataclasses
import json
import os
import py_compile
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bundles
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset

from dicomnode import bundle
from dicomnode.bundle import Bundle
from dicomnode.errors import Misconfigured, ModelFailed, RetryLater
from dicomnode.prediction import LabelMap
from dicomnode.volume import Volume
from workers import device, inference

pytestmark = bundles.QUIET

#: Two channels, so that argmax says 1 where the image is brighter than `LEVEL`.
NET = """
import torch

LEVEL = {level}

class Net(torch.nn.Module):
    def forward(self, image):
        return {forward}
"""
MANIFEST = bundles.of_one_image("Blobs") + bundles.LABEL_MAP
BRIGHTER = "torch.cat([LEVEL - image, image - LEVEL], dim=1)"

UNET: dict[str, Any] = {
    "_target_": "UNet",
    "spatial_dims": 3,
    "in_channels": 1,
    "out_channels": 3,
    "channels": [4, 8],
    "strides": [2],
    "norm": "instance",
}

AXIAL = ((1, 0, 0), (0, 1, 0))
SAGITTAL = ((0, 1, 0), (0, 0, -1))
CORONAL = ((1, 0, 0), (0, 0, -1))
FROM_BELOW = ((-1, 0, 0), (0, 1, 0))
OBLIQUE = ((0.8, 0.6, 0), (-0.36, 0.48, 0.8))


def configuration() -> dict[str, Any]:
    """An `inference.json` in the manner of the Model Zoo, that looks for files and saves them."""
    save = {
        "_target_": "SaveImaged",
        "keys": "pred",
        "output_dir": "@output_dir",
        "output_postfix": "seg",
        "output_dtype": "$numpy.uint8",
        "resample": False,
        "separate_folder": False,
    }
    return bundles.evaluated(
        before=[*bundles.LOAD, bundles.TO_RAS], after=[bundles.ARGMAX, save]
    ) | {
        "imports": ["$import glob"],
        "dataset_dir": "images",
        "output_dir": "$@bundle_root + '/eval'",
        "datalist": "$sorted(glob.glob(@dataset_dir + '/*.nii.gz'))",
        "dataset": {
            "_target_": "Dataset",
            "data": "$[{'image': image} for image in @datalist]",
            "transform": "@preprocessing",
        },
    }


def write_bundle(
    root: Path,
    *,
    config: dict[str, Any] | None = None,
    labels: tuple[int, ...] = (1,),
    forward: str = BRIGHTER,
    level: float = 0.0,
    weights: dict[str, Any] | None = None,
) -> Bundle:
    segments = "".join(bundles.segment(label, f"Blob {label}") for label in labels)
    return bundles.write(
        root,
        manifest=MANIFEST + segments,
        configuration=config or configuration(),
        script=NET.format(level=level, forward=forward),
        weights=weights,
        version="0.0.1",
    )


def unet_weights(seed: int) -> dict[str, Any]:
    import torch
    from monai.networks.nets.unet import UNet

    torch.manual_seed(seed)
    arguments = {key: value for key, value in UNET.items() if key != "_target_"}
    return dict(UNet(**arguments).state_dict())


def volume(
    *,
    axes: tuple[tuple[float, ...], tuple[float, ...]] = AXIAL,
    spacing: tuple[float, float, float] = (2.0, 0.75, 1.25),
    shape: tuple[int, int, int] = (12, 18, 15),
    seed: int = 3,
) -> Volume:
    """Smooth noise, unlike under every flip, at a place that is not the origin."""
    from scipy import ndimage  # type: ignore[import-untyped]  # SciPy ships no types

    along_row, along_column = (np.array(axis, dtype=float) for axis in axes)
    affine = np.eye(4)
    affine[:3, 0] = np.cross(along_row, along_column) * spacing[0]
    affine[:3, 1] = along_column * spacing[1]
    affine[:3, 2] = along_row * spacing[2]
    affine[:3, 3] = (-11.5, 23.25, 8.0)
    noise = np.random.default_rng(seed).standard_normal(shape)
    return Volume(
        array=ndimage.gaussian_filter(noise, 1.5).astype(np.float32),
        affine=affine.astype(np.float32).astype(np.float64),  # as NIfTI can say it
        sources=(),
        modality="MR",
        frame_of_reference_uid="1.2.3",
        orientation=(*along_row, *along_column),
        pixel_spacing=(spacing[1], spacing[2]),
        slice_thickness=spacing[0],
        header=Dataset(),
    )


def write_nifti(path: Path, shown: Volume) -> None:
    nibabel: Any = pytest.importorskip("nibabel")
    path.parent.mkdir()
    ras = np.diag([-1, -1, 1, 1]) @ shown.affine[:, [2, 1, 0, 3]]
    nibabel.save(nibabel.Nifti1Image(shown.array.transpose(2, 1, 0), ras), path)


def read_nifti(path: Path) -> NDArray[Any]:
    """Shape (slices, rows, columns)."""
    nibabel: Any = pytest.importorskip("nibabel")
    return np.asarray(nibabel.load(path).dataobj).squeeze().transpose(2, 1, 0)


def said_by(model: Bundle, shown: Volume) -> NDArray[Any]:
    prediction = inference.load_model(model, device="cpu").predict({"image": shown})
    assert prediction.volume is shown
    (answer,) = prediction.answers
    assert answer.output == "pred"
    return answer.array


def dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


def failure(act: Callable[[], object]) -> ModelFailed:
    with pytest.raises(ModelFailed) as caught:
        act()
    return caught.value


def refusal(act: Callable[[], object]) -> Misconfigured:
    with pytest.raises(Misconfigured) as caught:
        act()
    return caught.value


def test_the_answer_is_the_one_that_monai_gives_for_the_same_volume_as_nifti(
    tmp_path: Path,
) -> None:
    config = configuration()
    config["device"] = "$torch.device('cpu')"
    config["network_def"] = UNET
    config["preprocessing"]["transforms"] += [
        {"_target_": "Spacingd", "keys": "image", "pixdim": [1.1, 1.1, 1.4], "mode": "bilinear"},
        {"_target_": "NormalizeIntensityd", "keys": "image"},
    ]
    config["inferer"] = {
        "_target_": "SlidingWindowInferer",
        "roi_size": [16, 16, 16],
        "overlap": 0.5,
        "mode": "gaussian",
    }
    softmax = {"_target_": "Activationsd", "keys": "pred", "softmax": True}
    config["postprocessing"]["transforms"][:0] = [softmax, bundles.INVERT]
    root = tmp_path / "blobs"
    model = write_bundle(root, config=config, labels=(1, 2), weights=unet_weights(seed=1))
    shown = volume(axes=OBLIQUE)
    write_nifti(tmp_path / "images" / "a.nii.gz", shown)

    command = [sys.executable, "-W", "ignore", "-m", "monai.bundle", "run"]
    command += ["--config_file", "configs/inference.json", "--bundle_root", "."]
    command += ["--dataset_dir", str(tmp_path / "images"), "--output_dir", str(tmp_path / "out")]
    subprocess.run(command, cwd=root, check=True, capture_output=True)

    expected = read_nifti(tmp_path / "out" / "a_seg.nii.gz")
    assert set(np.unique(expected)) == {0, 1, 2}
    np.testing.assert_array_equal(said_by(model, shown), expected)


@pytest.mark.parametrize("axes", [AXIAL, SAGITTAL, CORONAL, FROM_BELOW, OBLIQUE])
def test_an_answer_on_turned_axes_comes_back_to_the_voxels_it_belongs_to(
    tmp_path: Path, axes: tuple[tuple[float, ...], tuple[float, ...]]
) -> None:
    shown = volume(axes=axes)

    said = said_by(write_bundle(tmp_path / "blobs"), shown)

    assert said.dtype == np.uint8
    np.testing.assert_array_equal(said, shown.array > 0)


@pytest.mark.parametrize("inverted", [True, False])
def test_an_answer_at_another_spacing_comes_back_to_the_source_grid(
    tmp_path: Path, *, inverted: bool
) -> None:
    config = configuration()
    config["preprocessing"]["transforms"].append(
        {"_target_": "Spacingd", "keys": "image", "pixdim": [1.0, 1.0, 1.0], "mode": "bilinear"}
    )
    if inverted:
        config["postprocessing"]["transforms"].insert(0, bundles.INVERT)
    shown = volume(axes=OBLIQUE)

    said = said_by(write_bundle(tmp_path / "blobs", config=config), shown)

    expected = shown.array > 0
    assert said.shape == expected.shape
    assert dice(said == 1, expected) > 0.9
    assert max(dice(said == 1, np.flip(expected, axis)) for axis in (0, 1, 2)) < 0.75


def test_where_the_bundle_did_not_look_there_is_background(tmp_path: Path) -> None:
    config = configuration()
    config["preprocessing"]["transforms"].append(
        {"_target_": "SpatialCropd", "keys": "image", "roi_start": [2, 3, 4], "roi_end": [9, 9, 9]}
    )
    shown = volume()

    said = said_by(write_bundle(tmp_path / "blobs", config=config, level=-100), shown)

    # RAS: the columns and the rows of an axial image run the other way
    expected = np.zeros(shown.array.shape)
    expected[4:9, 18 - 9 : 18 - 3, 15 - 9 : 15 - 2] = 1
    np.testing.assert_array_equal(said, expected)


def test_the_volume_stays_as_it_is_whatever_the_bundle_does_to_it(tmp_path: Path) -> None:
    config = configuration()
    config["preprocessing"]["transforms"].insert(
        1, {"_target_": "Lambdad", "keys": "image", "func": "$lambda image: image.fill_(7)"}
    )
    shown = volume()
    # laid out so that MONAI's own conversion would not copy
    shown = dataclasses.replace(shown, array=np.asfortranarray(shown.array))
    before = shown.array.copy()

    said = said_by(write_bundle(tmp_path / "blobs", config=config), shown)

    assert said.all()
    np.testing.assert_array_equal(shown.array, before)


def test_nothing_is_written_to_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = write_bundle(tmp_path / "blobs")
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))

    said_by(model, volume())

    assert sorted(tmp_path.rglob("*")) == before


def test_a_saver_that_an_expression_makes_is_refused(tmp_path: Path) -> None:
    config = configuration()
    config["postprocessing"]["transforms"][1] = "$monai.transforms.SaveImaged('pred')"
    model = write_bundle(tmp_path / "blobs", config=config)

    assert refusal(lambda: said_by(model, volume())).reason == "bundle-unsupported"


@pytest.mark.parametrize(
    ("forward", "reason"),
    [
        ("image * float('nan')", "not-finite"),
        ("image / 0", "not-finite"),
        ("[image, {'deep': image * float('nan')}]", "not-finite"),
    ],
)
def test_a_network_that_gives_no_numbers_is_not_believed(
    tmp_path: Path, forward: str, reason: str
) -> None:
    model = write_bundle(tmp_path / "blobs", forward=forward)

    assert failure(lambda: said_by(model, volume())).reason == reason


def _without_argmax(config: dict[str, Any]) -> None:
    del config["postprocessing"]["transforms"][0]


def _flat(config: dict[str, Any]) -> None:
    config["postprocessing"]["transforms"].append(
        {"_target_": "Lambdad", "keys": "pred", "func": "$lambda pred: pred[..., 0]"}
    )


def _bare(config: dict[str, Any]) -> None:
    config["postprocessing"]["transforms"].append(
        {"_target_": "ToTensord", "keys": "pred", "track_meta": False}
    )


def _absent(config: dict[str, Any]) -> None:
    del config["evaluator"]  # which keeps what postprocessing deletes
    config["postprocessing"]["transforms"].append({"_target_": "DeleteItemsd", "keys": "pred"})


def _halved(config: dict[str, Any]) -> None:
    config["postprocessing"]["transforms"].append(
        {"_target_": "Lambdad", "keys": "pred", "func": "$lambda pred: pred / 2"}
    )


@pytest.mark.parametrize(
    ("change", "reason", "told"),
    [
        (_without_argmax, "wrong-shape", "(2, 15, 18, 12)"),
        (_flat, "wrong-shape", "(1, 15, 18)"),
        (_bare, "no-geometry", "affine"),
        (_absent, "no-answer", "'pred'"),
        (_halved, "unknown-label", "0.5"),
    ],
)
def test_an_answer_that_is_no_label_map_is_not_believed(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], reason: str, told: str
) -> None:
    config = configuration()
    change(config)
    model = write_bundle(tmp_path / "blobs", config=config)

    error = failure(lambda: said_by(model, volume()))

    assert error.reason == reason
    assert told in error.detail


def test_a_label_that_the_manifest_does_not_know_is_not_believed(tmp_path: Path) -> None:
    model = write_bundle(tmp_path / "blobs", labels=(2, 3))

    error = failure(lambda: said_by(model, volume()))

    assert error.reason == "unknown-label"
    assert "the value 1" in error.detail


def test_what_the_bundle_raises_is_told_with_its_kind_and_its_words(tmp_path: Path) -> None:
    config = configuration()
    config["postprocessing"]["transforms"].append(
        {"_target_": "Lambdad", "keys": "pred", "func": "$lambda pred: [][7]"}
    )
    model = write_bundle(tmp_path / "blobs", config=config)

    error = failure(lambda: said_by(model, volume()))

    assert error.reason == "bundle-error"
    assert error.detail == "Blobs: IndexError: list index out of range"


def test_a_bundle_that_cannot_be_evaluated_says_why(tmp_path: Path) -> None:
    config = configuration()
    config["network_def"] = {"_target_": "scripts.network.Net"}
    model = write_bundle(tmp_path / "blobs", config=config)

    error = failure(lambda: said_by(model, volume()))

    assert error.reason == "bundle-error"
    assert "scripts.network" in error.detail


def test_a_full_device_is_worth_another_try(tmp_path: Path) -> None:
    model = write_bundle(
        tmp_path / "blobs", forward="(_ for _ in ()).throw(torch.OutOfMemoryError('full'))"
    )

    with pytest.raises(RetryLater) as caught:
        said_by(model, volume())

    assert caught.value.reason == "out-of-memory"


def test_other_inputs_than_the_manifest_names_are_refused(tmp_path: Path) -> None:
    model = inference.load_model(write_bundle(tmp_path / "blobs"), device="cpu")

    error = failure(lambda: model.predict({"flair": volume()}))

    assert error.reason == "wrong-inputs"
    assert "image" in error.detail


def test_changed_weights_do_not_run(tmp_path: Path) -> None:
    model = write_bundle(tmp_path / "blobs")
    (tmp_path / "blobs" / "models" / "model.pt").write_bytes(b"other")

    error = refusal(lambda: inference.load_model(model, device="cpu"))

    assert error.reason == "bundle-changed"
    assert "models/model.pt" in error.detail


def test_weights_that_were_locked_anew_do_not_run_under_the_old_name(tmp_path: Path) -> None:
    model = write_bundle(tmp_path / "blobs")
    (tmp_path / "blobs" / "scripts" / "net.py").write_text(NET.format(level=1, forward=BRIGHTER))
    bundle.write_lock(tmp_path / "blobs")

    assert refusal(lambda: inference.load_model(model, device="cpu")).reason == "bundle-changed"


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    config = configuration()
    config["network_def"] = {**UNET, "channels": [8, 16]}
    model = write_bundle(tmp_path / "blobs", config=config, weights=unet_weights(seed=1))

    assert refusal(lambda: said_by(model, volume())).reason == "weights-unfit"


def test_absent_weights_are_named(tmp_path: Path) -> None:
    write_bundle(tmp_path / "blobs")
    (tmp_path / "blobs" / "models" / "model.pt").unlink()
    bundle.write_lock(tmp_path / "blobs")

    error = refusal(lambda: said_by(bundle.load(tmp_path / "blobs"), volume()))

    assert error.reason == "weights-missing"
    assert "models/model.pt" in error.detail


def test_weights_outside_of_the_bundle_are_refused(tmp_path: Path) -> None:
    config = configuration()
    config["checkpointloader"]["load_path"] = str(tmp_path / "other.pt")
    model = write_bundle(tmp_path / "blobs", config=config)
    (tmp_path / "blobs" / "models" / "model.pt").rename(tmp_path / "other.pt")
    bundle.write_lock(tmp_path / "blobs")
    model = bundle.load(tmp_path / "blobs")

    assert refusal(lambda: said_by(model, volume())).reason == "bundle-unsupported"


def test_weights_are_found_where_ignite_nests_them(tmp_path: Path) -> None:
    config = configuration()
    config["network_def"] = UNET
    weights = unet_weights(seed=2)
    plain = write_bundle(tmp_path / "a", config=config, labels=(1, 2), weights=weights)
    nested = write_bundle(tmp_path / "b", config=config, labels=(1, 2), weights={"model": weights})
    shown = volume(shape=(16, 16, 16))

    np.testing.assert_array_equal(said_by(plain, shown), said_by(nested, shown))


def test_torchscript_runs_where_there_are_no_other_weights(tmp_path: Path) -> None:
    import torch

    class Net(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return torch.cat([-image, image], dim=1)

    config = configuration()
    del config["checkpointloader"], config["initialize"]
    write_bundle(tmp_path / "blobs", config=config)
    (tmp_path / "blobs" / "models" / "model.pt").unlink()
    script: Any = torch.jit.script(Net())
    script.save(tmp_path / "blobs" / "models" / "model.ts")
    bundle.write_lock(tmp_path / "blobs")
    shown = volume()

    said = said_by(bundle.load(tmp_path / "blobs"), shown)

    np.testing.assert_array_equal(said, shown.array > 0)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("_target_", "SupervisedTrainer"),
        ("mode", "train"),
    ],
)
def test_what_the_node_would_have_to_leave_out_is_refused(
    tmp_path: Path, key: str, value: str
) -> None:
    config = configuration()
    config["evaluator"][key] = value
    model = write_bundle(tmp_path / "blobs", config=config)

    assert refusal(lambda: said_by(model, volume())).reason == "bundle-unsupported"


def test_two_bundles_keep_their_scripts_apart(tmp_path: Path) -> None:
    late = "__import__('scripts.late', fromlist=['cut']).cut(image)"
    bundles = []
    for name, level in (("low", -0.1), ("high", 0.1)):
        root = tmp_path / name
        write_bundle(root, forward=late)
        (root / "scripts" / "late.py").write_text(
            "import torch\n"
            f"def cut(image): return torch.cat([{level} - image, image - {level}], 1)\n"
        )
        bundle.write_lock(root)
        bundles.append((level, inference.load_model(bundle.load(root), device="cpu")))
    shown = volume()

    for level, model in [*bundles, *bundles]:
        (answer,) = model.predict({"image": shown}).answers
        np.testing.assert_array_equal(answer.array, shown.array > level)


def test_scripts_of_the_surroundings_are_neither_used_nor_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "net.py").write_text(NET.format(level=9, forward=BRIGHTER))
    monkeypatch.syspath_prepend(tmp_path)
    import scripts.net as ours  # type: ignore[import-not-found]  # written just above

    shown = volume()
    said = said_by(write_bundle(tmp_path / "blobs"), shown)

    np.testing.assert_array_equal(said, shown.array > 0)
    assert sys.modules["scripts.net"] is ours
    for name in ("scripts", "scripts.net"):
        monkeypatch.delitem(sys.modules, name)


def test_compiled_files_beside_the_locked_source_are_not_believed(tmp_path: Path) -> None:
    model = write_bundle(tmp_path / "blobs")
    planted = tmp_path / "planted.py"
    planted.write_text(NET.format(level=9, forward=BRIGHTER))
    cached = (
        tmp_path / "blobs" / "scripts" / "__pycache__" / f"net.{sys.implementation.cache_tag}.pyc"
    )
    py_compile.compile(
        str(planted),
        cfile=str(cached),
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )
    shown = volume()

    np.testing.assert_array_equal(said_by(model, shown), shown.array > 0)


def unets(tmp_path: Path, names: str) -> list[Bundle]:
    """Bundles of one size, each with weights of its own."""
    config = configuration() | {"network_def": UNET}
    return [
        write_bundle(tmp_path / name, config=config, labels=(1, 2), weights=unet_weights(ord(name)))
        for name in names
    ]


def room_for(count: float, one: Bundle) -> int:
    """Bytes of so many models."""
    held = inference.load_model(one, device="cpu").parameter_bytes
    weights = (one.root / "models" / "model.pt").stat().st_size
    assert held > 1000
    return int((count - 1) * held + weights)


def test_models_stay_warm_until_there_is_no_room(tmp_path: Path) -> None:
    first, second = unets(tmp_path, "ab")
    models = inference.Models("cpu", budget_bytes=room_for(1.5, first))

    warm = models.get(first)
    assert models.get(first) is warm

    assert models.get(second).bundle == second
    assert models.digests == [second.digest]
    assert models.get(first) is not warm


def test_the_least_recently_used_model_leaves_first(tmp_path: Path) -> None:
    a, b, c = unets(tmp_path, "abc")
    models = inference.Models("cpu", budget_bytes=room_for(2.5, a))
    warm = {one.digest: models.get(one) for one in (a, b)}
    models.get(a)

    models.get(c)

    assert models.digests == [a.digest, c.digest]
    assert models.get(a) is warm[a.digest]
    assert models.get(b) is not warm[b.digest]


SLIDING = {"_target_": "SlidingWindowInferer", "roi_size": [8, 8, 8], "sw_batch_size": 8}
#: A device that holds so many windows and no more.
NARROW = (
    "image if len(image) <= {most}"
    ' else (_ for _ in ()).throw(torch.OutOfMemoryError("no room for " + str(len(image))))'
)


def windowed(root: Path, most: int) -> Bundle:
    config = configuration()
    config["inferer"] = dict(SLIDING)
    whole = "(lambda image: torch.cat([-image, image], dim=1))(" + NARROW.format(most=most) + ")"
    return write_bundle(root, config=config, forward=whole)


def test_a_full_device_is_shown_fewer_windows_at_once(tmp_path: Path) -> None:
    shown = volume()
    narrow, wide = windowed(tmp_path / "narrow", 2), windowed(tmp_path / "wide", 8)
    models = inference.Models("cpu")

    (said,) = models.predict(narrow, {"image": shown}).answers
    (expected,) = models.predict(wide, {"image": shown}).answers

    assert isinstance(said, LabelMap)
    assert isinstance(expected, LabelMap)
    np.testing.assert_array_equal(said.array, expected.array)
    assert models.get(narrow).window_batch == 8  # for the next study all is tried anew


def test_a_device_that_is_too_small_for_one_window_ends_the_job_with_what_was_tried(
    tmp_path: Path,
) -> None:
    model = windowed(tmp_path / "narrow", 0)
    error = failure(lambda: inference.Models("cpu").predict(model, {"image": volume()}))
    assert error.reason == "out-of-memory"
    for tried in ("8 windows", "4 windows", "2 windows", "1 windows"):
        assert tried in error.detail


def test_what_does_not_fit_beside_others_is_tried_alone(tmp_path: Path) -> None:
    first, second = unets(tmp_path, "ab")
    models = inference.Models("cpu")
    models.get(first)
    narrow = windowed(tmp_path / "narrow", 4)

    models.predict(narrow, {"image": volume()})

    assert models.digests == [narrow.digest]
    models.get(second)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_model_may_compute_in_another_precision_and_says_so(
    tmp_path: Path, precision: Any
) -> None:
    (model,) = unets(tmp_path, "a")
    loaded = inference.load_model(model, device="cpu")
    settings = inference.Settings(precision=precision, channels_last=True)

    plain = loaded.predict({"image": volume()})
    fast = loaded.using(settings).predict({"image": volume()})
    again = loaded.predict({"image": volume()})

    assert (plain.computed, fast.computed) == ("float32", f"{precision}, channels last")
    for one in (fast, again):
        assert isinstance(one.answers[0], LabelMap)
        assert isinstance(plain.answers[0], LabelMap)
        agreeing = (one.answers[0].array == plain.answers[0].array).mean()
        assert agreeing > (0.97 if one is fast else 0.99999)


def test_what_was_tuned_elsewhere_is_not_used(tmp_path: Path) -> None:
    from workers.inference import tuning

    (model,) = unets(tmp_path, "a")
    tuned = {
        "digest": model.digest,
        "device": "cpu",
        "machine": tuning.machine("cpu"),
        "precision": "bfloat16",
        "channels_last": True,
        "compile": False,
        "window_batch": 4,
    }
    for changed, precision in (
        ({}, "bfloat16"),
        ({"machine": "another"}, "float32"),
        ({"digest": "00"}, "float32"),
        ({"device": "cuda:0"}, "float32"),
        ({"precision": None}, "float32"),
    ):
        tuning.path(model).write_text(json.dumps(tuned | changed))
        assert inference.Models("cpu").get(model).settings.precision == precision
    assert bundle.verify(model.root) == model.digest  # tuning is no part of what the model is


def test_the_parent_of_the_workers_stays_free_of_torch() -> None:
    program = (
        "import sys\nfrom workers import device, inference\n"
        "inference.Models('cpu')\ndevice.probe('auto')\n"
        "assert not {'torch', 'monai'} & sys.modules.keys()"
    )

    subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


@pytest.mark.parametrize("choose", [device.choose, device.probe])
def test_the_cpu_is_chosen_when_it_is_asked_for(choose: Callable[[str], str]) -> None:
    assert choose("cpu") == "cpu"


@pytest.mark.parametrize("requested", ["gpu", "cuda", "cuda:", "cuda:01", "CPU", ""])
def test_a_device_of_no_known_name_is_refused(requested: str) -> None:
    assert refusal(lambda: device.choose(requested)).reason == "device-unknown"


@pytest.mark.parametrize(
    ("present", "requested", "chosen"),
    [(0, "auto", "cpu"), (1, "auto", "cuda:0"), (2, "cuda:1", "cuda:1"), (2, "cpu", "cpu")],
)
def test_the_device_is_the_one_that_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, present: int, requested: str, chosen: str
) -> None:
    monkeypatch.setattr(device, "_cuda_devices", lambda: present)

    assert device.choose(requested) == chosen


@pytest.mark.parametrize(("present", "requested"), [(0, "cuda:0"), (2, "cuda:2")])
def test_an_absent_device_is_refused_and_never_replaced(
    monkeypatch: pytest.MonkeyPatch, present: int, requested: str
) -> None:
    monkeypatch.setattr(device, "_cuda_devices", lambda: present)

    error = refusal(lambda: device.choose(requested))

    assert error.reason == "device-absent"
    assert requested in error.detail


def test_a_bundle_with_a_manifest_of_its_own_place_runs(tmp_path: Path) -> None:
    write_bundle(tmp_path / "blobs")
    outside = (tmp_path / "blobs" / "dicom.toml").rename(tmp_path / "blobs.toml")
    (tmp_path / "blobs" / "bundle.lock").unlink()
    bundle.write_lock(tmp_path / "blobs", manifest=outside)
    model = bundle.load(tmp_path / "blobs", manifest=outside)
    shown = volume()

    np.testing.assert_array_equal(said_by(model, shown), shown.array > 0)
