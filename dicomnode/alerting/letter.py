"""A letter: a message in words, with what its channel needs to carry it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from dicomnode.alerting import wording
from dicomnode.alerting.wording import Wording
from dicomnode.archive.alerts.messages import Message
from dicomnode.config import Configuration


@dataclass(frozen=True, kw_only=True)
class Letter:
    """A letter.

    Attributes:
        id: The same however often it is sent: a receiver can tell that it has it.
        thread: The id of the letter that began it.
        node: The AE title of who sends it.
        about: What it is about: a name from the configuration, or "".
        since: Since when something is wrong; `None` in a test.
        written_at: The moment that it speaks of.
    """

    id: str
    thread: str
    node: str
    about: str
    since: datetime | None
    written_at: datetime
    wording: Wording

    @property
    def subject(self) -> str:
        """One line that says where and what. It has no line break, whatever a name may hold."""
        return " ".join(f"[{self.node}] {self.wording.title}".split())

    @property
    def document(self) -> dict[str, Any]:
        """The letter for a program. `text` is what chat programs show."""
        kind = self.wording.kind
        return {
            "type": f"dicomnode.alert.{self.wording.occasion}",
            "timestamp": _written(self.written_at),
            "text": self.subject,
            "data": {
                "node": self.node,
                "alert": str(kind) if kind else "",
                "rule": kind.rule if kind else "",
                "severity": str(kind.severity) if kind else "",
                "about": self.about,
                "since": _written(self.since) if self.since else None,
                "thread": self.thread,
                "title": self.wording.title,
                "seen": self.wording.seen,
                "means": self.wording.means,
                "to_do": list(self.wording.to_do),
                "link": self.wording.link,
            },
        }


def _written(at: datetime) -> str:
    return at.isoformat(timespec="seconds")


def _thread(message: Message, configuration: Configuration) -> str:
    """A name that no other node, and no other database of this one, gives to an alert.

    Mail servers and receivers take what bears the name of another message for a repetition, and
    show it to nobody.
    """
    about = (configuration.node.ae_title, message.kind, message.subject, message.since)
    told_apart = hashlib.sha256("\x1f".join(map(str, about)).encode()).hexdigest()[:12]
    return f"alert-{message.alert}-{told_apart}"


def of(message: Message, configuration: Configuration) -> Letter:
    """The letter that a message of the database is."""
    thread = _thread(message, configuration)
    ends = {"begun": "", "over": "-over"}
    return Letter(
        id=thread + ends.get(message.occasion, f"-{message.id}"),
        thread=thread,
        node=configuration.node.ae_title,
        about=wording.about(message.kind, message.subject, message.facts),
        since=datetime.fromtimestamp(message.since, UTC),
        written_at=datetime.fromtimestamp(message.at, UTC),
        wording=wording.of_alert(
            message.kind,
            message.subject,
            message.occasion,
            since=message.since,
            at=message.at,
            facts=message.facts,
            public_url=configuration.web.public_url,
        ),
    )


def of_test(configuration: Configuration, *, at: float) -> Letter:
    """A letter that says that letters arrive."""
    name = f"alert-test-{at:.0f}"
    return Letter(
        id=name,
        thread=name,
        node=configuration.node.ae_title,
        about="",
        since=None,
        written_at=datetime.fromtimestamp(at, UTC),
        wording=wording.of_test(configuration.web.public_url),
    )
