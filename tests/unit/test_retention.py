"""What is removed, when, and that a crash between any two steps loses nothing."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from sqlalchemy import select, text

from dicomnode import matcher
from dicomnode.archive import journal, tables
from dicomnode.archive.arrival import Stored
from dicomnode.archive.asked import accounts
from dicomnode.archive.asked.accounts import Outcome
from dicomnode.archive.database import Database
from dicomnode.archive.disk import files, header
from dicomnode.archive.disk.aside import Aside
from dicomnode.archive.disk.files import FileStore
from dicomnode.archive.journal import Kind
from dicomnode.archive.keeping import preview, remover, retention
from dicomnode.archive.keeping.remover import Remover
from dicomnode.archive.studies import decisions, index
from dicomnode.archive.work import deliveries, jobs, moves, results, revisions
from dicomnode.errors import RetryLater
from dicomnode.intake import Intake, Patience
from dicomnode.job import DeliveryState, JobState, Priority
from dicomnode.routing import Clause, Origin, Rule

STUDY = "1.2.3"
DAY = 86_400.0
RULE = Rule(
    name="every CT",
    model="model",
    model_digest="d" * 64,
    inputs={
        "image": (Clause(keyword="Modality", matcher=matcher.parse("CT"), origin=Origin.ROUTE),)
    },
    send_to=("pacs",),
    priority=Priority.ROUTINE,
)


class World:
    """A node without a network: what comes is indexed, completed and routed at once."""

    def __init__(self, folder: Path, *, now: float = 1e9) -> None:
        self.folder = folder
        self.now = now
        self.data_dir = folder / "data"
        self.store = FileStore(self.data_dir)
        self.database = Database(f"sqlite:///{folder}/node.db")
        self.database.migrate()
        self.intake = Intake(
            self.database,
            self.store,
            [RULE],
            patience=Patience(settle_s=0, quiet_s=0),
            clock=lambda: self.now,
        )
        self.is_behind = False
        self.remover = Remover(
            self.database,
            self.data_dir,
            keep_s=30 * DAY,
            clock=lambda: self.now,
            report=self.intake.report,
            indexed_through=self.indexed_through,
        )

    def indexed_through(self) -> float:
        """What the intake says while it is waited for, and works, unless it is behind."""
        if not self.is_behind:
            self.intake.catch_up()
        return self.intake.indexed_through()

    def started_again(self) -> World:
        """The next life of the node, as it starts."""
        self.database.close()
        again = World(self.folder, now=self.now)
        again.remover.recover()
        again.intake.reconcile()
        again.work()
        return again

    def send(
        self, *numbers: int, series: int = 1, modality: str = "CT", comment: str = ""
    ) -> list[str]:
        """Store instances, and report them as a listener does."""
        paths = []
        for number in numbers:
            dataset = encoded(number, series=series, modality=modality, comment=comment)
            identity = header.scan(BytesIO(dataset), transfer_syntax_uid=ExplicitVRLittleEndian)
            meta = files.file_meta(
                sop_class_uid=identity.sop_class_uid,
                sop_instance_uid=identity.sop_instance_uid,
                transfer_syntax_uid=ExplicitVRLittleEndian,
            )
            with contextlib.closing(self.store.draft(meta)) as draft:
                draft.write(dataset)
                stored = draft.commit(identity.sop_instance_uid)
            self.intake.report(
                Stored(association="", path=stored.path, at=self.now, repeated=not stored.is_new)
            )
            paths.append(stored.path)
        return paths

    def work(self) -> None:
        """Index and route what was reported."""
        self.intake.catch_up()
        self.intake.complete_due(self.now)

    def receive(self, *numbers: int, series: int = 1, modality: str = "CT") -> None:
        self.send(*numbers, series=series, modality=modality)
        self.work()

    def deliver(self) -> None:
        """Do what the workers do with each job that waits."""
        for job in self.jobs():
            if job.state is not JobState.PENDING:
                continue
            path = f"{results.folder(job.id)}/1-run/seg.dcm"
            (self.data_dir / path).parent.mkdir(parents=True)
            (self.data_dir / path).write_bytes(b"result")
            kept = results.ResultFile(
                kind="seg", sop_instance_uid="2.25.1", series_instance_uid="2.25.2", path=path,
                digest="0",
            )  # fmt: skip
            with self.database.write() as tx:
                assert moves.claim(tx, job.id, owner="me", at=self.now, lease_s=10)
                assert moves.predicted(
                    tx, job.id, [kept], owner="me", at=self.now, timings={}, device="cpu"
                )
                for delivery in deliveries.of_job(tx, job.id):
                    claimed = deliveries.claim(tx, delivery.id, owner="me", at=self.now, lease_s=10)
                    assert claimed
                    assert deliveries.confirm(tx, claimed, owner="me", at=self.now)

    def remove(self) -> None:
        """One look of the retention."""
        self.remover.remove_due(threading.Event(), lag_s=0)

    def jobs(self) -> list[jobs.Job]:
        with self.database.read() as tx:
            return jobs.of_study(tx, STUDY)

    def study(self) -> accounts.StudyLine:
        with self.database.read() as tx:
            found = accounts.study(tx, STUDY)
        assert found is not None
        return found

    def state(self) -> str:
        with self.database.read() as tx:
            state: str = tx.scalar(tables.study.select().with_only_columns(tables.study.c.state))
        return state

    def decided(self) -> dict[str, str]:
        with self.database.read() as tx:
            return {one.series_instance_uid: one.outcome for one in decisions.newest(tx, STUDY)}

    def kinds(self) -> list[str]:
        with self.database.read() as tx:
            return [entry.kind for entry in journal.of_study(tx, STUDY)]

    def everything_said(self) -> set[str]:
        with self.database.read() as tx:
            return set(tx.scalars(tables.event.select().with_only_columns(tables.event.c.kind)))

    def indexed(self) -> set[str]:
        with self.database.read() as tx:
            return index.known_paths(tx)

    def on_disk(self) -> set[str]:
        return set(self.store.walk())

    def results_on_disk(self) -> list[Path]:
        return sorted(self.data_dir.glob("results/*/*/*"))


def encoded(number: int, *, series: int, modality: str, comment: str) -> bytes:
    ds = Dataset()
    ds.SOPClassUID = CTImageStorage
    ds.SOPInstanceUID = f"{STUDY}.{series}.{number}"
    ds.Modality = modality
    ds.StudyInstanceUID = STUDY
    ds.SeriesInstanceUID = f"{STUDY}.{series}"
    ds.InstanceNumber = number
    ds.ImageComments = comment
    buffer = BytesIO()
    ds.save_as(buffer, implicit_vr=False, little_endian=True)
    return buffer.getvalue()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.database.close()


@pytest.fixture
def delivered(world: World) -> World:
    """A study of three instances that was delivered, and the moment at which it may go."""
    world.receive(1, 2, 3)
    world.deliver()
    world.now += 30 * DAY
    return world


def assert_removed(world: World) -> None:
    assert world.state() == index.REMOVED
    assert world.on_disk() == world.indexed() == set()
    assert world.results_on_disk() == []
    assert Aside(world.data_dir).studies() == []


def assert_whole(world: World, count: int = 3) -> None:
    assert world.state() == index.COMPLETE
    assert world.on_disk() == world.indexed()
    assert len(world.on_disk()) == count
    assert len(world.results_on_disk()) == 1
    assert Aside(world.data_dir).studies() == []


def test_a_delivered_study_is_removed_and_counts_as_what_it_was(delivered: World) -> None:
    before = delivered.study()
    with delivered.database.read() as tx:
        counted = accounts.account(tx)
    delivered.remove()
    assert_removed(delivered)
    assert delivered.study().outcome is before.outcome is Outcome.DELIVERED
    with delivered.database.read() as tx:
        assert accounts.account(tx) == counted
        (line,) = [e for e in journal.of_study(tx, STUDY) if e.kind == Kind.FILES_REMOVED]
        (result,) = results.of_job(tx, delivered.jobs()[0].id)
    assert line.facts["instances"] == 3
    assert line.facts["bytes"] > 0
    assert (result.sop_instance_uid, result.path) == ("2.25.1", "")


def test_a_study_that_no_rule_applied_to_stays(world: World) -> None:
    world.receive(1, 2, modality="MR")
    assert world.study().outcome is Outcome.NOT_APPLICABLE
    world.now += 60 * DAY
    world.remove()
    assert world.state() == index.COMPLETE
    assert len(world.on_disk()) == 2
    assert world.on_disk() == world.indexed()


def test_nothing_goes_before_its_time_and_each_thing_that_happens_begins_it_anew(
    delivered: World,
) -> None:
    delivered.now -= 1
    delivered.remove()
    assert_whole(delivered)
    with delivered.database.write() as tx:
        journal.write(tx, Kind.TURNED_AWAY, at=delivered.now, study=STUDY, reason="duplicate")
    delivered.now += 30 * DAY - 1
    delivered.remove()
    assert_whole(delivered)
    delivered.now += 1
    delivered.remove()
    assert_removed(delivered)


def test_a_start_after_a_removal_misses_nothing(delivered: World) -> None:
    delivered.remove()
    again = delivered.started_again()
    assert_removed(again)
    assert Kind.FILE_MISSING not in again.everything_said()


# What may go, for every state that there is.


@dataclass(frozen=True)
class Case:
    """A study as rows: its jobs, each with the states of its deliveries."""

    jobs: tuple[tuple[JobState, tuple[DeliveryState, ...]], ...] = ()
    state: str = index.COMPLETE
    outcome: str = "job"
    age: float = 30 * DAY

    @property
    def may_go(self) -> bool:
        return (
            self.state == index.COMPLETE
            and self.outcome != "held"
            and self.age >= 30 * DAY
            and any(state is JobState.DELIVERED for state, _ in self.jobs)
            and all(may_go(state, sent) for state, sent in self.jobs)
        )


def may_go(job: JobState, sent: Sequence[DeliveryState]) -> bool:
    if DeliveryState.PENDING in sent or DeliveryState.SENDING in sent:
        return False
    if job is JobState.DELIVERED:
        return set(sent) == {DeliveryState.CONFIRMED}
    return job in {JobState.NOT_APPLICABLE, JobState.SUPERSEDED}


def every_case() -> list[Case]:
    sent: list[tuple[DeliveryState, ...]] = [
        (), *((one,) for one in DeliveryState), *itertools.combinations(DeliveryState, 2)
    ]  # fmt: skip
    one_job = list(itertools.product(JobState, sent))
    alone = [Case(jobs=(job,)) for job in one_job]
    pairs = [Case(jobs=pair) for pair in itertools.combinations(one_job, 2)]
    apart = [
        Case(jobs=of, state=state, outcome=outcome, age=age)
        for of in ((), ((JobState.DELIVERED, (DeliveryState.CONFIRMED,)),))
        for state in (index.RECEIVING, index.COMPLETE, index.REMOVING, index.REMOVED)
        for outcome in ("job", "not_applicable", "held")
        for age in (0.0, 30 * DAY - 1, 30 * DAY)
    ]
    return [*alone, *pairs, *apart]


def insert(database: Database, cases: Mapping[str, Case], *, now: float) -> None:
    rows: dict[Any, list[dict[str, Any]]] = {
        table: [] for table in (tables.study, tables.decision, tables.job, tables.delivery)
    }
    for uid, case in cases.items():
        at = now - case.age
        rows[tables.study].append(
            {"study_instance_uid": uid, "state": case.state, "revision": 2, "first_at": at,
             "last_at": at, "completed_at": at, "because": ""}
        )  # fmt: skip
        rows[tables.decision].append(
            {"study_instance_uid": uid, "revision": 2, "rule": "rule", "series_instance_uid": "1",
             "model": "", "outcome": case.outcome, "origin": "", "clause": "", "value": "",
             "detail": ""}
        )  # fmt: skip
        for number, (state, sent) in enumerate(case.jobs):
            job_id = f"{uid}-{number}"
            rows[tables.job].append(
                {"id": job_id, "key": job_id, "study_instance_uid": uid, "revision": 2,
                 "rule": "rule", "model": "m", "model_digest": "", "inputs": {}, "send_to": [],
                 "urgency": 1, "timings": {}, "state": state, "created_at": at}
            )  # fmt: skip
            rows[tables.delivery] += [
                {"id": f"{job_id}-{n}", "job": job_id, "destination": "pacs", "state": one,
                 "created_at": at}
                for n, one in enumerate(sent)
            ]  # fmt: skip
    with database.write() as tx:
        for table, values in rows.items():
            tx.execute(table.insert(), values)


def test_only_what_ended_well_may_go_whatever_the_states(world: World) -> None:
    cases = {f"9.{number}": case for number, case in enumerate(every_case(), start=1)}
    insert(world.database, cases, now=world.now)
    before = world.now - 30 * DAY
    with world.database.read() as tx:
        found = set(retention.removable(tx, before=before, limit=10**6))
    expected = {uid for uid, case in cases.items() if case.may_go}
    assert {uid: cases[uid] for uid in found ^ expected} == {}
    assert 0 < len(expected) < len(cases)
    # The same rule decides again when the study is marked.
    apart = dict(list(cases.items())[-80:])
    with world.database.write() as tx:
        begun = {uid for uid in apart if retention.begin(tx, uid, before=before)}
    assert begun == expected & apart.keys()


def test_what_is_shown_is_what_the_remover_would_do(world: World) -> None:
    cases = {f"9.{number}": case for number, case in enumerate(every_case(), start=1)}
    insert(world.database, cases, now=world.now)
    with world.database.read() as tx:
        for days in (29.0, 30.0, 31.0):
            found = preview.preview(tx, days=days, now=world.now)
            for ahead, amount in found.due.items():
                before = world.now + ahead * DAY - days * DAY
                would_go = retention.removable(tx, before=before, limit=10**6)
                assert amount.studies == len(would_go)
            kept = sum(one.studies for one in found.kept.values())
            there = [
                one for one in cases.values() if one.state not in {index.REMOVING, index.REMOVED}
            ]
            assert kept + found.due[30].studies + found.later.studies == len(there)
    assert set(found.kept) == set(retention.Stays) - {retention.Stays.PROMISED}


def test_a_day_a_week_and_a_month_ahead_are_shown_with_what_came(delivered: World) -> None:
    with delivered.database.read() as tx:
        size = sum(one.size for one in retention.standings(tx))
        assert size > 0
        for days, at in ((30, 0), (30.5, 1), (36, 7), (59, 30)):
            found = preview.preview(tx, days=days, now=delivered.now)
            counts = [found.due[ahead].studies for ahead in preview.HORIZONS]
            assert counts == [int(ahead >= at) for ahead in preview.HORIZONS]
            assert found.due[30].size == size
            assert found.oldest == delivered.now - 30 * DAY
        assert preview.preview(tx, days=90, now=delivered.now).later.studies == 1
        never = preview.preview(tx, days=None, now=delivered.now)
    assert (never.due[30].studies, never.later.studies, never.kept) == (0, 1, {})


def test_a_study_that_a_peer_was_promised_is_shown_as_that(delivered: World) -> None:
    with delivered.database.write() as tx:
        journal.write(tx, Kind.COMMITMENT_ANSWERED, at=delivered.now, study=STUDY)
    with delivered.database.read() as tx:
        found = preview.preview(tx, days=1, now=delivered.now)
    assert {why: one.studies for why, one in found.kept.items()} == {retention.Stays.PROMISED: 1}


def test_no_question_about_a_study_reads_the_rows_of_all_the_others(world: World) -> None:
    """A look at a hundred thousand studies would otherwise take for ever."""
    plans = []
    with world.database.read() as tx:
        for condition in retention._in_the_way().values():
            asked = select(tables.study.c.study_instance_uid).where(condition)
            sql = asked.compile(tx.engine, compile_kwargs={"literal_binds": True})
            plans += [row[3] for row in tx.execute(text(f"EXPLAIN QUERY PLAN {sql}"))]
    looked_up = [plan for plan in plans if plan.startswith("SEARCH")]
    assert len(looked_up) > 5
    allowed = re.compile(r"\((study_instance_uid|job)=\?")
    assert [plan for plan in looked_up if not allowed.search(plan)] == []


def test_an_older_revision_that_was_held_keeps_nothing(delivered: World) -> None:
    with delivered.database.write() as tx:
        tx.execute(
            tables.decision.insert().values(
                study_instance_uid=STUDY, revision=0, rule="rule", series_instance_uid="1",
                model="", outcome="held", origin="", clause="", value="", detail="",
            )
        )  # fmt: skip
    delivered.remove()
    assert_removed(delivered)


# A crash between any two steps.


class Crash(BaseException):
    """The process is no more: nothing of ours catches it."""


class Countdown:
    """Lets so many steps be taken, and no more."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
        self.left = steps
        for owner, name in (
            (os, "rename"),
            (os, "link"),
            (os, "unlink"),
            (retention, "begin"),
            (retention, "conclude"),
            (retention, "call_off"),
        ):
            monkeypatch.setattr(owner, name, self._counted(getattr(owner, name)))

    def _counted(self, step: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            if self.left == 0:
                raise Crash
            self.left -= 1
            return step(*args, **kwargs)

        return counted


def crashes(world: World, monkeypatch: pytest.MonkeyPatch, steps: int) -> bool:
    """Whether the retention died when it had taken `steps` steps."""
    with monkeypatch.context() as patched:
        Countdown(patched, steps)
        try:
            world.remove()
        except Crash:
            return True
    return False


def test_a_crash_between_any_two_steps_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = set()
    for steps in itertools.count():
        folder = tmp_path / str(steps)
        folder.mkdir()
        world = World(folder)
        world.receive(1, 2, 3)
        world.deliver()
        world.now += 30 * DAY
        died = crashes(world, monkeypatch, steps)
        again = world.started_again()
        state = again.state()
        ends.add(state)
        if state == index.COMPLETE:
            assert_whole(again)
        else:
            assert_removed(again)
        assert Kind.FILE_MISSING not in again.everything_said()
        assert Kind.FOUND_AT_START not in again.everything_said()
        again.remove()
        assert_removed(again)
        assert again.kinds().count(Kind.FILES_REMOVED) == 1
        assert again.study().outcome is Outcome.DELIVERED
        again.database.close()
        if not died:
            break
    assert steps > 8
    assert ends == {index.COMPLETE, index.REMOVED}


def test_a_crash_while_a_removal_is_taken_back_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for steps in itertools.count():
        folder = tmp_path / str(steps)
        folder.mkdir()
        world = World(folder)
        world.receive(1, 2, 3)
        world.deliver()
        world.now += 30 * DAY
        assert world.remover._set_aside(STUDY, before=world.now - 30 * DAY)
        assert world.on_disk() == set()
        died = False
        with monkeypatch.context() as patched:
            Countdown(patched, steps)
            try:
                world.remover.recover()
            except Crash:
                died = True
        again = world.started_again()
        assert_whole(again)
        assert again.everything_said().isdisjoint({Kind.FILE_MISSING, Kind.FOUND_AT_START})
        again.database.close()
        if not died:
            break
    assert steps > 5


# What comes of a study that is being removed, or was.


def begun(world: World) -> retention.Removal:
    """The removal as it stands when the files are out of place and the rows are not deleted."""
    removal = world.remover._set_aside(STUDY, before=world.now - 30 * DAY)
    assert removal is not None
    assert world.on_disk() == set()
    return removal


def test_a_new_instance_meanwhile_calls_the_removal_off(delivered: World) -> None:
    removal = begun(delivered)
    delivered.receive(4)
    delivered.remover._finish(removal)
    delivered.work()
    assert_whole(delivered, count=4)
    assert [job.state for job in delivered.jobs()] == [JobState.SUPERSEDED, JobState.PENDING]


def test_an_instance_that_comes_again_meanwhile_calls_the_removal_off(delivered: World) -> None:
    removal = begun(delivered)
    delivered.receive(2)
    delivered.remover._finish(removal)
    delivered.work()
    assert_whole(delivered)
    assert [job.state for job in delivered.jobs()] == [JobState.DELIVERED]


def test_an_instance_that_comes_again_with_other_content_is_what_is_indexed(
    delivered: World,
) -> None:
    removal = begun(delivered)
    (path,) = delivered.send(2, comment="another")
    delivered.remover._finish(removal)
    delivered.work()
    assert_whole(delivered)
    with delivered.database.read() as tx:
        found = index.study(tx, STUDY)
    assert found is not None
    assert [
        one.header["ImageComments"] for one in found.series[0].instances if one.path == path
    ] == ["another"]


def test_a_repetition_that_was_acknowledged_before_its_file_went_calls_it_off(
    delivered: World,
) -> None:
    delivered.send(1)  # acknowledged: its file was there; and not indexed yet
    removal = begun(delivered)
    delivered.work()
    delivered.remover._finish(removal)
    assert_whole(delivered)


def test_a_repetition_that_is_reported_and_not_indexed_yet_is_waited_for(
    delivered: World,
) -> None:
    delivered.send(1)
    delivered.remove()
    assert_whole(delivered)


def test_an_index_that_stays_behind_calls_the_removal_off(
    delivered: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remover, "_LOOKS", 3)
    monkeypatch.setattr(remover, "_LOOK_S", 0)
    delivered.is_behind = True
    delivered.send(1)
    with pytest.raises(RetryLater, match="index-behind"):
        delivered.remove()
    delivered.is_behind = False
    delivered.work()
    assert_whole(delivered)
    delivered.remove()
    assert_removed(delivered)


def test_an_instance_that_comes_again_in_the_last_moment_is_indexed(
    delivered: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    removal = begun(delivered)
    conclude = retention.conclude

    def too_late(*args: Any, **kwargs: Any) -> bool:
        delivered.send(2)
        return conclude(*args, **kwargs)

    monkeypatch.setattr(retention, "conclude", too_late)
    delivered.remover._finish(removal)
    delivered.work()
    assert (
        delivered.on_disk()
        == delivered.indexed()
        == {
            f"instances/{path.parent.name}/{path.name}"
            for path in delivered.data_dir.glob("instances/*/*.dcm")
        }
    )
    assert len(delivered.indexed()) == 1


def test_a_removed_study_that_is_sent_again_does_not_run_twice(delivered: World) -> None:
    delivered.remove()
    delivered.receive(1, 2, 3)
    assert delivered.study().revision == 2
    assert delivered.study().instances == 3
    assert [job.state for job in delivered.jobs()] == [JobState.DELIVERED]
    assert delivered.study().outcome is Outcome.DELIVERED
    delivered.now += 30 * DAY
    delivered.remove()
    assert_removed(delivered)


def test_a_removed_study_that_is_sent_in_part_is_held_and_stays_delivered(
    delivered: World,
) -> None:
    delivered.remove()
    delivered.receive(1, 2)
    assert delivered.decided() == {f"{STUDY}.1": "held"}
    assert delivered.study().outcome is Outcome.FAILED
    assert [job.state for job in delivered.jobs()] == [JobState.DELIVERED]
    with delivered.database.read() as tx:
        (held,) = decisions.newest(tx, STUDY)
    assert "1 of its instances" in held.detail
    delivered.now += 60 * DAY
    delivered.remove()
    assert len(delivered.on_disk()) == 2
    delivered.receive(3)
    assert delivered.study().outcome is Outcome.DELIVERED
    assert [job.state for job in delivered.jobs()] == [JobState.DELIVERED]


def test_a_new_series_of_a_removed_study_runs_and_the_old_one_stays_delivered(
    delivered: World,
) -> None:
    delivered.remove()
    delivered.receive(1, 2, series=2)
    assert delivered.decided() == {f"{STUDY}.2": "job"}
    assert [job.state for job in delivered.jobs()] == [JobState.DELIVERED, JobState.PENDING]


def test_without_a_removal_an_unwanted_job_ends_as_ever(delivered: World) -> None:
    with delivered.database.write() as tx:
        revisions.supersede_unwanted(tx, STUDY, rules={RULE.name}, wanted=[], at=delivered.now)
        assert revisions.torn(tx, STUDY) == {}
    assert [job.state for job in delivered.jobs()] == [JobState.SUPERSEDED]


def test_a_file_system_that_fails_lets_the_study_stay(
    delivered: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        renames = iter([None, OSError(5, "Input/output error")])
        rename = os.rename

        def failing(*args: Any, **kwargs: Any) -> None:
            if fault := next(renames, None):
                raise fault
            rename(*args, **kwargs)

        patched.setattr(os, "rename", failing)
        delivered.remove()
    assert_whole(delivered)
    delivered.remove()
    assert_removed(delivered)


class Stopping(threading.Event):
    """Is set in the first pause of this length."""

    def __init__(self, *, after: float) -> None:
        super().__init__()
        self._after = after

    def wait(self, timeout: float | None = None) -> bool:
        if timeout == self._after:
            self.set()
        return self.is_set()


def test_the_loop_looks_at_once_and_ends_when_it_is_told(delivered: World) -> None:
    delivered.remover.run(Stopping(after=remover._EVERY_S))
    assert_removed(delivered)


def test_a_fault_ends_a_look_and_not_the_loop(
    delivered: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: Any, **__: Any) -> list[str]:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(retention, "removable", failing)
        delivered.remover.run(Stopping(after=remover._AFTER_FAULT_S))
    assert_whole(delivered)


def test_a_stop_in_the_middle_is_taken_back_at_the_next_start(delivered: World) -> None:
    delivered.remover.remove_due(Stopping(after=1), lag_s=1)
    assert delivered.on_disk() == set()
    assert_whole(delivered.started_again())
