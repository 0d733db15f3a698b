"""What the training configuration needs and MONAI has no class for."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import torch
from monai.inferers import SimpleInferer


def cases(dataset_dir: str, split: str) -> list[dict[str, str]]:
    """The image and label paths of one split ("train" or "val") as `split.csv` lists them."""
    root = Path(dataset_dir)
    with (root / "split.csv").open(newline="") as lines:
        names = [row["case"] for row in csv.DictReader(lines) if row["split"] == split]
    return [
        {
            "image": str(root / "images" / f"{name}.nii.gz"),
            "label": str(root / "labels" / f"{name}.nii.gz"),
        }
        for name in names
    ]


class Bfloat16Inferer(SimpleInferer):
    """Forward pass in bfloat16, on the CPU too; the logits come back in float32 for the loss.

    `SupervisedTrainer(amp=True)` autocasts on CUDA only.
    """

    def __call__(
        self, inputs: torch.Tensor, network: torch.nn.Module, *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        with torch.autocast(inputs.device.type, dtype=torch.bfloat16):
            logits: torch.Tensor = network(inputs, *args, **kwargs)
        return logits.float()
