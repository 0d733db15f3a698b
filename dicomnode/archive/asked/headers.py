"""Many studies at once, as far as rules look at them: a few elements of each header.

Most instances of a series differ in what no rule asks for. Those that are alike in the elements
that are asked for are one and the same `Instance` here, so that what is asked of it is asked once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select

from dicomnode import NAME
from dicomnode.archive import tables
from dicomnode.archive.studies import index
from dicomnode.archive.work import jobs, results
from dicomnode.archive.work.jobs import Job
from dicomnode.study import HeaderValue, Instance, Series, Study

_TOGETHER = 200  # studies that are read with one statement
#: What says that a series is a result of a node like this one.
_SIGNATURE = ("Manufacturer", "ManufacturerModelName")
_MANY = "NumberOfFrames"


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A study as it was seen.

    Attributes:
        own: Its series that the node made itself: results that have come back.
        jobs: What it was run through.
    """

    study: Study
    own: frozenset[str]
    jobs: tuple[Job, ...]


def seen(tx: Connection, *, since: float, keywords: Collection[str]) -> Iterator[Seen]:
    """Every complete study of which something came since then, oldest first.

    Each instance has the elements of `keywords` and no others, and its own UIDs only where they
    are asked for. A study whose files were removed has no series.

    Args:
        since: Seconds since the epoch.
    """
    columns = tables.study.c
    rows = tx.execute(
        select(columns.study_instance_uid, columns.revision)
        .where(columns.last_at >= since, columns.state.in_((index.COMPLETE, index.REMOVED)))
        .order_by(columns.last_at, columns.study_instance_uid)
    ).all()
    wanted = frozenset({*keywords, *_SIGNATURE, _MANY})
    for start in range(0, len(rows), _TOGETHER):
        batch = {row.study_instance_uid: row.revision for row in rows[start : start + _TOGETHER]}
        found = _series(tx, list(batch), wanted)
        made = own(tx, [one for every in found.values() for one in every])
        ran = jobs.of_studies(tx, list(batch))
        for uid, revision in batch.items():
            series = tuple(found.get(uid, ()))
            yield Seen(
                study=Study(study_instance_uid=uid, revision=revision, series=series),
                own=frozenset(made.intersection(one.series_instance_uid for one in series)),
                jobs=tuple(ran.get(uid, ())),
            )


def own(tx: Connection, series: Sequence[Series]) -> set[str]:
    """Of some series, those that this node, or another one of its kind, made itself."""
    known = results.is_own(tx, [one.series_instance_uid for one in series])
    return known | {one.series_instance_uid for one in series if _is_signed(one)}


def _is_signed(series: Series) -> bool:
    different = {id(one): one for one in series.instances}.values()
    return all(one.value(keyword) == NAME for one in different for keyword in _SIGNATURE)


def _series(tx: Connection, uids: Sequence[str], wanted: frozenset[str]) -> dict[str, list[Series]]:
    bases: dict[tuple[str, str], dict[str, HeaderValue]] = {}
    series = tables.series.c
    for kept in tx.execute(
        select(series.study_instance_uid, series.series_instance_uid, series.header).where(
            series.study_instance_uid.in_(uids)
        )
    ):
        base = {k: v for k, v in kept.header.items() if k in wanted}
        bases[kept.study_instance_uid, kept.series_instance_uid] = base
    grouped: dict[tuple[str, str], list[Instance]] = defaultdict(list)
    alike: dict[Any, Instance] = {}
    instance = tables.instance.c
    found_instances = tx.execute(
        select(
            instance.study_instance_uid,
            instance.series_instance_uid,
            instance.sop_instance_uid,
            instance.sop_class_uid,
            instance.transfer_syntax_uid,
            instance.header,
        )
        .where(instance.study_instance_uid.in_(uids))
        .order_by(
            instance.study_instance_uid, instance.series_instance_uid, instance.sop_instance_uid
        )
    )
    is_named = "SOPInstanceUID" in wanted
    for row in found_instances:
        key = (row[0], row[1])
        header = _merged(bases[key], row[5], wanted)
        differs = "" if header is bases[key] else repr(header)
        mark = (*key, row[3], row[4], differs, row[2] if is_named else "")
        if mark not in alike:
            alike[mark] = _instance(row, header)
        grouped[key].append(alike[mark])
    found: dict[str, list[Series]] = defaultdict(list)
    for (study_uid, series_uid), instances in grouped.items():
        made = Series(series_instance_uid=series_uid, instances=tuple(instances))
        found[study_uid].append(made)
    return found


def _merged(
    base: Mapping[str, HeaderValue], difference: Mapping[str, Any], wanted: frozenset[str]
) -> Mapping[str, HeaderValue]:
    changed = {k: v for k, v in difference["changed"].items() if k in wanted}
    missing = [k for k in difference["missing"] if k in wanted]
    if not changed and not missing:
        return base
    return {**{k: v for k, v in base.items() if k not in missing}, **changed}


def _instance(row: Any, header: Mapping[str, HeaderValue]) -> Instance:
    return Instance(
        sop_instance_uid=row.sop_instance_uid,
        sop_class_uid=row.sop_class_uid,
        transfer_syntax_uid=row.transfer_syntax_uid,
        series_instance_uid=row.series_instance_uid,
        study_instance_uid=row.study_instance_uid,
        digest="",
        path="",
        header=header,
    )
