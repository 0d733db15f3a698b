"""How much memory a predicting child may take on the CPU.

A model that eats memory would otherwise be ended by the kernel, and perhaps something else in its
place. With a limit on its data segment (RLIMIT_DATA: private writable memory) an allocation fails
instead, the job says so, and the child goes on. A child that computes on a GPU has none: CUDA maps
far more than it uses.
"""

from __future__ import annotations

import os
import resource
from pathlib import Path

from dicomnode import log

_log = log.get(__name__)

_GIB = 1024**3
#: Of the machine's memory, for all slots together, where the configuration names no number.
_SHARE = 0.8
_KIB = 1024
_MEMINFO = Path("/proc/meminfo")
_CGROUP_MAX = Path("/sys/fs/cgroup/memory.max")
_CGROUP_NOW = Path("/sys/fs/cgroup/memory.current")
_CGROUP_STAT = Path("/sys/fs/cgroup/memory.stat")


def cap(*, device: str, memory_gib: float | None, slots: int) -> int | None:
    """Limit this process, if it computes on the CPU; gives the limit in bytes."""
    if device != "cpu":
        return None
    limit = int(memory_gib * _GIB) if memory_gib is not None else int(total() * _SHARE / slots)
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    _log.info("memory limited", bytes=limit, device=device)
    return limit


def total() -> int:
    """Bytes of the machine's memory, or of the container's."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        return min(machine, int(_CGROUP_MAX.read_text(encoding="ascii")))
    except (OSError, ValueError):
        return machine


def available() -> int:
    """Bytes of the machine's memory, or of the container's, that can be had now."""
    machine = number(_MEMINFO, "MemAvailable:") * _KIB
    try:
        limit = int(_CGROUP_MAX.read_text(encoding="ascii"))
        used = int(_CGROUP_NOW.read_text(encoding="ascii"))
        # What the kernel keeps of files, and gives up for whoever asks for memory.
        kept = number(_CGROUP_STAT, "inactive_file")
    except (OSError, ValueError):
        return machine
    return min(machine, max(0, limit - used + kept))


def number(file: Path, key: str) -> int:
    """What stands behind a word at the beginning of a line; 0 where no line begins so."""
    for line in file.read_text(encoding="ascii").splitlines():
        words = line.split()
        if words[:1] == [key]:
            return int(words[1])
    return 0
