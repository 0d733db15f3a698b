"""How long the administrator's pages take with many studies: p50 and p95 of each, in milliseconds.

    python tests/bench/pages.py [--studies 100000] [--postgres] [--rounds 30]

Makes a database with ten instances for each study, and asks for each page as a browser does, with
one request at a time and no network in between. What is asked is varied, so that no answer is the
one before.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import paged
import servers
from sqlalchemy import Connection, text

from dicomnode.archive import tables
from dicomnode.archive.database import Database

PER_STUDY = 10
TOGETHER = 2000
#: No page may take longer than this, 19 times of 20.
LIMIT_MS = 200.0

_FAMILIES = (
    "Lindqvist", "Okafor", "Müller", "Tanaka", "Novak", "Haddad", "OConnor", "Silva", "Kowalska",
    "Nguyen", "Smith", "Rossi", "Dubois", "Ivanova", "Kim", "Garcia", "Hansen", "Yilmaz",
)  # fmt: skip
_GIVEN = ("Astrid", "Chidi", "Kaethe", "Yuki", "Jan", "Leila", "Brendan", "Beatriz", "Zofia")
_OUTCOMES = ("delivered",) * 80 + ("not applicable",) * 17 + ("failed",) * 2 + ("in progress",)
_STATES = {
    "delivered": "delivered", "failed": "failed", "in progress": "pending",
    "not applicable": "not_applicable",
}  # fmt: skip
_SPAN_S = 300 * 86_400.0


def fill(database: Database, studies: int) -> None:
    """Put studies into the database, row by row as they would stand there."""
    dice = random.Random(1)
    for start in range(0, studies, TOGETHER):
        rows: dict[str, list[dict[str, Any]]] = {}
        for number in range(start, min(start + TOGETHER, studies)):
            for table, row in study(number, studies, dice):
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


def study(number: int, studies: int, dice: random.Random) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of one study."""
    uid, outcome = uid_of(number), dice.choice(_OUTCOMES)
    at = paged.NOW - _SPAN_S * (1 - number / studies) - 100
    family, given = dice.choice(_FAMILIES), dice.choice(_GIVEN)
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


def pages_asked(studies: int, dice: random.Random) -> dict[str, Callable[[], str]]:
    """Name → the address that is asked for, another one each time."""

    def some() -> int:
        return dice.randrange(studies)

    def day() -> str:
        at = paged.NOW - dice.random() * _SPAN_S
        return time.strftime("%Y-%m-%d", time.localtime(at))

    def deep() -> str:
        number = some()
        at = paged.NOW - _SPAN_S * (1 - number / studies) - 100
        return f"/studies?older={at!r}_{uid_of(number)}"

    return {
        "list": lambda: "/studies-list",
        "list, whole page": lambda: "/studies",
        "list, far back": deep,
        "list, failed": lambda: "/studies?outcome=failed",
        "list, in progress and CT": lambda: "/studies?outcome=in+progress&modality=CT",
        "list, modality of none": lambda: "/studies?modality=NM",
        "list, one day": lambda: f"/studies?from={(one := day())}&to={one}",
        "search, patient ID": lambda: f"/studies?q=p{some() % (studies // 3):07}",
        "search, family name": lambda: f"/studies?q={dice.choice(_FAMILIES)}",
        "search, whole name": lambda: f"/studies?q={dice.choice(_FAMILIES)}+{dice.choice(_GIVEN)}",
        "search, one letter": lambda: f"/studies?q={dice.choice('abcdefghijklmnopqrstuvwxyz')}",
        "search, accession number": lambda: f"/studies?q=A{some():08}",
        "search, beginning of a UID": lambda: "/studies?q=1.2.826.0.1.3680043",
        "search, one UID": lambda: f"/studies?q={uid_of(some())}",
        "search, nothing like it": lambda: f"/studies?q=zz{some()}",
        "search, name and failed": lambda: f"/studies?outcome=failed&q={dice.choice(_FAMILIES)}",
        "one study": lambda: f"/studies/{uid_of(some())}",
        "accounting": lambda: "/accounting",
        "models": lambda: "/models",
        "peers": lambda: "/peers",
        "workers": lambda: "/workers",
        "audit": lambda: "/audit",
        "metrics": lambda: "/metrics",
    }


def measure(
    pages: paged.Pages, studies: int, *, rounds: int, say: Callable[[str], None]
) -> dict[str, dict[str, float]]:
    """Page → its p50 and p95 in milliseconds, after one round that is not counted."""
    browser = pages.as_("administrator")
    found = {}
    for name, address in pages_asked(studies, random.Random(2)).items():
        taken = []
        for _ in range(rounds + 1):
            path = address()
            began = time.perf_counter()
            answer = browser.get(path)
            taken.append(1000 * (time.perf_counter() - began))
            assert answer.status_code == 200, (path, answer.status_code)
        cuts = statistics.quantiles(taken[1:], n=20, method="inclusive")
        found[name] = {"p50_ms": round(cuts[9], 1), "p95_ms": round(cuts[18], 1)}
        mark = "" if cuts[18] < LIMIT_MS else "   over the limit"
        say(f"{name:30} {cuts[9]:8.1f} {cuts[18]:8.1f}{mark}")
    return found


@contextlib.contextmanager
def database_url(*, postgres: bool) -> Iterator[str | None]:
    """Where the rows are; `None` for an SQLite file beside the rest."""
    if not postgres:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="dicomnode-postgres-") as directory:
        server = servers.Postgres(Path(directory))
        server.start()
        try:
            with server.database() as url:
                yield url
        finally:
            server.stop()


def count(tx: Connection, table: str) -> int:
    """How many rows a table has."""
    return int(tx.scalar(text(f"SELECT count(*) FROM {table}")) or 0)


def main() -> None:
    """Measure, and print a table, or with --json one document."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--postgres", action="store_true")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()

    def say(line: str) -> None:
        stream = sys.stderr if asked.json else sys.stdout
        stream.write(f"{line}\n")
        stream.flush()

    with (
        tempfile.TemporaryDirectory() as folder,
        database_url(postgres=asked.postgres) as url,
        paged.pages(Path(folder), url=url) as pages,
    ):
        fill(pages.database, asked.studies)
        with pages.database.read() as tx:
            rows = {one: count(tx, one) for one in ("study", "instance", "job", "event")}
        kind = "PostgreSQL" if asked.postgres else "SQLite"
        say(f"{kind}: " + ", ".join(f"{number} rows of {name}" for name, number in rows.items()))
        say(f"{'page':30} {'p50 ms':>8} {'p95 ms':>8}")
        found = measure(pages, asked.studies, rounds=asked.rounds, say=say)
    if asked.json:
        document = {"database": kind, "rows": rows, "pages": found}
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
    sys.exit(any(one["p95_ms"] >= LIMIT_MS for one in found.values()))


if __name__ == "__main__":
    main()
