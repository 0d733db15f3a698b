"""What is wrong at this moment: one sign for each alert that there should be."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection

from dicomnode.alert import Kind
from dicomnode.alerting import room, silence
from dicomnode.alerting.silence import Arrivals
from dicomnode.archive.alerts.standing import Alert, State
from dicomnode.archive.asked import accounts, figures, signs
from dicomnode.archive.work.leases import Task
from dicomnode.config import Configuration

Key = tuple[Kind, str]

_GIB = 2**30
_HOUR_S = 3600.0
# As in deploy/monitoring/alerts.yaml; a test compares them.
FAIL_IN_A_ROW = 3
QUEUE_OLD_S = 1800.0
DELIVERIES_OLD_S = 4 * _HOUR_S
MANY_ASSOCIATIONS = 0.8
SLOW_QUANTILE = 0.95
SLOW_SHARE = 0.5
#: How long something must be so until somebody is told (seconds), where no key says it.
PATIENCE_S: Mapping[Kind, float] = {
    Kind.EVERYTHING_FAILS: 300,
    Kind.NO_WORKER: 300,
    Kind.NO_DELIVERER: 300,
    Kind.QUEUE_OLD: 300,
    Kind.DELIVERIES_OLD: 300,
    Kind.MODEL_SLOW: 1800,
    Kind.DISK_NEARLY_FULL: 60,
    Kind.DISK_FILLS: 3600,
    Kind.NOTHING_RECEIVED: 0,
    Kind.MANY_ASSOCIATIONS: 600,
}
# Unusual silence begins hours after the last arrival, and models do not turn slow in a minute.
_SLOWLY_S = 60.0
# An alert that goes on for months is counted no farther back: each look would take longer.
_COUNTED_S = 7 * 86_400.0
# After a start senders that were kept waiting have this long to come again.
_AFTER_START_S = 3600.0


@dataclass(frozen=True, kw_only=True)
class Sign:
    """Something is wrong.

    Attributes:
        subject: What with: a destination, a model, a disk; "" for the whole node.
        since: Since when, in seconds since the epoch; `None` where that is known by seeing alone.
        facts: What was counted. Nothing in it names a patient.
    """

    kind: Kind
    subject: str = ""
    since: float | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> Key:
        """What there is one of at a time."""
        return self.kind, self.subject


def is_asked_for(kind: Kind, configuration: Configuration) -> bool:
    """Whether the configuration lets anybody be told of such a thing at all."""
    alerts = configuration.alerts
    is_never = kind is Kind.NOTHING_RECEIVED and alerts.silence_hours == 0
    return kind not in alerts.ignore and not is_never


def patience_s(kind: Kind, configuration: Configuration) -> float:
    """How long something must be so until somebody is told (seconds)."""
    alerts = configuration.alerts
    if kind is Kind.DESTINATION_DOWN:
        return alerts.destination_down_minutes * 60
    if kind in (Kind.STUDY_FAILED, Kind.DELIVERY_FAILED):
        return alerts.collect_s
    return PATIENCE_S[kind]


class Looker:
    """Looks for signs, again and again; it remembers how the disk has filled."""

    def __init__(self, *, started_at: float) -> None:
        self._started_at = started_at
        self._trend = room.Trend()
        self._slow_at = -_SLOWLY_S
        self._slow: list[Sign] = []
        self._silent_since: float | None = None
        #: What cannot be said anything about now: an alert of it stays as it is.
        self.unknown: set[Key] = set()

    def look(
        self,
        tx: Connection,
        configuration: Configuration,
        standing: Mapping[Key, Alert],
        *,
        now: float,
    ) -> list[Sign]:
        """Every sign.

        Args:
            tx: A connection that reads.
            configuration: What is in force.
            standing: The alerts that are looming or open.
            now: Seconds since the epoch.
        """
        self.unknown = set()
        last_at = signs.last_arrival(tx)
        if not self._slow_at <= now < self._slow_at + _SLOWLY_S:
            self._slow = [*_slow_models(tx, configuration, now=now)]
            is_silent = self._is_silent(tx, configuration, last_at, now=now)
            self._silent_since = last_at if is_silent else None
            self._slow_at = now
        found = [
            *_failures(tx, standing, now=now),
            *_destinations(tx, configuration, standing, now=now),
            *_queues(tx, configuration, now=now),
            *_associations(tx, configuration),
            *self._disk(configuration, standing, now=now),
            *self._slow,
            *self._silence(configuration, standing, last_at),
        ]
        return [sign for sign in found if is_asked_for(sign.kind, configuration)]

    def _is_silent(
        self, tx: Connection, configuration: Configuration, last_at: float | None, *, now: float
    ) -> bool:
        if last_at is None or abs(now - self._started_at) < _AFTER_START_S:
            return False
        return _is_silent(tx, last_at, hours=configuration.alerts.silence_hours, now=now)

    def _silence(
        self, configuration: Configuration, standing: Mapping[Key, Alert], last_at: float | None
    ) -> Iterator[Sign]:
        """Nothing came for an unusual time. Once told of, it ends with the next arrival alone.

        What was found a minute ago holds until something arrives, and what another node has told
        of goes on: nodes that do not learn of either at once would begin and end it by turns.
        """
        if last_at is None:
            return
        since = _since(standing, Kind.NOTHING_RECEIVED)
        goes_on = since is not None and last_at <= since
        if goes_on or last_at == self._silent_since:
            facts = {"is_learned": configuration.alerts.silence_hours is None}
            yield Sign(kind=Kind.NOTHING_RECEIVED, since=last_at, facts=facts)

    def _disk(
        self, configuration: Configuration, standing: Mapping[Key, Alert], *, now: float
    ) -> Iterator[Sign]:
        """How full the disk is; of the disks of other machines nothing is known here."""
        seen, host = room.look(configuration.node.data_dir), socket.gethostname()
        # Two machines may have disks that call themselves the same: XFS goes by the number of the
        # device, and NFS has none.
        self.unknown |= {
            key
            for key, alert in standing.items()
            if key[0].is_of_a_disk
            and (not seen or key[1] != seen.disk or alert.facts.get("host") != host)
        }
        if seen is None:
            return
        self._trend.note(seen.free_bytes, at=now)
        least = configuration.disk.min_free_gib * _GIB
        facts = {"free_bytes": seen.free_bytes, "host": host}
        if seen.free_bytes < least:
            floor = configuration.disk.floor_gib * _GIB
            yield Sign(
                kind=Kind.DISK_NEARLY_FULL,
                subject=seen.disk,
                facts=facts | {"is_full": seen.free_bytes < floor},
            )
            # What was foreseen has come: that is not its end.
            foreseen = standing.get((Kind.DISK_FILLS, seen.disk))
            if foreseen is not None and foreseen.state is State.OPEN:
                yield Sign(kind=Kind.DISK_FILLS, subject=seen.disk, facts=facts)
            return
        then = self._trend.in_a_day(seen.free_bytes)
        if then is None:
            self.unknown.add((Kind.DISK_FILLS, seen.disk))
        elif then < least:
            yield Sign(kind=Kind.DISK_FILLS, subject=seen.disk, facts=facts)


def _since(standing: Mapping[Key, Alert], kind: Kind, subject: str = "") -> float | None:
    alert = standing.get((kind, subject))
    return None if alert is None else alert.since


def _counted_from(
    standing: Mapping[Key, Alert], kind: Kind, subject: str = "", *, now: float
) -> float | None:
    since = _since(standing, kind, subject)
    return None if since is None else max(since, now - _COUNTED_S)


def _failures(tx: Connection, standing: Mapping[Key, Alert], *, now: float) -> Iterator[Sign]:
    """Studies that failed within the hour; an alert counts all since it began, of a week."""
    of_late = signs.failed_studies(tx, since=now - _HOUR_S)
    if of_late is None:
        return
    begun = _counted_from(standing, Kind.STUDY_FAILED, now=now)
    every = of_late if begun is None else signs.failed_studies(tx, since=begun) or of_late
    yield Sign(kind=Kind.STUDY_FAILED, since=every.first_at, facts=_counted(every))
    is_bad = of_late.count >= FAIL_IN_A_ROW
    if is_bad and not signs.anything_delivered(tx, since=now - _HOUR_S):
        yield Sign(kind=Kind.EVERYTHING_FAILS, facts=_counted(of_late))


def _counted(failures: signs.Failures) -> dict[str, Any]:
    return {"count": failures.count, "reasons": dict(failures.reasons)}


def _destinations(
    tx: Connection, configuration: Configuration, standing: Mapping[Key, Alert], *, now: float
) -> Iterator[Sign]:
    for destination, found in signs.stuck(tx).items():
        yield from _down(tx, destination, found, standing, now=now)
    callable_ = {name for name, peer in configuration.peers.items() if peer.port is not None}
    # One that is taken out of the configuration has refused what it has refused.
    told_of = {subject for kind, subject in standing if kind is Kind.DELIVERY_FAILED}
    for destination in sorted(callable_ | told_of):
        of_late = signs.refused(tx, destination, since=now - _HOUR_S)
        if of_late is None:
            continue
        begun = _counted_from(standing, Kind.DELIVERY_FAILED, destination, now=now)
        every = of_late if begun is None else signs.refused(tx, destination, since=begun)
        yield Sign(
            kind=Kind.DELIVERY_FAILED,
            subject=destination,
            since=(every or of_late).first_at,
            facts=_counted(every or of_late),
        )


def _down(
    tx: Connection,
    destination: str,
    found: signs.Stuck,
    standing: Mapping[Key, Alert],
    *,
    now: float,
) -> Iterator[Sign]:
    """A destination to which nothing gets through: one success, and it is not down."""
    alert = standing.get((Kind.DESTINATION_DOWN, destination))
    took = alert is not None and signs.took_something(tx, destination, after=alert.since)
    if took and alert is not None and alert.state is State.OPEN:
        return
    yield Sign(
        kind=Kind.DESTINATION_DOWN,
        subject=destination,
        since=now if took else None,
        facts={"count": found.count, "reasons": dict(found.reasons)},
    )


def _queues(tx: Connection, configuration: Configuration, *, now: float) -> Iterator[Sign]:
    queues = figures.queues(tx)
    workers = accounts.workers(tx, since=now - configuration.worker.lease_s)
    there = {Task.PREDICT: False, Task.DELIVER: False}
    for worker in workers:
        there[Task.PREDICT if worker.device else Task.DELIVER] = True
    for task, nobody, old, limit_s in (
        (Task.PREDICT, Kind.NO_WORKER, Kind.QUEUE_OLD, QUEUE_OLD_S),
        (Task.DELIVER, Kind.NO_DELIVERER, Kind.DELIVERIES_OLD, DELIVERIES_OLD_S),
    ):
        queue = queues[task]
        if queue.oldest_at is None:
            continue
        facts = {"count": queue.depth, "oldest_at": queue.oldest_at}
        if not there[task]:
            yield Sign(kind=nobody, facts=facts)
        if now - queue.oldest_at > limit_s:
            yield Sign(kind=old, facts=facts)


def _associations(tx: Connection, configuration: Configuration) -> Iterator[Sign]:
    count = sum(figures.open_associations(tx).values())
    most = configuration.listen.max_associations
    if count > most * MANY_ASSOCIATIONS:
        yield Sign(kind=Kind.MANY_ASSOCIATIONS, facts={"count": count, "limit": most})


def _slow_models(tx: Connection, configuration: Configuration, *, now: float) -> Iterator[Sign]:
    limit_s = configuration.worker.timeout_s
    for model, seconds in signs.stage_seconds(tx, "infer", since=now - _HOUR_S).items():
        slow_s = sorted(seconds)[int((len(seconds) - 1) * SLOW_QUANTILE)]
        if slow_s > limit_s * SLOW_SHARE:
            facts = {"seconds": slow_s, "limit_s": limit_s}
            yield Sign(kind=Kind.MODEL_SLOW, subject=model, facts=facts)


def _is_silent(tx: Connection, last_at: float, *, hours: float | None, now: float) -> bool:
    if hours is not None:
        return hours > 0 and now - last_at > hours * _HOUR_S
    first_at = signs.first_visit(tx)
    if first_at is None:
        return False
    visits: Callable[[float, float], int] = lambda since, until: signs.visits(  # noqa: E731
        tx, since=since, until=until
    )
    return silence.is_unusual(Arrivals(first_at=first_at, last_at=last_at, visits=visits), now=now)
