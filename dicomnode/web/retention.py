"""What retention would remove, and when: for the time that is configured, or for another one."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from dicomnode.archive.keeping.preview import preview
from dicomnode.web import surroundings
from dicomnode.web.security import Viewer
from dicomnode.web.shown import shown

router = APIRouter()

_MOST_DAYS = 36_500


@router.get("/retention")
def retention(
    request: Request,
    _visitor: Viewer,
    days: Annotated[str, Query(pattern=r"^\d{0,5}(\.\d{1,3})?$")] = "",
) -> Response:
    """The page."""
    here = surroundings.of(request)
    configured = here.configuration.disk.keep_delivered_days
    asked = min(float(days), _MOST_DAYS) if days else configured
    with here.database.read() as tx:
        found = preview(tx, days=asked, now=here.clock())
    return shown(
        request, "retention.html", found=found, configured=configured, days=days, asked=asked
    )
