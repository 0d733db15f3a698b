"""The outbox → the collector, in order, by a thread of the node: nothing waits for it.

The rows are the truth. Messages go out at once; some seconds later the connection is ended in
order, by which the collector says that it has read everything, and then they are deleted. What was
sent on a connection that ended otherwise is sent once more, byte for byte the same: nothing is
lost, even where a collector takes connections and reads nothing, and little comes twice.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from dicomnode import log
from dicomnode.archive.auditing import outbox, told
from dicomnode.archive.auditing.outbox import Waiting
from dicomnode.archive.database import Database
from dicomnode.auditing import syslog
from dicomnode.errors import NodeError, RetryLater
from dicomnode.network.auditing.collector import Collector, Line
from dicomnode.pauses import Pauses

_log = log.get(__name__)

_LOOK_S = 0.5
_TICK_S = 0.1
_BATCH = 100
_WINDOW = 1000  # messages on one connection
_TIMEOUT_S = 10.0
_SETTLE_S = 5.0
_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 60.0
_LOOK_FOR_EXPIRED_S = 60.0
_DROPPED_AT_ONCE = 5000  # nobody else writes to SQLite meanwhile
_STOP_S = 5.0


@dataclass(frozen=True, kw_only=True)
class Keeping:
    """How long messages wait for a collector that is away, and how many of them.

    Attributes:
        longest_s: Seconds; older ones are dropped.
        most: Of more, the oldest are dropped.
    """

    longest_s: float
    most: int


@dataclass(frozen=True, kw_only=True)
class _Batch:
    """Messages that were sent together, and when (monotonic)."""

    ids: tuple[int, ...]
    at: float


@dataclass(kw_only=True)
class _Open:
    """A line, and what was sent on it that is not settled."""

    line: Line
    batches: list[_Batch] = field(default_factory=list)

    @property
    def ids(self) -> frozenset[int]:
        """What is not settled."""
        return frozenset(one for batch in self.batches for one in batch.ids)

    def is_over(self, after_s: float) -> bool:
        """Whether its first message went out so long ago."""
        return bool(self.batches) and time.monotonic() - self.batches[0].at >= after_s


class AuditReporter:
    """Sends audit messages. `start`, then `stop`.

    Without a collector nothing is sent; what waits of a time when there was one expires all the
    same.
    """

    def __init__(
        self,
        database: Database,
        collector: Collector | None,
        *,
        keeping: Keeping,
        clock: Callable[[], float],
        settle_s: float = _SETTLE_S,
    ) -> None:
        """Prepare.

        Args:
            database: Where the messages wait; its recorder names the machine.
            collector: Where they go; `None` where they go nowhere.
            keeping: How long they wait.
            clock: Seconds since the epoch.
            settle_s: How long a connection is used.
        """
        self._database = database
        self._collector = collector
        self._keeping = keeping
        self._clock = clock
        self._settle_s = settle_s
        self._open: _Open | None = None
        self._attempts = 0  # in vain, since the last that was not
        self._looked_for_expired = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="audit messages", daemon=True)

    def change(self, collector: Collector | None) -> None:
        """Call the same collector with other certificates from the next connection on.

        Any thread may say so. Whether there is a collector is said at the start.
        """
        self._collector = collector

    def start(self) -> None:
        """Begin."""
        if self._collector is not None or self._is_behind():
            self._thread.start()

    def stop(self) -> None:
        """Send what waits, unless the collector is away; then it waits for the next start."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(_STOP_S + _TIMEOUT_S)

    def _run(self) -> None:
        while not self._stop.is_set():
            self._stop.wait(self.step())
        self._settle_s = 0.0
        until = time.monotonic() + _STOP_S
        while self._can_send() and self._is_behind() and time.monotonic() < until:
            time.sleep(min(self.step(), _TICK_S))
        self._let_go()

    def _can_send(self) -> bool:
        return self._collector is not None and not self._attempts

    def _is_behind(self) -> bool:
        with contextlib.suppress(RetryLater):
            return bool(self._waiting(limit=1))
        return False

    def step(self) -> float:
        """Send and settle what can be; returns how long to wait before the next step (s)."""
        try:
            self._drop_expired()
            return self._send()
        except RetryLater as error:  # the database is away
            _log.warning("audit messages wait", reason=error.reason, detail=error.detail)
            return _FIRST_PAUSE_S
        except Exception:  # noqa: BLE001 - the edge of this thread: without it nothing is sent
            _log.exception("audit messages failed")
            self._let_go()
            return _LONGEST_PAUSE_S

    def _send(self) -> float:
        collector = self._collector
        if collector is None:
            return _LOOK_FOR_EXPIRED_S
        try:
            if self._open is None:
                if not self._waiting(limit=1):
                    return _LOOK_S
                self._open = _Open(line=collector.open(timeout_s=_TIMEOUT_S))
            return self._go_on(self._open)
        except OSError as error:
            return self._broken(collector.broken(error))
        except NodeError as error:
            if error.reason == "database-unavailable":
                raise
            return self._broken(error)

    def _go_on(self, on: _Open) -> float:
        """One look at the line, one batch on it, and its end when it is time."""
        on.line.check()
        sent = on.ids
        room = min(_BATCH, _WINDOW - len(sent))
        batch = self._waiting(limit=room, besides=sent)
        if batch:
            self._send_batch(on, batch)
        if len(on.ids) >= _WINDOW or on.is_over(self._settle_s):
            self._finish(on)
            return 0.0
        return 0.0 if len(batch) == _BATCH else _LOOK_S

    def _waiting(self, *, limit: int, besides: Collection[int] = ()) -> list[Waiting]:
        with self._database.read() as tx:
            return outbox.waiting(tx, limit=limit, besides=besides)

    def _send_batch(self, on: _Open, batch: list[Waiting]) -> None:
        framed = [(one.id, self._framed(one)) for one in batch]
        long = [one for one, content in framed if len(content) > on.line.longest]
        if long:
            _log.error("audit messages too long", count=len(long))
            with self._database.write() as tx:
                outbox.discard(tx, long)
                told.dropped(tx, len(long), at=self._clock())
        fits = [(one, content) for one, content in framed if one not in long]
        on.line.send([content for _, content in fits])
        on.batches.append(_Batch(ids=tuple(one for one, _ in fits), at=time.monotonic()))

    def _framed(self, one: Waiting) -> bytes:
        recorder = self._database.recorder
        host = recorder.host if recorder is not None else ""
        return syslog.frame(one.body, at=one.at, host=host, process=one.process)

    def _finish(self, on: _Open) -> None:
        """End a line, and delete what the collector has read then: see the module."""
        on.line.finish(within_s=_TIMEOUT_S)
        self._let_go()
        ids = sorted(on.ids)
        if ids:
            with self._database.write() as tx:
                outbox.settle(tx, ids, at=self._clock())
        if self._attempts:
            self._attempts = 0
            _log.info("audit collector answers again")

    def _broken(self, error: NodeError) -> float:
        self._let_go()
        self._attempts += 1
        with self._database.write() as tx:
            outbox.fail(tx, reason=error.reason, detail=error.detail, at=self._clock())
        pauses = Pauses(first_s=_FIRST_PAUSE_S, longest_s=_LONGEST_PAUSE_S)
        pause_s = pauses.after(self._attempts)
        _log.warning(
            "audit collector away", reason=error.reason, detail=error.detail, delay_s=pause_s
        )
        return pause_s

    def _let_go(self) -> None:
        if self._open is not None:
            self._open.line.close()
            self._open = None

    def _drop_expired(self) -> None:
        """A disk must not fill for a collector that is away: what is too old, or too much, goes."""
        is_due = time.monotonic() - self._looked_for_expired >= _LOOK_FOR_EXPIRED_S
        if not is_due or self._open is not None:  # what is under way is not dropped
            return
        self._looked_for_expired = time.monotonic()
        before = self._clock() - self._keeping.longest_s
        with self._database.read() as tx:
            expired = outbox.expired(tx, before=before, most=self._keeping.most)
        for start in range(0, len(expired), _DROPPED_AT_ONCE):
            some = expired[start : start + _DROPPED_AT_ONCE]
            with self._database.write() as tx:
                outbox.discard(tx, some)
                told.dropped(tx, len(some), at=self._clock())
        if expired:
            _log.error("audit messages dropped", count=len(expired))
