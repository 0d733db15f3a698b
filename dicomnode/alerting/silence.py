"""Whether it is unusual that nothing arrives: learned from the node's own arrivals.

The rule. Let nothing have come since the last arrival, and call the time from an hour after it
until an hour before now the *pause*. The pause is laid over each of the four weeks before it, at
the same time of the week on the clock on the wall, summer time or not. It is unusual when in at
least three of these weeks something came during it in six or more spans of ten minutes each.

What follows from it:

- Where the scanners rest, at night, on weekends, nothing came in the weeks before either, and
  nothing is said. The hours at both ends let a day end early or begin late.
- How long it takes depends on how much usually comes: three hours on a busy day, half a night
  where one study an hour comes, days where one a day does. Where fewer than six come in a week
  nothing is ever said: give `alerts.silence_hours` there.
- Where studies come at random, six in each of three weeks and none in this one are a matter of
  chance about once a year at most; with three instead of six it would be every month.
- Nothing is said before three weeks are known, nor where the weeks differ from one another.
- One week of the four may have been otherwise, as with a holiday. A holiday itself is unusual.
- A pause longer than a week is compared by its first week.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo

WEEKS = 4
_LIKE_IT = 3
_VISITS = 6
_SLACK_S = 3600.0
_WEEK_S = 7 * 86_400.0
#: Visits from one moment until before another, in seconds since the epoch.
Visits = Callable[[float, float], int]


@dataclass(frozen=True, kw_only=True)
class Arrivals:
    """What is known of arrivals. Times are seconds since the epoch.

    Attributes:
        first_at: When the first came that is known of.
        last_at: When the last came.
        visits: In how many spans of ten minutes something came between two moments.
    """

    first_at: float
    last_at: float
    visits: Visits


def is_unusual(arrivals: Arrivals, *, now: float, zone: tzinfo | None = None) -> bool:
    """Whether the silence since the last arrival is unusual at this time of the week.

    Args:
        arrivals: What is known.
        now: Seconds since the epoch.
        zone: Of the clock on the wall; `None` for that of this machine.
    """
    begin = arrivals.last_at + _SLACK_S
    end = min(now, arrivals.last_at + _WEEK_S) - _SLACK_S
    if end - begin <= 0:
        return False
    alike = 0
    for weeks in range(1, WEEKS + 1):
        since, until = (_earlier(at, weeks=weeks, zone=zone) for at in (begin, end))
        if since < arrivals.first_at:
            break
        alike += arrivals.visits(since, until) >= _VISITS
    return alike >= _LIKE_IT


def _earlier(at: float, *, weeks: int, zone: tzinfo | None) -> float:
    """The same time of the week, some weeks earlier, by the clock on the wall."""
    # Without a zone the machine's own rules for summer time hold both ways.
    wall = datetime.fromtimestamp(at, zone)
    return (wall - timedelta(weeks=weeks)).timestamp()
