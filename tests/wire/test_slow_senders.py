"""Senders that dawdle, stop, or only hold their association: the others do not notice."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest
import running
from wire import raw
from wire.raw import Context, Speaker
from wire.receiving import HOST, KIND, Receiver, Start, instance
from wire.test_every_byte import encoded

from dicomnode import status
from dicomnode.archive.arrival import End, Ended, Opened

# pynetdicom's own reactor takes two threads for each, which do not sleep: no crowd is for it.
IDLE = {"streaming": 200, "stock": 20}
INSTANCES = 20

only_streaming = pytest.mark.parametrize("reactor", ["streaming"])

CONTEXTS = [
    Context(id=1, abstract_syntax=raw.VERIFICATION, transfer_syntaxes=(raw.IMPLICIT,)),
    Context(id=3, abstract_syntax=KIND[0], transfer_syntaxes=(KIND[1],)),
]


def message(number: int) -> bytes:
    """Every byte of one C-STORE-RQ with its data set."""
    one = encoded(number, transfer_syntax_uid=KIND[1])
    request = raw.c_store_rq(*one.uids)
    values = [
        *raw.fragments(raw.command(request), context_id=3, is_command=True, longest=4096),
        *raw.fragments(one.dataset, context_id=3, longest=4096),
    ]
    return b"".join(raw.packed(values, longest=4096))


def send_some(node: Receiver, *, first: int = 1, count: int = INSTANCES) -> None:
    """A whole, quick association."""
    with Speaker(node.port, CONTEXTS) as speaker:
        for number in range(first, first + count):
            speaker.send(message(number))
            assert raw.number(speaker.answer(), raw.STATUS) == status.SUCCESS
        assert speaker.release()


@contextmanager
def idle(node: Receiver, count: int) -> Iterator[list[Speaker]]:
    """Associations that are open and say nothing."""
    with ExitStack() as stack:
        yield [stack.enter_context(Speaker(node.port, CONTEXTS)) for _ in range(count)]


def crowded(start: Start) -> Receiver:
    """A receiver that has room for all of them."""
    room = 2 * max(IDLE.values())
    return start(max_associations=room, max_associations_per_peer=room)


def test_idle_associations_disturb_nobody_and_stay(start: Start, reactor: str) -> None:
    node, count = crowded(start), IDLE[reactor]
    with idle(node, count) as holding:
        send_some(node)
        for speaker in (holding[0], holding[count // 2], holding[-1]):
            assert raw.number(speaker.echo(1), raw.STATUS) == status.SUCCESS
    assert len(node.wait_for(Ended, count=count + 1)) == count + 1
    assert len(node.on_disk) == INSTANCES


@only_streaming
def test_an_idle_association_costs_one_thread_at_most(start: Start, reactor: str) -> None:
    node, count = crowded(start), IDLE[reactor]
    send_some(node, count=1)  # whatever is made once is made now
    node.ended()
    before = threading.active_count()
    with idle(node, count):
        node.wait_for(Opened, count=count + 1)
        assert threading.active_count() <= before + count
    node.wait_for(Ended, count=count + 1)
    running.wait_for(lambda: threading.active_count() <= before, what="the end of the threads")


def test_senders_that_stop_within_a_pdu_disturb_nobody_and_may_go_on(start: Start) -> None:
    node = start()
    with idle(node, 10) as stalled:
        rests = []
        for number, speaker in enumerate(stalled, start=1):
            said = message(1000 + number)
            at = number * len(said) // (len(stalled) + 1)
            speaker.send(said[:at])
            rests.append(said[at:])
        send_some(node)
        for speaker, rest in zip(stalled, rests, strict=True):
            speaker.send(rest)
            assert raw.number(speaker.answer(), raw.STATUS) == status.SUCCESS
    assert len(node.on_disk) == INSTANCES + len(stalled)


def test_one_byte_at_a_time_is_served_and_disturbs_nobody(start: Start) -> None:
    node = start()
    said = message(1000)
    step = len(said) // INSTANCES + 1
    with idle(node, 1) as (slow,):
        for number, at in enumerate(range(0, len(said), step), start=1):
            for byte in range(at, min(at + step, len(said))):
                slow.send(said[byte : byte + 1])
            send_some(node, first=number, count=1)
        assert raw.number(slow.answer(), raw.STATUS) == status.SUCCESS
    assert len(node.on_disk) == number + 1


def nothing(_: bytes) -> bytes:
    return b""


def half_a_head(said: bytes) -> bytes:
    return said[:3]


def half_a_command(said: bytes) -> bytes:
    return said[:40]


def half_a_data_set(said: bytes) -> bytes:
    return said[: len(said) // 2]


STALLS = [nothing, half_a_head, half_a_command, half_a_data_set]


@only_streaming
@pytest.mark.parametrize("stall", STALLS, ids=lambda stall: stall.__name__)
def test_who_is_silent_for_too_long_is_lost_and_told(
    start: Start, stall: Callable[[bytes], bytes]
) -> None:
    node = start(idle_s=0.3)
    with idle(node, 1) as (silent,):
        silent.send(stall(message(1)))
        kind, _body = silent.receive()
        assert kind == raw.ABORT
        assert silent.receive() == (0, b"")  # and the connection is closed
    assert (node.ended().end, node.ended().stored) == (End.LOST, 0)
    assert node.on_disk == node.leftovers == []
    send_some(node, count=1)


@only_streaming
def test_what_was_acknowledged_before_the_silence_stays(start: Start) -> None:
    node = start(idle_s=0.3)
    with idle(node, 1) as (silent,):
        silent.send(message(1))
        assert raw.number(silent.answer(), raw.STATUS) == status.SUCCESS
        silent.send(half_a_data_set(message(2)))
        assert silent.receive()[0] == raw.ABORT
    assert (node.ended().end, node.ended().stored) == (End.LOST, 1)
    assert len(node.on_disk) == 1
    assert node.leftovers == []


def test_who_never_asks_for_an_association_takes_no_place(start: Start) -> None:
    node = start()
    with ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(_connected(node))
        send_some(node)
    assert len(node.of(Opened)) == 1
    assert instance(1).SOPInstanceUID in node.stored[0]


@contextmanager
def _connected(node: Receiver) -> Iterator[None]:
    """A connection over which nothing is ever said."""
    with socket.create_connection((HOST, node.port)):
        yield
