"""What a study is waited for: who repeats, who could not be heard, what was refused."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from dicomnode.archive import journal
from dicomnode.archive.arrival import End, Ended, Opened, Stored
from dicomnode.archive.database import Database
from dicomnode.archive.disk import files
from dicomnode.archive.disk.files import FileStore
from dicomnode.archive.journal import Entry, Kind
from dicomnode.archive.studies import index
from dicomnode.intake import Intake, Patience

STUDY = "1.2.3"
BEGIN = 1000.0
SETTLE_S, QUIET_S = 2.0, 30.0


class Ward:
    """An intake at work, what a listener reports to it, and the time."""

    def __init__(self, folder: Path) -> None:
        self.now = BEGIN
        self.set_forward = 0.0  # seconds by which the clock was set
        self.store = FileStore(folder / "data")
        self.database = Database(f"sqlite:///{folder}/node.db")
        self.database.migrate()
        self.intake = self.started()

    def started(self) -> Intake:
        """A life of the node, as it begins."""
        intake = Intake(
            self.database,
            self.store,
            [],
            patience=Patience(settle_s=SETTLE_S, quiet_s=QUIET_S),
            clock=lambda: self.now,
            monotonic=lambda: self.now - self.set_forward,
        )
        intake.reconcile()
        return intake

    def open(self, association: str) -> None:
        self.intake.report(
            Opened(
                association=association, peer="ct", calling_ae_title="CT", address="10.0.0.5",
                at=self.now,
            )
        )  # fmt: skip

    def send(self, association: str, *numbers: int, content: bytes = b"") -> None:
        for number in numbers:
            meta = files.file_meta(
                sop_class_uid=CTImageStorage,
                sop_instance_uid=f"{STUDY}.1.{number}",
                transfer_syntax_uid=ExplicitVRLittleEndian,
            )
            with contextlib.closing(self.store.draft(meta)) as draft:
                draft.write(content or encoded(number))
                stored = draft.commit(f"{STUDY}.1.{number}")
            self.intake.report(
                Stored(
                    association=association, path=stored.path, at=self.now,
                    repeated=not stored.is_new,
                )
            )  # fmt: skip

    def end(self, association: str, end: End, *, refused: int = 0) -> None:
        self.intake.report(
            Ended(association=association, end=end, stored=0, refused=refused, at=self.now)
        )

    def work(self, *, at: float) -> None:
        """Do what is to be done then."""
        self.now = at
        self.intake.catch_up()
        self.intake.complete_due(at)

    @property
    def completed(self) -> list[str]:
        """Why each revision of the study was taken as complete."""
        return [str(one.facts["because"]) for one in self.told(Kind.STUDY_COMPLETE)]

    def told(self, kind: Kind) -> list[Entry]:
        with self.database.read() as tx:
            return [one for one in journal.of_study(tx, STUDY) if one.kind == kind]


def encoded(number: int) -> bytes:
    ds = Dataset()
    ds.SOPClassUID = CTImageStorage
    ds.SOPInstanceUID = f"{STUDY}.1.{number}"
    ds.Modality = "CT"
    ds.StudyInstanceUID = STUDY
    ds.SeriesInstanceUID = f"{STUDY}.1"
    ds.InstanceNumber = number
    buffer = BytesIO()
    ds.save_as(buffer, implicit_vr=False, little_endian=True)
    return buffer.getvalue()


@pytest.fixture
def ward(tmp_path: Path) -> Iterator[Ward]:
    made = Ward(tmp_path)
    yield made
    made.database.close()


def broken_off(ward: Ward) -> None:
    """Half of a study has come, without a gap, when the connection breaks."""
    ward.open("first")
    ward.send("first", 1, 2, 3)
    ward.end("first", End.LOST)
    ward.work(at=BEGIN)


def test_who_begins_anew_is_waited_for_until_something_new_comes(ward: Ward) -> None:
    broken_off(ward)
    ward.open("second")
    for seconds, number in ((25, 1), (50, 2), (75, 3), (100, 4)):
        ward.work(at=BEGIN + seconds)
        ward.send("second", number)
        ward.work(at=BEGIN + seconds + 1)
        assert ward.completed == []
    ward.end("second", End.RELEASED)
    ward.work(at=BEGIN + 129)
    assert ward.completed == []
    ward.work(at=BEGIN + 130)
    (because,) = ward.completed
    assert because.startswith("No new instance came for 30 s. ")
    with ward.database.read() as tx:
        study = index.study(tx, STUDY)
        assert study is not None
        assert len(study.series[0].instances) == 4


def test_who_only_repeats_is_not_waited_for_without_an_end(ward: Ward) -> None:
    broken_off(ward)
    for number in itertools.count():
        ward.send(f"again {number}", 1)
        ward.work(at=ward.now + 20)
        if ward.completed:
            break
    assert ward.now == BEGIN + 340  # the first look after 11 times as long as a silence
    assert ward.completed[0].startswith("No new instance came for 330 s. ")


def test_a_study_that_is_repeated_whole_stays_complete(ward: Ward) -> None:
    broken_off(ward)
    ward.work(at=BEGIN + 30)
    ward.send("second", 1, 2, 3)
    ward.work(at=BEGIN + 31)
    ward.work(at=BEGIN + 99)
    assert len(ward.completed) == 1


def test_who_could_not_be_heard_was_not_silent(ward: Ward) -> None:
    broken_off(ward)
    ward.now = up = BEGIN + 600
    ward.intake = ward.started()
    stop = threading.Event()
    stop.set()
    ward.intake.run(stop)
    ward.work(at=up + 29)
    assert ward.completed == []
    ward.work(at=up + 30)
    assert len(ward.completed) == 1


def test_a_clock_that_is_set_after_a_power_cut_makes_nobody_silent(ward: Ward) -> None:
    broken_off(ward)
    ward.intake = ward.started()
    stop = threading.Event()
    stop.set()
    ward.intake.run(stop)
    ward.set_forward = 600.0
    ward.work(at=BEGIN + 600 + 29)
    assert ward.completed == []
    ward.work(at=BEGIN + 600 + 30)
    assert len(ward.completed) == 1


def test_what_was_refused_is_waited_for_as_what_is_missing(ward: Ward) -> None:
    ward.open("only")
    ward.send("only", 1, 2, 3)
    ward.end("only", End.RELEASED, refused=1)
    ward.work(at=BEGIN + SETTLE_S)
    ward.work(at=BEGIN + 29)
    assert ward.completed == []
    ward.work(at=BEGIN + 30)
    (because,) = ward.completed
    assert because.endswith("The node refused some of what the associations brought.")


def test_the_end_of_what_brought_complete_studies_is_no_work(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    ward.open("long")
    ward.send("long", 1, 2, 3)
    ward.work(at=BEGIN)
    ward.work(at=BEGIN + 30)
    assert len(ward.completed) == 1
    asked: list[object] = []
    monkeypatch.setattr(index, "study", lambda *of: asked.append(of))
    ward.end("long", End.RELEASED)
    ward.work(at=BEGIN + 40)
    ward.work(at=BEGIN + 80)
    assert asked == []


def test_a_file_that_is_missing_is_told_of_once_in_the_life_of_its_study(ward: Ward) -> None:
    broken_off(ward)
    path = ward.store.place(f"{STUDY}.1.2")
    ward.store.absolute(path).unlink()
    for _ in range(2):
        ward.intake = ward.started()
    (told,) = ward.told(Kind.FILE_MISSING)
    assert told.facts["path"] == path


def test_a_header_that_breaks_off_is_told_of_in_the_life_of_its_study(ward: Ward) -> None:
    ward.send("only", 1, content=encoded(1)[:-1])
    ward.work(at=BEGIN)
    (told,) = ward.told(Kind.UNREADABLE)
    assert "it ends within an element" in told.facts["detail"]
    assert told.facts["path"] == ward.store.place(f"{STUDY}.1.1")
