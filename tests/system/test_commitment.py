"""Storage commitment with Orthanc, as the one who asks us and as the one whom we ask."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pydicom
import pytest
import running
from servers import HOST, Orthanc

from dicomnode.archive import journal, tables
from dicomnode.archive.database import Database

DATA = running.ROOT.parent / "shared" / "data"
SERIES = DATA / "brain_mr_study" / "11_HCropVolume"
STUDY = "1.3.6.1.4.1.14519.5.2.1.4429.7055.812059520220877654137991744184"
STORESCU = "/usr/bin/storescu"
NODE = "node"  # what Orthanc calls us


def peer(orthanc: Orthanc, *, port: int, confirm: str) -> str:
    return (
        f'[peers.pacs]\nae_title = "{orthanc.ae_title}"\nhost = "{HOST}"\n'
        f'port = {port}\nconfirm = "{confirm}"'
    )


def entries(node: running.RunningNode, kind: journal.Kind) -> list[dict[str, Any]]:
    """The journal's lines of one kind."""
    database = Database(node.configuration.database.url)
    with database.read() as tx:
        rows = tx.execute(tables.event.select().where(tables.event.c.kind == kind)).all()
    database.close()
    return [row.facts for row in rows]


def commitment(orthanc: Orthanc, transaction: str) -> dict[str, Any]:
    """What Orthanc has heard of a request of its own, once it has heard something."""

    def ask() -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = orthanc.request("GET", f"/storage-commitment/{transaction}")
        except HTTPError:  # it has not asked yet
            return None
        return found if found["Status"] != "Pending" else None

    return running.wait_for(ask, what=f"the answer to {transaction}")


@pytest.mark.data
def test_orthanc_sends_us_a_study_and_hears_that_it_is_safe(
    tmp_path: Path, orthanc: Orthanc
) -> None:
    files = sorted(SERIES.rglob("*.dcm"))[:5]
    configuration = running.toml(
        models={}, extra=peer(orthanc, port=orthanc.dicom_port, confirm="find")
    )
    with running.running(tmp_path / "node", configuration) as node:
        orthanc.add_modality(NODE, "DICOMNODE", HOST, node.port)
        for file in files:
            orthanc.upload(file)
        job = orthanc.request(
            "POST",
            f"/modalities/{NODE}/store",
            {
                "Resources": orthanc.request("GET", "/studies"),
                "StorageCommitment": True,
                "Asynchronous": True,
            },
        )

        def transaction() -> str:
            content = orthanc.request("GET", f"/jobs/{job['ID']}")["Content"]
            return str(content.get("StorageCommitmentTransactionUID", ""))

        uid = running.wait_for(transaction, what="the question of Orthanc")
        heard = commitment(orthanc, uid)
        assert (heard["Status"], heard["Failures"]) == ("Success", []), node.log
        assert len(heard["Success"]) == len(files)

        # The same once more, with one object that we never had, and one of another class.
        known = pydicom.dcmread(files[0], stop_before_pixels=True)
        stranger = {"SOPClassUID": known.SOPClassUID, "SOPInstanceUID": "1.2.3.4.5"}
        mistaken = {
            "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2",
            "SOPInstanceUID": known.SOPInstanceUID,
        }
        asked = orthanc.request(
            "POST",
            f"/modalities/{NODE}/storage-commitment",
            {"DicomInstances": [stranger, mistaken]},
        )
        heard = commitment(orthanc, asked["ID"])
        assert heard["Status"] == "Failure"
        reasons = {one["SOPInstanceUID"]: one["FailureReason"] for one in heard["Failures"]}
        assert reasons == {"1.2.3.4.5": 0x0112, known.SOPInstanceUID: 0x0119}
        # Orthanc has heard an answer before we have heard that it has.
        answered = running.wait_for(
            lambda: entries(node, journal.Kind.COMMITMENT_ANSWERED)[1:], what="the second answer"
        )
        assert answered[0]["reasons"] == ["0x0112", "0x0119"]


@pytest.mark.data
@pytest.mark.server("dcmtk")
def test_results_are_delivered_when_orthanc_has_committed_itself(
    tmp_path: Path, orthanc: Orthanc
) -> None:
    configuration = running.toml(
        routes=running.HIPPOCAMPUS_ROUTE,
        extra=peer(orthanc, port=orthanc.dicom_port, confirm="commitment"),
    )
    with running.running(tmp_path / "node", configuration) as node:
        orthanc.add_modality(NODE, "DICOMNODE", HOST, node.port)
        subprocess.run(
            [STORESCU, "--aetitle", "MODALITY", "--call", "DICOMNODE", "--scan-directories",
             "--recurse", "--required", HOST, str(node.port), str(SERIES)],
            check=True, capture_output=True, env={"TCP_NODELAY": "1", "PATH": "/usr/bin"},
        )  # fmt: skip
        document = node.outcome(STUDY)
        assert document["outcome"] == "delivered", node.log
        (job,) = document["jobs"]
        assert [one["state"] for one in job["deliveries"]] == ["confirmed"]
        kept = sorted(one["sop_instance_uid"] for one in job["results"])
        assert orthanc.instances() == kept
        (asked,) = entries(node, journal.Kind.CONFIRMATION_ASKED)
        (answered,) = entries(node, journal.Kind.CONFIRMATION_ANSWERED)
        assert answered["transaction"] == asked["transaction"]
        assert (answered["state"], answered["instances"]) == ("confirmed", len(kept))


@pytest.mark.data
@pytest.mark.server("dcmtk")
def test_an_orthanc_that_does_not_know_us_cannot_answer_and_the_delivery_waits(
    tmp_path: Path, orthanc: Orthanc
) -> None:
    """Once it knows us, the next question is answered: nothing was lost, nothing sent twice."""
    configuration = running.toml(
        routes=running.HIPPOCAMPUS_ROUTE,
        extra=peer(orthanc, port=orthanc.dicom_port, confirm="commitment"),
    ).replace("retry_max_s = 2", "retry_max_s = 2\ncommitment_s = 5")
    with running.running(tmp_path / "node", configuration) as node:
        subprocess.run(
            [STORESCU, "--aetitle", "MODALITY", "--call", "DICOMNODE", "--scan-directories",
             "--recurse", "--required", HOST, str(node.port), str(SERIES)],
            check=True, capture_output=True, env={"TCP_NODELAY": "1", "PATH": "/usr/bin"},
        )  # fmt: skip
        running.wait_for(
            lambda: len(entries(node, journal.Kind.CONFIRMATION_ASKED)) >= 2,
            what="a second question",
        )
        assert (node.study(STUDY) or {})["outcome"] == "in progress"
        orthanc.add_modality(NODE, "DICOMNODE", HOST, node.port)
        assert node.outcome(STUDY)["outcome"] == "delivered", node.log
