"""Lines of the journal as sentences."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dicomnode.archive.journal import Entry, Kind

_Facts = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Event:
    """One line of a timeline.

    Attributes:
        after_s: Seconds since the line before; `None` for the first.
        state: What colours it; "" for nothing in particular.
    """

    at: float
    after_s: float | None
    what: str
    detail: str
    state: str


def told(entries: Sequence[Entry]) -> Iterator[Event]:
    """Each line, with the seconds since the one before."""
    before: float | None = None
    for entry in entries:
        tell = _TOLD.get(entry.kind, _anything)
        what, detail = tell(entry.facts)
        yield Event(
            at=entry.at,
            after_s=None if before is None else max(0.0, entry.at - before),
            what=what or _capital(entry.kind),
            detail=detail,
            state=str(entry.facts.get("state", "")) or _STATES.get(entry.kind, ""),
        )
        before = entry.at


_STATES: dict[str, str] = {
    Kind.TURNED_AWAY: "failed",
    Kind.ROUTING_FAILED: "failed",
    Kind.UNREADABLE: "failed",
    Kind.FILE_MISSING: "failed",
}


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _anything(facts: _Facts) -> tuple[str, str]:
    return "", ", ".join(
        f"{key} {value}" for key, value in facts.items() if value not in ("", None)
    )


def _opened(facts: _Facts) -> tuple[str, str]:
    who = facts.get("peer") or facts.get("calling_ae_title") or "An unknown peer"
    where = f" from {facts['address']}" if facts.get("address") else ""
    return f"{who} opened an association", f"as {facts.get('calling_ae_title', '')}{where}"


def _ended(facts: _Facts) -> tuple[str, str]:
    refused = f", {facts['refused']} refused" if facts.get("refused") else ""
    return f"Association {facts.get('end', 'ended')}", f"{facts.get('stored', 0)} stored{refused}"


def _turned_away(facts: _Facts) -> tuple[str, str]:
    return (
        f"Refused: {facts.get('reason', '')}",
        f"{facts.get('status', '')} {facts.get('detail', '')}",
    )


def _complete(facts: _Facts) -> tuple[str, str]:
    return f"Study complete, revision {facts.get('revision', '')}", str(facts.get("because", ""))


def _created(facts: _Facts) -> tuple[str, str]:
    return "Job created", str(facts.get("rule", ""))


def _moved(facts: _Facts) -> tuple[str, str]:
    attempt = f"attempt {facts['attempt']}" if facts.get("attempt", 0) > 1 else ""
    return f"Job {_word(facts)}", _because(facts) or attempt


def _sent(facts: _Facts) -> tuple[str, str]:
    what = {"not-analysed": "Notice", "rejection": "Rejection"}.get(
        str(facts.get("purpose")), "Delivery"
    )
    return f"{what} to {facts.get('destination', '')} {_word(facts)}", _because(facts)


def _word(facts: _Facts) -> str:
    return str(facts.get("state", "")).replace("_", " ")


def _because(facts: _Facts) -> str:
    reason, detail = facts.get("reason", ""), facts.get("detail", "")
    return f"{reason}: {detail}" if reason else ""


_TOLD: dict[str, Callable[[_Facts], tuple[str, str]]] = {
    Kind.ASSOCIATION_OPENED: _opened,
    Kind.ASSOCIATION_ENDED: _ended,
    Kind.TURNED_AWAY: _turned_away,
    Kind.STUDY_COMPLETE: _complete,
    Kind.JOB_CREATED: _created,
    Kind.JOB_MOVED: _moved,
    Kind.DELIVERY_MOVED: _sent,
}
