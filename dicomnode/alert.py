"""The words for what an administrator is told of without asking: the kinds of alerts.

Each has a namesake among the rules of `deploy/monitoring/alerts.yaml` and in the runbook: a test
compares them.
"""

from __future__ import annotations

from enum import StrEnum


class Severity(StrEnum):
    """How soon somebody should look."""

    CRITICAL = "critical"  # studies wait or are refused now
    WARNING = "warning"  # in the course of the day


class Kind(StrEnum):
    """What can be wrong."""

    STUDY_FAILED = "study-failed"
    EVERYTHING_FAILS = "everything-fails"
    DESTINATION_DOWN = "destination-down"
    DELIVERY_FAILED = "delivery-failed"
    NO_WORKER = "no-worker"
    NO_DELIVERER = "no-deliverer"
    QUEUE_OLD = "queue-old"
    DELIVERIES_OLD = "deliveries-old"
    MODEL_SLOW = "model-slow"
    DISK_NEARLY_FULL = "disk-nearly-full"
    DISK_FILLS = "disk-fills"
    NOTHING_RECEIVED = "nothing-received"
    MANY_ASSOCIATIONS = "many-associations"

    @property
    def severity(self) -> Severity:
        """How soon somebody should look."""
        return Severity.CRITICAL if self in _CRITICAL else Severity.WARNING

    @property
    def is_of_a_disk(self) -> bool:
        """Whether its subject is a disk, whose name means nothing to people."""
        return self in (Kind.DISK_NEARLY_FULL, Kind.DISK_FILLS)

    @property
    def rule(self) -> str:
        """What the runbook and the rules of Prometheus call it: DicomnodeStudyFailed."""
        return "Dicomnode" + "".join(word.capitalize() for word in self.split("-"))


_CRITICAL = frozenset(
    {
        Kind.EVERYTHING_FAILS,
        Kind.DESTINATION_DOWN,
        Kind.NO_WORKER,
        Kind.NO_DELIVERER,
        Kind.DISK_NEARLY_FULL,
    }
)


class Occasion(StrEnum):
    """Why a message is sent."""

    BEGUN = "begun"
    STILL = "still"
    OVER = "over"
    TEST = "test"


class Channel(StrEnum):
    """How somebody is told."""

    EMAIL = "email"
    WEBHOOK = "webhook"
