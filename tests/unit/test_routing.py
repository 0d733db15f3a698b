from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from dicomnode import config, job, matcher, routing
from dicomnode.archive.disk import header
from dicomnode.bundle import Bundle, Manifest
from dicomnode.errors import Misconfigured
from dicomnode.job import Priority
from dicomnode.matcher import Matcher
from dicomnode.routing import Clause, Decision, Origin, Outcome, Routed, Rule
from dicomnode.study import HeaderValue, Instance, Study

SHARED_DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
CT, MR, ENHANCED_CT, SECONDARY_CAPTURE = (
    f"1.2.840.10008.5.1.4.1.1.{tail}" for tail in ("2", "4", "2.1", "7")
)
DIGEST = "d" * 64


def an_instance(
    series: str, number: int, /, *, sop_class: str = MR, **values: HeaderValue
) -> Instance:
    return Instance(
        sop_instance_uid=f"{series}.{number}",
        sop_class_uid=sop_class,
        transfer_syntax_uid=EXPLICIT_VR_LITTLE_ENDIAN,
        series_instance_uid=series,
        study_instance_uid="1.2",
        digest="",
        path="",
        header=values,
    )


def series_of(
    uid: str, *, count: int = 3, sop_class: str = MR, **values: HeaderValue
) -> list[Instance]:
    given: dict[str, HeaderValue] = {"Modality": "MR", **values}
    return [an_instance(uid, n, sop_class=sop_class, **given) for n in range(1, count + 1)]


def study_of(*series: list[Instance]) -> Study:
    instances = [instance for one in series for instance in one]
    return Study.from_instances(instances, revision=1)


def a_rule(
    *, name: str = "a rule", priority: Priority = Priority.ROUTINE, **inputs: dict[str, object]
) -> Rule:
    return Rule(
        name=name,
        model="a model",
        model_digest=DIGEST,
        inputs={
            name: tuple(
                Clause(keyword=keyword, matcher=matcher.parse(form), origin=Origin.ROUTE)
                for keyword, form in clauses.items()
            )
            for name, clauses in inputs.items()
        },
        send_to=("pacs",),
        priority=priority,
    )


def the_decision(routed: Routed) -> Decision:
    (decision,) = routed.decisions
    return decision


def outcomes(routed: Routed) -> dict[str, str]:
    return {one.series_instance_uid: one.outcome.value for one in routed.decisions}


# --- rules of the configuration ----------------------------------------------------------------

A_CODE = {"value": "1", "scheme": "99TEST", "meaning": "something"}
ONE_INPUT = {"image": {"modality": "CT", "sop_classes": ["CTImageStorage"]}}


def a_bundle(inputs: Mapping[str, Any]) -> Bundle:
    segment = {
        "label": 1, "name": "it", "category": A_CODE, "type": A_CODE, "color": "#ff0000",
    }  # fmt: skip
    manifest = {
        "name": "a model",
        "manufacturer": "nobody",
        "family": A_CODE,
        "intended_use": "none",
        "notice": "none",
        "procedure": A_CODE,
        "inputs": inputs,
        "outputs": {"pred": {"kind": "label_map", "segments": [segment]}},
    }
    return Bundle(
        root=Path("bundle"),
        manifest=Manifest.model_validate(manifest),
        version="1",
        digest=DIGEST,
    )


def rules_of(folder: Path, route: str, *, inputs: Mapping[str, Any]) -> tuple[Rule, ...]:
    file = folder / "node.toml"
    file.write_text(
        '[peers.pacs]\nae_title = "PACS"\nhost = "127.0.0.1"\nport = 4242\n'
        '[models.m]\nbundle = "m"\n'
        f'[[routes]]\nname = "r"\nmodel = "m"\nsend_to = ["pacs"]\n{route}\n',
        encoding="utf-8",
    )
    return routing.rules(config.load(file), {"m": a_bundle(inputs)})


