"""Who may sign in, and what everybody did. Accounts are made with `dicomnode users`."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from dicomnode.archive.access import audit
from dicomnode.archive.access import people as accounts
from dicomnode.web import surroundings
from dicomnode.web.security import Administrator
from dicomnode.web.shown import shown

router = APIRouter()

_LINES = 100


@router.get("/people")
def people(request: Request, _visitor: Administrator) -> Response:
    """The accounts."""
    here = surroundings.of(request)
    with here.database.read() as tx:
        every = accounts.every(tx)
        sessions = accounts.last_seen(tx, at=here.clock())
    return shown(request, "people.html", people=every, sessions=sessions, file=here.file)


@router.get("/audit")
def trail(
    request: Request,
    _visitor: Administrator,
    before: int | None = None,
    person: str = "",
) -> Response:
    """The audit trail."""
    with surroundings.of(request).database.read() as tx:
        lines = audit.newest(tx, limit=_LINES + 1, before=before, person=person[:64])
        names = [one.name for one in accounts.every(tx)]
    return shown(
        request,
        "audit.html",
        lines=lines[:_LINES],
        has_more=len(lines) > _LINES,
        is_first=before is None,
        person=person,
        names=names,
    )
