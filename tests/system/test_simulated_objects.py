"""No program that judges DICOM has anything against what a simulated hospital sends."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import validators

from dicomnode.simulation import day, hospital, objects, people
from dicomnode.simulation.hospital import Kind
from dicomnode.simulation.planned import Content, Day, Item

DAY = day.plan(hospital.GENERAL, day.Request(studies=200, seed=5))
#: Programs count the bytes of a name where the standard counts the characters of each group of it
#: (PS3.5 6.2): whose name is Latin shows what they have to say of everything else.
LATIN = next(
    one for one in (people.person("latin", n) for n in range(100)) if not one.character_sets
)
NAMED_IN_LATIN = replace(
    DAY, studies={number: replace(one, person=LATIN) for number, one in DAY.studies.items()}
)
KINDS = objects.first_of_each(DAY)


def written(plan: Day, item: Item, folder: Path) -> Path:
    dataset = objects.make(plan, item)
    path = folder / f"{dataset.SOPInstanceUID}.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.server("dicom3tools")
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind[0]} {kind[1]}")
def test_every_kind_of_object_is_valid(kind: tuple[str, Content], tmp_path: Path) -> None:
    path = written(NAMED_IN_LATIN, KINDS[kind], tmp_path)
    assert validators.complaints("dciodvfy", path) == []


@pytest.mark.server("dcmtk")
def test_a_dose_report_is_a_document(tmp_path: Path) -> None:
    path = written(NAMED_IN_LATIN, KINDS["SR", Content.REPORT], tmp_path)
    assert validators.complaints("dsrdump", path) == []


@pytest.mark.server("dicom3tools")
@pytest.mark.parametrize("made_by", [kind for kind in Kind if kind is not Kind.ARCHIVE])
def test_the_objects_of_a_study_agree(made_by: Kind, tmp_path: Path) -> None:
    study = next(one for one in DAY.studies.values() if one.makes is made_by)
    files = [written(DAY, item, tmp_path) for item in study.items]
    assert validators.complaints("dcentvfy", *files) == []
