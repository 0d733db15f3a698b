"""What a delivery tells a collector: the first attempt, success, the end, nothing between."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import audit_schema
import collectors
import pytest

from dicomnode import config
from dicomnode.archive.auditing import outbox
from dicomnode.archive.database import Database
from dicomnode.archive.disk.files import FileStore
from dicomnode.archive.work.deliveries import Delivery
from dicomnode.auditing.events import Query
from dicomnode.auditing.message import Source
from dicomnode.auditing.recorder import Recorder
from dicomnode.errors import Failed, NodeError, RetryLater
from dicomnode.job import DeliveryState, Purpose
from workers import audited
from workers.context import Context

BEGUN = "Begin Transferring DICOM Instances E 0"
SENT, AWAY, REFUSED = (f"DICOM Instances Transferred R {outcome}" for outcome in (0, 4, 8))
PACS = config.Peer.model_validate(
    {"ae_title": ["PACS"], "host": ["10.0.0.4"], "port": 104, "query": {"ae_title": "PACS_Q"}},
    strict=False,
)


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    file = tmp_path / "node.toml"
    file.write_text("")
    recorder = Recorder(source=Source(id="NODE"), ae_title="NODE", host="ai1")
    database = Database(f"sqlite:///{tmp_path}/node.db", recorder=recorder)
    database.migrate()
    yield Context(
        configuration=config.load(file, {}), database=database, store=FileStore(tmp_path / "data"),
        bundles={}, owner="w", device="",
    )  # fmt: skip
    database.close()


def delivery(attempts: int) -> Delivery:
    return Delivery(
        id="d", job="j", destination="pacs", purpose=Purpose.RESULTS, profile="", about=None,
        state=DeliveryState.SENDING, reason="", detail="", attempts=attempts, created_at=0.0,
        ended_at=None,
    )  # fmt: skip


def told(context: Context) -> list[str]:
    with context.database.read() as tx:
        return [collectors.told(one.body) for one in outbox.waiting(tx, limit=99)]


def attempt(context: Context, attempts: int, error: Exception | None = None) -> None:
    with audited.sending(context, delivery(attempts), PACS, "1.2.3", []):
        if error is not None:
            raise error


@pytest.mark.parametrize("attempts", [1, 2])
def test_what_was_sent_is_told(context: Context, attempts: int) -> None:
    attempt(context, attempts)
    assert told(context) == ([BEGUN, SENT] if attempts == 1 else [SENT])


@pytest.mark.parametrize(
    ("attempts", "error", "events"),
    [
        (1, RetryLater("no-answer", "."), [BEGUN, AWAY]),
        (2, RetryLater("no-answer", "."), []),
        (1, Failed("destination-refused", "."), [BEGUN, REFUSED]),
        (9, Failed("destination-refused", "."), [REFUSED]),
        (9, ValueError("a patient's name"), [REFUSED]),
    ],
)
def test_what_was_not_sent_is_told_once(
    context: Context, attempts: int, error: Exception, events: list[str]
) -> None:
    with pytest.raises(type(error)):
        attempt(context, attempts, error)
    assert told(context) == events
    with context.database.read() as tx:
        bodies = [one.body for one in outbox.waiting(tx, limit=9)]
    if events:
        said = audit_schema.parsed(bodies[-1]).findtext(".//EventOutcomeDescription")
        assert said == (error.reason if isinstance(error, NodeError) else "unexpected-error")


def test_what_an_earlier_attempt_sent_is_told_by_the_next(context: Context) -> None:
    audited.there_already(context, delivery(2), PACS, "1.2.3", [])
    assert told(context) == [SENT]


def test_what_was_asked_is_told_with_whom(context: Context) -> None:
    query = Query(sop_class_uid="1.2", transfer_syntax_uid="1.2.840.10008.1.2", identifier=b"x")
    audited.queried(context, delivery(1), PACS, [query, query])
    assert told(context) == ["Query E 0", "Query E 0"]
    with context.database.read() as tx:
        assert "AETITLES=PACS_Q" in outbox.waiting(tx, limit=1)[0].body


def test_without_a_collector_nothing_is_told(context: Context) -> None:
    context.database.recorder = None
    attempt(context, 1)
    audited.there_already(context, delivery(1), PACS, "1.2.3", [])
    audited.queried(context, delivery(1), PACS, [])
    assert told(context) == []
