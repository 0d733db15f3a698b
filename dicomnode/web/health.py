"""What machines ask: whether the node lives, whether it can receive, and its numbers."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from dicomnode import log
from dicomnode.errors import NodeError
from dicomnode.web import surroundings
from dicomnode.web.surroundings import Surroundings

_log = log.get(__name__)

router = APIRouter()

_GIB = 2**30


@router.get("/healthz")
def healthz() -> Response:
    """The process lives."""
    return JSONResponse({"alive": True})


@router.get("/readyz")
def readyz(request: Request) -> Response:
    """Whether an association that comes now will do: 200, or 503 and what is wrong."""
    checks = {
        name: {"ok": ok, "detail": said} for name, ok, said in checked(surroundings.of(request))
    }
    ready = all(one["ok"] for one in checks.values())
    return JSONResponse({"ready": ready, "checks": checks}, 200 if ready else 503)


def checked(here: Surroundings) -> Iterator[tuple[str, bool, str]]:
    """Each check: its name, whether all is well, and a word for people."""
    yield ("database", *_database(here))
    listening = here.is_listening()
    yield "listener", listening, "takes associations" if listening else "no listener is running"
    yield ("disk", *_disk(here))


def _database(here: Surroundings) -> tuple[bool, str]:
    try:
        return (True, "answers") if here.database.has_schema() else (False, "has no tables")
    except NodeError as error:
        _log.warning("database does not answer", reason=error.reason, detail=error.detail)
        return False, "does not answer"


def _disk(here: Surroundings) -> tuple[bool, str]:
    floor = here.configuration.disk.floor_gib
    try:
        free = shutil.disk_usage(here.data_dir).free / _GIB
    except OSError as error:
        return False, f"does not say how full it is ({error.strerror})"
    return free >= floor, f"{free:.1f} GiB free, everything is refused below {floor:g}"


@router.get("/metrics")
def metrics(request: Request) -> Response:
    """The numbers, as Prometheus reads them."""
    registry: Any = request.app.state.registry
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
