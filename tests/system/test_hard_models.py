"""Models that hang, eat memory, or say nonsense end their jobs by name, and nothing else."""

from __future__ import annotations

from pathlib import Path

import bundles
import phantom
import pydicom
import running
from servers import Orthanc

from dicomnode.network.calling import sender
from dicomnode.uid import derived

NET = """
import time

import torch


class Net(torch.nn.Module):
    def forward(self, image):
{body}
"""
GOOD = f"return {bundles.BRIGHT}"
BODIES = {
    "hangs": "while True: time.sleep(1)",
    "eats": "eaten = []\n        while True: eaten.append(torch.ones(2**26))",
    "babbles": "return torch.cat([image, image / 0], dim=1) * float('nan')",
    "flat": "return torch.cat([-image, image], dim=1).mean(dim=-1)",
    "changed": GOOD,
    "good": GOOD,
}
EXPECTED = {
    "hangs": "time-limit: ",
    "eats": "out-of-memory: ",
    "babbles": "not-finite: ",
    "flat": "wrong-shape: ",
    "changed": "bundle-changed: ",
}


def write(root: Path, name: str) -> Path:
    bundles.write(
        root,
        manifest=bundles.of_one_image(name) + bundles.LABEL_MAP + bundles.segment(1, "Bright"),
        configuration=bundles.plain(),
        script=NET.format(body=f"        {BODIES[name]}"),
    )
    return root


def route(name: str, series: str) -> str:
    return (
        f'[[routes]]\nname = "{name}"\nmodel = "{name}"\nsend_to = ["pacs"]\n'
        f'series = {{ Modality = "MR", SeriesDescription = "{series}" }}\n'
    )


def send(node: running.RunningNode, folder: Path, series: str) -> str:
    study = {"StudyInstanceUID": derived("study", series), "SeriesDescription": series}
    files = phantom.write_series(folder / series, key=series, attributes=study).files
    to = sender.Destination(ae_title="DICOMNODE", host="127.0.0.1", port=node.port)
    sent = sender.send(files, to=to, calling_ae_title="MODALITY")
    assert [one.status for one in sent] == [0] * len(files)
    tags = pydicom.dcmread(files[0], specific_tags=["StudyInstanceUID"])
    return str(tags.StudyInstanceUID)


def test_a_hard_model_ends_its_job_by_name_and_the_next_job_runs(
    tmp_path: Path, orthanc: Orthanc
) -> None:
    models = {name: write(tmp_path / "models" / name, name) for name in BODIES}
    configuration = running.toml(
        pacs={"ae_title": orthanc.ae_title, "port": orthanc.dicom_port},
        models=models,
        routes="\n".join([*(route(name, "bad") for name in EXPECTED), route("good", "good")]),
    ).replace("lease_s = 3", "lease_s = 3\ntimeout_s = 15\nmemory_gib = 4")
    with running.running(tmp_path / "node", configuration) as node:
        worker = node.process("workers", "--only", "predict")
        with (models["changed"] / "models" / "model.pt").open("ab") as weights:
            weights.write(b"!")

        ended = node.outcome(send(node, tmp_path, "bad"), within_s=240)

        reasons = {one["route"]: one["reason"] for one in ended["jobs"] if "job" in one}
        assert reasons.keys() == EXPECTED.keys()
        for name, reason in EXPECTED.items():
            assert reasons[name].startswith(reason), reasons[name]
        assert ended["outcome"] == "failed"

        assert node.outcome(send(node, tmp_path, "good"))["outcome"] == "delivered"
        assert node.process("workers", "--only", "predict") == worker
    assert len(orthanc.instances()) == 2
