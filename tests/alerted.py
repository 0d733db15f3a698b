"""Alerts without a node: a database, a configuration, and a clock that is told what time it is."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

import paged
from sqlalchemy import Connection, select

from dicomnode import config
from dicomnode.alert import Channel
from dicomnode.alerting import letter
from dicomnode.alerting.letter import Letter
from dicomnode.alerting.postman import Postman
from dicomnode.alerting.watcher import Watcher
from dicomnode.archive import tables
from dicomnode.archive.alerts import messages, standing
from dicomnode.archive.alerts.messages import Message
from dicomnode.archive.alerts.standing import Alert
from dicomnode.archive.database import Database
from dicomnode.archive.studies import index
from dicomnode.archive.work import deliveries, leases, moves
from dicomnode.config import Configuration
from dicomnode.job import JobState

MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0
NOW = paged.NOW

CHANNELS = """
[alerts.email]
host = "127.0.0.1"
from = "node@hospital.example"
to = ["team@hospital.example"]

[alerts.webhook]
url = "http://127.0.0.1:9/hook"
"""


def configured(folder: Path, alerts: str = CHANNELS) -> Configuration:
    """A configuration with some peers, and what is said of [alerts]."""
    file = folder / "node.toml"
    file.write_text(f"{paged.CONFIGURATION}\n[disk]\nmin_free_gib = 0\nfloor_gib = 0\n{alerts}")
    read = config.load(file, {})
    read.node.data_dir.mkdir(exist_ok=True)
    return read


@dataclass(kw_only=True)
class Watch:
    """A watcher over a database, some time after the node has started."""

    database: Database
    configuration: Configuration
    now: float = NOW
    watcher: Watcher = field(init=False)

    def __post_init__(self) -> None:
        self.restart(running_for=DAY)

    def restart(self, *, running_for: float = 0.0) -> None:
        """Let the node be another process."""
        self.watcher = Watcher(self.database, started_at=self.now - running_for)

    def step(self, after: float = 0.0) -> list[Alert]:
        """Look once, some seconds later; returns what is open."""
        self.now += after
        self.watcher.step(self.configuration, now=self.now)
        return self.open

    def watch(self, seconds: float, *, every: float = 15.0) -> list[Alert]:
        """Look again and again for a while; returns what is open in the end."""
        end = self.now + seconds
        while self.now < end:
            self.step(min(every, end - self.now))
        return self.open

    @property
    def open(self) -> list[Alert]:
        with self.database.read() as tx:
            return standing.open_now(tx)

    @property
    def kinds(self) -> list[str]:
        return [str(alert.kind) for alert in self.open]

    @property
    def looming(self) -> list[str]:
        with self.database.read() as tx:
            return [str(one.kind) for one in standing.current(tx) if one.told_at is None]

    def written(self) -> list[tuple[str, str, str]]:
        """Kind, occasion and channel of every message that was ever written."""
        one, alert = tables.alert_message.c, tables.alert.c
        with self.database.read() as tx:
            rows = tx.execute(
                select(alert.kind, one.occasion, one.channel)
                .join(tables.alert, alert.id == one.alert)
                .order_by(one.id)
            )
            return [(row[0], row[1], row[2]) for row in rows]

    def told(self) -> list[str]:
        """The same of one channel, as a word."""
        return [f"{kind} {said}" for kind, said, channel in self.written() if channel == "email"]

    def letters(self) -> list[Letter]:
        """What one channel is to say, in words; it is taken as sent."""
        found = []
        while (message := self.claim()) is not None:
            found.append(letter.of(message, self.configuration))
            with self.database.write() as tx:
                messages.sent(tx, message, at=self.now)
        return found

    def claim(self, channel: str = "email") -> Message | None:
        with self.database.write() as tx:
            return messages.claim(tx, Channel(channel), at=self.now, lease_s=120)

    def send(self) -> None:
        """Let each channel send one message."""
        postman = Postman(self.database, clock=lambda: self.now)

        async def each() -> None:
            await asyncio.gather(
                *(postman.send_one(channel, self.configuration) for channel in Channel)
            )

        asyncio.run(each())


def job(tx: Connection, study: str, *, at: float) -> str:
    """A study that has come and been routed; returns its job."""
    paged.arrive(
        tx, study, at=at, PatientName="Lindqvist^Astrid", PatientID="P-20425",
        PatientBirthDate="19530412", AccessionNumber="A-77120",
    )  # fmt: skip
    paged.decide(tx, study)
    return paged.ask_for(tx, study, at=at)


def fail(tx: Connection, study: str, *, at: float, reason: str = "missing-slices") -> str:
    """A study whose only job fails."""
    made = job(tx, study, at=at)
    moves.claim(tx, made, owner="worker", at=at, lease_s=60)
    moves.end(
        tx, made, JobState.FAILED, at=at, owner="worker", reason=reason,
        detail="Lindqvist^Astrid lacks a slice.", timings={},
    )  # fmt: skip
    return made


def predicted(tx: Connection, study: str, folder: Path, *, at: float) -> deliveries.Delivery:
    """A study whose results wait to be delivered."""
    (one,) = paged.predict(tx, job(tx, study, at=at), folder, at=at)
    return one


def attempt(
    tx: Connection, one: deliveries.Delivery, *, at: float, reason: str = "destination-unreachable"
) -> None:
    """One attempt to deliver, in vain."""
    taken = deliveries.claim(tx, one.id, owner="worker", at=at, lease_s=60)
    assert taken is not None
    deliveries.try_again(
        tx, taken, owner="worker", at=at, not_before=at, reason=reason, detail="10.0.0.4 is away.",
        counts=reason != "awaiting-commitment",
    )  # fmt: skip


def workers(tx: Connection, *, at: float) -> None:
    """A worker of each sort shows a sign of life."""
    leases.report_worker(tx, owner="gpu", device="cuda:0", requested="auto", slots=1, at=at)
    leases.report_worker(tx, owner="out", device="", requested="", slots=0, at=at)


def arrivals(tx: Connection, *, until: float, weeks: int = 5) -> None:
    """A study comes every twenty minutes, around the clock, for some weeks, until a moment."""
    rows = []
    for number in range(int(weeks * 7 * DAY / 1200)):
        at = until - 1200 * number
        rows.append(
            {
                "id": f"v{number}", "peer": "mr1", "calling_ae_title": "MR1", "end": "released",
                "address": "10.0.0.5", "opened_at": at - 5, "ended_at": at, "stored": 20,
                "refused": 0,
            }
        )  # fmt: skip
    tx.execute(tables.association.insert(), rows)
    index.add(tx, paged.instances("1.2.3.4.5", at=until - 0.02, count=1))
