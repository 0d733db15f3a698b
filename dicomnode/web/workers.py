"""Workers and devices: what runs, what waits, and how much room there is."""

from __future__ import annotations

import shutil
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from dicomnode import config
from dicomnode.archive.asked import accounts, figures
from dicomnode.archive.work import hold
from dicomnode.web import alerts, health, surroundings
from dicomnode.web.security import Viewer
from dicomnode.web.shown import shown
from dicomnode.web.surroundings import Surroundings

router = APIRouter()

_SHOWN = 20


@router.get("/workers")
def workers(request: Request, _visitor: Viewer) -> Response:
    """The page."""
    return shown(request, "workers.html", **_values(surroundings.of(request)))


@router.get("/workers-part")
def workers_part(request: Request, _visitor: Viewer) -> Response:
    """What of it changes."""
    return shown(request, "workers_part.html", **_values(surroundings.of(request)))


def _values(here: Surroundings) -> dict[str, Any]:
    now = here.clock()
    with here.database.read() as tx:
        values = {
            "workers": accounts.workers(tx, since=now - here.configuration.worker.lease_s),
            "running": hold.running(tx, limit=_SHOWN),
            "waiting": hold.waiting(tx, limit=_SHOWN),
            "queues": {str(task): queue for task, queue in figures.queues(tx).items()},
            "received": figures.received(tx),
            **alerts.current(tx),
        }
    return values | {"disk": _disk(here), "checks": list(health.checked(here))}


def _disk(here: Surroundings) -> dict[str, float]:
    usage = shutil.disk_usage(here.data_dir)
    file = config.sqlite_file(here.configuration.database.url)
    return {
        "total": usage.total,
        "free": usage.free,
        "used_share": round(1000 * (usage.total - usage.free) / usage.total),
        "database": file.stat().st_size if file is not None and file.exists() else 0,
    }
