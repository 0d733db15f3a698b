"""Whose a study is and what it consists of, as audit messages say it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import ColumnElement, Connection, func, select

from dicomnode.archive import tables
from dicomnode.archive.database import in_parts
from dicomnode.auditing.events import Study

#: Study → SOP class → number of instances.
Counts = dict[str, dict[str, int]]


def whole(tx: Connection, study_instance_uid: str) -> Study:
    """A study with everything that is kept of it."""
    counts = _counts(tx, tables.instance.c.study_instance_uid == study_instance_uid)
    return _study(tx, study_instance_uid, counts.get(study_instance_uid, {}))


def part(tx: Connection, study_instance_uid: str, instances: Mapping[str, int]) -> Study:
    """A study with some instances: not those that are kept of it, or not all.

    Args:
        instances: SOP Class UID → how many of it.
    """
    return _study(tx, study_instance_uid, instances)


def brought(tx: Connection, association: str) -> list[Study]:
    """What an association brought that was not there before, by study."""
    counts = _counts(tx, tables.instance.c.association == association)
    return [_study(tx, uid, found) for uid, found in sorted(counts.items())]


def of_instances(tx: Connection, sop_instance_uids: Collection[str]) -> Counts:
    """How many of some instances are of which SOP class, by study; those that are indexed."""
    every: Counts = defaultdict(dict)
    for uids in in_parts(sop_instance_uids):
        for uid, found in _counts(tx, tables.instance.c.sop_instance_uid.in_(uids)).items():
            for sop_class, count in found.items():
                every[uid][sop_class] = every[uid].get(sop_class, 0) + count
    return every


def _counts(tx: Connection, which: ColumnElement[bool]) -> Counts:
    columns = tables.instance.c
    rows = tx.execute(
        select(columns.study_instance_uid, columns.sop_class_uid, func.count())
        .where(which)
        .group_by(columns.study_instance_uid, columns.sop_class_uid)
        .order_by(columns.study_instance_uid, columns.sop_class_uid)
    )
    found: Counts = defaultdict(dict)
    for uid, sop_class, count in rows:
        found[uid][sop_class] = int(count)
    return found


def _study(tx: Connection, study_instance_uid: str, instances: Mapping[str, int]) -> Study:
    """As the header of one of its series says; of a study that was removed, as it is found by."""
    columns, known = tables.series.c, tables.study.c
    header: Any = tx.scalar(
        select(columns.header)
        .where(columns.study_instance_uid == study_instance_uid)
        .order_by(columns.series_instance_uid)
        .limit(1)
    )
    if header is None:
        row = tx.execute(
            select(known.patient_id, known.patient_name, known.accession_number).where(
                known.study_instance_uid == study_instance_uid
            )
        ).one_or_none()
        header = (
            {}
            if row is None
            else {
                "PatientID": row.patient_id,
                "PatientName": row.patient_name,
                "AccessionNumber": row.accession_number,
            }
        )
    numbers = _texts(header, "AccessionNumber")
    return Study(
        study_instance_uid=study_instance_uid,
        patient_id="".join(_texts(header, "PatientID")[:1]),
        patient_name="".join(_texts(header, "PatientName")[:1]),
        accession_numbers=tuple(numbers),
        instances=tuple(sorted(instances.items())),
    )


def _texts(header: Mapping[str, Any], keyword: str) -> list[str]:
    value = header.get(keyword)
    values = value if isinstance(value, list) else [value]
    return [str(one) for one in values if one is not None and str(one).strip()]