def test_a_rule_asks_first_what_the_route_and_then_what_the_model_asks(tmp_path: Path) -> None:
    image = {
        "modality": "CT",
        "sop_classes": ["CTImageStorage", "EnhancedCTImageStorage"],
        "slices": {"min": 16, "max": 400},
    }
    route = 'series = { SeriesDescription = "re:head", instances = ">=20" }\npriority = "stat"'
    (rule,) = rules_of(tmp_path, route, inputs={"image": image})
    assert [(str(clause), clause.origin.value) for clause in rule.inputs["image"]] == [
        ("SeriesDescription matches /head/", "route"),
        ("instances >= 20", "route"),
        ('Modality = "CT"', "model"),
        ('SOPClassUID any of "CTImageStorage", "EnhancedCTImageStorage"', "model"),
        ('ImageType not "LOCALIZER"', "model"),
        ("slices >= 16", "model"),
        ("slices <= 400", "model"),
    ]
    assert (rule.name, rule.model, rule.model_digest) == ("r", "m", DIGEST)
    assert (rule.send_to, rule.priority) == (("pacs",), Priority.STAT)


def test_a_model_of_single_images_takes_what_is_marked_as_localizer(tmp_path: Path) -> None:
    image = {**ONE_INPUT["image"], "slices": {"max": 1}}
    (rule,) = rules_of(tmp_path, 'series = { Modality = "CT" }', inputs={"image": image})
    assert "ImageType" not in {clause.keyword for clause in rule.inputs["image"]}


def test_the_inputs_of_a_route_are_those_of_its_model(tmp_path: Path) -> None:
    two = {"t1": ONE_INPUT["image"], "flair": ONE_INPUT["image"]}
    route = 'inputs.flair = { EchoTime = ">80" }\ninputs.t1 = { EchoTime = "<30" }'
    (rule,) = rules_of(tmp_path, route, inputs=two)
    first = {name: str(clauses[0]) for name, clauses in rule.inputs.items()}
    assert first == {"t1": "EchoTime < 30", "flair": "EchoTime > 80"}


@pytest.mark.parametrize(
    "route",
    ['series = { Modality = "CT" }', 'inputs.t1 = { Modality = "CT" }', 'inputs.t2.Modality="CT"'],
)
def test_a_route_that_leaves_an_input_of_its_model_open_is_refused(
    tmp_path: Path, route: str
) -> None:
    two = {"t1": ONE_INPUT["image"], "flair": ONE_INPUT["image"]}
    with pytest.raises(Misconfigured, match=r"write inputs\.t1 = \{…\}, inputs\.flair") as raised:
        rules_of(tmp_path, route, inputs=two)
    assert raised.value.reason == "route-inputs-differ"


# --- one input ---------------------------------------------------------------------------------


def test_a_series_that_fits_makes_a_job() -> None:
    study = study_of(series_of("1.2.3"))
    routed = routing.route(study, [a_rule(image={"Modality": "MR", "instances": 3})])
    (new,) = routed.jobs
    uids = ["1.2.3.1", "1.2.3.2", "1.2.3.3"]
    assert new.inputs == {"image": ("1.2.3",)}
    assert new.key == job.result_key({"image": uids}, model_digest=DIGEST)
    assert (new.rule, new.model, new.model_digest) == ("a rule", "a model", DIGEST)
    assert (new.send_to, new.priority) == (("pacs",), Priority.ROUTINE)
    assert the_decision(routed) == Decision(
        rule="a rule",
        model="a model",
        series_instance_uid="1.2.3",
        outcome=Outcome.JOB,
        clause="",
        value="",
        origin="",
        detail="Every clause holds.",
    )


def test_each_series_that_fits_makes_a_job_of_its_own() -> None:
    study = study_of(series_of("1.2.3"), series_of("1.2.4"), series_of("1.2.5", Modality="CT"))
    routed = routing.route(study, [a_rule(image={"Modality": "MR"})])
    assert [new.inputs["image"] for new in routed.jobs] == [("1.2.3",), ("1.2.4",)]
    assert len({new.key for new in routed.jobs}) == 2
    assert outcomes(routed) == {"1.2.3": "job", "1.2.4": "job", "1.2.5": "not_applicable"}


def test_the_first_clause_that_says_no_is_named() -> None:
    study = study_of(series_of("1.2.3", Modality="CT", SliceThickness=5))
    clauses: dict[str, object] = {"instances": ">=1", "Modality": "MR", "SliceThickness": "<2"}
    decision = the_decision(routing.route(study, [a_rule(image=clauses)]))
    assert decision.outcome is Outcome.NOT_APPLICABLE
    assert (decision.clause, decision.value) == ('Modality = "MR"', '"CT"')
    assert decision.origin == "route"
    assert decision.detail == 'The route asks for Modality = "MR"; here it is "CT".'


