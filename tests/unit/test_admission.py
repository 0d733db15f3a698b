"""Who is admitted: each title and each host of a peer, and nobody else."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from dicomnode import config
from dicomnode.errors import Refused
from dicomnode.network import association
from dicomnode.network.association import Admission


@pytest.fixture
def admission(tmp_path: Path) -> Admission:
    """Of a node with peers of one or several titles and hosts, some with commitment elsewhere."""
    file = tmp_path / "node.toml"
    file.write_text(
        '[peers.ct]\nae_title = ["CT1", "CT1_B"]\nhost = ["10.0.0.5", "fd00::5", "10.0.0.6"]\n'
        '[peers.pacs]\nae_title = "PACS"\nhost = "10.0.0.6"\nport = 104\n'
        'commitment = { ae_title = "PACS_C", host = "10.0.0.8" }\n'
        '[peers.ws]\nae_title = ["WS", "WS_B"]\nhost = ["10.0.0.9", "10.0.0.10"]\nport = 104\n'
        'commitment = { ae_title = "WS_C" }\n'
    )
    configuration = config.load(file, {})
    return Admission(
        ae_title=configuration.node.ae_title,
        peers=configuration.peers,
        accept_unknown_peers=configuration.listen.accept_unknown_peers,
    )


def admit(admission: Admission, calling: str, address: str) -> str:
    return admission.admit(calling_ae_title=calling, called_ae_title="DICOMNODE", address=address)


@pytest.mark.parametrize("calling", ["CT1", "CT1_B", " CT1_B  "])
@pytest.mark.parametrize("address", ["10.0.0.5", "fd00::5", "10.0.0.6", "::ffff:10.0.0.6"])
def test_each_title_of_a_peer_may_come_from_each_of_its_hosts(
    admission: Admission, calling: str, address: str
) -> None:
    assert admit(admission, calling, address) == "ct"


@pytest.mark.parametrize(
    ("calling", "address", "reason"),
    [
        ("CT1", "10.0.0.7", "wrong-host"),
        ("CT1_B", "10.0.0.7", "wrong-host"),
        ("PACS", "10.0.0.5", "wrong-host"),
        ("PACS_C", "10.0.0.6", "wrong-host"),
        ("PACS", "10.0.0.8", "wrong-host"),
        ("WS_C", "10.0.0.10", "wrong-host"),
        ("CT1_C", "10.0.0.5", "unknown-peer"),
        ("CT", "10.0.0.5", "unknown-peer"),
        ("ct", "10.0.0.5", "unknown-peer"),
        ("", "10.0.0.5", "unknown-peer"),
    ],
)
def test_nobody_else_may(admission: Admission, calling: str, address: str, reason: str) -> None:
    with pytest.raises(Refused, match=reason) as refusal:
        admit(admission, calling, address)
    assert refusal.value.status == association.CALLING_AE_TITLE_NOT_RECOGNIZED


def test_a_host_of_one_peer_may_be_that_of_another(admission: Admission) -> None:
    assert admit(admission, "PACS", "10.0.0.6") == "pacs"


def test_who_answers_storage_commitment_for_a_peer_comes_as_that_peer(
    admission: Admission,
) -> None:
    assert admit(admission, "PACS_C", "10.0.0.8") == "pacs"
    assert admit(admission, "WS_C", "10.0.0.9") == "ws"


class Named:
    """A peer with a name for a host, and an address beside."""

    origins = (("CT1", "ct1.hospital.example"), ("CT1", "10.0.0.6"))


def named(*, accept_unknown_peers: bool) -> Admission:
    return Admission(
        ae_title="DICOMNODE",
        peers={"ct": Named()},
        accept_unknown_peers=accept_unknown_peers,
    )


@pytest.mark.parametrize(
    ("code", "reason", "rejected"),
    [
        (socket.EAI_AGAIN, "host-not-resolved", association.REJECTED_FOR_NOW),
        (socket.EAI_NONAME, "wrong-host", association.CALLING_AE_TITLE_NOT_RECOGNIZED),
    ],
)
def test_whose_host_is_not_resolved_now_may_try_again(
    monkeypatch: pytest.MonkeyPatch, code: int, reason: str, rejected: int
) -> None:
    """Told that it is a stranger, a sender may give its study up for good."""

    def away(*_: object, **__: object) -> None:
        raise socket.gaierror(code, "of a name server")

    monkeypatch.setattr(socket, "getaddrinfo", away)
    admission = named(accept_unknown_peers=False)
    with pytest.raises(Refused, match=reason) as refusal:
        admit(admission, "CT1", "10.0.0.5")
    assert refusal.value.status == rejected
    assert admit(admission, "CT1", "10.0.0.6") == "ct"
    assert admit(named(accept_unknown_peers=True), "CT1", "10.0.0.5") == ""
