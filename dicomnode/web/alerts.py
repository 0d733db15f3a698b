"""What is wrong now, what was, and what was said of it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from dicomnode.alert import Kind
from dicomnode.alerting import account
from dicomnode.alerting.about import ABOUT
from dicomnode.archive.alerts import messages, standing
from dicomnode.web import surroundings
from dicomnode.web.security import Viewer
from dicomnode.web.shown import shown

router = APIRouter()

_ON_A_PAGE = 50
#: As many as a row of a database can be numbered.
_Place = Annotated[int | None, Query(ge=0, lt=2**63)]


@router.get("/alerts")
def alerts(request: Request, _visitor: Viewer, before: _Place = None) -> Response:
    """The page."""
    return shown(request, "alerts.html", **_values(request, before))


@router.get("/alerts-part")
def alerts_part(request: Request, _visitor: Viewer, before: _Place = None) -> Response:
    """What of it changes."""
    return shown(request, "alerts_part.html", **_values(request, before))


def current(tx: Connection) -> dict[str, Any]:
    """What other pages say of what is wrong."""
    return {
        "wrong": [account.line(one) for one in standing.open_now(tx)],
        "unsent": messages.troubles(tx),
    }


def _values(request: Request, before: int | None) -> dict[str, Any]:
    here = surroundings.of(request)
    with here.database.read() as tx:
        every = standing.history(tx, limit=_ON_A_PAGE + 1, before=before)
        lines = every[:_ON_A_PAGE]
        return current(tx) | {
            "lines": [account.line(one) for one in lines],
            "said": messages.of_alerts(tx, [one.id for one in lines]),
            "about": {str(kind): ABOUT[kind] for kind in Kind},
            "before": before,
            "older": lines[-1].id if len(every) > _ON_A_PAGE else None,
            "channels": here.configuration.alerts.channels,
        }
