"""One reference run for each bundle, as its makers would run it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from published import Reference

#: Where torchvision was built for another torch, its operators are missing, and with them the
#: import fails. What is needed here is written in Python.
SHIM = """
import importlib.abc
import importlib.util
import sys


class _Define(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname, path, target=None):
        if fullname == "torchvision._meta_registrations":
            import torch

            if not hasattr(torch.ops.torchvision, "nms"):
                library = torch.library.Library("torchvision", "DEF")
                boxes = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
                library.define("nms" + boxes)
                library.define("qnms" + boxes)
                library.define(
                    "roi_align(Tensor input, Tensor rois, float s, SymInt h, SymInt w, int r,"
                    " bool a) -> Tensor"
                )
                sys.modules["_torchvision_library"] = library
        return None


sys.meta_path.insert(0, _Define())
"""


@pytest.fixture(scope="session", autouse=True)
def importable_torchvision() -> None:
    exec(SHIM, {})


@pytest.fixture
def reference(tmp_path: Path) -> Reference:
    """Runs `python -m monai.bundle run` on files; gives the folder of what it wrote."""

    def run(root: Path, dataset_dir: Path, *, words: str = "run", **overrides: str) -> Path:
        shim = tmp_path / "shim"
        shim.mkdir()
        (shim / "sitecustomize.py").write_text(SHIM)
        output = tmp_path / "reference"
        output.mkdir()
        given = {
            "config_file": str(root / "configs" / "inference.json"),
            "bundle_root": str(root),
            "dataset_dir": str(dataset_dir),
            "output_dir": str(output),
            "device": "$torch.device('cpu')",
            "dataloader::num_workers": "0",
        } | overrides
        command = [sys.executable, "-W", "ignore", "-m", "monai.bundle", "run", words]
        for key, value in given.items():
            command += [f"--{key}", value]
        environment = os.environ | {"PYTHONPATH": f"{shim}:{root}", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=root, env=environment, check=False
        )
        assert done.returncode == 0, done.stderr[-9000:]
        return output

    return run
