"""`tuning.json`: the fastest way of running a model on this machine, as `models tune` found it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dicomnode.bundle import TUNING_NAME, lock_path


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """What was measured.

    Attributes:
        digest: Of the files that were measured.
        described: How the model computes: "bfloat16, channels last, 4 windows at once".
        seconds: Of one run; `seconds_float32` as the bundle is published.
    """

    digest: str
    device: str
    described: str
    seconds: float | None
    seconds_float32: float | None
    memory_bytes: int | None
    measured_at: str


def read(root: Path, *, manifest: Path | None = None) -> Tuning | None:
    """What lies beside the lock; `None` where nothing does, or nothing that can be read."""
    path = lock_path(root, manifest=manifest).with_name(TUNING_NAME)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(content, Mapping) or not isinstance(content.get("digest"), str):
        return None
    return Tuning(
        digest=content["digest"],
        device=str(content.get("device") or ""),
        described=_described(content),
        seconds=_number(content, "seconds"),
        seconds_float32=_number(content, "seconds_float32"),
        memory_bytes=None if (size := _number(content, "memory_bytes")) is None else int(size),
        measured_at=str(content.get("measured_at") or ""),
    )


def _described(content: Mapping[str, Any]) -> str:
    windows = content.get("window_batch")
    parts = [
        str(content.get("precision") or "float32"),
        "channels last" if content.get("channels_last") else "",
        "compiled" if content.get("compile") else "",
        f"{windows} windows at once" if isinstance(windows, int) and windows > 1 else "",
    ]
    return ", ".join(part for part in parts if part)


def _number(content: Mapping[str, Any], key: str) -> float | None:
    raw = content.get(key)
    return float(raw) if isinstance(raw, int | float) and not isinstance(raw, bool) else None
