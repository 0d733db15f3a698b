"""Which device the models run on: the one that was asked for, or a refusal.

torch is imported here when a worker's child calls, never when this module is imported: a process
that has touched CUDA cannot be forked.
"""

from __future__ import annotations

import multiprocessing
import re
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

from dicomnode.errors import Misconfigured

AUTO = "auto"
CPU = "cpu"
_CUDA = re.compile(r"cuda:(?P<index>0|[1-9][0-9]*)")


def choose(requested: str) -> str:
    """The name of the torch device for `requested`.

    ==========  ==========================================================
    requested   chosen
    ==========  ==========================================================
    `auto`      `cuda:0` where the machine has a CUDA device, else `cpu`
    `cpu`       `cpu`
    `cuda:N`    `cuda:N`; refused where it is absent, never the CPU instead
    ==========  ==========================================================

    Raises:
        Misconfigured: `device-unknown` or `device-absent`.
    """
    return _chosen(requested, _cuda_devices)


def probe(requested: str) -> str:
    """As `choose`, asked in a process of its own: this one stays free of torch and can fork.

    Raises:
        Misconfigured: As `choose`.
    """
    return _chosen(requested, _cuda_devices_elsewhere)


def _chosen(requested: str, count: Callable[[], int]) -> str:
    if requested == CPU:
        return CPU
    present = count()
    if requested == AUTO:
        return "cuda:0" if present else CPU
    match = _CUDA.fullmatch(requested)
    if match is None:
        raise Misconfigured(
            "device-unknown", f"worker.device is '{requested}': use auto, cpu, cuda:0, cuda:1, …"
        )
    if int(match["index"]) >= present:
        raise Misconfigured(
            "device-absent",
            f"worker.device is '{requested}', and torch sees {present} CUDA devices here: check the"
            " driver, or name a device that is present.",
        )
    return requested


def _cuda_devices() -> int:
    import torch  # noqa: PLC0415 - after the fork, see above

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _cuda_devices_elsewhere() -> int:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as elsewhere:
        return elsewhere.submit(_cuda_devices).result()
