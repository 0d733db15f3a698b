"""SIGKILL at the worst moments: after a restart every study ends with its one set of results."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import gate
import phantom
import pydicom
import pytest
import running
from servers import Orthanc, RedisServer

from dicomnode.errors import RetryLater
from dicomnode.network.calling import sender
from dicomnode.uid import derived

ROUTE = """\
[[routes]]
name    = "everything"
model   = "gate"
series  = { Modality = "MR" }
send_to = ["pacs"]
"""


@pytest.fixture
def model(tmp_path: Path) -> gate.Gate:
    """A model that a test can hold in the middle of its inference."""
    return gate.write(tmp_path / "model")


def configuration(model: gate.Gate, orthanc: Orthanc, *, broker: str = "memory://") -> str:
    return running.toml(
        pacs={"ae_title": orthanc.ae_title, "port": orthanc.dicom_port},
        broker=broker,
        models={"gate": model.bundle},
        routes=ROUTE,
    )


@pytest.fixture
def node(tmp_path: Path, model: gate.Gate, orthanc: Orthanc) -> Iterator[running.RunningNode]:
    """A running node with the embedded broker."""
    with running.running(tmp_path / "node", configuration(model, orthanc)) as made:
        yield made


def scan(folder: Path, *, key: str = "one") -> phantom.Phantom:
    """A study of its own for each key."""
    study = {"StudyInstanceUID": derived("study", key)}
    return phantom.write_series(folder / key, key=key, attributes=study)


def study_of(scanned: phantom.Phantom) -> str:
    return str(
        pydicom.dcmread(scanned.files[0], specific_tags=["StudyInstanceUID"]).StudyInstanceUID
    )


def send(node: running.RunningNode, files: tuple[Path, ...]) -> None:
    to = sender.Destination(ae_title="DICOMNODE", host="127.0.0.1", port=node.port)
    sent = sender.send(files, to=to, calling_ae_title="MODALITY")
    assert [one.status for one in sent] == [0] * len(files)


def assert_one_set_of_results(node: running.RunningNode, orthanc: Orthanc, *uids: str) -> None:
    for uid in uids:
        document = node.outcome(uid)
        assert document["outcome"] == "delivered", document
        (job,) = document["jobs"]
        assert [one["kind"] for one in job["results"]] == ["seg", "sr"]
    assert len(orthanc.instances()) == 2 * len(uids)


def test_the_receiver_dies_between_two_instances(
    tmp_path: Path, node: running.RunningNode, orthanc: Orthanc
) -> None:
    scanned = scan(tmp_path)
    half = len(scanned.files) // 2
    send(node, scanned.files[:half])
    receiver = node.process("serve")
    os.kill(receiver, signal.SIGKILL)
    running.wait_for(lambda: node.process("serve") != receiver, what="a new receiver")
    send_again_when_it_listens(node, scanned.files[half:])
    document = node.outcome(study_of(scanned))
    assert document["instances"] == len(scanned.files)
    assert_one_set_of_results(node, orthanc, study_of(scanned))


def send_again_when_it_listens(node: running.RunningNode, files: tuple[Path, ...]) -> None:
    def attempt() -> bool:
        try:
            send(node, files)
        except RetryLater:
            return False
        return True

    running.wait_for(attempt, what="the restarted receiver")


def test_the_receiver_dies_while_an_association_is_open(
    tmp_path: Path, node: running.RunningNode, orthanc: Orthanc
) -> None:
    scanned = scan(tmp_path)
    receiver = node.process("serve")

    def kill_after_half(sent: sender.Sent) -> None:
        if sent.path == scanned.files[len(scanned.files) // 2]:
            os.kill(receiver, signal.SIGKILL)

    to = sender.Destination(ae_title="DICOMNODE", host="127.0.0.1", port=node.port)
    with pytest.raises(RetryLater):
        sender.send(scanned.files, to=to, calling_ae_title="MODALITY", progress=kill_after_half)
    running.wait_for(lambda: node.process("serve") != receiver, what="a new receiver")
    send_again_when_it_listens(node, scanned.files)
    assert node.outcome(study_of(scanned))["instances"] == len(scanned.files)
    assert_one_set_of_results(node, orthanc, study_of(scanned))


def test_the_child_that_predicts_dies_in_the_middle(
    tmp_path: Path, node: running.RunningNode, orthanc: Orthanc, model: gate.Gate
) -> None:
    scanned = scan(tmp_path)
    model.close()
    send(node, scanned.files)
    model.wait_for_run(1)
    (child,) = node.children_of(node.process("workers", "predict"))
    os.kill(child, signal.SIGKILL)
    model.wait_for_run(2)
    model.open()
    assert_one_set_of_results(node, orthanc, study_of(scanned))


def test_the_whole_worker_dies_in_the_middle(
    tmp_path: Path, node: running.RunningNode, orthanc: Orthanc, model: gate.Gate
) -> None:
    scanned = scan(tmp_path)
    model.close()
    send(node, scanned.files)
    model.wait_for_run(1)
    worker = node.process("workers", "predict")
    (child,) = node.children_of(worker)
    os.kill(worker, signal.SIGKILL)
    running.wait_for(lambda: not running.is_running(child), what="the orphan's end")
    model.wait_for_run(2)
    model.open()
    assert_one_set_of_results(node, orthanc, study_of(scanned))


def test_the_power_goes_in_the_middle(
    tmp_path: Path, node: running.RunningNode, orthanc: Orthanc, model: gate.Gate
) -> None:
    scanned = scan(tmp_path)
    model.close()
    send(node, scanned.files)
    model.wait_for_run(1)
    node.kill()
    model.open()
    node.start()
    assert_one_set_of_results(node, orthanc, study_of(scanned))


def test_redis_dies_with_jobs_queued(
    tmp_path: Path, orthanc: Orthanc, redis_server: RedisServer, model: gate.Gate
) -> None:
    studies = [scan(tmp_path, key=key) for key in ("one", "two", "three")]
    model.close()
    text = configuration(model, orthanc, broker=redis_server.url)
    with running.running(tmp_path / "node", text) as node:
        for scanned in studies:
            send(node, scanned.files)
        model.wait_for_run(1)
        wait_until_queued(node, *map(study_of, studies))
        redis_server.kill()
        redis_server.start()
        model.open()
        assert_one_set_of_results(node, orthanc, *map(study_of, studies))


def wait_until_queued(node: running.RunningNode, *uids: str) -> None:
    def jobs_exist() -> bool:
        documents = [node.study(uid) for uid in uids]
        return all(document and document["jobs"] for document in documents)

    running.wait_for(jobs_exist, what="a job for each study")


def test_a_model_past_its_limit_is_killed_and_the_next_job_runs(
    tmp_path: Path, orthanc: Orthanc, model: gate.Gate
) -> None:
    text = configuration(model, orthanc).replace("lease_s = 3", "lease_s = 3\ntimeout_s = 6")
    with running.running(tmp_path / "node", text) as node:
        first, second = scan(tmp_path, key="one"), scan(tmp_path, key="two")
        model.close()
        send(node, first.files)
        document = node.outcome(study_of(first))
        assert document["outcome"] == "failed"
        assert document["jobs"][0]["reason"].startswith("time-limit: ")
        model.open()
        send(node, second.files)
        assert node.outcome(study_of(second))["outcome"] == "delivered"
        assert len(orthanc.instances()) == 2


def test_sigterm_finishes_what_runs(
    tmp_path: Path, node: running.RunningNode, orthanc: Orthanc, model: gate.Gate
) -> None:
    scanned = scan(tmp_path)
    model.close()
    send(node, scanned.files)
    model.wait_for_run(1)
    worker = node.process("workers", "predict")
    os.kill(worker, signal.SIGTERM)
    model.open()
    running.wait_for(lambda: not running.is_running(worker), what="the worker's end")
    assert model.runs() == 1
    assert_one_set_of_results(node, orthanc, study_of(scanned))
    assert model.runs() == 1


def test_sigquit_hands_back_what_runs(
    tmp_path: Path, node: running.RunningNode, orthanc: Orthanc, model: gate.Gate
) -> None:
    scanned = scan(tmp_path)
    model.close()
    send(node, scanned.files)
    model.wait_for_run(1)
    os.kill(node.process("workers", "predict"), signal.SIGQUIT)
    model.wait_for_run(2)
    model.open()
    assert_one_set_of_results(node, orthanc, study_of(scanned))
    timeline = node.outcome(study_of(scanned))["timeline"]
    reasons = [entry["facts"].get("reason") for entry in timeline]
    assert reasons.count("handed-back") == 1
