"""What every case of `fuzzing` has to leave behind at the node that it was put to: nothing wrong.

A target is one receiver, in this process or in another: everything that matters is seen from
outside, in its answers, its folder and what the kernel knows of its process.
"""

from __future__ import annotations

import errno
import operator
import socket
import struct
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from wire import fuzzing, raw
from wire.fuzzing import Case
from wire.raw import Command
from wire.receiving import HOST, READY_WITHIN_S, Receiver, dataset_bytes

from dicomnode.archive.arrival import Ended, Opened, TurnedAway

# Longer than any case takes on a busy machine, and shorter than any time limit of the node.
_HANGS_AFTER_S = 20.0
_ASK_EVERY_S = 0.01
# Linux: the port is chosen when the other end is known, so each address has all of them to give.
_BIND_ADDRESS_NO_PORT = getattr(socket, "IP_BIND_ADDRESS_NO_PORT", 24)
_ADDRESSES = 64
_MOST_MEMORY_KIB = 256 * 1024  # by which the node may grow


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What the target says that it reported."""

    opened: int
    ended: int
    unexpected: int


def counted(receiver: Receiver) -> Counts:
    """What a receiver has reported."""
    return Counts(
        opened=len(receiver.of(Opened)),
        ended=len(receiver.of(Ended)),
        unexpected=sum(
            isinstance(fact, TurnedAway) and fact.reason == "unexpected-error"
            for fact in receiver.facts
        ),
    )


class Target(Protocol):
    """A running receiver that lets the peer CT1 in and calls itself NODE."""

    @property
    def port(self) -> int:
        """Where it listens."""

    @property
    def pid(self) -> int:
        """Its process."""

    @property
    def data_dir(self) -> Path:
        """Its data folder."""

    def counts(self) -> Counts:
        """How many facts it has reported so far."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one case.

    Attributes:
        answers: The command sets that came back.
        fault: What the node did that it must not do; "" if nothing.
    """

    case: Case
    answers: tuple[Command, ...]
    fault: str = ""

    @property
    def acknowledged(self) -> list[str]:
        """The SOP Instance UIDs that were answered with success."""
        return [
            answer.get(raw.AFFECTED_SOP_INSTANCE_UID, b"").rstrip(b"\0").decode("ascii", "replace")
            for answer in self.answers
            if raw.number(answer, raw.COMMAND_FIELD) == raw.C_STORE_RSP
            and raw.number(answer, raw.STATUS) == 0
        ]


class Trial:
    """A target under attack. What is found wrong is in `faults`, a sentence each."""

    def __init__(self, target: Target, *, parallel: int = 8) -> None:
        self.faults: list[str] = []
        self.acknowledged = 0
        self._target = target
        self._parallel = parallel
        self._serve_well()  # whatever is made once is made now
        self._settled()
        self._in_use_before = self._in_use()
        self._peak = peak_memory_kib(target.pid)

    def run(self, cases: Iterable[Case]) -> None:
        """Put a batch of cases to the target, several at once; then look at what it left."""
        with ThreadPoolExecutor(self._parallel) as senders:
            outcomes = list(senders.map(self._put, cases))
        self.faults += [
            f"case {outcome.case.number}: {outcome.fault}" for outcome in outcomes if outcome.fault
        ]
        self._settled()
        self._look_at_the_folder(outcomes)
        self._look_at_the_process()
        self._serve_well()

    def _put(self, case: Case) -> Outcome:
        try:
            return _judged(case, *_said_and_heard(case, self._target.port))
        except TimeoutError:
            return Outcome(case=case, answers=(), fault="the node does not end the association")
        except ConnectionRefusedError:
            return Outcome(case=case, answers=(), fault="the node does not listen")

    def _settled(self) -> None:
        """Wait until every association that was opened has been reported as ended."""

        def is_settled() -> bool:
            now = self._target.counts()
            return now.opened == now.ended

        if not _comes_true(is_settled):
            self.faults.append(f"associations never end: {self._target.counts()}")

    def _look_at_the_folder(self, outcomes: Sequence[Outcome]) -> None:
        """What was acknowledged is there, and what is there is whole. Then make room."""
        kept = {path.stem: path for path in (self._target.data_dir / "instances").rglob("*.dcm")}
        for outcome in outcomes:
            self.acknowledged += len(outcome.acknowledged)
            lost = [uid for uid in outcome.acknowledged if uid not in kept]
            self.faults += [f"case {outcome.case.number}: {uid} is lost" for uid in lost]
            self.faults += [
                f"case {outcome.case.number}: {uid} is kept, and is not what was sent"
                for uid in outcome.case.sop_instance_uids
                if uid in kept and dataset_bytes(kept[uid]) not in outcome.case.datasets()
            ]
        own = {uid for outcome in outcomes for uid in outcome.case.sop_instance_uids}
        self.faults += [f"{uid} was never sent as such" for uid in kept.keys() - own - {_GOOD_UID}]
        for path in kept.values():
            path.unlink()
        incoming = self._target.data_dir / "incoming"
        if not _comes_true(lambda: not list(incoming.iterdir())):
            self.faults.append(f"left in incoming: {len(list(incoming.iterdir()))}")

    def _look_at_the_process(self) -> None:
        before = self._in_use_before
        if not _comes_true(lambda: all(map(operator.le, self._in_use(), before))):
            self.faults.append(
                f"threads and descriptors were {before}, and now are {self._in_use()}"
            )
        if unexpected := self._target.counts().unexpected:
            self.faults.append(f"{unexpected} unexpected errors: see the log")
        if (grown := peak_memory_kib(self._target.pid) - self._peak) > _MOST_MEMORY_KIB:
            self.faults.append(f"the node took {grown} KiB more memory")

    def _in_use(self) -> tuple[int, int]:
        process = Path(f"/proc/{self._target.pid}")
        threads, descriptors = (process / "task").iterdir(), (process / "fd").iterdir()
        return len(list(threads)), len(list(descriptors))

    def _serve_well(self) -> None:
        """The next association in order is served as if nothing had been."""
        try:
            with raw.Speaker(self._target.port, fuzzing.CONTEXTS) as good:
                stored = good.store(fuzzing.CONTEXTS[1], _GOOD_UID, fuzzing.good_dataset(_GOOD_UID))
                echoed = good.echo(1, message_id=2)
                answers = [raw.number(answer, raw.STATUS) for answer in (stored, echoed)]
                if answers != [0, 0] or not good.release():
                    self.faults.append(f"a good association is answered {answers}")
        except (OSError, ValueError, KeyError) as error:
            self.faults.append(f"a good association is not served: {error!r}")


_GOOD_UID = "1.2.3.2000000000.0"


def _comes_true(ask: Callable[[], bool]) -> bool:
    until = time.monotonic() + READY_WITHIN_S
    while not ask():
        if time.monotonic() > until:
            return False
        time.sleep(_ASK_EVERY_S)
    return True


def peak_memory_kib(pid: int) -> int:
    """The most memory that a process has had resident, KiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1])


