"""When each model was used last, and on what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from dicomnode.archive import tables


@dataclass(frozen=True, kw_only=True)
class Use:
    """The last job that a model ran.

    Attributes:
        device: Where it ran: "cuda:0", "cpu".
        at: When it ended, or began where it has not; seconds since the epoch.
    """

    device: str
    at: float


def last(tx: Connection) -> dict[str, Use]:
    """Model → its last use; a model that no worker has run yet is not among them."""
    columns = tables.job.c
    at = func.coalesce(columns.ended_at, columns.created_at)
    rows = tx.execute(
        select(columns.model, columns.device, at.label("at"))
        .where(columns.device != "")
        .order_by(at, columns.id)
    )
    return {row.model: Use(device=row.device, at=row.at) for row in rows}


@dataclass(frozen=True, kw_only=True)
class Run:
    """One job that a model ran to its end, with the seconds that each stage took."""

    device: str
    ended_at: float
    timings: Mapping[str, float]


def runs(tx: Connection, model: str, *, limit: int) -> list[Run]:
    """The last jobs that a model ran, the newest first."""
    columns = tables.job.c
    rows = tx.execute(
        select(columns.device, columns.ended_at, columns.timings)
        .where(columns.model == model, columns.ended_at.is_not(None), columns.device != "")
        .order_by(columns.ended_at.desc())
        .limit(limit)
    )
    return [Run(device=row.device, ended_at=row.ended_at, timings=row.timings) for row in rows]
