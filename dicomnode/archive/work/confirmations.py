"""Storage commitments that we ask of destinations: one row for each transaction of a delivery.

The answer may come on any association, hours later, to another process than the one that asked.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Row, func, select, update

from dicomnode import uid
from dicomnode.archive import commitments, journal, tables
from dicomnode.archive.commitments import Failure, FailureReason, Reference
from dicomnode.archive.journal import Kind
from dicomnode.archive.work import deliveries
from dicomnode.archive.work.deliveries import Delivery

#: Why a delivery waits that was sent and has not been confirmed yet: it has not failed.
AWAITING = "awaiting-commitment"


class State(StrEnum):
    """Where a transaction stands."""

    ASKED = "asked"
    LOST = "lost"  # not taken, or not answered in time; an answer that comes yet is one
    CONFIRMED = "confirmed"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class Confirmation:
    """One transaction: what a destination was asked, and what it said.

    Attributes:
        number: Of the transactions of one delivery, which: from 1.
        asked_at: Seconds since the epoch, and `answered_at` too.
        failures: What the destination does not keep.
    """

    transaction_uid: str
    delivery: str
    destination: str
    number: int
    state: State
    references: tuple[Reference, ...]
    failures: tuple[Failure, ...]
    asked_at: float
    answered_at: float | None


def of_delivery(tx: Connection, delivery_id: str, *, lock: bool = False) -> list[Confirmation]:
    """Every transaction of a delivery, in their order.

    Args:
        lock: Whether nobody else may answer one of them before the end of `tx`.
    """
    columns = tables.confirmation.c
    query = (
        select(tables.confirmation).where(columns.delivery == delivery_id).order_by(columns.number)
    )
    rows = tx.execute(query.with_for_update() if lock else query)
    return [_confirmation(row) for row in rows]


def ask(
    tx: Connection, delivery: Delivery, references: Sequence[Reference], *, at: float
) -> Confirmation:
    """Begin a transaction; to be committed before the destination hears of it.

    Its UID is derived from the delivery, from how many transactions that has had, and from the
    time: a node that starts again with an empty database would otherwise ask under a UID that the
    destination knows.
    """
    columns = tables.confirmation.c
    tx.execute(
        update(tables.confirmation)
        .where(columns.delivery == delivery.id, columns.state == State.ASKED)
        .values(state=State.LOST)
    )
    before = tx.scalar(select(func.count()).where(columns.delivery == delivery.id))
    number = 1 + (before or 0)
    asked = Confirmation(
        transaction_uid=uid.derived("transaction", delivery.id, str(number), str(at)),
        delivery=delivery.id,
        destination=delivery.destination,
        number=number,
        state=State.ASKED,
        references=tuple(references),
        failures=(),
        asked_at=at,
        answered_at=None,
    )
    tx.execute(
        tables.confirmation.insert().values(
            transaction_uid=asked.transaction_uid,
            delivery=asked.delivery,
            destination=asked.destination,
            number=asked.number,
            state=asked.state,
            references=commitments.references_to_json(asked.references),
            failures=[],
            asked_at=at,
        )
    )
    _journal(tx, asked, Kind.CONFIRMATION_ASKED, at=at, instances=len(asked.references))
    return asked


def lose(tx: Connection, asked: Confirmation) -> bool:
    """The destination did not take the request: the delivery may ask anew at once.

    Returns:
        Whether that is so: `False` where the answer has come all the same.
    """
    columns = tables.confirmation.c
    lost = tx.execute(
        update(tables.confirmation)
        .where(columns.transaction_uid == asked.transaction_uid, columns.state == State.ASKED)
        .values(state=State.LOST)
    )
    return lost.rowcount == 1


def forget(tx: Connection, delivery_ids: Collection[str]) -> None:
    """Let deliveries begin anew: what was answered of them is not held against them."""
    columns = tables.confirmation.c
    tx.execute(tables.confirmation.delete().where(columns.delivery.in_(delivery_ids)))


def await_answer(
    tx: Connection,
    delivery: Delivery,
    *,
    heard: Collection[str],
    owner: str,
    at: float,
    not_before: float,
    reason: str,
    detail: str,
) -> bool:
    """Let a delivery wait for an answer; where one has come meanwhile, it goes on at once.

    Args:
        heard: The UIDs of the transactions whose answers the attempt took into account. Any other
            answer ends the waiting, to whichever of the questions.
    """
    is_new = any(
        one.answered_at is not None and one.transaction_uid not in heard
        for one in of_delivery(tx, delivery.id, lock=True)
    )
    return deliveries.try_again(
        tx,
        delivery,
        owner=owner,
        at=at,
        not_before=at if is_new else not_before,
        reason=reason,
        detail=detail,
        counts=False,
    )


def find(tx: Connection, transaction_uid: str, *, lock: bool = False) -> Confirmation | None:
    """One transaction.

    Args:
        lock: Whether nobody else may answer it before the end of `tx`.
    """
    query = select(tables.confirmation).where(
        tables.confirmation.c.transaction_uid == transaction_uid
    )
    row = tx.execute(query.with_for_update() if lock else query).one_or_none()
    return None if row is None else _confirmation(row)


def answer(
    tx: Connection,
    transaction_uid: str,
    *,
    destination: str,
    safe: Collection[str],
    failed: Sequence[Failure],
    at: float,
) -> str:
    """Write down what a destination says, and let the delivery that waits for it go on at once.

    An object that it does not list as safe is not: whatever it says of the others.

    Args:
        destination: Who says it.
        safe: The SOP Instance UIDs that it keeps.
        failed: What it does not keep.

    Returns:
        "", or the reason why this is no answer to anything that we asked: `unknown-transaction`,
        `transaction-of-another-peer`.
    """
    asked = find(tx, transaction_uid, lock=True)
    if asked is None:
        return "unknown-transaction"
    if asked.destination != destination:
        return "transaction-of-another-peer"
    if asked.state in (State.CONFIRMED, State.FAILED):
        return ""  # it says so again
    failures = _failures(asked, safe, failed)
    state = State.FAILED if failures else State.CONFIRMED
    tx.execute(
        update(tables.confirmation)
        .where(tables.confirmation.c.transaction_uid == transaction_uid)
        .values(
            state=state,
            failures=commitments.failures_to_json(failures),
            answered_at=at,
        )
    )
    deliveries.hasten(tx, asked.delivery, at=at)
    _journal(
        tx,
        asked,
        Kind.CONFIRMATION_ANSWERED,
        at=at,
        state=str(state),
        instances=len(asked.references),
        failed=len(failures),
        reasons=sorted({f"0x{one.reason:04X}" for one in failures}),
    )
    return ""


def _failures(
    asked: Confirmation, safe: Collection[str], failed: Sequence[Failure]
) -> list[Failure]:
    reasons = {one.reference.sop_instance_uid: one.reason for one in failed}
    return [
        Failure(
            reference=one,
            reason=reasons.get(one.sop_instance_uid, FailureReason.PROCESSING_FAILURE),
        )
        for one in asked.references
        if one.sop_instance_uid in reasons or one.sop_instance_uid not in safe
    ]


def _journal(tx: Connection, asked: Confirmation, kind: Kind, *, at: float, **facts: Any) -> None:
    job_id = tx.scalar(select(tables.delivery.c.job).where(tables.delivery.c.id == asked.delivery))
    study = tx.scalar(select(tables.job.c.study_instance_uid).where(tables.job.c.id == job_id))
    journal.write(
        tx,
        kind,
        at=at,
        study=study,
        job=job_id,
        destination=asked.destination,
        transaction=asked.transaction_uid,
        number=asked.number,
        **facts,
    )


def _confirmation(row: Row[Any]) -> Confirmation:
    return Confirmation(
        transaction_uid=row.transaction_uid,
        delivery=row.delivery,
        destination=row.destination,
        number=row.number,
        state=State(row.state),
        references=commitments.references_from_json(row.references),
        failures=commitments.failures_from_json(row.failures),
        asked_at=row.asked_at,
        answered_at=row.answered_at,
    )
