"""The runbook's own commands: a node is backed up while it runs, and comes back elsewhere.

Instances come before the database is copied, between database and files, and after both. What was
acknowledged before the back-up had ended is there after the restore; nothing is done twice.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pydicom
import pytest
import running
from pydicom.uid import UID
from servers import POSTGRES_BIN, Orthanc, Postgres

from dicomnode import uid
from dicomnode.archive.disk.files import FileStore
from dicomnode.network.calling import sender

RUNBOOK = running.ROOT / "deploy" / "runbook.md"
HEALTHY = running.ROOT / "deploy" / "containers" / "healthy.py"
SAMPLE = sorted((running.HIPPOCAMPUS / "sample").glob("*.dcm"))

pytestmark = pytest.mark.server("rsync")


def block(title: str) -> str:
    """The commands of the runbook that begin with this comment."""
    (found,) = re.findall(
        rf"^```sh\n# {re.escape(title)}\n(.*?)^```", RUNBOOK.read_text(), re.MULTILINE | re.DOTALL
    )
    return str(found)


def run(title: str, **variables: str | Path) -> None:
    """Do what the runbook says."""
    environment = {"PATH": _path(), **{name: str(value) for name, value in variables.items()}}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block(title)],
        env=environment, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def _path() -> str:
    """Debian's own pg_dump looks for its clusters; ours is none of them."""
    programs = [str(path) for path in sorted(POSTGRES_BIN.glob("*/bin"), reverse=True)]
    return ":".join([*programs, "/usr/bin", "/bin"])


@dataclass(frozen=True, kw_only=True)
class Study:
    """The sample under other UIDs."""

    study_instance_uid: str
    files: tuple[Path, ...]

    @property
    def instances(self) -> list[str]:
        return [path.stem for path in self.files]


def study(folder: Path, name: str) -> Study:
    """Write one."""
    folder = folder / name
    folder.mkdir(parents=True)
    of, series = uid.derived("back-up", name), uid.derived("back-up", name, "series")
    files = []
    for number, path in enumerate(SAMPLE):
        dataset = pydicom.dcmread(path)
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = UID(of), UID(series)
        dataset.SOPInstanceUID = UID(uid.derived("back-up", name, str(number)))
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        files.append(folder / f"{dataset.SOPInstanceUID}.dcm")
        dataset.save_as(files[-1])
    return Study(study_instance_uid=of, files=tuple(files))


def send(files: tuple[Path, ...], node: running.RunningNode) -> None:
    """Send, and do not return before each was acknowledged."""
    to = sender.parse_destination(f"DICOMNODE@127.0.0.1:{node.port}")
    sent = sender.send(files, to=to, calling_ae_title="MODALITY")
    assert [one.status for one in sent] == [0x0000] * len(files)


def moved(node: running.RunningNode, folder: Path) -> str:
    """The configuration of the node for another folder: nothing in it says where it lies."""
    text = node.file.read_text()
    assert str(node.folder) not in text
    assert not folder.exists()
    return text


@contextmanager
def restored(
    node: running.RunningNode, folder: Path, text: str, *, command: str = "up"
) -> Iterator[running.RunningNode]:
    """The node that comes back; the old one is gone, and all that it had."""
    node.kill()
    shutil.rmtree(node.folder)
    with running.running(folder, text, command=command) as again:
        yield again


def stored(node: running.RunningNode) -> set[str]:
    """The SOP Instance UIDs whose files are there, whole."""
    data_dir = node.configuration.node.data_dir
    found = set()
    for path in FileStore(data_dir).walk():
        pydicom.dcmread(data_dir / path)
        found.add(Path(path).stem)
    return found


def is_healthy(what: str, node: running.RunningNode) -> bool:
    """What the health check of the images says."""
    command = [sys.executable, str(HEALTHY), what, str(node.file)]
    return subprocess.run(command, check=False, timeout=60).returncode == 0


@pytest.mark.server("sqlite3")
def test_nothing_that_was_acknowledged_before_a_back_up_is_lost(
    tmp_path: Path, orthanc: Orthanc
) -> None:
    text = running.toml(
        pacs={"ae_title": orthanc.ae_title, "port": orthanc.dicom_port},
        routes=running.HIPPOCAMPUS_ROUTE,
    )
    delivered, between, after = (study(tmp_path, name) for name in ("first", "second", "third"))
    half = len(between.files) // 2
    backup, elsewhere = tmp_path / "backup", tmp_path / "elsewhere"
    backup.mkdir()
    with running.running(tmp_path / "node", text) as node:
        data = node.configuration.node.data_dir
        send(delivered.files, node)
        before = node.outcome(delivered.study_instance_uid)
        assert before["outcome"] == "delivered", node.log
        in_the_pacs = orthanc.instances()

        send(between.files[:half], node)
        run("back up: the database, SQLite", DATA=data, BACKUP=backup)
        send(between.files[half:], node)
        run("back up: the files", DATA=data, BACKUP=backup)
        send(after.files, node)
        assert is_healthy("receiver", node) is False  # port 0: nobody could know where it listens
        assert is_healthy("worker", node)

        text = moved(node, elsewhere)
        run("restore: the files, and SQLite's database with them",
            DATA=elsewhere / "data", BACKUP=backup)  # fmt: skip
        with restored(node, elsewhere, text) as again:
            # Delivered is delivered: the same job, and nothing of it was sent again.
            assert again.outcome(delivered.study_instance_uid)["jobs"] == [
                one | {"results": [
                    result | {"path": result["path"].replace(str(node.folder), str(elsewhere))}
                    for result in one["results"]
                ]}
                for one in before["jobs"]
            ]  # fmt: skip

            # Half of it was known to the database, half was found among the files.
            whole = again.outcome(between.study_instance_uid)
            assert (whole["outcome"], whole["instances"]) == ("delivered", len(between.files))
            assert set(delivered.instances + between.instances) == stored(again)
            assert "found at start" in again.log
            assert "files missing" not in again.log

            # What came too late is sent again.
            send(after.files, again)
            assert again.outcome(after.study_instance_uid)["outcome"] == "delivered"
        now = orthanc.instances()
        assert set(in_the_pacs) <= set(now)
        assert len(now) == len(set(now)) == 3 * len(in_the_pacs)


