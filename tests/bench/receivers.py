"""What is measured: receivers, each a program of its own in a fresh folder."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from running import PROGRAM, ROOT, wait_for
from servers import Orthanc, free_port

from dicomnode import node

HOST = "127.0.0.1"
CALLED = "BENCH"
LONGEST_PDU = 131_072
_READY_WITHIN_S = 60.0

_CONFIGURATION = """\
[node]
ae_title = "{called}"
data_dir = "data"

[database]
url = "sqlite:///data/node.db"

[listen]
host = "{host}"
port = {port}
processes = {processes}
reactor = "{reactor}"
accept_unknown_peers = true
max_associations = 1024
max_associations_per_peer = 1024
"""


@dataclass(frozen=True, kw_only=True)
class Running:
    """A receiver that listens. `pid` is the first of its processes."""

    port: int
    pid: int
    folder: Path
    orthanc: Orthanc | None = None

    def count(self) -> int:
        """How many instances it holds."""
        if self.orthanc is not None:
            return int(self.orthanc.request("GET", "/statistics")["CountInstances"])
        found = self.folder / "data" / "instances"
        return sum(
            1 for path in (found if found.exists() else self.folder).rglob("*") if _is_one(path)
        )


def _is_one(path: Path) -> bool:
    return path.is_file() and path.suffix not in {".log", ".toml", ".json"}


@dataclass(frozen=True, kw_only=True)
class Ours:
    """`dicomnode serve` from a configuration file: each instance is synced before its answer."""

    name: str
    processes: int = 1
    reactor: str = "streaming"
    is_for: tuple[int, ...] = (1, 8)  # numbers of associations

    @contextmanager
    def running(self, folder: Path) -> Iterator[Running]:
        """Start it in a folder; it is over at the end of the block."""
        port = free_port()
        file = folder / "node.toml"
        file.write_text(
            _CONFIGURATION.format(
                called=CALLED, host=HOST, port=port, processes=self.processes, reactor=self.reactor
            )
        )
        command = [*PROGRAM, "serve", str(file)]
        with _program(command, folder, {"PYTHONPATH": str(ROOT)}) as process:
            wait_for(lambda: node.listening(folder / "data"), what=f"{self.name} in {folder}")
            yield Running(port=port, pid=process.pid, folder=folder)


@dataclass(frozen=True, kw_only=True)
class Command:
    """Another program; `words` may name {port} and {folder}."""

    name: str
    words: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    is_for: tuple[int, ...] = (1, 8)

    @contextmanager
    def running(self, folder: Path) -> Iterator[Running]:
        """Start it in a folder; it is over at the end of the block."""
        port = free_port()
        command = [word.format(port=port, folder=folder) for word in self.words]
        with _program(command, folder, self.environment) as process:
            wait_for(lambda: _listens(port), what=f"{self.name} in {folder}")
            yield Running(port=port, pid=process.pid, folder=folder)


@dataclass(frozen=True, kw_only=True)
class TheirOrthanc:
    """Orthanc as Debian sets it up, its DICOMweb aside, with PDUs as long as everybody's."""

    name: str = "orthanc"
    is_for: tuple[int, ...] = (1, 8)

    @contextmanager
    def running(self, folder: Path) -> Iterator[Running]:
        """Start it in a folder; it is over at the end of the block."""
        options = {"Plugins": [], "MaximumPduLength": LONGEST_PDU, "DicomWeb": {"Enable": False}}
        orthanc = Orthanc(folder, ae_title=CALLED, options=options)
        orthanc.start()
        try:
            process = orthanc._server.process
            assert process is not None
            yield Running(port=orthanc.dicom_port, pid=process.pid, folder=folder, orthanc=orthanc)
        finally:
            orthanc.kill()


Receiver = Ours | Command | TheirOrthanc


def every(cores: int) -> tuple[Receiver, ...]:
    """All that are compared; the first is what the others are compared with."""
    return (
        Ours(name="ours", processes=cores),
        Ours(name="ours-1", is_for=(8,)),
        Ours(name="ours-stock", reactor="stock"),
        Command(
            name="storescp",
            words=("/usr/bin/storescp", "--fork", "-pdu", str(LONGEST_PDU), "+xa", "-aet", CALLED,
                   "--output-directory", "{folder}", "{port}"),
            environment={"TCP_NODELAY": "1"},
        ),
        Command(
            name="pynetdicom",
            words=(sys.executable, str(Path(__file__).with_name("plain.py")), "{folder}", "{port}"),
        ),
        TheirOrthanc(),
    )  # fmt: skip


@contextmanager
def _program(
    command: list[str], folder: Path, environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / "receiver.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, cwd=folder, env={**os.environ, **environment}
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_READY_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _listens(port: int) -> bool:
    try:
        with socket.create_connection((HOST, port)):
            return True
    except OSError:
        time.sleep(0.05)
        return False
