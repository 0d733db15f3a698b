"""What jobs and deliveries have in common: a worker takes a row up, holds it, and lets it go."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Table, update

# Both kinds of work use the same word for what nobody has taken up.
PENDING = "pending"

#: The columns of a row that nobody holds and of which no worker has been told.
LET_GO: dict[str, Any] = {"lease_owner": None, "lease_until": None, "queued_at": None}


def take(
    tx: Connection, table: Table, row_id: str, *, state: str, owner: str, at: float, lease_s: float
) -> bool:
    """Let `owner` hold a pending row whose time has come: pending → `state`.

    Returns:
        Whether it was there to be taken; otherwise nothing changes.
    """
    columns = table.c
    taken = tx.execute(
        update(table)
        .where(columns.id == row_id, columns.state == PENDING, columns.not_before <= at)
        .values(
            state=state,
            attempts=columns.attempts + 1,
            lease_owner=owner,
            lease_until=at + lease_s,
            reason="",
            detail="",
        )
    )
    return taken.rowcount == 1
