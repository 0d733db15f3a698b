"""What was received, as rows: instances, and the studies that they make."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, Row, case, select, update

from dicomnode.archive import tables
from dicomnode.archive.database import in_parts
from dicomnode.archive.studies import identity, outcomes
from dicomnode.study import HeaderValue, Instance, Series, Study

RECEIVING = outcomes.RECEIVING
COMPLETE = "complete"
REMOVING = "removing"
REMOVED = "removed"


@dataclass(frozen=True, kw_only=True)
class Received:
    """An instance with how it came: what the index is told.

    Attributes:
        association: The association that brought it, or "" when it was found on disk at start.
        size: Bytes of the file.
        at: Seconds since the epoch.
    """

    instance: Instance
    association: str
    size: int
    at: float


def add(tx: Connection, received: Sequence[Received]) -> set[str]:
    """Index instances; those that are indexed already are passed by.

    A study that is being removed and comes once more stays: its removal is called off.

    Returns:
        The studies that gained an instance: each is "receiving" (again).
    """
    _let_stay(tx, {one.instance.study_instance_uid for one in received})
    fresh = _fresh(tx, received)
    by_study: dict[str, list[Received]] = defaultdict(list)
    for one in fresh:
        by_study[one.instance.study_instance_uid].append(one)
    for study_instance_uid, group in by_study.items():
        _touch_study(tx, study_instance_uid, group)
    headers = _series_headers(tx, fresh)
    if fresh:
        tx.execute(tables.instance.insert(), [_row(one, headers) for one in fresh])
    return set(by_study)


def came_again(tx: Connection, came: Mapping[str, float]) -> None:
    """Take note that instances came once more.

    A study of theirs that is being removed stays; one that is being received is not silent.

    Args:
        came: SOP Instance UID → when (seconds since the epoch).
    """
    last: dict[str, float] = {}
    for sop_instance_uid, study_instance_uid in studies_of(tx, came).items():
        before = last.get(study_instance_uid, 0.0)
        last[study_instance_uid] = max(before, came[sop_instance_uid])
    _let_stay(tx, last)
    study = tables.study.c
    for study_instance_uid, at in last.items():
        tx.execute(
            update(tables.study)
            .where(study.study_instance_uid == study_instance_uid, study.state == RECEIVING)
            .values(last_at=_latest(at))
        )


def _let_stay(tx: Connection, study_instance_uids: Collection[str]) -> None:
    study = tables.study.c
    for part in in_parts(study_instance_uids):
        tx.execute(
            update(tables.study)
            .where(study.state == REMOVING, study.study_instance_uid.in_(part))
            .values(state=COMPLETE)
        )


def _fresh(tx: Connection, received: Sequence[Received]) -> list[Received]:
    by_uid = {one.instance.sop_instance_uid: one for one in received}
    known = _which_are_known(tx, by_uid.keys())
    return [one for uid, one in by_uid.items() if uid not in known]


def _which_are_known(tx: Connection, uids: Iterable[str]) -> set[str]:
    known: set[str] = set()
    column = tables.instance.c.sop_instance_uid
    for part in in_parts(uids):
        known.update(tx.scalars(select(column).where(column.in_(part))))
    return known


def _touch_study(tx: Connection, study_instance_uid: str, group: Sequence[Received]) -> None:
    study = tables.study.c
    first_at, last_at = min(one.at for one in group), max(one.at for one in group)
    size = sum(one.size for one in group)
    touched = tx.execute(
        update(tables.study)
        .where(study.study_instance_uid == study_instance_uid)
        .values(
            state=RECEIVING,
            outcome=outcomes.Outcome.IN_PROGRESS,
            last_at=_latest(last_at),
            received=study.received + len(group),
            received_bytes=study.received_bytes + size,
        )
    )
    if not touched.rowcount:
        tx.execute(
            tables.study.insert().values(
                study_instance_uid=study_instance_uid,
                state=RECEIVING,
                revision=0,
                first_at=first_at,
                last_at=last_at,
                because="",
                outcome=outcomes.Outcome.IN_PROGRESS,
                source=identity.source(tx, group[0].association),
                received=len(group),
                received_bytes=size,
            )
        )
    identity.note(tx, study_instance_uid, [one.instance for one in group])


def _latest(at: float) -> ColumnElement[float]:
    """When something of a study came last, this included: listeners report in no order."""
    last_at = tables.study.c.last_at
    return case((last_at > at, last_at), else_=at)


_SeriesKey = tuple[str, str]


def _series_headers(
    tx: Connection, fresh: Sequence[Received]
) -> dict[_SeriesKey, Mapping[str, HeaderValue]]:
    """The header that each series keeps, made from its first instance where it is new."""
    headers: dict[_SeriesKey, Mapping[str, HeaderValue]] = {}
    for one in fresh:
        key = (one.instance.study_instance_uid, one.instance.series_instance_uid)
        if key not in headers:
            headers[key] = _series_header(tx, key, one.instance.header)
    return headers


def _series_header(
    tx: Connection, key: _SeriesKey, first: Mapping[str, HeaderValue]
) -> Mapping[str, HeaderValue]:
    series = tables.series.c
    kept: Mapping[str, HeaderValue] | None = tx.scalar(
        select(series.header).where(
            series.study_instance_uid == key[0], series.series_instance_uid == key[1]
        )
    )
    if kept is not None:
        return kept
    tx.execute(
        tables.series.insert().values(
            study_instance_uid=key[0], series_instance_uid=key[1], header=dict(first)
        )
    )
    return first


def _row(one: Received, headers: Mapping[_SeriesKey, Mapping[str, HeaderValue]]) -> dict[str, Any]:
    instance = one.instance
    base = headers[instance.study_instance_uid, instance.series_instance_uid]
    return {
        "sop_instance_uid": instance.sop_instance_uid,
        "study_instance_uid": instance.study_instance_uid,
        "series_instance_uid": instance.series_instance_uid,
        "sop_class_uid": instance.sop_class_uid,
        "transfer_syntax_uid": instance.transfer_syntax_uid,
        "digest": instance.digest,
        "path": instance.path,
        "size": one.size,
        "header": _difference(base, instance.header),
        "association": one.association,
        "received_at": one.at,
    }


def _difference(
    base: Mapping[str, HeaderValue], header: Mapping[str, HeaderValue]
) -> dict[str, Any]:
    """How `header` differs from `base`: what is other or added, and what is missing."""
    changed = {k: v for k, v in header.items() if k not in base or base[k] != v}
    missing = [k for k in base if k not in header]
    return {"changed": changed, "missing": missing}


def _merged(
    base: Mapping[str, HeaderValue], difference: Mapping[str, Any]
) -> dict[str, HeaderValue]:
    missing = set(difference["missing"])
    changed: Mapping[str, HeaderValue] = difference["changed"]
    return {**{k: v for k, v in base.items() if k not in missing}, **changed}


def study(tx: Connection, study_instance_uid: str) -> Study | None:
    """The study as it is indexed now, or `None` where nothing of it was received."""
    row = tx.execute(
        select(tables.study.c.revision).where(
            tables.study.c.study_instance_uid == study_instance_uid
        )
    ).one_or_none()
    if row is None:
        return None
    bases = _bases(tx, study_instance_uid)
    instances: dict[str, list[Instance]] = defaultdict(list)
    columns = tables.instance.c
    for found in tx.execute(
        select(tables.instance)
        .where(columns.study_instance_uid == study_instance_uid)
        .order_by(columns.series_instance_uid, columns.sop_instance_uid)
    ):
        instances[found.series_instance_uid].append(_instance(found, bases))
    return Study(
        study_instance_uid=study_instance_uid,
        revision=row.revision,
        series=tuple(
            Series(series_instance_uid=uid, instances=tuple(group))
            for uid, group in instances.items()
        ),
    )


def _bases(tx: Connection, study_instance_uid: str) -> dict[str, Mapping[str, HeaderValue]]:
    columns = tables.series.c
    rows = tx.execute(
        select(columns.series_instance_uid, columns.header).where(
            columns.study_instance_uid == study_instance_uid
        )
    )
    return {row.series_instance_uid: row.header for row in rows}


def _instance(row: Row[Any], bases: Mapping[str, Mapping[str, HeaderValue]]) -> Instance:
    return Instance(
        sop_instance_uid=row.sop_instance_uid,
        sop_class_uid=row.sop_class_uid,
        transfer_syntax_uid=row.transfer_syntax_uid,
        series_instance_uid=row.series_instance_uid,
        study_instance_uid=row.study_instance_uid,
        digest=row.digest,
        path=row.path,
        header=_merged(bases[row.series_instance_uid], row.header),
    )


def paths_of(tx: Connection, sop_instance_uids: Collection[str]) -> dict[str, str]:
    """SOP Instance UID → path relative to the data folder, for those that are indexed."""
    return _of_instances(tx, tables.instance.c.path, sop_instance_uids)


def digests_of(tx: Connection, sop_instance_uids: Collection[str]) -> dict[str, str]:
    """SOP Instance UID → SHA-256 of the stored file, for those that are indexed."""
    return _of_instances(tx, tables.instance.c.digest, sop_instance_uids)


def studies_of(tx: Connection, sop_instance_uids: Collection[str]) -> dict[str, str]:
    """SOP Instance UID → Study Instance UID, for those that are indexed."""
    return _of_instances(tx, tables.instance.c.study_instance_uid, sop_instance_uids)


def _of_instances(
    tx: Connection, column: Column[str], sop_instance_uids: Collection[str]
) -> dict[str, str]:
    uid = tables.instance.c.sop_instance_uid
    found: dict[str, str] = {}
    for part in in_parts(sop_instance_uids):
        rows = tx.execute(select(uid, column).where(uid.in_(part)))
        found.update({row[0]: row[1] for row in rows})
    return found


def known_paths(tx: Connection) -> set[str]:
    """The paths of all indexed instances."""
    return set(tx.scalars(select(tables.instance.c.path)))


def receiving(tx: Connection) -> list[str]:
    """The studies that are not complete."""
    return in_state(tx, RECEIVING)


def in_state(tx: Connection, state: str) -> list[str]:
    """The studies that stand so."""
    columns = tables.study.c
    return list(tx.scalars(select(columns.study_instance_uid).where(columns.state == state)))


def is_receiving(tx: Connection, study_instance_uid: str) -> bool:
    """Whether something of the study has come, and more is expected."""
    columns = tables.study.c
    state = tx.scalar(select(columns.state).where(columns.study_instance_uid == study_instance_uid))
    return bool(state == RECEIVING)


def is_going(tx: Connection, study_instance_uid: str) -> bool:
    """Whether the files of the study are being removed, or have been: nothing begins with them."""
    columns = tables.study.c
    state = tx.scalar(select(columns.state).where(columns.study_instance_uid == study_instance_uid))
    return state in (REMOVING, REMOVED)


def complete(
    tx: Connection, study_instance_uid: str, *, revision: int, because: str, at: float
) -> bool:
    """Make the study complete as `revision`.

    Returns:
        Whether it was still receiving and its last revision is the one before; otherwise nothing
        changes.
    """
    columns = tables.study.c
    changed = tx.execute(
        update(tables.study)
        .where(
            columns.study_instance_uid == study_instance_uid,
            columns.state == RECEIVING,
            columns.revision == revision - 1,
        )
        .values(state=COMPLETE, revision=revision, because=because, completed_at=at)
    )
    outcomes.refresh(tx, study_instance_uid)
    return changed.rowcount == 1
