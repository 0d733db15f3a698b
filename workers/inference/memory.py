"""How much memory there is and how much was used: asked of the device and the system."""

from __future__ import annotations

import resource
from contextlib import suppress
from pathlib import Path

import torch

_KIB = 1024
_MEMINFO = Path("/proc/meminfo")
_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # what the kernel takes for "forget the highest resident set"
_CGROUP_MAX = Path("/sys/fs/cgroup/memory.max")
_CGROUP_NOW = Path("/sys/fs/cgroup/memory.current")


def free(device: str) -> int:
    """Bytes that can be had on `device` now."""
    if device != "cpu":
        available, _ = torch.cuda.mem_get_info(device)
        return int(available)
    return min(_available(), _within_cgroup(), _within_limit())


def of_gpu(device: str) -> tuple[int, int] | None:
    """Bytes of a GPU that are in use, by anybody, and all that it has; `None` where it fails."""
    try:
        available, total = torch.cuda.mem_get_info(device)
    except RuntimeError:  # a device that is broken has ended the job by that name already
        return None
    return int(total - available), int(total)


def held(device: str) -> int:
    """Bytes that this process holds on `device` now."""
    if device != "cpu":
        return int(torch.cuda.memory_allocated(device))
    return _kib(_STATUS, "VmRSS:") * _KIB


def forget_peak(device: str) -> None:
    """Begin to look for the highest use anew."""
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with suppress(OSError):  # some containers forbid it: then the peak is that of the process
        _CLEAR.write_text(_RESET_PEAK, encoding="ascii")


def peak(device: str) -> int:
    """The highest use in bytes since `forget_peak`."""
    if device != "cpu":
        return int(torch.cuda.max_memory_allocated(device))
    return _kib(_STATUS, "VmHWM:") * _KIB


def give_back(device: str) -> None:
    """Give the device back what torch keeps for later."""
    if device != "cpu":
        torch.cuda.empty_cache()


def _available() -> int:
    return _kib(_MEMINFO, "MemAvailable:") * _KIB


def _within_cgroup() -> int:
    try:
        limit = _CGROUP_MAX.read_text(encoding="ascii").strip()
        used = int(_CGROUP_NOW.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return _available()
    return _available() if limit == "max" else max(0, int(limit) - used)


def _within_limit() -> int:
    limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
    if limit == resource.RLIM_INFINITY:
        return _available()
    return max(0, limit - _kib(_STATUS, "VmData:") * _KIB)


def _kib(file: Path, key: str) -> int:
    for line in file.read_text(encoding="ascii").splitlines():
        if line.startswith(key):
            return int(line.split()[1])
    return 0
