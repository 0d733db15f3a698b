"""The accounting: received = delivered + not applicable + failed + in progress, at any moment."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from dicomnode.archive.asked import accounts
from dicomnode.archive.asked.accounts import Account, Outcome
from dicomnode.web import surroundings
from dicomnode.web.security import Viewer
from dicomnode.web.shown import shown
from dicomnode.web.studies import midnight, today

router = APIRouter()

_SPANS = (("Today", 1), ("Last 7 days", 7), ("Last 30 days", 30), ("All", None))
# In the order of the sum.
_TERMS = (Outcome.DELIVERED, Outcome.NOT_APPLICABLE, Outcome.FAILED, Outcome.IN_PROGRESS)


@dataclass(frozen=True, kw_only=True)
class Span:
    """The account of the studies that came since a day."""

    name: str
    begin: str
    account: Account

    @property
    def terms(self) -> list[tuple[Outcome, int]]:
        """Each outcome, and how many studies came to it."""
        return [(one, getattr(self.account, one.replace(" ", "_"))) for one in _TERMS]


@router.get("/accounting")
def accounting(request: Request, _visitor: Viewer) -> Response:
    """The page."""
    return shown(request, "accounting.html", **_values(request))


@router.get("/accounting-table")
def accounting_table(request: Request, _visitor: Viewer) -> Response:
    """The numbers alone."""
    return shown(request, "accounting_table.html", **_values(request))


def _values(request: Request) -> dict[str, Any]:
    here = surroundings.of(request)
    day = today(here.clock())
    with here.database.read() as tx:
        spans = []
        for name, days in _SPANS:
            begin = None if days is None else day - timedelta(days=days - 1)
            account = accounts.account(tx, since=_since(begin))
            spans.append(Span(name=name, begin=begin.isoformat() if begin else "", account=account))
        untold = accounts.untold(tx)
    return {"spans": spans, "untold": untold}


def _since(begin: date | None) -> float:
    return midnight(begin) if begin else 0.0
