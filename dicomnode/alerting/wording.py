"""What a message says: what is wrong, since when, what it means, and what to do.

Messages leave the hospital: they are read on telephones and forwarded. They carry the kind of the
alert, names from the configuration, counts, and the fixed words of reasons; never a study's UID,
never the sentence of a reason, nothing that came with an image. What is meant is found by the link,
by who may sign in there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from dicomnode.alert import Kind, Occasion
from dicomnode.alerting.about import ABOUT, Facts, length

_WORD = re.compile(r"[a-z]+(-[a-z]+)*", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Wording:
    """A message in words.

    Attributes:
        title: One line.
        since: When it began, as people write it.
        length: How long it has lasted, or lasted.
        seen: What was counted, in a sentence; "" where there is nothing to count.
        link: Where the page shows more; "" where the page has no public address.
    """

    kind: Kind | None
    occasion: Occasion
    title: str
    since: str
    length: str
    seen: str
    means: str
    to_do: tuple[str, ...]
    link: str

    @property
    def text(self) -> str:
        """The whole message as plain text."""
        lines = [self.title, ""]
        if self.since:
            word = "Lasted" if self.occasion is Occasion.OVER else "Since"
            lines.append(f"{word}: {self.since} ({self.length})")
        lines += [f"Seen: {self.seen}"] if self.seen else []
        lines += [f"It means: {self.means}"] if self.means else []
        if self.to_do:
            lines += ["", "What to do:"]
            lines += [f"{number}. {step}" for number, step in enumerate(self.to_do, start=1)]
        lines += ["", f"More: {self.link}"] if self.link else []
        if self.kind is not None:
            lines += ["", f"The runbook has this as {self.kind.rule}; its word is {self.kind}."]
        return "\n".join(lines) + "\n"


def of_alert(
    kind: Kind,
    subject: str,
    occasion: Occasion,
    *,
    since: float,
    at: float,
    facts: Facts,
    public_url: str | None,
) -> Wording:
    """What is said of an alert.

    Args:
        kind: What is wrong.
        subject: What with: a name from the configuration, or "".
        occasion: Why it is said.
        since: Since when it is wrong; like `at` in seconds since the epoch.
        at: The moment that is spoken of.
        facts: What was counted then.
        public_url: Where browsers reach the page.
    """
    about = ABOUT[kind]
    is_over = occasion is Occasion.OVER
    said = (about.over if is_over else about.says)(subject, facts)
    return Wording(
        kind=kind,
        occasion=occasion,
        title=f"{_BEFORE[occasion]}{said}",
        since=moment(since),
        length=length(at - since),
        seen=seen(facts),
        means="" if is_over else about.means,
        to_do=() if is_over else about.to_do,
        link=f"{public_url}{about.path}" if public_url else "",
    )


_BEFORE = {
    Occasion.BEGUN: "",
    Occasion.STILL: "Still: ",
    Occasion.OVER: "Over: ",
    Occasion.TEST: "Test: ",
}


def of_test(public_url: str | None) -> Wording:
    """What a test says."""
    return Wording(
        kind=None,
        occasion=Occasion.TEST,
        title="Test: messages of this node arrive here.",
        since="",
        length="",
        seen="",
        means="nothing is wrong. Somebody has run `dicomnode alerts test`.",
        to_do=(),
        link=public_url or "",
    )


def about(kind: Kind, subject: str, facts: Facts) -> str:
    """What an alert is about, by a name that means something to people; "" for the whole node."""
    return str(facts.get("host", "")) if kind.is_of_a_disk else subject


def says(kind: Kind, subject: str, facts: Facts) -> str:
    """What is wrong, in a sentence that begins with a capital where it begins with a word."""
    said = ABOUT[kind].says(subject, facts)
    return said if said.startswith(subject) and subject else said[:1].upper() + said[1:]


def moment(at: float) -> str:
    """Day, time and offset on the clock of this machine."""
    return datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M %z")


def seen(facts: Facts) -> str:
    """The reasons of what was counted: fixed words alone, whatever stands in the rows."""
    reasons = facts.get("reasons")
    if not isinstance(reasons, Mapping):
        return ""
    return ", ".join(
        f"{count} {word if _WORD.fullmatch(word) else 'other'}" for word, count in reasons.items()
    )
