"""Bundles of volumes: our masks equal those of MONAI's own run on the same volume as a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bundles
import nibabel  # type: ignore[import-untyped]
import numpy as np
import published
from numpy.typing import NDArray
from published import (
    VOLUME,
    Reference,
    activated,
    channel_first,
    compose,
    configuration,
    discrete,
    findings,
    inverted,
    label_map,
    load,
    oriented,
    saved,
    spaced,
    typed,
    windows,
)
from pydicom import Dataset

from dicomnode.bundle import Bundle
from dicomnode.prediction import LabelMap, Masks, Shown
from dicomnode.volume import Volume
from workers import inference

pytestmark = bundles.QUIET


def a_volume(seed: int = 3, shape: tuple[int, int, int] = (16, 30, 34)) -> Volume:
    """Smooth noise on an oblique, anisotropic grid."""
    from scipy import ndimage  # type: ignore[import-untyped]

    along_row, along_column = np.array([0.96, 0.28, 0]), np.array([-0.28, 0.96, 0])
    affine = np.eye(4)
    affine[:3, 0] = np.cross(along_row, along_column) * 2.5
    affine[:3, 1], affine[:3, 2] = along_column * 0.9, along_row * 0.8
    affine[:3, 3] = (-11.5, 23.25, 8.0)
    noise = np.random.default_rng(seed).standard_normal(shape)
    array = ndimage.gaussian_filter(noise, 2) * 4000
    return Volume(
        array=array.astype(np.float32),
        affine=affine.astype(np.float32).astype(np.float64),  # as NIfTI can say it
        sources=(),
        modality="MR",
        frame_of_reference_uid="1.2.3",
        orientation=(*along_row, *along_column),
        pixel_spacing=(0.9, 0.8),
        slice_thickness=2.5,
        header=Dataset(),
    )


def write(path: Path, shown: Volume) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    ras = np.diag([-1, -1, 1, 1]) @ shown.affine[:, [2, 1, 0, 3]]
    nibabel.save(nibabel.Nifti1Image(shown.array.transpose(2, 1, 0), ras), path)


def read(folder: Path) -> NDArray[Any]:
    """Shape ([channels,] slices, rows, columns)."""
    (path,) = folder.rglob("*.nii.gz")
    array = np.asarray(nibabel.load(path).dataobj)
    if array.ndim == 3:
        return array.transpose(2, 1, 0)
    return array.transpose(3, 2, 1, 0)


def said(model: Bundle, inputs: dict[str, Shown]) -> Any:
    (answer,) = inference.load_model(model, device="cpu").predict(inputs).answers
    return answer


def assert_same(answer: Any, expected: NDArray[Any], *, labels: int) -> None:
    assert isinstance(answer, LabelMap)
    np.testing.assert_array_equal(answer.array, np.rint(expected))
    # More than one thing was found: equality says something.
    assert len(np.unique(answer.array)) >= labels


UNET = {
    "_target_": "UNet",
    "spatial_dims": 3,
    "in_channels": 1,
    "channels": [4, 8, 16],
    "strides": [2, 2],
}
SEGRESNET = {
    "_target_": "SegResNet",
    "spatial_dims": 3,
    "init_filters": 8,
    "blocks_down": [1, 1],
    "blocks_up": [1],
    "dropout_prob": 0.2,
}


def test_spleen_ct_segmentation(tmp_path: Path, reference: Reference) -> None:
    tree = configuration(
        UNET | {"out_channels": 2, "num_res_units": 2, "norm": "batch"},
        compose(
            load("image"),
            channel_first("image"),
            oriented("image"),
            spaced("image", [1.5, 1.5, 2.0]),
            {
                "_target_": "ScaleIntensityRanged",
                "keys": "image",
                "a_min": -157,
                "a_max": 164,
                "b_min": 0,
                "b_max": 1,
                "clip": True,
            },
            typed(),
        ),
        windows(16, 16, 16, sw_batch_size=4, overlap=0.5),
        compose(activated("softmax"), inverted(), discrete(argmax=True), saved()),
        handlers=[published.STATS],
        checkpointloader=published.CHECKPOINT,
        initialize=[
            "$monai.utils.set_determinism(seed=123)",
            "$@checkpointloader(@evaluator)",
        ],
    )
    manifest = f"[inputs.image]\n{VOLUME}\n{label_map(1)}"
    model = published.write(tmp_path / "spleen", tree, manifest)
    shown = a_volume()
    write(tmp_path / "data" / "a.nii.gz", shown)
    expected = read(reference(model.root, tmp_path / "data"))
    assert_same(said(model, {"image": shown}), expected, labels=2)


def test_whole_body_ct_segmentation(tmp_path: Path, reference: Reference) -> None:
    tree = configuration(
        SEGRESNET | {"in_channels": 1, "out_channels": 105},
        compose(
            load("@image_key"),
            typed("@image_key"),
            channel_first("@image_key"),
            oriented("@image_key"),
            spaced("@image_key", "@pixdim"),  # type: ignore[arg-type]
            {"_target_": "NormalizeIntensityd", "keys": "@image_key", "nonzero": True},
            {"_target_": "ScaleIntensityd", "keys": "@image_key", "minv": -1.0, "maxv": 1.0},
        ),
        windows(
            16,
            16,
            16,
            sw_batch_size="@displayable_configs#sw_batch_size",
            overlap="@displayable_configs#sw_overlap",
            padding_mode="replicate",
            mode="gaussian",
            device="$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        ),
        compose(
            activated("softmax"),
            discrete(argmax=True),
            inverted(orig_keys="@image_key", nearest_interp=True),
            saved(),
        ),
        displayable_configs={"highres": True, "sw_overlap": 0.25, "sw_batch_size": 1},
        image_key="image",
        pixdim="$[1.5, 1.5, 1.5] if @displayable_configs#highres else [3.0, 3.0, 3.0]",
        modelname="$'model.pt' if @displayable_configs#highres else 'model_lowres.pt'",
        handlers=[published.STATS],
        checkpointloader=published.CHECKPOINT
        | {"load_path": "$@bundle_root + '/models/' + @modelname"},
        initialize=["$@checkpointloader(@evaluator)"],
    )
    manifest = f"[inputs.image]\n{VOLUME}\n{label_map(*range(1, 105))}"
    model = published.write(tmp_path / "whole body", tree, manifest)
    shown = a_volume()
    write(tmp_path / "data" / "a.nii.gz", shown)
    expected = read(reference(model.root, tmp_path / "data"))
    assert_same(said(model, {"image": shown}), expected, labels=10)


def test_brats_mri_segmentation(tmp_path: Path, reference: Reference) -> None:
    tree = published.run_as(
        configuration(
            SEGRESNET | {"in_channels": 4, "out_channels": 3},
            compose(
                load("image"),
                {
                    "_target_": "NormalizeIntensityd",
                    "keys": "image",
                    "nonzero": True,
                    "channel_wise": True,
                },
            ),
            windows(32, 32, 16, sw_batch_size=1, overlap=0.5),
            compose(
                activated("sigmoid"),
                inverted(meta_keys="pred_meta_dict"),
                discrete(threshold=0.5),
                {
                    "_target_": "Lambdad",
                    "keys": "pred",
                    "func": "$lambda x: torch.where(x[[2]] > 0, 4, torch.where(x[[0]] > 0, 1,"
                    " torch.where(x[[1]] > 0, 2, 0)))",
                },
                saved(output_dtype="uint8", squeeze_end_dims=True),
            ),
            datalist="$[sorted(glob.glob(@dataset_dir + '/*.nii.gz'))]",
        ),
        "evaluating",
    )
    names = ("t1c", "t1", "t2", "flair")
    manifest = "".join(f'[inputs.{name}]\nkey = "image"\n{VOLUME}\n' for name in names)
    model = published.write(tmp_path / "brats", tree, manifest + label_map(1, 2, 4))
    shown = {name: a_volume(seed) for seed, name in enumerate(names)}
    for number, one in enumerate(shown.values()):
        write(tmp_path / "data" / f"{number}.nii.gz", one)
    expected = read(reference(model.root, tmp_path / "data", words="evaluating"))
    assert_same(said(model, dict(shown)), expected, labels=3)


def test_prostate_mri_anatomy(tmp_path: Path, reference: Reference) -> None:
    """Labels are interpolated on their way back: rounded, they are what the file holds."""
    tree = configuration(
        UNET | {"out_channels": 3, "num_res_units": 2, "norm": "batch", "dropout": 0.15},
        compose(
            load("image"),
            channel_first("image"),
            oriented("image"),
            spaced("image", [0.7, 0.7, 0.9]),
            {"_target_": "ScaleIntensityd", "keys": "image", "minv": 0, "maxv": 1},
            {"_target_": "NormalizeIntensityd", "keys": "image"},
            typed(),
        ),
        windows(16, 16, 16, sw_batch_size=4, overlap=0.5),
        compose(
            discrete(argmax=True),
            {
                "_target_": "KeepLargestConnectedComponentd",
                "keys": "pred",
                "applied_labels": [1, 2],
            },
            inverted(meta_key_postfix="meta_dict"),
            saved(meta_keys="pred_meta_dict"),
        ),
        initialize=["$setattr(torch.backends.cudnn, 'benchmark', True)"],
    )
    manifest = f"[inputs.image]\n{VOLUME}\n{label_map(1, 2)}"
    model = published.write(tmp_path / "prostate", tree, manifest)
    shown = a_volume()
    write(tmp_path / "data" / "a.nii.gz", shown)
    expected = read(reference(model.root, tmp_path / "data"))
    assert (expected != np.rint(expected)).any()  # interpolated indeed
    assert_same(said(model, {"image": shown}), expected, labels=2)


def test_ventricular_short_axis_3label(tmp_path: Path, reference: Reference) -> None:
    tree = published.run_as(
        configuration(
            UNET | {"spatial_dims": 2, "out_channels": 4, "num_res_units": 2},
            compose(
                load("image", image_only=False),
                channel_first("image"),
                {"_target_": "ScaleIntensityd", "keys": "image"},
                typed(device="@device"),
            ),
            {"_target_": "SliceInferer", "roi_size": [32, 32], "spatial_dim": 2},
            compose(
                activated("softmax"),
                inverted(meta_key_postfix="meta_dict"),
                discrete(argmax=True),
                saved(meta_keys="pred_meta_dict"),
            ),
            ckpt_path="$@bundle_root + '/models/model.pt'",
            handlers=[published.CHECKPOINT | {"load_path": "@ckpt_path"}],
        ),
        "evaluating",
    )
    manifest = f"[inputs.image]\n{VOLUME}\n{label_map(1, 2, 3)}"
    model = published.write(tmp_path / "ventricle", tree, manifest)
    shown = a_volume()
    write(tmp_path / "data" / "a.nii.gz", shown)
    expected = read(reference(model.root, tmp_path / "data", words="evaluating"))
    assert_same(said(model, {"image": shown}), expected, labels=3)


CONCATENATE = """
import torch
from monai.transforms import MapTransform


