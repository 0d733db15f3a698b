"""A model that waits at a gate: a test decides how long it is in the middle of its inference."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from running import wait_for

from dicomnode import bundle

_MANIFEST = """
name         = "Gate"
manufacturer = "Nobody"
intended_use = "Tests"
notice       = "RESEARCH USE ONLY"
family       = {{ value = "123110", scheme = "DCM", meaning = "Artificial Intelligence" }}
procedure    = {{ value = "25056-3", scheme = "LN", meaning = "MRI unspecified body region" }}

[inputs.image]
modality    = "{modality}"
sop_classes = ["{sop_class}"]

[outputs.pred]
kind = "label_map"

[[outputs.pred.segments]]
label    = 1
name     = "Bright"
category = {{ value = "91723000", scheme = "SCT", meaning = "Anatomical Structure" }}
type     = {{ value = "5366008", scheme = "SCT", meaning = "Hippocampus" }}
color    = "#ff0000"
measure  = ["volume"]
"""

_NET = """
import pathlib
import time

import torch

FOLDER = pathlib.Path({folder!r})


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.level = torch.nn.Parameter(torch.zeros(1))

    def forward(self, image):
        with (FOLDER / "begun").open("a") as begun:
            begun.write("x")
        while (FOLDER / "closed").exists():
            time.sleep(0.02)
        level = image.mean() + self.level
        return torch.cat([level - image, image - level], dim=1)
"""

_CONFIGURATION = {
    "bundle_root": ".",
    "device": "$torch.device('cpu')",
    "network_def": {"_target_": "scripts.net.Net"},
    "network": "$@network_def.to(@device)",
    "preprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "LoadImaged", "keys": "image"},
            {"_target_": "EnsureChannelFirstd", "keys": "image"},
        ],
    },
    "inferer": {"_target_": "SimpleInferer"},
    "postprocessing": {
        "_target_": "Compose",
        "transforms": [{"_target_": "AsDiscreted", "keys": "pred", "argmax": True}],
    },
}


@dataclass(frozen=True, kw_only=True)
class Gate:
    """A bundle, and the gate that its network waits at."""

    bundle: Path
    folder: Path

    def close(self) -> None:
        """Let every run from now on wait in the middle."""
        (self.folder / "closed").touch()

    def open(self) -> None:
        """Let all go on."""
        (self.folder / "closed").unlink()

    def runs(self) -> int:
        """How often the network has begun."""
        begun = self.folder / "begun"
        return begun.stat().st_size if begun.exists() else 0

    def wait_for_run(self, number: int) -> None:
        """Return when the network has begun so often."""
        wait_for(lambda: self.runs() >= number, what=f"run {number} of the model")


def write(root: Path, *, modality: str = "MR", sop_class: str = "MRImageStorage") -> Gate:
    """Write the bundle and lock it; the gate stands open."""
    import torch

    folder = root / "gate"
    bundle_dir = root / "bundle"
    for each in (folder, *(bundle_dir / name for name in ("configs", "models", "scripts"))):
        each.mkdir(parents=True)
    (bundle_dir / "dicom.toml").write_text(_MANIFEST.format(modality=modality, sop_class=sop_class))
    (bundle_dir / "configs" / "metadata.json").write_text(json.dumps({"version": "1.0.0"}))
    (bundle_dir / "configs" / "inference.json").write_text(json.dumps(_CONFIGURATION))
    (bundle_dir / "scripts" / "__init__.py").touch()
    (bundle_dir / "scripts" / "net.py").write_text(_NET.format(folder=str(folder)))
    torch.save({"level": torch.zeros(1)}, bundle_dir / "models" / "model.pt")
    bundle.write_lock(bundle_dir)
    return Gate(bundle=bundle_dir, folder=folder)
