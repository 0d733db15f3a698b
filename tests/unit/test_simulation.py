"""A simulated day: the same for the same seed, of a hospital's shape, with every fault in it."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import channels
import phantom
import pydicom
import pytest
import searched
from pydicom import Dataset
from pydicom.charset import convert_encodings, encode_string
from typer.testing import CliRunner

from dicomnode import cli
from dicomnode.errors import Misconfigured
from dicomnode.network.calling import sender
from dicomnode.network.calling.request import Patience
from dicomnode.simulation import (
    account,
    crowd,
    day,
    hospital,
    likeness,
    objects,
    people,
    simulate,
)
from dicomnode.simulation.account import Account, Answer
from dicomnode.simulation.day import Request
from dicomnode.simulation.hospital import GENERAL, Hours, Kind
from dicomnode.simulation.planned import Arrival, Content, Day, Edit, Ending, Fault, Item
from dicomnode.simulation.protocols import Size
from dicomnode.simulation.traffic import Pace, Traffic


def plan(studies: int = 200, **asked: Any) -> Day:
    return day.plan(GENERAL, Request(studies=studies, seed=7, **asked))


def of(fault: Fault, made: Day) -> tuple[Any, list[Any]]:
    """A study with a fault, and its associations."""
    study = next(one for one in made.studies.values() if one.fault is fault)
    return study, [
        one for one in made.transfers if one.items and one.items[0].study == study.number
    ]


def test_the_same_seed_makes_the_same_day() -> None:
    assert plan() == plan()
    one, other = plan().transfers[3].items[0], plan().transfers[3].items[0]
    assert objects.make(plan(), one) == objects.make(plan(), other)


def test_another_seed_another_number_and_another_size_share_no_uid() -> None:
    days = [
        day.plan(GENERAL, Request(studies=50, seed=1)),
        day.plan(GENERAL, Request(studies=50, seed=2)),
        day.plan(GENERAL, Request(studies=51, seed=1)),
        day.plan(GENERAL, Request(studies=50, seed=1, size=Size.REAL)),
    ]
    few = GENERAL.model_copy(update={"stations": GENERAL.stations[:3]})
    days.append(day.plan(few, Request(studies=50, seed=1, variety=few.variety)))
    uids = [one.study_instance_uid for made in days for one in made.studies.values()]
    assert len(uids) == len(set(uids))


def begun(made: Day, hours: Hours) -> Counter[int]:
    """Hour → associations of the stations that keep these hours, without those beside."""
    stations = {n for n, one in enumerate(GENERAL.stations) if one.hours is hours}
    return Counter(
        int(one.at_s // 3600) for one in made.transfers if one.station in stations and one.items
    )


def test_the_day_has_the_shape_of_a_day() -> None:
    made = plan(2000)
    office = begun(made, Hours.OFFICE)
    assert office[9] + office[10] > 1.5 * (office[12] + office[13])
    assert not any(office[hour] for hour in range(7))
    emergency = begun(made, Hours.EMERGENCY)
    assert all(emergency[hour] for hour in range(24))
    assert sum(emergency[hour] for hour in range(6)) < sum(emergency[h] for h in range(16, 22)) / 2
    early = begun(made, Hours.EARLY)
    assert early[5] == max(early.values())


def test_a_part_of_a_day_has_what_happens_in_it() -> None:
    made = plan(100, hours=(0, 4))
    assert {GENERAL.stations[one.station].hours for one in made.transfers if one.items} == {
        Hours.EMERGENCY
    }
    offices = hospital.Profile(stations=(hospital.Station(ae_title="A", makes=Kind.CR),))
    with pytest.raises(Misconfigured, match="nobody-works"):
        day.plan(offices, Request(studies=1, seed=1, hours=(0, 6)))


def test_every_fault_is_in_a_day_as_often_as_the_profile_says() -> None:
    made = plan(1000)
    found = Counter(one.fault for one in made.studies.values())
    assert found.pop(None) == 1000 - 120
    assert found.pop(Fault.TWICE) == 20
    assert set(found.values()) == {10}
    beside = {one.fault for one in made.transfers if not one.items}
    assert set(found) | beside | {Fault.TWICE} == set(Fault)


def test_priors_come_in_bulk_and_are_of_patients_of_the_day() -> None:
    made = plan(400)
    (archive,) = (n for n, one in enumerate(GENERAL.stations) if one.makes is Kind.ARCHIVE)
    sent = [one for one in made.transfers if one.station == archive and one.items]
    bulk = [{item.study for item in one.items} for one in sent if one.fault is None]
    assert max(map(len, bulk)) == 5
    today = max(one.date for one in made.studies.values())
    priors = [made.studies[number] for numbers in bulk for number in numbers]
    assert all(one.date < today for one in priors)
    others = {one.person.name for one in made.studies.values() if one.date == today}
    assert sum(one.person.name in others for one in priors) > len(priors) / 2


def test_modalities_open_associations_as_they_do() -> None:
    made = plan()
    parts: dict[Kind, set[int]] = {}
    for study in made.studies.values():
        if study.fault is None:
            own = [one for one in made.transfers if any(i.study == study.number for i in one.items)]
            parts.setdefault(study.makes, set()).add(len(own))
    assert max(parts[Kind.CT]) == 3  # a series each
    assert max(parts[Kind.US]) > 3  # an object each
    assert parts[Kind.MG] == {1}


def test_what_is_aborted_comes_by_half_and_ends_so() -> None:
    study, (only,) = of(Fault.ABORTS, plan())
    assert (only.ending, study.arrival) == (Ending.ABORTED, Arrival.HALF)
    assert only.items == study.items[: len(study.items) // 2]


def test_what_is_cut_comes_again_as_a_whole() -> None:
    study, (first, second) = of(Fault.CUTS, plan())
    assert (first.ending, second.ending) == (Ending.CUT, Ending.RELEASED)
    assert (second.items, second.at_s - first.at_s) == (study.items, 60)


def test_what_comes_twice_and_late_comes_whole() -> None:
    study, (first, second) = of(Fault.TWICE, plan())
    assert first.items == second.items == study.items
    study, (first, second) = of(Fault.LATE, plan())
    assert first.items + second.items == study.items
    assert second.at_s - first.at_s == 1200


def test_a_missing_slice_lies_between_others() -> None:
    study, (only,) = of(Fault.MISSING_SLICES, plan())
    (missing,) = set(study.items) - set(only.items)
    series = study.series[missing.series - 1]
    assert series.content is Content.SLICE
    assert 1 < missing.number < series.count


def test_who_is_slow_or_calls_another_is_told_so() -> None:
    _, (slow,) = of(Fault.SLOW, plan())
    assert slow.bytes_per_s == GENERAL.slow_bytes_per_s
    study, (wrong,) = of(Fault.WRONG_CALLED, plan())
    assert wrong.is_called_wrong
    assert study.arrival is Arrival.NOTHING


def edited(fault: Fault) -> tuple[Day, Item, Dataset, Dataset]:
    """An object as it is spoilt, and as it should be."""
    made = plan()
    _, (only,) = of(fault, made)
    (item,) = (one for one in only.items if one.edit is not Edit.NONE)
    well = objects.make(made, replace(item, edit=Edit.NONE))
    return made, item, objects.make(made, item), well


def test_one_object_names_another_patient() -> None:
    _, _, bad, well = edited(Fault.WRONG_PATIENT)
    assert bad.PatientID != well.PatientID
    assert bad.PatientName != well.PatientName
    assert (bad.StudyInstanceUID, bad.SOPInstanceUID) == (
        well.StudyInstanceUID,
        well.SOPInstanceUID,
    )


def test_a_duplicate_has_the_uid_of_another_and_not_its_pixels() -> None:
    _, _, bad, well = edited(Fault.DUPLICATE_UID)
    assert bad.SOPInstanceUID == well.SOPInstanceUID
    assert bad.PixelData != well.PixelData


def test_what_nobody_knows_is_registered_nowhere() -> None:
    _, _, bad, well = edited(Fault.UNKNOWN_CLASS)
    assert bad.SOPClassUID == objects.UNKNOWN_CLASS
    assert bad.SOPInstanceUID != well.SOPInstanceUID
    _, _, bad, well = edited(Fault.UNKNOWN_SYNTAX)
    assert bad.file_meta.TransferSyntaxUID == objects.UNKNOWN_SYNTAX


def every_object(made: Day) -> list[Dataset]:
    return [objects.make(made, item) for item in objects.first_of_each(made).values()]


def test_every_object_says_that_it_is_invented() -> None:
    for one in every_object(plan()):
        assert one.QualityControlSubject == "YES"
        assert "SIMULATED" in one.InstitutionName
        assert "SIMULATED" in one.PatientComments
        assert "SIMULATED" in one.get("ImageComments", one.InstitutionName)


def test_a_day_has_every_kind_of_object() -> None:
    kinds = {(one.Modality, "NumberOfFrames" in one) for one in every_object(plan())}
    assert {("CT", True), ("CT", False), ("MR", True), ("MR", False), ("SR", False)} <= kinds
    assert {("CR", False), ("MG", False), ("US", False), ("US", True)} <= kinds


@pytest.mark.parametrize("script", people.SCRIPTS, ids=lambda one: "\\".join(one.character_sets))
def test_names_of_every_script_are_written_in_their_character_set(script: people.Script) -> None:
    named = next(
        one
        for one in (people.person("names", number) for number in range(1000))
        if one.character_sets == script.character_sets
    )
    encodings = convert_encodings(list(named.character_sets or ("",)))
    for text in (named.name, named.referrer):
        for part in text.replace("=", "^").split("^"):
            assert b"?" not in encode_string(part, encodings)
        assert all(len(group) <= 64 for group in text.split("="))  # PS3.5 6.2, PN


def test_a_profile_is_read_and_its_faults_are_named(tmp_path: Path) -> None:
    file = tmp_path / "profile.toml"
    file.write_text(
        'crowd = 0\n[[stations]]\nae_title = "MR7"\nmakes = "mr"\nhours = "emergency"\n'
        "[faults]\nslow = 0.5\n"
    )
    profile = hospital.read(file)
    assert (profile.stations[0].makes, profile.faults.slow, profile.crowd) == (Kind.MR, 0.5, 0)
    file.write_text('[[stations]]\nae_title = "MR7"\nmakes = "x"\nage = 3\n')
    with pytest.raises(Misconfigured, match=r"stations\.0\.makes.*stations\.0\.age"):
        hospital.read(file)


def test_the_example_of_a_profile_is_what_is_simulated_without_one() -> None:
    example = Path(__file__).resolve().parents[2] / "deploy" / "simulation.example.toml"
    assert hospital.read(example) == GENERAL


def test_the_rates_of_a_profile_are_kept() -> None:
    faults = hospital.Faults(**dict.fromkeys(hospital.Faults.model_fields, 0.0) | {"slow": 0.5})
    made = day.plan(GENERAL.model_copy(update={"faults": faults}), Request(studies=40, seed=1))
    assert Counter(one.fault for one in made.studies.values()) == {Fault.SLOW: 20, None: 20}


def test_studies_are_made_like_those_of_a_folder(tmp_path: Path) -> None:
    written = phantom.write_series(tmp_path, shape=(5, 8, 8), attributes={"PatientAddress": "Here"})
    like = likeness.read(tmp_path)
    made = day.plan(GENERAL, Request(studies=20, seed=1, shapes=like.shapes, variety=like.variety))
    study = next(one for one in made.studies.values() if one.fault is None)
    sources = sorted(map(pydicom.dcmread, written.files), key=lambda one: one.InstanceNumber)
    copies = [like.make(made, item) for item in study.items]
    assert [one.PixelData for one in copies] == [one.PixelData for one in sources]
    assert {one.StudyInstanceUID for one in copies} == {study.study_instance_uid}
    (series,) = {one.SeriesInstanceUID for one in copies}
    assert series == study.series_instance_uid(study.series[0])
    assert {str(one.PatientName) for one in copies} == {study.person.name}
    assert len({one.SOPInstanceUID for one in (*copies, *sources)}) == 10
    kept = b"".join(one.to_json().encode() for one in copies)
    for secret in ("PHANTOM-1", "A-0815", "19700131", "20240229", "Errer", "Here"):
        assert secret.encode() not in kept


def test_a_folder_without_dicom_is_nothing_to_be_like(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="no-dicom-file"):
        likeness.read(tmp_path)


def test_another_machine_is_filled_only_if_somebody_insists() -> None:
    for here in ("A@127.0.0.1:104", "A@[::1]:104", "A@localhost:104"):
        # By its address: the name is not asked again while the day goes on.
        assert simulate.on_loopback(sender.parse_destination(here)).host in {"127.0.0.1", "::1"}
    for there in ("A@10.0.0.1:104", "A@0.0.0.0:104"):
        with pytest.raises(Misconfigured, match="not-loopback"):
            simulate.on_loopback(sender.parse_destination(there))
    with pytest.raises(Misconfigured, match="unknown-host"):
        simulate.on_loopback(sender.parse_destination(f"A@{'a' * 64}.example:104"))


def test_a_crowd_does_not_wait_for_an_answer_that_never_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(crowd, "_ANSWER_S", 0.1)
    with channels.rude(channels.drips_an_association) as port:
        to = sender.Destination(ae_title="A", host=channels.HOST, port=port)
        came = crowd.gather(to, calling_ae_title="B", count=1, hold=lambda: None)
    assert came == {"peer-unreachable": 1}


def test_who_is_slow_by_plan_has_as_long_as_it_takes() -> None:
    made = plan(size=Size.REAL)
    _, (slow, *_) = of(Fault.SLOW, made)
    traffic = Traffic(
        made,
        make=objects.make,
        to=sender.Destination(ae_title="A", host=channels.HOST, port=1),
        pace=Pace(speed=None, begins_s=0),
        account=Account(),
    )
    largest = max(len(objects.make(made, one).get("PixelData", b"")) for one in slow.items[:1])
    assert traffic._patience(slow).answer_s > largest / slow.bytes_per_s
    assert traffic._patience(replace(slow, bytes_per_s=None)) == Patience()


@pytest.mark.parametrize(
    "wrong",
    [["--hours", "7"], ["--hours", "9-8"], ["--speed", "fast"], ["--speed", "0"],
     ["--speed", "1e-9"],
     ["--calling", "A\\B"]],
)  # fmt: skip
def test_what_is_no_part_of_a_day_no_speed_or_no_title_is_told(wrong: list[str]) -> None:
    said = CliRunner().invoke(cli.app, ["simulate", "--to", "A@127.0.0.1:1", *wrong])
    assert said.exit_code == 2
    assert " is no " in said.output


def test_a_day_that_is_broken_off_writes_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late: list[Traffic] = []

    def broken_off(traffic: Traffic) -> None:
        late.append(traffic)
        raise KeyboardInterrupt

    monkeypatch.setattr(Traffic, "run", broken_off)
    made = plan(studies=1)
    simulate.run(
        simulate.Simulation(
            profile=GENERAL, request=Request(studies=1, seed=7), like=None, speed=None
        ),
        made,
        to=sender.Destination(ae_title="A", host=channels.HOST, port=1),
        tell=lambda _: None,
        ledger=tmp_path / "ledger",
    )
    late[0]._account.note(Answer(station="SIM_CT1"))  # and nobody minds
    assert (tmp_path / "ledger").read_text() == ""


def test_the_account_counts_what_was_said() -> None:
    told: list[Answer] = []
    made = Account(tell=told.append)
    one = Answer(station="A", study_instance_uid="1", sop_instance_uid="1.1", seconds=0.01)
    for answer in (
        one,
        replace(one, sop_instance_uid="1.2", seconds=0.03),
        replace(one, sop_instance_uid="1.3", reason="0xA700", is_final=False, seconds=None),
        replace(one, sop_instance_uid="1.3", reason="0x0111", is_meant=True, seconds=None),
        replace(one, sop_instance_uid="1.4", is_meant=True, seconds=None),
        Answer(station="A", reason="peer-busy", is_final=False),
    ):
        made.note(answer)
    document = made.document(planned={}, seconds=2.04)
    assert len(told) == 6
    assert (document["acknowledged"], document["studies"], document["seconds"]) == (3, 1, 2.0)
    assert document["taken_though_wrong"] == 1
    assert document["tried_again"] == {"objects": 1, "associations": 1}
    assert document["refused"] == [
        {"what": "object", "reason": "0x0111", "count": 1, "meant": True}
    ]
    assert document["answer_ms"] == {"50": 10.0, "90": 10.0, "99": 10.0, "longest": 30.0}
    assert account.is_well(document)
    made.note(replace(one, reason="0xC000"))
    assert not account.is_well(made.document(planned={}, seconds=1))


# The tests' own search for what names a patient: one that finds nothing is no witness.


WRITTEN = {
    "as it is": lambda text, _: text.encode(),
    "in capitals": lambda text, _: text.upper().encode() if text.isascii() else text.encode(),
    "folded": lambda text, _: text.casefold().encode(),
    "in its character set": lambda text, sets: encode_string(text, convert_encodings(sets)),
    "escaped in JSON": lambda text, _: json.dumps(text).encode(),
    "escaped by Python": lambda text, _: text.encode("ascii", "backslashreplace"),
    "as Python shows bytes": lambda text, sets: repr(
        encode_string(text, convert_encodings(sets))
    ).encode(),
    "taken for Latin-1": lambda text, _: text.encode().decode("latin-1").encode(),
}


@pytest.mark.parametrize("way", WRITTEN)
def test_a_name_is_found_however_it_is_written(way: str) -> None:
    for number in range(60):
        one = people.person("search", number)
        sets = list(one.character_sets or ("",))
        dataset = Dataset()
        if one.character_sets:
            dataset.SpecificCharacterSet = list(one.character_sets)
        dataset.PatientName = one.name
        looked_for = searched.Searched(searched.spoken(dataset).items())
        for part in one.name.replace("=", "^").split("^"):
            if part:
                line = b'{"event": "' + WRITTEN[way](part, sets) + b'"}'
                assert looked_for.found_in(line), (part, line)


def test_a_date_is_found_and_a_piece_of_a_uid_is_none() -> None:
    dataset = Dataset()
    dataset.PatientBirthDate = "19211025"
    looked_for = searched.Searched(searched.spoken(dataset).items())
    for line in (b"born 19211025.", b"1921-10-25", b'"25.10.1921"'):
        assert looked_for.found_in(line)
    assert looked_for.found_in(b"2.25.88192110254711") == []
