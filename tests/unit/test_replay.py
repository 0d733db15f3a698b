"""A proposed configuration over the studies that were seen: exactly what would change."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dicomnode import replay, routed
from dicomnode.archive.database import Database
from dicomnode.archive.studies import index
from dicomnode.archive.work import by_hand, jobs
from dicomnode.archive.work.by_hand import Order
from dicomnode.job import Priority
from dicomnode.matcher import Compares, Equals
from dicomnode.replay import Change
from dicomnode.routing import Rule
from dicomnode.routing.clause import INSTANCES, Clause, Origin
from dicomnode.study import Instance, Study

NOW = 5000.0


def clause(keyword: str, value: object) -> Clause:
    form = value if isinstance(value, Compares) else Equals(value=value)
    return Clause(keyword=keyword, matcher=form, origin=Origin.ROUTE)


RULE = Rule(
    name="liver",
    model="liver",
    model_digest="ab" * 32,
    inputs={"image": (clause("Modality", "CT"), clause("BodyPartExamined", "LIVER"))},
    send_to=("pacs",),
    priority=Priority.ROUTINE,
)


def an_instance(study: int, number: int, **header: str) -> Instance:
    uid = f"1.2.{study}.1.{number}"
    return Instance(
        sop_instance_uid=uid,
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        series_instance_uid=f"1.2.{study}.1",
        study_instance_uid=f"1.2.{study}",
        digest="00",
        path=f"instances/{uid}.dcm",
        header={"Modality": "CT", "InstanceNumber": number, **header},
    )


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(f"sqlite:///{tmp_path}/node.db")
    made.migrate()
    yield made
    made.close()


def seen(database: Database, study: int, *, rules: tuple[Rule, ...], **header: str) -> None:
    """A study of three images, received, completed and routed."""
    instances = [an_instance(study, number, **header) for number in (1, 2, 3)]
    with database.write() as tx:
        index.add(
            tx,
            [
                index.Received(instance=one, association="a", size=1, at=NOW + study)
                for one in instances
            ],
        )
        index.complete(tx, f"1.2.{study}", revision=1, because="test", at=NOW + study)
        routed.apply(tx, Study.from_instances(instances, revision=1), rules, at=NOW + study)


def asked(database: Database, *rules: Rule, since: float = 0.0) -> replay.Replay:
    with database.read() as tx:
        return replay.replay(tx, rules, since=since)


@pytest.fixture
def two_studies(database: Database) -> Database:
    """One that the rule runs on, and one that it does not apply to."""
    seen(database, 1, rules=(RULE,), BodyPartExamined="LIVER")
    seen(database, 2, rules=(RULE,), BodyPartExamined="HEAD")
    return database


def test_the_same_configuration_changes_nothing(two_studies: Database) -> None:
    found = asked(two_studies, RULE)
    assert (found.studies, found.runs_before, found.runs_after) == (2, 1, 1)
    assert found.differences == ()


def test_what_a_person_asked_for_is_no_change(two_studies: Database) -> None:
    order = Order(model="spleen", digest="cd" * 32, input="image", send_to=("pacs",))
    with two_studies.write() as tx:
        (job,) = jobs.of_study(tx, "1.2.1")
        assert by_hand.run(tx, job.id, order, at=NOW)
    found = asked(two_studies, RULE)
    assert (found.runs_before, found.differences) == (1, ())


def test_a_wider_clause_newly_runs_and_says_where_it_goes(two_studies: Database) -> None:
    wider = replace(RULE, inputs={"image": (clause("Modality", "CT"),)})
    (one,) = asked(two_studies, wider).differences
    assert one.change is Change.ADDED
    assert (one.study_instance_uid, one.model, one.after) == ("1.2.2", "liver", ("pacs",))
    assert one.series == ("1.2.2.1",)


def test_a_narrower_clause_no_longer_runs_and_says_why(two_studies: Database) -> None:
    many = clause(INSTANCES, Compares(sign=">=", limit=4))
    narrower = replace(RULE, inputs={"image": (*RULE.inputs["image"], many)})
    (one,) = asked(two_studies, narrower).differences
    assert (one.study_instance_uid, one.change, one.before) == ("1.2.1", Change.REMOVED, ("pacs",))
    assert "instances" in one.because
    assert "3" in one.because


def test_another_destination_goes_elsewhere(two_studies: Database) -> None:
    (one,) = asked(two_studies, replace(RULE, send_to=("archive", "pacs"))).differences
    assert one.change is Change.MOVED
    assert (one.before, one.after) == (("pacs",), ("archive", "pacs"))


def test_other_weights_are_told_apart(two_studies: Database) -> None:
    (one,) = asked(two_studies, replace(RULE, model_digest="cd" * 32)).differences
    assert one.change is Change.REWEIGHTED
    assert (one.before, one.after) == (("ab" * 8,), ("cd" * 8,))


def test_a_rule_of_another_name_that_asks_for_the_same_changes_nothing(
    two_studies: Database,
) -> None:
    assert asked(two_studies, replace(RULE, name="other")).differences == ()


def test_a_model_that_no_rule_names_any_more_no_longer_runs(two_studies: Database) -> None:
    (one,) = asked(two_studies, replace(RULE, model="spleen")).differences[:1]
    assert {d.change for d in asked(two_studies, replace(RULE, model="spleen")).differences} == {
        Change.REMOVED,
        Change.ADDED,
    }
    assert one.because == "No proposed rule names this model."


def test_what_cannot_be_told_is_held(two_studies: Database) -> None:
    doubtful = clause("BodyPartExamined", Compares(sign=">", limit=3))
    (one,) = asked(two_studies, replace(RULE, inputs={"image": (doubtful,)})).differences
    assert one.change is Change.HELD


def test_only_studies_of_late_are_asked(two_studies: Database) -> None:
    found = asked(two_studies, replace(RULE, send_to=("other",)), since=NOW + 2)
    assert (found.studies, found.differences) == (1, ())


def test_instances_that_differ_in_what_is_asked_are_told_apart(database: Database) -> None:
    seen(database, 1, rules=(), BodyPartExamined="LIVER")
    with database.write() as tx:
        odd = an_instance(1, 4, BodyPartExamined="HEAD")
        index.add(tx, [index.Received(instance=odd, association="a", size=1, at=NOW)])
        index.complete(tx, "1.2.1", revision=2, because="test", at=NOW)
    found = asked(database, RULE)
    assert (found.runs_after, found.differences) == (0, ())


def test_a_rule_on_the_identity_of_an_instance_still_holds_for_each(database: Database) -> None:
    seen(database, 1, rules=(), BodyPartExamined="LIVER")
    named = clause("SOPInstanceUID", "1.2.1.1.1")
    assert asked(database, replace(RULE, inputs={"image": (named,)})).runs_after == 0


def test_what_the_node_made_itself_is_not_asked_about(database: Database) -> None:
    signed = {"Manufacturer": "dicomnode", "ManufacturerModelName": "dicomnode"}
    seen(database, 1, rules=(), BodyPartExamined="LIVER", **signed)
    assert asked(database, RULE).runs_after == 0
