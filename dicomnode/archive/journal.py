"""What happened, in order: one line for each fact that an administrator may ask for.

Facts are plain values. Patient data is not among them: identifiers of study, series and instance
lead to it where somebody may see it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Row, select

from dicomnode.archive import tables


class Kind(StrEnum):
    """The words for what can happen."""

    ASSOCIATION_OPENED = "association opened"
    ASSOCIATION_ENDED = "association ended"
    TURNED_AWAY = "turned away"
    FOUND_AT_START = "found at start"
    FILE_MISSING = "file missing"
    UNREADABLE = "unreadable"
    ROUTING_FAILED = "routing failed"
    STUDY_COMPLETE = "study complete"
    FILES_REMOVED = "files removed"
    JOB_CREATED = "job created"
    JOB_MOVED = "job moved"
    DELIVERY_MOVED = "delivery moved"
    COMMITMENT_ASKED = "commitment asked"  # by a peer, of us
    COMMITMENT_ANSWERED = "commitment answered"
    COMMITMENT_REFUSED = "commitment refused"
    CONFIRMATION_ASKED = "confirmation asked"  # by us, of a destination
    CONFIRMATION_ANSWERED = "confirmation answered"
    ALERT_BEGUN = "alert begun"
    ALERT_OVER = "alert over"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of the journal."""

    at: float
    kind: str
    study_instance_uid: str | None
    association: str | None
    job: str | None
    facts: dict[str, Any]


def write(
    tx: Connection,
    kind: Kind,
    *,
    at: float,
    study: str | None = None,
    association: str | None = None,
    job: str | None = None,
    **facts: Any,
) -> None:
    """Add a line, in the transaction of what it speaks of."""
    tx.execute(
        tables.event.insert().values(
            at=at,
            kind=kind,
            study_instance_uid=study or None,
            association=association or None,
            job=job,
            facts=facts,
        )
    )


def of_study(tx: Connection, study_instance_uid: str) -> list[Entry]:
    """Every line that speaks of a study, and of the associations that brought it, oldest first."""
    event, instance = tables.event.c, tables.instance.c
    brought = (
        select(instance.association)
        .where(instance.study_instance_uid == study_instance_uid, instance.association != "")
        .distinct()
    )
    # Two questions, each with an index of its own: as one, most databases would read every line.
    ids = (
        select(event.id)
        .where(event.study_instance_uid == study_instance_uid)
        .union_all(
            select(event.id).where(
                event.association.in_(brought),
                event.study_instance_uid.concat("").is_(None),  # not by the index of that column
            )
        )
    )
    rows = tx.execute(select(tables.event).where(event.id.in_(ids)).order_by(event.at, event.id))
    return [_entry(row) for row in rows]


def refusals(tx: Connection, *, limit: int) -> list[Entry]:
    """The last instances and associations that were turned away, newest first."""
    event = tables.event.c
    rows = tx.execute(
        select(tables.event)
        .where(event.kind == Kind.TURNED_AWAY)
        .order_by(event.at.desc(), event.id.desc())
        .limit(limit)
    )
    return [_entry(row) for row in rows]


def missing_files(tx: Connection) -> set[str]:
    """The paths of the files that were told of as missing."""
    event = tables.event.c
    told = tx.scalars(select(event.facts).where(event.kind == Kind.FILE_MISSING))
    return {str(facts.get("path", "")) for facts in told}


def _entry(row: Row[Any]) -> Entry:
    return Entry(
        at=row.at,
        kind=row.kind,
        study_instance_uid=row.study_instance_uid,
        association=row.association,
        job=row.job,
        facts=row.facts,
    )
