"""The result objects of a job: which files were checked and kept, in the order of sending.

And notices: the one object of a delivery that is no result, made when it is sent.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, or_, select

from dicomnode.archive import tables
from dicomnode.archive.work import jobs
from dicomnode.job import DeliveryState, Purpose

#: Why a delivery waits whose destination took everything and does not list it yet.
NOT_LISTED = "not-found-at-destination"

#: The picture for people that lies beside the results of each run.
PICTURE = "overlay.png"

_FOLDER = "results"
_REPORT = "sr"


@dataclass(frozen=True, kw_only=True)
class ResultFile:
    """A result object that was checked and kept.

    Attributes:
        path: Relative to the data folder; "" once it was removed.
        profiles: The digests of the profiles that it is sent for; none: for all.
    """

    kind: str
    sop_instance_uid: str
    series_instance_uid: str
    path: str
    digest: str
    profiles: frozenset[str] = frozenset()

    def is_for(self, profile: str) -> bool:
        """Whether a destination of that profile gets it; "" gets everything."""
        return not profile or not self.profiles or profile in self.profiles


def folder(job_id: str) -> str:
    """The folder of a job's results, relative to the data folder; each run has one in it."""
    return f"{_FOLDER}/{job_id}"


def is_result(path: str) -> bool:
    """Whether a path relative to the data folder is that of a result."""
    return path.startswith(f"{_FOLDER}/")


def of_job(tx: Connection, job_id: str, *, profile: str = "") -> list[ResultFile]:
    """The kept results of a job, in the order in which they are sent.

    Args:
        profile: Only those that a destination of that profile gets; "" for all.
    """
    columns = tables.result.c
    rows = tx.execute(select(tables.result).where(columns.job == job_id).order_by(columns.position))
    every = [_file(row, profiles=frozenset(row.profiles)) for row in rows]
    return [one for one in every if one.is_for(profile)]


def _file(row: Row[Any], *, profiles: frozenset[str] = frozenset()) -> ResultFile:
    return ResultFile(
        kind=row.kind,
        sop_instance_uid=row.sop_instance_uid,
        series_instance_uid=row.series_instance_uid,
        path=row.path,
        digest=row.digest,
        profiles=profiles,
    )


def notice(tx: Connection, delivery_id: str) -> ResultFile | None:
    """The notice of a delivery, where it was made already."""
    row = tx.execute(
        select(tables.notice).where(tables.notice.c.delivery == delivery_id)
    ).one_or_none()
    return None if row is None else _file(row)


def record_notice(tx: Connection, delivery_id: str, kept: ResultFile) -> None:
    """Say what the notice of a delivery is."""
    tx.execute(tables.notice.delete().where(tables.notice.c.delivery == delivery_id))
    tx.execute(
        tables.notice.insert().values(
            delivery=delivery_id,
            kind=kept.kind,
            sop_instance_uid=kept.sop_instance_uid,
            series_instance_uid=kept.series_instance_uid,
            path=kept.path,
            digest=kept.digest,
        )
    )


def has_arrived() -> ColumnElement[bool]:
    """Whether everything that a delivery brings is at its destination, as far as is known.

    What was cancelled while nothing but a word of its destination was awaited had arrived: the
    destination took each object before it was asked.
    """
    delivery, asked = tables.delivery.c, tables.confirmation.c
    was_asked = select(asked.transaction_uid).where(asked.delivery == delivery.id).exists()
    return or_(
        delivery.state == DeliveryState.CONFIRMED,
        and_(
            delivery.state == DeliveryState.CANCELLED, or_(was_asked, delivery.reason == NOT_LISTED)
        ),
    )


def delivered_by(tx: Connection, delivery_id: str) -> list[ResultFile]:
    """What a delivery brought to its destination, in the order of sending."""
    row = tx.execute(
        select(tables.delivery).where(tables.delivery.c.id == delivery_id)
    ).one_or_none()
    if row is None:
        return []
    if row.purpose == Purpose.RESULTS:
        return of_job(tx, row.job, profile=row.profile)
    made = notice(tx, delivery_id)
    return [] if made is None else [made]


def is_own(tx: Connection, series: Collection[str]) -> set[str]:
    """Of some series, those that this node made itself."""
    return {
        uid
        for table in (tables.result, tables.notice)
        for uid in tx.scalars(
            select(table.c.series_instance_uid)
            .where(table.c.series_instance_uid.in_(series))
            .distinct()
        )
    }


def superseded_reports(tx: Connection, job_id: str) -> dict[str, ResultFile]:
    """Destination → the newest report it has that the one of `job_id` takes the place of.

    A report that says why there is no answer is one. A revision that gave none, or whose report
    never got to the destination, is passed over for an older one.
    """
    found: dict[str, ResultFile] = {}
    generation = [job_id]
    seen: set[str] = set()
    while generation:
        seen.update(generation)
        for one in generation:
            for destination, report in _reports(tx, one, notices_only=one == job_id):
                found.setdefault(destination, report)
        generation = [one for one in jobs.superseded_by(tx, generation) if one not in seen]
    return found


def _reports(tx: Connection, job_id: str, *, notices_only: bool) -> list[tuple[str, ResultFile]]:
    """The reports of a job that destinations have: results before notices."""
    delivery = tables.delivery.c
    wanted = (Purpose.NOT_ANALYSED,) if notices_only else (Purpose.RESULTS, Purpose.NOT_ANALYSED)
    rows = tx.execute(
        select(delivery.id, delivery.destination)
        .where(delivery.job == job_id, has_arrived(), delivery.purpose.in_(wanted))
        .order_by(delivery.purpose.desc(), delivery.id)
    ).all()
    return [
        (row.destination, file)
        for row in rows
        for file in delivered_by(tx, row.id)
        if file.kind in (_REPORT, "notice")
    ]


def record(tx: Connection, job_id: str, kept: Sequence[ResultFile]) -> None:
    """Say which results a job has, in place of any that it had before."""
    tx.execute(tables.result.delete().where(tables.result.c.job == job_id))
    for position, one in enumerate(kept):
        tx.execute(
            tables.result.insert().values(
                job=job_id,
                position=position,
                kind=one.kind,
                sop_instance_uid=one.sop_instance_uid,
                series_instance_uid=one.series_instance_uid,
                path=one.path,
                digest=one.digest,
                profiles=sorted(one.profiles),
            )
        )
