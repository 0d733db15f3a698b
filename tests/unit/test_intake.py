"""How far the intake says that it is."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, func, select

from dicomnode import intake
from dicomnode.archive import tables
from dicomnode.archive.arrival import End, Ended, TurnedAway
from dicomnode.archive.auditing import outbox
from dicomnode.archive.database import Database
from dicomnode.archive.disk.files import FileStore
from dicomnode.auditing.message import Source
from dicomnode.auditing.recorder import Recorder
from dicomnode.errors import RetryLater
from dicomnode.intake import Intake, Patience

BEFORE, NOW = 1000.0, 2000.0


class Desk:
    """An intake at work, and the time."""

    def __init__(self, folder: Path) -> None:
        self.now = BEFORE
        self.database = Database(f"sqlite:///{folder}/node.db")
        self.database.migrate()
        self.intake = Intake(
            self.database,
            FileStore(folder / "data"),
            [],
            patience=Patience(settle_s=0, quiet_s=0),
            clock=lambda: self.now,
        )

    def report(self, count: int) -> None:
        for number in range(count):
            self.intake.report(
                Ended(association=str(number), end=End.RELEASED, at=self.now, stored=0, refused=0)
            )

    def written(self) -> int:
        with self.database.read() as tx:
            return tx.scalar(select(func.count()).select_from(tables.event)) or 0


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.database.close()


def test_before_the_first_step_nothing_is_claimed(desk: Desk) -> None:
    assert desk.intake.indexed_through() == -math.inf
    desk.intake.catch_up()
    assert desk.intake.indexed_through() == BEFORE


def test_a_batch_of_many_claims_nothing_until_the_last_is_written(desk: Desk) -> None:
    desk.intake.catch_up()
    count = 2 * intake._BATCH + 1
    desk.report(count)
    desk.now = NOW
    desk.intake.index_reported()
    assert desk.written() == intake._BATCH
    assert desk.intake.indexed_through() == BEFORE
    desk.intake.catch_up()
    assert desk.written() == count
    assert desk.intake.indexed_through() == NOW


def test_what_is_reported_meanwhile_is_not_counted_in(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    index_reported = desk.intake.index_reported

    def later() -> None:
        index_reported()
        desk.now = NOW
        desk.report(1)

    desk.report(1)
    monkeypatch.setattr(desk.intake, "index_reported", later)
    desk.intake.catch_up()
    assert desk.intake.indexed_through() == BEFORE


def test_a_refusal_whose_transaction_fails_at_its_end_is_told_by_the_next(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.database.recorder = Recorder(source=Source(id="NODE"), ae_title="NODE", host="ai1")
    desk.intake.report(
        TurnedAway(
            association="", peer="", reason="unknown-peer", detail="x", status=1,
            sop_instance_uid="", study_instance_uid="", at=BEFORE, address="10.6.6.6",
        )
    )  # fmt: skip
    write = desk.database.write

    @contextmanager
    def away(**_: Any) -> Iterator[Connection]:
        with write() as tx:
            yield tx
            raise RetryLater("database-unavailable", "It did not answer.")

    with monkeypatch.context() as patched:
        patched.setattr(desk.database, "write", away)
        desk.intake._step()
    desk.intake._step()
    with desk.database.read() as tx:
        assert len(outbox.waiting(tx, limit=9)) == 1
    assert not desk.intake._refusals._decided


def test_a_database_that_is_away_claims_nothing_new(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any, **__: Any) -> None:
        raise RetryLater("database-unavailable", "It did not answer.")

    desk.intake.catch_up()
    desk.report(1)
    desk.now = NOW
    with monkeypatch.context() as patched:
        patched.setattr(desk.database, "write", away)
        desk.intake._step()
    assert desk.intake.indexed_through() == BEFORE
    desk.intake._step()
    assert desk.intake.indexed_through() == NOW


def test_a_database_whose_connections_are_all_in_use_is_away(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.report(1)
    pool: Any = desk.database._engine.pool
    monkeypatch.setattr(pool, "_timeout", 0.01)
    with contextlib.ExitStack() as others:
        for _ in range(pool.size() + pool._max_overflow):
            others.enter_context(desk.database.read())
        assert desk.intake._step() == intake._RETRY_S
    desk.intake._step()
    assert desk.written() == 1
