"""The audit trail of the page: who did what, when, from where, on what, and how it ended.

Patient data is not among it: what was done is done to a study or a job, named by its identifier.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import Connection, RowMapping, select

from dicomnode.archive import tables


class Action(StrEnum):
    """The words for what can be done."""

    SIGN_IN = "sign in"
    SIGN_OUT = "sign out"
    ADD_PERSON = "add person"
    REMOVE_PERSON = "remove person"
    SET_PASSWORD = "set password"  # noqa: S105 - a word for what was done
    RETRY = "retry"
    CANCEL = "cancel"
    RUN = "run"
    SEND = "send"
    ECHO = "echo"
    CHECK = "check"
    LOOK = "look"  # at a study: whose data was seen by whom
    REFUSED = "refused"  # what somebody may not do


class Result(StrEnum):
    """How it ended."""

    DONE = "done"
    REFUSED = "refused"
    FAILED = "failed"


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
) -> None:
    """Add a line, in the transaction of what it speaks of."""
    tx.execute(
        tables.audit.insert().values(
            at=at,
            person=person[:64],
            address=address[:64],
            action=action,
            subject=subject[:160],
            outcome=outcome,
            detail=detail,
        )
    )


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
