"""The associations that brought what was received, as rows."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, func, select, update

from dicomnode.archive import tables
from dicomnode.archive.arrival import End, Ended, Opened


@dataclass(frozen=True, kw_only=True)
class Orphan:
    """An association whose end nobody saw.

    Attributes:
        stored: How many instances of it are indexed.
    """

    association: str
    stored: int


def opened(tx: Connection, fact: Opened) -> None:
    """Record an association that was accepted; what is recorded already stays."""
    known = select(tables.association.c.id).where(tables.association.c.id == fact.association)
    if tx.scalar(known) is not None:  # a commit of which nobody heard the answer
        return
    tx.execute(
        tables.association.insert().values(
            id=fact.association,
            peer=fact.peer,
            calling_ae_title=fact.calling_ae_title,
            address=fact.address,
            opened_at=fact.at,
            stored=0,
            refused=0,
        )
    )


def ended(tx: Connection, fact: Ended) -> set[str]:
    """Record how an association ended.

    Returns:
        The studies that it brought instances of.
    """
    tx.execute(
        update(tables.association)
        .where(tables.association.c.id == fact.association)
        .values(ended_at=fact.at, end=fact.end, stored=fact.stored, refused=fact.refused)
    )
    instance = tables.instance.c
    return set(
        tx.scalars(
            select(instance.study_instance_uid)
            .where(instance.association == fact.association)
            .distinct()
        )
    )


def end_orphans(tx: Connection, *, at: float) -> list[Orphan]:
    """Close the associations that a node which died left open."""
    association, instance = tables.association.c, tables.instance.c
    brought = (
        select(func.count())
        .select_from(tables.instance)
        .where(instance.association == association.id)
        .scalar_subquery()
    )
    open_now = association.ended_at.is_(None)
    orphans = [
        Orphan(association=row.id, stored=row.stored)
        for row in tx.execute(select(association.id, brought.label("stored")).where(open_now))
    ]
    tx.execute(
        update(tables.association)
        .where(open_now)
        .values(ended_at=at, end=End.UNKNOWN, stored=brought)
    )
    return orphans
