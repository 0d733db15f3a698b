"""Prediction and profiles → which objects there will be, for whom, and in which order."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import phantom
import pytest

from dicomnode import results, volume
from dicomnode.prediction import LabelMap, Prediction
from dicomnode.profile import NAMED, Profile
from dicomnode.results import plan

KEY = "key"
CREATED = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


@pytest.fixture
def prediction(tmp_path: Path) -> Prediction:
    scan = phantom.write_series(tmp_path / "images", spacing=(2.5, 1.25, 1.25))
    return Prediction(
        subject=volume.load(scan.files), answers=(LabelMap(output="bodies", array=scan.labels),)
    )


def kinds(prediction: Prediction, *profiles: Profile) -> list[str]:
    return [one.kind for one in plan.of(prediction, phantom.a_bundle(), profiles)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("standard", ["seg", "capture", "regions", "sr"]),
        ("ohif", ["seg", "capture", "regions", "sr"]),
        ("weasis", ["seg", "capture", "presentation", "key-images", "sr"]),
        ("slicer", ["seg", "sr"]),
        ("captures-only", ["capture"]),
    ],
)
def test_each_named_profile_is_sent_what_it_can_show(
    prediction: Prediction, name: str, expected: list[str]
) -> None:
    assert kinds(prediction, NAMED[name]) == expected


def test_every_named_profile_is_looked_at() -> None:
    assert set(NAMED) == {"standard", "ohif", "weasis", "slicer", "captures-only"}


def test_what_two_profiles_ask_for_alike_is_one_object(prediction: Prediction) -> None:
    standard, ohif = NAMED["standard"], NAMED["ohif"]
    parts = plan.of(prediction, phantom.a_bundle(), [standard, ohif])
    assert [one.kind for one in parts] == ["seg", "capture", "regions", "sr", "sr"]
    both = {standard.digest, ohif.digest}
    assert [set(one.profiles) for one in parts[:3]] == [both] * 3
    assert [set(one.profiles) for one in parts[3:]] == [{standard.digest}, {ohif.digest}]


def test_an_encoding_of_its_own_is_an_object_of_its_own(prediction: Prediction) -> None:
    labelled = Profile(segmentation="labelmap")
    parts = plan.of(prediction, phantom.a_bundle(), [Profile(), labelled])
    segs = [one for one in parts if one.kind == "seg"]
    assert [one.variant for one in segs] == ["binary", "labelmap"]
    assert len({one.series_uid(KEY) for one in segs}) == 2


def test_nothing_is_drawn_where_nothing_was_found(prediction: Prediction) -> None:
    empty = LabelMap(output="bodies", array=prediction.answers[0].array * 0)
    nothing = Prediction(subject=prediction.subject, answers=(empty,))
    assert kinds(nothing, NAMED["weasis"]) == ["seg", "capture", "sr"]
    assert kinds(nothing, NAMED["standard"]) == ["seg", "capture", "sr"]


def test_a_report_names_what_its_own_destination_gets_and_nothing_else(
    prediction: Prediction,
) -> None:
    profiles = [NAMED["standard"], NAMED["slicer"]]
    model = phantom.a_bundle()
    built = results.build(prediction, bundle=model, key=KEY, created=CREATED, profiles=profiles)
    for profile in profiles:
        own = [one for one in built if profile.digest in one.part.profiles]
        report = own[-1]
        assert report.kind == "sr"
        (study,) = report.dataset.CurrentRequestedProcedureEvidenceSequence
        named = {
            instance.ReferencedSOPInstanceUID
            for series in study.ReferencedSeriesSequence
            for instance in series.ReferencedSOPSequence
        }
        images = {source.sop_instance_uid for source in prediction.volume.sources}
        assert named == images | {one.dataset.SOPInstanceUID for one in own[:-1]}


def test_the_profile_of_another_destination_changes_nothing(prediction: Prediction) -> None:
    model = phantom.a_bundle()
    alone, beside = (
        results.build(prediction, bundle=model, key=KEY, created=CREATED, profiles=profiles)
        for profiles in ([NAMED["slicer"]], [NAMED["standard"], NAMED["slicer"]])
    )
    own = [one for one in beside if NAMED["slicer"].digest in one.part.profiles]
    assert [one.encoded() for one in alone] == [one.encoded() for one in own]


def test_choices_that_change_no_object_leave_the_digest() -> None:
    plain = Profile()
    assert plain.with_choices({"not_analysed": True, "superseded": "reject"}).digest == plain.digest
    assert plain.with_choices({"title": "oncology"}).digest != plain.digest
