"""The connection to SQLite (WAL) or PostgreSQL, and the schema's migrations."""

from __future__ import annotations

import fcntl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import alembic.command
import alembic.config
from sqlalchemy import Connection, Engine, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as NoneFree
from sqlalchemy.pool import ConnectionPoolEntry

from dicomnode.auditing.recorder import OPTION, Recorder
from dicomnode.errors import RetryLater

_BUSY_TIMEOUT_MS = 30_000
_MIGRATIONS = Path(__file__).parent / "migrations"
# Any number, the same in every process: who holds it may migrate.
_ADVISORY_LOCK = 0x0D1C0
# Bound parameters in one statement: SQLite allows 32,766, PostgreSQL 65,535.
_AT_ONCE = 500

T = TypeVar("T")


def in_parts(values: Iterable[T]) -> Iterator[list[T]]:
    """The values, so many at a time as one statement can name."""
    every = list(values)
    for start in range(0, len(every), _AT_ONCE):
        yield every[start : start + _AT_ONCE]


class Database:
    """Where the rows are. One for each process: connections do not survive a fork."""

    def __init__(self, url: str, *, recorder: Recorder | None = None) -> None:
        """Prepare.

        Args:
            url: As the configuration gives it.
            recorder: Who tells an audit collector of what is written; `None` where there is none.
        """
        self.url = url
        self.recorder = recorder
        self._is_sqlite = make_url(url).get_backend_name() == "sqlite"
        self._engine = create_engine(
            url,
            pool_pre_ping=not self._is_sqlite,
            hide_parameters=True,  # they hold what names a patient, and errors are logged
        )
        if self._is_sqlite:
            _prepare_sqlite(self._engine)

    @property
    def _sqlite_path(self) -> Path:
        return Path(make_url(self.url).database or "")

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection that sees one state of the database and changes nothing."""
        with _translated(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def write(self, *, durable: bool = False) -> Iterator[Connection]:
        """A transaction: committed at the end of the block, rolled back on any error.

        Args:
            durable: Whether it must survive a power cut once the block is left. PostgreSQL keeps
                every transaction so; SQLite would lose its last ones, not more.
        """
        with _translated(), self._engine.connect() as connection:
            writing = connection.execution_options(
                **{OPTION: self.recorder},
                dicomnode_write=True,
                dicomnode_synchronous="FULL" if durable else "NORMAL",
            )
            with writing.begin():
                yield writing

    def migrate(self) -> None:
        """Bring the schema up to date. Safe when several processes start at once."""
        if self._is_sqlite:
            self._sqlite_path.parent.mkdir(parents=True, exist_ok=True)
        with _translated(), self._migration_lock(), self.write() as connection:
            config = alembic.config.Config()
            config.set_main_option("script_location", str(_MIGRATIONS))
            config.attributes["connection"] = connection
            alembic.command.upgrade(config, "head")

    def has_schema(self) -> bool:
        """Whether a node has ever used this database. Asking leaves nothing behind."""
        if self._is_sqlite and not self._sqlite_path.is_file():
            return False
        with _translated():
            return inspect(self._engine).has_table("study")

    @contextmanager
    def _migration_lock(self) -> Iterator[None]:
        if self._is_sqlite:
            with self._sqlite_path.with_suffix(".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield
        else:
            with self._engine.connect() as connection:
                connection.execute(text(f"SELECT pg_advisory_lock({_ADVISORY_LOCK})"))
                try:
                    yield
                finally:
                    connection.execute(text(f"SELECT pg_advisory_unlock({_ADVISORY_LOCK})"))

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()


@contextmanager
def _translated() -> Iterator[None]:
    """Name what the database's driver raises when the database is away or locked."""
    try:
        yield
    except DBAPIError as error:
        if error.connection_invalidated or isinstance(error, OperationalError):
            raise RetryLater(
                "database-unavailable", f"The database did not answer: {error.orig}."
            ) from error
        raise
    except NoneFree as error:
        raise RetryLater(
            "database-unavailable", "Every connection to the database is in use: it is slow."
        ) from error


def _prepare_sqlite(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def _on_connect(dbapi_connection: Any, _record: ConnectionPoolEntry) -> None:
        # SQLAlchemy, not the driver, says where a transaction begins.
        dbapi_connection.isolation_level = None
        cursor = dbapi_connection.cursor()
        for pragma in (
            f"busy_timeout={_BUSY_TIMEOUT_MS}",
            "journal_mode=WAL",
            "synchronous=NORMAL",
            "foreign_keys=ON",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _on_begin(connection: Connection) -> None:
        # A writer takes its lock at once: a reader that turns writer half-way could only fail.
        options = connection.get_execution_options()
        writes = options.get("dicomnode_write", False)
        if writes:
            connection.exec_driver_sql(f"PRAGMA synchronous={options['dicomnode_synchronous']}")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
