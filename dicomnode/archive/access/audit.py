"""The audit trail of the page: who did what, when, from where, on what, and how it ended.

Patient data is not among it: what was done is done to a study or a job, named by its identifier.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, RowMapping, select

from dicomnode.archive import tables
from dicomnode.archive.access import deeds
from dicomnode.archive.access.action import Action, Result

__all__ = ["Action", "Line", "Result", "has_such", "newest", "write"]

_MINUTE_S = 60.0
_LONGEST = 64  # of a name, or of an address


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of the trail.

    Attributes:
        person: Who; "" for nobody that is known.
        address: From where; "" for the command line of this machine.
        subject: On what: a study, a job, a peer, a person.
    """

    id: int
    at: float
    person: str
    address: str
    action: str
    subject: str
    outcome: str
    detail: str


def write(
    tx: Connection,
    action: Action,
    *,
    at: float,
    person: str = "",
    address: str = "",
    subject: str = "",
    outcome: Result = Result.DONE,
    detail: str = "",
    study: str = "",
) -> None:
    """Add a line, in the transaction of what it speaks of; an audit collector is told as well.

    Args:
        study: The study whose data were seen, or with whose jobs something was done.
    """
    tx.execute(
        tables.audit.insert().values(
            at=at,
            person=person[:_LONGEST],
            address=address[:_LONGEST],
            action=action,
            subject=subject[:160],
            outcome=outcome,
            detail=detail,
        )
    )
    deeds.tell(
        tx,
        deeds.Deed(
            action=action,
            at=at,
            person=person,
            address=address,
            subject=subject,
            outcome=outcome,
            detail=detail,
            study=study,
        ),
    )


def has_such(tx: Connection, action: Action, *, at: float, address: str, detail: str) -> bool:
    """Whether there is such a line of nobody known, from there, in the same minute.

    What anybody may ask for without an account is written down once in each: the trail is kept, and
    whoever asks a thousand times a second must not fill the disk with it.
    """
    columns = tables.audit.c
    query = select(columns.id).where(
        columns.at >= at - at % _MINUTE_S,
        columns.action == action,
        columns.person == "",
        columns.address == address[:_LONGEST],
        columns.detail == detail,
    )
    return tx.scalar(query.limit(1)) is not None


def newest(
    tx: Connection, *, limit: int, before: int | None = None, person: str = ""
) -> list[Line]:
    """The last lines, newest first.

    Args:
        before: Only those older than the line of this id.
        person: Only what this one did.
    """
    columns = tables.audit.c
    query = select(tables.audit).order_by(columns.id.desc()).limit(limit)
    if before is not None:
        query = query.where(columns.id < before)
    if person:
        query = query.where(columns.person == person)
    return [_line(row) for row in tx.execute(query).mappings()]


def _line(row: RowMapping) -> Line:
    return Line(**{str(name): value for name, value in row.items()})
