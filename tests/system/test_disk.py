"""A disk that is full, and one that fails: what was acknowledged is there, and the node goes on.

The disks are real and small; whoever runs this has to have the right to mount them. root has it,
and so has everybody for whom `unshare --map-root-user --mount` works: run pytest below that. A loop
device needs root itself. A container has to be given the right (CAP_SYS_ADMIN). Where it is missing
the tests are skipped, or fail where nothing may be missing (DICOMNODE_TESTS_REQUIRE_SERVERS).
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO, StringIO
from pathlib import Path

import gate
import pytest
import running
import servers
from pydicom import Dataset
from pydicom.uid import CTImageStorage
from rich.console import Console
from sqlalchemy import Connection, select
from wire import raw

from dicomnode import render, status
from dicomnode.archive import journal, tables
from dicomnode.archive.database import Database
from dicomnode.archive.disk import files, header
from dicomnode.archive.journal import Kind
from dicomnode.archive.studies import index
from dicomnode.archive.work import deliveries, moves, results, revisions
from dicomnode.errors import RetryLater
from dicomnode.job import Priority

MIB = 2**20
DISK_MIB = 32
INSTANCE_KIB = 256
MANY = 400  # more of these instances than any disk here takes
CT = raw.Context(id=1, abstract_syntax=CTImageStorage, transfer_syntaxes=(raw.EXPLICIT,))


@contextmanager
def mounted(target: Path, *words: str | Path) -> Iterator[Path]:
    """A file system for the length of a block; without the right to mount, see the module."""
    target.mkdir(parents=True, exist_ok=True)
    mount = subprocess.run(
        ["mount", *map(str, words), str(target)], capture_output=True, check=False, text=True
    )
    if mount.returncode:
        servers.do_without(f"needs the right to mount, see the module: {mount.stderr.strip()}")
    try:
        yield target
    finally:
        subprocess.run(["umount", "--lazy", str(target)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own for a node's data."""
    size = f"size={DISK_MIB}m"
    with mounted(tmp_path / "node" / "data", "-t", "tmpfs", "-o", size, "tmpfs") as made:
        yield made


def configuration(
    folder: Path, *, min_free_mib: float = 1e-9, floor_mib: float = 0, database: str = ""
) -> str:
    """A receiver with these limits, or hardly any: the disk itself has to say that it is full."""
    limits = f"min_free_gib = {min_free_mib / 1024}\nfloor_gib = {floor_mib / 1024}"
    sections = [f"[disk]\n{limits}"]
    if database:
        sections.append(f'[database]\nurl = "sqlite:///{database}"')
    model = gate.write(folder / "model")
    return running.toml(models={"gate": model.bundle}, extra="\n\n".join(sections))


@contextmanager
def serving(tmp_path: Path, text: str) -> Iterator[running.RunningNode]:
    with running.running(tmp_path / "node", text, command="serve") as node:
        yield node


class Modality:
    """Sends instances, and remembers what it was told."""

    def __init__(self, node: running.RunningNode) -> None:
        self._node = node
        self.acknowledged: dict[str, bytes] = {}
        self.statuses: list[int] = []

    @property
    def refused(self) -> int:
        return sum(one != status.SUCCESS for one in self.statuses)

    @contextmanager
    def associated(self) -> Iterator[raw.Speaker]:
        with raw.Speaker(self._node.port, [CT], calling="MODALITY", called="DICOMNODE") as speaker:
            yield speaker
            assert speaker.release()

    def send(self, speaker: raw.Speaker, study: str, number: int) -> int:
        """Send one instance; what is not acknowledged may be sent again."""
        instance = made(study, number)
        dataset = encoded(instance)
        answer = speaker.store(CT, instance.SOPInstanceUID, dataset)
        self.statuses.append(raw.number(answer, raw.STATUS))
        if self.statuses[-1] == status.SUCCESS:
            self.acknowledged[files.FileStore.place(instance.SOPInstanceUID)] = dataset
        return self.statuses[-1]

    def send_alone(self, study: str, number: int) -> int:
        with self.associated() as speaker:
            return self.send(speaker, study, number)

    def send_until_refused(self, speaker: raw.Speaker, study: str, *, first: int = 1) -> int:
        """The number of the instance that was refused; those before it were taken."""
        for number in range(first, first + MANY):
            if self.send(speaker, study, number) != status.SUCCESS:
                assert self.statuses[-1] == status.OUT_OF_RESOURCES
                return number
        raise AssertionError("the disk took everything")


