"""A whole node that takes secure associations, with DCMTK and pynetdicom as peers."""

from __future__ import annotations

import json
import socket
import subprocess
from pathlib import Path

import pytest
import running
from certificates import Authority, Issued, TlsTable

from dicomnode.network.tls import Certificates
from dicomnode.node import LISTENING_NAME

pytestmark = pytest.mark.server("dcmtk")

HOST = "127.0.0.1"
WITHIN_S = 30


def toml(ours: Issued, authority: Authority) -> str:
    tls = (
        f'[tls]\nport = 0\ncertificate = "{ours.certificate}"\nkey = "{ours.key}"\n'
        f'ca = "{authority.certificate}"'
    )
    return running.toml(models={}, extra=tls).replace("port = 0", "port = 0\nprocesses = 2", 1)


def secure_port(node: running.RunningNode) -> int:
    note = json.loads((node.configuration.node.data_dir / LISTENING_NAME).read_text())
    return int(note["secure_port"])


def echoscu(port: int, *options: str | Path) -> int:
    command = ["/usr/bin/echoscu", *options, "-aet", "MODALITY", "-aec", "DICOMNODE", HOST, port]
    done = subprocess.run([*map(str, command)], capture_output=True, check=False, timeout=WITHIN_S)
    return done.returncode


def common_name(port: int, certificates: Certificates) -> str:
    """Whom a listener of the node says it is."""
    with (
        socket.create_connection((HOST, port)) as connection,
        certificates.client().wrap_socket(connection, server_hostname=HOST) as secure,
    ):
        certificate = secure.getpeercert()
        assert certificate is not None
        return dict(pair for (pair,) in certificate["subject"])["commonName"]


def test_listeners_take_secure_associations_and_certificates_that_are_renewed(
    tmp_path: Path, authority: Authority
) -> None:
    ours, modality = authority.issue("node"), authority.issue("modality")
    theirs = TlsTable(certificate=modality.certificate, key=modality.key, ca=authority.certificate)
    certificates = Certificates(theirs)
    secure = ("+tls", modality.key, modality.certificate, "+cf", authority.certificate)
    with running.running(tmp_path / "node", toml(ours, authority), command="serve") as node:
        port = secure_port(node)
        assert echoscu(port, *secure) == 0
        assert echoscu(node.port) == 0
        assert echoscu(port, "+tla", "+cf", authority.certificate) != 0
        assert common_name(port, certificates) == "node"
        ours.replace(authority.issue("renewed"))
        # Whichever of the listeners is asked.
        assert {common_name(port, certificates) for _ in range(8)} == {"renewed"}
        assert echoscu(port, *secure) == 0
