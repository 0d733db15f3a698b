"""What a node refuses at its start: it says why in one line and ends with exit code 2."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import gate
import pytest
import running

from dicomnode.node import Node

WORKERS = [sys.executable, "-m", "workers"]


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in command], capture_output=True, check=False, text=True, timeout=100
    )


def written(folder: Path, *, model: gate.Gate, extra: str = "") -> Path:
    folder.mkdir()
    text = running.toml(models={"gate": model.bundle}, extra=extra)
    (folder / "node.toml").write_text(text)
    return folder / "node.toml"


@pytest.mark.parametrize("command", ["up", "serve", "workers"])
def test_a_bundle_without_its_lock_is_not_run(tmp_path: Path, command: str) -> None:
    model = gate.write(tmp_path / "model")
    (model.bundle / "bundle.lock").unlink()
    file = written(tmp_path / "node", model=model)
    words = [*WORKERS, file] if command == "workers" else [*running.PROGRAM, command, file]
    refused = run(*words)
    assert refused.returncode == 2
    assert "lock-missing" in refused.stderr


def test_a_named_device_that_is_absent_is_not_replaced_by_the_cpu(tmp_path: Path) -> None:
    file = written(tmp_path / "node", model=gate.write(tmp_path / "model"))
    file.write_text(file.read_text().replace('device = "cpu"', 'device = "cuda:99"'))
    refused = run(*WORKERS, file, "--only", "predict")
    assert refused.returncode == 2
    assert "device-absent" in refused.stderr


def test_one_data_folder_has_one_receiver(tmp_path: Path) -> None:
    made = running.RunningNode(
        tmp_path / "node",
        running.toml(models={"gate": gate.write(tmp_path / "model").bundle}),
    )
    first = Node(made.configuration)
    first.start()
    try:
        refused = run(*running.PROGRAM, "serve", made.file)
        assert refused.returncode == 2
        assert "already-running" in refused.stderr
    finally:
        first.stop()
