"""A database with rows in it is brought from the fourth schema to the last, on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import alembic.autogenerate
import alembic.command
import alembic.config
import alembic.migration
import pytest
from sqlalchemy import Connection, MetaData, select

from dicomnode.archive import tables
from dicomnode.archive.auditing import outbox, told
from dicomnode.archive.database import Database
from dicomnode.archive.studies import index
from dicomnode.auditing.message import Source
from dicomnode.auditing.recorder import Recorder
from dicomnode.job import DeliveryState, JobState

_WORK = {
    "reason": "", "detail": "", "attempts": 1, "not_before": 0.0, "created_at": 1.0,
    "ended_at": 2.0,
}  # fmt: skip
# table → its rows, as the node wrote them before [audit], [alerts] and [oidc].
_BEFORE: dict[str, list[dict[str, object]]] = {
    "association": [
        {"id": "a1", "peer": "ct1", "calling_ae_title": "CT1", "address": "10.0.0.5",
         "opened_at": 1.0, "ended_at": 2.0, "end": "released", "stored": 1, "refused": 0},
    ],
    "study": [
        {"study_instance_uid": "1.2", "state": index.COMPLETE, "revision": 1, "first_at": 1.0,
         "last_at": 1.0, "completed_at": 2.0, "because": "x", "outcome": "delivered",
         "source": "ct1", "patient_id": "p-1", "patient_name": "doe jane",
         "accession_number": "a1", "modalities": " CT ", "received": 1, "received_bytes": 9},
    ],
    "series": [
        {"study_instance_uid": "1.2", "series_instance_uid": "1.2.1",
         "header": {"PatientID": "P-1", "PatientName": "Doe^Jane", "AccessionNumber": "A1"}},
    ],
    "instance": [
        {"sop_instance_uid": "1.2.1.1", "study_instance_uid": "1.2",
         "series_instance_uid": "1.2.1", "sop_class_uid": "1.2.840.10008.5.1.4.1.1.2",
         "transfer_syntax_uid": "1.2.840.10008.1.2.1", "digest": "00", "path": "i/1", "size": 9,
         "header": {}, "association": "a1", "received_at": 1.0},
    ],
    "job": [
        {"id": "j1", "key": "k", "study_instance_uid": "1.2", "revision": 1, "rule": "r",
         "model": "m", "model_digest": "00", "inputs": {}, "send_to": ["pacs"], "notify": {},
         "urgency": 0, "timings": {}, "device": "", "state": JobState.DELIVERED, **_WORK},
    ],
    "delivery": [
        {"id": "d1", "job": "j1", "destination": "pacs", "purpose": "results", "profile": "",
         "superseded": "keep", "state": DeliveryState.CONFIRMED, **_WORK},
    ],
    "worker": [
        {"id": "w1", "device": "cpu", "requested": "auto", "slots": 1, "started_at": 1.0,
         "seen_at": 2.0, "stopped": False},
    ],
    "person": [
        {"name": name, "role": "viewer", "password_hash": "x", "created_at": 1.0,
         "changed_at": 1.0}
        for name in ("ada", "bob")  # neither has a subject, which is no matter for the index
    ],
    "session": [
        {"digest": "00", "person": "ada", "address": "10.0.0.9", "created_at": 1.0,
         "ends_at": 9.0},
    ],
    "audit": [
        {"at": 1.0, "person": "ada", "address": "10.0.0.9", "action": "sign in", "subject": "",
         "outcome": "done", "detail": ""},
    ],
}  # fmt: skip
# What the new columns of these rows hold.
_SINCE: dict[str, dict[str, object]] = {
    "worker": {"serial": 0, "configuration": "", "behind": ""},
    "person": {"issuer": "", "subject": None},
}


@pytest.fixture(
    params=["sqlite", pytest.param("postgresql", marks=pytest.mark.server("postgresql"))]
)
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database of the fourth schema, with rows in it."""
    url = (
        f"sqlite:///{tmp_path}/node.db"
        if request.param == "sqlite"
        else request.getfixturevalue("postgres_url")
    )
    made = Database(url)
    with made.write() as tx:
        alembic.command.upgrade(_settings(tx), "0004")
    with made.write() as tx:
        then = MetaData()
        then.reflect(tx)
        for name, rows in _BEFORE.items():
            tx.execute(then.tables[name].insert(), rows)
    yield made
    made.close()


def _settings(tx: Connection) -> alembic.config.Config:
    made = alembic.config.Config()
    made.set_main_option("script_location", str(Path(str(tables.__file__)).parent / "migrations"))
    made.attributes["connection"] = tx
    return made


def test_what_was_there_is_there_still(old: Database) -> None:
    old.migrate()
    with old.read() as tx:
        for name, rows in _BEFORE.items():
            found = tx.execute(select(tables.metadata.tables[name])).mappings().all()
            assert len(found) == len(rows), name
            for row, was in zip(found, rows, strict=True):
                expected = was | _SINCE.get(name, {})
                assert {key: row[key] for key in expected} == expected
        context = alembic.migration.MigrationContext.configure(tx)
        assert alembic.autogenerate.compare_metadata(context, tables.metadata) == []


def test_an_audit_message_names_what_came_before_there_were_any(old: Database) -> None:
    old.migrate()
    old.recorder = Recorder(source=Source(id="NODE"), ae_title="NODE", host="ai1")
    with old.write() as tx:
        told.received(tx, "a1", at=3.0)
        (waits,) = outbox.waiting(tx, limit=9)
    assert "Doe^Jane" in waits.body


@pytest.mark.parametrize("revision", ["0005", "0006", "0007"])
def test_an_upgrade_that_stopped_on_the_way_goes_on(old: Database, revision: str) -> None:
    with old.write() as tx:
        alembic.command.upgrade(_settings(tx), revision)
    old.migrate()
    with old.read() as tx:
        assert tx.scalars(select(tables.person.c.name)).all() == ["ada", "bob"]
        assert tx.scalar(select(tables.worker.c.serial)) == 0
