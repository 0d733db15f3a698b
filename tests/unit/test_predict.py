"""A job whose results find no room on the disk waits for it; other faults cost an attempt each."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from sqlalchemy import update

from dicomnode import config
from dicomnode.archive import tables
from dicomnode.archive.asked import accounts
from dicomnode.archive.database import Database
from dicomnode.archive.disk.files import FileStore
from dicomnode.archive.studies import index
from dicomnode.archive.work import jobs, leases, revisions
from dicomnode.job import JobState, Priority
from dicomnode.study import Instance
from workers import predict
from workers.context import Context
from workers.inference import Models

STUDY = "1.2.3"
JOB = revisions.NewJob(
    key="key",
    study_instance_uid=STUDY,
    revision=1,
    rule="rule",
    model="model",
    model_digest="ab" * 32,
    inputs={"image": jobs.JobInput(series=("1.2.3.1",), instances=("1.2.3.1.1",))},
    send_to=("pacs",),
    priority=Priority.ROUTINE,
)


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    """A worker with one job that waits."""
    file = tmp_path / "node.toml"
    file.write_text("[worker]\nattempts = 3\n")
    database = Database(f"sqlite:///{tmp_path}/node.db")
    database.migrate()
    instance = Instance(
        sop_instance_uid="1.2.3.1.1",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.4",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        series_instance_uid="1.2.3.1",
        study_instance_uid=STUDY,
        digest="",
        path="instances/00/1.2.3.1.1.dcm",
        header={},
    )
    with database.write() as tx:
        index.add(tx, [index.Received(instance=instance, association="", size=1, at=0)])
        index.complete(tx, STUDY, revision=1, because="test", at=0)
        revisions.create(tx, JOB, at=0)
    yield Context(
        configuration=config.load(file, {}),
        database=database,
        store=FileStore(tmp_path / "data"),
        bundles={},
        owner="me",
        device="cpu",
    )
    database.close()


def run(context: Context, monkeypatch: pytest.MonkeyPatch, code: int) -> jobs.Job:
    """Run the job once, as soon as it may be taken up, on a file system that fails so."""

    def fail(*_: object) -> NoReturn:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(predict, "_run", fail)
    with context.database.write() as tx:
        tx.execute(update(tables.job).values(not_before=0))
    predict.predict(context, Models("cpu"), JOB.id)
    with context.database.read() as tx:
        found = jobs.job(tx, JOB.id)
    assert found is not None
    return found


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_job_whose_results_find_no_room_waits_however_often(
    context: Context, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    for _ in range(5):
        found = run(context, monkeypatch, code)
        assert (found.state, found.attempts) == (JobState.PENDING, 0)
    assert found.reason == "file-system"
    assert os.strerror(code) in found.detail
    with context.database.read() as tx:
        not_before = tx.scalar(tables.job.select().with_only_columns(tables.job.c.not_before))
    assert not_before > context.now()


def test_another_fault_of_the_file_system_is_tried_as_often_as_the_configuration_says(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = [run(context, monkeypatch, errno.EIO) for _ in range(3)]
    assert [one.state for one in ends] == [JobState.PENDING, JobState.PENDING, JobState.FAILED]
    assert [one.attempts for one in ends] == [1, 2, 3]


@pytest.mark.parametrize("found", [None, (9, 80)])
def test_how_full_the_gpu_is_after_a_job_is_told(
    context: Context, monkeypatch: pytest.MonkeyPatch, found: tuple[int, int] | None
) -> None:
    with context.database.write() as tx:
        leases.report_worker(
            tx, owner=context.owner, device="cuda:0", requested="auto", slots=1, at=1.0
        )
    monkeypatch.setattr(Models, "gpu_memory", lambda _: found)
    run(context, monkeypatch, errno.ENOSPC)
    with context.database.read() as tx:
        (worker,) = accounts.workers(tx, since=0.0)
    assert (worker.memory_used, worker.memory_total) == (found or (None, None))
