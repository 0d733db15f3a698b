"""Listener processes that do what no listener should: the node keeps what they had handed over."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dicomnode import config, log
from dicomnode.archive import arrival
from dicomnode.archive.arrival import Arrival, End, Ended, Opened, Stored, TurnedAway
from dicomnode.config import Configuration
from dicomnode.errors import Failed, Misconfigured
from dicomnode.network.serving import keeper, listener_process, listeners
from dicomnode.network.serving.keeper import Child
from dicomnode.network.serving.listener_process import READY, ListenerSettings
from dicomnode.network.serving.listeners import Listeners

WITHIN_S = 30
NOW = 1000.0

# A process in the place of a listener: it says what it is told to, once, and then does something.
_ACTOR = """
import json, os, signal, sys, time
from pathlib import Path

facts = json.loads(sys.stdin.readline())["facts"]
lines, once, then = {lines!r}, Path({once!r}), {then!r}
if once.exists():
    lines, then = {ready!r}, "wait"
once.touch()
os.write(facts, lines)
if then == "wait":
    sys.stdin.read()
elif then == "die":
    os.kill(os.getpid(), signal.SIGKILL)
"""


def opened(association: str) -> Opened:
    return Opened(
        association=association, peer="ct1", calling_ae_title="CT1", address="10.0.0.5", at=1.0
    )


def stored(association: str, number: int) -> Stored:
    return Stored(association=association, path=f"instances/ab/1.{number}.dcm", at=2.0)


def turned_away(association: str) -> TurnedAway:
    return TurnedAway(
        association=association,
        peer="ct1",
        reason="no-study",
        detail="It belongs to no study.",
        status=0xA900,
        sop_instance_uid="1.2",
        study_instance_uid="",
        at=3.0,
    )


def ended(association: str, *, end: End, stored: int, refused: int, at: float = NOW) -> Ended:
    return Ended(association=association, end=end, stored=stored, refused=refused, at=at)


def lines(*facts: Arrival) -> bytes:
    return READY + b"".join(map(arrival.encode, facts))


@pytest.fixture
def configuration(tmp_path: Path) -> Configuration:
    """A node of one listener."""
    file = tmp_path / "node.toml"
    file.write_text(
        """
        [listen]
        host = "127.0.0.1"
        port = 0

        [tls]
        port = 0
        certificate = "node.crt"
        key = "node.key"
        ca = "ca.crt"

        [database]
        url = "postgresql+psycopg://node:secret@localhost/node"

        [peers.ct1]
        ae_title = ["CT1", "CT1_B"]
        host = ["10.0.0.5", "10.0.0.6"]
        max_associations = 3
        commitment = { port = 105 }
        """
    )
    return config.load(file, {})


class Told:
    """What the listeners reported."""

    def __init__(self) -> None:
        self.facts: list[Arrival] = []
        self._changed = threading.Condition()

    def report(self, fact: Arrival) -> None:
        with self._changed:
            self.facts.append(fact)
            self._changed.notify_all()

    def first(self, count: int) -> list[Arrival]:
        """The first facts, once there are so many."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.facts) >= count, WITHIN_S)
            return self.facts[:count]


@pytest.fixture
def told() -> Told:
    """Hears the facts."""
    return Told()


Act = Callable[..., Listeners]


@pytest.fixture
def act(
    tmp_path: Path, configuration: Configuration, told: Told, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Act]:
    """Makes the node start an actor in the place of each listener."""
    made: list[Listeners] = []

    def _act(said: bytes, *, then: str) -> Listeners:
        script = _ACTOR.format(lines=said, then=then, once=str(tmp_path / "once"), ready=READY)
        monkeypatch.setattr(listeners, "_COMMAND", (sys.executable, "-c", script))
        made.append(Listeners(configuration, report=told.report, clock=lambda: NOW))
        return made[-1]

    yield _act
    for one in made:
        one.stop()


def test_what_a_listener_died_over_is_ended_with_what_it_had_brought(act: Act, told: Told) -> None:
    said = [
        opened("one"),
        opened("two"),
        stored("one", 1),
        stored("two", 2),
        ended("one", end=End.RELEASED, stored=1, refused=0, at=4.0),
        turned_away("two"),
        stored("two", 3),
        turned_away(""),
    ]
    act(lines(*said), then="die").start()
    unknown = ended("two", end=End.UNKNOWN, stored=2, refused=1)
    assert told.first(len(said) + 1) == [*said, unknown]


