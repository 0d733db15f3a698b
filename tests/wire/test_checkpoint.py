"""The mend of pynetdicom's associations: a thread that goes on does not look like one that stands.

What it prevents is a matter of microseconds, so the moment itself is made here.
"""

from __future__ import annotations

import threading
import time

from pynetdicom import AE
from pynetdicom.association import Association

from dicomnode.network.checkpoint import Checkpoint

WITHIN_S = 30


def test_a_thread_that_may_go_on_does_not_look_as_if_it_stood() -> None:
    assoc = Association(AE(), "requestor")
    checkpoint = Checkpoint(assoc)
    assoc._is_paused = True  # what its thread says before it waits
    assert checkpoint.wait(WITHIN_S)
    # Before the thread has come one step further, somebody stops it: he has to see that it runs.
    checkpoint.clear()
    assert not assoc._is_paused


def test_a_thread_that_is_being_woken_does_not_look_as_if_it_stood_and_is_woken() -> None:
    assoc = Association(AE(), "requestor")
    checkpoint = Checkpoint(assoc)
    checkpoint.clear()
    assoc._is_paused = True
    gone_on = threading.Event()

    def go() -> None:
        checkpoint.wait()
        gone_on.set()

    thread = threading.Thread(target=go, daemon=True)
    thread.start()
    until = time.monotonic() + WITHIN_S
    while not checkpoint._changed._waiters and time.monotonic() < until:  # type: ignore[attr-defined] - it stands
        time.sleep(0.001)
    assert assoc._is_paused
    with checkpoint._changed:  # the thread cannot run yet
        checkpoint.set()
        checkpoint.clear()
        assert not assoc._is_paused
    assert gone_on.wait(WITHIN_S)
    thread.join()
