"""Unusual silence, learned from synthetic weeks: a clinic, a hospital, a new node, a holiday."""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from dicomnode.alerting.silence import Arrivals, is_unusual
from dicomnode.archive.asked.signs import SLOT_S

BERLIN = ZoneInfo("Europe/Berlin")
HOUR = 3600.0
DAYS = 35
# A Monday in winter; the clocks change on the 29th of March and the 25th of October of that year.
MONDAY = date(2026, 1, 5)


def at(day: date, hour: float) -> float:
    """An hour of a day on the clock on the wall."""
    midnight = datetime(day.year, day.month, day.day, tzinfo=BERLIN)
    return (midnight + timedelta(hours=hour)).timestamp()


def weekdays(start: date, days: int, *, without: tuple[date, ...] = ()) -> Iterator[date]:
    for number in range(days):
        day = start + timedelta(days=number)
        if day.weekday() < 5 and day not in without:
            yield day


def clinic(start: date, days: int, *, seed: int = 1, without: tuple[date, ...] = ()) -> list[float]:
    """Twenty to fifty studies from about eight until about six on weekdays."""
    dice = random.Random(seed)
    found: list[float] = []
    for day in weekdays(start, days, without=without):
        opens, closes = 8 + dice.uniform(-0.3, 0.4), 17.5 + dice.uniform(-0.8, 0.8)
        found += [at(day, opens), at(day, closes)]
        found += [at(day, dice.uniform(opens, closes)) for _ in range(dice.randrange(20, 50))]
    return sorted(found)


def poisson(start: date, days: int, *, per_hour: Callable[[int], float], seed: int) -> list[float]:
    """Arrivals at random, so many an hour on average, around the clock."""
    dice = random.Random(seed)
    found: list[float] = []
    for number in range(days):
        for hour in range(24):
            mean = per_hour(hour)
            now = dice.expovariate(mean) if mean else 2
            while now < 1:
                found.append(at(start + timedelta(days=number), hour + now))
                now += dice.expovariate(mean)
    return sorted(found)


def hospital(hour: int) -> float:
    return 12.0 if 7 <= hour < 19 else 1.2


def known(times: list[float], *, now: float) -> Arrivals:
    """What a node knows that has seen `times` by now."""
    seen = times[: bisect_left(times, now)]

    def visits(since: float, until: float) -> int:
        inside = seen[bisect_left(seen, since) : bisect_left(seen, until)]
        return len({int(one / SLOT_S) for one in inside})

    return Arrivals(first_at=seen[0], last_at=seen[-1], visits=visits)


def said(times: list[float], *, since: float, until: float, step: float = 600) -> list[float]:
    """The moments at which the silence is unusual."""
    moments = [since + step * number for number in range(int((until - since) / step))]
    return [
        now for now in moments if is_unusual(known(times, now=now), now=now, zone=BERLIN)
    ]  # fmt: skip


def shown(moment: float) -> str:
    return datetime.fromtimestamp(moment, BERLIN).strftime("%a %H:%M")


@pytest.mark.parametrize("seed", range(5))
def test_a_clinic_that_works_as_ever_is_never_told_of(seed: int) -> None:
    times = clinic(MONDAY, DAYS + 21, seed=seed)
    assert said(times, since=at(MONDAY, 24 * 21), until=times[-1]) == []


@pytest.mark.parametrize("seed", range(5))
def test_a_hospital_that_works_as_ever_is_never_told_of_by_day_or_night(seed: int) -> None:
    times = poisson(MONDAY, DAYS + 7, per_hour=hospital, seed=seed)
    assert said(times, since=at(MONDAY, 24 * 21), until=times[-1]) == []


def test_a_clinic_that_falls_silent_on_a_tuesday_morning_is_told_of_that_day() -> None:
    fatal = MONDAY + timedelta(days=29)
    times = [one for one in clinic(MONDAY, DAYS) if one < at(fatal, 9)]
    (first, *_) = said(times, since=at(fatal, 9), until=at(fatal, 24))
    assert "Tue 11:00" <= shown(first) <= "Tue 15:00"


def test_what_fell_silent_on_a_friday_night_is_told_of_on_monday_and_not_before() -> None:
    monday = MONDAY + timedelta(days=28)
    times = [one for one in clinic(MONDAY, DAYS) if one < at(monday, 0)]
    (first, *_) = said(times, since=times[-1], until=at(monday, 24))
    assert "Mon 09:00" <= shown(first) <= "Mon 11:30"


