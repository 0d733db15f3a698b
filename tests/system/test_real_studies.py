"""Studies as hospitals send them: blank UIDs, localizers, late images, several databases."""

from __future__ import annotations

from pathlib import Path

import gate
import phantom
import pydicom
import pytest
import running
from servers import Orthanc

from dicomnode import inquiry, uid
from dicomnode.network.calling import sender

DATA = running.ROOT.parent / "shared" / "data"
# PS3.4 Table B.2-1: Data Set Does Not Match SOP Class.
DOES_NOT_MATCH = 0xA900

CT_ROUTE = """\
[[routes]]
name    = "every CT"
model   = "gate"
series  = { Modality = "CT" }
send_to = ["pacs"]
"""
MR_ROUTE = CT_ROUTE.replace("CT", "MR")


def configuration(model: gate.Gate, orthanc: Orthanc, route: str, extra: str = "") -> str:
    return running.toml(
        pacs={"ae_title": orthanc.ae_title, "port": orthanc.dicom_port},
        models={"gate": model.bundle},
        routes=route,
        extra=extra,
    )


def send(node: running.RunningNode, files: list[Path]) -> list[sender.Sent]:
    to = sender.Destination(ae_title="DICOMNODE", host="127.0.0.1", port=node.port)
    return list(sender.send(files, to=to, calling_ae_title="MODALITY"))


@pytest.mark.data
def test_slices_with_blank_uids_are_refused_one_by_one(tmp_path: Path, orthanc: Orthanc) -> None:
    model = gate.write(tmp_path / "model", modality="CT", sop_class="CTImageStorage")
    files = sorted((DATA / "ct_blank_uids" / "example_ct_dicom").iterdir())
    with running.running(tmp_path / "node", configuration(model, orthanc, CT_ROUTE)) as node:
        sent = send(node, files)
        assert [one.status for one in sent] == [DOES_NOT_MATCH] * len(files)
        assert all("UID" in one.comment for one in sent)

        def refused() -> list[dict[str, object]]:
            document = inquiry.status(node.configuration, now=0.0)
            found: list[dict[str, object]] = document["refused"]
            return found if len(found) == len(files) else []

        entries = running.wait_for(refused, what="a journal entry for each")
        assert {entry["reason"] for entry in entries} == {"blank-uid"}
        account = inquiry.status(node.configuration, now=0.0)["account"]
        assert account["received"] == 0
        stored = node.configuration.node.data_dir / "instances"
        assert [path for path in stored.rglob("*") if path.is_file()] == []


@pytest.mark.data
def test_no_localizer_and_no_secondary_capture_reaches_a_ct_rule(
    tmp_path: Path, orthanc: Orthanc
) -> None:
    model = gate.write(tmp_path / "model", modality="CT", sop_class="CTImageStorage")
    files = sender.dicom_files([DATA / "ct_scanner_export"])
    study = str(pydicom.dcmread(files[0]).StudyInstanceUID)
    series = {str(pydicom.dcmread(file).SeriesInstanceUID): file for file in files}
    with running.running(tmp_path / "node", configuration(model, orthanc, CT_ROUTE)) as node:
        assert {one.status for one in send(node, files)} == {0}
        document = node.outcome(study)
        by_folder = {
            series[job["series"]].parent.name: (job["state"], job["reason"])
            for job in document["jobs"]
        }
        assert by_folder["S2010"][0] == "delivered", node.log
        assert by_folder["S1000"][0] == "not_applicable"
        assert "LOCALIZER" in by_folder["S1000"][1]
        assert by_folder["S4010"][0] == "not_applicable"
        assert "SOPClassUID" in by_folder["S4010"][1]
        assert model.runs() == 1


