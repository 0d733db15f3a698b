"""A receiving node, and senders that are not ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from pynetdicom import AE, build_context
from pynetdicom.association import Association
from wire.receiving import HOST, KIND, NODE, Associate, Listen, Peer, Receiver, Start


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts receivers; each is stopped at the end of the test."""
    started: list[Receiver] = []

    def _start(
        *,
        listen: Listen | None = None,
        peers: Mapping[str, Peer] | None = None,
        data_dir: Path = tmp_path / "data",
    ) -> Receiver:
        receiver = Receiver(
            data_dir,
            listen=listen or Listen(),
            peers=peers if peers is not None else {"ct1": Peer(ae_title="CT1")},
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
        port = (to or node).acceptor.port
        assoc = ae.associate(HOST, port, contexts=contexts, ae_title=called)
        asked.append(assoc)
        return assoc

    yield _associate
    for assoc in asked:
        if assoc.is_established:
            assoc.abort()
