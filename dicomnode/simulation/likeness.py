"""Objects made like the files of a folder: with their pixels, and under other names and UIDs.

What is replaced is what names a patient and a study in the modules of the standard, every person's
name and every date. That is no de-identification: what stands in pixels and in free text stays.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pydicom
from pydicom import Dataset

from dicomnode import uid
from dicomnode.errors import Misconfigured
from dicomnode.network.calling import sender
from dicomnode.simulation import header, objects
from dicomnode.simulation.header import Subject
from dicomnode.simulation.images import IMAGE_COMMENT
from dicomnode.simulation.planned import Content, Day, Item, Series, Study

_REGISTERED = "1.2.840.10008."  # PS3.6 Annex A
_UNICODE = ("ISO_IR 192",)
_PERSONAL_GROUPS = frozenset({0x0010, 0x0032, 0x0038})
_DATES = frozenset({"DA", "DT", "TM"})
_VOLUMES = frozenset({"CT", "MR", "PT", "NM"})
_FEWEST_SLICES = 3
_ASKED = (
    "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "Modality", "InstanceNumber",
    "NumberOfFrames", "Rows", "SeriesDescription",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class _Template:
    """One file.

    Attributes:
        study, series, instance: Its UIDs.
    """

    path: Path
    study: str
    series: str
    instance: str
    modality: str
    number: int
    frames: int
    matrix: int
    description: str


_StudyLike = tuple[tuple[_Template, ...], ...]  # for each series its files, in order


@dataclass(frozen=True, kw_only=True)
class Likeness:
    """The studies of a folder.

    Attributes:
        studies: For each study its series, each with its files in order.
    """

    studies: tuple[_StudyLike, ...] = field(repr=False)

    @cached_property
    def shapes(self) -> tuple[tuple[Series, ...], ...]:
        """The series of each study, as a plan takes them."""
        return tuple(
            tuple(_shape(number, files) for number, files in enumerate(study, start=1))
            for study in self.studies
        )

    @cached_property
    def variety(self) -> str:
        """What tells these files from others."""
        uids = sorted(file.instance for study in self.studies for one in study for file in one)
        return hashlib.sha256("\n".join(uids).encode()).hexdigest()

    def make(self, plan: Day, item: Item) -> Dataset:
        """An object of the plan, as `objects.make`.

        Raises:
            OSError: Its file cannot be read any more.
        """
        about = objects.subject(plan, item)
        templates = self.studies[about.study.template]
        template = templates[item.series - 1][item.number - 1]
        dataset = pydicom.dcmread(template.path)
        dataset.decode()  # text is text from here on, in whatever characters it came
        known = _uids(about.study, templates)
        dataset.walk(_replacer(about, known))
        _rename(dataset, about)
        return objects.edited(dataset, item)


def read(folder: Path) -> Likeness:
    """Look at the DICOM files of a folder.

    Raises:
        Misconfigured: `no-dicom-file` where it holds none with a study, a series and an instance.
    """
    studies: dict[str, dict[str, list[_Template]]] = defaultdict(lambda: defaultdict(list))
    for template in _templates(sender.dicom_files([folder])):
        studies[template.study][template.series].append(template)
    if not studies:
        raise Misconfigured("no-dicom-file", f"{folder} holds no DICOM file to make others like.")
    return Likeness(
        studies=tuple(
            tuple(
                tuple(sorted(files, key=lambda one: (one.number, one.instance)))
                for _, files in sorted(series.items())
            )
            for _, series in sorted(studies.items())
        )
    )


def _templates(files: Sequence[Path]) -> Iterator[_Template]:
    for path in files:
        dataset = pydicom.dcmread(path, specific_tags=list(_ASKED))
        uids = [str(dataset.get(keyword, "")) for keyword in _ASKED[:3]]
        if all(map(uid.is_acceptable, uids)):
            yield _Template(
                path=path,
                study=uids[0],
                series=uids[1],
                instance=uids[2],
                modality=str(dataset.get("Modality", "")),
                number=int(dataset.get("InstanceNumber") or 0),
                frames=int(dataset.get("NumberOfFrames") or 1),
                matrix=int(dataset.get("Rows") or 0),
                description=str(dataset.get("SeriesDescription", "")),
            )


def _shape(number: int, files: Sequence[_Template]) -> Series:
    first = files[0]
    is_volume = first.modality in _VOLUMES and len(files) >= _FEWEST_SLICES
    return Series(
        number=number,
        modality=first.modality,
        content=Content.SLICE if is_volume else Content.STILL,
        description=first.description,
        count=len(files),
        frames=first.frames,
        matrix=first.matrix,
    )


def _uids(study: Study, templates: _StudyLike) -> dict[str, str]:
    """UID of a template → the UID that the plan gives to what is made like it."""
    known = {templates[0][0].study: study.study_instance_uid}
    for number, files in enumerate(templates, start=1):
        known[files[0].series] = uid.derived(study.key, str(study.number), str(number))
        for place, file in enumerate(files, start=1):
            known[file.instance] = uid.derived(
                study.key, str(study.number), str(number), str(place)
            )
    return known


def _replacer(
    about: Subject, known: Mapping[str, str]
) -> Callable[[Dataset, pydicom.DataElement], None]:
    """What `Dataset.walk` calls for each element, also of the items of sequences."""

    def replace(dataset: Dataset, element: pydicom.DataElement) -> None:
        if element.tag.is_private or element.tag.group in _PERSONAL_GROUPS:
            del dataset[element.tag]
        elif element.VR == "UI":
            element.value = _each(element.value, lambda value: _uid(value, about.study, known))
        elif element.VR == "PN":
            element.value = about.person.referrer
        elif element.VR in _DATES:
            element.value = _moment(element.VR, about)

    return replace


def _each(value: object, change: Callable[[str], str]) -> object:
    if value is None or value == "":
        return value
    return change(value) if isinstance(value, str) else [change(str(one)) for one in list(value)]  # type: ignore[call-overload] # several UIDs


def _uid(value: str, study: Study, known: Mapping[str, str]) -> str:
    if value.startswith(_REGISTERED):
        return value
    return known.get(value) or uid.derived(study.key, str(study.number), "like", value)


def _moment(vr: str, about: Subject) -> str:
    study = about.study
    time = header.time_of(study.begins_s, about.item.number)
    return {"DA": study.date, "TM": time, "DT": study.date + time}[vr]


def _rename(dataset: Dataset, about: Subject) -> None:
    header.name_character_sets(dataset, _UNICODE)
    header.name_patient(dataset, about)
    description = dataset.get("StudyDescription")
    header.name_study(dataset, about)
    if description:
        dataset.StudyDescription = description  # a rule may ask for it
    if "PixelData" in dataset:
        dataset.ImageComments = IMAGE_COMMENT
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
