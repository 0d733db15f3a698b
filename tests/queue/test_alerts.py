"""Each alert from its first sign to its end, on each database, with a clock of the test's own."""

from __future__ import annotations

import json
import os
import socket
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import alerted
import paged
import pytest
from alerted import DAY, HOUR, MINUTE, NOW, Watch
from sqlalchemy import select, update

from dicomnode.alert import Channel, Kind
from dicomnode.alerting import about, signs, wording
from dicomnode.alerting.watcher import Watcher
from dicomnode.archive import tables
from dicomnode.archive.alerts import messages, standing
from dicomnode.archive.arrival import Opened
from dicomnode.archive.database import Database
from dicomnode.archive.studies import associations
from dicomnode.archive.work import deliveries, revisions

GIB = 2**30


@pytest.fixture
def watch(database: Database, tmp_path: Path) -> Watch:
    return Watch(database=database, configuration=alerted.configured(tmp_path))


def test_nothing_is_wrong_with_a_node_that_does_nothing(watch: Watch) -> None:
    assert watch.watch(10 * MINUTE) == []
    assert watch.looming == []


# ── Studies ─────────────────────────────────────────────────────────────────────────────────────


def test_studies_that_fail_together_make_one_message(watch: Watch) -> None:
    with watch.database.write() as tx:
        for number in range(4):
            alerted.fail(tx, f"1.2.{number}", at=NOW + number)
        alerted.fail(tx, "1.2.9", at=NOW + 5, reason="time-limit")
    assert watch.step(10) == []
    assert watch.looming == ["study-failed", "everything-fails"]
    watch.watch(2 * MINUTE)
    assert watch.told() == ["study-failed begun"]
    (said,) = watch.letters()
    assert said.wording.title == "5 studies have failed."
    assert said.wording.seen == "4 missing-slices, 1 time-limit"


def test_the_end_of_failures_counts_all_of_them(watch: Watch) -> None:
    for number in range(3):
        with watch.database.write() as tx:
            alerted.fail(tx, f"1.2.{number}", at=watch.now)
            paged.deliver(
                tx,
                alerted.predicted(tx, f"1.3.{number}", watch.configuration.node.data_dir,
                                  at=watch.now),
                at=watch.now,
            )  # fmt: skip
        watch.watch(40 * MINUTE, every=60)
    assert watch.kinds == ["study-failed"]
    (begun,) = watch.letters()
    watch.watch(30 * MINUTE, every=60)
    assert watch.told() == ["study-failed begun", "study-failed over"]
    (over,) = watch.letters()
    assert begun.wording.title == "1 study has failed."
    assert over.wording.title == "Over: no study has failed of late; 3 studies had."
    assert (over.thread, begun.id) == (begun.thread, begun.thread)


def test_a_study_that_is_retried_with_success_is_failed_no_more(watch: Watch) -> None:
    with watch.database.write() as tx:
        alerted.fail(tx, "1.2.1", at=NOW)
    watch.watch(2 * MINUTE)
    assert watch.kinds == ["study-failed"]
    with watch.database.write() as tx:
        revisions.retry(tx, "1.2.1", at=watch.now)
        alerted.workers(tx, at=watch.now)
    watch.step(15)
    assert watch.kinds == []
    assert watch.told() == ["study-failed begun", "study-failed over"]


def test_a_study_that_is_held_has_failed_too(watch: Watch) -> None:
    with watch.database.write() as tx:
        paged.arrive(tx, "1.2.1", at=NOW)
        paged.decide(tx, "1.2.1", outcome="held")
    watch.watch(2 * MINUTE)
    (said,) = watch.letters()
    assert said.wording.seen == "1 held"


def test_three_that_fail_and_none_that_comes_through_are_another_matter(watch: Watch) -> None:
    with watch.database.write() as tx:
        for number in range(3):
            alerted.fail(tx, f"1.2.{number}", at=NOW, reason="bundle-error")
    watch.watch(6 * MINUTE)
    assert watch.kinds == ["study-failed", "everything-fails"]
    with watch.database.write() as tx:
        one = alerted.predicted(tx, "1.2.9", watch.configuration.node.data_dir, at=watch.now)
        paged.deliver(tx, one, at=watch.now)
    watch.step(15)
    assert watch.kinds == ["study-failed"]


