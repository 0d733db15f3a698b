"""Messages about alerts: each waits for its channel, is sent once, or grows too old to matter."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, and_, func, or_, select, update

from dicomnode.alert import Channel, Kind, Occasion
from dicomnode.archive import tables

_COLUMNS = tables.alert_message.c
# No pause and no claim is as long: what lies farther ahead was written before the clock was set
# back, and would silence its channel until then.
_FARTHEST_S = 3600.0


class State(StrEnum):
    """What became of a message."""

    WAITING = "waiting"
    SENT = "sent"
    DROPPED = "dropped"  # a later one says the same and more, or it was not sent in time


@dataclass(frozen=True, kw_only=True)
class Message:
    """One message, and what it is about. Times are seconds since the epoch.

    Attributes:
        at: The moment that it speaks of.
        facts: What was counted then.
        attempts: Those that were made in vain.
    """

    id: int
    alert: int
    channel: Channel
    occasion: Occasion
    kind: Kind
    subject: str
    since: float
    at: float
    facts: Mapping[str, Any]
    attempts: int


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """Messages of one channel that were tried in vain and wait for another attempt.

    Attributes:
        since: When the oldest was written.
        not_before: When the next attempt is made.
    """

    channel: str
    count: int
    since: float
    not_before: float
    reason: str
    detail: str


@dataclass(frozen=True, kw_only=True)
class Line:
    """One message as a page lists it."""

    alert: int
    channel: str
    occasion: str
    state: str
    at: float
    sent_at: float | None
    attempts: int
    reason: str
    detail: str


def add(
    tx: Connection,
    alert: int,
    channels: Iterable[Channel],
    occasion: Occasion,
    *,
    at: float,
    facts: Mapping[str, Any],
) -> None:
    """Let each channel say something of an alert."""
    for channel in channels:
        tx.execute(
            tables.alert_message.insert().values(
                alert=alert,
                channel=channel,
                occasion=occasion,
                state=State.WAITING,
                at=at,
                facts=dict(facts),
                attempts=0,
                not_before=at,
                reason="",
                detail="",
            )
        )


def waiting_for(tx: Connection, alert: int) -> set[str]:
    """The channels that have yet to send something about an alert."""
    return set(
        tx.scalars(
            select(_COLUMNS.channel).where(_COLUMNS.alert == alert, _COLUMNS.state == State.WAITING)
        )
    )


def drop(tx: Connection, alert: int, *, at: float) -> None:
    """Let what waits of an alert be sent no more; what is just being sent goes on."""
    tx.execute(
        update(tables.alert_message)
        .where(_COLUMNS.alert == alert, _COLUMNS.state == State.WAITING, _is_free(at))
        .values(state=State.DROPPED)
    )


def _is_free(at: float) -> Any:
    until = _COLUMNS.lease_until
    return or_(until.is_(None), until < at, until > at + _FARTHEST_S)


def _is_due(at: float) -> Any:
    not_before = _COLUMNS.not_before
    return and_(or_(not_before <= at, not_before > at + _FARTHEST_S), _is_free(at))


def _waits(channel: Channel) -> Any:
    return and_(_COLUMNS.state == State.WAITING, _COLUMNS.channel == channel)


def _oldest(channel: Channel) -> Any:
    """The message of a channel that goes first; one about what only a newer node knows does not."""
    return (
        select(tables.alert_message, tables.alert.c.kind, tables.alert.c.subject,
               tables.alert.c.since)
        .join(tables.alert, tables.alert.c.id == _COLUMNS.alert)
        .where(_waits(channel), tables.alert.c.kind.in_(tuple(Kind)))
        .order_by(_COLUMNS.id)
        .limit(1)
    )  # fmt: skip


def anything_due(tx: Connection, channel: Channel, *, at: float) -> bool:
    """Whether `claim` could have something to give: a look that takes no lock."""
    oldest = tx.execute(_oldest(channel)).one_or_none()
    if oldest is None:
        return False
    return tx.scalar(select(_COLUMNS.id).where(_COLUMNS.id == oldest.id, _is_due(at))) is not None


def claim(tx: Connection, channel: Channel, *, at: float, lease_s: float) -> Message | None:
    """Take up the oldest message of a channel, for this node alone.

    Messages of one channel go one after the other: the end of an alert never comes before its
    begin.

    Returns:
        `None` where none waits, the channel is left alone for a while, or another node sends.
    """
    found = tx.execute(_oldest(channel)).one_or_none()
    if found is None:
        return None
    taken = tx.execute(
        update(tables.alert_message)
        .where(_COLUMNS.id == found.id, _waits(channel), _is_due(at))
        .values(lease_until=at + lease_s)
    )
    if not taken.rowcount:
        return None
    return Message(
        id=found.id,
        alert=found.alert,
        channel=channel,
        occasion=Occasion(found.occasion),
        kind=Kind(found.kind),
        subject=found.subject,
        since=found.since,
        at=found.at,
        facts=found.facts,
        attempts=found.attempts,
    )


def sent(tx: Connection, message: Message, *, at: float, amiss: str = "") -> None:
    """Write down that somebody was told; the channel works, so the others go at once.

    Args:
        amiss: What is not as it should be all the same, as a sentence.
    """
    _change(tx, message, state=State.SENT, sent_at=at, lease_until=None, reason="", detail=amiss)
    tx.execute(
        update(tables.alert_message)
        .where(
            _COLUMNS.channel == message.channel,
            _COLUMNS.state == State.WAITING,
            _COLUMNS.not_before > at,
        )
        .values(not_before=at)
    )


def put_off(
    tx: Connection, message: Message, *, not_before: float, reason: str, detail: str
) -> None:
    """Let a message wait that could not be sent."""
    _change(
        tx,
        message,
        attempts=message.attempts + 1,
        not_before=not_before,
        lease_until=None,
        reason=reason,
        detail=detail,
    )


def release(tx: Connection, message: Message) -> None:
    """Give back a message that nobody tried to send."""
    _change(tx, message, lease_until=None)


def drop_old(tx: Connection, *, before: float, at: float) -> int:
    """Let messages be sent no more that were written before a moment; returns how many."""
    dropped = tx.execute(
        update(tables.alert_message)
        .where(_COLUMNS.state == State.WAITING, _COLUMNS.at < before, _is_free(at))
        .values(state=State.DROPPED)
    )
    return dropped.rowcount


def _change(tx: Connection, message: Message, **values: Any) -> None:
    # One that was dropped meanwhile stays so, unless it was sent after all.
    tx.execute(update(tables.alert_message).where(_COLUMNS.id == message.id).values(values))


def troubles(tx: Connection) -> list[Trouble]:
    """Each channel that does not work, and why."""
    of_channel = (_COLUMNS.state == State.WAITING, _COLUMNS.attempts > 0)
    rows = tx.execute(
        select(
            _COLUMNS.channel, func.count().label("messages"), func.min(_COLUMNS.at).label("since")
        )
        .where(_COLUMNS.state == State.WAITING)
        .group_by(_COLUMNS.channel)
        .order_by(_COLUMNS.channel)
    ).all()
    last = {
        row.channel: row
        for row in tx.execute(
            select(tables.alert_message).where(*of_channel).order_by(_COLUMNS.id.desc())
        )
    }
    return [
        Trouble(
            channel=row.channel,
            count=row.messages,
            since=row.since,
            not_before=last[row.channel].not_before,
            reason=last[row.channel].reason,
            detail=last[row.channel].detail,
        )
        for row in rows
        if row.channel in last
    ]


def of_alerts(tx: Connection, alerts: Sequence[int]) -> dict[int, list[Line]]:
    """Alert → its messages, in the order in which they were written."""
    found: dict[int, list[Line]] = {}
    rows = tx.execute(
        select(tables.alert_message).where(_COLUMNS.alert.in_(alerts)).order_by(_COLUMNS.id)
    )
    for row in rows:
        line = Line(
            alert=row.alert,
            channel=row.channel,
            occasion=row.occasion,
            state=row.state,
            at=row.at,
            sent_at=row.sent_at,
            attempts=row.attempts,
            reason=row.reason,
            detail=row.detail,
        )
        found.setdefault(row.alert, []).append(line)
    return found


def waiting(tx: Connection) -> dict[str, int]:
    """Channel → messages that wait."""
    rows = tx.execute(
        select(_COLUMNS.channel, func.count())
        .where(_COLUMNS.state == State.WAITING)
        .group_by(_COLUMNS.channel)
    )
    return {row[0]: int(row[1]) for row in rows}
