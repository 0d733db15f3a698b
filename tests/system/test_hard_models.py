"""Models that hang, eat memory, or say nonsense end their jobs by name, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import phantom
import pydicom
import running
from servers import Orthanc

from dicomnode import bundle
from dicomnode.network.calling import sender
from dicomnode.uid import derived

MANIFEST = """
name         = "{name}"
manufacturer = "Nobody"
intended_use = "Tests"
notice       = "RESEARCH USE ONLY"
family       = {{ value = "123110", scheme = "DCM", meaning = "Artificial Intelligence" }}
procedure    = {{ value = "25056-3", scheme = "LN", meaning = "MRI unspecified body region" }}

[inputs.image]
modality    = "MR"
sop_classes = ["MRImageStorage"]

[outputs.pred]
kind = "label_map"

[[outputs.pred.segments]]
label    = 1
name     = "Bright"
category = {{ value = "91723000", scheme = "SCT", meaning = "Anatomical Structure" }}
type     = {{ value = "5366008", scheme = "SCT", meaning = "Hippocampus" }}
color    = "#ff0000"
"""
NET = """
import time

import torch


class Net(torch.nn.Module):
    def forward(self, image):
{body}
"""
CONFIGURATION = {
    "network_def": {"_target_": "scripts.net.Net"},
    "preprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "LoadImaged", "keys": "image"},
            {"_target_": "EnsureChannelFirstd", "keys": "image"},
        ],
    },
    "postprocessing": {
        "_target_": "Compose",
        "transforms": [{"_target_": "AsDiscreted", "keys": "pred", "argmax": True}],
    },
}
GOOD = "return torch.cat([image.mean() - image, image - image.mean()], dim=1)"
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
    import torch

    for folder in ("configs", "models", "scripts"):
        (root / folder).mkdir(parents=True)
    (root / "dicom.toml").write_text(MANIFEST.format(name=name))
    (root / "configs" / "metadata.json").write_text(json.dumps({"version": "1.0.0"}))
    (root / "configs" / "inference.json").write_text(json.dumps(CONFIGURATION))
    (root / "scripts" / "net.py").write_text(NET.format(body=f"        {BODIES[name]}"))
    torch.save({}, root / "models" / "model.pt")
    bundle.write_lock(root)
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
