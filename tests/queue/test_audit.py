"""The outbox of audit messages, on both databases."""

from __future__ import annotations

import pytest
from sqlalchemy import Connection, func, select

from dicomnode.archive import journal, tables
from dicomnode.archive.auditing import outbox, told
from dicomnode.archive.auditing.outbox import State
from dicomnode.archive.database import Database
from dicomnode.archive.journal import Kind
from dicomnode.auditing.message import Source
from dicomnode.auditing.recorder import Recorder

RECORDER = Recorder(source=Source(id="NODE"), ae_title="NODE", host="ai1")


def put(database: Database, *, at: float) -> None:
    with database.write() as tx:
        told.application(tx, has_started=True, at=at)


def state(database: Database) -> State:
    with database.read() as tx:
        return outbox.state(tx)


def test_messages_wait_in_order_and_go_when_they_are_settled(database: Database) -> None:
    database.recorder = RECORDER
    for at in range(5):
        put(database, at=float(at))
    with database.read() as tx:
        first = outbox.waiting(tx, limit=2)
        rest = outbox.waiting(tx, limit=9, besides={one.id for one in first})
    assert [one.at for one in (*first, *rest)] == [0.0, 1.0, 2.0, 3.0, 4.0]
    with database.write() as tx:
        outbox.fail(tx, reason="collector-unreachable", detail="x", at=7.0)
        outbox.fail(tx, reason="collector-unreachable", detail="x", at=8.0)
    assert state(database) == State(
        waiting=5, failed=2, failing_since=7.0, reason="collector-unreachable", detail="x"
    )
    with database.write() as tx:
        outbox.settle(tx, [one.id for one in first], at=9.0)
        outbox.discard(tx, [rest[0].id])
    assert state(database) == State(waiting=2, sent=2, failed=2, dropped=1, sent_at=9.0)


def test_what_is_too_old_and_what_is_too_much_expires(database: Database) -> None:
    database.recorder = RECORDER
    for at in range(6):
        put(database, at=float(at))
    with database.read() as tx:
        every = [one.id for one in outbox.waiting(tx, limit=9)]
        assert outbox.expired(tx, before=0.0, most=6) == []
        assert outbox.expired(tx, before=2.0, most=6) == every[:2]
        assert outbox.expired(tx, before=2.0, most=1) == every[:5]


def test_what_fails_in_the_database_undoes_nothing_of_what_it_tells_of(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(tx: Connection, *_: object) -> None:
        tx.execute(tables.in_force.insert().values(id=1))  # serial is missing

    monkeypatch.setattr(outbox, "put", fails)
    database.recorder = RECORDER
    with database.write() as tx:
        journal.write(tx, Kind.FILE_MISSING, at=1.0)
        told.application(tx, has_started=True, at=1.0)
        journal.write(tx, Kind.FILE_MISSING, at=2.0)
    with database.read() as tx:
        assert tx.scalar(select(func.count()).select_from(tables.event)) == 2
    assert state(database) == State(dropped=1)


def test_a_database_without_a_recorder_takes_none(database: Database) -> None:
    put(database, at=1.0)
    assert state(database) == State()
