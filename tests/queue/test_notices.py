"""Who gets which results, who hears that there are none, and what is taken back, as rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from dicomnode.archive.commitments import Reference
from dicomnode.archive.database import Database
from dicomnode.archive.studies import index
from dicomnode.archive.work import confirmations, deliveries, jobs, moves, results, revisions
from dicomnode.archive.work.deliveries import Delivery
from dicomnode.archive.work.moves import Shipment
from dicomnode.archive.work.results import ResultFile
from dicomnode.job import DeliveryState, JobState, Priority, Purpose
from dicomnode.study import Instance

STUDY = "1.2.3"
NOW = 1000.0
REJECT = Shipment(profile="p", superseded="reject")


def a_job(
    key: str = "1", *, send_to: tuple[str, ...] = ("pacs",), **notify: str
) -> revisions.NewJob:
    return revisions.NewJob(
        key=key,
        study_instance_uid=STUDY,
        revision=int(key),
        rule="rule",
        model="model",
        model_digest="ab" * 32,
        inputs={"image": jobs.JobInput(series=("1.2.3.1",), instances=("1.2.3.1.1",))},
        send_to=send_to,
        priority=Priority.ROUTINE,
        notify=notify,
    )


def a_file(kind: str, *profiles: str, key: str = "1") -> ResultFile:
    return ResultFile(
        kind=kind,
        sop_instance_uid=f"2.25.{key}.{kind}",
        series_instance_uid=f"2.25.{key}",
        path=kind,
        digest="0",
        profiles=frozenset(profiles),
    )


@pytest.fixture
def with_study(database: Database) -> Database:
    instance = Instance(
        sop_instance_uid="1.2.3.1.1",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.4",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        series_instance_uid="1.2.3.1",
        study_instance_uid=STUDY,
        digest="00",
        path="instances/00/1.2.3.1.1.dcm",
        header={"Modality": "MR"},
    )
    with database.write() as tx:
        index.add(tx, [index.Received(instance=instance, association="a", size=10, at=NOW)])
        assert index.complete(tx, STUDY, revision=1, because="test", at=NOW)
    return database


def ask(database: Database, job: revisions.NewJob) -> None:
    with database.write() as tx:
        revisions.create(tx, job, at=NOW + job.revision)


def predict(
    database: Database, job: revisions.NewJob, shipments: Mapping[str, Shipment] | None = None
) -> None:
    """Let the model answer; the results are sent by nobody yet."""
    with database.write() as tx:
        assert moves.claim(tx, job.id, owner="me", at=NOW, lease_s=10)
        assert moves.predicted(
            tx,
            job.id,
            [a_file("seg", "p", "q", key=job.key), a_file("sr", "p", key=job.key)],
            owner="me",
            at=NOW,
            timings={},
            device="cpu",
            shipments=shipments,
        )


def end(database: Database, job: revisions.NewJob, state: JobState) -> None:
    with database.write() as tx:
        assert moves.claim(tx, job.id, owner="me", at=NOW, lease_s=10)
        assert moves.end(tx, job.id, state, at=NOW, reason="missing-slices", detail="d", owner="me")


def found(database: Database, job: revisions.NewJob) -> dict[tuple[str, str], Delivery]:
    """Purpose and destination → delivery."""
    with database.read() as tx:
        return {(one.purpose, one.destination): one for one in deliveries.of_job(tx, job.id)}


def confirm(database: Database, job: revisions.NewJob, purpose: Purpose = Purpose.RESULTS) -> None:
    """Let every delivery of a job arrive."""
    for one in found(database, job).values():
        if one.purpose is purpose:
            with database.write() as tx:
                claimed = deliveries.claim(tx, one.id, owner="me", at=NOW, lease_s=10)
                assert claimed is not None
                if one.purpose is not Purpose.RESULTS:
                    results.record_notice(tx, one.id, a_file("notice", key=job.key))
                deliveries.confirm(tx, claimed, owner="me", at=NOW)


def state(database: Database, job: revisions.NewJob) -> JobState:
    with database.read() as tx:
        stands = jobs.job(tx, job.id)
    assert stands is not None
    return stands.state


class TestProfiles:
    def test_a_destination_gets_what_its_profile_asks_for(self, with_study: Database) -> None:
        job = a_job(send_to=("one", "two", "three"))
        ask(with_study, job)
        predict(with_study, job, {"one": Shipment(profile="p"), "two": Shipment(profile="q")})
        made = found(with_study, job)
        with with_study.read() as tx:
            got = {
                name: [file.kind for file in results.delivered_by(tx, made["results", name].id)]
                for name in job.send_to
            }
        assert got == {"one": ["seg", "sr"], "two": ["seg"], "three": ["seg", "sr"]}

    def test_results_of_an_older_release_are_for_everybody(self) -> None:
        assert a_file("seg").is_for("p")
        assert a_file("seg", "p").is_for("")
        assert not a_file("seg", "p").is_for("q")

    def test_what_the_node_made_is_known_by_its_series(self, with_study: Database) -> None:
        job = a_job()
        ask(with_study, job)
        predict(with_study, job)
        with with_study.read() as tx:
            assert results.is_own(tx, ["2.25.1", "1.2.3.1"]) == {"2.25.1"}


class TestNotAnalysed:
    @pytest.mark.parametrize("state_", [JobState.FAILED, JobState.NOT_APPLICABLE])
    def test_who_asked_for_it_hears_that_there_is_no_answer(
        self, with_study: Database, state_: JobState
    ) -> None:
        job = a_job(send_to=("pacs", "other"), pacs="keep")
        ask(with_study, job)
        end(with_study, job, state_)
        assert list(found(with_study, job)) == [("not-analysed", "pacs")]
        confirm(with_study, job, Purpose.NOT_ANALYSED)
        assert state(with_study, job) is state_
        assert found(with_study, job)["not-analysed", "pacs"].state is DeliveryState.CONFIRMED

    def test_nobody_hears_of_a_job_that_is_taken_up_again(self, with_study: Database) -> None:
        job = a_job(pacs="keep")
        ask(with_study, job)
        end(with_study, job, JobState.FAILED)
        with with_study.write() as tx:
            assert revisions.retry(tx, STUDY, at=NOW) == [job.id]
        assert not found(with_study, job)
        assert state(with_study, job) is JobState.PENDING

    def test_what_was_being_said_of_a_job_that_runs_again_is_not_said_later(
        self, with_study: Database
    ) -> None:
        job = a_job(pacs="keep")
        ask(with_study, job)
        end(with_study, job, JobState.FAILED)
        (notice,) = found(with_study, job).values()
        with with_study.write() as tx:
            sending = deliveries.claim(tx, notice.id, owner="me", at=NOW, lease_s=10)
            assert sending is not None
            revisions.retry(tx, STUDY, at=NOW)
        predict(with_study, job)
        confirm(with_study, job)
        with with_study.write() as tx:
            deliveries.try_again(
                tx, sending, owner="me", at=NOW, not_before=NOW, reason="away", detail=""
            )
            assert deliveries.claim(tx, notice.id, owner="me", at=NOW, lease_s=10) is None
        assert found(with_study, job)["not-analysed", "pacs"].state is DeliveryState.CANCELLED
        assert state(with_study, job) is JobState.DELIVERED

    def test_a_result_that_is_refused_is_no_study_that_was_not_analysed(
        self, with_study: Database
    ) -> None:
        job = a_job(pacs="keep")
        ask(with_study, job)
        predict(with_study, job)
        with with_study.write() as tx:
            (one,) = deliveries.of_job(tx, job.id)
            claimed = deliveries.claim(tx, one.id, owner="me", at=NOW, lease_s=10)
            assert claimed is not None
            deliveries.fail(tx, claimed, owner="me", at=NOW, reason="r", detail="d")
        assert state(with_study, job) is JobState.FAILED
        assert list(found(with_study, job)) == [("results", "pacs")]

    def test_a_worker_that_dies_for_good_is_told_of_too(self, with_study: Database) -> None:
        job = a_job(pacs="keep")
        ask(with_study, job)
        with with_study.write() as tx:
            assert moves.claim(tx, job.id, owner="me", at=NOW, lease_s=10)
            moves.move(
                tx, job.id, {JobState.PREDICTING}, JobState.FAILED, at=NOW, reason="worker-lost"
            )
        assert ("not-analysed", "pacs") in found(with_study, job)

    def test_the_answer_of_a_repetition_names_what_was_said_before(
        self, with_study: Database
    ) -> None:
        job = a_job(pacs="keep")
        ask(with_study, job)
        end(with_study, job, JobState.FAILED)
        confirm(with_study, job, Purpose.NOT_ANALYSED)
        with with_study.write() as tx:
            revisions.retry(tx, STUDY, at=NOW)
            assert results.superseded_reports(tx, job.id) == {"pacs": a_file("notice")}


class TestRejections:
    def test_an_older_answer_is_taken_back_when_the_newer_one_has_arrived(
        self, with_study: Database
    ) -> None:
        older, newer = a_job("1"), a_job("2")
        ask(with_study, older)
        predict(with_study, older, {"pacs": REJECT})
        confirm(with_study, older)
        ask(with_study, newer)
        assert state(with_study, older) is JobState.SUPERSEDED
        predict(with_study, newer, {"pacs": REJECT})
        assert ("rejection", "pacs") not in found(with_study, older)
        confirm(with_study, newer)
        rejection = found(with_study, older)["rejection", "pacs"]
        assert rejection.state is DeliveryState.PENDING
        assert rejection.about == found(with_study, older)["results", "pacs"].id
        with with_study.read() as tx:
            taken_back = results.delivered_by(tx, rejection.about or "")
        assert [one.sop_instance_uid for one in taken_back] == ["2.25.1.seg", "2.25.1.sr"]

    def test_it_stays_where_the_destination_keeps_superseded_answers(
        self, with_study: Database
    ) -> None:
        older, newer = a_job("1"), a_job("2")
        ask(with_study, older)
        predict(with_study, older, {"pacs": Shipment(profile="p", superseded="keep")})
        confirm(with_study, older)
        ask(with_study, newer)
        predict(with_study, newer)
        confirm(with_study, newer)
        assert list(found(with_study, older)) == [("results", "pacs")]

    def test_an_answer_that_nothing_follows_is_taken_back_at_once(
        self, with_study: Database
    ) -> None:
        job = a_job()
        ask(with_study, job)
        predict(with_study, job, {"pacs": REJECT})
        confirm(with_study, job)
        with with_study.write() as tx:
            revisions.supersede_unwanted(tx, STUDY, rules={"rule"}, wanted=[], at=NOW)
        assert ("rejection", "pacs") in found(with_study, job)

    def test_so_is_one_whose_successor_does_not_apply_but_not_one_whose_successor_failed(
        self, with_study: Database
    ) -> None:
        older, failing, last = a_job("1"), a_job("2"), a_job("3")
        ask(with_study, older)
        predict(with_study, older, {"pacs": REJECT})
        confirm(with_study, older)
        ask(with_study, failing)
        end(with_study, failing, JobState.FAILED)
        assert ("rejection", "pacs") not in found(with_study, older)
        ask(with_study, last)
        end(with_study, last, JobState.NOT_APPLICABLE)
        assert ("rejection", "pacs") in found(with_study, older)

    def test_an_answer_that_arrives_when_it_is_superseded_already_is_taken_back(
        self, with_study: Database
    ) -> None:
        older, newer = a_job("1"), a_job("2")
        ask(with_study, older)
        predict(with_study, older, {"pacs": REJECT})
        with with_study.write() as tx:
            (one,) = deliveries.of_job(tx, older.id)
            on_its_way = deliveries.claim(tx, one.id, owner="me", at=NOW, lease_s=10)
        assert on_its_way is not None
        ask(with_study, newer)
        predict(with_study, newer, {"pacs": REJECT})
        confirm(with_study, newer)
        assert ("rejection", "pacs") not in found(with_study, older)
        with with_study.write() as tx:
            deliveries.confirm(tx, on_its_way, owner="me", at=NOW)
        assert ("rejection", "pacs") in found(with_study, older)

    def test_what_was_said_of_a_failure_is_taken_back_by_the_answer(
        self, with_study: Database
    ) -> None:
        job = a_job(pacs="reject")
        ask(with_study, job)
        end(with_study, job, JobState.FAILED)
        confirm(with_study, job, Purpose.NOT_ANALYSED)
        with with_study.write() as tx:
            revisions.retry(tx, STUDY, at=NOW)
        predict(with_study, job)
        confirm(with_study, job)
        rejection = found(with_study, job)["rejection", "pacs"]
        assert rejection.about == found(with_study, job)["not-analysed", "pacs"].id

    def test_one_that_a_destination_would_not_hear_is_said_again_when_somebody_asks(
        self, with_study: Database
    ) -> None:
        job = a_job()
        ask(with_study, job)
        predict(with_study, job, {"pacs": REJECT})
        confirm(with_study, job)
        with with_study.write() as tx:
            revisions.supersede_unwanted(tx, STUDY, rules={"rule"}, wanted=[], at=NOW)
            assert revisions.retry(tx, STUDY, at=NOW) == []
        refused = found(with_study, job)["rejection", "pacs"]
        with with_study.write() as tx:
            claimed = deliveries.claim(tx, refused.id, owner="me", at=NOW, lease_s=10)
            assert claimed is not None
            deliveries.fail(tx, claimed, owner="me", at=NOW, reason="r", detail="d")
            assert revisions.retry(tx, STUDY, at=NOW, only="another") == []
            assert revisions.retry(tx, STUDY, at=NOW) == [job.id]
        again = found(with_study, job)["rejection", "pacs"]
        assert (again.state, again.reason, again.attempts) == (DeliveryState.PENDING, "", 0)
        assert state(with_study, job) is JobState.SUPERSEDED

    def test_each_is_taken_back_once(self, with_study: Database) -> None:
        generations = [a_job(str(number)) for number in (1, 2, 3)]
        for job in generations:
            ask(with_study, job)
            predict(with_study, job, {"pacs": REJECT})
            confirm(with_study, job)
        rejected = [("rejection", "pacs") in found(with_study, job) for job in generations]
        assert rejected == [True, True, False]
        assert len(found(with_study, generations[0])) == 2

    def test_a_job_that_is_wanted_again_gives_other_objects_than_those_rejected(
        self, with_study: Database
    ) -> None:
        first, second = a_job("1"), a_job("2")
        ask(with_study, first)
        predict(with_study, first, {"pacs": REJECT})
        confirm(with_study, first)
        ask(with_study, second)
        predict(with_study, second, {"pacs": REJECT})
        confirm(with_study, second)
        confirm(with_study, first, Purpose.REJECTION)
        ask(with_study, replace(first, revision=3))
        with with_study.read() as tx:
            again = jobs.job(tx, first.id)
        assert again is not None
        assert again.state is JobState.PENDING
        assert again.key != first.key
        predict(with_study, first, {"pacs": REJECT})
        confirm(with_study, first)
        assert ("rejection", "pacs") in found(with_study, second)
        assert ("rejection", "pacs") not in found(with_study, first)

    def test_a_rejection_that_was_not_sent_yet_is_taken_back_itself(
        self, with_study: Database
    ) -> None:
        job = a_job()
        ask(with_study, job)
        predict(with_study, job, {"pacs": REJECT})
        confirm(with_study, job)
        with with_study.write() as tx:
            revisions.supersede_unwanted(tx, STUDY, rules={"rule"}, wanted=[], at=NOW)
        ask(with_study, job)
        with with_study.read() as tx:
            again = jobs.job(tx, job.id)
        assert again is not None
        assert again.key == job.key
        assert ("rejection", "pacs") not in found(with_study, job)

    @pytest.mark.parametrize("when", ["before", "after"])
    def test_an_answer_that_only_waits_for_a_word_is_there_to_be_named_and_taken_back(
        self, with_study: Database, when: str
    ) -> None:
        """A destination may take hours to commit itself to what it has."""
        older, newer = a_job("1"), a_job("2")
        ask(with_study, older)
        predict(with_study, older, {"pacs": REJECT})
        with with_study.write() as tx:
            (one,) = deliveries.of_job(tx, older.id)
            sending = deliveries.claim(tx, one.id, owner="me", at=NOW, lease_s=10)
            assert sending is not None
            references = [Reference(sop_class_uid="1.2", sop_instance_uid="2.25.1.sr")]
            confirmations.ask(tx, sending, references, at=NOW)
        if when == "before":
            await_word(with_study, sending)
        ask(with_study, newer)
        if when == "after":
            await_word(with_study, sending)
        with with_study.write() as tx:
            assert deliveries.claim(tx, one.id, owner="me", at=NOW, lease_s=10) is None
            (report,) = results.superseded_reports(tx, newer.id).values()
        assert report.sop_instance_uid == "2.25.1.sr"
        predict(with_study, newer, {"pacs": REJECT})
        assert ("rejection", "pacs") not in found(with_study, older)
        confirm(with_study, newer)
        assert found(with_study, older)["results", "pacs"].state is DeliveryState.CANCELLED
        assert found(with_study, older)["rejection", "pacs"].about == one.id

    @pytest.mark.parametrize(
        ("reason", "is_there"), [(results.NOT_LISTED, True), ("peer-unreachable", False)]
    )
    def test_so_is_one_that_was_taken_and_not_listed_yet(
        self, with_study: Database, reason: str, *, is_there: bool
    ) -> None:
        job = a_job()
        ask(with_study, job)
        predict(with_study, job, {"pacs": REJECT})
        with with_study.write() as tx:
            (one,) = deliveries.of_job(tx, job.id)
            sending = deliveries.claim(tx, one.id, owner="me", at=NOW, lease_s=10)
            assert sending is not None
            deliveries.try_again(
                tx, sending, owner="me", at=NOW, not_before=NOW, reason=reason, detail=""
            )
            revisions.supersede_unwanted(tx, STUDY, rules={"rule"}, wanted=[], at=NOW)
        assert (("rejection", "pacs") in found(with_study, job)) is is_there

    def test_what_another_rule_still_says_is_not_taken_back(self, with_study: Database) -> None:
        """Rules that ask for the same have their objects in common: both would be hidden."""
        one, same = a_job(), replace(a_job(), rule="same")
        for job in (one, same):
            ask(with_study, job)
            predict(with_study, job, {"pacs": REJECT})
            confirm(with_study, job)
        with with_study.write() as tx:
            revisions.supersede_unwanted(tx, STUDY, rules={"rule"}, wanted=[], at=NOW)
        assert ("rejection", "pacs") not in found(with_study, one)
        with with_study.write() as tx:
            revisions.supersede_unwanted(tx, STUDY, rules={"same"}, wanted=[], at=NOW)
        assert ("rejection", "pacs") in found(with_study, one)
        assert ("rejection", "pacs") in found(with_study, same)


def await_word(database: Database, sending: Delivery) -> None:
    with database.write() as tx:
        assert confirmations.await_answer(
            tx, sending, heard=(), owner="me", at=NOW, not_before=NOW,
            reason="awaiting-commitment", detail="",
        )  # fmt: skip
