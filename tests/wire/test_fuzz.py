"""Spoilt conversations: nothing crashes, hangs, leaks or is kept that is not whole.

`make fuzz` puts many more of them, to a receiver in a process of its own.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from wire import fuzzing, raw
from wire.receiving import Receiver, Start
from wire.trial import Counts, Trial, counted

# In pynetdicom's own reactor a thread dies of a malformed command set or PDU, and its association
# with it: only what comes as a data set is for it. It is slow, too.
LEVELS = {"streaming": fuzzing.LEVELS, "stock": ("data",)}
CASES = {"streaming": 600, "stock": 100}


@dataclass(frozen=True, kw_only=True)
class Here:
    """A receiver in this process."""

    receiver: Receiver

    @property
    def port(self) -> int:
        return self.receiver.port

    @property
    def pid(self) -> int:
        return os.getpid()

    @property
    def data_dir(self) -> Path:
        return self.receiver.data_dir

    def counts(self) -> Counts:
        return counted(self.receiver)


def test_spoilt_conversations_leave_nothing_behind(start: Start, reactor: str) -> None:
    with capture_logs() as logged:
        trial = Trial(Here(receiver=start()))
        trial.run(fuzzing.cases(CASES[reactor], levels=LEVELS[reactor]))
    assert trial.faults == []
    assert trial.acknowledged > 0
    # What a peer does wrong is no error of the node.
    assert [entry for entry in logged if entry["log_level"] == "error"] == []


@pytest.mark.parametrize("number", range(20))
def test_the_same_number_gives_the_same_case(number: int) -> None:
    assert fuzzing.case(number, seed=1) == fuzzing.case(number, seed=1)
    assert fuzzing.case(number, seed=1) != fuzzing.case(number, seed=2)


def test_the_cases_hold_faults_on_every_level_and_none() -> None:
    made = list(fuzzing.cases(500))
    assert any(case.is_valid for case in made)
    assert any(case.is_reset for case in made)
    assert any(not case.is_admissible for case in made)
    valid = next(case for case in made if case.is_valid and case.sop_instance_uids)
    assert len(valid.datasets()) == len(valid.sop_instance_uids)
    assert valid.steps[-1] == raw.RELEASE
