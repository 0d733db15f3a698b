"""A database as it stands after years: studies, their instances, and what became of them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import paged
from sqlalchemy import Connection, text

from dicomnode.archive import tables
from dicomnode.archive.database import Database

PER_STUDY = 10
TOGETHER = 2000

FAMILIES = (
    "Lindqvist", "Okafor", "Müller", "Tanaka", "Novak", "Haddad", "OConnor", "Silva", "Kowalska",
    "Nguyen", "Smith", "Rossi", "Dubois", "Ivanova", "Kim", "Garcia", "Hansen", "Yilmaz",
)  # fmt: skip
GIVEN = ("Astrid", "Chidi", "Kaethe", "Yuki", "Jan", "Leila", "Brendan", "Beatriz", "Zofia")
_OUTCOMES = ("delivered",) * 80 + ("not applicable",) * 17 + ("failed",) * 2 + ("in progress",)
_STATES = {
    "delivered": "delivered", "failed": "failed", "in progress": "pending",
    "not applicable": "not_applicable",
}  # fmt: skip
SPAN_S = 300 * 86_400.0


def fill(database: Database, studies: int, *, now: float) -> None:
    """Put studies into the database, row by row as they would stand there `now`."""
    dice = random.Random(1)
    for start in range(0, studies, TOGETHER):
        rows: dict[str, list[dict[str, Any]]] = {}
        for number in range(start, min(start + TOGETHER, studies)):
            for table, row in study(number, studies, dice, now=now):
                rows.setdefault(table, []).append(row)
        with database.write() as tx:
            for table in ("association", "study", "series", "instance", "decision", "job"):
                tx.execute(tables.metadata.tables[table].insert(), rows[table])
            for table in ("result", "delivery", "event"):
                tx.execute(tables.metadata.tables[table].insert(), rows[table])
    with database.write() as tx:
        tx.execute(text("ANALYZE"))


def uid_of(number: int) -> str:
    """A UID as most are: long, and alike at its beginning."""
    return f"1.2.826.0.1.3680043.8.498.{10**9 + number * 7919}"


def arrived_at(number: int, studies: int, *, now: float) -> float:
    """When a study came: they are spread evenly over the time before `now`."""
    return now - SPAN_S * (1 - number / studies) - 100


def study(
    number: int, studies: int, dice: random.Random, *, now: float
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of one study."""
    uid, outcome = uid_of(number), dice.choice(_OUTCOMES)
    at = arrived_at(number, studies, now=now)
    family, given = dice.choice(FAMILIES), dice.choice(GIVEN)
    patient = f"P{number % (studies // 3):07}"
    modality = dice.choice(("CT", "MR", "MR", "DX", "PT"))
    association, job = f"a{number:09}", f"{number:032x}"
    header = {
        "Modality": modality, "PatientName": f"{family}^{given}", "PatientID": patient,
        "StudyDescription": "Brain without contrast", "SeriesDescription": "T1", "SeriesNumber": 1,
        **{f"Keyword{one}": "some value as headers have many" for one in range(60)},
    }  # fmt: skip
    yield "association", {
        "id": association, "peer": f"scanner{number % 4}", "calling_ae_title": "CT1",
        "address": "10.0.0.5", "opened_at": at, "ended_at": at + 3, "end": "released",
        "stored": PER_STUDY, "refused": 0,
    }  # fmt: skip
    yield "study", {
        "study_instance_uid": uid, "state": "complete", "revision": 1, "first_at": at,
        "last_at": at + 3, "completed_at": at + 5, "because": "", "outcome": outcome,
        "source": f"scanner{number % 4}", "patient_id": patient.lower(),
        "patient_name": f"{family} {given}".lower(), "accession_number": f"a{number:08}",
        "modalities": f" {modality} ", "received": PER_STUDY, "received_bytes": PER_STUDY * 500_000,
    }  # fmt: skip
    yield "series", {
        "study_instance_uid": uid, "series_instance_uid": f"{uid}.1", "header": header
    }  # fmt: skip
    for one in range(PER_STUDY):
        yield "instance", {
            "sop_instance_uid": f"{uid}.1.{one}", "study_instance_uid": uid,
            "series_instance_uid": f"{uid}.1", "sop_class_uid": "1.2.840.10008.5.1.4.1.1.4",
            "transfer_syntax_uid": "1.2.840.10008.1.2.1", "digest": "00" * 32,
            "path": f"instances/{number}/{one}.dcm", "size": 500_000,
            "header": {"changed": {"InstanceNumber": one}, "missing": []},
            "association": association, "received_at": at + one * 0.3,
        }  # fmt: skip
    yield "decision", {
        "study_instance_uid": uid, "revision": 1, "rule": paged.RULE, "series_instance_uid":
        f"{uid}.1", "model": paged.MODEL, "outcome": "job", "origin": "route", "clause": "",
        "value": "", "detail": "every clause holds",
    }  # fmt: skip
    yield from _work(uid, outcome, job, association, at=at)


def _work(
    uid: str, outcome: str, job: str, association: str, *, at: float
) -> Iterator[tuple[str, dict[str, Any]]]:
    state = _STATES[outcome]
    is_over = state != "pending"
    yield "job", {
        "id": job, "key": job * 2, "study_instance_uid": uid, "revision": 1, "rule": paged.RULE,
        "model": paged.MODEL, "model_digest": "ab" * 32,
        "inputs": {"image": {"series": [f"{uid}.1"],
                             "instances": [f"{uid}.1.{n}" for n in range(PER_STUDY)]}},
        "send_to": ["pacs"], "urgency": 1, "timings": dict(paged.TIMINGS), "device": "cuda:0",
        "state": state, "reason": "missing-slices" if state == "failed" else "", "attempts": 1,
        "created_at": at + 5, "ended_at": at + 12 if is_over else None,
    }  # fmt: skip
    if state == "delivered":
        yield "result", {
            "job": job, "position": 0, "kind": "seg", "sop_instance_uid": f"2.25.{int(job, 16)}",
            "series_instance_uid": f"2.25.{int(job, 16)}.1", "path": f"results/{job}/1/seg.dcm",
            "digest": "0", "profiles": [],
        }  # fmt: skip
        yield "delivery", {
            "id": job, "job": job, "destination": "pacs", "state": "confirmed", "attempts": 1,
            "created_at": at + 10, "ended_at": at + 12,
        }  # fmt: skip
    for kind, about, facts in (
        ("association opened", None, {"peer": "scanner1"}),
        ("association ended", None, {"end": "released", "stored": PER_STUDY}),
        ("study complete", uid, {"revision": 1}),
        ("job created", uid, {"rule": paged.RULE}),
        ("job moved", uid, {"state": "predicting"}),
        ("job moved", uid, {"state": "delivering"}),
        ("delivery moved", uid, {"state": "confirmed", "destination": "pacs"}),
        ("job moved", uid, {"state": state}),
    ):
        yield "event", {
            "at": at, "kind": kind, "study_instance_uid": about, "job": job if about else None,
            "association": None if about else association, "facts": facts,
        }  # fmt: skip


def count(tx: Connection, table: str) -> int:
    """How many rows a table has."""
    return int(tx.scalar(text(f"SELECT count(*) FROM {table}")) or 0)
