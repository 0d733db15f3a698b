"""The Celery app: JSON only, late acknowledgement, one message at a time, limits from one number.

Two kinds of worker, each a process of its own: one predicts, one delivers. A prediction of ten
minutes then never stands before a delivery, and the sending side carries no torch.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from celery import Celery, signals
from celery.worker import state
from kombu.exceptions import OperationalError

from dicomnode import log
from dicomnode.archive.work import jobs, leases, moves
from dicomnode.archive.work.leases import Task
from dicomnode.config import Configuration
from dicomnode.hangup import Hangups
from dicomnode.job import JobState
from workers import deliver, limits, predict
from workers.ahead import Ahead
from workers.context import PerProcess
from workers.dispatch import BrokerAway, Dispatcher, Duty
from workers.inference import Models
from workers.watch import Watch

_log = log.get(__name__)

# Deliveries mostly wait for the other side.
DELIVERY_SLOTS = 2
# Longer than any answer is waited for: the sender itself gives up before.
_DELIVERY_LIMIT_S = 3600.0
# A message is handed out again by Redis only when its task cannot be running any more.
_VISIBILITY = 1.1
# Importing torch and MONAI in a child takes seconds; Celery's own 4 s are for lighter children.
_CHILD_START_S = 120.0
_GIB = 1024**3
_MEMORY = "memory://localhost//"
_MEMORY_POLLING_S = 0.02


def build(configuration: Configuration, task: Task) -> Celery:
    """The app of one kind of worker, configured and without tasks."""
    limit_s = configuration.worker.timeout_s
    broker = configuration.queue.broker
    longest_s = max(limit_s, _DELIVERY_LIMIT_S)
    transport: dict[str, Any] = {"visibility_timeout": longest_s * _VISIBILITY}
    if broker.startswith("memory:"):
        broker, transport = _MEMORY, {"polling_interval": _MEMORY_POLLING_S}
    app = Celery(f"dicomnode-{task}", broker=broker, set_as_current=False)
    app.conf.update(
        accept_content=["json"],
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options=transport,
        task_acks_late=True,
        task_default_queue=f"dicomnode-{task}",
        task_ignore_result=True,
        task_publish_retry=False,
        task_serializer="json",
        task_time_limit=limit_s if task is Task.PREDICT else _DELIVERY_LIMIT_S,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_concurrency=slots(configuration, task),
        worker_hijack_root_logger=False,
        worker_lost_wait=1.0,
        worker_prefetch_multiplier=1,
        worker_proc_alive_timeout=_CHILD_START_S,
        worker_redirect_stdouts=False,
        worker_send_task_events=False,
    )
    return app


def slots(configuration: Configuration, task: Task) -> int:
    """How many tasks of this kind one worker runs at once."""
    return configuration.worker.slots if task is Task.PREDICT else DELIVERY_SLOTS


def run(configuration: Configuration, task: Task, surroundings: PerProcess, watch: Watch) -> bool:
    """Work until SIGTERM (finish what runs) or SIGQUIT (hand it back).

    Returns:
        Whether the worker is to begin anew, with another configuration.
    """
    app = build(configuration, task)
    name = _declare(app, task, surroundings)
    dispatcher = Dispatcher(
        surroundings.get,
        Duty(task=task, slots=slots(configuration, task)),
        lambda row_id: _send(app, name, row_id),
        _running,
        watch=watch,
    )
    _connect_signals(task, surroundings, dispatcher)
    worker = app.Worker(
        pool="prefork",
        hostname=f"{task}@{surroundings.worker.owner}",
        without_heartbeat=True,
        without_mingle=True,
        without_gossip=True,
        quiet=True,
    )
    worker.start()
    # Nothing is left to finish or to hand back: who tells it to end now need not be heard first.
    for number in (signal.SIGTERM, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    return dispatcher.begins_anew


def _declare(app: Celery, task: Task, surroundings: PerProcess) -> str:
    """Register this worker's one task; returns its name."""
    if task is Task.PREDICT:
        asked = surroundings.worker.configuration.worker
        budget = asked.model_memory_gib
        models = Models(
            surroundings.worker.device,
            budget_bytes=None if budget is None else int(budget * _GIB),
            cpu_when_full=asked.cpu_when_full,
        )

        ahead = Ahead(predict.load)

        def work(row_id: str) -> None:
            with _killable():
                predict.predict(surroundings.get(), models, row_id, ahead=ahead)

    else:

        def work(row_id: str) -> None:
            with _killable():
                deliver.deliver(surroundings.get(), row_id)

    name = f"dicomnode.{task}"
    app.task(work, name=name)
    return name