def test_a_late_slice_makes_a_new_revision_that_supersedes_the_older_result(
    tmp_path: Path, orthanc: Orthanc
) -> None:
    model = gate.write(tmp_path / "model")
    scanned = phantom.write_series(tmp_path / "scan")
    study = str(pydicom.dcmread(scanned.files[0]).StudyInstanceUID)
    late = scanned.file_of(scanned.shape[0] - 1)
    with running.running(tmp_path / "node", configuration(model, orthanc, MR_ROUTE)) as node:
        send(node, [file for file in scanned.files if file != late])
        first = node.outcome(study)
        assert (first["outcome"], first["revision"]) == ("delivered", 1)
        send(node, [late])

        def second_revision() -> dict[str, object] | None:
            document = node.outcome(study)
            return document if document["revision"] == 2 else None

        second = running.wait_for(second_revision, what="the second revision")
        assert second["outcome"] == "delivered"
        (old,), (new,) = first["jobs"], second["jobs"]  # type: ignore[misc] - documents
        assert old["results"][1]["sop_instance_uid"] != new["results"][1]["sop_instance_uid"]
        report = pydicom.dcmread(new["results"][1]["path"])
        (predecessor,) = report.PredecessorDocumentsSequence
        (replaced,) = predecessor.ReferencedSeriesSequence[0].ReferencedSOPSequence
        assert replaced.ReferencedSOPInstanceUID == old["results"][1]["sop_instance_uid"]
        assert len(orthanc.instances()) == 4


def test_a_missing_slice_fails_by_name_and_nothing_is_sent(
    tmp_path: Path, orthanc: Orthanc
) -> None:
    model = gate.write(tmp_path / "model")
    scanned = phantom.write_series(tmp_path / "scan")
    study = str(pydicom.dcmread(scanned.files[0]).StudyInstanceUID)
    middle = scanned.file_of(scanned.shape[0] // 2)
    with running.running(tmp_path / "node", configuration(model, orthanc, MR_ROUTE)) as node:
        send(node, [file for file in scanned.files if file != middle])
        document = node.outcome(study)
        assert document["outcome"] == "failed"
        assert document["jobs"][0]["reason"].startswith("missing-slices: ")
        assert orthanc.instances() == []


def test_an_object_that_breaks_off_behind_its_uids_is_seen_and_not_analysed(
    tmp_path: Path, orthanc: Orthanc
) -> None:
    model = gate.write(tmp_path / "model")
    scanned = phantom.write_series(tmp_path / "scan", shape=(1, 8, 8))
    whole = scanned.files[0].read_bytes()
    study = str(pydicom.dcmread(scanned.files[0]).StudyInstanceUID)
    # In the middle of the element that follows Series Instance UID (0020,000E).
    series_uid = pydicom.dcmread(scanned.files[0]).SeriesInstanceUID.encode()
    broken = tmp_path / "broken.dcm"
    broken.write_bytes(whole[: whole.index(series_uid) + len(series_uid) + 11])
    with running.running(tmp_path / "node", configuration(model, orthanc, MR_ROUTE)) as node:
        (sent,) = send(node, [broken])
        assert sent.status == 0
        document = node.outcome(study)
        assert document["outcome"] in {"failed", "not applicable"}
        assert document["jobs"][0]["reason"]
        assert orthanc.instances() == []


@pytest.mark.server("postgresql", "redis-server")
def test_the_same_with_postgresql_and_redis(
    tmp_path: Path, orthanc: Orthanc, request: pytest.FixtureRequest
) -> None:
    model = gate.write(tmp_path / "model")
    scanned = phantom.write_series(tmp_path / "scan", key=uid.derived("postgresql"))
    study = str(pydicom.dcmread(scanned.files[0]).StudyInstanceUID)
    text = running.toml(
        pacs={"ae_title": orthanc.ae_title, "port": orthanc.dicom_port},
        broker=request.getfixturevalue("redis_server").url,
        models={"gate": model.bundle},
        routes=MR_ROUTE,
        extra=f'[database]\nurl = "{request.getfixturevalue("postgres_url")}"',
    )
    with running.running(tmp_path / "node", text) as node:
        send(node, list(scanned.files))
        assert node.outcome(study)["outcome"] == "delivered", node.log
        assert len(orthanc.instances()) == 2
        assert node.stop() == 0