def made(study: str, number: int) -> Dataset:
    """An instance that is like no other, and the same each time."""
    ds = Dataset()
    ds.SOPClassUID = CTImageStorage
    ds.SOPInstanceUID = f"{study}.1.{number}"
    ds.Modality = "CT"
    ds.StudyInstanceUID = study
    ds.SeriesInstanceUID = f"{study}.1"
    ds.InstanceNumber = number
    ds.Rows, ds.Columns = INSTANCE_KIB, 512
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit = 15
    ds.SamplesPerPixel = 1
    ds.PixelRepresentation = 0
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.PixelData = ds.SOPInstanceUID.encode().ljust(64, b" ") * (INSTANCE_KIB * 16)
    return ds


def encoded(instance: Dataset) -> bytes:
    buffer = BytesIO()
    instance.save_as(buffer, implicit_vr=False, little_endian=True)
    return buffer.getvalue()


def fill(file: Path, *, leave_bytes: int = 0) -> None:
    """Take what is free on a disk, save for so much."""
    with file.open("ab", buffering=0) as ballast, suppress(OSError):
        found = os.statvfs(file)
        ballast.write(bytes(max(0, found.f_bavail * found.f_frsize - leave_bytes)))
        while not leave_bytes:
            ballast.write(bytes(4096))


def on_disk(data_dir: Path) -> dict[str, bytes]:
    """Path → data set of every stored instance."""
    found = {}
    for file in data_dir.glob("instances/*/*.dcm"):
        content = file.read_bytes()
        offset = header.read_meta(BytesIO(content)).offset
        found[str(file.relative_to(data_dir))] = content[offset:]
    return found


def assert_all_acknowledged_are_there(modality: Modality, data_dir: Path) -> None:
    assert modality.acknowledged
    found = on_disk(data_dir)
    assert found.keys() == modality.acknowledged.keys()
    assert found == modality.acknowledged
    assert list((data_dir / "incoming").iterdir()) == []


@contextmanager
def rows(node: running.RunningNode) -> Iterator[Database]:
    database = Database(node.configuration.database.url)
    yield database
    database.close()


def wait_until_indexed(
    node: running.RunningNode, modality: Modality, *, refused: int | None = None
) -> None:
    """Return when exactly the acknowledged instances are indexed, and all refused ones noted."""
    with rows(node) as database:

        def is_indexed() -> bool:
            try:
                with database.read() as tx:
                    return index.known_paths(tx) == modality.acknowledged.keys() and (
                        kinds(tx).count(Kind.TURNED_AWAY)
                        == (modality.refused if refused is None else refused)
                    )
            except RetryLater:
                return False

        running.wait_for(is_indexed, what=f"the index; the log:\n{node.log}")
        with database.read() as tx:
            assert Kind.FILE_MISSING not in kinds(tx)


def kinds(tx: Connection) -> list[str]:
    return list(tx.scalars(select(tables.event.c.kind)))


def processes(node: running.RunningNode) -> set[int]:
    return {node.pid, *running.descendants(node.pid)}


def reasons(node: running.RunningNode) -> set[str]:
    with rows(node) as database, database.read() as tx:
        return {entry.facts["reason"] for entry in journal.refusals(tx, limit=MANY)}


def test_a_disk_that_fills_refuses_new_studies_first_then_everything_then_takes_all_again(
    tmp_path: Path, disk: Path
) -> None:
    text = configuration(tmp_path, min_free_mib=12, floor_mib=6)
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(8 * MIB))
    with serving(tmp_path, text) as node:
        modality, before = Modality(node), processes(node)
        with modality.associated() as speaker:
            modality.send(speaker, "1.1", 1)
            refused_study = next(
                study
                for study in (f"1.2.{number}" for number in range(1, MANY))
                if modality.send_alone(study, 1) != status.SUCCESS
            )
            assert modality.statuses[-1] == status.OUT_OF_RESOURCES
            assert modality.send(speaker, "1.1", 2) == status.SUCCESS  # it had begun
            last = modality.send_until_refused(speaker, "1.1", first=3)
            assert modality.send_alone("1.3", 1) == status.OUT_OF_RESOURCES
        assert_all_acknowledged_are_there(modality, disk)
        wait_until_indexed(node, modality)
        assert reasons(node) == {"disk-nearly-full", "disk-full"}
        assert set(modality.statuses) == {status.SUCCESS, status.OUT_OF_RESOURCES}

        ballast.unlink()
        for study, number in ((refused_study, 1), ("1.3", 1), ("1.1", last), ("1.4", 1)):
            assert modality.send_alone(study, number) == status.SUCCESS
        assert_all_acknowledged_are_there(modality, disk)
        wait_until_indexed(node, modality)
        assert processes(node) == before
        assert node.stop() == 0


