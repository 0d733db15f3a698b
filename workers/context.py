"""What a task finds around it: the configuration, the database, the bundles, who it works for."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dicomnode import bundle, config
from dicomnode.archive.database import Database
from dicomnode.archive.files import FileStore
from dicomnode.bundle import Bundle
from dicomnode.config import Configuration


@dataclass(frozen=True, kw_only=True)
class Context:
    """The surroundings of one process.

    Attributes:
        owner: The worker that holds the leases: host, process and start of its main process.
        device: What `[worker] device` came to: "cpu" or "cuda:N".
    """

    configuration: Configuration = field(repr=False)
    database: Database
    store: FileStore
    bundles: Mapping[str, Bundle] = field(repr=False)
    owner: str
    device: str

    @staticmethod
    def now() -> float:
        """Seconds since the epoch."""
        return time.time()


@dataclass(frozen=True, kw_only=True)
class Worker:
    """What each process of a worker is told before it is forked: plain values.

    Attributes:
        file: The configuration.
        requested: `[worker] device` as configured.
        device: What it came to.
    """

    file: Path
    owner: str
    requested: str
    device: str

    def open(self) -> Context:
        """Make this process's own surroundings; connections do not survive a fork."""
        configuration = config.load(self.file)
        return Context(
            configuration=configuration,
            database=Database(configuration.database.url),
            store=FileStore(configuration.node.data_dir),
            bundles={
                name: bundle.load(model.bundle, manifest=model.manifest)
                for name, model in configuration.models.items()
            },
            owner=self.owner,
            device=self.device,
        )


class PerProcess:
    """The surroundings of whichever process asks: made once in each."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self._pid = 0
        self._context: Context | None = None

    def get(self) -> Context:
        """This process's context."""
        if self._context is None or self._pid != os.getpid():
            self._context, self._pid = self.worker.open(), os.getpid()
        return self._context