def test_a_clause_must_hold_for_every_instance() -> None:
    instances = series_of("1.2.3", count=39, ImageType=["ORIGINAL", "PRIMARY", "AXIAL"])
    localizer: list[str | int | float] = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    instances.append(an_instance("1.2.3", 40, ImageType=localizer))
    rule = a_rule(image={"ImageType": {"not": "LOCALIZER"}})
    decision = the_decision(routing.route(study_of(instances), [rule]))
    assert decision.outcome is Outcome.NOT_APPLICABLE
    assert decision.value == '"ORIGINAL\\PRIMARY\\LOCALIZER"'
    assert decision.detail == (
        'The route asks for ImageType not "LOCALIZER"; here it is '
        '"ORIGINAL\\PRIMARY\\LOCALIZER" (it holds for 39 of 40 instances).'
    )


def test_a_clause_that_cannot_be_told_holds_the_rule() -> None:
    study = study_of(series_of("1.2.3", EchoTime="long"))
    routed = routing.route(study, [a_rule(image={"EchoTime": ">=80", "Modality": "MR"})])
    decision = the_decision(routed)
    assert routed.jobs == ()
    assert decision.outcome is Outcome.HELD
    assert (decision.clause, decision.value) == ("EchoTime >= 80", '"long"')
    assert decision.detail == (
        'The route asks for EchoTime >= 80; here it is "long", '
        "and whether that holds cannot be told: a number is compared with text."
    )


def test_one_instance_in_doubt_is_enough_to_hold_and_one_that_says_no_decides() -> None:
    doubtful = series_of("1.2.3", EchoTime=90)
    doubtful.append(an_instance("1.2.3", 9, EchoTime="long"))
    rule = a_rule(image={"EchoTime": ">=80"})
    assert outcomes(routing.route(study_of(doubtful), [rule])) == {"1.2.3": "held"}
    refused = [*doubtful, an_instance("1.2.3", 10, EchoTime=20)]
    assert outcomes(routing.route(study_of(refused), [rule])) == {"1.2.3": "not_applicable"}


def test_a_clause_that_says_no_outweighs_one_in_doubt_before_it() -> None:
    study = study_of(series_of("1.2.3", EchoTime="long", Modality="CT"))
    rule = a_rule(image={"EchoTime": ">=80", "Modality": "MR"})
    decision = the_decision(routing.route(study, [rule]))
    assert (decision.outcome, decision.clause) == (Outcome.NOT_APPLICABLE, 'Modality = "MR"')


def test_a_study_without_series_has_neither_decisions_nor_jobs() -> None:
    empty = Study(study_instance_uid="1.2", revision=1, series=())
    rules = [a_rule(image={"Modality": "MR"}), a_rule(a={"Modality": "MR"}, b={"Modality": "CT"})]
    assert routing.route(empty, rules) == Routed(decisions=(), jobs=())


@pytest.mark.parametrize("form", ["CTImageStorage", CT, "re:^CT", {"not": "MRImageStorage"}])
def test_a_sop_class_is_matched_by_uid_and_by_keyword(form: object) -> None:
    study = study_of(series_of("1.2.3", sop_class=CT), series_of("1.2.4", sop_class=MR))
    routed = routing.route(study, [a_rule(image={"SOPClassUID": form})])
    assert outcomes(routed) == {"1.2.3": "job", "1.2.4": "not_applicable"}
    assert routed.decisions[1].value == '"MRImageStorage"'


def test_a_uid_that_the_dictionary_lacks_stands_for_itself() -> None:
    study = study_of(series_of("1.2.3", FrameOfReferenceUID="1.2.99"))
    rule = a_rule(image={"FrameOfReferenceUID": "1.2.98"})
    assert the_decision(routing.route(study, [rule])).value == '"1.2.99"'


