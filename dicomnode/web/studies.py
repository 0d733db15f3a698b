"""The list of studies: live, searched, filtered, a page at a time. The URL holds what is shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime, time, timedelta
from typing import Any

from fastapi import APIRouter
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from dicomnode.archive.asked import accounts, finding
from dicomnode.archive.asked.accounts import Outcome
from dicomnode.archive.asked.finding import Place, Query
from dicomnode.web import alerts, surroundings
from dicomnode.web.security import Viewer
from dicomnode.web.shown import shown

router = APIRouter()

_ON_A_PAGE = 50
_OUTCOMES = tuple(Outcome)


@dataclass(frozen=True, kw_only=True)
class Filter:
    """What is looked for, as it stands in the URL. What cannot be understood is left out."""

    q: str = field(default="", repr=False)
    outcome: str = ""
    modality: str = ""
    begin: str = ""
    end: str = ""
    older: str = ""
    newer: str = ""

    @classmethod
    def of(cls, values: Mapping[str, str]) -> Filter:
        """From the URL."""
        names = {"begin": "from", "end": "to"}
        given = {one: values.get(names.get(one, one), "").strip() for one in cls.__annotations__}
        return cls(**given)

    @property
    def url(self) -> dict[str, str]:
        """For the URL."""
        return {
            "q": self.q, "outcome": self.outcome, "modality": self.modality, "from": self.begin,
            "to": self.end, "older": self.older, "newer": self.newer,
        }  # fmt: skip

    @property
    def is_empty(self) -> bool:
        """Whether every study is shown."""
        return replace(self, older="", newer="") == Filter()

    def at(self, *, older: Place | None = None, newer: Place | None = None) -> dict[str, str]:
        """The URL of another page of the same list."""
        return replace(self, older=_written(older), newer=_written(newer)).url

    @property
    def query(self) -> Query:
        """For the archive."""
        begin, end = _day(self.begin), _day(self.end)
        return Query(
            text=self.q[:128],
            outcome=Outcome(self.outcome) if self.outcome in _OUTCOMES else None,
            modality=self.modality[:16],
            since=midnight(begin) if begin else None,
            until=midnight(end + timedelta(days=1)) if end else None,
            older=_place(self.older),
            newer=_place(self.newer),
        )


def midnight(day: date) -> float:
    """When a day begins on the clock of this machine, in seconds since the epoch."""
    return datetime.combine(day, time()).astimezone().timestamp()


def today(now: float) -> date:
    """The day on the calendar of this machine."""
    return datetime.fromtimestamp(now).astimezone().date()


def _day(text: str) -> date | None:
    try:
        found = date.fromisoformat(text)
    except ValueError:
        return None
    # `datetime` knows no day before and none after these.
    return found if date(1971, 1, 1) < found < date(9998, 1, 1) else None


def _written(place: Place | None) -> str:
    return "" if place is None else f"{place.first_at!r}_{place.study_instance_uid}"


def _place(text: str) -> Place | None:
    at, _, uid = text.partition("_")
    try:
        return Place(first_at=float(at), study_instance_uid=uid[:64]) if uid else None
    except ValueError:
        return None


@router.get("/")
def first_page(_visitor: Viewer) -> Response:
    """The list."""
    return RedirectResponse("/studies", 303)


@router.get("/studies")
def studies(request: Request, _visitor: Viewer) -> Response:
    """The list with all around it."""
    asked = Filter.of(request.query_params)
    with surroundings.of(request).database.read() as tx:
        known = finding.modalities(tx)
        values = _listed(request, tx, asked)
    return shown(request, "studies.html", outcomes=_OUTCOMES, modalities=known, **values)


@router.get("/studies-list")
def studies_list(request: Request, _visitor: Viewer) -> Response:
    """The list alone, for a page that is shown already."""
    with surroundings.of(request).database.read() as tx:
        values = _listed(request, tx, Filter.of(request.query_params))
    return shown(request, "studies_list.html", **values)


def _listed(request: Request, tx: Connection, asked: Filter) -> dict[str, Any]:
    found = finding.page(tx, asked.query, limit=_ON_A_PAGE)
    day = today(surroundings.of(request).clock())
    lines = found.lines
    return {
        "asked": asked,
        "page": found,
        "older": asked.at(older=lines[-1].place) if found.has_older and lines else None,
        "newer": asked.at(newer=lines[0].place) if found.has_newer and lines else None,
        "account": accounts.account(tx, since=midnight(day)),
        "today": day.isoformat(),
        **alerts.current(tx),
    }
