"""How much memory can be had: of the machine, or of the container that the worker is in."""

from __future__ import annotations

from pathlib import Path

import pytest

from workers import limits

MIB = 1024**2


@pytest.fixture
def container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A container of 100 MiB on a machine with far more."""
    said = {
        "MEMINFO": f"MemTotal: {9000 * 1024} kB\nMemAvailable: {8000 * 1024} kB\n",
        "CGROUP_MAX": f"{100 * MIB}\n",
        "CGROUP_NOW": f"{90 * MIB}\n",
        "CGROUP_STAT": f"anon {20 * MIB}\ninactive_file {60 * MIB}\nactive_file {10 * MIB}\n",
    }
    for name, text in said.items():
        (tmp_path / name).write_text(text)
        monkeypatch.setattr(limits, f"_{name}", tmp_path / name)
    return tmp_path


def test_a_container_has_its_own_and_the_cache_of_files_is_free(container: Path) -> None:
    assert limits.available() == (100 - 90 + 60) * MIB
    (container / "CGROUP_NOW").write_text(str(200 * MIB))
    assert limits.available() == 0


@pytest.mark.parametrize("limit", ["max", None])
def test_without_a_limit_it_is_the_machines(container: Path, limit: str | None) -> None:
    if limit is None:
        (container / "CGROUP_MAX").unlink()
    else:
        (container / "CGROUP_MAX").write_text(limit)
    assert limits.available() == 8000 * MIB


def test_what_is_not_said_is_none(tmp_path: Path) -> None:
    path = tmp_path / "status"
    path.write_text("VmRSSes: 1 kB\n\nVmRSS:\t 7 kB\n")
    assert limits.number(path, "VmRSS:") == 7
    assert limits.number(path, "VmHWM:") == 0
