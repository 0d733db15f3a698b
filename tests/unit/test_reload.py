"""What becomes of a changed file: shown, taken up whole, or left alone; and who hears of it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from certificates import Authority

from dicomnode import config, settings
from dicomnode.archive.access import audit
from dicomnode.archive.access.audit import Line
from dicomnode.archive.asked import figures
from dicomnode.archive.database import Database
from dicomnode.archive.work import in_force, leases
from dicomnode.archive.work.leases import Task
from dicomnode.config import When
from dicomnode.errors import Misconfigured, RetryLater
from dicomnode.hangup import Hangups
from dicomnode.node import Node as RealNode
from dicomnode.node import Prepared
from dicomnode.reload import By, Reload
from workers.context import Behind, Context, Worker, require_up_to_date
from workers.dispatch import Dispatcher, Duty
from workers.watch import Own, Watch

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "models" / "hippocampus_mr_segmentation"
TEXT = f"""
[listen]
host = "127.0.0.1"
port = 0

[peers.pacs]
ae_title = "PACS"
host = "127.0.0.1"
port = 4242

[models.hippocampus]
bundle = "{MODEL}"

[[routes]]
name = "rule"
model = "hippocampus"
series = {{ Modality = "MR" }}
send_to = ["pacs"]
"""
NEW_PEER = '[peers.ct1]\nae_title = "CT1"\nhost = "127.0.0.1"\n'
ME = By(person="ada", address="10.0.0.9")
OWNER = "worker"
WITHIN_S = 30.0


class Node:
    """A node that takes up what it is given, and remembers it."""

    def __init__(self, file: Path, database: Database) -> None:
        self.configuration = config.load(file, {})
        self.database = database
        self.bundles = settings.digests(settings.bundles(self.configuration))
        self.taken: list[Prepared] = []
        self.fault: Misconfigured | None = None

    def prepare(self, proposed: config.Configuration) -> Prepared:
        if self.fault is not None:
            raise self.fault
        configuration = config.in_force(self.configuration, proposed)
        loaded = settings.bundles(configuration)
        return Prepared(configuration=configuration, rules=(), bundles=settings.digests(loaded))

    def take_up(self, prepared: Prepared) -> bool:
        self.taken.append(prepared)
        self.configuration, self.bundles = prepared.configuration, prepared.bundles
        return True


class World:
    """A file, a node, and somebody who changes the one."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "node.toml"
        self.file.write_text(TEXT)
        self.database = Database(f"sqlite:///{folder / 'data' / 'node.db'}")
        self.database.migrate()
        self.node = Node(self.file, self.database)
        self.reload = Reload(self.file, self.node, environ={}, clock=lambda: 1000.0)
        self.record()

    def record(self) -> None:
        """As a node does at its start."""
        with self.database.write() as tx:
            in_force.record(tx, digest=config.digest(self.node.configuration), at=1.0)

    def write(self, text: str) -> None:
        self.file.write_text(text)

    @property
    def current(self) -> in_force.InForce:
        with self.database.read() as tx:
            found = in_force.current(tx)
        assert found is not None
        return found

    @property
    def trail(self) -> list[Line]:
        with self.database.read() as tx:
            return audit.newest(tx, limit=10)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.database.close()


def test_a_change_is_shown_and_nothing_happens(world: World) -> None:
    world.write(TEXT + NEW_PEER)
    proposal = world.reload.propose()
    assert [one.path for one in proposal.changes] == ["peers.ct1"]
    assert proposal.may_be_applied
    assert world.node.taken == []
    assert world.current.serial == 1
    assert world.trail == []


def test_a_change_is_applied_written_down_and_told_to_the_workers(world: World) -> None:
    world.write(TEXT + NEW_PEER)
    done = world.reload.apply(by=ME, only=world.reload.propose().fingerprint)
    assert (done.applied, done.said) == (True, "Applied.")
    assert "ct1" in world.node.configuration.peers
    assert (world.current.serial, world.current.at) == (2, 1000.0)
    assert world.current.digest == config.digest(world.node.configuration)
    (line,) = world.trail
    assert (line.person, line.address, line.action) == ("ada", "10.0.0.9", "reload")
    assert line.detail == "peers.ct1: nothing → ae_title = CT1; host = 127.0.0.1"
    assert not world.reload.apply(by=ME).applied  # there is nothing left to do


@pytest.mark.parametrize(
    "text",
    [
        TEXT.replace("port = 4242", 'port = "4242"'),
        TEXT.replace('model = "hippocampus"', 'model = "spleen"'),
        TEXT.replace(str(MODEL), "nowhere"),
        "no TOML",
        "",
    ],
    ids=["shape", "sense", "place", "syntax", "empty"],
)
def test_what_has_an_error_changes_nothing(world: World, text: str) -> None:
    before = world.node.configuration
    world.write(text.replace("send_to", "send_to") or "[[routes]]")
    done = world.reload.apply(by=ME)
    assert not done.applied
    assert any(one.level == "error" for one in done.proposal.problems)
    assert world.node.configuration == before
    assert world.current.serial == 1
    assert [line.outcome for line in world.trail] == ["refused"]


