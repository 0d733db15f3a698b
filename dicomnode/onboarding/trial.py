"""A model run once on synthetic images, in a process of its own: torch stays out of this one."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: A large model on a slow machine; nobody waits longer for a first look.
TIMEOUT_S = 1800.0
_SHOWN = 400  # characters of what a process said at its end


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What came of it.

    Attributes:
        ran: Whether it answered.
        seconds: Of the one run.
        answers: Output, kind and shape of each answer.
        reason: Why it did not run, in kebab case, and `detail` in a sentence.
    """

    ran: bool
    reason: str = ""
    detail: str = ""
    device: str = ""
    seconds: float | None = None
    memory_bytes: int | None = None
    answers: list[dict[str, Any]] = field(default_factory=list)


def command(bundle: Path, *, device: str | None, draft: bool) -> list[str]:
    """The command line of a trial.

    Args:
        draft: Run it though its manifest is not confirmed.
    """
    line = [sys.executable, "-m", "workers", "try", str(bundle), "--json"]
    line += ["--device", device] if device else []
    return line + (["--draft"] if draft else [])


def run(
    bundle: Path,
    *,
    device: str | None = None,
    draft: bool = False,
    timeout_s: float = TIMEOUT_S,
) -> Trial:
    """Try a bundle; whatever happens is told in the answer."""
    line = command(bundle, device=device, draft=draft)
    try:
        ended = subprocess.run(  # noqa: S603 - our own program
            line, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired:
        return Trial(
            ran=False,
            reason="trial-too-slow",
            detail=f"The model had not answered after {timeout_s:g} s.",
        )
    except OSError as error:
        return Trial(ran=False, reason="trial-impossible", detail=f"{line[0]}: {error.strerror}.")
    return _told(ended.stdout, ended.stderr, code=ended.returncode)


def _told(out: str, err: str, *, code: int) -> Trial:
    try:
        document = json.loads(out)
    except ValueError:
        document = None
    if not isinstance(document, dict) or "ran" not in document:
        last = _last_words(err)
        return Trial(
            ran=False,
            reason="trial-died",
            detail=f"The trial ended with exit code {code}: {last[:_SHOWN]}",
        )
    return Trial(
        ran=document["ran"] is True,
        reason=str(document.get("reason") or ""),
        detail=str(document.get("detail") or ""),
        device=str(document.get("device") or ""),
        seconds=_number(document.get("seconds")),
        memory_bytes=_whole(document.get("memory_bytes")),
        answers=[one for one in document.get("answers") or () if isinstance(one, dict)],
    )


def _last_words(err: str) -> str:
    lines = (line.strip() for line in reversed(err.splitlines()))
    return next((line for line in lines if any(map(str.isalnum, line))), "it said nothing")


def _number(raw: Any) -> float | None:
    return float(raw) if isinstance(raw, int | float) else None


def _whole(raw: Any) -> int | None:
    return int(raw) if isinstance(raw, int | float) else None
