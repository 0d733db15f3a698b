"""One study: what came, what each rule made of it, how far each job is, and what may be done."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, HTTPException
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from dicomnode import inquiry
from dicomnode.archive import journal
from dicomnode.archive.access.audit import Action
from dicomnode.archive.asked import contained, finding
from dicomnode.archive.asked.contained import Series
from dicomnode.archive.asked.finding import Line
from dicomnode.archive.studies import decisions, index
from dicomnode.archive.studies.decisions import Recorded
from dicomnode.archive.work import deliveries, jobs, results
from dicomnode.archive.work.deliveries import Delivery
from dicomnode.archive.work.jobs import Job
from dicomnode.archive.work.results import ResultFile
from dicomnode.job import MOVES, DeliveryState, JobState, Purpose
from dicomnode.web import security, surroundings, telling
from dicomnode.web.security import Viewer, Visitor
from dicomnode.web.shown import shown
from dicomnode.web.surroundings import Surroundings

router = APIRouter()

#: The stages of a job's way, in their order; what a stage is made of is not among them.
_STAGES = ("receive", "complete", "queue", "model", "load", "infer", "build", "check", "deliver")

_DONE = {
    "retry": "The job is taken up again.",
    "cancel": "The job is cancelled.",
    "run": "The other model is asked for.",
    "send": "The results are on their way.",
}
#: So many looks are remembered.
_LOOKS = 10_000
_NOT_DONE = "That was not possible any more. What is shown is how things stand now."


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of a job's way; `share` is its part of the whole, in thousandths."""

    name: str
    seconds: float
    share: int


@dataclass(frozen=True, kw_only=True)
class Card:
    """A job with everything around it, and what may be done with it now."""

    job: Job
    stages: tuple[Stage, ...]
    total_s: float | None
    deliveries: tuple[Delivery, ...]
    results: tuple[ResultFile, ...]
    has_picture: bool
    may_retry: bool
    may_cancel: bool
    models: tuple[str, ...]
    destinations: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What the page of a study is made of."""

    line: Line
    header: Mapping[str, str] = field(repr=False)
    series: tuple[Series, ...]
    cards: tuple[Card, ...]
    superseded: int
    decided: tuple[Recorded, ...]
    events: tuple[telling.Event, ...]


@router.get("/studies/{uid}")
def study(
    request: Request,
    uid: str,
    visitor: Viewer,
    done: str = "",
) -> Response:
    """The page. Who has looked at it is written down."""
    here = surroundings.of(request)
    with here.database.read() as tx:
        found = _shown(here, tx, uid)
    _looks(request).add(visitor, uid)
    security.note(here, visitor, Action.LOOK, subject=uid, study=uid)
    said = _DONE.get(done, _NOT_DONE if done else "")
    return shown(request, "study.html", study=found, said=said, done=done in _DONE)


@router.get("/studies/{uid}/part")
def study_part(request: Request, uid: str, visitor: Viewer) -> Response:
    """What of it may change while it is looked at."""
    here = surroundings.of(request)
    with here.database.read() as tx:
        found = _shown(here, tx, uid)
    _note_without_page(request, visitor, uid)
    return shown(request, "study_part.html", study=found)


@router.get("/jobs/{job_id}/picture.png")
def picture(request: Request, job_id: str, visitor: Viewer) -> Response:
    """The picture for people that was made with the results of a job."""
    here = surroundings.of(request)
    with here.database.read() as tx:
        job, kept = jobs.job(tx, job_id), results.of_job(tx, job_id)
    file = _picture_of(here, kept)
    if job is None or file is None:
        raise HTTPException(404)
    _note_without_page(request, visitor, job.study_instance_uid)
    return FileResponse(file, media_type="image/png")


class Looks:
    """Which sessions have looked at which study, of late.

    What belongs to a page is fetched again and again, and is no look of its own; whoever fetches it
    without the page has looked all the same. What is forgotten here is written down once more.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[tuple[str, str], None] = {}

    def add(self, visitor: Visitor, uid: str) -> bool:
        """Keep it; whether it was not kept before."""
        key = (visitor.word, uid)
        with self._lock:
            is_new = key not in self._kept
            self._kept[key] = None
            if len(self._kept) > _LOOKS:
                del self._kept[next(iter(self._kept))]
        return is_new


