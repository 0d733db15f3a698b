"""PDUs are found in a stream of bytes however it is cut (PS3.8 9.3)."""

from __future__ import annotations

import random
import socket
import struct
import threading
from collections.abc import Iterator
from itertools import pairwise

import pytest

from dicomnode.network import connection
from dicomnode.network.serving import wire
from dicomnode.network.serving.wire import AbortReason, Inbox, ProtocolFault

LONGEST = 16 * 1024


def pdu(kind: int, body: bytes) -> bytes:
    return struct.pack(">BxL", kind, len(body)) + body


def item(context_id: int, control: int, fragment: bytes) -> bytes:
    return struct.pack(">LBB", len(fragment) + 2, context_id, control) + fragment


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as there,
        server.accept()[0] as here,
    ):
        yield here, there


Pair = tuple[socket.socket, socket.socket]


def send_in_the_background(to: socket.socket, pieces: list[bytes]) -> threading.Thread:
    def send() -> None:
        for piece in pieces:
            to.sendall(piece)
        to.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=send)
    thread.start()
    return thread


@pytest.mark.parametrize("seed", range(8))
def test_pdus_come_out_whole_however_the_bytes_are_cut(pair: Pair, seed: int) -> None:
    rng = random.Random(seed)
    sent = [
        (rng.choice((1, 4, 5, 7)), rng.randbytes(rng.choice((0, 1, 100, 4096, LONGEST))))
        for _ in range(200)
    ]
    stream = b"".join(pdu(kind, body) for kind, body in sent)
    cuts = sorted(rng.sample(range(1, len(stream)), 300))
    pieces = [stream[a:b] for a, b in pairwise([0, *cuts, len(stream)])]
    here, there = pair
    sending = send_in_the_background(there, pieces)
    inbox = Inbox(here, longest_pdu=LONGEST)
    for kind, body in sent:
        found, view = inbox.next()
        assert (found, bytes(view)) == (kind, body)
    with pytest.raises(ConnectionError):
        inbox.next()
    sending.join()


def test_an_association_request_may_be_longer_than_data(pair: Pair) -> None:
    here, there = pair
    sending = send_in_the_background(there, [pdu(wire.ASSOCIATE_RQ, bytes(300_000))])
    kind, body = Inbox(here, longest_pdu=LONGEST).next()
    assert (kind, len(body)) == (wire.ASSOCIATE_RQ, 300_000)
    sending.join()


@pytest.mark.parametrize(
    ("kind", "length", "reason"),
    [
        (wire.P_DATA_TF, LONGEST + 2000, AbortReason.INVALID_PARAMETER),
        (wire.P_DATA_TF, 0xFFFFFFFF, AbortReason.INVALID_PARAMETER),
        (wire.ASSOCIATE_RQ, 1_000_000, AbortReason.INVALID_PARAMETER),
        (0, 4, AbortReason.UNRECOGNIZED_PDU),
        (ord("G"), 4, AbortReason.UNRECOGNIZED_PDU),
    ],
)
def test_what_is_no_pdu_or_too_long_is_not_read(
    pair: Pair, kind: int, length: int, reason: AbortReason
) -> None:
    here, there = pair
    there.sendall(struct.pack(">BxL", kind, length))
    with pytest.raises(ProtocolFault) as raised:
        Inbox(here, longest_pdu=LONGEST).next()
    assert raised.value.reason is reason


@pytest.mark.parametrize("sent", [b"", b"\x04\x00", pdu(4, b"half of it")[:-1]])
def test_a_peer_that_hangs_up_is_lost_wherever_it_was(pair: Pair, sent: bytes) -> None:
    here, there = pair
    there.sendall(sent)
    there.close()
    with pytest.raises(ConnectionError):
        Inbox(here, longest_pdu=LONGEST).next()


@pytest.mark.parametrize("sent", [b"", b"\x04\x00", pdu(4, b"half of it")[:-1]])
def test_a_peer_that_falls_silent_is_not_waited_for_for_ever(pair: Pair, sent: bytes) -> None:
    here, there = pair
    connection.limit_waiting(here, timeout_s=0.05)
    there.sendall(sent)
    with pytest.raises(TimeoutError):
        Inbox(here, longest_pdu=LONGEST).next()


def test_a_connection_that_breaks_is_lost(pair: Pair) -> None:
    here, _ = pair
    here.close()
    with pytest.raises(ConnectionError):
        Inbox(here, longest_pdu=LONGEST).next()


def test_values_are_found_in_their_pdu() -> None:
    body = item(1, 3, b"command") + item(3, 0, b"") + item(3, 2, b"data")
    found = [(cx, control, bytes(value)) for cx, control, value in wire.values(memoryview(body))]
    assert found == [(1, 3, b"command"), (3, 0, b""), (3, 2, b"data")]


@pytest.mark.parametrize(
    "body",
    [
        b"\0",
        item(1, 0, b"data")[:-1],
        struct.pack(">LBB", 1, 1, 0),
        struct.pack(">LBB", 0, 1, 0),
        struct.pack(">LBB", 0xFFFFFFFF, 1, 0) + b"data",
        item(1, 0, b"data") + b"\0\0\0\0\0",
    ],
)
def test_values_that_do_not_fill_their_pdu_are_a_fault(body: bytes) -> None:
    with pytest.raises(ProtocolFault):
        list(wire.values(memoryview(body)))


def test_an_abort_says_who_and_why() -> None:
    assert wire.abort(None) == bytes.fromhex("07000000000400000000")
    assert wire.abort(AbortReason.UNEXPECTED_PDU) == bytes.fromhex("07000000000400000202")
