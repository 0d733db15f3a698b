"""The receiving side: one process, built from the configuration; runs until a signal."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import threading
import time
import uuid
from pathlib import Path
from typing import IO

from dicomnode import bundle, log, routing
from dicomnode.archive.database import Database
from dicomnode.archive.files import FileStore
from dicomnode.config import Configuration
from dicomnode.errors import Failed, Misconfigured, NodeError
from dicomnode.intake import Intake, Patience
from dicomnode.network.acceptor import Acceptor

_log = log.get(__name__)

LISTENING_NAME = "listening.json"
_LOCK_NAME = "serve.lock"


class Node:
    """Receives, indexes, completes and routes. `start`, then `stop`; or `run` for both."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        data_dir = configuration.node.data_dir
        data_dir.mkdir(parents=True, exist_ok=True)
        self._only_one = _claim(data_dir)
        self._listening = data_dir / LISTENING_NAME
        self._store = FileStore(data_dir)
        self._database = Database(configuration.database.url)
        self._intake = Intake(
            self._database,
            self._store,
            _rules(configuration),
            patience=Patience(
                settle_s=configuration.complete.settle_s, quiet_s=configuration.complete.quiet_s
            ),
            clock=time.time,
        )
        self._acceptor = Acceptor(
            listen=configuration.listen,
            node_ae_title=configuration.node.ae_title,
            peers=configuration.peers,
            store=self._store,
            report=self._intake.report,
            clock=time.time,
            new_association_id=lambda: uuid.uuid4().hex,
        )
        self._end = threading.Event()
        self._fault: NodeError | None = None
        self._stop_intake = threading.Event()
        self._intake_thread = threading.Thread(target=self._run_intake, name="intake")

    @property
    def port(self) -> int:
        """The port that is listened on, also where the configuration says 0."""
        return self._acceptor.port

    def start(self) -> None:
        """Mend what an earlier life left, then listen."""
        self._database.migrate()
        removed = self._store.remove_partial()
        self._intake.reconcile()
        self._acceptor.start()
        self._intake_thread.start()
        self._announce()
        ae_title = self._configuration.node.ae_title
        _log.info("listening", port=self.port, ae_title=ae_title, removed=removed)

    def stop(self) -> None:
        """End associations, write down what they brought, close."""
        self._listening.unlink(missing_ok=True)
        self._acceptor.stop()
        self._stop_intake.set()
        if self._intake_thread.ident is not None:
            self._intake_thread.join()
        self._database.close()
        self._only_one.close()
        _log.info("stopped")

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT.

        Raises:
            Failed: `intake-died`. What was received is safe; the next start takes it up.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._end.set())
        try:
            self.start()
            self._end.wait()
        finally:
            self.stop()
        if self._fault is not None:
            raise self._fault

    def _run_intake(self) -> None:
        """The edge of this thread: a receiver whose studies go nowhere must not go on receiving."""
        try:
            self._intake.run(self._stop_intake)
        except Exception as error:  # noqa: BLE001 - see above
            _log.exception("intake died")
            self._fault = Failed("intake-died", f"{type(error).__name__}; see the log.")
            self._end.set()

    def _announce(self) -> None:
        """Leave a note of where we listen: for `status`, and for whoever asked for port 0."""
        draft = self._listening.with_suffix(".part")
        draft.write_text(json.dumps({"pid": os.getpid(), "port": self.port}))
        draft.rename(self._listening)


def listening(data_dir: Path) -> int | None:
    """The port that a node with this data folder listens on, or `None` when none does."""
    try:
        note = json.loads((data_dir / LISTENING_NAME).read_text())
        os.kill(int(note["pid"]), 0)
    except PermissionError:
        pass  # it is there, and another user's
    except (OSError, ValueError):
        return None
    return int(note["port"])


def _claim(data_dir: Path) -> IO[str]:
    """Make sure that no second receiver works on the same folder."""
    lock = (data_dir / _LOCK_NAME).open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise Misconfigured(
            "already-running", f"Another node works on {data_dir}. Stop it, or set node.data_dir."
        ) from error
    return lock


def _rules(configuration: Configuration) -> tuple[routing.Rule, ...]:
    bundles = {
        name: bundle.load(model.bundle, manifest=model.manifest)
        for name, model in configuration.models.items()
    }
    return routing.rules(configuration, bundles)
