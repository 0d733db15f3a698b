"""One rule and all series of a study: the jobs, and a decision for each series."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from dicomnode import job
from dicomnode.job import Priority
from dicomnode.routing.clause import FITS, Origin, Outcome, Verdict, judge
from dicomnode.routing.rule import Rule
from dicomnode.study import Study


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What one rule does with one series, and why.

    Attributes:
        clause: The clause that decided, as a person would write it; "" for a job.
        value: What the series had, at most 64 characters; nothing that identifies the patient.
        origin: The `Origin` of the clause; "" for a job.
        detail: One sentence for a person.
    """

    rule: str
    model: str
    series_instance_uid: str
    outcome: Outcome
    clause: str
    value: str
    origin: str
    detail: str


@dataclass(frozen=True, kw_only=True)
class NewJob:
    """A job that a rule asks for.

    Attributes:
        inputs: The model's input name → Series Instance UIDs.
        key: The idempotency key of its results (`job.result_key`). Two rules may ask for the same
            result: then their jobs have the same key.
        notify: As the rule's.
    """

    rule: str
    model: str
    model_digest: str
    inputs: Mapping[str, tuple[str, ...]]
    key: str
    send_to: tuple[str, ...]
    priority: Priority
    notify: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Routed:
    """What was decided for a study: exactly one decision for each rule and series."""

    decisions: tuple[Decision, ...]
    jobs: tuple[NewJob, ...]


class Decided(Protocol):
    """A decision, fresh or read back, as far as `explain` looks."""

    @property
    def rule(self) -> str:
        """Name of the rule."""

    @property
    def series_instance_uid(self) -> str:
        """Series Instance UID."""

    @property
    def outcome(self) -> str:
        """An `Outcome`."""

    @property
    def detail(self) -> str:
        """One sentence."""


_DOES = {
    Outcome.JOB: "runs on",
    Outcome.NOT_APPLICABLE: "does not apply to",
    Outcome.HELD: "is held for",
}

# What the node said of a study is no evidence for what it says next.
_OWN = Verdict(
    outcome=Outcome.NOT_APPLICABLE,
    origin=Origin.NODE,
    clause="own-result",
    value="",
    detail="The node made this series itself, as a result.",
)

_Verdicts = Mapping[str, Mapping[str, Verdict]]  # series → input → verdict


@dataclass(frozen=True, kw_only=True)
class _Matched:
    verdicts: Mapping[str, Verdict]  # one for each series
    jobs: tuple[Mapping[str, str], ...]  # input → series


def explain(decision: Decided) -> str:
    """One sentence on what a rule did with a series, for `dicomnode why`."""
    does = _DOES[Outcome(decision.outcome)]
    because = _continued(decision.detail)
    return f"The rule {decision.rule!r} {does} series {decision.series_instance_uid}: {because}"


def route(study: Study, rules: Sequence[Rule], *, own: Collection[str] = ()) -> Routed:
    """Decide for each rule and each series of a complete study, in their order.

    Args:
        own: The series that the node made itself and that have come back: no rule applies to them.
    """
    decisions: list[Decision] = []
    jobs: list[NewJob] = []
    others = dataclasses.replace(
        study, series=tuple(s for s in study.series if s.series_instance_uid not in own)
    )
    for rule in rules:
        matched = _match(rule, others)
        jobs += [_new_job(rule, others, inputs) for inputs in matched.jobs]
        decisions += [
            _decision(rule, uid, matched.verdicts.get(uid, _OWN))
            for uid in (one.series_instance_uid for one in study.series)
        ]
    return Routed(decisions=tuple(decisions), jobs=tuple(jobs))


def hold(routed: Routed, series: Mapping[str, str]) -> Routed:
    """Withhold the jobs that would run on some series: each of their decisions says why.

    Args:
        series: Series Instance UID → one sentence for a person.
    """
    because: dict[tuple[str, str], str] = {}
    for one in routed.jobs:
        fed = [uid for uids in one.inputs.values() for uid in uids]
        sentence = next((series[uid] for uid in fed if uid in series), "")
        because |= {(one.rule, uid): sentence for uid in fed if sentence}
    return Routed(
        decisions=tuple(_withheld(one, because) for one in routed.decisions),
        jobs=tuple(
            one
            for one in routed.jobs
            if not any(uid in series for uids in one.inputs.values() for uid in uids)
        ),
    )


def _withheld(decision: Decision, because: Mapping[tuple[str, str], str]) -> Decision:
    sentence = because.get((decision.rule, decision.series_instance_uid))
    if sentence is None:
        return decision
    return dataclasses.replace(decision, outcome=Outcome.HELD, detail=sentence)


