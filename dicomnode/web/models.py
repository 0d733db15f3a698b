"""The models: what each is, what it is for, how long it takes."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from dicomnode.archive.asked import usage
from dicomnode.archive.asked.usage import Run
from dicomnode.bundle import Bundle
from dicomnode.web import surroundings
from dicomnode.web.security import Viewer
from dicomnode.web.shown import shown

router = APIRouter()

_RUNS = 200  # of late, that the seconds are taken from
_LONGEST_README = 20_000


@dataclass(frozen=True, kw_only=True)
class Time:
    """How long a stage takes: half of the runs are quicker, and 19 of 20."""

    stage: str
    p50_s: float
    p95_s: float


@dataclass(frozen=True, kw_only=True)
class Card:
    """One model."""

    name: str
    bundle: Bundle | None
    fault: str
    readme: str
    runs: int
    last: Run | None
    times: tuple[Time, ...]
    rules: tuple[str, ...]


@router.get("/models")
def models(request: Request, _visitor: Viewer) -> Response:
    """The page."""
    here = surroundings.of(request)
    cards = []
    with here.database.read() as tx:
        for name, found in here.bundles.items():
            bundle = found if isinstance(found, Bundle) else None
            runs = usage.runs(tx, name, limit=_RUNS)
            cards.append(
                Card(
                    name=name,
                    bundle=bundle,
                    fault="" if bundle else str(found),
                    readme=_readme(bundle.root) if bundle else "",
                    runs=len(runs),
                    last=runs[0] if runs else None,
                    times=tuple(_times(runs)),
                    rules=tuple(r.name for r in here.configuration.routes if r.model == name),
                )
            )
    return shown(request, "models.html", cards=cards, most=_RUNS)


def _readme(root: Path) -> str:
    try:
        text = (root / "docs" / "README.md").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return text[:_LONGEST_README]


def _times(runs: Sequence[Run]) -> list[Time]:
    by_stage: dict[str, list[float]] = defaultdict(list)
    for run in runs:
        for stage, seconds in run.timings.items():
            by_stage[stage].append(seconds)
    return [
        Time(stage=stage, p50_s=_at(values, 0.5), p95_s=_at(values, 0.95))
        for stage, values in by_stage.items()
    ]


def _at(values: Sequence[float], share: float) -> float:
    """The value that so many of all do not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