def test_a_disk_that_is_full_to_the_last_byte_loses_nothing(tmp_path: Path, disk: Path) -> None:
    text = configuration(tmp_path, database=str(tmp_path / "node.db"))
    ballast = disk / "ballast"
    with serving(tmp_path, text) as node:
        modality = Modality(node)
        fill(ballast, leave_bytes=8 * MIB)
        with modality.associated() as speaker:
            last = modality.send_until_refused(speaker, "1.1")
            fill(ballast)
            assert modality.send(speaker, "1.1", last) == status.OUT_OF_RESOURCES
            assert modality.send(speaker, "1.1", 1) == status.OUT_OF_RESOURCES
            assert_all_acknowledged_are_there(modality, disk)
            ballast.unlink()
            for number in range(1, last + 2):
                assert modality.send(speaker, "1.1", number) == status.SUCCESS
        assert_all_acknowledged_are_there(modality, disk)
        wait_until_indexed(node, modality)
        assert reasons(node) == {"out-of-space"}


def test_a_database_on_the_full_disk_waits_and_then_knows_everything(
    tmp_path: Path, disk: Path
) -> None:
    ballast = disk / "ballast"
    with serving(tmp_path, configuration(tmp_path)) as node:
        modality, before = Modality(node), processes(node)
        with modality.associated() as speaker:
            assert modality.send(speaker, "1.1", 1) == status.SUCCESS
            # What is refused is written down, too, until that finds no room either.
            for number in range(2, MANY):
                fill(ballast)
                modality.send(speaker, "1.1", number)
                if "intake waits" in node.log:
                    break
            assert "database or disk is full" in node.log
            # Room for two instances and no more, while the database waits.
            with ballast.open("r+b") as open_ballast:
                open_ballast.truncate(ballast.stat().st_size - 3 * INSTANCE_KIB * 1024)
            modality.send_until_refused(speaker, "1.2")
        with modality.associated() as speaker:
            fill(ballast)
            modality.send(speaker, "1.3", 1)
        ballast.unlink()
        assert modality.send_alone("1.4", 1) == status.SUCCESS
        assert_all_acknowledged_are_there(modality, disk)
        wait_until_indexed(node, modality)
        assert processes(node) == before


def test_a_node_that_dies_on_a_full_disk_finds_everything_when_there_is_room(
    tmp_path: Path, disk: Path
) -> None:
    ballast = disk / "ballast"
    fill(ballast, leave_bytes=12 * MIB)
    with serving(tmp_path, configuration(tmp_path)) as node:
        modality = Modality(node)
        with modality.associated() as speaker:
            modality.send_until_refused(speaker, "1.1")
        fill(ballast)
        node.kill()
        ballast.unlink()
        node.start()
        assert_all_acknowledged_are_there(modality, disk)
        with rows(node) as database, database.read() as tx:
            assert index.known_paths(tx) == modality.acknowledged.keys()


@pytest.fixture
def backing(tmp_path: Path) -> Iterator[Path]:
    """A disk image that promises more than the disk below it holds, as a thin volume does."""
    folder = tmp_path / "backing"
    with mounted(folder, "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs"):
        image = folder / "image"
        with image.open("wb") as made_image:
            made_image.truncate(4 * DISK_MIB * MIB)
        subprocess.run(["/sbin/mkfs.ext4", "-q", "-F", str(image)], check=True)
        yield image


@pytest.mark.server("e2fsprogs")
def test_a_file_system_that_fails_to_sync_acknowledges_nothing_it_does_not_have(
    tmp_path: Path, backing: Path
) -> None:
    """The kernel takes every byte and finds out at the sync that there is no place for it.

    The file system is then mended and mounted anew, as an administrator would: what it holds is
    what had reached the disk, not what the page cache said.
    """
    text = configuration(tmp_path, database=str(tmp_path / "node.db"))
    data_dir = tmp_path / "node" / "data"
    with mounted(data_dir, "-o", "loop", backing), serving(tmp_path, text) as node:
        modality = Modality(node)
        with modality.associated() as speaker:
            last = modality.send_until_refused(speaker, "1.1")
            for number in range(last, last + 3):
                assert modality.send(speaker, "1.1", number) == status.OUT_OF_RESOURCES
        running.wait_for(lambda: reasons(node), what="what was refused")
        # Which of the two it is depends on who was first to write the pages out.
        assert reasons(node) <= {"cannot-write", "out-of-space"}
        assert node.stop() == 0
    subprocess.run(["mount", "-o", f"remount,size={8 * DISK_MIB}m", backing.parent], check=True)
    mended = subprocess.run(["/sbin/e2fsck", "-f", "-y", backing], capture_output=True, check=False)
    assert mended.returncode in {0, 1}, mended  # 1: errors were corrected
    with mounted(data_dir, "-o", "loop", backing), serving(tmp_path, text) as node:
        assert on_disk(data_dir).items() >= modality.acknowledged.items()
        again = Modality(node)
        with again.associated() as speaker:
            for number in range(1, last + 1):
                assert again.send(speaker, "1.1", number) == status.SUCCESS
        assert_all_acknowledged_are_there(again, data_dir)
        wait_until_indexed(node, modality=again, refused=modality.refused)