@pytest.mark.server("sqlite3")
def test_the_other_way_round_something_would_be_lost(tmp_path: Path) -> None:
    """Files first, and then the database: it names what the copy of the files has not."""
    some, more = (study(tmp_path, name) for name in ("fourth", "fifth"))
    backup, elsewhere = tmp_path / "backup", tmp_path / "elsewhere"
    backup.mkdir()
    with running.running(tmp_path / "node", running.toml(models={}), command="serve") as node:
        data = node.configuration.node.data_dir
        send(some.files, node)
        run("back up: the files", DATA=data, BACKUP=backup)
        send(more.files, node)
        node.outcome(more.study_instance_uid)
        run("back up: the database, SQLite", DATA=data, BACKUP=backup)
        text = moved(node, elsewhere)
        run("restore: the files, and SQLite's database with them",
            DATA=elsewhere / "data", BACKUP=backup)  # fmt: skip
        with restored(node, elsewhere, text, command="serve") as again:
            assert stored(again) == set(some.instances)
            assert "files missing" in again.log


@pytest.mark.server("sqlite3")
def test_a_second_back_up_takes_the_place_of_the_first(tmp_path: Path) -> None:
    some, more = (study(tmp_path, name) for name in ("sixth", "seventh"))
    backup, elsewhere = tmp_path / "backup", tmp_path / "elsewhere"
    backup.mkdir()
    with running.running(tmp_path / "node", running.toml(models={}), command="serve") as node:
        data = node.configuration.node.data_dir
        for one in (some, more):
            send(one.files, node)
            node.outcome(one.study_instance_uid)
            run("back up: the database, SQLite", DATA=data, BACKUP=backup)
            run("back up: the files", DATA=data, BACKUP=backup)
        removed = next(data.glob(f"instances/*/{some.instances[0]}.dcm"))
        removed.unlink()
        run("back up: the files", DATA=data, BACKUP=backup)
        assert list(backup.glob(f"instances/*/{some.instances[0]}.dcm")) == []
        names = {path.name for path in backup.iterdir()}
        assert names <= {"instances", "results", "node.db"}
        text = moved(node, elsewhere)
        run("restore: the files, and SQLite's database with them",
            DATA=elsewhere / "data", BACKUP=backup)  # fmt: skip
        with restored(node, elsewhere, text, command="serve") as again:
            assert stored(again) == {*some.instances[1:], *more.instances}
            found = again.outcome(more.study_instance_uid)
            assert found["instances"] == len(more.files)


def test_the_same_with_postgresql(tmp_path: Path, postgres: Postgres) -> None:
    one, between = (study(tmp_path, name) for name in ("eighth", "ninth"))
    backup, elsewhere = tmp_path / "backup", tmp_path / "elsewhere"
    backup.mkdir()
    with postgres.database() as url, postgres.database() as fresh:
        text = running.toml(models={}, extra=f'[database]\nurl = "{url}"')
        with running.running(tmp_path / "node", text, command="serve") as node:
            data = node.configuration.node.data_dir
            send(one.files, node)
            node.outcome(one.study_instance_uid)
            run("back up: the database, PostgreSQL", DATABASE=_for_programs(url), BACKUP=backup)
            send(between.files, node)
            run("back up: the files", DATA=data, BACKUP=backup)
            text = moved(node, elsewhere).replace(url, fresh)
            run("restore: the files, and SQLite's database with them",
                DATA=elsewhere / "data", BACKUP=backup)  # fmt: skip
            run("restore: the database, PostgreSQL", DATABASE=_for_programs(fresh), BACKUP=backup)
            with restored(node, elsewhere, text, command="serve") as again:
                for each in (one, between):
                    found = again.outcome(each.study_instance_uid)
                    assert found["instances"] == len(each.files)
                assert stored(again) == {*one.instances, *between.instances}
                assert "files missing" not in again.log


def _for_programs(url: str) -> str:
    """The URL as PostgreSQL's own programs take it."""
    return url.replace("postgresql+psycopg://", "postgresql://")
