"""Signs → alerts that loom, open, go on and end, in the database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection

from dicomnode import log
from dicomnode.alerting.signs import Key, Looker, Sign, is_asked_for, patience_s
from dicomnode.archive.alerts import messages, standing
from dicomnode.archive.alerts.standing import Alert, State
from dicomnode.archive.database import Database
from dicomnode.config import Configuration

_log = log.get(__name__)

# A sign that nobody saw for so long is not known to have gone on: the node was down.
_UNSEEN_S = 60.0
# So often it is written down that an alert goes on as it was.
_SEE_EVERY_S = 15.0
# A disk that nobody looks at any more: its machine was taken away.
_FORSAKEN_S = 3600.0
# What could not be sent in so long is news no more.
_TOO_OLD_S = 3 * 86_400.0
_HOUR_S = 3600.0


class Watcher:
    """Keeps the account of alerts; several nodes on one database keep one account."""

    def __init__(self, database: Database, *, started_at: float) -> None:
        self._database = database
        self._looker = Looker(started_at=started_at)

    def step(self, configuration: Configuration, *, now: float) -> None:
        """Look once, and write down what has changed.

        Args:
            configuration: What is in force.
            now: Seconds since the epoch.

        Raises:
            RetryLater: The database does not answer.
        """
        with self._database.read() as tx:
            known = _by_key(standing.current(tx))
            signs = {
                sign.key: sign for sign in self._looker.look(tx, configuration, known, now=now)
            }
        if not signs and not known:
            return
        if not _news(known, signs, configuration, now=now, unknown=self._looker.unknown):
            return
        with self._database.write() as tx:
            standing.lock(tx)
            before, known = known, _by_key(standing.current(tx))
            # What another node has begun or ended meanwhile it has seen later than this one.
            overtaken = {
                key for key in before.keys() | known.keys() if _is_other(before, known, key)
            }
            for key, sign in signs.items():
                if key not in overtaken:
                    _go_on(tx, known.get(key), sign, configuration, now=now)
            for key, alert in known.items():
                if key not in signs.keys() | overtaken and not self._is_unknown(alert, now=now):
                    _pass_by(tx, alert, configuration, now=now)

    def clear(self, *, now: float) -> None:
        """Let messages be sent no more that nobody could be given for days.

        Raises:
            RetryLater: The database does not answer.
        """
        with self._database.write() as tx:
            dropped = messages.drop_old(tx, before=now - _TOO_OLD_S, at=now)
        if dropped:
            _log.error("alerts never sent", count=dropped)

    def _is_unknown(self, alert: Alert, *, now: float) -> bool:
        return _is_unknown(alert, self._looker.unknown, now=now)


def _by_key(alerts: Sequence[Alert]) -> dict[Key, Alert]:
    return {alert.key: alert for alert in alerts}


def _is_other(before: Mapping[Key, Alert], known: Mapping[Key, Alert], key: Key) -> bool:
    ids = [None if (found := one.get(key)) is None else found.id for one in (before, known)]
    return ids[0] != ids[1]


def _is_unknown(alert: Alert, unknown: set[Key], *, now: float) -> bool:
    is_forsaken = alert.kind.is_of_a_disk and now - alert.seen_at > _FORSAKEN_S
    return alert.key in unknown and not is_forsaken


def _news(
    known: Mapping[Key, Alert],
    signs: Mapping[Key, Sign],
    configuration: Configuration,
    *,
    now: float,
    unknown: set[Key],
) -> bool:
    """Whether there is anything to write down: a look alone locks nothing."""
    if signs.keys() - known.keys():
        return True
    for key, alert in known.items():
        sign = signs.get(key)
        if sign is None:
            if not _is_unknown(alert, unknown, now=now):
                return True
        elif _is_due(alert, configuration, now=now):
            return True
    return False


def _is_due(alert: Alert, configuration: Configuration, *, now: float) -> bool:
    return (
        abs(now - alert.seen_at) >= _SEE_EVERY_S  # the clock may be set back
        or (alert.state is State.LOOMING and _is_ripe(alert, configuration, now=now))
        or _is_to_be_repeated(alert, configuration, now=now)
    )


def _is_ripe(alert: Alert, configuration: Configuration, *, now: float) -> bool:
    return now - alert.since >= patience_s(alert.kind, configuration)


def _is_to_be_repeated(alert: Alert, configuration: Configuration, *, now: float) -> bool:
    return (
        alert.told_at is not None
        and abs(now - alert.told_at) >= configuration.alerts.repeat_hours * _HOUR_S
    )


def _go_on(
    tx: Connection, alert: Alert | None, sign: Sign, configuration: Configuration, *, now: float
) -> None:
    """Something is wrong: begin to wait, wait on, tell of it, or tell once more."""
    channels = configuration.alerts.channels
    if alert is None:
        since = now if sign.since is None else min(now, sign.since)
        alert = standing.loom(tx, sign.kind, sign.subject, since=since, at=now, facts=sign.facts)
    else:
        alert = _seen(tx, alert, sign, now=now)
    if alert.state is State.LOOMING and _is_ripe(alert, configuration, now=now):
        standing.begin(tx, alert, channels, at=now)
        _log.warning("alert", alert=str(alert.kind), destination=alert.subject, state="begun")
    elif alert.state is State.OPEN and _is_to_be_repeated(alert, configuration, now=now):
        standing.remind(tx, alert, channels, at=now)


def _seen(tx: Connection, alert: Alert, sign: Sign, *, now: float) -> Alert:
    """The alert as it is now. One that looms begins anew where it was not seen all the time."""
    since = alert.since
    if alert.state is State.LOOMING:
        was_unseen = sign.since is None and abs(now - alert.seen_at) > _UNSEEN_S
        # Clocks are set back, and those of workers may be ahead: nothing begins later than now.
        begun = 0.0 if sign.since is None or sign.since > now else sign.since
        since = now if was_unseen else max(min(now, since), begun)
    return standing.see(tx, alert, at=now, facts=sign.facts, since=since)


def _pass_by(tx: Connection, alert: Alert, configuration: Configuration, *, now: float) -> None:
    """It is wrong no more: tell who was told. What is only not asked for any more ends unsaid."""
    if alert.state is State.LOOMING:
        standing.forget(tx, alert)
        return
    channels = configuration.alerts.channels if is_asked_for(alert.kind, configuration) else ()
    standing.end(tx, alert, channels, at=now)
    _log.info("alert", alert=str(alert.kind), destination=alert.subject, state="over")
