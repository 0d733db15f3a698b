"""A model that waits at a gate: a test decides how long it is in the middle of its inference."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import bundles
from running import wait_for

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

    folder, made = root / "gate", root / "bundle"
    folder.mkdir(parents=True)
    about = f'modality = "{modality}"\nsop_classes = ["{sop_class}"]'
    bundles.write(
        made,
        manifest=bundles.of_one_image("Gate", about)
        + bundles.LABEL_MAP
        + bundles.segment(1, "Bright", is_measured=True),
        configuration=bundles.plain(),
        script=_NET.format(folder=str(folder)),
        weights={"level": torch.zeros(1)},
    )
    return Gate(bundle=made, folder=folder)
