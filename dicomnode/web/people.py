"""Who may sign in, and what everybody did. Accounts are made with `dicomnode users`."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from dicomnode.archive.access import audit, deeds
from dicomnode.archive.access import people as accounts
from dicomnode.web import surroundings
from dicomnode.web.security import Administrator
from dicomnode.web.shown import shown

router = APIRouter()

_LINES = 100
_LAST_ID = 2**63 - 1  # that a database has


@router.get("/people")
def people(request: Request, _visitor: Administrator) -> Response:
    """The accounts."""
    here = surroundings.of(request)
    with here.database.read() as tx:
        every = accounts.every(tx)
        sessions = accounts.last_seen(tx, at=here.clock())
    return shown(
        request,
        "people.html",
        people=every,
        sessions=sessions,
        file=here.file,
        provider=here.configuration.oidc.issuer,
    )


@router.get("/audit")
def trail(
    request: Request,
    visitor: Administrator,
    before: Annotated[int, Query(ge=0, le=_LAST_ID)] | None = None,
    person: str = "",
) -> Response:
    """The audit trail. That it is read is told to a collector, where there is one."""
    here = surroundings.of(request)
    if here.database.recorder is not None:
        with here.database.write() as tx:
            deeds.trail_read(tx, visitor.name, address=visitor.address, at=here.clock())
    with here.database.read() as tx:
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
