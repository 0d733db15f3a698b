"""The receiving side: its parts, built from the configuration; runs until a signal."""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Protocol

from dicomnode import bundle, log, routing
from dicomnode.archive.database import Database
from dicomnode.archive.disk.files import FileStore
from dicomnode.archive.keeping.remover import Remover
from dicomnode.config import Configuration
from dicomnode.ending import Ending
from dicomnode.errors import Failed, Misconfigured, NodeError
from dicomnode.intake import Intake, Patience
from dicomnode.network import tls
from dicomnode.network.commitment.reporter import CommitmentReporter, Pauses
from dicomnode.network.serving.listeners import Listeners

_log = log.get(__name__)

LISTENING_NAME = "listening.json"
_LOCK_NAME = "serve.lock"
# Held by the listener processes, too: it is free once the last of an earlier life has gone.
_LISTENERS_LOCK_NAME = "listeners.lock"
_LAST_LISTENER_S = 30.0
_POLL_S = 0.05
_DAY_S = 86_400.0
_INTAKE_NICENESS = 10


class Page(Protocol):
    """The administrator's page, which lives as long as the node."""

    @property
    def port(self) -> int | None:
        """Where it listens; `None` where there is no page."""

    def start(self, *, is_listening: Callable[[], bool]) -> None:
        """Serve it, in threads of its own; returns when it can be reached."""

    def stop(self) -> None:
        """End it."""


