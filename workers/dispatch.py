"""Pending rows → messages; leases of workers that died → pending.

Runs beside the worker's main loop. A message carries an id and nothing else; when the broker loses
it, the row is still there and the id is sent again.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from dicomnode import log
from dicomnode.archive.work import leases
from dicomnode.archive.work.leases import Task
from dicomnode.errors import RetryLater
from dicomnode.hangup import Hangups
from workers.context import Context
from workers.watch import Watch

_log = log.get(__name__)

TICK_S = 0.05
# A message that nobody took up for this long is taken for lost.
RESEND_S = 15.0
# How often leases are renewed within their length.
_RENEWALS = 3
_AFTER_FAULT_S = 1.0


class BrokerAway(RetryLater):
    """The broker took no message."""


@dataclass(frozen=True, kw_only=True)
class Duty:
    """What one worker process dispatches and stands for.

    Attributes:
        slots: How many tasks it runs at once.
    """

    task: Task
    slots: int


class Dispatcher:
    """Tells workers of rows that wait, and keeps this worker's leases alive."""

    def __init__(
        self,
        context: Callable[[], Context],
        duty: Duty,
        send: Callable[[str], None],
        running: Callable[[], list[str]],
        *,
        watch: Watch,
    ) -> None:
        """Prepare.

        Args:
            context: Gives this process's surroundings.
            send: Sends one id to the workers; raises `BrokerAway`.
            running: The ids of the rows that this worker's children run now.
            watch: Says when the configuration has changed.
        """
        self._context = context
        self._duty = duty
        self._running = running
        self._send = send
        self._stop = threading.Event()
        self._quit = False
        self._watch = watch
        self._hangups: Hangups | None = None
        self._asked_itself = False
        self._times_asked = 0
        self._renew_at = 0.0
        self._renewed_at = 0.0
        self._is_clean = False
        self._thread = threading.Thread(target=self._run, name="dispatch", daemon=True)
        # A child forked in the middle of a step would inherit locks that nobody there releases.
        self._step_lock = threading.Lock()
        os.register_at_fork(
            before=self._step_lock.acquire,
            after_in_parent=self._step_lock.release,
            after_in_child=self._step_lock.release,
        )

    def start(self, hangups: Hangups) -> None:
        """Begin. Nothing here can fail: what can is a step, and is tried again.

        Args:
            hangups: When one comes, the file of the worker may have changed.
        """
        self._hangups = hangups
        self._thread.start()

    @property
    def begins_anew(self) -> bool:
        """Whether the worker is to begin anew: it asked itself to end, and nobody else did."""
        return self._asked_itself and self._times_asked <= 1

    def asked_to_end(self) -> None:
        """Take note that this worker was told to end, by itself or by somebody else."""
        self._times_asked += 1
        self.stop()

    def stop(self) -> None:
        """Dispatch nothing more; leases go on being renewed until `close`."""
        self._duty = Duty(task=self._duty.task, slots=0)

    def close(self) -> None:
        """End, and give back what this worker still holds."""
        self._stop.set()
        self._thread.join()
        self._hand_back()

    def quit(self) -> None:
        """Give back what this worker holds and end its process at once, from any thread."""
        self._quit = True
        self._stop.set()

    def _hand_back(self) -> None:
        context = self._context()
        with context.database.write() as tx:
            handed_back = leases.hand_back(tx, owner=context.owner, at=context.now())
            leases.report_stopped(tx, owner=context.owner, at=context.now())
        if handed_back:
            _log.info("handed back", count=len(handed_back))

    def _run(self) -> None:
        while not self._stop.is_set():
            with self._step_lock:
                pause = self._step()
            self._stop.wait(pause)
        if self._quit:
            self._hand_back()
            os._exit(0)  # the kernel ends the children with us

    def _step(self) -> float:
        try:
            self._clean_sheet()
            self._keep_leases()
            self._look()
            self._dispatch()
        except RetryLater as error:
            _log.warning("dispatch waits", reason=error.reason, detail=error.detail)
            return _AFTER_FAULT_S
        except Exception:  # noqa: BLE001 - the edge of this thread, see below
            # The edge of this thread: without it every later job would wait for ever.
            _log.exception("dispatch failed")
            return _AFTER_FAULT_S
        return TICK_S

    def _look(self) -> None:
        """Begin anew where another configuration is in force: take nothing more, end what runs."""
        if self._hangups is not None and self._hangups.any():
            self._watch.look_now()
        if not self._duty.slots or not self._watch.look(self._context()):
            return
        _log.info("worker begins anew", worker=self._context().owner, task=str(self._duty.task))
        self._asked_itself = True
        self.stop()
        os.kill(os.getpid(), signal.SIGTERM)  # as if it were told to end

    def _clean_sheet(self) -> None:
        """Once at the start: whatever an earlier broker was told may be told again."""
        if self._is_clean:
            return
        with self._context().database.write() as tx:
            leases.forget_hints(tx, self._duty.task)
        self._is_clean = True

    def _keep_leases(self) -> None:
        context, task = self._context(), self._duty.task
        now, limits = context.now(), context.configuration.worker
        if now < self._renew_at:
            return
        # After a stall of our own the others may just be as late as we are: they come first.
        was_stalled = now - self._renewed_at > limits.lease_s
        with context.database.write() as tx:
            leases.renew(
                tx, task, self._running(), owner=context.owner, at=now, lease_s=limits.lease_s
            )
            lost = [] if was_stalled else leases.expire(tx, task, at=now, attempts=limits.attempts)
            self._report(tx, context, at=now)
        self._renewed_at, self._renew_at = now, now + limits.lease_s / _RENEWALS
        if lost:
            _log.warning("taken back from a lost worker", count=len(lost))

    def _report(self, tx: Connection, context: Context, *, at: float) -> None:
        leases.report_worker(
            tx,
            owner=context.owner,
            device=context.device,
            requested=context.configuration.worker.device,
            slots=self._duty.slots if self._duty.task is Task.PREDICT else 0,
            at=at,
        )

    def _dispatch(self) -> None:
        context = self._context()
        if not self._duty.slots:
            return
        task, now = self._duty.task, context.now()
        with context.database.read() as tx:
            if not leases.anything_due(tx, task, at=now, resend_s=RESEND_S):
                return
        window = self._window(context)
        with context.database.write() as tx:
            ids = leases.due(tx, task, at=now, resend_s=RESEND_S, window=window)
        for position, row_id in enumerate(ids):
            try:
                self._send(row_id)
            except BrokerAway:
                self._take_back(context, ids[position:])
                raise

    def _window(self, context: Context) -> int:
        """Two for each slot there is: one runs, one waits at hand."""
        if self._duty.task is Task.DELIVER:
            return 2 * self._duty.slots
        with context.database.read() as tx:
            alive = context.now() - context.configuration.worker.lease_s
            return 2 * max(self._duty.slots, leases.live_slots(tx, since=alive))

    def _take_back(self, context: Context, ids: Sequence[str]) -> None:
        with context.database.write() as tx:
            leases.forget_hints(tx, self._duty.task, ids)