def _running() -> list[str]:
    """The ids of the rows that this worker's children run now."""
    return [str(request.args[0]) for request in list(state.active_requests)]


def _send(app: Celery, name: str, row_id: str) -> None:
    try:
        app.send_task(name, args=[row_id])
    except (OperationalError, OSError) as error:
        raise BrokerAway("broker-away", f"The broker took no message: {error}.") from error


def _connect_signals(task: Task, surroundings: PerProcess, dispatcher: Dispatcher) -> None:
    """Hang our own steps on the life of the worker.

    `weak=False`: Celery would otherwise forget these closures at once.
    """

    def on_ready(**_: Any) -> None:
        # Celery's own answer to SIGQUIT waits for children that may be in the middle of a network.
        signal.signal(signal.SIGQUIT, lambda *_: dispatcher.quit())
        # In place of Celery's own, which would start this worker anew whatever its file says.
        dispatcher.start(Hangups())
        _log.info("worker ready", worker=surroundings.worker.owner, task=str(task))

    def on_stopping(**_: Any) -> None:
        dispatcher.asked_to_end()

    def on_stopped(**_: Any) -> None:
        dispatcher.close()

    def on_child(**_: Any) -> None:
        if task is Task.PREDICT:
            limits.cap(
                device=surroundings.worker.device,
                memory_gib=surroundings.worker.configuration.worker.memory_gib,
                slots=surroundings.worker.configuration.worker.slots,
            )
            Models.warm_up()

    def on_failure(exception: BaseException, args: Any, **_: Any) -> None:
        if task is Task.PREDICT and args:
            _report_death(surroundings, str(args[0]), exception)

    # Whoever listens to this signal configures logging; ours is configured already.
    signals.setup_logging.connect(lambda **_: None, weak=False)
    signals.worker_ready.connect(on_ready, weak=False)
    signals.worker_shutting_down.connect(on_stopping, weak=False)
    signals.worker_shutdown.connect(on_stopped, weak=False)
    signals.worker_process_init.connect(on_child, weak=False)
    signals.task_failure.connect(on_failure, weak=False)


@contextmanager
def _killable() -> Iterator[None]:
    """Let SIGTERM end this child at once while it works.

    billiard's own handler says farewell through a pipe that all children share. A child past its
    limit gets SIGKILL a moment after SIGTERM: in the middle of that farewell it would leave the
    pipe locked, and no later child could ever report anything.
    """
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _report_death(surroundings: PerProcess, job_id: str, exception: BaseException) -> None:
    """Say at once what a child can no longer say itself: past its limit, or dead."""
    context = surroundings.get()
    asked = context.configuration.worker
    with context.database.write() as tx:
        job = jobs.job(tx, job_id)
        if job is None:
            return
        if isinstance(exception, TimeLimitExceeded):
            detail = f"The model was stopped after {asked.timeout_s:g} s (worker.timeout_s)."
            moves.end(
                tx,
                job_id,
                JobState.FAILED,
                at=context.now(),
                reason="time-limit",
                detail=detail,
                owner=context.owner,
            )
        elif isinstance(exception, WorkerLostError):
            left = asked.attempts - job.attempts
            leases.release(tx, job_id, owner=context.owner, attempts_left=left, at=context.now())
    _log.error("worker child lost", job=job_id, error=type(exception).__name__)
