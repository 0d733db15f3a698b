"""What the page asks of the archive: outcomes that keep step, studies that are found, actions."""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass, replace
from pathlib import Path

import paged
import pytest
from sqlalchemy import Connection, select, update

from dicomnode.archive import tables
from dicomnode.archive.access import audit, people
from dicomnode.archive.access.people import Patience, Role
from dicomnode.archive.asked import accounts, contacts, contained, figures, finding, usage
from dicomnode.archive.asked.finding import Query
from dicomnode.archive.database import Database
from dicomnode.archive.keeping import retention
from dicomnode.archive.studies import identity, index, outcomes
from dicomnode.archive.studies.outcomes import Outcome
from dicomnode.archive.work import (
    by_hand,
    deliveries,
    hold,
    jobs,
    leases,
    moves,
    results,
    revisions,
)
from dicomnode.archive.work.by_hand import Order
from dicomnode.archive.work.leases import Task
from dicomnode.archive.work.moves import Shipment
from dicomnode.job import DeliveryState, JobState

NOW = paged.NOW
STUDY = paged.FIRST


@pytest.fixture
def sample(database: Database, tmp_path: Path) -> dict[str, str]:
    return paged.sample(database, tmp_path)


def assert_in_step(database: Database) -> None:
    """What is kept of each study is what follows from everything else."""
    with database.read() as tx:
        study = tables.study.c
        rows = tx.execute(select(study.study_instance_uid, study.outcome, outcomes.derived())).all()
    assert [row for row in rows if row[1] != row[2]] == []


def the_job(database: Database, uid: str) -> jobs.Job:
    with database.read() as tx:
        return jobs.of_study(tx, uid)[-1]


def test_the_outcome_of_each_study_is_kept(database: Database, sample: dict[str, str]) -> None:
    assert_in_step(database)
    with database.read() as tx:
        account = accounts.account(tx)
    assert account == accounts.Account(
        received=10, delivered=2, not_applicable=1, failed=3, in_progress=4
    )


STUDIES = tuple(f"1.2.3.{number}" for number in range(3))
RULES = ("one", "two")


@dataclass(frozen=True, kw_only=True)
class Moment:
    """What something may happen to, and the dice that say what."""

    tx: Connection
    dice: random.Random
    at: float
    uid: str
    rule: str
    job: str
    revision: int


def an_instance_comes(now: Moment) -> None:
    index.add(now.tx, paged.instances(now.uid, count=1, series=now.dice.randrange(9), at=now.at))


def the_study_is_complete(now: Moment) -> None:
    index.complete(now.tx, now.uid, revision=now.revision + 1, because="", at=now.at)


def a_rule_decides(now: Moment) -> None:
    if now.revision:
        outcome = now.dice.choice(("job", "held", "not_applicable"))
        paged.decide(now.tx, now.uid, outcome=outcome, rule=now.rule)


def a_job_is_asked_for(now: Moment) -> None:
    if now.revision:
        paged.ask_for(now.tx, now.uid, at=now.at, rule=now.rule)


def a_worker_takes_it(now: Moment) -> None:
    moves.claim(now.tx, now.job, owner="me", at=now.at, lease_s=now.dice.choice((1, 1000)))


def it_ends_without_an_answer(now: Moment) -> None:
    state = now.dice.choice((JobState.FAILED, JobState.NOT_APPLICABLE))
    moves.end(now.tx, now.job, state, at=now.at, reason="r", detail="d")


def it_is_predicted(now: Moment) -> None:
    kept = results.ResultFile(
        kind="seg", sop_instance_uid="2.25.1", series_instance_uid="2.25.2",
        path=f"results/{now.job}/a/seg.dcm", digest="0",
    )  # fmt: skip
    moves.predicted(now.tx, now.job, [kept], owner="me", at=now.at, timings={}, device="cpu")


def it_is_delivered_or_refused(now: Moment) -> None:
    for one in deliveries.of_job(now.tx, now.job):
        taken = deliveries.claim(now.tx, one.id, owner="me", at=now.at, lease_s=9)
        if taken is not None and now.dice.random() < 0.6:
            deliveries.confirm(now.tx, taken, owner="me", at=now.at)
        elif taken is not None:
            deliveries.fail(now.tx, taken, owner="me", at=now.at, reason="r", detail="d")