def _match(rule: Rule, study: Study) -> _Matched:
    verdicts = {
        series.series_instance_uid: {
            name: judge(series, clauses) for name, clauses in rule.inputs.items()
        }
        for series in study.series
    }
    if len(rule.inputs) == 1:
        (name,) = rule.inputs
        return _match_one(name, {series: by[name] for series, by in verdicts.items()})
    return _match_several(rule, verdicts)


def _match_one(name: str, verdicts: Mapping[str, Verdict]) -> _Matched:
    """A model with one input runs on each series that fits."""
    fitting = [series for series, verdict in verdicts.items() if verdict.outcome is Outcome.JOB]
    return _Matched(verdicts=verdicts, jobs=tuple({name: series} for series in fitting))


def _match_several(rule: Rule, verdicts: _Verdicts) -> _Matched:
    """A model with several inputs runs once, where there is exactly one series for each."""
    candidates = {
        name: [
            series
            for series, by_input in verdicts.items()
            if by_input[name].outcome is not Outcome.NOT_APPLICABLE
        ]
        for name in rule.inputs
    }
    obstacle = _obstacle(candidates, verdicts)
    return _Matched(
        verdicts={series: _summed(by_input, obstacle) for series, by_input in verdicts.items()},
        jobs=() if obstacle else ({name: found[0] for name, found in candidates.items()},),
    )


def _summed(by_input: Mapping[str, Verdict], obstacle: Verdict | None) -> Verdict:
    """The verdict on one series, of those for each input and what stands in the rule's way."""
    doubts = [(n, verdict) for n, verdict in by_input.items() if verdict.outcome is Outcome.HELD]
    if doubts:
        return _about(*doubts[0])
    if all(verdict.outcome is Outcome.NOT_APPLICABLE for verdict in by_input.values()):
        # The input that the series came nearest to fitting says most.
        return _about(*max(by_input.items(), key=lambda item: item[1].held_before))
    return obstacle or FITS


def _about(name: str, verdict: Verdict) -> Verdict:
    return dataclasses.replace(
        verdict, detail=f"For the input {name}: {_continued(verdict.detail)}"
    )


def _continued(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]


def _obstacle(candidates: Mapping[str, Sequence[str]], verdicts: _Verdicts) -> Verdict | None:
    """What keeps a rule from making its job: the verdict on every series that would feed it.

    An input that nothing could feed goes first: then the rule does not apply, whatever else is
    in doubt.
    """
    for name, found in candidates.items():
        if not found:
            detail = f"No series of the study fits the input {name}, which the model also needs."
            return _on_input(name, Outcome.NOT_APPLICABLE, value="no series", detail=detail)
    for name, found in candidates.items():
        doubtful = [s for s in found if verdicts[s][name].outcome is Outcome.HELD]
        if doubtful:
            detail = f"Whether series {doubtful[0]} fits the input {name} cannot be told."
            return _on_input(name, Outcome.HELD, value="cannot be told", detail=detail)
        if len(found) > 1:
            detail = f"It is ambiguous which series feeds the input {name}: {', '.join(found)}."
            return _on_input(name, Outcome.HELD, value=f"{len(found)} series", detail=detail)
    return _shared(candidates)


def _shared(candidates: Mapping[str, Sequence[str]]) -> Verdict | None:
    """The verdict where one series would feed two inputs."""
    feeds: dict[str, str] = {}
    for name, (series,) in candidates.items():
        if series in feeds:
            detail = f"It is ambiguous which input series {series} feeds: {feeds[series]}, {name}."
            return _on_input(name, Outcome.HELD, value="the same series", detail=detail)
        feeds[series] = name
    return None


def _on_input(name: str, outcome: Outcome, *, value: str, detail: str) -> Verdict:
    return Verdict(
        outcome=outcome, clause=f"inputs.{name}", value=value, origin=Origin.ROUTE, detail=detail
    )


def _decision(rule: Rule, series_instance_uid: str, verdict: Verdict) -> Decision:
    return Decision(
        rule=rule.name,
        model=rule.model,
        series_instance_uid=series_instance_uid,
        outcome=verdict.outcome,
        clause=verdict.clause,
        value=verdict.value,
        origin=verdict.origin,
        detail=verdict.detail,
    )


def _new_job(rule: Rule, study: Study, inputs: Mapping[str, str]) -> NewJob:
    instances = {
        one.series_instance_uid: [i.sop_instance_uid for i in one.instances] for one in study.series
    }
    key = job.result_key(
        {name: instances[series] for name, series in inputs.items()},
        model_digest=rule.model_digest,
    )
    return NewJob(
        rule=rule.name,
        model=rule.model,
        model_digest=rule.model_digest,
        inputs={name: (series,) for name, series in inputs.items()},
        key=key,
        send_to=rule.send_to,
        notify=rule.notify,
        priority=rule.priority,
    )
