"""What a measurement was made on: the machine, the disk, the programs."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

_MIB = 2**20
_SYNCS = 50
_WRITTEN_MIB = 256


@dataclass(frozen=True, kw_only=True)
class FileSystem:
    """Where a folder lies."""

    source: str
    kind: str
    place: str


def file_system(folder: Path) -> FileSystem:
    """The file system of a folder."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    above = {str(folder.resolve()), *map(str, folder.resolve().parents)}
    # Later mounts hide earlier ones on the same place.
    source, place, kind, *_ = max(
        (mount for mount in mounts if mount[1] in above), key=lambda mount: len(mount[1])
    )
    return FileSystem(source=source, kind=kind, place=place)


def described(folder: Path) -> list[str]:
    """A few lines on the machine, on the disk under a folder, and on the programs."""
    disk = file_system(folder)
    sync_ms, written_mib_s = _probed(folder / "probe")
    return [
        (
            f"machine: {os.cpu_count()} cores of {_cpu()}, {_memory_gib():.0f} GiB, "
            f"{platform.system()} {platform.release()}"
        ),
        (
            f"disk: {disk.kind} on {disk.source} at {disk.place}; to write and sync 4 KiB takes "
            f"{sync_ms:.2f} ms, {_WRITTEN_MIB} MiB go at {written_mib_s:,.0f} MiB/s (it may drift)"
        ),
        (
            f"programs: Python {platform.python_version()}, {_first_line('/usr/bin/storescp')}, "
            f"{_first_line('Orthanc')}"
        ),
    ]


def memory_kib(pid: int) -> tuple[int, int]:
    """What a process has resident, and the most that it has had, KiB; 0 once it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0, 0
    found = {line.split(":")[0]: line.split()[1] for line in lines if line.startswith("Vm")}
    return int(found.get("VmRSS", 0)), int(found.get("VmHWM", 0))


def forget_peak(pid: int) -> None:
    """Let `memory_kib` give the peak from now on."""
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/clear_refs").write_text("5")


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def _first_line(program: str) -> str:
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return f"no {program}"
    return done.stdout.strip().splitlines()[0].strip("$ ") if done.stdout.strip() else program


def _probed(file: Path) -> tuple[float, float]:
    """Milliseconds to write and sync 4 KiB (median), and MiB/s of a long write with its sync."""
    took = []
    with file.open("wb", buffering=0) as probe:
        for _ in range(_SYNCS):
            began = time.perf_counter()
            probe.write(bytes(4096))
            os.fsync(probe.fileno())
            took.append(time.perf_counter() - began)
        began = time.perf_counter()
        for _ in range(_WRITTEN_MIB):
            probe.write(bytes(_MIB))
        os.fsync(probe.fileno())
        long = time.perf_counter() - began
    file.unlink()
    return 1000 * median(took), _WRITTEN_MIB / long