def everything_is_retried(now: Moment) -> None:
    revisions.retry(now.tx, now.uid, at=now.at)


def it_is_cancelled(now: Moment) -> None:
    moves.cancel(now.tx, now.job, at=now.at)


def it_is_sent_elsewhere(now: Moment) -> None:
    moves.send_also(now.tx, now.job, now.dice.choice(("a", "b")), Shipment(), at=now.at)


def a_rule_wants_it_no_more(now: Moment) -> None:
    revisions.supersede_unwanted(now.tx, now.uid, rules=[now.rule], wanted=[], at=now.at)


def leases_expire(now: Moment) -> None:
    leases.expire(now.tx, Task.PREDICT, at=now.at, attempts=2)


MAY_HAPPEN = (
    an_instance_comes, the_study_is_complete, a_rule_decides, a_job_is_asked_for,
    a_worker_takes_it, it_ends_without_an_answer, it_is_predicted, it_is_delivered_or_refused,
    everything_is_retried, it_is_cancelled, it_is_sent_elsewhere, a_rule_wants_it_no_more,
    leases_expire,
)  # fmt: skip
OFTEN = (
    the_study_is_complete,
    the_study_is_complete,
    a_worker_takes_it,
    it_is_predicted,
    it_is_delivered_or_refused,
)


def a_moment(tx: Connection, dice: random.Random, at: float) -> Moment:
    uid = dice.choice(STUDIES)
    every = jobs.of_study(tx, uid)
    study = tables.study.c
    revision = tx.scalar(select(study.revision).where(study.study_instance_uid == uid))
    return Moment(
        tx=tx, dice=dice, at=at, uid=uid, rule=dice.choice(RULES), revision=revision or 0,
        job=dice.choice(every).id if every else "none",
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(6))
def test_no_sequence_of_moves_lets_the_outcome_fall_behind(database: Database, seed: int) -> None:
    dice = random.Random(seed)
    seen: set[str] = set()
    for step in range(150):
        with database.write() as tx:
            dice.choice(MAY_HAPPEN + OFTEN)(a_moment(tx, dice, NOW + step * 10))
        with database.read() as tx:
            seen |= set(figures.studies(tx))
        assert_in_step(database)
    assert len(seen) > 1