def test_what_was_shown_is_applied_or_nothing_is(world: World) -> None:
    world.write(TEXT + NEW_PEER)
    shown = world.reload.propose()
    world.write(TEXT + NEW_PEER.replace("CT1", "CT2"))
    done = world.reload.apply(by=ME, only=shown.fingerprint)
    assert not done.applied
    assert "changed since it was shown" in done.said
    assert world.node.taken == []
    assert world.reload.apply(by=ME, only=done.proposal.fingerprint).applied


def test_what_waits_for_a_restart_is_kept_in_mind(world: World) -> None:
    world.write(TEXT.replace("port = 0", "port = 104") + NEW_PEER)
    done = world.reload.apply(by=ME)
    assert done.said == "Applied; waiting for a restart: listen.port."
    assert [one.path for one in world.reload.waiting] == ["listen.port"]
    assert world.node.configuration.listen.port == 0
    assert "ct1" in world.node.configuration.peers
    world.write(TEXT + NEW_PEER)
    assert world.reload.propose().changes == ()
    assert not world.reload.apply(by=ME).applied
    assert world.reload.waiting == ()  # it is shown as long as it is asked for


def test_a_database_that_is_away_lets_nothing_change(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.write(TEXT + NEW_PEER)

    def away(*_: object, **__: object) -> None:
        raise RetryLater("database-unavailable", "It is away.")

    monkeypatch.setattr(in_force, "record", away)
    with pytest.raises(RetryLater):
        world.reload.apply(by=ME)
    assert world.node.taken == []
    assert world.trail == []
    world.reload.by_signal()  # which says so, and goes on
    assert world.node.taken == []


def test_a_place_that_changes_after_the_check_lets_nothing_change(world: World) -> None:
    world.write(TEXT + NEW_PEER)
    world.node.fault = Misconfigured("lock-missing", "It has gone.")
    done = world.reload.apply(by=ME)
    assert (done.applied, done.said) == (False, "lock-missing: It has gone.")
    assert world.current.serial == 1
    assert [line.outcome for line in world.trail] == ["refused"]


def test_what_waits_for_a_restart_must_go_with_what_does_not(
    tmp_path: Path, authority: Authority
) -> None:
    ours = authority.issue("node")
    file = tmp_path / "node.toml"
    port = f'[tls]\nport = 0\nclient_certificates = "none"\nca = "{authority.certificate}"\n'
    own = f'certificate = "{ours.certificate}"\nkey = "{ours.key}"\n'
    audit = '[audit]\nhost = "127.0.0.1"\ntransport = "tls"\n'
    file.write_text(port + own + audit + TEXT)
    node = RealNode(config.load(file, {}))
    file.write_text(TEXT)  # the port waits, and its listener would have no certificate any more
    with pytest.raises(Misconfigured) as refused:
        node.prepare(config.load(file, {}))
    assert refused.value.reason == "no-certificate"
    file.write_text(port + own + audit + TEXT + NEW_PEER)
    prepared = node.prepare(config.load(file, {}))
    node.stop()
    assert prepared.collector is not None
    assert prepared.collector.security is not None


def test_a_bundle_that_was_locked_anew_is_a_change(world: World) -> None:
    world.node.bundles = {"hippocampus": "0" * 64}
    (change,) = world.reload.propose().changes
    assert (change.path, change.when) == ("models.hippocampus (its bundle)", When.NOW)
    assert world.reload.apply(by=ME).applied
    assert world.reload.propose().changes == ()


def test_a_bundle_that_is_locked_anew_after_it_was_shown_is_shown_anew(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.write(TEXT + NEW_PEER)
    shown = world.reload.propose()
    monkeypatch.setattr(settings, "digests", lambda _: {"hippocampus": "0" * 64})
    assert not world.reload.apply(by=ME, only=shown.fingerprint).applied
    assert world.node.taken == []


def test_jobs_that_wait_for_a_bundle_that_was_locked_anew_are_told_of(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.node.bundles = {"hippocampus": "0" * 64}
    assert world.reload.propose().problems == ()
    monkeypatch.setattr(figures, "waiting_by_model", lambda _: {"hippocampus": 3})
    (problem,) = world.reload.propose().problems
    assert (problem.code, problem.path) == ("model-in-use", "models.hippocampus")
    assert "would fail: 3. Wait until they are done." in problem.message


def test_a_patient_that_a_rule_names_is_not_written_down(world: World) -> None:
    world.write(TEXT.replace('Modality = "MR"', 'PatientName = "Doe^Jane"'))
    assert "Doe" in str(world.reload.propose().changes)
    assert world.reload.apply(by=ME).applied
    assert [line.detail for line in world.trail] == ["routes.rule.series"]


def watch_of(world: World) -> tuple[Watch, Context]:
    """A worker that was started with what the file says now."""
    configuration = config.load(world.file, {})
    loaded = settings.bundles(configuration)
    own = Own(file=world.file, configuration=configuration, bundles=settings.bundles)
    context = Worker(configuration=configuration, bundles=loaded, owner=OWNER, device="cpu").open()
    with world.database.write() as tx:
        leases.report_worker(
            tx, owner=OWNER, device="cpu", requested="cpu", slots=1, at=context.now()
        )
    return Watch(own, loaded=loaded), context


def looked(watch: Watch, context: Context) -> bool:
    watch.look_now()
    return watch.look(context)


def behind(context: Context) -> bool:
    try:
        require_up_to_date(context)
    except Behind:
        return True
    return False


@pytest.fixture
def worker(world: World) -> Iterator[tuple[Watch, Context]]:
    watch, context = watch_of(world)
    yield watch, context
    context.database.close()


def test_a_worker_with_the_same_file_is_up_to_date(
    worker: tuple[Watch, Context], world: World
) -> None:
    assert behind(worker[1])  # it has not looked yet
    assert not looked(*worker)
    assert not behind(worker[1])
    world.record()  # the node was started again
    assert behind(worker[1])
    assert not looked(*worker)
    assert not behind(worker[1])


def test_a_worker_begins_anew_once_the_node_goes_by_what_its_file_says(
    worker: tuple[Watch, Context], world: World
) -> None:
    assert not looked(*worker)
    world.write(TEXT + NEW_PEER)
    assert not looked(*worker)  # nobody has applied it
    assert not behind(worker[1])
    world.reload.apply(by=ME)
    assert behind(worker[1])
    assert looked(*worker)


def test_a_rule_is_taken_up_without_beginning_anew(
    worker: tuple[Watch, Context], world: World
) -> None:
    assert not looked(*worker)
    world.write(TEXT.replace('"MR"', '"CT"'))
    world.reload.apply(by=ME)
    assert not looked(*worker)
    assert not behind(worker[1])


def test_a_worker_whose_file_is_another_says_so_until_it_is_the_same(
    worker: tuple[Watch, Context], world: World
) -> None:
    watch, context = worker
    assert not looked(watch, context)
    world.write(TEXT + NEW_PEER)
    world.reload.apply(by=ME)
    world.write(TEXT)  # as if this were another machine, with a file of its own
    assert not looked(watch, context)
    assert behind(context)
    with pytest.raises(Behind) as stays:
        require_up_to_date(context)
    world.write("no TOML")
    assert not looked(watch, context)
    assert behind(context)
    world.record()
    with pytest.raises(Behind) as has_yet_to_look:
        require_up_to_date(context)
    # Each repetition is a line in the journal: one that waits for somebody waits longer.
    assert stays.value.retry_s > has_yet_to_look.value.retry_s
    world.write(TEXT + NEW_PEER)
    assert looked(watch, context)


def test_a_worker_does_not_leave_its_database_by_itself(
    worker: tuple[Watch, Context], world: World
) -> None:
    watch, context = worker
    assert not looked(watch, context)
    world.write('[database]\nurl = "sqlite:///other.db"\n' + TEXT + NEW_PEER)
    world.reload.apply(by=ME)
    assert [one.path for one in world.reload.waiting] == ["database.url"]
    assert not looked(watch, context)
    assert behind(context)


def test_a_worker_that_could_not_write_down_what_it_runs_with_does_so_later(
    worker: tuple[Watch, Context], monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object, **__: object) -> None:
        raise RetryLater("database-unavailable", "It is away.")

    with monkeypatch.context() as without:
        without.setattr(in_force, "report", away)
        with pytest.raises(RetryLater):
            looked(*worker)
    assert behind(worker[1])
    assert not looked(*worker)
    assert not behind(worker[1])


def test_a_worker_that_is_told_to_end_while_it_begins_anew_ends(
    worker: tuple[Watch, Context], world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch, context = worker
    assert not looked(watch, context)
    world.write(TEXT + NEW_PEER)
    world.reload.apply(by=ME)
    watch.look_now()
    duty = Duty(task=Task.PREDICT, slots=1)
    dispatcher = Dispatcher(lambda: context, duty, lambda _: None, list, watch=watch)
    asked = threading.Event()

    def kill(_pid: int, _number: int) -> None:
        dispatcher.asked_to_end()  # as the signal does
        asked.set()

    monkeypatch.setattr(os, "kill", kill)
    before = signal.getsignal(signal.SIGHUP)
    try:
        dispatcher.start(Hangups())
        assert asked.wait(WITHIN_S)
        assert dispatcher.begins_anew
        dispatcher.asked_to_end()
        assert not dispatcher.begins_anew
    finally:
        dispatcher.close()
        signal.signal(signal.SIGHUP, before)
