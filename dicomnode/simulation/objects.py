"""A planned object → a data set."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pydicom import Dataset
from pydicom.uid import UID

from dicomnode import uid
from dicomnode.simulation import day, documents, enhanced, images
from dicomnode.simulation.header import Subject
from dicomnode.simulation.planned import Content, Day, Edit, Item, Study

_Make = Callable[[Subject], Dataset]

#: Nobody has registered them.
UNKNOWN_CLASS = uid.derived("simulated", "SOP class")
UNKNOWN_SYNTAX = uid.derived("simulated", "transfer syntax")

_MAKERS: Mapping[tuple[str, Content], _Make] = {
    ("CT", Content.LOCALIZER): images.ct,
    ("CT", Content.SLICE): images.ct,
    ("CT", Content.FRAMES): enhanced.ct,
    ("MR", Content.LOCALIZER): images.mr,
    ("MR", Content.SLICE): images.mr,
    ("MR", Content.FRAMES): enhanced.mr,
    ("CR", Content.RADIOGRAPH): images.radiograph,
    ("MG", Content.VIEW): images.view,
    ("US", Content.STILL): images.ultrasound,
    ("US", Content.CINE): images.ultrasound,
    ("SR", Content.REPORT): documents.dose_report,
}


def subject(plan: Day, item: Item) -> Subject:
    """What an object is about, and whom it names."""
    study = plan.studies[item.study]
    series = next(one for one in study.series if one.number == item.series)
    is_other = item.edit is Edit.OTHER_PATIENT
    person = day.other_patient(item, plan) if is_other else study.person
    return Subject(study=study, series=series, item=item, person=person)


def make(plan: Day, item: Item) -> Dataset:
    """An object of the plan; the same again whenever it is asked for.

    Its file meta information says the transfer syntax (0002,0010) that it is to be sent in.
    """
    about = subject(plan, item)
    dataset = _MAKERS[about.series.modality, about.series.content](about)
    return edited(dataset, item)


def edited(dataset: Dataset, item: Item) -> Dataset:
    """An object of a kind that nobody knows, where the plan says so."""
    if item.edit is Edit.UNKNOWN_CLASS:
        dataset.SOPClassUID = UID(UNKNOWN_CLASS)
        dataset.SOPInstanceUID = uid.derived(dataset.SOPInstanceUID, item.edit)
    elif item.edit is Edit.UNKNOWN_SYNTAX:
        dataset.file_meta.TransferSyntaxUID = UID(UNKNOWN_SYNTAX)
        dataset.SOPInstanceUID = uid.derived(dataset.SOPInstanceUID, item.edit)
    return dataset


def first_of_each(plan: Day) -> dict[tuple[str, Content], Item]:
    """An object of every kind that the day has: modality and content → the first."""
    found: dict[tuple[str, Content], Item] = {}
    for number in sorted(plan.studies):
        study: Study = plan.studies[number]
        for series in study.series:
            one = Item(study=number, series=series.number, number=1)
            found.setdefault((series.modality, series.content), one)
    return found