def test_a_busy_hospital_is_told_of_within_three_hours_by_day_and_by_morning_at_night() -> None:
    every = poisson(MONDAY, DAYS, per_hour=hospital, seed=3)
    for hour, within_h in ((10, 4), (22, 13)):
        fatal = at(MONDAY + timedelta(days=30), hour)
        times = [one for one in every if one < fatal]
        (first, *_) = said(times, since=fatal, until=fatal + 24 * HOUR)
        assert 2.5 * HOUR < first - times[-1] < within_h * HOUR


def test_a_node_says_nothing_before_it_knows_three_weeks() -> None:
    for days, is_told in ((7, False), (20, False), (27, True)):
        times = clinic(MONDAY, days)
        last = datetime.fromtimestamp(times[-1], BERLIN).date()
        week_later = last + timedelta(days=7 - last.weekday())
        found = said(times, since=at(week_later, 0), until=at(week_later, 23))
        assert bool(found) is is_told, days


@pytest.mark.parametrize("per_hour", [0.5 / 168, 2 / 168, 1 / 24, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_where_studies_come_at_random_hardly_anything_is_said(per_hour: float, seed: int) -> None:
    times = poisson(MONDAY, 120, per_hour=lambda _: per_hour, seed=seed)
    found = said(times, since=times[0] + 28 * 24 * HOUR, until=times[-1], step=1800)
    begun = [one for before, one in zip([0.0, *found], found, strict=False) if one - before > 1800]
    assert len(begun) <= 1


def test_a_holiday_is_told_of_and_does_not_hide_the_same_day_of_the_weeks_after() -> None:
    holiday = MONDAY + timedelta(days=28)
    times = clinic(MONDAY, 60, without=(holiday,))
    (first, *more) = said(times, since=at(holiday, 0), until=at(holiday, 24))
    assert "Mon 09:00" <= shown(first) <= "Mon 11:30"
    assert more
    # It is over with the first arrival.
    tuesday = holiday + timedelta(days=1)
    assert said(times, since=at(tuesday, 8.5), until=at(tuesday, 24)) == []
    # A week later the node falls silent in earnest: one odd week of four hides nothing.
    monday = holiday + timedelta(days=7)
    times = [one for one in times if one < at(monday, 0)]
    (first, *_) = said(times, since=at(monday, 0), until=at(monday, 24))
    assert "Mon 09:00" <= shown(first) <= "Mon 12:00"


def test_every_other_saturday_is_nothing_that_is_waited_for() -> None:
    times = clinic(MONDAY, 70)
    for week in range(0, 10, 2):
        saturday = MONDAY + timedelta(days=7 * week + 5)
        times += [at(saturday, 9 + number / 4) for number in range(14)]
    times.sort()
    assert said(times, since=at(MONDAY, 24 * 28), until=times[-1], step=1800) == []


@pytest.mark.parametrize("change", [date(2026, 3, 29), date(2026, 10, 25)])
def test_the_change_of_the_clocks_raises_nothing_and_hides_nothing(change: date) -> None:
    start = change - timedelta(days=28 + 6)  # a Monday
    times = clinic(start, 60)
    monday = change + timedelta(days=1)
    assert said(times, since=at(change, -30), until=at(monday, 24)) == []
    silent = [one for one in times if one < at(monday, 0)]
    (first, *_) = said(silent, since=at(monday, 0), until=at(monday, 24))
    assert "Mon 09:00" <= shown(first) <= "Mon 11:30"


def test_weeks_of_silence_are_compared_with_what_was_before() -> None:
    times = [one for one in clinic(MONDAY, 35) if one < at(MONDAY, 24 * 33)]
    for days in (8, 20, 60, 400):
        now = times[-1] + days * 24 * HOUR
        assert is_unusual(known(times, now=now), now=now, zone=BERLIN)


def test_after_a_closure_of_two_weeks_it_learns_anew() -> None:
    closed = tuple(MONDAY + timedelta(days=number) for number in range(28, 42))
    times = clinic(MONDAY, 84, without=closed)
    after = MONDAY + timedelta(days=42)
    silent = [one for one in times if one < at(after, 12)]
    tuesday = after + timedelta(days=1)
    # Two of the four weeks before knew no such day.
    assert said(silent, since=at(tuesday, 0), until=at(tuesday, 24)) == []


def test_without_a_zone_the_clock_of_the_machine_counts() -> None:
    times = [one for one in clinic(MONDAY, DAYS) if one < at(MONDAY, 24 * 29 + 9)]
    now = times[-1] + 6 * HOUR
    assert is_unusual(known(times, now=now), now=now)
    assert not is_unusual(known(times, now=now), now=times[-1] + HOUR)
