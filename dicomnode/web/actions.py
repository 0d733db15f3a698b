"""What an operator may do with the jobs of a study. Each is written down, with how it ended."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import APIRouter, HTTPException
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from dicomnode.archive.access import audit
from dicomnode.archive.access.audit import Action, Result
from dicomnode.archive.work import by_hand, jobs, moves, revisions
from dicomnode.archive.work.by_hand import Order
from dicomnode.archive.work.jobs import Job
from dicomnode.archive.work.moves import Shipment
from dicomnode.web import surroundings
from dicomnode.web.security import Act, ActOfOperator

router = APIRouter()


@router.post("/jobs/{job_id}/retry")
def retry(request: Request, job_id: str, act: ActOfOperator) -> Response:
    """Run a failed job once more, or only send its results again."""

    def do(tx: Connection, job: Job, at: float) -> bool:
        return bool(revisions.retry(tx, job.study_instance_uid, at=at, only=job.id))

    return _done(request, act, job_id, Action.RETRY, do)


@router.post("/jobs/{job_id}/cancel")
def cancel(request: Request, job_id: str, act: ActOfOperator) -> Response:
    """Take back a job that nobody has begun."""

    def do(tx: Connection, job: Job, at: float) -> bool:
        return moves.cancel(tx, job.id, at=at)

    return _done(request, act, job_id, Action.CANCEL, do)


@router.post("/jobs/{job_id}/run")
def run(request: Request, job_id: str, act: ActOfOperator) -> Response:
    """Run another model of the configuration on the same images."""
    name = act.text("model")
    bundle = surroundings.of(request).models.get(name)
    if bundle is None or len(bundle.manifest.inputs) != 1:
        raise HTTPException(422)
    (only,) = bundle.manifest.inputs

    def do(tx: Connection, job: Job, at: float) -> bool:
        order = Order(model=name, digest=bundle.digest, input=only, send_to=job.send_to)
        return by_hand.run(tx, job.id, order, at=at) is not None

    return _done(request, act, job_id, Action.RUN, do, detail=name)


@router.post("/jobs/{job_id}/send")
def send(request: Request, job_id: str, act: ActOfOperator) -> Response:
    """Send the results to one more destination."""
    name = act.text("destination")
    peer = surroundings.of(request).configuration.peers.get(name)
    if peer is None or peer.port is None:
        raise HTTPException(422)
    shipment = Shipment(profile=peer.gets.digest, superseded=peer.gets.superseded)

    def do(tx: Connection, job: Job, at: float) -> bool:
        return moves.send_also(tx, job.id, name, shipment, at=at)

    return _done(request, act, job_id, Action.SEND, do, detail=name)


def _done(
    request: Request,
    act: Act,
    job_id: str,
    action: Action,
    do: Callable[[Connection, Job, float], bool],
    *,
    detail: str = "",
) -> Response:
    """Do it, write it down in the same transaction, and show the study."""
    here = surroundings.of(request)
    at = here.clock()
    with here.database.write() as tx:
        job = jobs.job(tx, job_id)
        if job is None:
            raise HTTPException(404)
        did = do(tx, job, at)
        audit.write(
            tx,
            action,
            at=at,
            person=act.visitor.name,
            address=act.visitor.address,
            subject=f"job {job.id} of {job.study_instance_uid}",
            outcome=Result.DONE if did else Result.REFUSED,
            detail=detail,
            study=job.study_instance_uid,
        )
    word = str(action) if did else "no"
    return RedirectResponse(f"/studies/{job.study_instance_uid}?done={word}", 303)
