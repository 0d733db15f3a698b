"""What `models tune` measured on this machine: `tuning.json` beside the lock."""

from __future__ import annotations

import json
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from dicomnode.bundle import TUNING_NAME, Bundle
from workers.inference.settings import AS_PUBLISHED, Precision, Settings


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """The fastest way of running a model whose answer agrees with float32.

    Attributes:
        digest: Of the bundle that was measured.
        device, machine: Where.
        seconds, seconds_float32: Of one run so, and as published.
        memory_bytes: The highest use.
        agreement: What was compared → how well it agreed.
        measured_at: ISO 8601.
    """

    digest: str
    device: str
    machine: str
    settings: Settings
    seconds: float
    seconds_float32: float
    memory_bytes: int
    agreement: dict[str, float]
    measured_at: str

    def document(self) -> dict[str, Any]:
        """As it stands in the file."""
        return {
            "digest": self.digest,
            "device": self.device,
            "machine": self.machine,
            "precision": self.settings.precision,
            "channels_last": self.settings.channels_last,
            "compile": self.settings.compile,
            "window_batch": self.settings.window_batch,
            "seconds": round(self.seconds, 4),
            "seconds_float32": round(self.seconds_float32, 4),
            "memory_bytes": self.memory_bytes,
            "agreement": self.agreement,
            "measured_at": self.measured_at,
        }


def path(bundle: Bundle) -> Path:
    """Where the tuning of a bundle stands."""
    return bundle.root / TUNING_NAME


def machine(device: str) -> str:
    """What computes: the name of the GPU, or of the processor."""
    if device != "cpu":
        import torch  # noqa: PLC0415 - after the fork

        return str(torch.cuda.get_device_name(device))
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def settings_for(bundle: Bundle, *, device: str) -> Settings:
    """How to compute: as tuned for this model on this device and machine, or as published."""
    try:
        found = json.loads(path(bundle).read_text(encoding="utf-8"))
        known = (found["digest"], found["device"], found["machine"])
        if known != (bundle.digest, device, machine(device)):
            return AS_PUBLISHED
        precision = found["precision"]
        if precision not in get_args(Precision):
            return AS_PUBLISHED
        return Settings(
            precision=precision,
            channels_last=bool(found["channels_last"]),
            compile=bool(found["compile"]),
            window_batch=found["window_batch"],
        )
    except (OSError, ValueError, KeyError, TypeError):  # none, or not ours
        return AS_PUBLISHED