# ── Destinations ────────────────────────────────────────────────────────────────────────────────


def keep_trying(watch: Watch, one: deliveries.Delivery, minutes: int, **reason: str) -> None:
    for _ in range(minutes):
        with watch.database.write() as tx:
            alerted.attempt(tx, one, at=watch.now, **reason)
            alerted.workers(tx, at=watch.now + MINUTE)
        watch.watch(MINUTE)


@pytest.fixture
def waiting(watch: Watch) -> deliveries.Delivery:
    """A delivery to pacs that nobody has tried yet."""
    with watch.database.write() as tx:
        alerted.workers(tx, at=NOW)
        return alerted.predicted(tx, "1.2.1", watch.configuration.node.data_dir, at=NOW)


def test_a_destination_is_down_after_a_quarter_of_an_hour_and_over_with_the_first_success(
    watch: Watch, waiting: deliveries.Delivery
) -> None:
    keep_trying(watch, waiting, 14)
    assert watch.kinds == []
    keep_trying(watch, waiting, 2)
    assert [(one.kind, one.subject) for one in watch.open] == [(Kind.DESTINATION_DOWN, "pacs")]
    (begun,) = watch.letters()
    with watch.database.write() as tx:
        paged.deliver(tx, waiting, at=watch.now)
    watch.step(5)
    assert watch.kinds == []
    (over,) = watch.letters()
    assert begun.wording.title == "pacs takes no results; 1 delivery does not get through."
    assert begun.wording.seen == "1 destination-unreachable"
    assert over.wording.title == "Over: pacs takes results again, or none waits for it."
    assert over.wording.length == "15 minutes"


def test_one_success_in_between_and_a_destination_is_not_down(
    watch: Watch, waiting: deliveries.Delivery
) -> None:
    keep_trying(watch, waiting, 10)
    with watch.database.write() as tx:
        other = alerted.predicted(tx, "1.2.2", watch.configuration.node.data_dir, at=watch.now)
        paged.deliver(tx, other, at=watch.now)
    keep_trying(watch, waiting, 10)
    assert (watch.kinds, watch.looming) == ([], ["destination-down"])
    keep_trying(watch, waiting, 6)
    assert watch.kinds == ["destination-down"]


def test_a_destination_that_has_yet_to_say_that_it_keeps_it_is_not_down(
    watch: Watch, waiting: deliveries.Delivery
) -> None:
    keep_trying(watch, waiting, 30, reason="awaiting-commitment")
    assert (watch.kinds, watch.looming) == ([], [])


def test_while_another_attempt_is_made_a_destination_stays_down(
    watch: Watch, waiting: deliveries.Delivery
) -> None:
    keep_trying(watch, waiting, 16)
    with watch.database.write() as tx:
        deliveries.claim(tx, waiting.id, owner="worker", at=watch.now, lease_s=600)
        alerted.workers(tx, at=watch.now + HOUR)
    watch.watch(2 * MINUTE)
    assert watch.kinds == ["destination-down"]


def test_what_a_node_did_not_see_is_not_held_against_a_destination(
    watch: Watch, waiting: deliveries.Delivery
) -> None:
    keep_trying(watch, waiting, 5)
    watch.now += 3 * HOUR  # everything was down
    watch.restart()
    keep_trying(watch, waiting, 5)
    assert watch.kinds == []
    keep_trying(watch, waiting, 11)
    assert watch.kinds == ["destination-down"]


