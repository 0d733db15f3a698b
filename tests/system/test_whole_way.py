"""A study in, a SEG and an SR back in the PACS: real servers, a real sender, real images."""

from __future__ import annotations

import subprocess
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
import running
from servers import Orthanc

from dicomnode.archive.asked import accounts
from dicomnode.archive.database import Database

DATA = running.ROOT.parent / "shared" / "data"
STUDY_FOLDER = DATA / "brain_mr_study"
STUDY = "1.3.6.1.4.1.14519.5.2.1.4429.7055.812059520220877654137991744184"
HIPPOCROP = "1.2.826.0.1.3680043.8.498.26269410813686558956046182253949569533"
# DCMTK's, by its full path: pynetdicom brings a program of the same name.
STORESCU = "/usr/bin/storescu"

BROKERS = ["memory://", pytest.param("redis", marks=pytest.mark.server("redis-server"))]


def storescu(folder: Path, port: int) -> None:
    """Send a folder as a modality would; DCMTK fails when a single status is not success."""
    subprocess.run(
        [STORESCU, "--aetitle", "MODALITY", "--call", "DICOMNODE", "--scan-directories",
         "--recurse", "--required", "127.0.0.1", str(port), str(folder)],
        check=True, capture_output=True, env={"TCP_NODELAY": "1", "PATH": "/usr/bin"},
    )  # fmt: skip


def results_in(orthanc: Orthanc) -> list[dict[str, Any]]:
    """What QIDO-RS finds of the study."""
    return orthanc.qido(
        f"instances?StudyInstanceUID={STUDY}&includefield=00080060&includefield=0008103E"
    )


def modality(found: dict[str, Any]) -> str:
    return str(found["00080060"]["Value"][0])


@pytest.mark.data
@pytest.mark.server("dcmtk")
@pytest.mark.parametrize("broker", BROKERS)
def test_a_real_study_comes_back_as_a_seg_and_an_sr_and_only_once(
    tmp_path: Path, orthanc: Orthanc, broker: str, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue("redis_server").url if broker == "redis" else broker
    configuration = running.toml(
        pacs={"ae_title": orthanc.ae_title, "port": orthanc.dicom_port},
        broker=url,
        routes=running.HIPPOCAMPUS_ROUTE,
    )
    with running.running(tmp_path / "node", configuration) as node:
        storescu(STUDY_FOLDER, node.port)
        document = node.outcome(STUDY)

        assert document["outcome"] == "delivered", node.log
        states = {job["series"]: job["state"] for job in document["jobs"]}
        assert states.pop(HIPPOCROP) == "delivered"
        assert list(states.values()) == ["not_applicable"] * 4
        assert all(
            "SeriesDescription" in job["reason"]
            for job in document["jobs"]
            if job["state"] == "not_applicable"
        )

        found = results_in(orthanc)
        assert sorted(modality(one) for one in found) == ["SEG", "SR"]
        before = orthanc.instances()
        _fetched_results_are_those_that_were_kept(orthanc, found, document)

        storescu(STUDY_FOLDER, node.port)
        again = node.outcome(STUDY)
        assert again["jobs"] == document["jobs"]
        assert again["revision"] == 1
        assert orthanc.instances() == before
        assert node.stop() == 0


def _fetched_results_are_those_that_were_kept(
    orthanc: Orthanc, found: list[dict[str, Any]], document: dict[str, Any]
) -> None:
    (job,) = [job for job in document["jobs"] if job["state"] == "delivered"]
    kept = {one["sop_instance_uid"]: Path(one["path"]) for one in job["results"]}
    assert {one["00080018"]["Value"][0] for one in found} == set(kept)
    for identifier in orthanc.request("GET", "/instances"):
        with orthanc._http.open(f"{orthanc.http_url}/instances/{identifier}/file") as answer:
            fetched = pydicom.dcmread(BytesIO(answer.read()))
        source = pydicom.dcmread(kept[fetched.SOPInstanceUID])
        assert fetched.to_json_dict() == source.to_json_dict()
        assert fetched.PatientID == "PGBM-003"


@pytest.mark.data
@pytest.mark.server("dcmtk")
def test_the_volumes_are_those_of_a_hippocampus(tmp_path: Path, orthanc: Orthanc) -> None:
    configuration = running.toml(
        pacs={"ae_title": orthanc.ae_title, "port": orthanc.dicom_port},
        routes=running.HIPPOCAMPUS_ROUTE,
    )
    with running.running(tmp_path / "node", configuration) as node:
        storescu(STUDY_FOLDER / "11_HCropVolume", node.port)
        (job,) = node.outcome(STUDY)["jobs"]
        report = next(Path(one["path"]) for one in job["results"] if one["kind"] == "sr")
        volumes = _numbers(pydicom.dcmread(report))
        assert len(volumes) == 2
        assert all(0.5 <= volume <= 4.0 for volume in volumes), volumes


def _numbers(item: pydicom.Dataset) -> list[float]:
    """Every numeric value of a report's tree."""
    own = [float(value.NumericValue) for value in item.get("MeasuredValueSequence", [])]
    return own + [number for child in item.get("ContentSequence", []) for number in _numbers(child)]


@pytest.mark.data
@pytest.mark.server("dcmtk")
def test_a_destination_that_is_down_delays_and_loses_nothing(
    tmp_path: Path, orthanc: Orthanc
) -> None:
    configuration = running.toml(
        pacs={"ae_title": orthanc.ae_title, "port": orthanc.dicom_port},
        routes=running.HIPPOCAMPUS_ROUTE,
    )
    orthanc.kill()
    with running.running(tmp_path / "node", configuration) as node:
        storescu(STUDY_FOLDER / "11_HCropVolume", node.port)

        def put_off() -> bool:
            document = node.study(STUDY)
            return bool(document) and any(
                delivery["attempts"] >= 2
                for job in document["jobs"]
                for delivery in job["deliveries"]
            )

        running.wait_for(put_off, what="a second attempt to deliver")
        database = Database(node.configuration.database.url)
        with database.read() as tx:
            account = accounts.account(tx)
        assert (account.received, account.in_progress) == (1, 1)
        orthanc.start()
        assert node.outcome(STUDY)["outcome"] == "delivered"
        assert len(orthanc.instances()) == 2