def deliver(node: running.RunningNode, study: str) -> None:
    """Write down what the workers would: a job for the study that is confirmed."""
    job = revisions.NewJob(
        key="1", study_instance_uid=study, revision=1, rule="rule", model="gate", model_digest="0",
        inputs={}, send_to=("pacs",), priority=Priority.ROUTINE,
    )  # fmt: skip
    kept = results.ResultFile(
        kind="sr", sop_instance_uid="2.25.1", series_instance_uid="2.25.2",
        path=f"{results.folder(job.id)}/1/sr.dcm", digest="0",
    )  # fmt: skip
    at = time.time()
    with rows(node) as database, database.write() as tx:
        assert revisions.create(tx, job, at=at)
        assert moves.claim(tx, job.id, owner="me", at=at, lease_s=10)
        assert moves.predicted(tx, job.id, [kept], owner="me", at=at, timings={}, device="cpu")
        (waiting,) = deliveries.of_job(tx, job.id)
        claimed = deliveries.claim(tx, waiting.id, owner="me", at=at, lease_s=10)
        assert claimed
        assert deliveries.confirm(tx, claimed, owner="me", at=at)


def test_a_running_node_removes_what_ended_long_ago_and_takes_it_again(tmp_path: Path) -> None:
    text = configuration(tmp_path, min_free_mib=1)
    data_dir = tmp_path / "node" / "data"
    with serving(tmp_path, text) as node:
        modality = Modality(node)
        for number in (1, 2, 3):
            assert modality.send_alone("1.1", number) == status.SUCCESS
        assert modality.send_alone("1.2", 1) == status.SUCCESS
        for study in ("1.1", "1.2"):
            assert node.outcome(study)["outcome"] == "not applicable"
        assert node.stop() == 0
        deliver(node, "1.1")
        (kept,) = [path for path, data in on_disk(data_dir).items() if b"1.2.1.1" in data]
    moments = "keep_delivered_days = 1e-6"
    with serving(tmp_path, text.replace("[disk]", f"[disk]\n{moments}")) as node:
        running.wait_for(lambda: on_disk(data_dir).keys() == {kept}, what="the removal")
        running.wait_for(lambda: node.outcome("1.1")["instances"] == 0, what="no rows")
        document = node.outcome("1.1")
        assert document["outcome"] == "delivered"
        assert [e["what"] for e in document["timeline"]][-1] == Kind.FILES_REMOVED
        assert _told(node, "1.1").count("sr: removed") == 1
        for number in (1, 2, 3):
            assert modality.send_alone("1.1", number) == status.SUCCESS
        wait_until_indexed(node, modality)
        running.wait_for(lambda: node.outcome("1.1")["revision"] == 2, what="a second revision")
        assert node.stop() == 0


def _told(node: running.RunningNode, study: str) -> str:
    console = Console(file=StringIO(), width=200)
    console.print(render.study(node.outcome(study)))
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("required", "exit_code", "outcome"), [("0", 0, "1 skipped"), ("1", 1, "1 error")]
)
def test_without_the_right_to_mount_a_test_skips_or_where_it_is_required_fails(
    tmp_path: Path, required: str, exit_code: int, outcome: str
) -> None:
    refusing = tmp_path / "mount"
    refusing.write_text("#!/bin/sh\nexit 1\n")
    refusing.chmod(0o755)
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", __file__, "-k", "last_byte"],
        cwd=running.ROOT,
        env={"PATH": str(tmp_path), "DICOMNODE_TESTS_REQUIRE_SERVERS": required},
        capture_output=True,
        text=True,
        check=False,
    )
    assert outcome in run.stdout
    assert "needs the right to mount" in run.stdout
    assert run.returncode == exit_code