def test_what_is_refused_for_good_is_told_of_by_destination(
    watch: Watch, waiting: deliveries.Delivery
) -> None:
    with watch.database.write() as tx:
        paged.refuse(tx, waiting, at=NOW)
    watch.watch(2 * MINUTE)
    assert set(watch.kinds) == {"study-failed", "delivery-failed"}
    said = {one.wording.kind: one.wording for one in watch.letters()}
    assert said[Kind.DELIVERY_FAILED].title == "pacs has refused 1 delivery for good."
    watch.watch(HOUR, every=60)
    assert watch.kinds == []


# ── Workers and queues ──────────────────────────────────────────────────────────────────────────


def test_jobs_that_wait_for_a_worker_that_is_not_there(watch: Watch) -> None:
    with watch.database.write() as tx:
        alerted.job(tx, "1.2.1", at=NOW)
    watch.watch(6 * MINUTE)
    assert watch.kinds == ["no-worker"]
    with watch.database.write() as tx:
        alerted.workers(tx, at=watch.now)
    watch.step(5)
    assert watch.kinds == []
    assert watch.told() == ["no-worker begun", "no-worker over"]


def test_without_work_nobody_misses_a_worker(watch: Watch) -> None:
    assert watch.watch(HOUR, every=60) == []


def test_results_that_wait_for_a_worker_that_is_not_there(
    watch: Watch, waiting: deliveries.Delivery
) -> None:
    watch.watch(6 * MINUTE)
    assert watch.kinds == ["no-deliverer"]


def test_work_that_waits_too_long_although_there_are_workers(watch: Watch) -> None:
    with watch.database.write() as tx:
        alerted.job(tx, "1.2.1", at=NOW)
        one = alerted.predicted(tx, "1.2.2", watch.configuration.node.data_dir, at=NOW)
        alerted.attempt(tx, one, at=NOW, reason="awaiting-commitment")
        alerted.workers(tx, at=NOW + DAY)
    watch.watch(34 * MINUTE, every=60)
    assert watch.kinds == []
    watch.watch(3 * MINUTE, every=60)
    assert watch.kinds == ["queue-old"]
    watch.watch(4 * HOUR, every=60)
    assert watch.kinds == ["queue-old", "deliveries-old"]


def test_a_model_that_comes_near_to_its_limit(watch: Watch) -> None:
    def run(number: int, seconds: float) -> None:
        with watch.database.write() as tx:
            folder = watch.configuration.node.data_dir
            one = alerted.predicted(tx, f"1.2.{number}", folder, at=watch.now)
            paged.deliver(tx, one, at=watch.now)
            tx.execute(
                update(tables.job)
                .where(tables.job.c.id == one.job)
                .values(timings={"infer": seconds})
            )

    for number in range(5):
        run(number, 350.0)
        watch.watch(8 * MINUTE, every=60)
    assert [(one.kind, one.subject) for one in watch.open] == [(Kind.MODEL_SLOW, "hippocampus")]
    assert watch.letters()[0].wording.title == (
        "hippocampus takes 5 minutes; after 10 minutes it is stopped."
    )
    watch.watch(70 * MINUTE, every=60)
    assert watch.kinds == []


def test_many_open_associations(watch: Watch) -> None:
    with watch.database.write() as tx:
        for number in range(205):
            associations.opened(
                tx,
                Opened(association=f"a{number}", peer="mr1", calling_ae_title="MR1",
                       address="10.0.0.5", at=NOW),
            )  # fmt: skip
    watch.watch(11 * MINUTE)
    assert watch.kinds == ["many-associations"]
    assert watch.letters()[0].wording.title == "205 associations are open, of 256."


# ── The disk ────────────────────────────────────────────────────────────────────────────────────


