"""What came of a day: each answer noted, and at the end the sum of them."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

Document = dict[str, Any]

_PERCENTILES = (50, 90, 99)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a node said to one object, or about one association.

    Attributes:
        station: AE title of the sender.
        study_instance_uid, sop_instance_uid: Of the object; "" for an association.
        reason: Why it was not taken: a word, or a DIMSE status; "" where it was.
        is_final: Whether that was the last word: what is not final is tried again.
        is_meant: Whether the plan means it to be refused, or left without an answer.
        seconds: From the first byte of the request to the answer; `None` where none came.
    """

    station: str
    study_instance_uid: str = ""
    sop_instance_uid: str = ""
    reason: str = ""
    is_final: bool = True
    is_meant: bool = False
    seconds: float | None = None

    @property
    def is_about_an_object(self) -> bool:
        """Whether it is about an object, not an association."""
        return bool(self.sop_instance_uid)

    @property
    def is_taken(self) -> bool:
        """Whether the node said that it has it."""
        return not self.reason


@dataclass(kw_only=True)
class Account:
    """The answers of a day. Several threads note them.

    Attributes:
        tell: Told of each answer, one after the other.
    """

    tell: Callable[[Answer], None] = field(default=lambda _: None)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _counts: Counter[str] = field(default_factory=Counter)
    _refused: Counter[tuple[str, str, bool]] = field(default_factory=Counter)
    _seconds: list[float] = field(default_factory=list)
    _studies: set[str] = field(default_factory=set)

    def note(self, answer: Answer) -> None:
        """Take note of an answer. Any thread may call it."""
        with self._lock:
            self._note(answer)
            self.tell(answer)

    def silence(self) -> None:
        """Tell of no answer any more; who still sends may come too late for whoever was told."""
        with self._lock:
            self.tell = lambda _: None

    def _note(self, answer: Answer) -> None:
        what = "object" if answer.is_about_an_object else "association"
        if answer.is_taken:
            self._counts[f"{what}s taken"] += 1
            if answer.is_meant:
                self._counts[f"{what}s taken though wrong"] += 1
            if answer.is_about_an_object:
                self._studies.add(answer.study_instance_uid)
            if answer.seconds is not None:
                self._seconds.append(answer.seconds)
        elif answer.is_final:
            self._refused[what, answer.reason, answer.is_meant] += 1
        else:
            self._counts[f"{what}s tried again"] += 1

    def document(self, *, planned: Document, seconds: float) -> Document:
        """The account, as `--json` prints it.

        Args:
            planned: What was to be sent.
            seconds: How long it took.
        """
        with self._lock:
            counts = dict(self._counts)
            return {
                "planned": planned,
                "acknowledged": counts.get("objects taken", 0),
                "studies": len(self._studies),
                "taken_though_wrong": counts.get("objects taken though wrong", 0)
                + counts.get("associations taken though wrong", 0),
                "tried_again": {
                    "objects": counts.get("objects tried again", 0),
                    "associations": counts.get("associations tried again", 0),
                },
                "refused": [
                    {"what": what, "reason": reason, "count": count, "meant": is_meant}
                    for (what, reason, is_meant), count in sorted(self._refused.items())
                ],
                "answer_ms": _percentiles(self._seconds),
                "seconds": round(seconds, 1),
            }


def is_well(document: Document) -> bool:
    """Whether a node took everything that was as it should be."""
    return all(one["meant"] for one in document["refused"])


def _percentiles(seconds: Sequence[float]) -> Document:
    """How long answers took, in ms: half of them at most that of 50."""
    if not seconds:
        return {}
    ordered = sorted(seconds)
    found = {str(p): _ms(ordered[(len(ordered) - 1) * p // 100]) for p in _PERCENTILES}
    return found | {"longest": _ms(ordered[-1])}


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 2)
