"""The application: its pages, and how each thing that goes wrong is told."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from dicomnode.errors import NodeError, RetryLater
from dicomnode.web import (
    accounting,
    actions,
    alerts,
    configuration,
    health,
    live,
    metrics,
    models,
    oidc,
    peers,
    people,
    retention,
    security,
    signing,
    studies,
    study,
    workers,
)
from dicomnode.web.guard import Guard, TooLong, TooSlow
from dicomnode.web.security import Visitor
from dicomnode.web.shown import STATIC, shown
from dicomnode.web.surroundings import Surroundings

_NOT_SIGNED_IN = 401

_SAID = {
    401: "Sign in first.",
    403: "This is not for you.",
    404: "There is nothing here.",
    405: "That cannot be done here.",
    408: "The form did not arrive in time.",
    413: "This is longer than any form.",
    422: "That is not what this page expects.",
    503: "The node cannot answer right now. Try again in a moment.",
}
#: A part of a page that a script asks for says so.
PART = "x-part"


class _Kept(StaticFiles):
    """Files whose address changes with their content: a browser may keep them."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        """The file."""
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        return response


def make(here: Surroundings) -> ASGIApp:
    """The application for these surroundings."""
    # A slash too many would be answered with an address made of the header Host: whoever sends that
    # chooses where the browser goes.
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.state.surroundings = here
    app.state.registry = metrics.registry(here)
    app.state.pulse = live.Pulse(here)
    app.state.looks = study.Looks()
    for part in (
        health, signing, oidc, live, studies, study, actions, accounting, models, peers, workers,
        configuration, people, retention, alerts,
    ):  # fmt: skip
        app.include_router(part.router)
    app.mount("/static", _Kept(directory=STATIC), name="static")
    app.add_exception_handler(AnyHTTPException, _told)
    app.add_exception_handler(RequestValidationError, _misunderstood)
    app.add_exception_handler(NodeError, _named)
    app.add_exception_handler(TooLong, _too_long)
    app.add_exception_handler(TooSlow, _too_slow)
    return Guard(app)


async def _told(request: Request, error: Exception) -> Response:
    assert isinstance(error, AnyHTTPException)  # noqa: S101 - it is the handler of these
    is_page = request.method == "GET" and PART not in request.headers
    if error.status_code == _NOT_SIGNED_IN and is_page:
        where = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(f"/sign-in?next={quote(where)}", 303)
    return await _problem(
        request, error.status_code, _SAID.get(error.status_code, "That did not work.")
    )


async def _misunderstood(request: Request, _error: Exception) -> Response:
    return await _problem(request, 422, _SAID[422])


async def _named(request: Request, error: Exception) -> Response:
    if isinstance(error, RetryLater):
        return await _problem(request, 503, _SAID[503])
    raise error


async def _too_long(request: Request, _error: Exception) -> Response:
    return await _problem(request, 413, _SAID[413])


async def _too_slow(request: Request, _error: Exception) -> Response:
    return await _problem(request, 408, _SAID[408])


async def _problem(request: Request, status: int, said: str) -> Response:
    if request.url.path in {"/healthz", "/readyz", "/metrics", "/live"}:
        return JSONResponse({"detail": said}, status)
    if security.seen(request) is None:
        # Who has signed in keeps the way back.
        request.state.visitor = await run_in_threadpool(_visitor, request)
    return shown(request, "problem.html", status=status, said=said)


def _visitor(request: Request) -> Visitor | None:
    try:
        return security.visitor_of(request)
    except NodeError:  # the database is away: that is most likely what is told of
        return None
