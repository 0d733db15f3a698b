"""When each model was used last, and on what."""

from __future__ import annotations

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
