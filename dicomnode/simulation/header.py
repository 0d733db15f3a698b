"""What every object says of its patient, its study, its series and its maker (PS3.3 C.7, C.12)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from dicomnode import uid
from dicomnode.simulation import chance, people
from dicomnode.simulation.people import Person
from dicomnode.simulation.planned import Content, Item, Series, Study

#: What names the data as invented wherever it is shown.
INSTITUTION = "SIMULATED (no such hospital)"
_PATIENT_COMMENT = "SIMULATED: this person does not exist."
_MAKER = "SIMULATED modality"
_DAYS_OF_A_YEAR = 365.25
_CONTENTS_WITHOUT_SPACE = frozenset({Content.RADIOGRAPH, Content.STILL, Content.CINE})


@dataclass(frozen=True, kw_only=True)
class Subject:
    """An object that is to be made.

    Attributes:
        person: Whom it names: mostly the study's patient.
    """

    study: Study
    series: Series
    item: Item
    person: Person

    @property
    def sop_instance_uid(self) -> str:
        """SOP Instance UID (0008,0018)."""
        where = (str(self.study.number), str(self.series.number), str(self.item.number))
        return uid.derived(self.study.key, *where)


def begun(subject: Subject, sop_class_uid: str) -> Dataset:
    """A data set with everything that does not depend on what the object is."""
    dataset = Dataset()
    name_character_sets(dataset, subject.person.character_sets)
    dataset.SOPClassUID = sop_class_uid
    dataset.SOPInstanceUID = subject.sop_instance_uid
    dataset.InstanceNumber = subject.item.number
    name_patient(dataset, subject)
    name_study(dataset, subject)
    _series(dataset, subject)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return dataset


def name_character_sets(dataset: Dataset, character_sets: Sequence[str]) -> None:
    """Say in which character sets the text of an object is."""
    if character_sets:
        dataset.SpecificCharacterSet = (
            character_sets[0] if len(character_sets) == 1 else list(character_sets)
        )


def name_patient(dataset: Dataset, subject: Subject) -> None:
    """Say whom an object is of: nobody."""
    person = subject.person
    dataset.PatientName = person.name
    dataset.PatientID = person.patient_id
    dataset.IssuerOfPatientID = "SIMULATED issuer"
    dataset.PatientBirthDate = person.birth_date
    dataset.PatientSex = person.sex
    dataset.PatientAge = f"{_years(person.birth_date, subject.study.date):03}Y"
    dataset.PatientComments = _PATIENT_COMMENT
    dataset.QualityControlSubject = "YES"


def _years(born: str, on: str) -> int:
    days = (date.fromisoformat(on) - date.fromisoformat(born)).days
    return max(0, int(days / _DAYS_OF_A_YEAR))


def name_study(dataset: Dataset, subject: Subject) -> None:
    """Say which study an object is of, and that no hospital has made it."""
    study = subject.study
    dataset.StudyInstanceUID = study.study_instance_uid
    dataset.StudyDate = study.date
    dataset.StudyTime = time_of(study.begins_s, study.number)
    dataset.AccessionNumber = study.accession_number
    dataset.StudyID = people.identifier(chance.of(study.key, "id", study.number), 10)
    dataset.ReferringPhysicianName = subject.person.referrer
    dataset.StudyDescription = study.description
    dataset.InstitutionName = INSTITUTION


def _series(dataset: Dataset, subject: Subject) -> None:
    study, series = subject.study, subject.series
    dataset.SeriesInstanceUID = study.series_instance_uid(series)
    dataset.SeriesNumber = series.number
    dataset.SeriesDescription = series.description
    dataset.Modality = series.modality
    dataset.SeriesDate = dataset.ContentDate = study.date
    begun_s = study.begins_s + 60 * series.number
    dataset.SeriesTime = time_of(begun_s, series.number)
    dataset.ContentTime = time_of(begun_s + subject.item.number, subject.item.number)
    dataset.Manufacturer = _MAKER
    dataset.ManufacturerModelName = f"SIMULATED {study.makes}"
    dataset.DeviceSerialNumber = f"SIMULATED {study.makes} 1"
    dataset.SoftwareVersions = "SIMULATED software"
    if series.content not in _CONTENTS_WITHOUT_SPACE and series.matrix:
        dataset.FrameOfReferenceUID = uid.derived(study.key, str(study.number), "space")
        dataset.PositionReferenceIndicator = ""


def time_of(seconds: float, fraction: int) -> str:
    """A time of day (TM); fractions of a second make it one that nothing else is called."""
    whole = int(seconds) % 86400
    minutes, second = divmod(whole, 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour:02}{minute:02}{second:02}.{(whole * 7919 + fraction * 104729) % 1_000_000:06}"
