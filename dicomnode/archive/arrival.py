"""What the receiver tells the intake: facts in the order in which they happened.

The receiver and the intake are processes of their own: a fact goes between them as one line.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from operator import attrgetter


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
    repeated: bool = False  # it was there before, and is perhaps not indexed: who knows who died


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
    calling_ae_title: str = ""  # of an association that was refused; "" where it did not get so far
    address: str = ""  # likewise, where from


@dataclass(frozen=True, kw_only=True)
class Ended:
    """An association is over; nothing more comes from it."""

    association: str
    end: End
    stored: int  # acknowledged with success, repeats included
    refused: int
    at: float


Arrival = Opened | Stored | TurnedAway | Ended

_KINDS: Mapping[str, type[Arrival]] = {
    "opened": Opened,
    "stored": Stored,
    "turned-away": TurnedAway,
    "ended": Ended,
}
_WORDS = {kind: word for word, kind in _KINDS.items()}
_NAMES = {kind: tuple(one.name for one in fields(kind)) for kind in _KINDS.values()}
_VALUES = {kind: attrgetter(*names) for kind, names in _NAMES.items()}
# One encoder for all: `json.dumps` would make a new one each time. What is not ASCII is escaped.
_ENCODER = json.JSONEncoder(separators=(",", ":"))


def encode(arrival: Arrival) -> bytes:
    r"""One line of JSON for one fact, "\n" at its end and nowhere else: a word, then the values."""
    kind = type(arrival)
    return _ENCODER.encode([_WORDS[kind], *_VALUES[kind](arrival)]).encode("ascii") + b"\n"


def decode(line: bytes) -> Arrival:
    """The fact that `encode` made a line of.

    Raises:
        ValueError: It is no such line.
    """
    try:
        word, *values = json.loads(line)
        kind = _KINDS[word]
        facts = dict(zip(_NAMES[kind], values, strict=True))
        return Ended(**{**facts, "end": End(facts["end"])}) if kind is Ended else kind(**facts)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"no fact of a listener: {line[:80]!r}") from error