def _looks(request: Request) -> Looks:
    looks: Looks = request.app.state.looks
    return looks


def _note_without_page(request: Request, visitor: Visitor, uid: str) -> None:
    if _looks(request).add(visitor, uid):
        here = surroundings.of(request)
        security.note(here, visitor, Action.LOOK, subject=uid, study=uid)


def _picture_of(here: Surroundings, kept: Sequence[ResultFile]) -> Any:
    """Its file, where there is one. Its path comes from the database, never from the URL."""
    root = here.data_dir.resolve()
    for one in kept:
        file = (root / one.path).with_name(results.PICTURE).resolve()
        if results.is_result(one.path) and file.is_relative_to(root) and file.is_file():
            return file
    return None


def _shown(here: Surroundings, tx: Connection, uid: str) -> Shown:
    line = finding.line(tx, uid)
    if line is None:
        raise HTTPException(404)
    every = jobs.of_study(tx, uid)
    current = [one for one in every if one.state is not JobState.SUPERSEDED]
    timings = {
        one["job"]: one["timings_s"]
        for one in inquiry.outcomes(tx, uid, data_dir=here.data_dir)
        if "job" in one
    }
    is_kept = line.state in (index.RECEIVING, index.COMPLETE)
    return Shown(
        line=line,
        header=contained.header(tx, uid),
        series=tuple(contained.series(tx, uid)),
        cards=tuple(
            _card(here, tx, one, timings.get(one.id, {}), is_kept=is_kept) for one in current
        ),
        superseded=len(every) - len(current),
        decided=tuple(decisions.newest(tx, uid)),
        events=tuple(telling.told(journal.of_study(tx, uid))),
    )


def _card(
    here: Surroundings, tx: Connection, job: Job, timings: Mapping[str, float], *, is_kept: bool
) -> Card:
    kept = tuple(results.of_job(tx, job.id))
    sent = tuple(deliveries.of_job(tx, job.id))
    return Card(
        job=job,
        stages=_stages(timings),
        total_s=timings.get("total"),
        deliveries=sent,
        results=kept,
        has_picture=_picture_of(here, kept) is not None,
        may_retry=job.state is JobState.FAILED,
        may_cancel=job.state is JobState.PENDING,
        models=_other_models(here, job) if is_kept else (),
        destinations=_other_destinations(here, job, sent, kept),
    )


def _stages(timings: Mapping[str, float]) -> tuple[Stage, ...]:
    known = {name: timings[name] for name in _STAGES if name in timings}
    whole = sum(known.values()) or 1.0
    return tuple(
        Stage(name=name, seconds=value, share=round(1000 * value / whole))
        for name, value in known.items()
    )


def _other_models(here: Surroundings, job: Job) -> tuple[str, ...]:
    """The models of the configuration that could be run on the same images.

    Its own is one of them once another bundle is in its place: a job keeps the one that it asks
    for, and may have waited for it in vain.
    """
    if len(job.inputs) != 1:
        return ()
    return tuple(
        name
        for name, bundle in here.models.items()
        if (name, bundle.digest) != (job.model, job.model_digest)
        and len(bundle.manifest.inputs) == 1
    )


def _other_destinations(
    here: Surroundings, job: Job, sent: Sequence[Delivery], kept: Sequence[ResultFile]
) -> tuple[str, ...]:
    """Where the results of a job could be sent to, and are not."""
    may_move = job.state is JobState.DELIVERING or JobState.DELIVERING in MOVES[job.state]
    if not kept or not may_move or not all(one.path for one in kept):
        return ()
    over = (DeliveryState.FAILED, DeliveryState.CANCELLED)
    served = {
        one.destination for one in sent if one.purpose is Purpose.RESULTS and one.state not in over
    }
    peers = here.configuration.peers
    return tuple(name for name, one in peers.items() if one.port is not None and name not in served)
