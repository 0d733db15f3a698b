"""The main job from end to end, once: a real node, a real PACS, a real sender, on one study."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pydicom
from rich.console import Console

from dicomnode import config as configuration_
from dicomnode import inquiry, log, node, pacs
from dicomnode.archive.asked import accounts
from dicomnode.archive.database import Database
from dicomnode.config import Configuration
from dicomnode.errors import Failed, Misconfigured
from dicomnode.job import JobState
from dicomnode.network.calling import sender

_log = log.get(__name__)

Document = dict[str, Any]
Step = Callable[[str], None]

BUNDLE = "hippocampus_mr_segmentation"
_MARKER = ".dicomnode-demo"
_NODE_AE_TITLE, _PACS_AE_TITLE, _MODALITY_AE_TITLE = "DICOMNODE", "PACS", "MODALITY"
_LOOPBACK = "127.0.0.1"
_START_S, _ANSWER_S, _STOP_S, _POLL_S = 60.0, 900.0, 70.0, 0.05

_CONFIGURATION = """\
# Written by `dicomnode demo`.
[node]
ae_title = "{node}"
data_dir = "node"

[listen]
host = "{host}"
port = 0

[database]
url = "sqlite:///node/node.db"

[complete]
settle_s = 0.5
quiet_s  = 5

[deliver]
retry_s = 1

[peers.modality]
ae_title = "{modality}"
host = "{host}"

[peers.pacs]
ae_title = "{pacs}"
host = "{host}"
port = {port}

[models.hippocampus]
bundle = {bundle}

[[routes]]
name    = "hippocampus volumetry"
model   = "hippocampus"
series  = {{ Modality = "MR", SeriesDescription = "re:(?i)hippo.?crop", instances = ">=16" }}
send_to = ["pacs"]
"""


def run(*, study: Path | None, out: Path, models_dir: Path, step: Step) -> Document:
    """Send a study to a node of its own and wait for what comes of it.

    Args:
        study: A folder with one DICOM study; the bundle's sample by default.
        out: Everything is written here; what an earlier demo left in it is removed.
        models_dir: Where the bundles lie.
        step: Called with a sentence at each step.

    Returns:
        The document of `dicomnode demo --json`.
    """
    bundle = models_dir / BUNDLE
    files = _files(study or bundle / "sample")
    uid = _study_of(files)
    _clean(out)
    with pacs.running(out / "pacs", ae_title=_PACS_AE_TITLE) as pacs_port:
        file = _write_configuration(out, bundle=bundle, pacs_port=pacs_port)
        configuration = configuration_.load(file)
        step("starting the node")
        with _running(file, log_file=out / "node.log") as process:
            port = _wait_for_port(configuration, process, log_file=out / "node.log")
            step(f"sending {len(files)} files to {_NODE_AE_TITLE}@{_LOOPBACK}:{port}")
            refused = _send(files, port=port)
            step("waiting for the answer")
            arrived = len(refused) < len(files)
            jobs = _wait_for_outcomes(configuration, uid, process) if arrived else []
            step("stopping the node")
    return {"study": uid, "jobs": jobs, "refused": refused, "out": str(out)}


def failed(document: Document) -> bool:
    """Whether anything did not end as it should."""
    good = {JobState.DELIVERED, JobState.NOT_APPLICABLE}
    return bool(document["refused"]) or any(job["state"] not in good for job in document["jobs"])


@contextmanager
def steps(console: Console, *, quiet: bool) -> Iterator[Step]:
    """Shows each step: as a spinner on a terminal, as a line elsewhere."""
    if quiet:
        yield lambda _: None
    elif console.is_terminal:
        with console.status("") as spinner:
            yield spinner.update
    else:
        yield lambda text: console.print(text, markup=False)


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise Misconfigured("no-study", f"{folder} is no folder. Give one with a DICOM study.")
    files = sender.dicom_files([folder])
    if not files:
        raise Misconfigured("no-study", f"{folder} holds no DICOM file.")
    return files


def _study_of(files: list[Path]) -> str:
    uids = {
        str(pydicom.dcmread(file, specific_tags=["StudyInstanceUID"]).get("StudyInstanceUID", ""))
        for file in files
    }
    if len(uids) > 1:
        raise Misconfigured("several-studies", f"{len(uids)} studies lie there: give one of them.")
    return uids.pop()


def _clean(out: Path) -> None:
    """Remove what an earlier demo wrote, and nothing else."""
    if out.exists() and any(out.iterdir()) and not (out / _MARKER).exists():
        raise Misconfigured("folder-in-use", f"{out} is not empty and no demo wrote it: --out DIR.")
    shutil.rmtree(out, ignore_errors=True)
    (out / "pacs").mkdir(parents=True)
    (out / _MARKER).touch()


def _write_configuration(out: Path, *, bundle: Path, pacs_port: int) -> Path:
    file = out / "node.toml"
    file.write_text(
        _CONFIGURATION.format(
            node=_NODE_AE_TITLE,
            modality=_MODALITY_AE_TITLE,
            pacs=_PACS_AE_TITLE,
            host=_LOOPBACK,
            port=pacs_port,
            bundle=json.dumps(str(bundle)),
        )
    )
    return file


@contextmanager
def _running(file: Path, *, log_file: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "dicomnode", "up", str(file)]
    with log_file.open("wb") as log_:
        process = subprocess.Popen(command, stderr=log_, stdout=log_)  # noqa: S603 - our own command
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=_STOP_S)


def _wait_for_port(
    configuration: Configuration, process: subprocess.Popen[bytes], *, log_file: Path
) -> int:
    until = time.monotonic() + _START_S
    while time.monotonic() < until and process.poll() is None:
        port = node.listening(configuration.node.data_dir)
        if port is not None:
            return port
        time.sleep(_POLL_S)
    raise Failed("node-did-not-start", f"The node does not listen; its log is {log_file}.")


def _send(files: list[Path], *, port: int) -> list[Document]:
    """Send everything; returns what the node refused, with its reason."""
    to = sender.Destination(ae_title=_NODE_AE_TITLE, host=_LOOPBACK, port=port)
    sent = sender.send(files, to=to, calling_ae_title=_MODALITY_AE_TITLE)
    return [
        {"file": str(one.path), "status": f"0x{one.status:04X}", "reason": one.comment}
        for one in sent
        if sender.outcome(one.status) != "stored"
    ]


def _wait_for_outcomes(
    configuration: Configuration, uid: str, process: subprocess.Popen[bytes]
) -> list[Document]:
    """How each rule ended for each series, once none is open."""
    database = Database(configuration.database.url)
    until = time.monotonic() + _ANSWER_S
    try:
        while time.monotonic() < until and process.poll() is None:
            with database.read() as tx:
                line = accounts.study(tx, uid)
                if line is not None and line.outcome is not accounts.Outcome.IN_PROGRESS:
                    return inquiry.outcomes(tx, uid, data_dir=configuration.node.data_dir)
            time.sleep(_POLL_S)
    finally:
        database.close()
    raise Failed("no-answer", "The study did not come to its end; the log lies beside it.")
