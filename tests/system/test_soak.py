"""SIGKILL at random moments while senders send: `make soak` does the same for much longer."""

from __future__ import annotations

from pathlib import Path

from soak import kills

KILLS = 8


def test_nothing_that_was_acknowledged_is_lost(tmp_path: Path) -> None:
    report = kills.soak(tmp_path, kills=KILLS, seed=1)
    assert report.lost == ()
    assert report.faults == ()
    assert report.acknowledged > KILLS
    assert report.kills.total() == KILLS
    assert report.kills.keys() == {"listener", "node"}
