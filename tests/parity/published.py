"""Bundles in the structure of published ones, smaller, with weights drawn by a seed.

Names, steps and quirks are those that such bundles have: where the checkpoint is loaded, what is
inverted before or after it is discrete, what a bundle brings in its `scripts`. The configurations
and the scripts are written for these tests.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dicomnode import bundle
from dicomnode.bundle import Bundle

Tree = dict[str, Any]
#: Runs a bundle as its makers would; gives the folder of what it wrote.
Reference = Callable[..., Path]

CODE = '{ value = "91723000", scheme = "SCT", meaning = "Anatomical Structure" }'
HEAD = """
name         = "{name}"
manufacturer = "Nobody"
intended_use = "Tests"
notice       = "RESEARCH USE ONLY"
family       = {{ value = "123110", scheme = "DCM", meaning = "Artificial Intelligence" }}
procedure    = {{ value = "25056-3", scheme = "LN", meaning = "MRI unspecified body region" }}
"""
VOLUME = 'modality = "MR"\nsop_classes = ["MRImageStorage"]'
COLOUR = (
    'form = "image"\nmodality = "CR"\nchannels = 3\nvalues = "displayed"\n'
    'sop_classes = ["ComputedRadiographyImageStorage"]'
)
CINE = 'form = "cine"\nmodality = "MR"\nsop_classes = ["MRImageStorage"]'
SLIDE = 'form = "slide"\nmodality = "SM"\nsop_classes = ["VLWholeSlideMicroscopyImageStorage"]'


def finding(label: int) -> str:
    return (
        f'{{ label = {label}, name = "f{label}", category = {CODE}, type = {CODE},'
        ' color = "#ff0000" }'
    )


def findings(*labels: int) -> str:
    return "[" + ", ".join(finding(label) for label in labels) + "]"


def label_map(*labels: int) -> str:
    return f'[outputs.pred]\nkind = "label_map"\nsegments = {findings(*labels)}'


def load(keys: Any, **more: Any) -> Tree:
    return {"_target_": "LoadImaged", "keys": keys} | more


def channel_first(keys: Any, **more: Any) -> Tree:
    return {"_target_": "EnsureChannelFirstd", "keys": keys} | more


def oriented(keys: Any, axcodes: str = "RAS") -> Tree:
    return {"_target_": "Orientationd", "keys": keys, "axcodes": axcodes, "labels": None}


def spaced(keys: Any, pixdim: list[float]) -> Tree:
    return {"_target_": "Spacingd", "keys": keys, "pixdim": pixdim, "mode": "bilinear"}


def typed(keys: Any = "image", **more: Any) -> Tree:
    return {"_target_": "EnsureTyped", "keys": keys} | more


def inverted(**more: Any) -> Tree:
    return {
        "_target_": "Invertd",
        "keys": "pred",
        "transform": "@preprocessing",
        "orig_keys": "image",
        "nearest_interp": False,
        "to_tensor": True,
    } | more


def activated(how: str) -> Tree:
    return {"_target_": "Activationsd", "keys": "pred", how: True}


def discrete(**how: Any) -> Tree:
    return {"_target_": "AsDiscreted", "keys": "pred"} | how


def saved(**more: Any) -> Tree:
    return {
        "_target_": "SaveImaged",
        "keys": "pred",
        "output_dir": "@output_dir",
        "resample": False,
        "output_dtype": "$numpy.float32",
    } | more


def compose(*steps: Tree) -> Tree:
    return {"_target_": "Compose", "transforms": list(steps)}


def windows(*roi: int, **more: Any) -> Tree:
    return {"_target_": "SlidingWindowInferer", "roi_size": list(roi)} | more


CHECKPOINT = {
    "_target_": "CheckpointLoader",
    "load_path": "$@bundle_root + '/models/model.pt'",
    "load_dict": {"model": "@network"},
}
STATS = {"_target_": "StatsHandler", "iteration_log": False}


def configuration(
    network: Tree, before: Tree, inferer: Tree, after: Tree | None, **more: Any
) -> Tree:
    """What most published configurations have in common."""
    evaluator: Tree = {
        "_target_": "SupervisedEvaluator",
        "device": "@device",
        "val_data_loader": "@dataloader",
        "network": "@network",
        "inferer": "@inferer",
        "val_handlers": "@handlers",
        "amp": True,
    }
    if after is not None:
        evaluator["postprocessing"] = "@postprocessing"
    tree: Tree = {
        "imports": ["$import glob", "$import os"],
        "bundle_root": ".",
        "output_dir": "$@bundle_root + '/eval'",
        "dataset_dir": "/nowhere",
        "datalist": "$list(sorted(glob.glob(@dataset_dir + '/*.nii.gz')))",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "network_def": network,
        "network": "$@network_def.to(@device)",
        "preprocessing": before,
        "dataset": {
            "_target_": "Dataset",
            "data": "$[{'image': i} for i in @datalist]",
            "transform": "@preprocessing",
        },
        "dataloader": {
            "_target_": "DataLoader",
            "dataset": "@dataset",
            "batch_size": 1,
            "shuffle": False,
            "num_workers": 4,
        },
        "inferer": inferer,
        "handlers": [CHECKPOINT, STATS],
        "evaluator": evaluator,
        "run": ["$@evaluator.run()"],
    }
    if after is not None:
        tree["postprocessing"] = after
    tree |= more
    return tree


def run_as(tree: Tree, words: str) -> Tree:
    """Under another name than "run", as older bundles have it."""
    tree[words] = tree.pop("run")
    return tree


def write(
    root: Path, tree: Tree, manifest: str, *, scripts: dict[str, str] | None = None, **save: Any
) -> Bundle:
    """Write the bundle, with the weights that its own network draws from a seed.

    Args:
        save: `under`: the key that the weights are nested under; `gain`: of all of them; `last`:
            biases that are `raised`, the last one most, so that something is found.
    """
    for folder in ("configs", "models", "scripts"):
        (root / folder).mkdir(parents=True)
    (root / "scripts" / "__init__.py").touch()
    for name, text in (scripts or {}).items():
        (root / "scripts" / f"{name}.py").write_text(text)
    (root / "configs" / "inference.json").write_text(json.dumps(tree))
    metadata = {"version": "0.1", "network_data_format": {"outputs": {"pred": {"channel_def": {}}}}}
    (root / "configs" / "metadata.json").write_text(json.dumps(metadata))
    (root / "dicom.toml").write_text(HEAD.format(name=root.name) + manifest)
    _draw_weights(root, tree, **save)
    bundle.write_lock(root)
    return bundle.load(root)


def _draw_weights(
    root: Path,
    tree: Tree,
    *,
    under: str = "model",
    last: str = "",
    gain: float = 1.5,
    raised: float = 3.5,
) -> None:
    import torch
    from monai.bundle.config_parser import ConfigParser

    from workers.inference.scripts import Scripts

    torch.manual_seed(len(root.name))
    with Scripts(root).importable():
        parser = ConfigParser({"imports": tree.get("imports", []), **_networks(tree)})
        parser["device"] = torch.device("cpu")
        parser["bundle_root"] = str(root)
        network = parser.get_parsed_content("network_def")
    state = network.state_dict()
    for name, values in state.items():
        if values.is_floating_point() and values.ndim > 1:
            values.mul_(gain)  # beyond what starts a training: answers with some contrast
        if last and last in name:
            values.add_(torch.linspace(0, 1, values.numel()).reshape(values.shape) * raised)
    torch.save({under: state}, root / "models" / "model.pt")


def _networks(tree: Tree) -> Tree:
    return {
        key: tree[key] for key in ("network_def", "backbone", "feature_extractor") if key in tree
    }
