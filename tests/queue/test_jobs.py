"""Jobs, leases and deliveries as rows: whatever happens twice or too late does no harm."""

from __future__ import annotations

import threading
from dataclasses import replace

import alembic.autogenerate
import alembic.migration
import pytest

from dicomnode.archive import journal, tables
from dicomnode.archive.arrival import End, Ended, Opened
from dicomnode.archive.asked import accounts
from dicomnode.archive.database import Database
from dicomnode.archive.studies import associations, decisions, index, progress
from dicomnode.archive.work import deliveries, jobs, leases, moves, results, revisions
from dicomnode.archive.work.leases import Task
from dicomnode.job import DeliveryState, JobState, Priority
from dicomnode.study import Instance

STUDY = "1.2.3"
NOW = 1000.0


def new_job(
    rule: str = "rule",
    *,
    key: str = "key",
    revision: int = 1,
    series: str = "1.2.3.1",
    priority: Priority = Priority.ROUTINE,
    send_to: tuple[str, ...] = ("pacs",),
) -> revisions.NewJob:
    return revisions.NewJob(
        key=key,
        study_instance_uid=STUDY,
        revision=revision,
        rule=rule,
        model="model",
        model_digest="ab" * 32,
        inputs={"image": jobs.JobInput(series=(series,), instances=(f"{series}.1",))},
        send_to=send_to,
        priority=priority,
    )


def received(
    number: int,
    *,
    series: int = 1,
    association: str = "a",
    at: float = NOW,
    study: str = STUDY,
    **header: object,
) -> index.Received:
    uid = f"{study}.{series}.{number}"
    instance = Instance(
        sop_instance_uid=uid,
        sop_class_uid="1.2.840.10008.5.1.4.1.1.4",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        series_instance_uid=f"{study}.{series}",
        study_instance_uid=study,
        digest="00",
        path=f"instances/00/{uid}.dcm",
        header={"Modality": "MR", "InstanceNumber": number, **header},
    )
    return index.Received(instance=instance, association=association, size=10, at=at)


@pytest.fixture
def with_study(database: Database) -> Database:
    """A study that is complete."""
    with database.write() as tx:
        index.add(tx, [received(1), received(2)])
        assert index.complete(tx, STUDY, revision=1, because="test", at=NOW)
    return database


def claim(
    database: Database, job_id: str, *, owner: str = "me", at: float = NOW
) -> jobs.Job | None:
    with database.write() as tx:
        return moves.claim(tx, job_id, owner=owner, at=at, lease_s=10)


def state(database: Database, job_id: str) -> jobs.Job:
    with database.read() as tx:
        found = jobs.job(tx, job_id)
    assert found is not None
    return found


def result(kind: str) -> results.ResultFile:
    return results.ResultFile(
        kind=kind,
        sop_instance_uid=f"2.25.{kind}",
        series_instance_uid="2.25.9",
        path=kind,
        digest="0",
    )


def to_delivering(database: Database, job: revisions.NewJob) -> list[deliveries.Delivery]:
    claim(database, job.id)
    with database.write() as tx:
        assert moves.predicted(
            tx,
            job.id,
            [result("seg"), result("sr")],
            owner="me",
            at=NOW,
            timings={"infer": 1.5},
            device="cpu",
        )
        return deliveries.of_job(tx, job.id)


def test_the_migrations_make_exactly_the_tables(database: Database) -> None:
    with database.read() as connection:
        context = alembic.migration.MigrationContext.configure(connection)
        assert alembic.autogenerate.compare_metadata(context, tables.metadata) == []


def test_migrating_again_changes_nothing(database: Database) -> None:
    database.migrate()
    database.migrate()


def test_the_same_job_is_created_once(with_study: Database) -> None:
    with with_study.write() as tx:
        assert revisions.create(tx, new_job(), at=NOW)
        assert not revisions.create(tx, new_job(revision=2), at=NOW)
        assert len(jobs.of_study(tx, STUDY)) == 1


def test_two_rules_that_ask_for_the_same_result_have_a_job_each(with_study: Database) -> None:
    with with_study.write() as tx:
        assert revisions.create(tx, new_job("one"), at=NOW)
        assert revisions.create(tx, new_job("two"), at=NOW)
        assert {job.key for job in jobs.of_study(tx, STUDY)} == {"key"}