class Node:
    """Receives, indexes, completes and routes. `start`, then `stop`; or `run` for both."""

    def __init__(self, configuration: Configuration, *, page: Page | None = None) -> None:
        self._configuration = configuration
        self._page = page
        data_dir = configuration.node.data_dir
        data_dir.mkdir(parents=True, exist_ok=True)
        self._locks = (
            _claim(data_dir / _LOCK_NAME, within_s=0),
            _claim(data_dir / _LISTENERS_LOCK_NAME, within_s=_LAST_LISTENER_S),
        )
        self._listening = data_dir / LISTENING_NAME
        self._store = FileStore(data_dir)
        self._database = Database(configuration.database.url)
        self._intake = Intake(
            self._database,
            self._store,
            rules(configuration),
            patience=Patience(
                settle_s=configuration.complete.settle_s, quiet_s=configuration.complete.quiet_s
            ),
            clock=time.time,
        )
        self._remover = _remover(configuration, self._database, self._intake)
        self._reporter = _reporter(configuration, self._database, self._store)
        self._listeners = Listeners(
            configuration,
            report=self._intake.report,
            clock=time.time,
            inherit=[lock.fileno() for lock in self._locks[1:]],
            mend=self._remove_partial,
        )
        self._end = Ending()
        self._fault: NodeError | None = None
        self._stop_remover, self._stop_intake = threading.Event(), threading.Event()
        self._remover_thread = threading.Thread(
            target=self._remover.run, args=[self._stop_remover], name="remover"
        )
        self._intake_thread = threading.Thread(target=self._run_intake, name="intake")

    @property
    def port(self) -> int:
        """The port that is listened on, also where the configuration says 0."""
        return self._listeners.port

    def start(self) -> None:
        """Mend what an earlier life left, then listen."""
        self._database.migrate()
        removed = self._store.remove_partial()
        self._remover.recover()
        self._intake.reconcile()
        self._listeners.start()
        self._intake_thread.start()
        self._remover_thread.start()
        self._reporter.start()
        if self._page is not None:
            self._page.start(is_listening=lambda: self._listeners.is_alive)
        self._announce()
        _log.info(
            "listening",
            port=self.port,
            secure_port=self._listeners.secure_port,
            ae_title=self._configuration.node.ae_title,
            removed=removed,
        )

    def stop(self) -> None:
        """End associations, write down what they brought, close."""
        with contextlib.suppress(OSError):  # a disk that takes nothing keeps no node from ending
            self._listening.unlink()
        if self._page is not None:
            self._page.stop()
        self._listeners.stop()
        self._reporter.stop()
        self._stop_remover.set()
        _join(self._remover_thread)
        self._stop_intake.set()
        _join(self._intake_thread)
        self._database.close()
        for lock in self._locks:
            lock.close()
        _log.info("stopped")

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT.

        Raises:
            Failed: `intake-died`. What was received is safe; the next start takes it up.
        """
        self._end.on_signals()
        try:
            self.start()
            self._end.wait()
        finally:
            self.stop()
        if self._fault is not None:
            raise self._fault

    def _remove_partial(self) -> None:
        """Remove what a listener that died was writing; what does not go now goes at the start."""
        with contextlib.suppress(OSError):
            self._store.remove_partial()

    def _run_intake(self) -> None:
        """The edge of this thread: a receiver whose studies go nowhere must not go on receiving."""
        try:
            # Senders wait for the listeners, nobody waits for the index: on a machine that is busy
            # it comes later. On Linux the priority is the thread's own.
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _INTAKE_NICENESS)
            self._intake.run(self._stop_intake)
        except Exception as error:  # noqa: BLE001 - see above
            self._fault = Failed("intake-died", f"{type(error).__name__}; see the log.")
            self._end.tell()
            _log.exception("intake died")

    def _announce(self) -> None:
        """Leave a note of where we listen: for `status`, and for whoever asked for port 0."""
        draft = self._listening.with_suffix(".part")
        draft.write_text(
            json.dumps(
                {
                    "pid": os.getpid(),
                    "port": self.port,
                    "secure_port": self._listeners.secure_port,
                    "web_port": self._page.port if self._page is not None else None,
                }
            )
        )
        draft.rename(self._listening)


def listening(data_dir: Path) -> int | None:
    """The port that a node with this data folder listens on, or `None` when none does."""
    note = _note(data_dir)
    return None if note is None else int(note["port"])


def page_of(data_dir: Path) -> int | None:
    """The port of the page of a node with this data folder, or `None` where there is none."""
    note = _note(data_dir) or {}
    port = note.get("web_port")
    return None if port is None else int(port)


def _note(data_dir: Path) -> dict[str, Any] | None:
    """What a node that runs on this data folder has left there."""
    note: dict[str, Any] | None = None
    try:
        note = json.loads((data_dir / LISTENING_NAME).read_text())
        os.kill(int((note or {})["pid"]), 0)
    except PermissionError:
        pass  # it is there, and another user's
    except (OSError, ValueError, KeyError):
        return None
    return note


def _claim(file: Path, *, within_s: float) -> IO[str]:
    """Make sure that no other receiver works on the same folder; one may be at its end."""
    lock = file.open("w")
    until = time.monotonic() + within_s
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() < until:
                time.sleep(_POLL_S)
                continue
            lock.close()
            raise Misconfigured(
                "already-running",
                f"Another node works on {file.parent}. Stop it, or set node.data_dir.",
            ) from error
        return lock


def _join(thread: threading.Thread) -> None:
    """Wait for its end, should it have been started."""
    if thread.ident is not None:
        thread.join()


def _remover(configuration: Configuration, database: Database, intake: Intake) -> Remover:
    days = configuration.disk.keep_delivered_days
    return Remover(
        database,
        configuration.node.data_dir,
        keep_s=math.inf if days is None else days * _DAY_S,
        clock=time.time,
        report=intake.report,
        indexed_through=intake.indexed_through,
    )


def _reporter(
    configuration: Configuration, database: Database, store: FileStore
) -> CommitmentReporter:
    return CommitmentReporter(
        database,
        store,
        configuration.peers,
        calling_ae_title=configuration.node.ae_title,
        pauses=Pauses(
            first_s=configuration.deliver.retry_s, longest_s=configuration.deliver.retry_max_s
        ),
        clock=time.time,
        certificates=tls.for_calling(configuration.tls, configuration.peers.values()),
    )


def rules(configuration: Configuration) -> tuple[routing.Rule, ...]:
    """The rules of a configuration, with what its bundles ask.

    Raises:
        Misconfigured: As `bundle.load` and `routing.rules`.
    """
    bundles = {
        name: bundle.load(model.bundle, manifest=model.manifest)
        for name, model in configuration.models.items()
    }
    return routing.rules(configuration, bundles)