class Disk:
    """A disk of which a test says how full it is."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free_gib, self.name = 100.0, 7
        monkeypatch.setattr(os, "statvfs", self._statvfs)

    def _statvfs(self, _path: object) -> SimpleNamespace:
        blocks = int(self.free_gib * GIB / 4096)
        return SimpleNamespace(f_fsid=self.name, f_bavail=blocks, f_frsize=4096)


@pytest.fixture
def disk(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> Disk:
    table = watch.configuration.disk.model_copy(update={"min_free_gib": 2.0, "floor_gib": 0.5})
    watch.configuration = watch.configuration.model_copy(update={"disk": table})
    return Disk(monkeypatch)


def test_a_disk_that_is_nearly_full_and_then_full(watch: Watch, disk: Disk) -> None:
    watch.step(5)
    disk.free_gib = 1.5
    watch.watch(2 * MINUTE)
    assert watch.kinds == ["disk-nearly-full"]
    (said,) = watch.letters()
    assert said.wording.title.startswith("1.5 GiB are free on ")
    assert said.wording.title.endswith(": new studies are refused.")
    assert said.about == socket.gethostname()
    disk.free_gib = 3.0
    watch.step(15)
    assert watch.kinds == []


def test_a_disk_that_will_be_full_within_a_day_is_told_of_after_two_hours(
    watch: Watch, disk: Disk
) -> None:
    for _ in range(3 * 60):
        watch.step(MINUTE)
        disk.free_gib -= 0.1
    assert watch.kinds == ["disk-fills"]
    # A new process does not know yet how fast it fills, and lets the alert stand.
    watch.restart(running_for=DAY)
    watch.watch(30 * MINUTE, every=60)
    assert watch.kinds == ["disk-fills"]
    # For hours it fills no more.
    watch.watch(8 * HOUR, every=60)
    assert watch.kinds == []
    assert watch.told() == ["disk-fills begun", "disk-fills over"]


def test_nobody_ends_the_alert_of_another_machine_unless_it_is_gone(
    watch: Watch, disk: Disk
) -> None:
    disk.free_gib = 1.0
    watch.watch(2 * MINUTE)
    disk.free_gib, disk.name = 50.0, 8
    other = Watch(database=watch.database, configuration=watch.configuration, now=watch.now)
    other.watch(50 * MINUTE, every=60)
    assert other.kinds == ["disk-nearly-full"]
    other.watch(15 * MINUTE, every=60)
    assert other.kinds == []


def test_two_machines_whose_disks_call_themselves_the_same_are_told_apart(
    watch: Watch, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Watch(database=watch.database, configuration=watch.configuration, now=watch.now)
    for _ in range(30):
        monkeypatch.setattr(socket, "gethostname", lambda: "full")
        disk.free_gib = 1.0
        watch.step(5)
        monkeypatch.setattr(socket, "gethostname", lambda: "empty")
        disk.free_gib = 50.0
        other.step(5)
    assert watch.kinds == ["disk-nearly-full"]
    assert watch.told() == ["disk-nearly-full begun"]


def test_a_disk_that_has_filled_as_was_foreseen_is_not_well(watch: Watch, disk: Disk) -> None:
    for _ in range(3 * 60):
        watch.step(MINUTE)
        disk.free_gib -= 0.1
    disk.free_gib = 1.5
    watch.watch(5 * MINUTE)
    assert watch.told() == ["disk-fills begun", "disk-nearly-full begun"]
    disk.free_gib = 90.0
    watch.watch(8 * HOUR, every=60)
    assert watch.kinds == []


def test_a_disk_that_does_not_answer_ends_nothing(
    watch: Watch, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk.free_gib = 1.0
    watch.watch(2 * MINUTE)

    def away(_path: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "statvfs", away)
    watch.watch(5 * MINUTE)
    assert watch.kinds == ["disk-nearly-full"]


# ── Silence ─────────────────────────────────────────────────────────────────────────────────────


def test_unusual_silence_is_told_of_and_ends_with_an_arrival(watch: Watch) -> None:
    with watch.database.write() as tx:
        alerted.arrivals(tx, until=NOW)
    watch.watch(3 * HOUR, every=60)
    assert watch.kinds == []
    watch.watch(2 * HOUR, every=60)
    assert watch.kinds == ["nothing-received"]
    (said,) = watch.letters()
    assert said.wording.title == "nothing has arrived for an unusual time."
    assert said.since is not None
    assert said.since.timestamp() == pytest.approx(NOW, abs=2)
    # A start does not end it; an arrival does.
    watch.restart()
    watch.watch(3 * MINUTE)
    assert watch.kinds == ["nothing-received"]
    with watch.database.write() as tx:
        paged.arrive(tx, "1.2.1", at=watch.now)
    watch.watch(2 * MINUTE)
    assert watch.kinds == []
    assert watch.told() == ["nothing-received begun", "nothing-received over"]


def test_after_a_start_senders_have_an_hour(watch: Watch) -> None:
    with watch.database.write() as tx:
        alerted.arrivals(tx, until=NOW - 10 * HOUR)
    watch.restart()
    watch.watch(58 * MINUTE, every=60)
    assert watch.kinds == []
    watch.watch(5 * MINUTE, every=60)
    assert watch.kinds == ["nothing-received"]


@pytest.mark.parametrize(("hours", "is_told"), [(2.0, True), (5.0, False), (0.0, False)])
def test_a_number_of_hours_stands_in_place_of_what_is_learned(
    watch: Watch, *, hours: float, is_told: bool
) -> None:
    alerts = watch.configuration.alerts.model_copy(update={"silence_hours": hours})
    watch.configuration = watch.configuration.model_copy(update={"alerts": alerts})
    with watch.database.write() as tx:
        paged.arrive(tx, "1.2.1", at=NOW)
    watch.watch(3 * HOUR, every=60)
    assert bool(watch.kinds) is is_told


def _with(watch: Watch, **changed: object) -> None:
    alerts = watch.configuration.alerts.model_copy(update=changed)
    watch.configuration = watch.configuration.model_copy(update={"alerts": alerts})


def test_silence_that_nobody_wants_to_hear_of_any_more_ends_unsaid(watch: Watch) -> None:
    _with(watch, silence_hours=2.0)
    with watch.database.write() as tx:
        paged.arrive(tx, "1.2.1", at=NOW)
    watch.watch(3 * HOUR, every=60)
    _with(watch, silence_hours=0.0)
    watch.watch(2 * MINUTE)
    assert watch.kinds == []
    assert watch.told() == ["nothing-received begun"]


# ── Told once, and not forgotten ────────────────────────────────────────────────────────────────


def test_a_restart_neither_repeats_nor_forgets(watch: Watch) -> None:
    with watch.database.write() as tx:
        alerted.fail(tx, "1.2.1", at=NOW)
    watch.step(10)
    watch.restart()
    assert watch.looming == ["study-failed"]
    watch.watch(2 * MINUTE)
    watch.restart()
    watch.watch(2 * MINUTE)
    assert watch.told() == ["study-failed begun"]
    watch.now += 2 * HOUR
    watch.restart()
    watch.step(5)
    assert watch.told() == ["study-failed begun", "study-failed over"]


def test_what_goes_on_is_told_of_again_after_hours(watch: Watch) -> None:
    with watch.database.write() as tx:
        alerted.job(tx, "1.2.1", at=NOW)
    watch.watch(6 * MINUTE)
    watch.letters()
    watch.watch(13 * HOUR, every=300)
    watch.letters()
    watch.watch(10 * HOUR, every=300)
    mine = [one for one in watch.told() if one.startswith("no-worker")]
    assert mine == ["no-worker begun", "no-worker still"]
    watch.watch(3 * HOUR, every=300)
    (said,) = [one for one in watch.letters() if one.wording.kind is Kind.NO_WORKER]
    assert said.wording.title == "Still: no worker runs models; 1 job waits."


def test_while_a_channel_has_not_told_of_an_alert_it_is_not_repeated(watch: Watch) -> None:
    with watch.database.write() as tx:
        alerted.job(tx, "1.2.1", at=NOW)
        alerted.workers(tx, at=NOW - HOUR)
    watch.watch(6 * MINUTE)
    assert watch.claim("webhook") is not None  # and is being sent, for ever
    watch.letters()
    watch.watch(13 * HOUR, every=300)
    mine = [(said, channel) for kind, said, channel in watch.written() if kind == "no-worker"]
    assert sorted(mine) == [("begun", "email"), ("begun", "webhook"), ("still", "email")]


def test_an_end_says_what_was_never_sent(watch: Watch) -> None:
    with watch.database.write() as tx:
        alerted.fail(tx, "1.2.1", at=NOW)
    watch.watch(2 * MINUTE)
    watch.now += 2 * HOUR
    watch.step(5)
    (only,) = watch.letters()
    assert only.wording.title.startswith("Over: ")


def test_without_channels_alerts_are_kept_and_nothing_is_written(
    watch: Watch, tmp_path: Path
) -> None:
    watch.configuration = alerted.configured(tmp_path, "")
    with watch.database.write() as tx:
        alerted.fail(tx, "1.2.1", at=NOW)
    watch.watch(2 * MINUTE)
    assert watch.kinds == ["study-failed"]
    assert watch.written() == []


def test_a_kind_that_is_ignored_is_not_there(watch: Watch, tmp_path: Path) -> None:
    with watch.database.write() as tx:
        alerted.fail(tx, "1.2.1", at=NOW)
    watch.watch(2 * MINUTE)
    watch.configuration = alerted.configured(
        tmp_path, f'[alerts]\nignore = ["study-failed"]\n{alerted.CHANNELS}'
    )
    watch.step(5)
    assert watch.kinds == []
    assert watch.told() == ["study-failed begun"]  # it is not over, only asked for no more


def test_a_destination_that_is_taken_out_has_refused_what_it_has(
    watch: Watch, waiting: deliveries.Delivery
) -> None:
    with watch.database.write() as tx:
        paged.refuse(tx, waiting, at=NOW)
    watch.watch(2 * MINUTE)
    peers = {name: peer for name, peer in watch.configuration.peers.items() if name != "pacs"}
    watch.configuration = watch.configuration.model_copy(update={"peers": peers})
    watch.step(15)
    assert "delivery-failed" in watch.kinds
    watch.watch(HOUR, every=60)
    assert watch.kinds == []


def test_an_alert_of_weeks_is_counted_a_week_back(watch: Watch) -> None:
    for day in range(10):
        with watch.database.write() as tx:
            alerted.fail(tx, f"1.2.{day}", at=watch.now + HOUR)  # by a clock that is ahead
        watch.step(2 * MINUTE)
        watch.step(2 * MINUTE)
        watch.now += DAY - 4 * MINUTE
        with watch.database.write() as tx:
            alerted.fail(tx, f"1.3.{day}", at=watch.now)
        watch.step(0)
    assert watch.told()[0] == "study-failed begun"
    (alert,) = [one for one in watch.open if one.kind is Kind.STUDY_FAILED]
    assert 12 <= alert.facts["count"] <= 15


def test_the_clock_is_set_back_and_everybody_is_told_all_the_same(watch: Watch) -> None:
    with watch.database.write() as tx:
        alerted.job(tx, "1.2.1", at=NOW)
        alerted.job(tx, "1.2.2", at=NOW - 3 * DAY)
    watch.watch(2 * MINUTE)
    assert watch.looming == ["no-worker", "queue-old"]
    watch.now -= 2 * DAY
    watch.watch(6 * MINUTE)
    assert watch.kinds == ["no-worker", "queue-old"]
    assert len(watch.letters()) == 2


def test_a_channel_is_not_silent_until_the_clock_is_where_it_was(watch: Watch) -> None:
    with watch.database.write() as tx:
        alerted.fail(tx, "1.2.1", at=NOW)
    watch.watch(2 * MINUTE)
    assert watch.claim("webhook") is not None
    first = watch.claim("email")
    assert first is not None
    with watch.database.write() as tx:
        messages.put_off(tx, first, not_before=watch.now + 60, reason="mail-failed", detail="")
    watch.now -= 2 * DAY
    assert watch.claim("email") is not None
    assert watch.claim("webhook") is not None


def test_the_beginning_and_the_end_stand_in_the_journal(watch: Watch) -> None:
    with watch.database.write() as tx:
        alerted.fail(tx, "1.2.1", at=NOW)
    watch.watch(2 * MINUTE)
    watch.now += 2 * HOUR
    watch.step(5)
    event = tables.event.c
    with watch.database.read() as tx:
        kinds = tx.scalars(
            select(event.kind).where(event.kind.in_(("alert begun", "alert over")))
        ).all()
    assert sorted(kinds) == ["alert begun", "alert over"]


# ── Several nodes on one database ───────────────────────────────────────────────────────────────


def test_of_several_nodes_one_tells(watch: Watch) -> None:
    with watch.database.write() as tx:
        alerted.fail(tx, "1.2.1", at=NOW - HOUR / 2)
    nodes = [Watcher(watch.database, started_at=NOW - DAY) for _ in range(4)]
    together = threading.Barrier(len(nodes))

    def look(node: Watcher) -> None:
        together.wait(10)
        node.step(watch.configuration, now=NOW)

    threads = [threading.Thread(target=look, args=[node]) for node in nodes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(watch.written()) == [
        ("study-failed", "begun", "email"), ("study-failed", "begun", "webhook"),
    ]  # fmt: skip


def test_what_another_node_begins_meanwhile_is_neither_ended_nor_begun_twice(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Watcher(watch.database, started_at=NOW - DAY)
    slow = watch.watcher._looker
    look = slow.look

    def overtaken(*given: Any, **more: Any) -> list[signs.Sign]:
        found = look(*given, **more)
        with watch.database.write() as tx:
            alerted.fail(tx, "1.2.1", at=NOW)
        other.step(watch.configuration, now=watch.now)
        return found

    with watch.database.write() as tx:  # something that the slow one has to write down, too
        alerted.job(tx, "1.2.9", at=NOW)
    watch.now = NOW + 2 * MINUTE
    with monkeypatch.context() as patched:
        patched.setattr(slow, "look", overtaken)
        watch.step(0)
    assert watch.kinds == ["study-failed"]
    watch.watch(MINUTE)
    assert watch.told() == ["study-failed begun"]


def test_two_nodes_that_look_by_turns_tell_once_of_silence_and_once_of_its_end(
    watch: Watch,
) -> None:
    _with(watch, silence_hours=2.0)
    with watch.database.write() as tx:
        paged.arrive(tx, "1.2.1", at=NOW)
    other = Watch(database=watch.database, configuration=watch.configuration, now=NOW)

    def both(seconds: float) -> None:
        for _ in range(int(seconds / 5)):
            watch.step(5)
            other.step(5)

    watch.step(2 * HOUR - 50)
    other.step(2 * HOUR - 20)  # half a minute later
    watch.step(30)
    both(3 * MINUTE)
    assert watch.told() == ["nothing-received begun"]
    with watch.database.write() as tx:
        paged.arrive(tx, "1.2.2", at=watch.now)
    both(3 * MINUTE)
    assert watch.told() == ["nothing-received begun", "nothing-received over"]


def test_a_message_is_claimed_once_until_its_claim_runs_out(watch: Watch) -> None:
    with watch.database.write() as tx:
        alerted.fail(tx, "1.2.1", at=NOW)
    watch.watch(2 * MINUTE)
    claims: list[messages.Message | None] = []
    together = threading.Barrier(4)

    def claim() -> None:
        together.wait(10)
        claims.append(watch.claim())

    threads = [threading.Thread(target=claim) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([one for one in claims if one is not None]) == 1
    watch.now += 121  # who had it has died
    assert watch.claim() is not None


def test_what_cannot_be_sent_waits_longer_and_longer_and_the_next_goes_at_once(
    watch: Watch,
) -> None:
    with watch.database.write() as tx:
        alerted.fail(tx, "1.2.1", at=NOW)
        alerted.job(tx, "1.2.2", at=NOW)
    watch.watch(6 * MINUTE)
    first = watch.claim()
    assert first is not None
    with watch.database.write() as tx:
        messages.put_off(
            tx, first, not_before=watch.now + 60, reason="mail-unreachable", detail="Away."
        )
    assert watch.claim() is None  # those behind it wait, too: the channel is the same
    with watch.database.read() as tx:
        (trouble,) = messages.troubles(tx)
        assert messages.waiting(tx) == {"email": 2, "webhook": 2}
    assert (trouble.channel, trouble.count, trouble.reason) == ("email", 2, "mail-unreachable")
    watch.now += 61
    assert len(watch.letters()) == 2
    with watch.database.read() as tx:
        assert messages.troubles(tx) == []


def test_what_could_not_be_sent_for_days_is_dropped(watch: Watch) -> None:
    with watch.database.write() as tx:
        alerted.fail(tx, "1.2.1", at=NOW)
    watch.watch(2 * MINUTE)
    watch.watcher.clear(now=watch.now + 2 * DAY)
    assert watch.claim("email") is not None
    watch.watcher.clear(now=watch.now + 4 * DAY)
    with watch.database.read() as tx:
        assert messages.waiting(tx) == {}


# ── What is said ────────────────────────────────────────────────────────────────────────────────


def test_no_message_names_a_patient_or_a_study(watch: Watch) -> None:
    """Whatever stands in the rows: names, identifiers, dates, the sentences of reasons."""
    with watch.database.write() as tx:
        alerted.fail(tx, "1.2.826.0.1.3680043.8.498.1", at=NOW)
        alerted.fail(tx, "1.2.826.0.1.3680043.8.498.2", at=NOW, reason="Lindqvist P-20425")
        one = alerted.predicted(
            tx, "1.2.826.0.1.3680043.8.498.3", watch.configuration.node.data_dir, at=NOW
        )
        alerted.attempt(tx, one, at=NOW, reason="A-77120")
    watch.watch(20 * MINUTE)
    said = watch.letters()
    assert len(said) >= 3
    for letter in said:
        text = letter.subject + letter.wording.text + json.dumps(letter.document)
        for word in ("Lindqvist", "Astrid", "P-20425", "A-77120", "19530412", "1953",
                     "1.2.826", "3680043", "slice.", "10.0.0.4"):  # fmt: skip
            assert word not in text, word


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("occasion", [one for one in wording.Occasion if one != "test"])
def test_every_alert_can_be_put_into_words(kind: Kind, occasion: wording.Occasion) -> None:
    facts = {"count": 2, "reasons": {"time-limit": 2}, "free_bytes": GIB, "host": "gpu1",
             "limit": 9, "seconds": 400.0, "limit_s": 600.0}  # fmt: skip
    for given in (facts, {}):
        said = wording.of_alert(
            kind, "pacs", occasion, since=NOW, at=NOW + HOUR, facts=given,
            public_url="https://node.example",
        )  # fmt: skip
        assert "\n" not in said.title
        assert said.title.endswith(".")
        assert kind.rule in said.text
        assert said.link.startswith("https://node.example/")
        assert bool(said.to_do) is (occasion != "over")
    assert about.ABOUT.keys() == set(Kind)
    assert signs.PATIENCE_S.keys() == set(Kind) - {
        Kind.STUDY_FAILED, Kind.DELIVERY_FAILED, Kind.DESTINATION_DOWN
    }  # fmt: skip


def test_a_page_lists_what_was_and_what_was_said_of_it(watch: Watch) -> None:
    with watch.database.write() as tx:
        alerted.fail(tx, "1.2.1", at=NOW)
    watch.watch(2 * MINUTE)
    watch.letters()
    with watch.database.read() as tx:
        (alert,) = standing.history(tx, limit=9)
        lines = messages.of_alerts(tx, [alert.id])[alert.id]
        assert standing.counted(tx) == {"study-failed": 1}
        assert standing.history(tx, limit=9, before=alert.id) == []
    assert [(one.channel, one.state) for one in lines] == [
        (Channel.EMAIL, "sent"), (Channel.WEBHOOK, "waiting"),
    ]  # fmt: skip
