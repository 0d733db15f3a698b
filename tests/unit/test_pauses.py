"""Pauses: twice as long each time, up to the longest; and short again after a long life."""

from __future__ import annotations

import pytest

from dicomnode.pauses import Pauses, Restarts


@pytest.mark.parametrize(
    ("attempts", "pause_s"), [(1, 5.0), (2, 10.0), (3, 20.0), (4, 40.0), (5, 60.0), (6, 60.0)]
)
def test_each_pause_is_twice_the_last_up_to_the_longest(attempts: int, pause_s: float) -> None:
    assert Pauses(first_s=5.0, longest_s=60.0).after(attempts) == pause_s


def test_a_destination_that_is_away_for_years_is_still_tried() -> None:
    assert Pauses(first_s=5.0, longest_s=60.0).after(1_000_000) == 60.0


def test_who_dies_at_once_again_and_again_is_started_more_and_more_seldom() -> None:
    restarts = Restarts()
    assert [restarts.after(1.0) for _ in range(6)] == [0.2, 1.0, 5.0, 15.0, 30.0, 30.0]


def test_who_has_lived_long_is_started_again_at_once() -> None:
    restarts = Restarts()
    for _ in range(6):
        restarts.after(1.0)
    assert [restarts.after(61.0), restarts.after(1.0)] == [0.2, 1.0]
