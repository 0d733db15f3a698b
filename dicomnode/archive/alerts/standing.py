"""How each alert stands: looming, open or over. One of each kind and subject at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Row, delete, func, select, update

from dicomnode.alert import Channel, Kind, Occasion
from dicomnode.archive import journal, tables
from dicomnode.archive.alerts import messages
from dicomnode.archive.journal import Kind as Event

_COLUMNS = tables.alert.c


class State(StrEnum):
    """How an alert stands."""

    LOOMING = "looming"  # it may pass before anybody is told
    OPEN = "open"
    OVER = "over"


@dataclass(frozen=True, kw_only=True)
class Alert:
    """One alert, from its first sign to its end. Times are seconds since the epoch.

    Attributes:
        subject: What it is about: a destination, a model, a machine; "" for the whole node.
        since: Since when something is wrong.
        seen_at: When that was seen last.
        facts: What was counted then. Nothing in it names a patient.
        begun_at: When it was first told of; `told_at` is when last.
    """

    id: int
    kind: Kind
    subject: str
    state: State
    since: float
    seen_at: float
    facts: Mapping[str, Any]
    begun_at: float | None
    told_at: float | None
    over_at: float | None

    @property
    def key(self) -> tuple[Kind, str]:
        """What there is one of at a time."""
        return self.kind, self.subject


def lock(tx: Connection) -> None:
    """Let the nodes that share a database change alerts one after the other.

    SQLite has one writer at a time as it is.
    """
    if tx.dialect.name == "postgresql":
        tx.exec_driver_sql("LOCK TABLE alert IN SHARE ROW EXCLUSIVE MODE")


def current(tx: Connection) -> list[Alert]:
    """The alerts that are looming or open, the oldest first."""
    states = (State.LOOMING, State.OPEN)
    return _alerts(
        tx.execute(
            select(tables.alert).where(_COLUMNS.state.in_(states)).order_by(_COLUMNS.id)
        ).all()
    )


def open_now(tx: Connection) -> list[Alert]:
    """The alerts that somebody was told of and that are not over, the oldest first."""
    return _alerts(
        tx.execute(
            select(tables.alert).where(_COLUMNS.state == State.OPEN).order_by(_COLUMNS.id)
        ).all()
    )


def history(tx: Connection, *, limit: int, before: int | None = None) -> list[Alert]:
    """The alerts that were told of, the newest first.

    Args:
        before: Only those older than the one of this id.
    """
    query = select(tables.alert).where(_COLUMNS.state != State.LOOMING)
    if before is not None:
        query = query.where(_COLUMNS.id < before)
    return _alerts(tx.execute(query.order_by(_COLUMNS.id.desc()).limit(limit)).all())


def _alerts(rows: Iterable[Row[Any]]) -> list[Alert]:
    known = set(Kind)
    # A word of an older or a newer node than this one is passed over.
    return [_alert(row) for row in rows if row.kind in known]


def _alert(row: Row[Any]) -> Alert:
    return Alert(
        id=row.id,
        kind=Kind(row.kind),
        subject=row.subject,
        state=State(row.state),
        since=row.since,
        seen_at=row.seen_at,
        facts=row.facts,
        begun_at=row.begun_at,
        told_at=row.told_at,
        over_at=row.over_at,
    )


def loom(
    tx: Connection, kind: Kind, subject: str, *, since: float, at: float, facts: Mapping[str, Any]
) -> Alert:
    """Write down the first sign of something; nobody is told yet."""
    values = {
        "kind": kind, "subject": subject[:64], "state": State.LOOMING, "since": since,
        "seen_at": at, "facts": dict(facts),
    }  # fmt: skip
    made = tx.execute(tables.alert.insert().values(values).returning(tables.alert))
    return _alert(made.one())


def see(
    tx: Connection, alert: Alert, *, at: float, facts: Mapping[str, Any], since: float
) -> Alert:
    """Write down that it is still so; returns the alert as it is now."""
    _change(tx, alert, seen_at=at, facts=dict(facts), since=since)
    return replace(alert, seen_at=at, facts=dict(facts), since=since)


def forget(tx: Connection, alert: Alert) -> None:
    """Let an alert that was looming be none: it has passed, and nobody was told."""
    tx.execute(delete(tables.alert).where(_COLUMNS.id == alert.id))


def begin(tx: Connection, alert: Alert, channels: Iterable[Channel], *, at: float) -> None:
    """Open an alert: looming → open. Each channel is to tell of it."""
    _change(tx, alert, state=State.OPEN, begun_at=at, told_at=at)
    messages.add(tx, alert.id, channels, Occasion.BEGUN, at=at, facts=alert.facts)
    _note(tx, Event.ALERT_BEGUN, alert, at=at)


def remind(tx: Connection, alert: Alert, channels: Iterable[Channel], *, at: float) -> None:
    """Let each channel tell once more of an alert that goes on.

    A channel that has not told of it yet has enough to say.
    """
    _change(tx, alert, told_at=at)
    waiting = messages.waiting_for(tx, alert.id)
    free = [channel for channel in channels if channel not in waiting]
    messages.add(tx, alert.id, free, Occasion.STILL, at=at, facts=alert.facts)


def end(tx: Connection, alert: Alert, channels: Iterable[Channel], *, at: float) -> None:
    """Close an alert: open → over. What was not sent of it by now, its end says as well."""
    _change(tx, alert, state=State.OVER, over_at=at)
    messages.drop(tx, alert.id, at=at)
    messages.add(tx, alert.id, channels, Occasion.OVER, at=at, facts=alert.facts)
    _note(tx, Event.ALERT_OVER, alert, at=at)


def _change(tx: Connection, alert: Alert, **values: Any) -> None:
    tx.execute(update(tables.alert).where(_COLUMNS.id == alert.id).values(values))


def _note(tx: Connection, event: Event, alert: Alert, *, at: float) -> None:
    journal.write(tx, event, at=at, alert=str(alert.kind), subject=alert.subject)


def counted(tx: Connection) -> dict[str, int]:
    """Kind → alerts that are open."""
    rows = tx.execute(
        select(_COLUMNS.kind, func.count())
        .where(_COLUMNS.state == State.OPEN)
        .group_by(_COLUMNS.kind)
    )
    return {row[0]: int(row[1]) for row in rows}
