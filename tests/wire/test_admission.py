"""Who may associate, and what the others are told (PS3.8 9.3.4)."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading

import pytest
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import A_ASSOCIATE
from wire.receiving import HOST, KIND, NODE, Associate, Peer, Receiver, Start

from dicomnode.archive.arrival import Arrival, End, Opened, TurnedAway
from dicomnode.errors import Misconfigured
from dicomnode.network import association
from dicomnode.network.calling import request
from dicomnode.network.serving import acceptor


def rejection(assoc: Association) -> tuple[int | None, ...]:
    reply = assoc.acceptor.primitive or request.unread(assoc)
    assert isinstance(reply, A_ASSOCIATE)
    assert reply.result
    return reply.result, reply.result_source, reply.diagnostic


def test_a_known_peer_may_associate_and_is_named(node: Receiver, associate: Associate) -> None:
    assoc = associate()
    assert assoc.is_established
    node.wait_for(Opened)
    assert node.opened.peer == "ct1"
    assert node.opened.calling_ae_title == "CT1"
    assert node.opened.address == HOST
    assoc.release()
    assert node.ended().end is End.RELEASED


def test_an_unknown_calling_ae_title_is_rejected_for_good(
    node: Receiver, associate: Associate
) -> None:
    assert rejection(associate(calling="STRANGER")) == (1, 1, 3)
    node.wait_for(TurnedAway)
    assert node.turned_away.reason == "unknown-peer"
    assert "STRANGER" in node.turned_away.detail
    assert node.turned_away.status == association.CALLING_AE_TITLE_NOT_RECOGNIZED
    assert node.turned_away.association == ""
    assert node.of(Opened) == []


class _TakesNothing(list[Arrival]):
    def append(self, fact: Arrival) -> None:
        raise OSError(28, "No space left on device")


def test_who_is_refused_stays_out_where_nobody_takes_note_of_it(
    node: Receiver, associate: Associate
) -> None:
    node.facts = _TakesNothing()
    assert rejection(associate(calling="STRANGER")) == (1, 1, 3)


def test_a_wrong_called_ae_title_is_rejected_for_good(node: Receiver, associate: Associate) -> None:
    assert rejection(associate(called="SOMEONE")) == (1, 1, 7)
    node.wait_for(TurnedAway)
    assert node.turned_away.reason == "wrong-called-ae-title"


def test_a_known_title_from_elsewhere_is_rejected(start: Start, associate: Associate) -> None:
    node = start(peers={"ct1": Peer(ae_title="CT1", host="192.0.2.1")})
    assert rejection(associate(to=node)) == (1, 1, 3)
    node.wait_for(TurnedAway)
    assert node.turned_away.reason == "wrong-host"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.0.0.2", "::1", "::ffff:127.0.0.1"])
def test_a_peer_on_this_machine_may_be_written_in_any_way(
    start: Start, associate: Associate, host: str
) -> None:
    assert associate(to=start(peers={"ct1": Peer(ae_title="CT1", host=host)})).is_established


def test_a_host_name_that_does_not_resolve_is_nowhere(start: Start, associate: Associate) -> None:
    node = start(peers={"ct1": Peer(ae_title="CT1", host="nowhere.invalid")})
    assert rejection(associate(to=node)) == (1, 1, 3)


def test_two_peers_may_share_a_title_on_two_hosts(start: Start, associate: Associate) -> None:
    peers = {"far": Peer(ae_title="CT1", host="192.0.2.1"), "near": Peer(ae_title="CT1")}
    node = start(peers=peers)
    associate(to=node)
    node.wait_for(Opened)
    assert node.opened.peer == "near"


def test_strangers_may_associate_where_the_configuration_says_so(
    start: Start, associate: Associate
) -> None:
    node = start(accept_unknown_peers=True)
    assert associate(calling="STRANGER", to=node).is_established
    node.wait_for(Opened)
    assert node.opened.peer == ""
    assert rejection(associate(called="SOMEONE", to=node)) == (1, 1, 7)


def test_a_failure_while_deciding_lets_nobody_in(
    node: Receiver, associate: Associate, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(host: str, address: str) -> bool:
        raise RuntimeError("no name for this")

    monkeypatch.setattr(association, "is_at", fail)
    assert rejection(associate()) == (2, 2, 1)
    node.wait_for(TurnedAway)
    assert node.turned_away.reason == "unexpected-error"
    assert node.of(Opened) == []


@pytest.mark.parametrize("limit", ["max_associations", "max_associations_per_peer"])
def test_one_association_too_many_has_to_wait(
    start: Start, associate: Associate, limit: str
) -> None:
    node = start(**{limit: 1})
    first = associate(to=node)
    assert first.is_established
    assert rejection(associate(to=node)) == (2, 3, 2)
    node.wait_for(TurnedAway)
    assert node.turned_away.reason == "too-many-associations"
    assert len(node.of(Opened)) == 1
    first.release()
    node.ended()
    assert associate(to=node).is_established


def test_a_peer_may_have_a_limit_of_its_own(start: Start, associate: Associate) -> None:
    peers = {"ct1": Peer(ae_title="CT1", max_associations=1), "mr": Peer(ae_title="MR")}
    node = start(peers=peers)
    assert associate(to=node).is_established
    assert rejection(associate(to=node)) == (2, 3, 2)
    assert all(associate(calling="MR", to=node).is_established for _ in range(2))


def test_what_speaks_no_dicom_disturbs_nobody(node: Receiver, associate: Associate) -> None:
    with socket.create_connection((HOST, node.port)) as scanner:
        scanner.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert associate().is_established
    assert node.of(TurnedAway) == []


def test_connections_without_an_association_are_limited_too(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceptor, "_WAITING", 1)
    node = start(max_associations=1)
    with contextlib.ExitStack() as silent:
        for _ in range(2):
            silent.enter_context(socket.create_connection((HOST, node.port)))
        one_more = silent.enter_context(socket.create_connection((HOST, node.port)))
        one_more.settimeout(30)
        assert one_more.recv(1) == b""


def test_an_abstract_syntax_that_is_not_for_storage_is_not_accepted(associate: Associate) -> None:
    private, syntax = "1.2.826.0.1.3680043.2.1", KIND[1]
    modality_worklist = "1.2.840.10008.5.1.4.31"
    assoc = associate((private, syntax), (modality_worklist, syntax), KIND)
    assert [context.abstract_syntax for context in assoc.accepted_contexts] == [KIND[0]]


def test_every_standard_storage_class_is_accepted_in_every_transfer_syntax() -> None:
    contexts = association.accepted_contexts()
    syntaxes = association.transfer_syntaxes()
    label_map, parametric_map = "1.2.840.10008.5.1.4.1.1.66.7", "1.2.840.10008.5.1.4.1.1.30"
    storage = {context.abstract_syntax: context for context in contexts[2:]}
    assert {label_map, parametric_map} <= storage.keys()
    assert all(context.transfer_syntax == list(syntaxes) for context in storage.values())
    for suffix in ("", ".1", ".2", ".1.99", ".4.50", ".4.80", ".4.91", ".4.110", ".4.201", ".5"):
        assert f"1.2.840.10008.1.2{suffix}" in syntaxes


@pytest.mark.parametrize("number", range(0, 160, 40))
def test_what_is_supported_is_accepted_on_the_wire(associate: Associate, number: int) -> None:
    kinds = [
        (str(context.abstract_syntax), syntax)
        for context, syntax in zip(
            association.accepted_contexts()[2 + number : 42 + number],
            association.transfer_syntaxes() * 2,
            strict=False,
        )
    ]
    accepted = associate(*kinds).accepted_contexts
    assert [(cx.abstract_syntax, cx.transfer_syntax[0]) for cx in accepted] == kinds


@pytest.mark.server("dcmtk")
def test_dcmtk_gets_its_echo(node: Receiver) -> None:
    command = ["/usr/bin/echoscu", "-aet", "CT1", "-aec", NODE, HOST, str(node.port)]
    subprocess.run(command, check=True)
    assert node.ended().end is End.RELEASED


@pytest.mark.server("dcmtk")
def test_dcmtk_understands_why_it_is_rejected(node: Receiver) -> None:
    command = ["/usr/bin/echoscu", "-aet", "STRANGER", "-aec", NODE, HOST]
    done = subprocess.run([*command, str(node.port)], check=False, capture_output=True, text=True)
    assert done.returncode != 0
    assert "Calling AE Title Not Recognized" in done.stderr


def test_a_port_that_is_taken_is_a_misconfiguration(start: Start, node: Receiver) -> None:
    with pytest.raises(Misconfigured, match="cannot-listen") as raised:
        start(port=node.port)
    assert "another program has it" in raised.value.detail


def test_stopping_waits_for_an_open_association_then_aborts_it(
    node: Receiver, associate: Associate
) -> None:
    released, left_open = associate(), associate()
    node.wait_for(Opened, count=2)
    releasing = threading.Timer(0.1, released.release)
    releasing.start()
    node.acceptor.stop(grace_s=1)
    releasing.join()
    ends = {fact.association: fact.end for fact in (node.facts[-2], node.facts[-1])}
    assert sorted(ends.values()) == [End.ABORTED, End.RELEASED]
    left_open.join(10)
    assert left_open.is_aborted


def test_stopping_hangs_up_on_who_has_not_asked_for_an_association(node: Receiver) -> None:
    with socket.create_connection((HOST, node.port)) as silent:
        node.acceptor.stop(grace_s=0)
        silent.settimeout(10)
        with contextlib.suppress(ConnectionResetError):
            assert silent.recv(1) == b""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((HOST, node.port))


def test_a_stopped_node_is_no_longer_there(node: Receiver) -> None:
    node.acceptor.stop()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((HOST, node.port))


def test_a_peer_that_falls_silent_is_lost(start: Start, associate: Associate) -> None:
    node = start(idle_s=0.3)
    associate(to=node)
    assert node.ended().end is End.LOST
