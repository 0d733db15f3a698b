"""A job: one model run on one set of series for one rule. Its states and the moves between them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from enum import StrEnum


class JobState(StrEnum):
    """Where a job stands."""

    PENDING = "pending"
    PREDICTING = "predicting"
    DELIVERING = "delivering"
    DELIVERED = "delivered"
    NOT_APPLICABLE = "not_applicable"
    FAILED = "failed"
    SUPERSEDED = "superseded"

    @property
    def is_final(self) -> bool:
        """Whether the node does nothing more by itself."""
        return self not in _OPEN


_OPEN = frozenset({JobState.PENDING, JobState.PREDICTING, JobState.DELIVERING})

#: state → the states that may follow. Anything else is a fault of the program.
MOVES: dict[JobState, frozenset[JobState]] = {
    JobState.PENDING: frozenset({JobState.PREDICTING, JobState.SUPERSEDED, JobState.FAILED}),
    JobState.PREDICTING: frozenset(
        {
            JobState.PENDING,  # handed back, lease expired, or worth another try
            JobState.DELIVERING,
            JobState.NOT_APPLICABLE,
            JobState.FAILED,
            JobState.SUPERSEDED,
        }
    ),
    JobState.DELIVERING: frozenset({JobState.DELIVERED, JobState.FAILED, JobState.SUPERSEDED}),
    # An administrator may have the results sent to one more destination.
    JobState.DELIVERED: frozenset({JobState.DELIVERING, JobState.SUPERSEDED}),
    JobState.NOT_APPLICABLE: frozenset({JobState.SUPERSEDED}),
    # An administrator may have a failed job run, or only sent, once more.
    JobState.FAILED: frozenset({JobState.PENDING, JobState.DELIVERING, JobState.SUPERSEDED}),
    JobState.SUPERSEDED: frozenset({JobState.PENDING}),  # a later revision wants it again
}


class DeliveryState(StrEnum):
    """Where the delivery of one job's results to one destination stands."""

    PENDING = "pending"
    SENDING = "sending"
    CONFIRMED = "confirmed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Purpose(StrEnum):
    """What a delivery is there for."""

    RESULTS = "results"
    NOT_ANALYSED = "not-analysed"
    REJECTION = "rejection"


class Priority(StrEnum):
    """How urgent a rule's jobs are."""

    ROUTINE = "routine"
    STAT = "stat"


def result_key(inputs: Mapping[str, Iterable[str]], *, model_digest: str) -> str:
    """The idempotency key of a result: what went in, and what it was made with.

    The same images through the same weights give the same key, therefore the same UIDs, on every
    machine and at every repetition.

    Args:
        inputs: The model's input name → SOP Instance UIDs, in any order.
        model_digest: SHA-256 over the bundle's lock.
    """
    digest = hashlib.sha256(model_digest.encode())
    for name in sorted(inputs):
        digest.update(f"\x1e{name}".encode())
        for sop_instance_uid in sorted(set(inputs[name])):
            digest.update(f"\x1f{sop_instance_uid}".encode())
    return digest.hexdigest()