# --- what is shown -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("PatientName", "Doe^Jane"),
        ("PatientID", "P4711"),
        ("PatientAge", "045Y"),
        ("ReferringPhysicianName", "Who^Doctor"),
        ("AccessionNumber", "A4711"),
        ("ImageComments", "Jane, second attempt"),
        ("CurrentPatientLocation", "ward 3"),
        ("NoKeyword", "what may this be"),
    ],
)
@pytest.mark.parametrize("form", ["nobody", ">=18"])
def test_a_value_that_may_name_the_patient_is_not_shown(
    keyword: str, value: str, form: str
) -> None:
    study = study_of([an_instance("1.2.3", 1, **{keyword: value})])
    decision = the_decision(routing.route(study, [a_rule(image={keyword: form})]))
    assert decision.value == "(present, not shown)"
    assert value not in decision.detail
    assert value not in routing.explain(decision)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ({}, "absent"),
        ({"SeriesDescription": None}, "empty"),
        ({"SeriesDescription": ""}, "empty"),
        ({"SeriesDescription": []}, "empty"),
        ({"SeriesDescription": " HEAD "}, '"HEAD"'),
        ({"SeriesDescription": 5}, "5"),
        ({"SeriesDescription": ["A", "B"]}, '"A\\B"'),
        ({"SeriesDescription": "a\x1b[31m\nb"}, '"a�[31m�b"'),
        ({"SeriesDescription": "x" * 62}, f'"{"x" * 62}"'),
        ({"SeriesDescription": "x" * 63}, f'"{"x" * 61}…"'),
    ],
)
def test_what_the_series_had_is_shown_in_at_most_64_characters(
    given: dict[str, HeaderValue], shown: str
) -> None:
    rule = a_rule(image={"SeriesDescription": "something else"})
    one = dataclasses.replace(an_instance("1.2.3", 1), header=given)
    decision = the_decision(routing.route(study_of([one]), [rule]))
    assert decision.value == shown
    assert len(decision.value) <= 64


@pytest.mark.parametrize(
    ("outcome", "sentence"),
    [
        (Outcome.JOB, "The rule 'a rule' runs on series 1.2.3: so be it."),
        (Outcome.NOT_APPLICABLE, "The rule 'a rule' does not apply to series 1.2.3: so be it."),
        (Outcome.HELD, "The rule 'a rule' is held for series 1.2.3: so be it."),
    ],
)
def test_a_decision_is_explained_in_one_sentence(outcome: Outcome, sentence: str) -> None:
    decision = Decision(
        rule="a rule",
        model="a model",
        series_instance_uid="1.2.3",
        outcome=outcome,
        clause="",
        value="",
        origin="",
        detail="So be it.",
    )
    assert routing.explain(decision) == sentence


# --- several inputs ----------------------------------------------------------------------------

TWO_INPUTS = a_rule(
    t1={"Modality": "MR", "SeriesDescription": "re:T1"},
    flair={"Modality": "MR", "SeriesDescription": "re:FLAIR"},
)
T1 = series_of("1.2.3", SeriesDescription="T1")
FLAIR = series_of("1.2.4", SeriesDescription="FLAIR")


def test_one_series_for_each_input_makes_one_job() -> None:
    routed = routing.route(study_of(T1, FLAIR), [TWO_INPUTS])
    (new,) = routed.jobs
    assert new.inputs == {"t1": ("1.2.3",), "flair": ("1.2.4",)}
    uids: dict[str, Iterable[str]] = {
        "t1": [one.sop_instance_uid for one in T1],
        "flair": [one.sop_instance_uid for one in FLAIR],
    }
    assert new.key == job.result_key(uids, model_digest=DIGEST)
    assert outcomes(routed) == {"1.2.3": "job", "1.2.4": "job"}


def test_an_input_without_a_series_ends_the_rule_and_is_named() -> None:
    routed = routing.route(study_of(T1), [TWO_INPUTS])
    decision = the_decision(routed)
    assert routed.jobs == ()
    assert decision.outcome is Outcome.NOT_APPLICABLE
    assert (decision.clause, decision.value) == ("inputs.flair", "no series")
    assert decision.detail == (
        "No series of the study fits the input flair, which the model also needs."
    )


def test_two_series_for_one_input_are_ambiguous_and_hold_the_rule() -> None:
    again = series_of("1.2.5", SeriesDescription="T1 again")
    other = series_of("1.2.6", SeriesDescription="T2")
    routed = routing.route(study_of(T1, FLAIR, again, other), [TWO_INPUTS])
    assert routed.jobs == ()
    assert outcomes(routed) == {
        "1.2.3": "held", "1.2.4": "held", "1.2.5": "held", "1.2.6": "not_applicable",
    }  # fmt: skip
    held = routed.decisions[0]
    assert (held.clause, held.value) == ("inputs.t1", "2 series")
    assert held.detail == "It is ambiguous which series feeds the input t1: 1.2.3, 1.2.5."


