"""When each peer was seen, and what keeps results from a destination."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from dicomnode.archive import tables
from dicomnode.archive.asked import figures
from dicomnode.job import DeliveryState


@dataclass(frozen=True, kw_only=True)
class Contact:
    """What a peer has done here.

    Attributes:
        last_at: When it associated last; `None` for never.
        associations: Since the moment that was asked about; likewise `stored` and `refused`.
        open: Associations that are open now.
    """

    last_at: float | None = None
    associations: int = 0
    stored: int = 0
    refused: int = 0
    open: int = 0


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """Why a delivery waits, or has failed."""

    state: str
    reason: str
    detail: str
    attempts: int


def seen(tx: Connection, *, since: float) -> dict[str, Contact]:
    """Peer → what it has done; "" stands for all that are unknown."""
    columns = tables.association.c
    now_open = figures.open_associations(tx)
    counted = {
        row.peer: row
        for row in tx.execute(
            select(
                columns.peer,
                func.count().label("associations"),
                func.sum(columns.stored).label("stored"),
                func.sum(columns.refused).label("refused"),
            )
            .where(columns.opened_at >= since, columns.peer.in_(_peers(tx)))
            .group_by(columns.peer)
        )
    }
    return {
        peer: Contact(
            last_at=tx.scalar(select(func.max(columns.opened_at)).where(columns.peer == peer)),
            associations=counted[peer].associations if peer in counted else 0,
            stored=int(counted[peer].stored or 0) if peer in counted else 0,
            refused=int(counted[peer].refused or 0) if peer in counted else 0,
            open=now_open.get(peer, 0),
        )
        for peer in _peers(tx)
    }


def _peers(tx: Connection) -> list[str]:
    """The peers that ever associated, found by steps through the index: there may be millions."""
    columns = tables.association.c
    found: list[str] = []
    following = tx.scalar(select(func.min(columns.peer)))
    while following is not None:
        found.append(following)
        following = tx.scalar(select(func.min(columns.peer)).where(columns.peer > following))
    return found


def trouble(tx: Connection, destination: str) -> Trouble | None:
    """What is wrong with the newest delivery to a destination that waits or failed."""
    columns = tables.delivery.c
    row = tx.execute(
        select(columns.state, columns.reason, columns.detail, columns.attempts)
        .where(
            columns.destination == destination,
            columns.state.in_((DeliveryState.PENDING, DeliveryState.FAILED)),
            columns.reason != "",
        )
        .order_by(columns.created_at.desc())
        .limit(1)
    ).one_or_none()
    if row is None:
        return None
    return Trouble(state=row.state, reason=row.reason, detail=row.detail, attempts=row.attempts)
