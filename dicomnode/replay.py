"""What a proposed configuration would have done with the studies that were seen.

The headers in the index are routed again by the proposed rules, and what would run is compared with
what did: which model, on which series, sent where. Nothing is changed, and no file is read.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import Connection

from dicomnode import routing
from dicomnode.archive.asked import headers
from dicomnode.archive.work import by_hand
from dicomnode.archive.work.jobs import Job
from dicomnode.bundle import DIGEST_SHOWN
from dicomnode.job import JobState
from dicomnode.routing import Outcome, Rule
from dicomnode.routing.clause import INSTANCES, SLICES

#: A model and what it is shown: input → series.
_Shown = tuple[str, tuple[tuple[str, tuple[str, ...]], ...]]


class Change(StrEnum):
    """What becomes of a model's run on some series."""

    ADDED = "would newly run"
    REMOVED = "would no longer run"
    MOVED = "would go elsewhere"
    REWEIGHTED = "would run with other weights"
    HELD = "would be held"


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One change of one study.

    Attributes:
        series: What the model is shown.
        before, after: Destinations, by name; of other weights, the beginnings of the digests.
        because: The sentence of the clause that decides now, where one says no.
    """

    study_instance_uid: str
    change: Change
    model: str
    series: tuple[str, ...]
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    because: str = ""


@dataclass(frozen=True, kw_only=True)
class Replay:
    """What was compared, and what differs."""

    studies: int
    without_headers: int
    runs_before: int
    runs_after: int
    differences: tuple[Difference, ...]

    @property
    def counts(self) -> Mapping[str, int]:
        """Change → how often."""
        counted = Counter(str(one.change) for one in self.differences)
        return {str(change): counted[str(change)] for change in Change}


@dataclass(frozen=True, kw_only=True)
class _Run:
    send_to: frozenset[str]
    digest: str


@dataclass(frozen=True, kw_only=True)
class _About:
    study_instance_uid: str
    model: str
    series: tuple[str, ...]

    def difference(
        self,
        change: Change,
        *,
        before: Sequence[str] = (),
        after: Sequence[str] = (),
        because: str = "",
    ) -> Difference:
        return Difference(
            study_instance_uid=self.study_instance_uid,
            change=change,
            model=self.model,
            series=self.series,
            before=tuple(before),
            after=tuple(after),
            because=because,
        )


def replay(tx: Connection, rules: Sequence[Rule], *, since: float) -> Replay:
    """Route every study anew of which something was received since `since` (epoch seconds)."""
    studies = without = before = after = 0
    differences: list[Difference] = []
    for seen in headers.seen(tx, since=since, keywords=_keywords(rules)):
        study = seen.study
        studies += 1
        if not study.series:
            without += 1
            continue
        routed = routing.route(study, rules, own=seen.own)
        recorded = _recorded(seen.jobs)
        proposed = _proposed(routed.jobs)
        before, after = before + len(recorded), after + len(proposed)
        differences += _compared(study.study_instance_uid, recorded, proposed, routed.decisions)
    return Replay(
        studies=studies,
        without_headers=without,
        runs_before=before,
        runs_after=after,
        differences=tuple(differences),
    )


def _keywords(rules: Sequence[Rule]) -> frozenset[str]:
    """The elements that any rule looks at."""
    asked = {
        clause.keyword for rule in rules for clauses in rule.inputs.values() for clause in clauses
    }
    return frozenset(asked - {INSTANCES, SLICES})


def _recorded(every: Sequence[Job]) -> dict[_Shown, _Run]:
    """What rules have run; what a person asked for no configuration brings and none takes away."""
    return _runs(
        (one.model, {name: each.series for name, each in one.inputs.items()}, one)
        for one in every
        if one.state is not JobState.SUPERSEDED and not by_hand.is_by_hand(one.rule)
    )


def _proposed(every: Sequence[routing.NewJob]) -> dict[_Shown, _Run]:
    return _runs((one.model, one.inputs, one) for one in every)


def _runs(
    every: Iterable[tuple[str, Mapping[str, Sequence[str]], Job | routing.NewJob]],
) -> dict[_Shown, _Run]:
    """What runs, by what it is shown: rules that ask for the same go to all their destinations."""
    destinations: dict[_Shown, set[str]] = defaultdict(set)
    digests: dict[_Shown, str] = {}
    for model, inputs, one in every:
        shown = sorted((name, tuple(sorted(series))) for name, series in inputs.items())
        key = (model, tuple(shown))
        destinations[key].update(one.send_to)
        digests[key] = one.model_digest
    return {
        key: _Run(send_to=frozenset(names), digest=digests[key])
        for key, names in destinations.items()
    }


def _compared(
    study: str,
    recorded: Mapping[_Shown, _Run],
    proposed: Mapping[_Shown, _Run],
    decisions: Sequence[routing.Decision],
) -> Iterator[Difference]:
    for key in sorted({*recorded, *proposed}):
        model, inputs = key
        about = _About(
            study_instance_uid=study,
            model=model,
            series=tuple(uid for _, uids in inputs for uid in uids),
        )
        old, new = recorded.get(key), proposed.get(key)
        if old is None and new is not None:
            yield about.difference(Change.ADDED, after=sorted(new.send_to))
        elif old is not None and new is None:
            yield _ended(about, old, decisions)
        elif old is not None and new is not None:
            yield from _altered(about, old, new)


def _ended(about: _About, old: _Run, decisions: Sequence[routing.Decision]) -> Difference:
    deciding = [
        one
        for one in decisions
        if one.model == about.model
        and one.series_instance_uid in about.series
        and one.outcome is not Outcome.JOB
    ]
    is_held = any(one.outcome is Outcome.HELD for one in deciding)
    return about.difference(
        Change.HELD if is_held else Change.REMOVED,
        before=sorted(old.send_to),
        because=deciding[0].detail if deciding else "No proposed rule names this model.",
    )


def _altered(about: _About, old: _Run, new: _Run) -> Iterator[Difference]:
    if old.send_to != new.send_to:
        yield about.difference(Change.MOVED, before=sorted(old.send_to), after=sorted(new.send_to))
    if old.digest != new.digest:
        shown = (old.digest[:DIGEST_SHOWN],), (new.digest[:DIGEST_SHOWN],)
        yield about.difference(Change.REWEIGHTED, before=shown[0], after=shown[1])
