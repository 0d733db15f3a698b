"""A radiograph the whole way: a CR image in, a report with its class back in the PACS."""

from __future__ import annotations

from pathlib import Path

import pydicom
import pytest
import running
from servers import Orthanc

from dicomnode.network.calling import sender

DATA = running.ROOT.parent / "shared" / "data"
CHEST = running.ROOT / "models" / "chest_xray_pneumonia"
ROUTE = """\
[[routes]]
name    = "pneumonia"
model   = "chest"
series  = { Modality = ["CR", "DX"] }
send_to = ["pacs"]
"""


@pytest.mark.data
def test_a_radiograph_comes_back_with_its_class(tmp_path: Path, orthanc: Orthanc) -> None:
    image = DATA / "single_images" / "RG1_J2KI.dcm"
    study = str(pydicom.dcmread(image, specific_tags=["StudyInstanceUID"]).StudyInstanceUID)
    configuration = running.toml(
        pacs={"ae_title": orthanc.ae_title, "port": orthanc.dicom_port},
        models={"chest": CHEST},
        routes=ROUTE,
    )
    with running.running(tmp_path / "node", configuration) as node:
        to = sender.Destination(ae_title="DICOMNODE", host="127.0.0.1", port=node.port)
        (sent,) = sender.send([image], to=to, calling_ae_title="MODALITY")
        assert sent.status == 0

        document = node.outcome(study)

        assert document["outcome"] == "delivered", document
        (job,) = document["jobs"]
        assert [one["kind"] for one in job["results"]] == ["sr"]
        report = Path(job["results"][0]["path"])
        assert report.with_name("overlay.png").stat().st_size > 10_000
        assert {"prepare", "forward", "finish", "explain"} <= job["timings_s"].keys()
    assert len(orthanc.instances()) == 1
    assert "pneumonia" in str(pydicom.dcmread(report)).lower()