def _said_and_heard(case: Case, port: int) -> tuple[bytes, bool]:
    """Put a case; returns all that came back, and whether that ended in order."""
    with socket.socket() as connection:
        connection.settimeout(_HANGS_AFTER_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Each end of a connection is remembered for a minute; one address would run out of ports.
        connection.setsockopt(socket.IPPROTO_IP, _BIND_ADDRESS_NO_PORT, 1)
        connection.bind((f"127.0.0.{1 + case.number % _ADDRESSES}", 0))
        connection.connect((HOST, port))
        return _conversed(case, connection)


def _conversed(case: Case, connection: socket.socket) -> tuple[bytes, bool]:
    heard = bytearray()
    try:
        connection.sendall(case.opening)
        heard += _next_pdu(connection) if case.is_admissible else b""
        for step in case.steps:
            connection.sendall(step)
            heard += _next_pdu(connection) if case.is_valid else b""
        if case.is_valid:
            return bytes(heard), True
        if case.is_reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return bytes(heard), False
        connection.shutdown(socket.SHUT_WR)
    except OSError as error:
        # It has heard enough; what it said before is still there to read.
        if error.errno not in {errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN}:
            raise
    rest, is_ended_in_order = _rest(connection)
    return bytes(heard) + rest, is_ended_in_order


def _rest(connection: socket.socket) -> tuple[bytes, bool]:
    """All that still comes, and whether its end is one."""
    heard = bytearray()
    try:
        while more := connection.recv(65536):
            heard += more
    except ConnectionResetError:
        return bytes(heard), False
    return bytes(heard), True


def _next_pdu(connection: socket.socket) -> bytes:
    """One PDU, or as much of it as comes."""
    heard = bytearray()
    while len(heard) < 6 or len(heard) < 6 + int.from_bytes(heard[2:6], "big"):
        more = connection.recv(65536)
        if not more:
            break
        heard += more
    return bytes(heard)


def _judged(case: Case, heard: bytes, is_ended_in_order: bool) -> Outcome:
    answers: list[Command] = []
    fault = ""
    try:
        answers = list(_answers(heard))
    except ValueError as error:
        fault = f"the node answers what is no PDU: {error}" if is_ended_in_order else ""
    outcome = Outcome(case=case, answers=tuple(answers), fault=fault)
    is_answered = len(answers) == len(case.steps) - 1  # a release is no message
    are_safe = outcome.acknowledged == list(case.sop_instance_uids)
    if case.is_valid and not (is_answered and are_safe):
        return Outcome(case=case, answers=outcome.answers, fault="a valid case is not served")
    return outcome


def _answers(heard: bytes) -> Iterable[Command]:
    """The command sets in what was heard.

    Raises:
        ValueError: It is no sequence of whole PDUs, or a command set is malformed.
    """
    content = b""
    while heard:
        if len(heard) < 6:
            raise ValueError("a head is cut short")
        kind, length = struct.unpack_from(">BxI", heard)
        body, heard = heard[6 : 6 + length], heard[6 + length :]
        if len(body) < length or not 2 <= kind <= 7:
            raise ValueError(f"type {kind}, {len(body)} of {length} bytes")
        for value in raw.values(body) if kind == raw.P_DATA_TF else []:
            content += value.content
            if value.is_last:
                yield _answer(content)
                content = b""


def _answer(content: bytes) -> Command:
    """A command set that answers a request.

    Raises:
        ValueError: It is none.
    """
    found = raw.parsed(content)
    for needed in (raw.COMMAND_FIELD, raw.MESSAGE_ID_BEING_RESPONDED_TO, raw.STATUS):
        if len(found.get(needed, b"")) != 2:
            raise ValueError(f"element {needed:04X} is not as it should be")
    return found
