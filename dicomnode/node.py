"""The receiving side: its parts, built from the configuration; runs until a signal."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from sqlalchemy import Connection

from dicomnode import config, log, routing, settings
from dicomnode.alerting import Alerting
from dicomnode.archive.auditing import told
from dicomnode.archive.auditing.recording import database_of
from dicomnode.archive.database import Database
from dicomnode.archive.disk.files import FileStore
from dicomnode.archive.keeping.remover import Remover
from dicomnode.archive.work import in_force
from dicomnode.config import Configuration
from dicomnode.ending import Ending
from dicomnode.errors import Failed, Misconfigured, NodeError, RetryLater
from dicomnode.intake import Intake
from dicomnode.network import tls
from dicomnode.network.auditing.collector import Collector
from dicomnode.network.auditing.reporter import AuditReporter
from dicomnode.network.commitment.reporter import CommitmentReporter
from dicomnode.network.serving.listeners import Listeners
from dicomnode.network.tls import Certificates

_log = log.get(__name__)

LISTENING_NAME = "listening.json"
_LOCK_NAME = "serve.lock"
# Held by the listener processes, too: it is free once the last of an earlier life has gone.
_LISTENERS_LOCK_NAME = "listeners.lock"
_LAST_LISTENER_S = 30.0
_POLL_S = 0.05
_INTAKE_NICENESS = 10


class Page(Protocol):
    """The administrator's page, which lives as long as the node."""

    @property
    def port(self) -> int | None:
        """Where it listens; `None` where there is no page."""

    def start(self, *, is_listening: Callable[[], bool]) -> None:
        """Serve it, in threads of its own; returns when it can be reached."""

    def change(self, configuration: Configuration) -> None:
        """Show another configuration from now on, and go by it."""

    def stop(self) -> None:
        """End it."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A configuration that a node which runs can take up: nothing of it can fail any more.

    Attributes:
        bundles: Model → the digest of its bundle.
        certificates: What peers are called with.
        collector: Where audit messages go; `None` where that is nowhere.
    """

    configuration: Configuration
    rules: tuple[routing.Rule, ...]
    bundles: Mapping[str, str]
    certificates: Certificates | None = None
    collector: Collector | None = None


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
        self._database = database_of(configuration)
        loaded = settings.bundles(configuration)
        self._digests: Mapping[str, str] = settings.digests(loaded)
        self._intake = Intake(
            self._database,
            self._store,
            routing.rules(configuration, loaded),
            patience=settings.patience(configuration),
            clock=time.time,
        )
        self._remover = _remover(configuration, self._database, self._intake)
        self._reporter = _reporter(configuration, self._database, self._store)
        self._auditor = AuditReporter(
            self._database,
            settings.collector(configuration.audit, configuration.tls),
            keeping=settings.keeping(configuration),
            clock=time.time,
        )
        self._alerting = Alerting(self._database, lambda: self._configuration, clock=time.time)
        self._listeners = Listeners(
            configuration,
            report=self._intake.report,
            clock=time.time,
            inherit=[lock.fileno() for lock in self._locks[1:]],
            mend=self._remove_partial,
        )
        self._has_told = False  # of its start
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

    @property
    def configuration(self) -> Configuration:
        """What is in force."""
        return self._configuration

    @property
    def bundles(self) -> Mapping[str, str]:
        """Model → the digest of the bundle that studies are routed to."""
        return self._digests

    @property
    def database(self) -> Database:
        """Where its rows are."""
        return self._database

    def prepare(self, proposed: Configuration) -> Prepared:
        """Whatever of a configuration can be taken up now; nothing changes yet.

        Raises:
            Misconfigured: As `bundle.load`, `routing.rules` and `Certificates`, also where what
                waits for a restart does not go with the rest; `too-many-new-peers`.
        """
        configuration = config.in_force(self._configuration, proposed)
        self._listeners.require_room(configuration.peers)
        if configuration.tls.port is not None:
            Certificates(configuration.tls).server()  # each listener loads its own
        loaded = settings.bundles(configuration)
        return Prepared(
            configuration=configuration,
            rules=routing.rules(configuration, loaded),
            bundles=settings.digests(loaded),
            certificates=tls.for_calling(configuration.tls, configuration.peers.values()),
            collector=settings.collector(configuration.audit, configuration.tls),
        )

    def take_up(self, prepared: Prepared) -> bool:
        """Go by another configuration from now on. No association ends, and no study waits.

        An association, a study that is routed, and a job go on as they began. One thread at a time.

        Returns:
            Whether every listener has said that it goes by it.
        """
        configuration = prepared.configuration
        # Who may send comes first: what is routed by the new rules is received by them.
        everywhere = self._listeners.change(configuration)
        self._intake.change(prepared.rules, patience=settings.patience(configuration))
        self._reporter.change(
            configuration.peers,
            pauses=settings.pauses(configuration),
            certificates=prepared.certificates,
        )
        self._auditor.change(prepared.collector)
        self._remover.change(keep_s=settings.keep_s(configuration))
        self._configuration, self._digests = configuration, prepared.bundles
        if self._page is not None:
            self._page.change(configuration)
        return everywhere

    def start(self) -> None:
        """Mend what an earlier life left, then listen."""
        self._database.migrate()
        with self._database.write() as tx:
            self._tell_start(tx, config.digest(self._configuration), at=time.time())
        removed = self._store.remove_partial()
        self._remover.recover()
        self._intake.reconcile()
        self._listeners.start()
        self._intake_thread.start()
        self._remover_thread.start()
        self._reporter.start()
        self._auditor.start()
        self._alerting.start()
        if self._page is not None:
            self._page.start(is_listening=lambda: self._listeners.is_alive)
        self._announce()
        _log.info(
            "listening",
            pid=os.getpid(),
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
        self._alerting.stop()
        self._reporter.stop()
        self._stop_remover.set()
        _join(self._remover_thread)
        self._stop_intake.set()
        _join(self._intake_thread)
        self._end_of_audit()
        self._database.close()
        for lock in self._locks:
            lock.close()
        _log.info("stopped")

    def run(self, *, once_up: Callable[[], None] = lambda: None) -> None:
        """Serve until SIGTERM or SIGINT.

        Args:
            once_up: Called when it listens.

        Raises:
            Failed: `intake-died`. What was received is safe; the next start takes it up.
        """
        self._end.on_signals()
        try:
            self.start()
            once_up()
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
            _step_back()
            self._intake.run(self._stop_intake)
        except Exception as error:  # noqa: BLE001 - see above
            self._fault = Failed("intake-died", f"{type(error).__name__}; see the log.")
            self._end.tell()
            _log.exception("intake died")

    def _tell_start(self, tx: Connection, digest: str, *, at: float) -> None:
        """Write down what is in force, and tell of the start, and of a change while it stood."""
        before = in_force.current(tx)
        told.application(tx, has_started=True, at=at)
        if before is not None and before.digest != digest:
            told.configuration_changed(tx, at=at)
        in_force.record(tx, digest=digest, at=at)
        self._has_told = True

    def _end_of_audit(self) -> None:
        """Tell of the end once all that came before it is told."""
        if self._has_told:
            with contextlib.suppress(RetryLater), self._database.write() as tx:
                told.application(tx, has_started=False, at=time.time())
        self._auditor.stop()

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


def _step_back() -> None:
    """Let this thread come later on a machine that is busy.

    Senders wait for the listeners, nobody waits for the index. On Linux the priority is a thread's
    own. To step forward, where the whole node was set back further, takes a privilege.
    """
    here = threading.get_native_id()
    niceness = max(os.getpriority(os.PRIO_PROCESS, here), _INTAKE_NICENESS)
    with contextlib.suppress(OSError):  # a matter of speed, and no more
        os.setpriority(os.PRIO_PROCESS, here, niceness)


def _join(thread: threading.Thread) -> None:
    """Wait for its end, should it have been started."""
    if thread.ident is not None:
        thread.join()


def _remover(configuration: Configuration, database: Database, intake: Intake) -> Remover:
    return Remover(
        database,
        configuration.node.data_dir,
        keep_s=settings.keep_s(configuration),
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
        pauses=settings.pauses(configuration),
        clock=time.time,
        certificates=tls.for_calling(configuration.tls, configuration.peers.values()),
    )
