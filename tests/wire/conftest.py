"""A receiving node, and senders that are not ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from pynetdicom import AE, build_context, evt
from pynetdicom.association import Association
from wire.receiving import HOST, KIND, NODE, Associate, Listen, Peer, Receiver, Start

from dicomnode.network import checkpoint
from dicomnode.network.commitment.service import Commitment
from dicomnode.network.serving.storage import Gate
from dicomnode.network.tls import Certificates


@pytest.fixture(params=["streaming", "stock"])
def reactor(request: pytest.FixtureRequest) -> str:
    """Who serves the associations: what holds of one holds of the other."""
    return str(request.param)


@pytest.fixture
def start(tmp_path: Path, reactor: str) -> Iterator[Start]:
    """Starts receivers; each is stopped at the end of the test."""
    started: list[Receiver] = []

    def _start(
        *,
        peers: Mapping[str, Peer] | None = None,
        data_dir: Path = tmp_path / "data",
        certificates: Certificates | None = None,
        gate: Gate | None = None,
        commitment: Commitment | None = None,
        **listen: Any,
    ) -> Receiver:
        receiver = Receiver(
            data_dir,
            listen=Listen(**{"reactor": reactor, **listen}),
            peers=peers if peers is not None else {"ct1": Peer(ae_title="CT1")},
            certificates=certificates,
            gate=gate,
            commitment=commitment,
        )
        receiver.acceptor.start()
        started.append(receiver)
        return receiver

    yield _start
    for receiver in started:
        receiver.acceptor.stop(grace_s=0)


@pytest.fixture
def node(start: Start) -> Receiver:
    """A receiver that knows the peer CT1 on this machine."""
    return start()


@pytest.fixture
def associate(node: Receiver) -> Iterator[Associate]:
    """Asks `node` for associations, as pynetdicom does it; each is over at the end of the test."""
    asked: list[Association] = []

    def _associate(
        *kinds: tuple[str, str],
        calling: str = "CT1",
        called: str = NODE,
        to: Receiver | None = None,
    ) -> Association:
        ae = AE(calling)
        contexts = [build_context(sop_class, syntax) for sop_class, syntax in kinds or [KIND]]
        port = (to or node).port
        # Without the mend, pynetdicom would lose an answer now and then.
        mend = (evt.EVT_CONN_OPEN, lambda event: checkpoint.install(event.assoc))
        assoc = ae.associate(HOST, port, contexts=contexts, ae_title=called, evt_handlers=[mend])
        asked.append(assoc)
        return assoc

    yield _associate
    for assoc in asked:
        if assoc.is_established:
            assoc.abort()
