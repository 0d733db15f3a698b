"""Retention on each kind of database: the same statements mark, forget and keep the same rows."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import replace

import pytest
from sqlalchemy import text

from dicomnode.archive import commitments, journal
from dicomnode.archive.asked import accounts
from dicomnode.archive.commitments import Reference
from dicomnode.archive.database import Database
from dicomnode.archive.journal import Kind
from dicomnode.archive.keeping import retention
from dicomnode.archive.studies import index
from dicomnode.archive.work import deliveries, jobs, moves, results, revisions
from dicomnode.job import JobState, Priority
from dicomnode.study import Instance

STUDY, SERIES, SOP_CLASS = "1.2.3", "1.2.3.1", "1.2.840.10008.5.1.4.1.1.4"
THEN, NOW = 1000.0, 2000.0


def received(number: int, *, at: float = THEN) -> index.Received:
    uid = f"{SERIES}.{number}"
    instance = Instance(
        sop_instance_uid=uid,
        sop_class_uid=SOP_CLASS,
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        series_instance_uid=SERIES,
        study_instance_uid=STUDY,
        digest="00",
        path=f"instances/00/{uid}.dcm",
        header={"Modality": "MR", "InstanceNumber": number},
    )
    return index.Received(instance=instance, association="", size=10, at=at)


def new_job(*numbers: int, revision: int = 1) -> revisions.NewJob:
    return revisions.NewJob(
        key="-".join(map(str, numbers)),
        study_instance_uid=STUDY,
        revision=revision,
        rule="rule",
        model="model",
        model_digest="ab" * 32,
        inputs={
            "image": jobs.JobInput(
                series=(SERIES,), instances=tuple(f"{SERIES}.{number}" for number in numbers)
            )
        },
        send_to=("pacs",),
        priority=Priority.ROUTINE,
    )


def deliver(database: Database, job: revisions.NewJob, *, at: float = THEN) -> None:
    kept = results.ResultFile(
        kind="sr", sop_instance_uid="2.25.1", series_instance_uid="2.25.2",
        path=f"{results.folder(job.id)}/1/sr.dcm", digest="0",
    )  # fmt: skip
    with database.write() as tx:
        assert moves.claim(tx, job.id, owner="me", at=at, lease_s=10)
        assert moves.predicted(tx, job.id, [kept], owner="me", at=at, timings={}, device="cpu")
        for one in deliveries.of_job(tx, job.id):
            claimed = deliveries.claim(tx, one.id, owner="me", at=at, lease_s=10)
            assert claimed
            assert deliveries.confirm(tx, claimed, owner="me", at=at)


@pytest.fixture
def delivered(database: Database) -> Database:
    """A study of two instances, delivered at `THEN`."""
    job = new_job(1, 2)
    with database.write() as tx:
        index.add(tx, [received(1), received(2)])
        assert index.complete(tx, STUDY, revision=1, because="test", at=THEN)
        assert revisions.create(tx, job, at=THEN)
    deliver(database, job)
    return database


def removable(database: Database, *, before: float = NOW) -> list[str]:
    with database.read() as tx:
        return retention.removable(tx, before=before, limit=10)


def removed(database: Database) -> retention.Removal:
    with database.write() as tx:
        removal = retention.begin(tx, STUDY, before=NOW)
    assert removal is not None
    with database.write(durable=True) as tx:
        assert retention.conclude(tx, removal, at=NOW)
    return removal


def test_a_removal_forgets_the_instances_and_nothing_else(delivered: Database) -> None:
    with delivered.read() as tx:
        account = accounts.account(tx)
    assert removable(delivered, before=THEN - 1) == []
    assert removable(delivered, before=-math.inf) == []
    assert removable(delivered) == [STUDY]
    removal = removed(delivered)
    assert removal.paths == tuple(f"instances/00/{SERIES}.{number}.dcm" for number in (1, 2))
    assert removal.folders == (results.folder(new_job(1, 2).id),)
    assert removal.size == 20
    assert removable(delivered) == []
    with delivered.read() as tx:
        assert index.known_paths(tx) == set()
        assert index.in_state(tx, index.REMOVED) == [STUDY]
        assert accounts.account(tx) == account
        assert [one.state for one in jobs.of_study(tx, STUDY)] == [JobState.DELIVERED]
        assert [one.path for one in results.of_job(tx, new_job(1, 2).id)] == [""]
        (line,) = [e for e in journal.of_study(tx, STUDY) if e.kind == Kind.FILES_REMOVED]
    assert line.facts == {"instances": 2, "bytes": 20}


def test_what_is_marked_is_marked_once(delivered: Database) -> None:
    with delivered.write() as tx:
        assert retention.begin(tx, STUDY, before=NOW)
        assert retention.begin(tx, STUDY, before=NOW) is None


@pytest.mark.parametrize("number", [1, 3])
def test_what_comes_meanwhile_lets_the_study_stay(delivered: Database, number: int) -> None:
    with delivered.write() as tx:
        removal = retention.begin(tx, STUDY, before=NOW)
        index.add(tx, [received(number, at=NOW)])
    assert removal is not None
    with delivered.write() as tx:
        assert not retention.conclude(tx, removal, at=NOW)
        taken = removal.paths[:1]
        unknown = retention.call_off(tx, STUDY, files=removal.paths, taken=taken)
        assert unknown == list(taken)
        assert f"instances/00/{SERIES}.2.dcm" in index.known_paths(tx)
        assert index.in_state(tx, index.REMOVING) == []


def test_a_repetition_lets_the_study_stay(delivered: Database) -> None:
    with delivered.write() as tx:
        removal = retention.begin(tx, STUDY, before=NOW)
        index.came_again(tx, {f"{SERIES}.2": NOW, "9.9": NOW})
        assert removal is not None
        assert not retention.conclude(tx, removal, at=NOW)
    assert removable(delivered) == [STUDY]


def test_what_comes_again_in_part_is_torn_until_it_is_whole(delivered: Database) -> None:
    with delivered.write() as tx:
        assert revisions.torn(tx, STUDY) == {}
    removed(delivered)
    with delivered.write() as tx:
        index.add(tx, [received(2, at=NOW)])
        assert revisions.torn(tx, STUDY) == {SERIES: 1}
        revisions.supersede_unwanted(tx, STUDY, rules={"rule"}, wanted=[], at=NOW)
        assert [one.state for one in jobs.of_study(tx, STUDY)] == [JobState.DELIVERED]
        index.add(tx, [received(1, at=NOW)])
        assert revisions.torn(tx, STUDY) == {}
        assert index.complete(tx, STUDY, revision=2, because="test", at=NOW)
        assert not revisions.create(tx, new_job(1, 2, revision=2), at=NOW)


def test_what_a_peer_was_promised_stays(delivered: Database) -> None:
    reference = Reference(sop_class_uid=SOP_CLASS, sop_instance_uid=f"{SERIES}.1")
    with delivered.write() as tx:
        request_id = commitments.ask(
            tx, peer="ct1", calling_ae_title="CT1", transaction_uid="1.9",
            references=[reference], at=THEN,
        )  # fmt: skip
    assert removable(delivered) == []
    with delivered.write() as tx:
        assert retention.begin(tx, STUDY, before=NOW) is None
        asked = commitments.request(tx, request_id)
        assert asked
        assert commitments.check(tx, asked, [], at=THEN)
        assert commitments.answer(tx, replace(asked, failures=()), status=0, at=THEN)
    assert removable(delivered) == []
    with delivered.write() as tx:
        assert retention.begin(tx, STUDY, before=NOW) is None


def test_what_a_peer_was_promised_before_it_was_indexed_stays(delivered: Database) -> None:
    reference = Reference(sop_class_uid=SOP_CLASS, sop_instance_uid=f"{SERIES}.3")
    with delivered.write() as tx:
        request_id = commitments.ask(
            tx, peer="ct1", calling_ae_title="CT1", transaction_uid="1.9",
            references=[reference], at=THEN,
        )  # fmt: skip
        asked = commitments.request(tx, request_id)
        assert asked
        assert commitments.check(tx, asked, [], at=THEN)
        found = replace(asked, failures=())
        assert commitments.answer(tx, found, status=0, at=THEN, studies={STUDY})
    assert removable(delivered) == []


def test_what_a_peer_asks_about_meanwhile_stays(delivered: Database) -> None:
    reference = Reference(sop_class_uid=SOP_CLASS, sop_instance_uid=f"{SERIES}.1")
    with delivered.write() as tx:
        removal = retention.begin(tx, STUDY, before=NOW)
        assert removal
        request_id = commitments.ask(
            tx, peer="ct1", calling_ae_title="CT1", transaction_uid="1.9",
            references=[reference], at=THEN,
        )  # fmt: skip
        assert not retention.conclude(tx, removal, at=NOW)
        asked = commitments.request(tx, request_id)
        assert asked
        assert commitments.check(tx, asked, [], at=THEN)
        assert commitments.answer(tx, replace(asked, failures=()), status=0, at=THEN)
        assert not retention.conclude(tx, removal, at=NOW)
        assert retention.call_off(tx, STUDY, files=removal.paths, taken=()) == []
        assert index.in_state(tx, index.COMPLETE) == [STUDY]


def test_nothing_begins_with_results_that_are_being_removed(delivered: Database) -> None:
    """They are out of their place, and would be waited for without an end."""
    job = new_job(1, 2)
    with delivered.write() as tx:
        assert retention.begin(tx, STUDY, before=NOW)
        assert not moves.send_also(tx, job.id, "research", moves.Shipment(), at=NOW)
        retention.call_off(tx, STUDY, files=[], taken=[])
        assert moves.send_also(tx, job.id, "research", moves.Shipment(), at=NOW)


def test_a_removal_sees_what_was_begun_while_it_waited(postgres_url: str) -> None:
    """PostgreSQL looks at a row anew after waiting for it, and at no other row of its condition."""
    database = Database(postgres_url)
    database.migrate()
    job = new_job(1, 2)
    with database.write() as tx:
        index.add(tx, [received(1), received(2)])
        assert index.complete(tx, STUDY, revision=1, because="test", at=THEN)
        assert revisions.create(tx, job, at=THEN)
    deliver(database, job)
    begun: list[retention.Removal | None] = []

    def begin() -> None:
        with database.write() as tx:
            begun.append(retention.begin(tx, STUDY, before=NOW))

    remover = threading.Thread(target=begin)
    with database.write() as tx:
        assert moves.send_also(tx, job.id, "research", moves.Shipment(), at=THEN)
        remover.start()
        _wait_until_somebody_waits(database)
    remover.join()
    database.close()
    assert begun == [None]


def _wait_until_somebody_waits(database: Database) -> None:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        with database.read() as tx:
            waiting = tx.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted"))
        if waiting:
            return
    raise AssertionError("nobody waits for a lock")
