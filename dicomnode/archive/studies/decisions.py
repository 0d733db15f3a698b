"""What routing decided for each rule and series of a study revision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from dicomnode.archive import tables
from dicomnode.archive.studies import outcomes


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """One decision, as it was made.

    Attributes:
        outcome: "job", "not_applicable" or "held".
        clause: The clause that decided, as an administrator would write it; "" for a job.
        value: What the study had.
    """

    revision: int
    rule: str
    series_instance_uid: str
    model: str
    outcome: str
    origin: str
    clause: str
    value: str
    detail: str


def record(tx: Connection, study_instance_uid: str, made: Sequence[Recorded]) -> None:
    """Keep the decisions of one revision; recording them again changes nothing."""
    for one in made:
        where = (
            tables.decision.c.study_instance_uid == study_instance_uid,
            tables.decision.c.revision == one.revision,
            tables.decision.c.rule == one.rule,
            tables.decision.c.series_instance_uid == one.series_instance_uid,
        )
        tx.execute(tables.decision.delete().where(*where))
        tx.execute(
            tables.decision.insert().values(
                study_instance_uid=study_instance_uid,
                revision=one.revision,
                rule=one.rule,
                series_instance_uid=one.series_instance_uid,
                model=one.model,
                outcome=one.outcome,
                origin=one.origin,
                clause=one.clause,
                value=one.value,
                detail=one.detail,
            )
        )
    outcomes.refresh(tx, study_instance_uid)


def newest(tx: Connection, study_instance_uid: str) -> list[Recorded]:
    """The decisions of the newest revision that was routed, by rule and series."""
    columns = tables.decision.c
    revision = tx.scalar(
        select(func.max(columns.revision)).where(columns.study_instance_uid == study_instance_uid)
    )
    rows = tx.execute(
        select(tables.decision)
        .where(columns.study_instance_uid == study_instance_uid, columns.revision == revision)
        .order_by(columns.rule, columns.series_instance_uid)
    )
    return [
        Recorded(
            revision=row.revision,
            rule=row.rule,
            series_instance_uid=row.series_instance_uid,
            model=row.model,
            outcome=row.outcome,
            origin=row.origin,
            clause=row.clause,
            value=row.value,
            detail=row.detail,
        )
        for row in rows
    ]
