"""What a task finds around it: the configuration, the database, the bundles, who it works for."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from dicomnode.archive.auditing.recording import database_of
from dicomnode.archive.database import Database
from dicomnode.archive.disk.files import FileStore
from dicomnode.archive.work import in_force
from dicomnode.archive.work.in_force import Lag
from dicomnode.bundle import Bundle
from dicomnode.config import Configuration
from dicomnode.errors import RetryLater
from dicomnode.network.tls import Certificates


@dataclass(frozen=True, kw_only=True)
class Context:
    """The surroundings of one process.

    Attributes:
        owner: The worker that holds the leases: host, process and start of its main process.
        device: What `[worker] device` came to: "cpu" or "cuda:N".
        certificates: What peers are called with over TLS, where any is.
    """

    configuration: Configuration = field(repr=False)
    database: Database
    store: FileStore
    bundles: Mapping[str, Bundle] = field(repr=False)
    owner: str
    device: str
    certificates: Certificates | None = None

    @staticmethod
    def now() -> float:
        """Seconds since the epoch."""
        return time.time()


@dataclass(frozen=True, kw_only=True)
class Worker:
    """What each process of a worker is told before it is forked: plain values, read once.

    Attributes:
        bundles: The models that it may run; a worker that only delivers has none.
        device: What `[worker] device` came to.
        certificates: What peers are called with over TLS, where any is.
    """

    configuration: Configuration = field(repr=False)
    bundles: Mapping[str, Bundle] = field(repr=False)
    owner: str
    device: str
    certificates: Certificates | None = None

    def open(self) -> Context:
        """Make this process's own surroundings; connections do not survive a fork."""
        return Context(
            configuration=self.configuration,
            database=database_of(self.configuration),
            store=FileStore(self.configuration.node.data_dir),
            bundles=self.bundles,
            owner=self.owner,
            device=self.device,
            certificates=self.certificates,
        )


# A worker that can takes another configuration up within seconds. For one that cannot somebody has
# to change a file, and each repetition is a line in the journal.
_RETRY_S = {Lag.SECONDS: 2.0, Lag.UNKNOWN: 30.0}


class Behind(RetryLater):
    """This worker has yet to take up the configuration that is in force: `configuration-behind`.

    Attributes:
        retry_s: How long to wait with what it could not do (seconds).
    """

    def __init__(self, *, retry_s: float) -> None:
        super().__init__(
            "configuration-behind",
            "This worker has yet to take up the configuration that is in force.",
        )
        self.retry_s = retry_s


def require_up_to_date(context: Context) -> None:
    """Make sure that what this worker lacks is not in the configuration that is in force, either.

    Raises:
        Behind: `configuration-behind`.
    """
    with context.database.read() as tx:
        lag = in_force.lag(tx, owner=context.owner)
    if lag is not Lag.NONE:
        raise Behind(retry_s=_RETRY_S[lag])


class PerProcess:
    """The surroundings of whichever process asks: made once in each."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self._pid = 0
        self._context: Context | None = None
        self._inherited: list[Context] = []

    def get(self) -> Context:
        """This process's context."""
        if self._context is None or self._pid != os.getpid():
            if self._context is not None:
                # SQLite forbids a child to close what its parent opened: it is kept, and not used.
                self._inherited.append(self._context)
            self._context, self._pid = self.worker.open(), os.getpid()
        return self._context
