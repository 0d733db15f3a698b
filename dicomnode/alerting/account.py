"""What is wrong, what was, and which channel does not work, as a plain document."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection

from dicomnode.alerting import wording
from dicomnode.archive.alerts import messages, standing
from dicomnode.archive.alerts.messages import Line
from dicomnode.archive.alerts.standing import Alert

Document = dict[str, Any]


def document(tx: Connection, *, limit: int) -> Document:
    """The alerts that are open, and of those before the newest `limit`."""
    every = standing.history(tx, limit=limit)
    said = messages.of_alerts(tx, [one.id for one in every])
    return {
        "open": [line(one) for one in standing.open_now(tx)],
        "alerts": [
            line(one) | {"messages": [_message(m) for m in said.get(one.id, ())]} for one in every
        ],
        "not_sent": [asdict(one) for one in messages.troubles(tx)],
    }


def line(alert: Alert) -> Document:
    """One alert. Times are seconds since the epoch."""
    return {
        "id": alert.id,
        "alert": str(alert.kind),
        "severity": str(alert.kind.severity),
        "about": wording.about(alert.kind, alert.subject, alert.facts),
        "says": wording.says(alert.kind, alert.subject, alert.facts),
        "seen": wording.seen(alert.facts),
        "since": alert.since,
        "begun_at": alert.begun_at,
        "told_at": alert.told_at,
        "over_at": alert.over_at,
    }


def _message(message: Line) -> Document:
    return {key: value for key, value in asdict(message).items() if key != "alert"}