def test_one_series_that_would_feed_two_inputs_is_ambiguous() -> None:
    both = series_of("1.2.3", SeriesDescription="T1 FLAIR")
    routed = routing.route(study_of(both), [TWO_INPUTS])
    assert routed.jobs == ()
    assert outcomes(routed) == {"1.2.3": "held"}
    assert the_decision(routed).detail == (
        "It is ambiguous which input series 1.2.3 feeds: t1, flair."
    )


def test_a_series_in_doubt_holds_the_whole_rule() -> None:
    rule = a_rule(t1={"EchoTime": "<30"}, flair={"EchoTime": ">80"})
    t1, flair = series_of("1.2.3", EchoTime=10), series_of("1.2.4", EchoTime=90)
    unclear = series_of("1.2.5", EchoTime="long")
    assert len(routing.route(study_of(t1, flair), [rule]).jobs) == 1
    routed = routing.route(study_of(t1, flair, unclear), [rule])
    assert routed.jobs == ()
    assert set(outcomes(routed).values()) == {"held"}
    assert routed.decisions[0].detail == ("Whether series 1.2.5 fits the input t1 cannot be told.")
    assert routed.decisions[2].clause == "EchoTime < 30"
    assert routed.decisions[2].detail.startswith("For the input t1: the route asks for EchoTime")


def test_a_series_in_doubt_stays_held_where_another_input_finds_nothing() -> None:
    rule = a_rule(t1={"EchoTime": "<30"}, ct={"Modality": "CT"})
    unclear = series_of("1.2.5", EchoTime="long")
    assert outcomes(routing.route(study_of(unclear), [rule])) == {"1.2.5": "held"}


def test_a_series_that_fits_no_input_is_told_of_the_one_that_it_came_nearest_to() -> None:
    rule = a_rule(pet={"Modality": "PT"}, flair={"Modality": "MR", "SeriesDescription": "re:FLAIR"})
    decision = the_decision(routing.route(study_of(T1), [rule]))
    assert decision.clause == "SeriesDescription matches /FLAIR/"
    assert decision.detail.startswith("For the input flair: the route asks for")


# --- what a model asks -------------------------------------------------------------------------


def ct_rule(folder: Path, **contract: Any) -> tuple[Rule, ...]:
    classes = ["CTImageStorage", "EnhancedCTImageStorage"]
    image = {"modality": "CT", "sop_classes": classes, **contract}
    return rules_of(folder, 'series = { instances = ">=1" }', inputs={"image": image})


def test_too_few_slices_are_counted_where_each_instance_is_one(tmp_path: Path) -> None:
    rules = ct_rule(tmp_path, slices={"min": 16})
    few = series_of("1.2.3", Modality="CT", sop_class=CT)
    decision = the_decision(routing.route(study_of(few), rules))
    assert (decision.clause, decision.value) == ("slices >= 16", "3")
    assert decision.origin == "model"
    assert decision.detail == "The model asks for slices >= 16; here it is 3."


@pytest.mark.parametrize("frames", [2, "40", [40]])
def test_the_slices_of_a_multi_frame_instance_are_left_to_the_volume(
    tmp_path: Path, frames: HeaderValue
) -> None:
    one = series_of(
        "1.2.3",
        count=1,
        Modality="CT",
        sop_class=ENHANCED_CT,
        NumberOfFrames=frames,
    )
    routed = routing.route(study_of(one), ct_rule(tmp_path, slices={"min": 16}))
    assert outcomes(routed) == {"1.2.3": "job"}


def test_a_route_counts_instances_whatever_they_hold() -> None:
    one = series_of("1.2.3", count=1, sop_class=ENHANCED_CT, NumberOfFrames=40)
    decision = the_decision(routing.route(study_of(one), [a_rule(image={"instances": ">=16"})]))
    assert (decision.outcome, decision.value) == (Outcome.NOT_APPLICABLE, "1")


@pytest.mark.parametrize("frames", [1, "1", "1 ", "0", None, ""])
def test_an_instance_of_one_frame_is_one_slice(tmp_path: Path, frames: HeaderValue) -> None:
    one = series_of(
        "1.2.3",
        count=1,
        Modality="CT",
        sop_class=ENHANCED_CT,
        NumberOfFrames=frames,
    )
    routed = routing.route(study_of(one), ct_rule(tmp_path, slices={"min": 16}))
    assert outcomes(routed) == {"1.2.3": "not_applicable"}


