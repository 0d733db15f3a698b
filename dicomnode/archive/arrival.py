"""What the receiver tells the intake: facts in the order in which they happened."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class End(StrEnum):
    """How an association ended."""

    RELEASED = "released"
    ABORTED = "aborted"  # A-ABORT by the peer or by us
    LOST = "lost"  # the connection went away, or a timeout
    UNKNOWN = "unknown"  # the receiver itself died


@dataclass(frozen=True, kw_only=True)
class Opened:
    """An association was accepted."""

    association: str  # unique for ever: made by the receiver
    peer: str  # the name in the configuration, or "" for an unknown peer
    calling_ae_title: str
    address: str
    at: float  # seconds since the epoch


@dataclass(frozen=True, kw_only=True)
class Stored:
    """An instance is safe on disk and was acknowledged, or is just about to be."""

    association: str
    path: str  # relative to the data folder
    at: float


@dataclass(frozen=True, kw_only=True)
class TurnedAway:
    """An instance or an association was refused."""

    association: str  # "" when the association itself was refused
    peer: str
    reason: str
    detail: str
    status: int
    sop_instance_uid: str
    study_instance_uid: str  # "" when it could not be read
    at: float


@dataclass(frozen=True, kw_only=True)
class Ended:
    """An association is over; nothing more comes from it."""

    association: str
    end: End
    stored: int  # acknowledged with success, repeats included
    refused: int
    at: float


Arrival = Opened | Stored | TurnedAway | Ended