def test_a_fact_that_was_not_handed_over_whole_is_none(act: Act, told: Told) -> None:
    said = [opened("one"), stored("one", 1)]
    torn = arrival.encode(stored("one", 2))[:-1]
    act(lines(*said) + torn, then="die").start()
    assert told.first(3) == [*said, ended("one", end=End.UNKNOWN, stored=1, refused=0)]


def test_a_listener_that_ends_by_itself_is_a_dead_one(act: Act, told: Told) -> None:
    act(lines(opened("one")), then="end").start()
    assert told.first(2)[-1] == ended("one", end=End.UNKNOWN, stored=0, refused=0)


def test_a_listener_that_talks_nonsense_ends_and_what_it_said_besides_counts(
    act: Act, told: Told
) -> None:
    act(lines(opened("one")) + b"[1]\n" + lines(opened("two")), then="wait").start()
    unknown = {"end": End.UNKNOWN, "stored": 0, "refused": 0}
    assert told.first(4) == [
        opened("one"),
        opened("two"),
        ended("one", **unknown),
        ended("two", **unknown),
    ]


def test_a_listener_that_is_misconfigured_is_not_tried_again(act: Act) -> None:
    fault = Misconfigured("key-unusable", "node.key is no key.")
    with pytest.raises(Misconfigured, match=r"key-unusable: node\.key is no key\."):
        act(listener_process.refusal(fault), then="end").start()


def test_a_listener_that_dies_before_it_listens_is_not_tried_again(act: Act) -> None:
    with pytest.raises(Failed) as failure:
        act(b"", then="die").start()
    assert failure.value.reason == "listener-did-not-start"


def test_stopping_reports_what_is_left_to_say(act: Act, told: Told) -> None:
    made = act(lines(opened("one")), then="wait")
    made.start()
    made.stop()
    assert told.facts[-1] == ended("one", end=End.UNKNOWN, stored=0, refused=0)


def settings_of(configuration: Configuration) -> ListenerSettings:
    return ListenerSettings(
        node=configuration.node,
        listen=configuration.listen,
        tls=configuration.tls,
        disk=configuration.disk,
        peers=configuration.peers,
        database_url=configuration.database.url,
        log_style=log.Style(level="debug", as_json=True, strict=False),
        number=1,
        node_pid=2,
        plain=3,
        secure=None,
        facts=4,
        places=5,
        width=6,
        column={"": 0, "ct1": 1},
        serial=7,
    )


def test_what_a_listener_is_told_arrives(configuration: Configuration) -> None:
    settings = settings_of(configuration)
    line = settings.to_json()
    assert ListenerSettings.from_json(line) == settings
    assert line.count(b"\n") == 1
    assert "secret" in line.decode()
    assert "secret" not in repr(settings)


def test_a_listener_that_stands_still_is_not_waited_for(
    configuration: Configuration,
) -> None:
    """Who tells it holds what the end of the node needs."""
    facts, writing = os.pipe()
    with subprocess.Popen(["sleep", "3600"], bufsize=0, stdin=subprocess.PIPE) as process:
        os.close(writing)
        settings = settings_of(configuration)
        child = Child(process, facts=io.FileIO(facts), settings=settings)
        enough = keeper._PIPE_BYTES // len(settings.to_json()) + 1

        def tell() -> None:
            for _ in range(enough):
                child.tell(settings, within_s=0.1)

        telling = threading.Thread(target=tell, daemon=True)
        telling.start()
        telling.join(WITHIN_S)
        was_told = not telling.is_alive()
        process.kill()
        assert was_told
        assert child.bury() == -signal.SIGKILL
        child.tell(settings, within_s=0.1)  # to nobody


def test_a_long_line_arrives_whole_at_a_listener_that_takes_its_time(
    configuration: Configuration,
) -> None:
    peers = {f"peer{number}": configuration.peers["ct1"] for number in range(10_000)}
    settings = settings_of(configuration).model_copy(update={"peers": peers})
    line = settings.to_json()
    assert len(line) > keeper._PIPE_BYTES
    facts, writing = os.pipe()
    command = f"import sys; print(len(sys.stdin.buffer.readline()) == {len(line)})"
    with subprocess.Popen(
        [sys.executable, "-c", command], bufsize=0, stdin=subprocess.PIPE, stdout=writing
    ) as process:
        os.close(writing)
        child = Child(process, facts=io.FileIO(facts), settings=settings)
        assert next(child.lines()) == b"True"
        assert child.bury() == 0