class ConcatImages(MapTransform):
    def __init__(self, keys_merge, keys_out):
        super().__init__(keys_merge)
        self.out = keys_out

    def __call__(self, data):
        made = dict(data)
        made[self.out] = torch.cat([made[key] for key in self.keys], dim=0)
        return made
"""


def test_renal_structures_cect_segmentation(tmp_path: Path, reference: Reference) -> None:
    """Three phases under keys of their own, and two inversions."""
    phases = ["artery", "vein", "excret"]
    tree = published.run_as(
        configuration(
            SEGRESNET | {"in_channels": 3, "out_channels": 6, "upsample_mode": "deconv"},
            compose(
                load(phases),
                channel_first(phases),
                oriented(phases, "LPS"),
                spaced(phases, [1.1, 1.1, 1.3]),
                {
                    "_target_": "scripts.my_transforms.ConcatImages",
                    "keys_merge": phases,
                    "keys_out": "image",
                },
                {
                    "_target_": "ScaleIntensityRanged",
                    "keys": "image",
                    "a_min": -1000,
                    "a_max": 1000,
                    "b_min": 0.0,
                    "b_max": 1.0,
                    "clip": True,
                },
                typed(),
            ),
            windows(16, 16, 16, sw_batch_size=4, overlap=0.25),
            compose(
                inverted(orig_keys="artery", transform="$@preprocessing", device="@device"),
                {"_target_": "Activationsd", "keys": "pred", "softmax": False, "sigmoid": True},
                inverted(meta_key_postfix="meta_dict"),
                discrete(argmax=False, threshold=0.5),
                saved(meta_keys="pred_meta_dict"),
            ),
            images="$[{'artery': a, 'vein': b, 'excret': c} for a, b, c in"
            " [sorted(glob.glob(@dataset_dir + '/*.nii.gz'))]]",
            labels="$['nowhere']",
            dataset={
                "_target_": "Dataset",
                "data": "$[{'label': l, **i} for i, l in zip(@images, @labels)]",
                "transform": "@preprocessing",
            },
        ),
        "inference",
    )
    manifest = "".join(f"[inputs.{name}]\n{VOLUME}\n" for name in phases)
    manifest += f'[outputs.pred]\nkind = "masks"\nsegments = {findings(*range(1, 7))}'
    model = published.write(
        tmp_path / "renal", tree, manifest, scripts={"my_transforms": CONCATENATE}
    )
    shown = {name: a_volume(seed) for seed, name in enumerate(phases)}
    for number, one in enumerate(shown.values()):
        write(tmp_path / "data" / f"{number}.nii.gz", one)
    expected = read(reference(model.root, tmp_path / "data", words="inference"))

    answer = said(model, dict(shown))

    assert isinstance(answer, Masks)
    np.testing.assert_array_equal(answer.array, expected > 0.5)
    assert sum(0 < one.mean() < 1 for one in answer.array) >= 2
    assert (answer.array.sum(axis=0) > 1).any()  # they overlap