def test_of_many_workers_one_gets_a_job(with_study: Database) -> None:
    with with_study.write() as tx:
        revisions.create(tx, new_job(), at=NOW)
    got: list[str] = []

    def try_to(owner: str) -> None:
        if claim(with_study, new_job().id, owner=owner):
            got.append(owner)

    threads = [threading.Thread(target=try_to, args=[f"w{n}"]) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 1


def test_who_does_not_hold_a_job_any_more_changes_nothing(with_study: Database) -> None:
    job = new_job()
    with with_study.write() as tx:
        revisions.create(tx, job, at=NOW)
    claim(with_study, job.id, owner="slow")
    with with_study.write() as tx:
        assert leases.expire(tx, Task.PREDICT, at=NOW + 11, attempts=3) == [job.id]
    assert claim(with_study, job.id, owner="other", at=NOW + 12)
    with with_study.write() as tx:
        assert not moves.predicted(
            tx, job.id, [result("seg")], owner="slow", at=NOW, timings={}, device=""
        )
        assert not moves.end(
            tx, job.id, JobState.FAILED, at=NOW, reason="r", detail="d", owner="slow"
        )
        assert results.of_job(tx, job.id) == []
    assert state(with_study, job.id).state is JobState.PREDICTING


def test_a_renewed_lease_does_not_expire(with_study: Database) -> None:
    job = new_job()
    with with_study.write() as tx:
        revisions.create(tx, job, at=NOW)
    claim(with_study, job.id)
    with with_study.write() as tx:
        assert leases.renew(tx, Task.PREDICT, [job.id], owner="me", at=NOW + 8, lease_s=10) == 1
        assert leases.expire(tx, Task.PREDICT, at=NOW + 11, attempts=3) == []


def test_a_job_whose_workers_die_is_parked_after_its_attempts(with_study: Database) -> None:
    job = new_job()
    with with_study.write() as tx:
        revisions.create(tx, job, at=NOW)
    for attempt in (1, 2):
        assert claim(with_study, job.id, at=NOW + 20 * attempt)
        with with_study.write() as tx:
            leases.expire(tx, Task.PREDICT, at=NOW + 20 * attempt + 11, attempts=2)
    found = state(with_study, job.id)
    assert (found.state, found.reason, found.attempts) == (JobState.FAILED, "worker-lost", 2)


def test_what_is_handed_back_costs_no_attempt(with_study: Database) -> None:
    job = new_job()
    with with_study.write() as tx:
        revisions.create(tx, job, at=NOW)
    claim(with_study, job.id)
    with with_study.write() as tx:
        assert leases.hand_back(tx, owner="me", at=NOW) == [job.id]
    found = state(with_study, job.id)
    assert (found.state, found.attempts) == (JobState.PENDING, 0)


def test_urgent_jobs_are_told_of_first_then_the_oldest(with_study: Database) -> None:
    late = new_job("late", key="3")
    early = new_job("early", key="2")
    stat = new_job("stat", key="1", priority=Priority.STAT)
    with with_study.write() as tx:
        revisions.create(tx, early, at=NOW)
        revisions.create(tx, late, at=NOW + 1)
        revisions.create(tx, stat, at=NOW + 2)
        assert leases.due(tx, Task.PREDICT, at=NOW + 3, resend_s=15, window=2) == [
            stat.id,
            early.id,
        ]


def test_a_hint_is_repeated_only_when_nobody_took_the_job_up(with_study: Database) -> None:
    job = new_job()
    with with_study.write() as tx:
        revisions.create(tx, job, at=NOW)
        assert leases.due(tx, Task.PREDICT, at=NOW, resend_s=15, window=5) == [job.id]
        assert not leases.anything_due(tx, Task.PREDICT, at=NOW + 14, resend_s=15)
        assert leases.due(tx, Task.PREDICT, at=NOW + 15, resend_s=15, window=5) == [job.id]
        leases.forget_hints(tx, Task.PREDICT, [job.id])
        assert leases.due(tx, Task.PREDICT, at=NOW + 16, resend_s=15, window=5) == [job.id]


def test_no_more_is_sent_than_the_window_lets(with_study: Database) -> None:
    with with_study.write() as tx:
        for n in range(5):
            revisions.create(tx, new_job(key=str(n), series=f"1.{n}"), at=NOW + n)
        first = leases.due(tx, Task.PREDICT, at=NOW + 9, resend_s=15, window=2)
        assert len(first) == 2
        assert leases.due(tx, Task.PREDICT, at=NOW + 9, resend_s=15, window=2) == []
    claim(with_study, first[0], at=NOW + 9)
    with with_study.write() as tx:
        assert len(leases.due(tx, Task.PREDICT, at=NOW + 9, resend_s=15, window=2)) == 1


def test_a_newer_revision_supersedes_what_came_of_the_older(with_study: Database) -> None:
    old = new_job(key="old")
    with with_study.write() as tx:
        revisions.create(tx, old, at=NOW)
    to_delivering(with_study, old)
    new = new_job(key="new", revision=2)
    with with_study.write() as tx:
        revisions.create(tx, new, at=NOW + 1)
        assert [d.state for d in deliveries.of_job(tx, old.id)] == [DeliveryState.CANCELLED]
    assert state(with_study, old.id).state is JobState.SUPERSEDED
    assert state(with_study, new.id).state is JobState.PENDING


def test_another_series_of_the_same_rule_is_not_superseded(with_study: Database) -> None:
    with with_study.write() as tx:
        revisions.create(tx, new_job(key="1", series="1.1"), at=NOW)
        revisions.create(tx, new_job(key="2", series="1.2"), at=NOW)
        assert {job.state for job in jobs.of_study(tx, STUDY)} == {JobState.PENDING}


def test_an_open_job_that_the_new_revision_does_not_want_ends(with_study: Database) -> None:
    job = new_job()
    with with_study.write() as tx:
        revisions.create(tx, job, at=NOW)
        revisions.supersede_unwanted(tx, STUDY, rules={"rule"}, wanted=[], at=NOW)
    assert state(with_study, job.id).state is JobState.SUPERSEDED


def test_a_job_is_delivered_when_every_destination_has_confirmed(with_study: Database) -> None:
    job = new_job(send_to=("one", "two"))
    with with_study.write() as tx:
        revisions.create(tx, job, at=NOW)
    for delivery in to_delivering(with_study, job):
        assert state(with_study, job.id).state is JobState.DELIVERING
        with with_study.write() as tx:
            claimed = deliveries.claim(tx, delivery.id, owner="me", at=NOW, lease_s=10)
            assert claimed
            assert deliveries.confirm(tx, claimed, owner="me", at=NOW + 3)
    assert state(with_study, job.id).state is JobState.DELIVERED


def test_one_destination_that_refuses_makes_the_job_failed_but_not_before_the_other_has_it(
    with_study: Database,
) -> None:
    job = new_job(send_to=("one", "two"))
    with with_study.write() as tx:
        revisions.create(tx, job, at=NOW)
    one, two = to_delivering(with_study, job)
    with with_study.write() as tx:
        claimed = deliveries.claim(tx, one.id, owner="me", at=NOW, lease_s=10)
        assert claimed
        assert deliveries.fail(tx, claimed, owner="me", at=NOW, reason="refused", detail="0xA900")
    assert state(with_study, job.id).state is JobState.DELIVERING
    with with_study.write() as tx:
        claimed = deliveries.claim(tx, two.id, owner="me", at=NOW, lease_s=10)
        assert claimed
        assert deliveries.confirm(tx, claimed, owner="me", at=NOW)
    found = state(with_study, job.id)
    assert (found.state, found.reason) == (JobState.FAILED, "refused")


def test_a_delivery_that_is_put_off_waits_its_time(with_study: Database) -> None:
    job = new_job()
    with with_study.write() as tx:
        revisions.create(tx, job, at=NOW)
    (delivery,) = to_delivering(with_study, job)
    with with_study.write() as tx:
        claimed = deliveries.claim(tx, delivery.id, owner="me", at=NOW, lease_s=10)
        assert claimed
        deliveries.try_again(
            tx, claimed, owner="me", at=NOW, not_before=NOW + 60, reason="down", detail=""
        )
        assert not leases.anything_due(tx, Task.DELIVER, at=NOW + 59, resend_s=15)
        assert deliveries.claim(tx, delivery.id, owner="me", at=NOW + 59, lease_s=10) is None
        assert deliveries.claim(tx, delivery.id, owner="me", at=NOW + 60, lease_s=10)


def test_a_move_that_is_not_in_the_table_is_a_fault(with_study: Database) -> None:
    with with_study.write() as tx:
        revisions.create(tx, new_job(), at=NOW)
        with pytest.raises(ValueError, match="no such move"):
            moves.move(tx, new_job().id, {JobState.DELIVERED}, JobState.PENDING, at=NOW)


def test_the_account_adds_up_at_every_step(database: Database) -> None:
    def account() -> accounts.Account:
        with database.read() as tx:
            found = accounts.account(tx)
        assert found.received == (
            found.delivered + found.not_applicable + found.failed + found.in_progress
        )
        return found

    assert account().received == 0
    with database.write() as tx:
        index.add(tx, [received(1)])
        index.add(tx, [received(1, study="1.9")])
    assert account().in_progress == 2
    job = new_job()
    with database.write() as tx:
        index.complete(tx, STUDY, revision=1, because="", at=NOW)
        index.complete(tx, "1.9", revision=1, because="", at=NOW)
        revisions.create(tx, job, at=NOW)
    assert (account().in_progress, account().not_applicable) == (1, 1)
    (delivery,) = to_delivering(database, job)
    assert account().in_progress == 1
    with database.write() as tx:
        claimed = deliveries.claim(tx, delivery.id, owner="me", at=NOW, lease_s=10)
        assert claimed
        deliveries.confirm(tx, claimed, owner="me", at=NOW)
    assert (account().delivered, account().in_progress) == (1, 0)
    held = decisions.Recorded(
        revision=1,
        rule="r",
        series_instance_uid="1.9.1",
        model="m",
        outcome="held",
        origin="route",
        clause="c",
        value="v",
        detail="d",
    )
    with database.write() as tx:
        decisions.record(tx, "1.9", [held])
    assert (account().failed, account().not_applicable) == (1, 0)


def test_instances_keep_their_own_headers(database: Database) -> None:
    with database.write() as tx:
        index.add(tx, [received(1, EchoTime=3.5), received(2)])
        index.add(tx, [received(3, Modality="CT", EchoTime=None)])
        found = index.study(tx, STUDY)
    assert found is not None
    headers = [dict(one.header) for one in found.series[0].instances]
    assert headers == [
        {"Modality": "MR", "InstanceNumber": 1, "EchoTime": 3.5},
        {"Modality": "MR", "InstanceNumber": 2},
        {"Modality": "CT", "InstanceNumber": 3, "EchoTime": None},
    ]


def test_an_instance_is_indexed_once(database: Database) -> None:
    with database.write() as tx:
        assert index.add(tx, [received(1), received(1)]) == {STUDY}
        assert index.add(tx, [received(1)]) == set()


def test_a_late_instance_makes_the_study_receiving_again(with_study: Database) -> None:
    with with_study.write() as tx:
        index.add(tx, [received(3)])
        assert index.receiving(tx) == [STUDY]
        assert not index.complete(tx, STUDY, revision=1, because="", at=NOW)
        assert index.complete(tx, STUDY, revision=2, because="", at=NOW)


@pytest.mark.parametrize(
    ("end", "in_order"),
    [(End.RELEASED, True), (End.ABORTED, False), (End.LOST, False), (None, False)],
)
def test_the_evidence_knows_how_associations_ended(
    database: Database, end: End | None, in_order: bool
) -> None:
    opened = Opened(association="a", peer="ct", calling_ae_title="CT", address="127.0.0.1", at=NOW)
    with database.write() as tx:
        associations.opened(tx, opened)
        index.add(tx, [received(1)])
        if end is not None:
            ended = Ended(association="a", end=end, stored=1, refused=0, at=NOW)
            assert associations.ended(tx, ended) == {STUDY}
        told = progress.of_study(tx, STUDY)
    assert told.ended_in_order is in_order
    assert told.open_associations == (1 if end is None else 0)


def test_what_was_found_on_disk_did_not_end_in_order(database: Database) -> None:
    with database.write() as tx:
        index.add(tx, [received(1, association="")])
        told = progress.of_study(tx, STUDY)
    assert not told.ended_in_order


def test_the_journal_of_a_study_tells_its_associations_too(database: Database) -> None:
    with database.write() as tx:
        journal.write(tx, journal.Kind.ASSOCIATION_OPENED, at=1.0, association="a", peer="ct")
        journal.write(tx, journal.Kind.ASSOCIATION_OPENED, at=1.0, association="b", peer="mr")
        index.add(tx, [received(1)])
        journal.write(tx, journal.Kind.STUDY_COMPLETE, at=2.0, study=STUDY)
        kinds = [(entry.kind, entry.association) for entry in journal.of_study(tx, STUDY)]
    assert kinds == [("association opened", "a"), ("study complete", None)]


def test_two_deliveries_have_different_ids(with_study: Database) -> None:
    job = new_job(send_to=("one", "two"))
    with with_study.write() as tx:
        revisions.create(tx, job, at=NOW)
    one, two = to_delivering(with_study, job)
    assert one.id != two.id
    assert replace(one, id=two.id, destination="two") == two


def test_a_row_whose_task_ended_without_a_word_is_not_renewed(with_study: Database) -> None:
    job = new_job()
    with with_study.write() as tx:
        revisions.create(tx, job, at=NOW)
    claim(with_study, job.id)
    with with_study.write() as tx:
        assert leases.renew(tx, Task.PREDICT, [], owner="me", at=NOW + 8, lease_s=10) == 0
        assert leases.expire(tx, Task.PREDICT, at=NOW + 11, attempts=3) == [job.id]


def test_a_superseded_job_that_is_wanted_again_runs_again(with_study: Database) -> None:
    first, second = new_job(key="first"), new_job(key="second", revision=2)
    with with_study.write() as tx:
        revisions.create(tx, first, at=NOW)
        revisions.create(tx, second, at=NOW + 1)
        assert revisions.create(tx, replace(first, revision=3), at=NOW + 2)
    assert state(with_study, first.id).state is JobState.PENDING
    assert state(with_study, second.id).state is JobState.SUPERSEDED


def test_what_was_delivered_ends_when_the_newest_revision_does_not_want_it(
    with_study: Database,
) -> None:
    job = new_job()
    with with_study.write() as tx:
        revisions.create(tx, job, at=NOW)
    deliver_all(with_study, job)
    with with_study.write() as tx:
        revisions.supersede_unwanted(tx, STUDY, rules={"other"}, wanted=[], at=NOW)
    assert state(with_study, job.id).state is JobState.DELIVERED
    with with_study.write() as tx:
        revisions.supersede_unwanted(tx, STUDY, rules={"rule"}, wanted=[], at=NOW)
    assert state(with_study, job.id).state is JobState.SUPERSEDED


def deliver_all(database: Database, job: revisions.NewJob) -> None:
    for delivery in to_delivering(database, job):
        with database.write() as tx:
            claimed = deliveries.claim(tx, delivery.id, owner="me", at=NOW, lease_s=10)
            assert claimed
            assert deliveries.confirm(tx, claimed, owner="me", at=NOW)


def test_the_predecessor_is_the_newest_report_that_a_destination_has(with_study: Database) -> None:
    delivered, failed, sent_nowhere, newest = (
        new_job(key=str(revision), revision=revision) for revision in (1, 2, 3, 4)
    )
    with with_study.write() as tx:
        revisions.create(tx, delivered, at=NOW)
    deliver_all(with_study, delivered)
    with with_study.write() as tx:
        revisions.create(tx, failed, at=NOW + 1)
        revisions.create(tx, sent_nowhere, at=NOW + 2)
    to_delivering(with_study, sent_nowhere)
    with with_study.write() as tx:
        revisions.create(tx, newest, at=NOW + 3)
        assert results.superseded_reports(tx, newest.id) == {"pacs": result("sr")}
        assert results.superseded_reports(tx, delivered.id) == {}


def test_two_deliveries_that_end_at_once_end_their_job(with_study: Database) -> None:
    job = new_job(send_to=("one", "two"))
    with with_study.write() as tx:
        revisions.create(tx, job, at=NOW)
    claimed = []
    for delivery in to_delivering(with_study, job):
        with with_study.write() as tx:
            claimed.append(deliveries.claim(tx, delivery.id, owner="me", at=NOW, lease_s=10))
    barrier = threading.Barrier(2)

    def confirm(delivery: deliveries.Delivery) -> None:
        barrier.wait()
        with with_study.write() as tx:
            deliveries.confirm(tx, delivery, owner="me", at=NOW)

    threads = [threading.Thread(target=confirm, args=[one]) for one in claimed]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert state(with_study, job.id).state is JobState.DELIVERED


def test_a_failed_job_that_is_retried_runs_again_from_the_start(with_study: Database) -> None:
    job = new_job()
    with with_study.write() as tx:
        revisions.create(tx, job, at=NOW)
    claim(with_study, job.id)
    with with_study.write() as tx:
        assert moves.end(tx, job.id, JobState.FAILED, at=NOW, reason="r", detail="d", owner="me")
        assert revisions.retry(tx, STUDY, at=NOW) == [job.id]
    found = state(with_study, job.id)
    assert (found.state, found.reason, found.attempts) == (JobState.PENDING, "", 0)


def test_a_delivery_that_was_refused_is_only_sent_again(with_study: Database) -> None:
    job = new_job(send_to=("one", "two"))
    with with_study.write() as tx:
        revisions.create(tx, job, at=NOW)
    for delivery in to_delivering(with_study, job):
        with with_study.write() as tx:
            claimed = deliveries.claim(tx, delivery.id, owner="me", at=NOW, lease_s=10)
            assert claimed
            if delivery.destination == "one":
                deliveries.confirm(tx, claimed, owner="me", at=NOW)
            else:
                deliveries.fail(tx, claimed, owner="me", at=NOW, reason="refused", detail="d")
    assert state(with_study, job.id).state is JobState.FAILED
    with with_study.write() as tx:
        revisions.retry(tx, STUDY, at=NOW)
        every = deliveries.of_job(tx, job.id)
        assert len(results.of_job(tx, job.id)) == 2
    assert state(with_study, job.id).state is JobState.DELIVERING
    assert [one.state for one in every] == [DeliveryState.CONFIRMED, DeliveryState.PENDING]


def test_deliveries_to_one_destination_go_one_after_the_other(with_study: Database) -> None:
    first, second = (new_job(key=key, series=f"1.{key}", send_to=("pacs",)) for key in ("1", "2"))
    third = new_job(key="3", series="1.3", send_to=("other",))
    for job in (first, second, third):
        with with_study.write() as tx:
            revisions.create(tx, job, at=NOW)
        to_delivering(with_study, job)

    def due(at: float) -> list[str]:
        with with_study.write() as tx:
            ids = leases.due(tx, Task.DELIVER, at=at, resend_s=15, window=4)
            return sorted(
                one.destination
                for job in (first, second, third)
                for one in deliveries.of_job(tx, job.id)
                if one.id in ids
            )

    assert due(NOW) == ["other", "pacs"]
    assert due(NOW + 1) == []
    with with_study.write() as tx:
        pending = [one for job in (first, second) for one in deliveries.of_job(tx, job.id)]
        taken = [
            deliveries.claim(tx, one.id, owner="me", at=NOW, lease_s=10) for one in pending[:1]
        ]
        assert taken[0]
        assert not leases.anything_due(tx, Task.DELIVER, at=NOW + 2, resend_s=15)
        deliveries.confirm(tx, taken[0], owner="me", at=NOW + 2)
    assert due(NOW + 3) == ["pacs"]


def test_a_lost_delivery_says_why_it_is_made_again(with_study: Database) -> None:
    job = new_job()
    with with_study.write() as tx:
        revisions.create(tx, job, at=NOW)
    (delivery,) = to_delivering(with_study, job)
    with with_study.write() as tx:
        assert deliveries.claim(tx, delivery.id, owner="me", at=NOW, lease_s=10)
        assert leases.expire(tx, Task.DELIVER, at=NOW + 9, attempts=3) == []
        assert leases.expire(tx, Task.DELIVER, at=NOW + 11, attempts=3) == [delivery.id]
        (again,) = deliveries.of_job(tx, job.id)
        told = [
            e.facts for e in journal.of_study(tx, STUDY) if e.kind == journal.Kind.DELIVERY_MOVED
        ]
    assert (again.state, again.reason, again.attempts) == (DeliveryState.PENDING, "worker-lost", 1)
    assert [(one["state"], one["reason"]) for one in told] == [("pending", "worker-lost")]


def test_an_older_answer_that_did_not_arrive_is_not_sent_after_the_newer_one(
    with_study: Database,
) -> None:
    old, new = new_job(key="old"), new_job(key="new", revision=2)
    with with_study.write() as tx:
        revisions.create(tx, old, at=NOW)
    (delivery,) = to_delivering(with_study, old)
    with with_study.write() as tx:
        sending = deliveries.claim(tx, delivery.id, owner="me", at=NOW, lease_s=10)
        assert sending
        revisions.create(tx, new, at=NOW + 1)
        deliveries.try_again(
            tx, sending, owner="me", at=NOW + 2, not_before=NOW + 3, reason="down", detail=""
        )
        assert deliveries.claim(tx, delivery.id, owner="me", at=NOW + 3, lease_s=10) is None
        (over,) = deliveries.of_job(tx, old.id)
    assert (over.state, over.ended_at) == (DeliveryState.CANCELLED, NOW + 3)


def test_who_confirms_for_a_job_that_was_superseded_meanwhile_held_it(with_study: Database) -> None:
    old = new_job(key="old")
    with with_study.write() as tx:
        revisions.create(tx, old, at=NOW)
    (delivery,) = to_delivering(with_study, old)
    with with_study.write() as tx:
        sending = deliveries.claim(tx, delivery.id, owner="me", at=NOW, lease_s=10)
        assert sending
        revisions.create(tx, new_job(key="new", revision=2), at=NOW + 1)
        assert deliveries.confirm(tx, sending, owner="me", at=NOW + 2)
        assert not deliveries.confirm(tx, sending, owner="me", at=NOW + 3)
    assert state(with_study, old.id).state is JobState.SUPERSEDED


@pytest.mark.parametrize("reason", ["result-missing", "result-changed", "no-results"])
def test_a_job_whose_results_are_gone_runs_again(with_study: Database, reason: str) -> None:
    job = new_job(send_to=("one", "two"))
    with with_study.write() as tx:
        revisions.create(tx, job, at=NOW)
    for delivery in to_delivering(with_study, job):
        with with_study.write() as tx:
            claimed = deliveries.claim(tx, delivery.id, owner="me", at=NOW, lease_s=10)
            assert claimed
            if delivery.destination == "one":
                deliveries.confirm(tx, claimed, owner="me", at=NOW)
            else:
                deliveries.fail(tx, claimed, owner="me", at=NOW, reason=reason, detail="d")
    with with_study.write() as tx:
        assert revisions.retry(tx, STUDY, at=NOW) == [job.id]
    assert state(with_study, job.id).state is JobState.PENDING
    assert {one.state for one in to_delivering(with_study, job)} == {DeliveryState.PENDING}
    assert state(with_study, job.id).state is JobState.DELIVERING


def test_a_rule_that_is_held_leaves_the_answer_that_there_is(with_study: Database) -> None:
    answered, waiting = new_job(key="1"), new_job(key="2", series="1.2.3.2")
    held = {("rule", "1.2.3.1"), ("rule", "1.2.3.2")}
    with with_study.write() as tx:
        index.add(tx, [received(1, series=2)])
        revisions.create(tx, answered, at=NOW)
        revisions.create(tx, waiting, at=NOW)
    deliver_all(with_study, answered)
    with with_study.write() as tx:
        revisions.supersede_unwanted(tx, STUDY, rules={"rule"}, wanted=[], held=held, at=NOW)
    assert state(with_study, answered.id).state is JobState.DELIVERED
    assert state(with_study, waiting.id).state is JobState.SUPERSEDED
    newer = new_job(key="3", revision=3)
    with with_study.write() as tx:
        revisions.create(tx, newer, at=NOW + 1)
        assert results.superseded_reports(tx, newer.id) == {"pacs": result("sr")}
