"""What a study consists of, for people: its series, and a few elements of its header."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, func, select

from dicomnode.archive import tables

#: What is shown of a study beside its series.
_ELEMENTS = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDescription",
    "StudyDate",
    "AccessionNumber",
    "ReferringPhysicianName",
    "InstitutionName",
)


@dataclass(frozen=True, kw_only=True)
class Series:
    """One series of a study.

    Attributes:
        bytes: Of its files.
    """

    series_instance_uid: str
    modality: str
    number: str
    description: str = field(repr=False)
    instances: int
    bytes: int


def header(tx: Connection, study_instance_uid: str) -> dict[str, str]:
    """Keyword → value, of one series; what is missing is "". Of a study that is gone, all are."""
    columns = tables.series.c
    kept = tx.scalar(
        select(columns.header)
        .where(columns.study_instance_uid == study_instance_uid)
        .order_by(columns.series_instance_uid)
        .limit(1)
    )
    return {keyword: _text(kept or {}, keyword) for keyword in _ELEMENTS}


def series(tx: Connection, study_instance_uid: str) -> list[Series]:
    """The series of a study, by number."""
    instance, one = tables.instance.c, tables.series.c
    counted = {
        row.series_instance_uid: row
        for row in tx.execute(
            select(
                instance.series_instance_uid,
                func.count().label("instances"),
                func.sum(instance.size).label("bytes"),
            )
            .where(instance.study_instance_uid == study_instance_uid)
            .group_by(instance.series_instance_uid)
        )
    }
    rows = tx.execute(
        select(one.series_instance_uid, one.header).where(
            one.study_instance_uid == study_instance_uid
        )
    )
    found = [
        Series(
            series_instance_uid=row.series_instance_uid,
            modality=_text(row.header, "Modality"),
            number=_text(row.header, "SeriesNumber"),
            description=_text(row.header, "SeriesDescription"),
            instances=int(counted[row.series_instance_uid].instances),
            bytes=int(counted[row.series_instance_uid].bytes),
        )
        for row in rows
        if row.series_instance_uid in counted
    ]
    return sorted(found, key=_order)


def _order(one: Series) -> tuple[int, str]:
    return (int(one.number) if one.number.isdecimal() else 0, one.series_instance_uid)


def _text(kept: Any, keyword: str) -> str:
    value = kept.get(keyword)
    values = value if isinstance(value, list) else [value]
    return ", ".join(str(one) for one in values if one is not None)
