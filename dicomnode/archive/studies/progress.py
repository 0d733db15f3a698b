"""How far the receiving of a study has come: what says whether there is more of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import Connection, func, select

from dicomnode.archive import tables
from dicomnode.archive.arrival import End


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far the receiving of one study has come.

    Attributes:
        last_at: When the last instance came.
        last_again: When the last came that was there already; `last_at` where none did after it.
        last_ended: When the last association that brought something ended.
        ended_in_order: Whether each association that brought something was released.
        open_associations: How many of them are not over.
        turned_away: How many instances were refused on them, of whichever study.
    """

    last_at: float
    last_again: float
    last_ended: float | None
    ended_in_order: bool
    open_associations: int
    turned_away: int


def of_study(tx: Connection, study_instance_uid: str) -> Progress:
    """How the receiving of a study stands now."""
    instance, study = tables.instance.c, tables.study.c
    last_at = tx.scalar(
        select(func.max(instance.received_at)).where(
            instance.study_instance_uid == study_instance_uid
        )
    )
    last_again = tx.scalar(
        select(study.last_at).where(study.study_instance_uid == study_instance_uid)
    )
    ends = _ends(tx, study_instance_uid)
    times = [one.at for one in ends if one.at is not None]
    return Progress(
        last_at=float(last_at or 0.0),
        last_again=float(last_again or 0.0),
        last_ended=max(times, default=None),
        ended_in_order=all(one.end == End.RELEASED for one in ends),
        open_associations=sum(one.end is None for one in ends),
        turned_away=sum(one.refused for one in ends),
    )


class _End(NamedTuple):
    end: str | None  # `None`: not yet
    at: float | None
    refused: int


def _ends(tx: Connection, study_instance_uid: str) -> list[_End]:
    """How and when each association that brought instances of the study ended.

    What was found on disk at start came by an association that nobody saw end.
    """
    instance, association = tables.instance, tables.association
    columns = association.c
    rows = tx.execute(
        select(instance.c.association, columns.id, columns.end, columns.ended_at, columns.refused)
        .outerjoin(association, columns.id == instance.c.association)
        .where(instance.c.study_instance_uid == study_instance_uid)
        .distinct()
    )
    return [
        _End(End.UNKNOWN, None, 0) if row.id is None else _End(row.end, row.ended_at, row.refused)
        for row in rows
    ]
