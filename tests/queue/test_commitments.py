"""Storage commitments as rows: what peers ask of us, and what we ask of destinations."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import alembic.command
import alembic.config
import pytest
from sqlalchemy import Connection, select, text

from dicomnode.archive import commitments, journal, tables
from dicomnode.archive.asked import accounts
from dicomnode.archive.commitments import Failure, FailureReason, Reference
from dicomnode.archive.database import Database
from dicomnode.archive.studies import index
from dicomnode.archive.work import (
    confirmations,
    deliveries,
    jobs,
    leases,
    moves,
    results,
    revisions,
)
from dicomnode.archive.work.confirmations import Confirmation, State
from dicomnode.archive.work.deliveries import Delivery
from dicomnode.archive.work.leases import Task
from dicomnode.job import DeliveryState, Priority, Purpose
from dicomnode.study import Instance

NOW = 1000.0
STUDY = "1.2.3"
ONE = Reference(sop_class_uid="1.2.840.10008.5.1.4.1.1.4", sop_instance_uid="1.2.3.1.1")
TWO = replace(ONE, sop_instance_uid="1.2.3.1.2")
LOST = Failure(reference=TWO, reason=FailureReason.NO_SUCH_OBJECT)


def ask(
    database: Database,
    *references: Reference,
    peer: str = "ct",
    transaction: str = "1.9",
    at: float = NOW,
) -> str:
    with database.write() as tx:
        return ask_in(tx, *references, peer=peer, transaction=transaction, at=at)


def ask_in(
    tx: Connection,
    *references: Reference,
    peer: str = "ct",
    transaction: str = "1.9",
    at: float = NOW,
) -> str:
    return commitments.ask(
        tx,
        peer=peer,
        calling_ae_title=peer.upper(),
        transaction_uid=transaction,
        references=references or (ONE, TWO),
        at=at,
    )


def request(database: Database, request_id: str) -> commitments.Request:
    with database.read() as tx:
        found = commitments.request(tx, request_id)
    assert found is not None
    return found


def answer(database: Database, request_id: str, *failures: Failure, at: float = NOW) -> bool:
    with database.write() as tx:
        asked = commitments.request(tx, request_id)
        assert asked is not None
        assert commitments.check(tx, asked, failures, at=at)
        return commitments.answer(tx, replace(asked, failures=failures), status=0, at=at)


def test_a_request_waits_until_the_peer_has_heard_the_answer(database: Database) -> None:
    asked = ask(database)
    found = request(database, asked)
    assert (found.references, found.failures, found.attempts) == ((ONE, TWO), None, 0)
    with database.write() as tx:
        assert commitments.due(tx, ["ct", "mr"], at=NOW) == {"ct": [asked]}
        assert commitments.due(tx, ["mr"], at=NOW) == {}
        assert commitments.check(tx, found, [LOST], at=NOW)
    found = request(database, asked)
    assert found.failures == (LOST,)
    with database.write() as tx:
        assert commitments.put_off(tx, found, not_before=NOW + 5, in_vain=True)
        assert commitments.due(tx, ["ct"], at=NOW + 4) == {}
        assert commitments.due(tx, ["ct"], at=NOW + 5) == {"ct": [asked]}
    assert request(database, asked).attempts == 1
    with database.write() as tx:
        assert commitments.answer(tx, found, status=0, at=NOW + 6)
        assert commitments.request(tx, asked) is None
        assert commitments.due(tx, ["ct"], at=NOW + 100) == {}


def test_what_was_tried_in_vain_comes_after_what_was_not(database: Database) -> None:
    first, second = ask(database, transaction="1.1"), ask(database, transaction="1.2", at=NOW + 1)
    with database.write() as tx:
        assert commitments.due(tx, ["ct"], at=NOW + 1) == {"ct": [first, second]}
        for asked, in_vain in ((first, True), (second, False)):
            found = commitments.request(tx, asked)
            assert found is not None
            commitments.put_off(tx, found, not_before=NOW + 2, in_vain=in_vain)
        assert commitments.due(tx, ["ct"], at=NOW + 2) == {"ct": [second, first]}


def test_the_same_request_again_is_answered_again(database: Database) -> None:
    asked = ask(database)
    assert ask(database, TWO, ONE) == asked  # while it is open, and in another order
    assert answer(database, asked)
    assert ask(database, at=NOW + 9) == asked
    found = request(database, asked)
    assert (found.references, found.failures, found.asked_at) == ((ONE, TWO), None, NOW + 9)


def test_an_answer_to_the_first_request_does_not_close_the_second(database: Database) -> None:
    first = request(database, ask(database))
    with database.write() as tx:
        commitments.check(tx, first, [], at=NOW)
    ask(database, at=NOW + 1)
    with database.write() as tx:
        assert not commitments.answer(tx, first, status=0, at=NOW + 2)
        assert not commitments.check(tx, first, [LOST], at=NOW)
        assert not commitments.put_off(tx, first, not_before=NOW + 9, in_vain=True)
        assert list(commitments.due(tx, ["ct"], at=NOW + 2)) == ["ct"]


def test_another_request_under_the_same_transaction_uid_fails_whole(database: Database) -> None:
    first = ask(database)
    second = ask(database, ONE, at=NOW + 1)
    assert second != first
    assert request(database, first).failures is None
    (failure,) = request(database, second).failures or ()
    assert failure == Failure(reference=ONE, reason=0x0131)
    # Somebody else may use the same UID by chance: that is no transaction of this peer.
    assert request(database, ask(database, ONE, peer="mr")).failures is None


def test_what_was_asked_and_answered_stands_in_the_journal_of_the_study(
    database: Database,
) -> None:
    with database.write() as tx:
        index.add(tx, [received(ONE), received(TWO)])
    assert answer(database, ask(database), LOST, at=NOW + 1)
    with database.read() as tx:
        (entry,) = [one for one in journal.of_study(tx, STUDY) if one.kind.startswith("commit")]
    assert entry.kind == "commitment answered"
    assert entry.facts == {
        "peer": "ct",
        "calling_ae_title": "CT",
        "transaction": "1.9",
        "instances": 2,
        "failed": 1,
        "reasons": ["0x0112"],
        "status": "0x0000",
    }


def test_what_was_promised_before_it_was_indexed_stands_in_the_journal_of_its_study(
    database: Database,
) -> None:
    asked = request(database, ask(database))
    with database.write() as tx:
        assert commitments.check(tx, asked, [], at=NOW)
        assert commitments.answer(tx, asked, status=0, at=NOW, studies={STUDY})
        index.add(tx, [received(ONE), received(TWO)])
    with database.read() as tx:
        assert [one.kind for one in journal.of_study(tx, STUDY)] == ["commitment answered"]


def test_who_has_not_heard_the_answer_is_counted(database: Database) -> None:
    asked = ask(database)
    ask(database, transaction="1.10")
    with database.read() as tx:
        assert accounts.untold(tx) == 2
    assert answer(database, asked)
    with database.read() as tx:
        assert accounts.untold(tx) == 1


@pytest.mark.server("postgresql")
def test_the_same_request_twice_at_once_is_one(postgres_url: str) -> None:
    database = Database(postgres_url)
    database.migrate()
    try:
        with ThreadPoolExecutor() as pool:
            with database.write() as tx:
                asked = ask_in(tx, ONE)
                second = pool.submit(ask, database, ONE, at=NOW + 1)
                _wait_until_blocked(database)
            assert second.result(timeout=30) == asked
        assert request(database, asked).asked_at == NOW + 1
    finally:
        database.close()


def _wait_until_blocked(database: Database) -> None:
    until = time.monotonic() + 30
    blocked = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    while True:
        with database.read() as tx:
            if tx.scalar(blocked):
                return
        assert time.monotonic() < until
        time.sleep(0.02)


def received(reference: Reference) -> index.Received:
    uid = reference.sop_instance_uid
    instance = Instance(
        sop_instance_uid=uid,
        sop_class_uid=reference.sop_class_uid,
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        series_instance_uid="1.2.3.1",
        study_instance_uid=STUDY,
        digest="00",
        path=f"instances/00/{uid}.dcm",
        header={"Modality": "MR"},
    )
    return index.Received(instance=instance, association="a", size=10, at=NOW)


def test_a_database_of_the_first_schema_is_brought_up_to_date(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/node.db")
    with database.write() as tx:
        settings = alembic.config.Config()
        migrations = Path(str(tables.__file__)).parent / "migrations"
        settings.set_main_option("script_location", str(migrations))
        settings.attributes["connection"] = tx
        alembic.command.upgrade(settings, "0001")
    with database.write() as tx:
        for statement in _AT_FIRST:
            tx.exec_driver_sql(statement)
    database.migrate()
    ask(database, ONE)
    with database.read() as tx:
        assert list(commitments.kept(tx, [ONE])) == [ONE.sop_instance_uid]
        row = tx.execute(select(tables.study)).one()
    assert (row.patient_id, row.patient_name, row.accession_number) == ("p-1", "doe jane", "a1")
    assert (row.modalities, row.source, row.outcome) == (" MR ", "ct1", "failed")
    assert (row.received, row.received_bytes) == (1, 10)
    database.close()


# A study as the first release left it: one instance, and a job that failed.
_AT_FIRST = (
    (
        "INSERT INTO association (id, peer, calling_ae_title, address, opened_at, stored, refused)"
        " VALUES ('a', 'ct1', 'CT1', '10.0.0.5', 1.0, 1, 0)"
    ),
    (
        "INSERT INTO study (study_instance_uid, state, revision, first_at, last_at, because)"
        f" VALUES ('{STUDY}', 'complete', 1, 1.0, 1.0, '')"
    ),
    (
        "INSERT INTO series (study_instance_uid, series_instance_uid, header)"
        f' VALUES (\'{STUDY}\', \'{STUDY}.1\', \'{{"PatientID": "P-1", "PatientName": "Doe^Jane",'
        ' "AccessionNumber": "A1", "Modality": "MR"}\')'
    ),
    (
        "INSERT INTO instance (sop_instance_uid, study_instance_uid, series_instance_uid,"
        " sop_class_uid, transfer_syntax_uid, digest, path, size, header, association, received_at)"
        f" VALUES ('{ONE.sop_instance_uid}', '{STUDY}', '{STUDY}.1', '{ONE.sop_class_uid}', '1.2',"
        " '00', 'one.dcm', 10, '{}', 'a', 1.0)"
    ),
    (
        "INSERT INTO job (id, key, study_instance_uid, revision, rule, model, model_digest, inputs,"
        " send_to, urgency, timings, device, state, reason, detail, attempts, not_before,"
        " created_at)"
        f" VALUES ('j', 'k', '{STUDY}', 1, 'rule', 'model', '00', '{{}}', '[]', 1, '{{}}', '',"
        " 'failed', '', '', 1, 0.0, 1.0)"
    ),
)


def test_sqlite_syncs_a_durable_transaction_and_not_the_next_one(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/node.db")
    settings = []
    for durable in (True, False):
        with database.write(durable=durable) as tx:
            settings.append(tx.execute(text("PRAGMA synchronous")).scalar())
    database.close()
    assert settings == [2, 1]  # FULL, NORMAL


# What we ask of destinations.


@pytest.fixture
def delivery(database: Database) -> Delivery:
    """A delivery that a worker has taken up."""
    new = revisions.NewJob(
        key="key",
        study_instance_uid=STUDY,
        revision=1,
        rule="rule",
        model="model",
        model_digest="ab" * 32,
        inputs={"image": jobs.JobInput(series=("1.2.3.1",), instances=("1.2.3.1.1",))},
        send_to=("pacs",),
        priority=Priority.ROUTINE,
    )
    kept = results.ResultFile(
        kind="seg",
        sop_instance_uid=ONE.sop_instance_uid,
        series_instance_uid="2.25.9",
        path="seg",
        digest="0",
    )
    with database.write() as tx:
        index.add(tx, [received(ONE)])
        revisions.create(tx, new, at=NOW)
        moves.claim(tx, new.id, owner="me", at=NOW, lease_s=10)
        moves.predicted(tx, new.id, [kept], owner="me", at=NOW, timings={}, device="cpu")
        (made,) = deliveries.of_job(tx, new.id)
    return claim(database, made)


def claim(database: Database, delivery: Delivery, *, at: float = NOW) -> Delivery:
    with database.write() as tx:
        claimed = deliveries.claim(tx, delivery.id, owner="me", at=at, lease_s=10)
    assert claimed is not None
    return claimed


def ask_for(database: Database, delivery: Delivery, *, at: float = NOW) -> Confirmation:
    with database.write() as tx:
        return confirmations.ask(tx, delivery, [ONE, TWO], at=at)


def report(
    database: Database,
    asked: Confirmation,
    *safe: Reference,
    failed: tuple[Failure, ...] = (),
    by: str = "pacs",
) -> str:
    with database.write() as tx:
        return confirmations.answer(
            tx,
            asked.transaction_uid,
            destination=by,
            safe={one.sop_instance_uid for one in safe},
            failed=failed,
            at=NOW + 3,
        )


def wait(database: Database, delivery: Delivery, *, heard: tuple[str, ...] = ()) -> bool:
    with database.write() as tx:
        return confirmations.await_answer(
            tx,
            delivery,
            heard=heard,
            owner="me",
            at=NOW + 2,
            not_before=NOW + 120,
            reason="awaiting-commitment",
            detail="",
        )


def state(database: Database, asked: Confirmation) -> Confirmation:
    with database.read() as tx:
        found = confirmations.find(tx, asked.transaction_uid)
    assert found is not None
    return found


def test_a_delivery_that_waits_goes_on_as_soon_as_the_answer_is_there(
    database: Database, delivery: Delivery
) -> None:
    asked = ask_for(database, delivery)
    assert wait(database, delivery)
    with database.read() as tx:
        (waiting,) = deliveries.of_job(tx, delivery.job)
        assert (waiting.state, waiting.reason) == (DeliveryState.PENDING, "awaiting-commitment")
        assert waiting.attempts == 0  # nothing went wrong
        assert not leases.anything_due(tx, Task.DELIVER, at=NOW + 119, resend_s=15)
    assert report(database, asked, ONE, TWO) == ""
    with database.read() as tx:
        assert leases.anything_due(tx, Task.DELIVER, at=NOW + 3, resend_s=15)
    assert state(database, asked).state is State.CONFIRMED


def test_an_answer_that_came_before_the_delivery_began_to_wait_is_not_slept_over(
    database: Database, delivery: Delivery
) -> None:
    asked = ask_for(database, delivery)
    assert report(database, asked, ONE, TWO) == ""
    assert wait(database, delivery)
    assert claim(database, delivery, at=NOW + 3).attempts == 1


def test_an_answer_to_an_earlier_question_ends_the_waiting_too_but_only_once(
    database: Database, delivery: Delivery
) -> None:
    first, _ = ask_for(database, delivery), ask_for(database, delivery, at=NOW + 1)
    assert report(database, first, ONE, failed=(LOST,)) == ""
    assert wait(database, delivery)
    again = claim(database, delivery, at=NOW + 2)
    assert wait(database, again, heard=(first.transaction_uid,))
    with database.read() as tx:
        assert not leases.anything_due(tx, Task.DELIVER, at=NOW + 119, resend_s=15)


def test_what_is_tried_once_more_is_asked_anew(database: Database, delivery: Delivery) -> None:
    asked = ask_for(database, delivery)
    report(database, asked, ONE, failed=(replace(LOST, reason=0x0119),))
    with database.write() as tx:
        deliveries.fail(tx, delivery, owner="me", at=NOW + 4, reason="commitment-failed", detail="")
        assert revisions.retry(tx, STUDY, at=NOW + 5) == [delivery.job]
        assert confirmations.of_delivery(tx, delivery.id) == []
    assert claim(database, delivery, at=NOW + 5).attempts == 1


@pytest.mark.parametrize(
    ("safe", "failed", "reasons"),
    [
        ((ONE,), (LOST,), [0x0112]),
        ((ONE,), (), [0x0110]),  # not a word of the other one
        ((ONE, TWO), (LOST,), [0x0112]),  # it says both
        ((), (), [0x0110, 0x0110]),
    ],
)
def test_what_is_not_named_as_safe_has_failed(
    database: Database,
    delivery: Delivery,
    safe: tuple[Reference, ...],
    failed: tuple[Failure, ...],
    reasons: list[int],
) -> None:
    asked = ask_for(database, delivery)
    assert report(database, asked, *safe, failed=failed) == ""
    found = state(database, asked)
    assert found.state is State.FAILED
    assert [one.reason for one in found.failures] == reasons
    # The first word counts.
    assert report(database, asked, ONE, TWO) == ""
    assert state(database, asked).state is State.FAILED


def test_only_who_was_asked_may_answer(database: Database, delivery: Delivery) -> None:
    asked = ask_for(database, delivery)
    assert report(database, asked, ONE, TWO, by="other") == "transaction-of-another-peer"
    assert report(database, asked, ONE, TWO, by="") == "transaction-of-another-peer"
    unknown = replace(asked, transaction_uid="1.2.3.4")
    assert report(database, unknown, ONE, TWO) == "unknown-transaction"
    assert state(database, asked).state is State.ASKED


def test_each_question_has_a_transaction_uid_of_its_own_and_a_late_answer_counts(
    database: Database, delivery: Delivery
) -> None:
    first, second = ask_for(database, delivery), ask_for(database, delivery, at=NOW + 120)
    assert first.transaction_uid != second.transaction_uid
    assert (first.number, second.number) == (1, 2)
    assert state(database, first).state is State.LOST
    assert report(database, first, ONE, TWO) == ""
    with database.read() as tx:
        history = confirmations.of_delivery(tx, delivery.id)
    assert [one.state for one in history] == [State.CONFIRMED, State.ASKED]


def test_a_question_that_was_answered_all_the_same_is_not_lost(
    database: Database, delivery: Delivery
) -> None:
    asked = ask_for(database, delivery)
    report(database, asked, ONE, TWO)
    with database.write() as tx:
        assert not confirmations.lose(tx, asked)
        assert confirmations.lose(tx, confirmations.ask(tx, delivery, [ONE], at=NOW + 1))


def test_a_delivery_that_begins_anew_knows_of_no_earlier_answer(
    database: Database, delivery: Delivery
) -> None:
    asked = ask_for(database, delivery)
    report(database, asked, ONE, TWO)
    with database.write() as tx:
        moves._ask_for_delivery(
            tx, delivery.job, "pacs", Purpose.RESULTS, moves.Shipment(), at=NOW + 5
        )
        assert confirmations.of_delivery(tx, delivery.id) == []
        again = confirmations.ask(tx, delivery, [ONE, TWO], at=NOW + 6)
    assert again.transaction_uid != asked.transaction_uid
    assert report(database, asked, ONE, TWO) == "unknown-transaction"


def test_question_and_answer_stand_in_the_journal_of_the_study(
    database: Database, delivery: Delivery
) -> None:
    report(database, ask_for(database, delivery), ONE, failed=(LOST,))
    with database.read() as tx:
        entries = [one for one in journal.of_study(tx, STUDY) if one.kind.startswith("confirm")]
    assert [one.kind for one in entries] == ["confirmation asked", "confirmation answered"]
    assert {one.job for one in entries} == {delivery.job}
    assert entries[1].facts["reasons"] == ["0x0112"]
