"""Studies as somebody looks for them: by patient, number or UID, by what became of them, by day.

The newest come first, a page at a time; where a page ends, its last study says where the next one
begins, so that the thousandth page costs as much as the first.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, func, literal, or_, select

from dicomnode.archive import tables
from dicomnode.archive.studies import identity
from dicomnode.archive.studies.outcomes import Outcome
from dicomnode.job import JobState
from dicomnode.study import HeaderValue

# Above every character that a text may hold.
_LAST = "\U0010ffff"
# Of what is looked for, more than so many are not found through the index of the column: it is
# quicker to go through the studies in their order until a page is full.
_MANY = 2000
_LEAST_OF_UID = 3


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where in the order of studies somebody is."""

    first_at: float
    study_instance_uid: str


@dataclass(frozen=True, kw_only=True)
class Query:
    """What is looked for; what is left out does not matter.

    Attributes:
        text: The beginning of a patient's name or ID, an accession number, or a study's UID.
        since: First arrival, seconds since the epoch; likewise `until`, which is not included.
        older: Only studies behind this place in the order, the newest of them.
        newer: Only studies before it, the oldest of them.
    """

    text: str = field(default="", repr=False)
    outcome: Outcome | None = None
    modality: str = ""
    since: float | None = None
    until: float | None = None
    older: Place | None = None
    newer: Place | None = None


@dataclass(frozen=True, kw_only=True)
class Ruling:
    """What one rule came to for a study: the state of its job, or "held" or "not_applicable"."""

    rule: str
    state: str


@dataclass(frozen=True, kw_only=True)
class Line:
    """One study in a list.

    Attributes:
        patient: Name and ID as they were sent; folded where the files were removed.
        rulings: By rule; of several series the one that needs an eye most.
    """

    study_instance_uid: str
    outcome: Outcome
    state: str
    revision: int
    first_at: float
    last_at: float
    source: str
    modalities: list[str]
    patient_name: str = field(repr=False)
    patient_id: str = field(repr=False)
    description: str = field(repr=False)
    series: int
    instances: int
    rulings: tuple[Ruling, ...]

    @property
    def place(self) -> Place:
        """Where it stands in the order."""
        return Place(first_at=self.first_at, study_instance_uid=self.study_instance_uid)


@dataclass(frozen=True, kw_only=True)
class Page:
    """Some studies in a row, newest first, and whether there are more on either side."""

    lines: tuple[Line, ...]
    has_older: bool
    has_newer: bool


def page(tx: Connection, query: Query, *, limit: int) -> Page:
    """The studies that are looked for."""
    study = tables.study.c
    backwards = query.newer is not None
    order = [study.first_at, study.study_instance_uid]
    wanted = select(tables.study).where(*_conditions(tx, query))
    wanted = wanted.order_by(*(order if backwards else [one.desc() for one in order]))
    rows = list(tx.execute(wanted.limit(limit + 1)))
    more, rows = len(rows) > limit, rows[:limit]
    if backwards:
        rows.reverse()
    return Page(
        lines=tuple(_lines(tx, rows)),
        has_older=bool(rows) if backwards else more,
        has_newer=more if backwards else query.older is not None,
    )


def line(tx: Connection, study_instance_uid: str) -> Line | None:
    """One study."""
    rows = tx.execute(
        select(tables.study).where(tables.study.c.study_instance_uid == study_instance_uid)
    ).all()
    found = _lines(tx, rows)
    return found[0] if found else None


def modalities(tx: Connection) -> list[str]:
    """Every modality that some study has."""
    kept = tx.scalars(select(tables.study.c.modalities).distinct())
    return sorted({one for text in kept for one in identity.modalities(text)})


def _conditions(tx: Connection, query: Query) -> list[ColumnElement[bool]]:
    study = tables.study.c
    found: list[ColumnElement[bool]] = []
    if query.outcome is not None:
        found.append(study.outcome == query.outcome)
    if query.modality:
        found.append(
            study.modalities.contains(identity.of_modality(query.modality), autoescape=True)
        )
    if query.since is not None:
        found.append(study.first_at >= query.since)
    if query.until is not None:
        found.append(study.first_at < query.until)
    if query.older is not None:
        found.append(_before(query.older))
    if query.newer is not None:
        found.append(_after(query.newer))
    if query.text.strip():
        found.append(_named(tx, query.text))
    return found


def _before(place: Place) -> ColumnElement[bool]:
    study = tables.study.c
    same = and_(
        study.first_at == place.first_at, study.study_instance_uid < place.study_instance_uid
    )
    return and_(study.first_at <= place.first_at, or_(study.first_at < place.first_at, same))


def _after(place: Place) -> ColumnElement[bool]:
    study = tables.study.c
    same = and_(
        study.first_at == place.first_at, study.study_instance_uid > place.study_instance_uid
    )
    return and_(study.first_at >= place.first_at, or_(study.first_at > place.first_at, same))


