"""One reference run for each bundle, as its makers would run it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torchvision_operators
from published import Reference


@pytest.fixture
def reference(tmp_path: Path) -> Reference:
    """Runs `python -m monai.bundle run` on files; gives the folder of what it wrote."""

    def run(root: Path, dataset_dir: Path, *, words: str = "run", **overrides: str) -> Path:
        shim = tmp_path / "shim"
        shim.mkdir()
        (shim / "sitecustomize.py").write_text(torchvision_operators.SOURCE)
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
