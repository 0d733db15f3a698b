"""The configuration in force, its secrets masked; what the file says, and applying it."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, HTTPException
from starlette.requests import Request
from starlette.responses import Response

from dicomnode import check
from dicomnode.archive.access.audit import Action
from dicomnode.config import written
from dicomnode.reload import By, Proposal
from dicomnode.web import security, surroundings
from dicomnode.web.security import ActOfAdministrator, Administrator
from dicomnode.web.shown import shown
from dicomnode.web.surroundings import Surroundings

router = APIRouter()


@router.get("/configuration")
def configuration(request: Request, _visitor: Administrator) -> Response:
    """The page."""
    return shown(request, "configuration.html", **_values(surroundings.of(request)))


@router.post("/configuration/check")
def check_now(request: Request, act: ActOfAdministrator) -> Response:
    """Check the file as it is now, and compare it with what is in force.

    Every bundle is compared with its lock, which may take long.
    """
    here = surroundings.of(request)
    proposal = _proposal(here, live=bool(act.text("live")))
    security.note(
        here,
        act.visitor,
        Action.CHECK,
        subject=here.file.name,
        detail=f"{len(proposal.problems)} problems",
    )
    return shown(request, "configuration.html", **_values(here, proposal))


@router.post("/configuration/apply")
def apply(request: Request, act: ActOfAdministrator) -> Response:
    """Bring what was shown into force, if the file still says it."""
    here = surroundings.of(request)
    if here.reload is None:
        raise HTTPException(405)
    by = By(person=act.visitor.name, address=act.visitor.address)
    done = here.reload.apply(by=by, only=act.text("shown"))
    # What could not be applied is shown anew, to be looked at; of what was, nothing is left to do.
    proposal = None if done.applied else done.proposal
    return shown(request, "configuration.html", **_values(here, proposal, done=done))


def _proposal(here: Surroundings, *, live: bool) -> Proposal:
    if here.reload is None:
        return Proposal(problems=check.run(here.file, live=live))
    return here.reload.propose(live=live)


def _values(here: Surroundings, proposal: Proposal | None = None, **more: Any) -> dict[str, Any]:
    return {
        "file": here.file,
        "tables": list(written.tables(here.configuration)),
        "proposal": proposal,
        "waiting": here.reload.waiting if here.reload else (),
        "done": None,
    } | more
