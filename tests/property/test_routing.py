"""Any study and any rules: the decisions depend on what came, never on how it came."""

from __future__ import annotations

from collections import Counter

from hypothesis import assume, given
from hypothesis import strategies as st

from dicomnode import matcher, routing
from dicomnode.job import Priority
from dicomnode.routing import Clause, Origin, Outcome, Rule
from dicomnode.study import HeaderValue, Instance, Study

EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
SOP_CLASSES = tuple(f"1.2.840.10008.5.1.4.1.1.{tail}" for tail in ("2", "4", "7"))
NEVER = "UNRELATED"

# Few values, so that rules fit, fail, and cannot tell about equally often.
modalities: st.SearchStrategy[HeaderValue] = st.sampled_from(["MR", "CT", "PT", None])
echo_times: st.SearchStrategy[HeaderValue] = st.sampled_from([10, 90.0, "90", "long", "", None])
headers = st.fixed_dictionaries({}, optional={"Modality": modalities, "EchoTime": echo_times})
forms = {
    "Modality": st.sampled_from(["MR", ["CT", "MR"], {"not": "CT"}, {"exists": True}]),
    "EchoTime": st.sampled_from([">=80", "<80", 90, {"exists": False}]),
    "SOPClassUID": st.sampled_from(["MRImageStorage", {"not": "CTImageStorage"}]),
    "instances": st.sampled_from([">=2", "<4"]),
}


@st.composite
def instances(draw: st.DrawFn) -> list[Instance]:
    """The instances of one study: at least one, of few series."""
    places = draw(st.lists(st.integers(1, 4), min_size=1, max_size=12))
    return [
        an_instance(place, number, draw(headers), sop_class=draw(st.sampled_from(SOP_CLASSES)))
        for number, place in enumerate(places)
    ]


def an_instance(
    series: int, number: int, header: dict[str, HeaderValue], *, sop_class: str
) -> Instance:
    return Instance(
        sop_instance_uid=f"1.2.{series}.{number}",
        sop_class_uid=sop_class,
        transfer_syntax_uid=EXPLICIT_VR_LITTLE_ENDIAN,
        series_instance_uid=f"1.2.{series}",
        study_instance_uid="1.2",
        digest=f"{series}.{number}",
        path="",
        header=header,
    )


@st.composite
def rules(draw: st.DrawFn) -> tuple[Rule, ...]:
    count = draw(st.integers(1, 3))
    return tuple(draw(a_rule(name=f"rule {number}")) for number in range(count))


@st.composite
def a_rule(draw: st.DrawFn, *, name: str) -> Rule:
    inputs = draw(st.integers(1, 3))
    return Rule(
        name=name,
        model="a model",
        model_digest="d" * 64,
        inputs={f"input {number}": draw(clauses()) for number in range(inputs)},
        send_to=("pacs",),
        priority=Priority.ROUTINE,
    )


@st.composite
def clauses(draw: st.DrawFn) -> tuple[Clause, ...]:
    # Each asks for something, so that a series which is marked as unrelated fits nothing.
    asked: dict[str, object] = {"SeriesDescription": {"not": NEVER}}
    for keyword in draw(st.lists(st.sampled_from(sorted(forms)), max_size=3, unique=True)):
        asked[keyword] = draw(forms[keyword])
    return tuple(
        Clause(keyword=keyword, matcher=matcher.parse(form), origin=Origin.ROUTE)
        for keyword, form in asked.items()
    )


def study_of(received: list[Instance]) -> Study:
    return Study.from_instances(received, revision=1)


@given(received=instances(), asked=rules(), data=st.data())
def test_any_order_and_any_repeats_give_the_same_study_and_decisions(
    received: list[Instance], asked: tuple[Rule, ...], data: st.DataObject
) -> None:
    repeats = data.draw(st.lists(st.sampled_from(received), max_size=5))
    again = data.draw(st.permutations([*received, *repeats]))
    assert study_of(again) == study_of(received)
    assert routing.route(study_of(again), asked) == routing.route(study_of(received), asked)


@given(received=instances(), asked=rules())
def test_each_rule_decides_exactly_once_for_each_series(
    received: list[Instance], asked: tuple[Rule, ...]
) -> None:
    study = study_of(received)
    decided = Counter(
        (one.rule, one.series_instance_uid) for one in routing.route(study, asked).decisions
    )
    wanted = {(rule.name, one.series_instance_uid) for rule in asked for one in study.series}
    assert set(decided) == wanted
    assert set(decided.values()) == {1}


@given(received=instances(), asked=rules())
def test_a_series_that_fits_nothing_changes_no_other_decision_and_no_job(
    received: list[Instance], asked: tuple[Rule, ...]
) -> None:
    unrelated = an_instance(9, 1, {"SeriesDescription": NEVER}, sop_class=SOP_CLASSES[2])
    before = routing.route(study_of(received), asked)
    after = routing.route(study_of([*received, unrelated]), asked)
    others = [one for one in after.decisions if one.series_instance_uid != "1.2.9"]
    assert others == list(before.decisions)
    assert after.jobs == before.jobs


@given(received=instances(), asked=rules())
def test_the_jobs_are_fed_with_just_the_series_that_were_decided_for(
    received: list[Instance], asked: tuple[Rule, ...]
) -> None:
    routed = routing.route(study_of(received), asked)
    decided = {
        (one.rule, one.series_instance_uid)
        for one in routed.decisions
        if one.outcome is Outcome.JOB
    }
    fed = [
        (new.rule, series)
        for new in routed.jobs
        for found in new.inputs.values()
        for series in found
    ]
    assert sorted(fed) == sorted(decided)


@given(received=instances(), asked=rules())
def test_whatever_ends_without_a_job_names_what_decided(
    received: list[Instance], asked: tuple[Rule, ...]
) -> None:
    for one in routing.route(study_of(received), asked).decisions:
        assert (one.clause == "") == (one.outcome is Outcome.JOB)
        assert (one.origin == "") == (one.outcome is Outcome.JOB)
        assert len(one.value) <= 64
        assert one.detail.endswith(".")


@given(received=instances(), asked=a_rule(name="the rule"))
def test_doubt_alone_never_ends_a_rule(received: list[Instance], asked: Rule) -> None:
    """Where no clause says no of any instance, a series is run or held, never passed over."""
    assume(len(asked.inputs) == 1)
    (asks,) = asked.inputs.values()
    study = study_of(received)
    for series, decision in zip(study.series, routing.route(study, [asked]).decisions, strict=True):
        says_no = any(says_no_of(clause, one) for clause in asks for one in series.instances)
        counts = any(
            not clause.matcher.holds(len(series.instances), present=True)
            for clause in asks
            if clause.keyword == routing.INSTANCES
        )
        refused = decision.outcome is Outcome.NOT_APPLICABLE
        assert refused == (says_no or counts)


def says_no_of(clause: Clause, instance: Instance) -> bool:
    if clause.keyword == routing.INSTANCES:
        return False
    value = instance.value(clause.keyword)
    if clause.keyword == "SOPClassUID":
        keywords = ("CTImageStorage", "MRImageStorage", "SecondaryCaptureImageStorage")
        value = keywords[SOP_CLASSES.index(instance.sop_class_uid)]
    try:
        return not clause.matcher.holds(value, present=instance.has(clause.keyword))
    except matcher.CannotTell:
        return False
