from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import structlog

from dicomnode import status
from dicomnode.archive.disk import space
from dicomnode.archive.disk.space import Space
from dicomnode.errors import Refused, RetryLater

MIN_FREE, FLOOR = 2000, 500


class Disk:
    """A disk as full as a test wants it, and the time."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.free = 10_000
        self.fault: OSError | None = None
        self.now = 0.0
        self.receiving: set[str] = set()
        self.asked: list[str] = []

    def statvfs(self, path: Path) -> object:
        assert path == self.data_dir
        if self.fault is not None:
            raise self.fault
        # What root may still take is not counted: f_bfree.
        return SimpleNamespace(f_bavail=self.free // 10, f_frsize=10, f_bfree=10**9)

    def is_open(self, study_instance_uid: str) -> bool:
        self.asked.append(study_instance_uid)
        return study_instance_uid in self.receiving

    def gate(self, is_open: Callable[[str], bool] | None = None) -> Space:
        return Space(
            self.data_dir,
            min_free_bytes=MIN_FREE,
            floor_bytes=FLOOR,
            is_open=is_open or self.is_open,
            clock=lambda: self.now,
        )


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    made = Disk(tmp_path)
    monkeypatch.setattr(os, "statvfs", made.statvfs)
    return made


def refused(gate: Space, study: str) -> str:
    with pytest.raises(Refused) as caught:
        gate.admit(study)
    assert caught.value.status == status.OUT_OF_RESOURCES
    return caught.value.reason


def test_where_there_is_room_everything_is_admitted_and_nobody_is_asked(disk: Disk) -> None:
    gate = disk.gate()
    disk.free = MIN_FREE
    gate.admit("1.1")
    gate.admit("1.2")
    assert disk.asked == []


def test_below_the_minimum_a_new_study_is_refused_and_one_that_began_goes_on(disk: Disk) -> None:
    gate = disk.gate()
    gate.admit("1.1")
    disk.free = MIN_FREE - 10
    gate.admit("1.1")
    assert refused(gate, "1.2") == "disk-nearly-full"
    disk.receiving.add("1.2")  # another listener stores it
    gate.admit("1.2")


def test_below_the_floor_everything_is_refused(disk: Disk) -> None:
    gate = disk.gate()
    gate.admit("1.1")
    disk.receiving.add("1.1")
    disk.free = FLOOR
    gate.admit("1.1")
    disk.free = FLOOR - 10
    assert refused(gate, "1.1") == "disk-full"


def test_when_room_was_made_everything_is_admitted_again(disk: Disk) -> None:
    gate = disk.gate()
    disk.free = 0
    assert refused(gate, "1.1") == "disk-full"
    disk.free = MIN_FREE
    gate.admit("1.1")


def test_what_was_refused_does_not_count_as_begun(disk: Disk) -> None:
    gate = disk.gate()
    disk.free = FLOOR
    assert refused(gate, "1.1") == "disk-nearly-full"
    assert refused(gate, "1.1") == "disk-nearly-full"


def test_after_a_while_only_the_index_says_which_study_is_open(disk: Disk) -> None:
    gate = disk.gate()
    gate.admit("1.1")
    disk.free = FLOOR
    disk.now += space._LATELY_S
    gate.admit("1.1")
    disk.now += space._LATELY_S
    gate.admit("1.1")
    assert disk.asked == []
    disk.now += space._LATELY_S + 1
    assert refused(gate, "1.1") == "disk-nearly-full"
    assert disk.asked == ["1.1"]


def test_what_is_remembered_is_bounded_and_the_oldest_goes_first(disk: Disk) -> None:
    gate = disk.gate()
    for number in range(space._REMEMBERED + 1):
        gate.admit(f"1.{number}")
        gate.admit("2.1")
    assert len(gate._admitted) == space._REMEMBERED
    disk.free = FLOOR
    gate.admit("2.1")
    assert refused(gate, "1.1") == "disk-nearly-full"


def test_a_database_that_is_away_lets_no_new_study_in_and_keeps_none_that_began_out(
    disk: Disk,
) -> None:
    def away(_: str) -> bool:
        raise RetryLater("database-unavailable", "It did not answer.")

    gate = disk.gate(away)
    gate.admit("1.1")
    disk.free = FLOOR
    gate.admit("1.1")
    assert refused(gate, "1.2") == "disk-nearly-full"


def test_a_file_system_that_does_not_answer_takes_nothing(disk: Disk) -> None:
    gate = disk.gate()
    disk.fault = OSError(5, "Input/output error")
    assert refused(gate, "1.1") == "cannot-write"
    disk.fault = None
    gate.admit("1.1")


def test_each_change_is_said_once_with_the_free_bytes(disk: Disk) -> None:
    gate = disk.gate()
    with structlog.testing.capture_logs() as lines:
        for free in (3000, 2500, 1990, 1980, 490, 480, 1000, 5000, 5000):
            disk.free = free
            with contextlib.suppress(Refused):
                gate.admit("1.1")
    assert [(line["log_level"], line["state"], line["free_bytes"]) for line in lines] == [
        ("warning", "nearly full", 1990),
        ("warning", "full", 490),
        ("warning", "nearly full", 1000),
        ("info", "enough", 5000),
    ]


def test_any_thread_may_ask(disk: Disk) -> None:
    gate = disk.gate()

    def ask(first: int) -> None:
        for number in range(2000):
            gate.admit(f"{first}.{number}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(1, 9)))
    assert len(gate._admitted) == space._REMEMBERED
