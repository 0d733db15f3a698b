"""The result objects of a job: which files were checked and kept, in the order of sending."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, select

from dicomnode.archive import tables
from dicomnode.job import DeliveryState

_FOLDER = "results"


@dataclass(frozen=True, kw_only=True)
class ResultFile:
    """A result object that was checked and kept."""

    kind: str
    sop_instance_uid: str
    series_instance_uid: str
    path: str  # relative to the data folder; "" once it was removed
    digest: str


def folder(job_id: str) -> str:
    """The folder of a job's results, relative to the data folder; each run has one in it."""
    return f"{_FOLDER}/{job_id}"


def is_result(path: str) -> bool:
    """Whether a path relative to the data folder is that of a result."""
    return path.startswith(f"{_FOLDER}/")


def of_job(tx: Connection, job_id: str) -> list[ResultFile]:
    """The kept results of a job, in the order in which they are sent."""
    columns = tables.result.c
    rows = tx.execute(select(tables.result).where(columns.job == job_id).order_by(columns.position))
    return [
        ResultFile(
            kind=row.kind,
            sop_instance_uid=row.sop_instance_uid,
            series_instance_uid=row.series_instance_uid,
            path=row.path,
            digest=row.digest,
        )
        for row in rows
    ]


def superseded_report(tx: Connection, job_id: str) -> ResultFile | None:
    """The newest report that a destination has and that `job_id` takes the place of.

    A revision that gave none, or whose report was never confirmed anywhere, is passed over.
    """
    job = tables.job.c
    successors = [job_id]
    while successors:
        older = tx.scalars(
            select(job.id).where(job.superseded_by.in_(successors)).order_by(job.created_at.desc())
        ).all()
        for each in older:
            reports = [one for one in of_job(tx, each) if one.kind == "sr"]
            if reports and _is_anywhere(tx, each):
                return reports[0]
        successors = list(older)
    return None


def _is_anywhere(tx: Connection, job_id: str) -> bool:
    delivery = tables.delivery.c
    confirmed = select(delivery.id).where(
        delivery.job == job_id, delivery.state == DeliveryState.CONFIRMED
    )
    return tx.scalar(confirmed.limit(1)) is not None


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
            )
        )
