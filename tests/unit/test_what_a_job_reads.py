"""What is asked in the life of a job reads its own study, however many studies there were before.

A statement that reads a whole table is quick in every other test, and takes seconds, with the lock
of the database held, where a hundred thousand studies have been.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from dicomnode.archive.database import Database
from dicomnode.archive.studies import index
from dicomnode.archive.work import deliveries, jobs, leases, moves, results, revisions
from dicomnode.archive.work.leases import Task
from dicomnode.archive.work.moves import Shipment
from dicomnode.job import JobState, Priority
from dicomnode.study import Instance

STUDY, SERIES = "1.2.3", "1.2.3.1"
REJECT = {"pacs": Shipment(profile="p", superseded="reject")}
_Asked = dict[str, Any]  # statement → its first parameters


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(f"sqlite:///{tmp_path}/node.db")
    made.migrate()
    yield made
    made.close()


@pytest.fixture
def asked(database: Database) -> _Asked:
    """Every statement from now on."""
    every: _Asked = {}

    def note(*told: Any) -> None:
        _, _, statement, parameters, _, is_many = told
        every.setdefault(statement, parameters[0] if is_many else parameters)

    event.listen(database._engine, "before_cursor_execute", note)
    return every


def a_job(key: str, revision: int) -> revisions.NewJob:
    return revisions.NewJob(
        key=key,
        study_instance_uid=STUDY,
        revision=revision,
        rule="rule",
        model="model",
        model_digest="ab" * 32,
        inputs={"image": jobs.JobInput(series=(SERIES,), instances=(f"{SERIES}.1",))},
        send_to=("pacs",),
        priority=Priority.ROUTINE,
        notify={"pacs": "reject"},
    )


def a_study() -> index.Received:
    instance = Instance(
        sop_instance_uid=f"{SERIES}.1",
        sop_class_uid="1.2",
        transfer_syntax_uid="1.2",
        series_instance_uid=SERIES,
        study_instance_uid=STUDY,
        digest="00",
        path="instances/00/1.dcm",
        header={"Modality": "MR"},
    )
    return index.Received(instance=instance, association="a", size=10, at=1.0)


def predict(database: Database, job: revisions.NewJob) -> None:
    kept = results.ResultFile(
        kind="sr", sop_instance_uid=f"2.{job.key}", series_instance_uid="2", path="p", digest="0"
    )
    with database.write() as tx:
        revisions.create(tx, job, at=1.0)
        leases.due(tx, Task.PREDICT, at=1.0, resend_s=15, window=2)
        assert moves.claim(tx, job.id, owner="me", at=1.0, lease_s=10)
        leases.renew(tx, Task.PREDICT, [job.id], owner="me", at=1.0, lease_s=10)
        jobs.first_with_key(tx, STUDY, job.key)
        results.superseded_reports(tx, job.id)
        moves.predicted(
            tx, job.id, [kept], owner="me", at=1.0, timings={}, device="", shipments=REJECT
        )


def deliver(database: Database, job: revisions.NewJob) -> None:
    with database.write() as tx:
        (delivery,) = deliveries.of_job(tx, job.id)
        assert leases.anything_due(tx, Task.DELIVER, at=2.0, resend_s=15)
        leases.due(tx, Task.DELIVER, at=2.0, resend_s=15, window=2)
        for _ in range(2):
            taken = deliveries.claim(tx, delivery.id, owner="me", at=2.0, lease_s=10)
            assert taken is not None
            leases.expire(tx, Task.DELIVER, at=13.0, attempts=3)
        taken = deliveries.claim(tx, delivery.id, owner="me", at=13.0, lease_s=10)
        assert taken is not None
        assert deliveries.confirm(tx, taken, owner="me", at=13.0)


def test_no_statement_reads_a_whole_table(database: Database, asked: _Asked) -> None:
    first, second, last = a_job("1", 1), a_job("2", 2), a_job("3", 3)
    with database.write() as tx:
        index.add(tx, [a_study()])
        assert index.complete(tx, STUDY, revision=1, because="", at=1.0)
    for job in (first, second):
        predict(database, job)
        deliver(database, job)
    with database.write() as tx:
        assert [one.state for one in jobs.of_study(tx, STUDY)].count(JobState.SUPERSEDED) == 1
        revisions.create(tx, last, at=14.0)
        assert moves.claim(tx, last.id, owner="me", at=14.0, lease_s=1)
        assert leases.expire(tx, Task.PREDICT, at=19.0, attempts=0) == [last.id]
        assert revisions.retry(tx, STUDY, at=19.0) == [last.id]
        revisions.supersede_unwanted(tx, STUDY, rules={"rule"}, wanted=[], at=19.0)
        leases.hand_back(tx, owner="me", at=19.0)
    assert len(asked) > 50
    assert whole_tables(database, asked) == []


def whole_tables(database: Database, asked: _Asked) -> list[str]:
    """What SQLite reads from end to end, or by nothing but where it goes."""
    found = []
    with database._engine.connect() as connection:
        for statement, parameters in list(asked.items()):
            if statement.split()[0] not in {"SELECT", "UPDATE", "DELETE"}:
                continue
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            steps = [row[3] for row in plan]
            # An empty list of values is a table of its own.
            nothing = ("SCAN CONSTANT ROW", "SCAN (subquery")
            found += [
                f"{step}: {statement}"
                for step in steps
                if (step.startswith("SCAN") and not step.startswith(nothing))
                or step.endswith("(destination=?)")
            ]
    return found
