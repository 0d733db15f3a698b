"""How the parts of a node share a machine."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from dicomnode import node


def set_back(niceness: int) -> int:
    """The niceness of a thread that steps back from one of its own; nobody else has it."""

    def step() -> int:
        here = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, here, niceness)
        node._step_back()
        return os.getpriority(os.PRIO_PROCESS, here)

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(step).result()


@pytest.mark.parametrize("niceness", [15, 19])
def test_the_index_does_not_step_forward_in_a_node_that_was_set_back(niceness: int) -> None:
    """That takes a privilege, and a node without it would end."""
    assert set_back(niceness) == niceness


def test_a_machine_that_gives_no_priorities_runs_a_node(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "setpriority", forbidden)
    node._step_back()