def test_two_jobs_that_end_at_once_see_each_other(database: Database) -> None:
    uid = STUDIES[0]
    with database.write() as tx:
        paged.arrive(tx, uid, at=NOW)
        paged.decide(tx, uid)
        ids = [paged.ask_for(tx, uid, at=NOW, rule=rule) for rule in RULES]
        for one in ids:
            moves.claim(tx, one, owner="me", at=NOW, lease_s=60)
    together = threading.Barrier(2)

    def end(job: str) -> None:
        with database.write() as tx:
            if database.url.startswith("postgresql"):  # SQLite lets one write after the other
                together.wait(10)
            moves.end(tx, job, JobState.NOT_APPLICABLE, at=NOW, reason="r", detail="d")

    threads = [threading.Thread(target=end, args=[one]) for one in ids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert_in_step(database)
    with database.read() as tx:
        assert figures.studies(tx) == {Outcome.NOT_APPLICABLE: 1}


def test_a_study_whose_files_are_removed_counts_as_what_it_was(
    database: Database, sample: dict[str, str]
) -> None:
    later = NOW + 1000
    with database.write() as tx:
        removal = retention.begin(tx, STUDY, before=later)
        assert removal is not None
        assert retention.conclude(tx, removal, at=later)
        line = finding.line(tx, STUDY)
        assert figures.received(tx).instances == 187  # all that ever came
    assert line is not None
    assert (line.outcome, line.state, line.instances) == (Outcome.DELIVERED, "removed", 0)
    assert line.patient_name == "lindqvist astrid"
    assert_in_step(database)


def test_whose_study_it_is_comes_from_whichever_instance_says_so_first(
    database: Database,
) -> None:
    with database.write() as tx:
        index.add(tx, paged.instances("1.2.3", count=1))
        index.add(
            tx,
            paged.instances(
                "1.2.3",
                count=1,
                series=2,
                Modality=["SEG", "SR"],
                PatientID="A\0B",
                PatientName=None,
            ),
        )
        index.add(tx, paged.instances("1.2.3", count=1, series=3, PatientID="Second"))
        row = tx.execute(select(tables.study)).one()
    assert (row.patient_id, row.patient_name) == ("a b", "")
    assert identity.modalities(row.modalities) == ["MR", "SEG", "SR"]
    assert (row.received, row.received_bytes, row.source) == (3, 3 * 52_000, "")


def test_very_long_names_are_cut_and_not_refused(database: Database) -> None:
    with database.write() as tx:
        long = {"PatientName": "ß" * 500, "PatientID": "I" * 500, "AccessionNumber": "ﬁ" * 100}
        index.add(tx, paged.instances("1.2.3", count=1, Modality=["AB"] * 3 + ["X" * 300], **long))
        row = tx.execute(select(tables.study)).one()
    assert (len(row.patient_name), len(row.patient_id), len(row.accession_number)) == (256, 64, 64)
    assert len(row.modalities) <= 256


@pytest.mark.parametrize("many", [1, 2000])
def test_studies_are_found_whichever_way_is_quicker(
    database: Database, sample: dict[str, str], monkeypatch: pytest.MonkeyPatch, many: int
) -> None:
    monkeypatch.setattr(finding, "_MANY", many)
    for text, number in (
        ("lind", 1), ("P-20", 10), ("müller käthe", 1), ("1.2.826", 10), ("nobody", 0), ("'", 0),
        ("%", 0), ("_", 0), (" ", 10), ("\U0010ffff", 0), ("o'connor", 1),
    ):  # fmt: skip
        with database.read() as tx:
            assert len(finding.page(tx, Query(text=text), limit=50).lines) == number, text
            wanted = Query(text=text, outcome=Outcome.FAILED, since=NOW - 1e6, until=NOW)
            assert len(finding.page(tx, wanted, limit=50).lines) <= number


def test_every_modality_is_listed_once(database: Database, sample: dict[str, str]) -> None:
    with database.read() as tx:
        assert finding.modalities(tx) == ["MR"]


def test_a_cancelled_job_may_be_retried(database: Database, sample: dict[str, str]) -> None:
    job = the_job(database, sample["pending"])
    with database.write() as tx:
        assert moves.cancel(tx, job.id, at=NOW)
        assert not moves.cancel(tx, job.id, at=NOW)
        assert moves.claim(tx, job.id, owner="me", at=NOW, lease_s=9) is None
        assert revisions.retry(tx, job.study_instance_uid, at=NOW, only=job.id) == [job.id]
    assert the_job(database, sample["pending"]).state is JobState.PENDING
    assert_in_step(database)


def test_only_the_job_that_is_meant_is_retried(database: Database, sample: dict[str, str]) -> None:
    uid = sample["missing-slices"]
    with database.write() as tx:
        other = paged.ask_for(tx, uid, at=NOW, rule="other")
        moves.cancel(tx, other, at=NOW)
        first = jobs.of_study(tx, uid)[0].id
        assert revisions.retry(tx, uid, at=NOW, only=other) == [other]
        assert jobs.job(tx, first).state is JobState.FAILED  # type: ignore[union-attr]
        assert revisions.retry(tx, uid, at=NOW, only="none") == []


def send_also(database: Database, job: str, to: str, shipment: Shipment = Shipment()) -> bool:  # noqa: B008
    with database.write() as tx:
        return moves.send_also(tx, job, to, shipment, at=NOW)


def test_results_sent_elsewhere_end_the_job_once_more(
    database: Database, sample: dict[str, str]
) -> None:
    job = the_job(database, STUDY).id
    assert send_also(database, job, "research")
    assert the_job(database, STUDY).state is JobState.DELIVERING
    assert not send_also(database, job, "research")  # on its way
    assert not send_also(database, job, "pacs")  # there already
    with database.write() as tx:
        (new,) = [one for one in deliveries.of_job(tx, job) if one.destination == "research"]
        paged.deliver(tx, new, at=NOW)
    assert the_job(database, STUDY).state is JobState.DELIVERED
    assert_in_step(database)


def test_a_destination_that_refuses_what_was_sent_elsewhere_is_shown_and_tried_again(
    database: Database, sample: dict[str, str]
) -> None:
    job = the_job(database, STUDY).id
    send_also(database, job, "research")
    with database.write() as tx:
        (new,) = [one for one in deliveries.of_job(tx, job) if one.destination == "research"]
        paged.refuse(tx, new, at=NOW)
    assert the_job(database, STUDY).state is JobState.FAILED
    assert send_also(database, job, "research")
    with database.read() as tx:
        states = {one.destination: one.state for one in deliveries.of_job(tx, job)}
    assert states == {"pacs": DeliveryState.CONFIRMED, "research": DeliveryState.PENDING}


def test_a_destination_gets_what_its_profile_says_where_that_was_made(
    database: Database, sample: dict[str, str]
) -> None:
    job = the_job(database, STUDY).id
    with database.write() as tx:
        tx.execute(
            update(tables.result)
            .where(tables.result.c.job == job, tables.result.c.position == 0)
            .values(profiles=["made"])
        )
    assert send_also(database, job, "one", Shipment(profile="made", superseded="reject"))
    assert send_also(database, job, "two", Shipment(profile="not made"))
    with database.read() as tx:
        profiles = {one.destination: one.profile for one in deliveries.of_job(tx, job)}
    assert (profiles["one"], profiles["two"]) == ("made", "")


@pytest.mark.parametrize("state", ["pending", "predicting", "missing-slices", "nothing"])
def test_where_there_are_no_results_nothing_is_sent(
    database: Database, sample: dict[str, str], state: str
) -> None:
    job = the_job(database, sample[state]).id if state in sample else "0" * 32
    assert not send_also(database, job, "research")


def test_results_that_were_removed_are_not_sent(database: Database, sample: dict[str, str]) -> None:
    job = the_job(database, STUDY).id
    with database.write() as tx:
        tx.execute(update(tables.result).where(tables.result.c.job == job).values(path=""))
    assert not send_also(database, job, "research")


def order(**values: object) -> Order:
    return replace(
        Order(model="other", digest="cd" * 32, input="scan", send_to=("pacs",)),
        **values,  # type: ignore[arg-type]
    )


def test_a_job_by_hand_is_made_once_and_a_new_revision_leaves_it_alone(
    database: Database, sample: dict[str, str]
) -> None:
    job = the_job(database, STUDY)
    with database.write() as tx:
        made = by_hand.run(tx, job.id, order(), at=NOW)
        assert made is not None
        assert by_hand.run(tx, job.id, order(), at=NOW) is None
        new = jobs.job(tx, made)
        assert new is not None
        assert (new.model, new.rule, new.send_to) == ("other", "by hand: other", ("pacs",))
        assert new.key != job.key
        revisions.supersede_unwanted(tx, STUDY, rules=[paged.RULE], wanted=[], at=NOW)
        assert jobs.job(tx, made).state is JobState.PENDING  # type: ignore[union-attr]
    assert_in_step(database)


def test_nothing_is_run_by_hand_on_images_that_are_gone(
    database: Database, sample: dict[str, str]
) -> None:
    job = the_job(database, STUDY)
    with database.write() as tx:
        assert by_hand.run(tx, "0" * 32, order(), at=NOW) is None
        gone = tables.instance.c.sop_instance_uid == f"{STUDY}.1.1"
        tx.execute(tables.instance.delete().where(gone))
        assert by_hand.run(tx, job.id, order(), at=NOW) is None


def test_what_a_study_consists_of(database: Database, sample: dict[str, str]) -> None:
    with database.read() as tx:
        (series,) = contained.series(tx, STUDY)
        assert contained.header(tx, STUDY)["PatientID"] == "P-20425"
        assert contained.header(tx, "1.2.3")["PatientID"] == ""
    assert (series.instances, series.bytes, series.modality) == (20, 20 * 52_000, "MR")


def test_peers_are_seen(database: Database, sample: dict[str, str]) -> None:
    with database.read() as tx:
        seen = contacts.seen(tx, since=0)
        recently = contacts.seen(tx, since=NOW - 1000)
        trouble = contacts.trouble(tx, "pacs")
        assert contacts.trouble(tx, "research") is None
    assert set(seen) == {"mr1"}
    assert (seen["mr1"].associations, seen["mr1"].stored) == (9, 180)
    assert (recently["mr1"].associations, recently["mr1"].last_at) == (1, NOW - 700)
    assert trouble is not None
    assert trouble.reason == "destination-refused"


def test_what_runs_and_waits_and_was_used(database: Database, sample: dict[str, str]) -> None:
    with database.read() as tx:
        assert [one.study_instance_uid for one in hold.running(tx, limit=9)] == [
            sample["predicting"]
        ]
        assert [one.study_instance_uid for one in hold.waiting(tx, limit=9)] == [sample["pending"]]
        runs = usage.runs(tx, paged.MODEL, limit=2)
        assert usage.runs(tx, "other", limit=2) == []
    assert [one.device for one in runs] == ["cuda:0", "cuda:0"]


def test_failed_deliveries_are_counted_from_a_line_on(
    database: Database, sample: dict[str, str]
) -> None:
    with database.read() as tx:
        last = figures.last_event(tx)
        assert figures.delivery_failures(tx, after=0, through=last) == {"pacs": 1}
        assert figures.delivery_failures(tx, after=last, through=last) == {}


def test_people_are_added_once_changed_and_removed(database: Database) -> None:
    with database.write() as tx:
        assert people.add(tx, "ada", role=Role.OPERATOR, password_hash="x", at=1.0)
        assert not people.add(tx, "ada", role=Role.VIEWER, password_hash="y", at=2.0)
        people.begin(tx, "token", name="ada", address="::1", at=1.0, ends_at=10.0)
        found = people.signed_in(tx, "token", at=9.0)
        assert found is not None
        assert found.role is Role.OPERATOR
        assert people.signed_in(tx, "token", at=10.0) is None
        assert people.last_seen(tx, at=5.0) == {"ada": (1, 1.0)}
        people.begin(tx, "later", name="ada", address="::1", at=20.0, ends_at=30.0)
        assert len(tx.scalars(select(tables.session.c.digest)).all()) == 1  # the other is over
        assert people.set_password(tx, "ada", password_hash="z", at=21.0)
        assert people.signed_in(tx, "later", at=22.0) is None
        assert people.remove(tx, "ada")
        assert not people.remove(tx, "ada")
        assert not people.set_password(tx, "ada", password_hash="z", at=21.0)


def test_roles_include_those_before_them() -> None:
    assert [[a.includes(b) for b in Role] for a in Role] == [
        [True, False, False],
        [True, True, False],
        [True, True, True],
    ]


def test_failures_are_forgotten_in_time(database: Database) -> None:
    patience = Patience(free=1, forgotten_s=100)
    with database.write() as tx:
        waits = [people.count_failure(tx, "k", patience=patience, at=1.0) for _ in range(3)]
        assert waits == [0, 0, 1]
        assert people.count_failure(tx, "k", patience=patience, at=102.0) == 0
        assert people.count_failure(tx, "k", patience=patience, at=102.0) == 0
        people.take_back(tx, "k")
        assert people.count_failure(tx, "k", patience=patience, at=102.0) == 0


def test_the_trail_is_read_from_its_end(database: Database) -> None:
    with database.write() as tx:
        for number in range(5):
            audit.write(
                tx, audit.Action.LOOK, at=1.0, person="ada" if number % 2 else "",
                subject=str(number) * 300,
            )  # fmt: skip
        newest = audit.newest(tx, limit=2)
        assert [one.subject[0] for one in newest] == ["4", "3"]
        assert len(newest[0].subject) == 160
        older = audit.newest(tx, limit=9, before=newest[-1].id)
        assert [one.subject[0] for one in older] == ["2", "1", "0"]
        assert [one.subject[0] for one in audit.newest(tx, limit=9, person="ada")] == ["3", "1"]
