"""The messages that the collector does not have yet, and how sending them fares.

A message is written in the transaction of what it tells of, as it will be sent, and is deleted once
the collector has it. Its row is the only copy.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection, func, select, update

from dicomnode.archive import tables
from dicomnode.archive.database import in_parts
from dicomnode.auditing import message as messages
from dicomnode.auditing.codes import Kind
from dicomnode.auditing.message import Message
from dicomnode.auditing.recorder import OPTION, Recorder

_ID = 1


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """A message that waits.

    Attributes:
        at: When it happened (seconds since the epoch).
        process: The process that wrote it down.
        body: Its XML.
    """

    id: int
    at: float
    process: str
    body: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class State:
    """How the messages fare.

    Attributes:
        failed: Attempts to reach the collector in vain.
        dropped: Messages that were too old, too many, or too long for their transport, and those
            that could not be made.
        failing_since: `None` while all is well.
    """

    waiting: int = 0
    sent: int = 0
    failed: int = 0
    dropped: int = 0
    sent_at: float | None = None
    failing_since: float | None = None
    reason: str = ""
    detail: str = ""


def recorder(tx: Connection, kind: Kind) -> Recorder | None:
    """Who tells of something of this kind; `None` where nobody does."""
    found: Recorder | None = tx.get_execution_options().get(OPTION)
    return found if found is not None and found.tells(kind) else None


def is_recorded(tx: Connection) -> bool:
    """Whether anybody tells of anything in this transaction."""
    return tx.get_execution_options().get(OPTION) is not None


def put(tx: Connection, recorder: Recorder, message: Message) -> None:
    """Add a message, in the transaction of what it tells of."""
    tx.execute(
        tables.audit_message.insert().values(
            at=message.at,
            process=str(os.getpid()),
            body=messages.xml(message, recorder.source),
        )
    )


def waiting(tx: Connection, *, limit: int, besides: Collection[int] = ()) -> list[Waiting]:
    """The oldest messages, in their order.

    Args:
        besides: Those that are not asked for; no more than a few hundred.
    """
    columns = tables.audit_message.c
    # Not "those after the last": what was committed later may have a lower number (PostgreSQL).
    rows = tx.execute(
        select(tables.audit_message).order_by(columns.id).limit(limit + len(besides))
    ).all()
    found = [
        Waiting(id=row.id, at=row.at, process=row.process, body=row.body)
        for row in rows
        if row.id not in besides
    ]
    return found[:limit]


def settle(tx: Connection, ids: Sequence[int], *, at: float) -> None:
    """The collector has these."""
    _delete(tx, ids)
    _update(tx, sent=len(ids), sent_at=at, failing_since=None, reason="", detail="")


def _delete(tx: Connection, ids: Sequence[int]) -> None:
    column = tables.audit_message.c.id
    for part in in_parts(ids):
        tx.execute(tables.audit_message.delete().where(column.in_(part)))


def fail(tx: Connection, *, reason: str, detail: str, at: float) -> None:
    """The collector could not be reached, or broke off."""
    _update(tx, failed=1, reason=reason, detail=detail)
    columns = tables.audit_collector.c
    tx.execute(
        update(tables.audit_collector)
        .where(columns.failing_since.is_(None))
        .values(failing_since=at)
    )


def discard(tx: Connection, ids: Sequence[int]) -> None:
    """These cannot be sent, ever."""
    _delete(tx, ids)
    _update(tx, dropped=len(ids))


def give_up(tx: Connection) -> None:
    """A message could not be made."""
    _update(tx, dropped=1)


def expired(tx: Connection, *, before: float, most: int) -> list[int]:
    """The messages that are older than `before`, and the oldest ones beyond so many."""
    columns = tables.audit_message.c
    old = list(tx.scalars(select(columns.id).where(columns.at < before)))
    surplus = _count(tx) - len(old) - most
    if surplus <= 0:
        return old
    others = select(columns.id).where(columns.at >= before).order_by(columns.id).limit(surplus)
    return [*old, *tx.scalars(others)]


def state(tx: Connection) -> State:
    """How the messages fare."""
    row = tx.execute(select(tables.audit_collector)).mappings().one_or_none()
    known = {str(name): value for name, value in row.items() if name != "id"} if row else {}
    return State(waiting=_count(tx), **known)


def _count(tx: Connection) -> int:
    return tx.scalar(select(func.count()).select_from(tables.audit_message)) or 0


def _update(
    tx: Connection,
    *,
    sent: int = 0,
    failed: int = 0,
    dropped: int = 0,
    **values: float | str | None,
) -> None:
    table = tables.audit_collector
    added = {
        "sent": table.c.sent + sent,
        "failed": table.c.failed + failed,
        "dropped": table.c.dropped + dropped,
    }
    touched = tx.execute(update(table).where(table.c.id == _ID).values(added | values))
    if not touched.rowcount:
        first = {"reason": "", "detail": "", "sent": sent, "failed": failed, "dropped": dropped}
        tx.execute(table.insert().values(first | {"id": _ID} | values))
