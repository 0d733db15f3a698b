"""What a newer revision of a study does with the answer that there is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomnode import routed
from dicomnode.archive.asked import accounts
from dicomnode.archive.database import Database
from dicomnode.archive.studies import index
from dicomnode.archive.work import deliveries, jobs, moves, results
from dicomnode.job import DeliveryState, JobState, Priority
from dicomnode.matcher import Compares
from dicomnode.routing import Rule
from dicomnode.routing.clause import Clause, Origin
from dicomnode.study import Instance, Study

STUDY, SERIES = "1.2.3", "1.2.3.1"
THIN = Clause(keyword="SliceThickness", matcher=Compares(sign="<=", limit=3), origin=Origin.ROUTE)
RULE = Rule(
    name="liver",
    model="liver",
    model_digest="ab" * 32,
    inputs={"image": (THIN,)},
    send_to=("pacs",),
    priority=Priority.ROUTINE,
)
REJECT = {"pacs": moves.Shipment(superseded="reject")}


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(f"sqlite:///{tmp_path}/node.db")
    made.migrate()
    yield made
    made.close()


def an_instance(number: int, thickness: str) -> Instance:
    uid = f"{SERIES}.{number}"
    return Instance(
        sop_instance_uid=uid,
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        series_instance_uid=SERIES,
        study_instance_uid=STUDY,
        digest="00",
        path=f"instances/{uid}.dcm",
        header={"Modality": "CT", "SliceThickness": thickness},
    )


def complete(database: Database, *instances: Instance, revision: int) -> None:
    """Let a revision of the study be complete, and routed."""
    at = float(revision)
    with database.write() as tx:
        index.add(
            tx,
            [index.Received(instance=one, association="a", size=1, at=at) for one in instances],
        )
        assert index.complete(tx, STUDY, revision=revision, because="test", at=at)
        routed.apply(tx, Study.from_instances(instances, revision=revision), [RULE], at=at)


def deliver(database: Database) -> jobs.Job:
    kept = results.ResultFile(
        kind="sr", sop_instance_uid="2.25.1", series_instance_uid="2.25.2", path="p", digest="0"
    )
    with database.write() as tx:
        (job,) = jobs.of_study(tx, STUDY)
        assert moves.claim(tx, job.id, owner="me", at=9.0, lease_s=10)
        assert moves.predicted(
            tx, job.id, [kept], owner="me", at=9.0, timings={}, device="", shipments=REJECT
        )
        (one,) = deliveries.of_job(tx, job.id)
        taken = deliveries.claim(tx, one.id, owner="me", at=9.0, lease_s=10)
        assert taken is not None
        assert deliveries.confirm(tx, taken, owner="me", at=9.0)
    return job


def outcome(database: Database) -> str:
    with database.read() as tx:
        line = accounts.study(tx, STUDY)
    assert line is not None
    return line.outcome


def test_a_doubt_takes_no_answer_back_and_a_no_does(database: Database) -> None:
    first, odd, thick = an_instance(1, "2.5"), an_instance(2, "thin"), an_instance(3, "10")
    complete(database, first, revision=1)
    job = deliver(database)
    assert outcome(database) == "delivered"
    complete(database, first, odd, revision=2)
    with database.read() as tx:
        assert jobs.job(tx, job.id) is not None
        assert [one.state for one in jobs.of_study(tx, STUDY)] == [JobState.DELIVERED]
        assert [one.state for one in deliveries.of_job(tx, job.id)] == [DeliveryState.CONFIRMED]
    assert outcome(database) == "failed"  # somebody is to look at it
    complete(database, first, odd, thick, revision=3)
    with database.read() as tx:
        assert [one.state for one in jobs.of_study(tx, STUDY)] == [JobState.SUPERSEDED]
        assert len(deliveries.of_job(tx, job.id)) == 2  # the answer, and that it is taken back
    assert outcome(database) == "not applicable"
