"""Storage commitments that peers ask of us (PS3.4 Annex J): one row for each request.

The row is the truth: it is there before the peer is told that its request was taken, and it stays
open until the peer has heard the answer, however many starts of the node lie between.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Any

from sqlalchemy import Connection, Row, select, update
from sqlalchemy.exc import IntegrityError

from dicomnode.archive import journal, tables
from dicomnode.archive.database import in_parts
from dicomnode.archive.journal import Kind


class State(StrEnum):
    """Where a request stands."""

    ASKED = "asked"
    CHECKED = "checked"  # it is known what to answer
    ANSWERED = "answered"


_OPEN = (State.ASKED, State.CHECKED)


class FailureReason(IntEnum):
    """Why an object is not committed: Failure Reason (0008,1197), PS3.3 C.14.1.1."""

    PROCESSING_FAILURE = 0x0110
    NO_SUCH_OBJECT = 0x0112
    CLASS_INSTANCE_CONFLICT = 0x0119
    DUPLICATE_TRANSACTION = 0x0131


@dataclass(frozen=True, kw_only=True)
class Reference:
    """An object that somebody asks about."""

    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, kw_only=True)
class Failure:
    """An object that is not committed.

    Attributes:
        reason: Failure Reason (0008,1197); a peer's may be none of `FailureReason`.
    """

    reference: Reference
    reason: int


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a peer asked.

    Attributes:
        peer: Its name in the configuration, or "" for an unknown one.
        failures: What is not committed; `None` as long as nobody has looked.
        checked_at: When somebody looked (seconds since the epoch).
        asked_at: The same; a repetition of the request makes it later.
        attempts: How often it was tried in vain to give the answer.
    """

    id: str
    peer: str
    calling_ae_title: str
    transaction_uid: str
    references: tuple[Reference, ...]
    failures: tuple[Failure, ...] | None
    checked_at: float
    asked_at: float
    attempts: int

    @property
    def is_duplicate(self) -> bool:
        """Whether its Transaction UID is that of another request: then there is nothing to see."""
        failures = self.failures or ()
        return any(one.reason == FailureReason.DUPLICATE_TRANSACTION for one in failures)


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What the index says of an object that was received."""

    study_instance_uid: str
    sop_class_uid: str
    path: str
    digest: str


def ask(
    tx: Connection,
    *,
    peer: str,
    calling_ae_title: str,
    transaction_uid: str,
    references: Sequence[Reference],
    at: float,
) -> str:
    """Take a request down.

    The same request again is looked at and answered again, so the answer is the same as long as
    nothing happened to the objects. Another one under a Transaction UID that the peer has used
    before is answered too: each of its objects fails as a duplicate transaction (PS3.3 C.14.1.1).

    Returns:
        The id of the request.
    """
    asker = (peer, calling_ae_title, transaction_uid)
    request_id = _digest([*asker, *_flat(references)])[:32]
    columns = tables.commitment.c
    first = tx.scalar(
        select(columns.id)
        .where(
            columns.peer == peer,
            columns.calling_ae_title == calling_ae_title,
            columns.transaction_uid == transaction_uid,
        )
        .order_by(columns.created_at, columns.id)
        .limit(1)
    )
    values: dict[str, Any] = {
        "peer": peer,
        "calling_ae_title": calling_ae_title,
        "transaction_uid": transaction_uid,
        "state": State.ASKED,
        "references": references_to_json(references),
        "failures": [],
        "checked_at": None,
        "asked_at": at,
        "attempts": 0,
        "not_before": at,
        "answered_at": None,
    }
    if first is not None and first != request_id:
        values |= {"state": State.CHECKED, "failures": _all_duplicate(references)}
    _upsert(tx, request_id, values, at=at)
    _journal(tx, Kind.COMMITMENT_ASKED, asker, at=at, instances=len(references))
    return request_id


def _digest(words: Iterable[str]) -> str:
    return hashlib.sha256("\x1f".join(words).encode()).hexdigest()


def _flat(references: Sequence[Reference]) -> list[str]:
    return sorted(f"{one.sop_class_uid}\x1e{one.sop_instance_uid}" for one in references)


def _all_duplicate(references: Sequence[Reference]) -> list[list[Any]]:
    reason = FailureReason.DUPLICATE_TRANSACTION
    return failures_to_json([Failure(reference=one, reason=reason) for one in references])


def _upsert(tx: Connection, request_id: str, values: dict[str, Any], *, at: float) -> None:
    again = update(tables.commitment).where(tables.commitment.c.id == request_id).values(values)
    if tx.execute(again).rowcount:
        return
    new = tables.commitment.insert().values(id=request_id, created_at=at, **values)
    try:
        with tx.begin_nested():
            tx.execute(new)
    except IntegrityError:  # the same request came twice at once
        tx.execute(again)


def _journal(
    tx: Connection,
    kind: Kind,
    asker: tuple[str, str, str],
    *,
    at: float,
    study: str = "",
    **facts: Any,
) -> None:
    peer, calling_ae_title, transaction_uid = asker
    journal.write(
        tx,
        kind,
        at=at,
        study=study,
        peer=peer,
        calling_ae_title=calling_ae_title,
        transaction=transaction_uid,
        **facts,
    )


def request(tx: Connection, request_id: str) -> Request | None:
    """A request that waits for its answer, or `None`."""
    columns = tables.commitment.c
    row = tx.execute(
        select(tables.commitment).where(columns.id == request_id, columns.state.in_(_OPEN))
    ).one_or_none()
    return None if row is None else _request(row)


def due(tx: Connection, peers: Collection[str], *, at: float) -> dict[str, list[str]]:
    """Peer → the ids of its requests that can be answered now, oldest first.

    What was tried in vain comes last: an answer that a peer chokes on keeps no other from it.

    Args:
        peers: Those that can be called.
    """
    columns = tables.commitment.c
    rows = tx.execute(
        select(columns.id, columns.peer)
        .where(
            columns.state.in_(_OPEN),  # as it stands in the index: most rows are answered
            columns.not_before <= at,
            columns.peer.in_(sorted(peers)),
        )
        .order_by(columns.attempts, columns.asked_at, columns.id)
    )
    found: dict[str, list[str]] = {}
    for row in rows:
        found.setdefault(row.peer, []).append(row.id)
    return found


def kept(tx: Connection, references: Sequence[Reference]) -> dict[str, Kept]:
    """SOP Instance UID → what is indexed under it."""
    columns = tables.instance.c
    found: dict[str, Kept] = {}
    for part in in_parts(one.sop_instance_uid for one in references):
        rows = tx.execute(
            select(
                columns.sop_instance_uid,
                columns.study_instance_uid,
                columns.sop_class_uid,
                columns.path,
                columns.digest,
            ).where(columns.sop_instance_uid.in_(part))
        )
        for row in rows:
            found[row.sop_instance_uid] = Kept(
                study_instance_uid=row.study_instance_uid,
                sop_class_uid=row.sop_class_uid,
                path=row.path,
                digest=row.digest,
            )
    return found


def check(tx: Connection, asked: Request, failures: Sequence[Failure], *, at: float) -> bool:
    """Keep what was found out: asked → checked.

    Returns:
        Whether nobody has asked anew meanwhile; otherwise nothing changes.
    """
    found = {
        "state": State.CHECKED,
        "failures": failures_to_json(failures),
        "checked_at": at,
    }
    return _change(tx, asked, _OPEN, found)


def answer(
    tx: Connection, asked: Request, *, status: int, at: float, studies: Collection[str] = ()
) -> bool:
    """The peer has heard the answer, and what it said to that: checked → answered.

    What it asked about is forgotten: should it ask again, it says so again.

    Args:
        status: Of its N-EVENT-REPORT-RSP. Whatever it is, saying the same again would not help.
        studies: The Study Instance UIDs of what it was told is kept. Those of what is indexed are
            known; a file may be promised before it is.
    """
    moved = _change(
        tx,
        asked,
        [State.CHECKED],
        {"state": State.ANSWERED, "answered_at": at, "references": [], "failures": []},
    )
    if moved:
        _journal_answer(tx, asked, studies, status=status, at=at)
    return moved


def _journal_answer(
    tx: Connection, asked: Request, studies: Collection[str], *, status: int, at: float
) -> None:
    """One line for each study: usually one; without a study where nothing is known of any.

    By these lines `retention` knows what was promised.
    """
    indexed = {one.study_instance_uid for one in kept(tx, asked.references).values()}
    failures = asked.failures or ()
    for study in sorted(indexed.union(studies)) or [""]:
        _journal(
            tx,
            Kind.COMMITMENT_ANSWERED,
            (asked.peer, asked.calling_ae_title, asked.transaction_uid),
            at=at,
            study=study,
            instances=len(asked.references),
            failed=len(failures),
            reasons=sorted({f"0x{one.reason:04X}" for one in failures}),
            status=f"0x{status:04X}",
        )


def put_off(tx: Connection, asked: Request, *, not_before: float, in_vain: bool) -> bool:
    """The peer was not told: again at `not_before` (seconds since the epoch).

    Args:
        in_vain: Whether it was tried.
    """
    values = {"not_before": not_before, "attempts": asked.attempts + in_vain}
    return _change(tx, asked, _OPEN, values)


def _change(
    tx: Connection, asked: Request, states: Sequence[State], values: dict[str, Any]
) -> bool:
    columns = tables.commitment.c
    changed = tx.execute(
        update(tables.commitment)
        .where(
            columns.id == asked.id,
            columns.state.in_(states),
            columns.asked_at == asked.asked_at,
        )
        .values(values)
    )
    return changed.rowcount == 1


def references_to_json(references: Iterable[Reference]) -> list[list[str]]:
    """What a row keeps of references."""
    return [[one.sop_class_uid, one.sop_instance_uid] for one in references]


def references_from_json(kept: Iterable[Sequence[str]]) -> tuple[Reference, ...]:
    """What `references_to_json` made a row of."""
    return tuple(
        Reference(sop_class_uid=sop_class_uid, sop_instance_uid=sop_instance_uid)
        for sop_class_uid, sop_instance_uid in kept
    )


def failures_to_json(failures: Iterable[Failure]) -> list[list[Any]]:
    """What a row keeps of failures."""
    return [
        [one.reference.sop_class_uid, one.reference.sop_instance_uid, int(one.reason)]
        for one in failures
    ]


def failures_from_json(kept: Iterable[Sequence[Any]]) -> tuple[Failure, ...]:
    """What `failures_to_json` made a row of."""
    return tuple(
        Failure(
            reference=Reference(sop_class_uid=sop_class_uid, sop_instance_uid=sop_instance_uid),
            reason=reason,
        )
        for sop_class_uid, sop_instance_uid, reason in kept
    )


def _request(row: Row[Any]) -> Request:
    return Request(
        id=row.id,
        peer=row.peer,
        calling_ae_title=row.calling_ae_title,
        transaction_uid=row.transaction_uid,
        references=references_from_json(row.references),
        failures=None if row.state == State.ASKED else failures_from_json(row.failures),
        checked_at=row.checked_at or 0.0,
        asked_at=row.asked_at,
        attempts=row.attempts,
    )
