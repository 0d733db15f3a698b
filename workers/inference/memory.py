"""How much memory there is and how much was used: asked of the device and the system."""

from __future__ import annotations

import resource
from contextlib import suppress
from pathlib import Path

import torch

from workers import limits

_KIB = 1024
_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # what the kernel takes for "forget the highest resident set"


def free(device: str) -> int:
    """Bytes that can be had on `device` now."""
    if device != "cpu":
        available, _ = torch.cuda.mem_get_info(device)
        return int(available)
    return min(limits.available(), _within_limit())


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
    return limits.number(_STATUS, "VmRSS:") * _KIB


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
    return limits.number(_STATUS, "VmHWM:") * _KIB


def give_back(device: str) -> None:
    """Give the device back what torch keeps for later."""
    if device != "cpu":
        torch.cuda.empty_cache()


def _within_limit() -> int:
    limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
    if limit == resource.RLIM_INFINITY:
        return limits.available()
    return max(0, limit - limits.number(_STATUS, "VmData:") * _KIB)