def test_a_secondary_capture_whose_modality_says_ct_is_no_ct(tmp_path: Path) -> None:
    capture = series_of("1.2.3", Modality="CT", sop_class=SECONDARY_CAPTURE)
    decision = the_decision(routing.route(study_of(capture), ct_rule(tmp_path)))
    assert decision.clause == 'SOPClassUID any of "CTImageStorage", "EnhancedCTImageStorage"'
    assert decision.value == '"SecondaryCaptureImageStorage"'


@pytest.mark.data
def test_of_a_real_scanner_export_only_the_axial_ct_is_run(tmp_path: Path) -> None:
    routed = routing.route(read("ct_scanner_export"), ct_rule(tmp_path))
    assert len(routed.jobs) == 1
    decided = {one.clause.partition(" ")[0]: one for one in routed.decisions}
    assert sorted(decided) == ["", "ImageType", "SOPClassUID"]
    assert decided["SOPClassUID"].value == '"SecondaryCaptureImageStorage"'


@pytest.mark.data
def test_of_a_real_mr_study_the_rule_finds_the_one_series(tmp_path: Path) -> None:
    image = {"modality": "MR", "sop_classes": ["MRImageStorage"], "slices": {"min": 16}}
    route = 'series = { SeriesDescription = "re:(?i)hippo.?crop", instances = ">=16" }'
    study = read("brain_mr_study")
    routed = routing.route(study, rules_of(tmp_path, route, inputs={"image": image}))
    assert sorted(outcomes(routed).values()) == ["job"] + 4 * ["not_applicable"]
    (new,) = routed.jobs
    (fed,) = [one for one in study.series if (one.series_instance_uid,) == new.inputs["image"]]
    assert len(fed.instances) == 40


def read(folder: str) -> Study:
    files = sorted(path for path in (SHARED_DATA / folder).rglob("*") if path.is_file())
    instances = [stored(path) for path in files if path.name not in {"DIRFILE", "DICOMDIR"}]
    return Study.from_instances(instances, revision=1)


def stored(path: Path) -> Instance:
    identity, transfer_syntax_uid, values = header.index_header(path)
    return Instance(
        sop_instance_uid=identity.sop_instance_uid,
        sop_class_uid=identity.sop_class_uid,
        transfer_syntax_uid=transfer_syntax_uid,
        series_instance_uid=identity.series_instance_uid,
        study_instance_uid=identity.study_instance_uid,
        digest="",
        path="",
        header=values,
    )


# --- studies from instances --------------------------------------------------------------------


def test_a_study_is_ordered_by_uids_and_holds_each_instance_once() -> None:
    study = study_of([*FLAIR[::-1], T1[1]], [T1[0], T1[1]])
    assert [one.series_instance_uid for one in study.series] == ["1.2.3", "1.2.4"]
    assert study.series[0].instances == (T1[0], T1[1])
    assert study.series[1].instances == tuple(FLAIR)


def test_instances_of_two_studies_or_of_none_make_no_study() -> None:
    with pytest.raises(ValueError, match="instances of 0 studies"):
        study_of([])
    stranger = dataclasses.replace(FLAIR[0], study_instance_uid="1.3")
    with pytest.raises(ValueError, match="instances of 2 studies"):
        study_of(T1, [stranger])


def test_two_instances_of_one_name_make_no_study() -> None:
    impostor = dataclasses.replace(T1[0], digest="other")
    with pytest.raises(ValueError, match=r"two instances are named 1\.2\.3\.1"):
        study_of(T1, [impostor])


def test_identity_is_known_where_the_data_set_leaves_it_blank() -> None:
    one = an_instance("1.2.3", 1, SOPClassUID="", Modality=None)
    assert one.value("SOPClassUID") == MR
    assert one.value("TransferSyntaxUID") == EXPLICIT_VR_LITTLE_ENDIAN
    assert one.has("SeriesInstanceUID")
    assert one.has("Modality")
    assert not one.has("EchoTime")
    assert one.value("EchoTime") is None


def test_a_matcher_of_the_configuration_is_one_of_the_rule(tmp_path: Path) -> None:
    (rule,) = rules_of(tmp_path, 'series = { Modality = ["CT", "MR"] }', inputs=ONE_INPUT)
    first = rule.inputs["image"][0].matcher
    assert isinstance(first, Matcher)
    assert first == matcher.parse(["CT", "MR"])
