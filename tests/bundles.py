"""Bundles that tests write: a short manifest, a configuration, and a network of their own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from dicomnode import bundle
from dicomnode.bundle import Bundle

Tree = dict[str, Any]

#: What torch and MONAI say of themselves whenever they are used, and no test is about.
QUIET = [
    # torch deprecates TorchScript, which MONAI uses while it is imported
    pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning"),
    # one of MONAI's readers says so whenever a loader is made
    pytest.mark.filterwarnings("ignore:NvImgCodecPydicomReader:UserWarning"),
]

MR = 'modality = "MR"\nsop_classes = ["MRImageStorage"]'
CT = 'modality = "CT"\nsop_classes = ["CTImageStorage"]'

#: A SNOMED CT code, and what it means.
Code = tuple[str, str]

ANATOMY: Code = ("91723000", "Anatomical Structure")
HIPPOCAMPUS: Code = ("5366008", "Hippocampus")
TISSUE: Code = ("85756007", "Tissue")

LABEL_MAP = '\n[outputs.pred]\nkind = "label_map"\n'
BRIGHT = "torch.cat([image.mean() - image, image - image.mean()], dim=1)"

LOAD: tuple[Tree, ...] = (
    {"_target_": "LoadImaged", "keys": "image"},
    {"_target_": "EnsureChannelFirstd", "keys": "image"},
)
TO_RAS: Tree = {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS", "labels": None}
ARGMAX: Tree = {"_target_": "AsDiscreted", "keys": "pred", "argmax": True}
#: Takes back what preprocessing did to the grid.
INVERT: Tree = {
    "_target_": "Invertd", "keys": "pred", "transform": "@preprocessing", "orig_keys": "image",
    "nearest_interp": False, "to_tensor": True,
}  # fmt: skip


def head(name: str) -> str:
    """How each manifest begins, inputs and outputs to follow."""
    return f"""
name         = "{name}"
manufacturer = "Nobody"
intended_use = "Tests"
notice       = "RESEARCH USE ONLY"
family       = {{ value = "123110", scheme = "DCM", meaning = "Artificial Intelligence" }}
procedure    = {{ value = "25056-3", scheme = "LN", meaning = "MRI unspecified body region" }}
"""


def of_one_image(name: str, about: str = MR) -> str:
    """The beginning of a manifest with one input, `image`."""
    return f"{head(name)}\n[inputs.image]\n{about}\n"


def segment(
    label: int,
    name: str,
    *,
    category: Code = ANATOMY,
    kind: Code = HIPPOCAMPUS,
    color: str = "#ff0000",
    is_measured: bool = False,
) -> str:
    """One segment of a label map."""
    return f"""
[[outputs.pred.segments]]
label    = {label}
name     = "{name}"
category = {{ value = "{category[0]}", scheme = "SCT", meaning = "{category[1]}" }}
type     = {{ value = "{kind[0]}", scheme = "SCT", meaning = "{kind[1]}" }}
color    = "{color}"
""" + ('measure  = ["volume"]\n' if is_measured else "")


def net(forward: str) -> str:
    """`scripts/net.py`: a network without weights that returns this of its `image`."""
    return f"""
import torch

class Net(torch.nn.Module):
    def forward(self, image):
        return {forward}
"""


def composed(transforms: Sequence[Tree]) -> Tree:
    """Transforms one after the other."""
    return {"_target_": "Compose", "transforms": list(transforms)}


def plain(*, before: Sequence[Tree] = LOAD, after: Sequence[Tree] = (ARGMAX,)) -> Tree:
    """The shortest `inference.json` that runs: no evaluator, no checkpoint."""
    return {
        "network_def": {"_target_": "scripts.net.Net"},
        "preprocessing": composed(before),
        "postprocessing": composed(after),
    }


def evaluated(*, before: Sequence[Tree] = LOAD, after: Sequence[Tree] = (ARGMAX,)) -> Tree:
    """An `inference.json` with an evaluator of its own, in the manner of the Model Zoo."""
    return {
        **plain(before=before, after=after),
        "bundle_root": ".",
        "device": "$torch.device('cuda:0')",
        "network": "$@network_def.to(@device)",
        "dataset": {"_target_": "Dataset", "data": [], "transform": "@preprocessing"},
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1},
        "inferer": {"_target_": "SimpleInferer"},
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
        },
        "checkpointloader": {
            "_target_": "CheckpointLoader",
            "load_path": "$@bundle_root + '/models/model.pt'",
            "load_dict": {"model": "@network"},
        },
        "initialize": ["$@checkpointloader(@evaluator)"],
        "run": ["$@evaluator.run()"],
    }


def write(
    root: Path,
    *,
    manifest: str,
    configuration: Mapping[str, Any],
    script: str,
    weights: Mapping[str, Any] | None = None,
    version: str = "1.0.0",
) -> Bundle:
    """Write a bundle and lock it.

    Args:
        root: Its folder, which is not there yet.
        manifest: `dicom.toml`.
        configuration: `configs/inference.json`.
        script: `scripts/net.py`.
        weights: `models/model.pt`.
        version: Of `configs/metadata.json`.
    """
    import torch

    for folder in ("configs", "models", "scripts"):
        (root / folder).mkdir(parents=True)
    (root / "dicom.toml").write_text(manifest)
    (root / "configs" / "metadata.json").write_text(json.dumps({"version": version}))
    (root / "configs" / "inference.json").write_text(json.dumps(configuration))
    (root / "scripts" / "net.py").write_text(script)
    torch.save(dict(weights or {}), root / "models" / "model.pt")
    bundle.write_lock(root)
    return bundle.load(root)