def _named(tx: Connection, text: str) -> ColumnElement[bool]:
    """Whether a study is one that goes by this text, or one that begins with it."""
    study = tables.study.c
    begin = identity.folded(text)
    columns: list[Any] = [study.patient_name, study.patient_id, study.accession_number]
    if len(begin) >= _LEAST_OF_UID and not begin.strip("0123456789."):
        columns.append(study.study_instance_uid)
    if not any(_are_many(tx, column, begin) for column in columns):
        uids = [
            select(study.study_instance_uid).where(_begins(column, begin)) for column in columns
        ]
        return study.study_instance_uid.in_(uids[0].union(*uids[1:]))
    # An expression in place of the column keeps the database from its index.
    return or_(*(_begins(column.concat(literal("")), begin) for column in columns))


def _are_many(tx: Connection, column: Any, begin: str) -> bool:
    few = select(literal(1)).where(_begins(column, begin)).limit(_MANY).subquery()
    return (tx.scalar(select(func.count()).select_from(few)) or 0) >= _MANY


def _begins(column: Any, begin: str) -> ColumnElement[bool]:
    return and_(column >= begin, column < begin + _LAST)


def _lines(tx: Connection, rows: Sequence[Row[Any]]) -> list[Line]:
    uids = [row.study_instance_uid for row in rows]
    if not uids:
        return []
    instances, series = _counts(tx, uids)
    headers, rulings = _headers(tx, uids), _rulings(tx, uids)
    return [
        Line(
            study_instance_uid=row.study_instance_uid,
            outcome=Outcome(row.outcome),
            state=row.state,
            revision=row.revision,
            first_at=row.first_at,
            last_at=row.last_at,
            source=row.source,
            modalities=identity.modalities(row.modalities),
            patient_name=_text(headers, row, "PatientName") or row.patient_name,
            patient_id=_text(headers, row, "PatientID") or row.patient_id,
            description=_text(headers, row, "StudyDescription"),
            series=series.get(row.study_instance_uid, 0),
            instances=instances.get(row.study_instance_uid, 0),
            rulings=rulings.get(row.study_instance_uid, ()),
        )
        for row in rows
    ]


def _counts(tx: Connection, uids: Sequence[str]) -> tuple[dict[str, int], dict[str, int]]:
    """How many instances and how many series each study has."""

    def grouped(column: Any) -> Select[Any]:
        return select(column, func.count()).where(column.in_(uids)).group_by(column)

    of_instances = tx.execute(grouped(tables.instance.c.study_instance_uid))
    of_series = tx.execute(grouped(tables.series.c.study_instance_uid))
    return {r[0]: int(r[1]) for r in of_instances}, {r[0]: int(r[1]) for r in of_series}


def _headers(tx: Connection, uids: Sequence[str]) -> dict[str, Mapping[str, HeaderValue]]:
    """The header of one series of each study."""
    series = tables.series.c
    first = (
        select(series.study_instance_uid, func.min(series.series_instance_uid).label("first"))
        .where(series.study_instance_uid.in_(uids))
        .group_by(series.study_instance_uid)
        .subquery()
    )
    rows = tx.execute(
        select(series.study_instance_uid, series.header).join(
            first,
            and_(
                series.study_instance_uid == first.c.study_instance_uid,
                series.series_instance_uid == first.c.first,
            ),
        )
    )
    return {row.study_instance_uid: row.header for row in rows}


def _text(headers: Mapping[str, Mapping[str, HeaderValue]], row: Row[Any], keyword: str) -> str:
    value = headers.get(row.study_instance_uid, {}).get(keyword)
    values = value if isinstance(value, list) else [value]
    return " ".join(str(one) for one in values if one is not None)


# Of several series of one rule, the first of these is told.
_TOLD = (
    JobState.FAILED, "held", JobState.PENDING, JobState.PREDICTING, JobState.DELIVERING,
    JobState.DELIVERED, JobState.NOT_APPLICABLE,
)  # fmt: skip


def _rulings(tx: Connection, uids: Sequence[str]) -> dict[str, tuple[Ruling, ...]]:
    job, decision, study = tables.job.c, tables.decision.c, tables.study.c
    by_job = select(job.study_instance_uid, job.rule, job.state).where(
        job.study_instance_uid.in_(uids), job.state != JobState.SUPERSEDED
    )
    by_clause = (
        select(decision.study_instance_uid, decision.rule, decision.outcome.label("state"))
        .join(tables.study, study.study_instance_uid == decision.study_instance_uid)
        .where(
            decision.study_instance_uid.in_(uids),
            decision.revision == study.revision,
            decision.outcome != "job",
        )
    )
    states: dict[str, dict[str, str]] = defaultdict(dict)
    for row in (*tx.execute(by_job), *tx.execute(by_clause)):
        known = states[row.study_instance_uid].get(row.rule, _TOLD[-1])
        states[row.study_instance_uid][row.rule] = min(known, row.state, key=_TOLD.index)
    return {
        uid: tuple(Ruling(rule=rule, state=state) for rule, state in sorted(rules.items()))
        for uid, rules in states.items()
    }
