"""A sender that speaks PDUs itself: every byte of them can be chosen (PS3.8 9.3, PS3.7 6.3).

It shares nothing with the node and nothing with pynetdicom: what it says is judged by neither.
"""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Self

ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA_TF, RELEASE_RQ, RELEASE_RP, ABORT = range(1, 8)

VERIFICATION = "1.2.840.10008.1.1"
IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"

# PS3.7 E.1: elements of group 0000.
GROUP_LENGTH = 0x0000
AFFECTED_SOP_CLASS_UID = 0x0002
COMMAND_FIELD = 0x0100
MESSAGE_ID = 0x0110
MESSAGE_ID_BEING_RESPONDED_TO = 0x0120
PRIORITY = 0x0700
COMMAND_DATA_SET_TYPE = 0x0800
STATUS = 0x0900
AFFECTED_SOP_INSTANCE_UID = 0x1000

C_STORE_RQ, C_STORE_RSP, C_ECHO_RQ, C_ECHO_RSP = 0x0001, 0x8001, 0x0030, 0x8030
NO_DATA_SET, A_DATA_SET = 0x0101, 0x0001

_APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
_OUR_CLASS, _OUR_VERSION = "1.2.826.0.1.3680043.8.498.1", "RAW"
_HEAD = struct.Struct(">BxI")
_PDV_HEAD = struct.Struct(">IBB")
_ANSWERS_WITHIN_S = 60.0

#: Element number in group 0000 → value, as it is encoded.
Command = Mapping[int, bytes]


def pdu(kind: int, body: bytes, *, length: int | None = None) -> bytes:
    """A PDU; `length` is what it says of itself, if that is to be a lie."""
    return _HEAD.pack(kind, len(body) if length is None else length) + body


RELEASE = pdu(RELEASE_RQ, bytes(4))
ABORTED = pdu(ABORT, bytes(4))


@dataclass(frozen=True, kw_only=True)
class Pdv:
    """A Presentation Data Value (PS3.8 9.3.5.1). `length` is what it says of itself, if a lie."""

    context_id: int
    content: bytes = field(repr=False)
    is_command: bool = False
    is_last: bool = False
    length: int | None = None
    control: int | None = None

    def encoded(self) -> bytes:
        """Length, context, message control header, content."""
        length = len(self.content) + 2 if self.length is None else self.length
        control = self.is_command | self.is_last << 1 if self.control is None else self.control
        return _PDV_HEAD.pack(length, self.context_id, control) + self.content


def p_data(*values: Pdv, length: int | None = None) -> bytes:
    """A P-DATA-TF PDU."""
    return pdu(P_DATA_TF, b"".join(value.encoded() for value in values), length=length)


@dataclass(frozen=True, kw_only=True)
class Context:
    """A proposed presentation context."""

    id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]


def _item(kind: int, content: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(content)) + content


def _proposed(context: Context) -> bytes:
    syntaxes = b"".join(_item(0x40, uid.encode()) for uid in context.transfer_syntaxes)
    content = bytes([context.id, 0, 0, 0]) + _item(0x30, context.abstract_syntax.encode())
    return _item(0x20, content + syntaxes)


def associate_rq(
    contexts: Iterable[Context],
    *,
    calling: str,
    called: str,
    max_length: int = 16384,
    version: int = 1,
    application_context: str = _APPLICATION_CONTEXT,
) -> bytes:
    """An A-ASSOCIATE-RQ PDU (PS3.8 9.3.2)."""
    user = (
        _item(0x51, struct.pack(">I", max_length))
        + _item(0x52, _OUR_CLASS.encode())
        + _item(0x55, _OUR_VERSION.encode())
    )
    body = struct.pack(
        ">HH16s16s32x", version, 0, called.ljust(16).encode(), calling.ljust(16).encode()
    )
    body += _item(0x10, application_context.encode())
    body += b"".join(map(_proposed, contexts)) + _item(0x50, user)
    return pdu(ASSOCIATE_RQ, body)


def _items(content: bytes) -> Iterable[tuple[int, bytes]]:
    while content:
        kind, length = struct.unpack_from(">BxH", content)
        yield kind, content[4 : 4 + length]
        content = content[4 + length :]


def accepted(body: bytes) -> tuple[dict[int, str], int]:
    """What an A-ASSOCIATE-AC grants: context → transfer syntax, and the longest PDU it takes."""
    granted: dict[int, str] = {}
    longest = 0
    for kind, content in _items(body[68:]):
        if kind == 0x21 and content[2] == 0:
            granted[content[0]] = dict(_items(content[4:]))[0x40].decode()
        elif kind == 0x50:
            (longest,) = struct.unpack(">I", dict(_items(content))[0x51])
    return granted, longest


def element(number: int, value: bytes, *, length: int | None = None) -> bytes:
    """An element of group 0000 in Implicit VR Little Endian."""
    return struct.pack("<HHL", 0, number, len(value) if length is None else length) + value


def command(elements: Command) -> bytes:
    """A command set with its group length."""
    content = b"".join(element(number, elements[number]) for number in sorted(elements))
    return element(GROUP_LENGTH, struct.pack("<L", len(content))) + content


def short(value: int) -> bytes:
    """A value of VR US."""
    return struct.pack("<H", value)


def uid(value: str) -> bytes:
    """A value of VR UI, padded."""
    return value.encode() + b"\0" * (len(value) % 2)


def c_store_rq(
    sop_class_uid: str, sop_instance_uid: str, *, message_id: int = 1
) -> dict[int, bytes]:
    """The elements of a C-STORE-RQ (PS3.7 9.3.1.1)."""
    return {
        AFFECTED_SOP_CLASS_UID: uid(sop_class_uid),
        COMMAND_FIELD: short(C_STORE_RQ),
        MESSAGE_ID: short(message_id),
        PRIORITY: short(0),
        COMMAND_DATA_SET_TYPE: short(A_DATA_SET),
        AFFECTED_SOP_INSTANCE_UID: uid(sop_instance_uid),
    }


def c_echo_rq(*, message_id: int = 1) -> dict[int, bytes]:
    """The elements of a C-ECHO-RQ (PS3.7 9.3.5.1)."""
    return {
        AFFECTED_SOP_CLASS_UID: uid(VERIFICATION),
        COMMAND_FIELD: short(C_ECHO_RQ),
        MESSAGE_ID: short(message_id),
        COMMAND_DATA_SET_TYPE: short(NO_DATA_SET),
    }


def parsed(content: bytes) -> dict[int, bytes]:
    """The elements of a command set.

    Raises:
        ValueError: It is none.
    """
    found: dict[int, bytes] = {}
    while content:
        if len(content) < 8:
            raise ValueError("an element of the command set is cut short")
        group, number, length = struct.unpack_from("<HHL", content)
        if group != 0 or len(content) < 8 + length or number in found:
            raise ValueError("the command set is malformed")
        found[number] = content[8 : 8 + length]
        content = content[8 + length :]
    return found


def number(answer: Command, which: int) -> int:
    """The value of an element of VR US."""
    (value,) = struct.unpack("<H", answer[which])
    return int(value)


def values(body: bytes) -> list[Pdv]:
    """The PDVs of a P-DATA-TF.

    Raises:
        ValueError: They do not fill it.
    """
    found = []
    while body:
        if len(body) < 6:
            raise ValueError("a PDV is cut short")
        length, context_id, control = _PDV_HEAD.unpack_from(body)
        if length < 2 or len(body) < 4 + length:
            raise ValueError("a PDV is longer than its PDU")
        found.append(
            Pdv(
                context_id=context_id,
                content=body[6 : 4 + length],
                is_command=bool(control & 1),
                is_last=bool(control & 2),
            )
        )
        body = body[4 + length :]
    return found


def pieces(content: bytes, *, longest: int, rng: random.Random | None = None) -> list[bytes]:
    """`content` in pieces of at most `longest` bytes; with `rng` cut anywhere, some empty."""
    if rng is None:
        return [content[at : at + longest] for at in range(0, len(content), longest)] or [b""]
    cut, at = [], 0
    while at < len(content):
        # Mostly long ones: else a large object would come in thousands of pieces.
        ceiling = longest if rng.random() < 0.8 else rng.choice((0, 1, 2, 7, 100))
        length = min(rng.randint(0, max(ceiling, 0)), longest)
        cut.append(content[at : at + length])
        at += length
    return cut or [b""]


def fragments(
    content: bytes,
    *,
    context_id: int,
    is_command: bool = False,
    longest: int,
    rng: random.Random | None = None,
) -> list[Pdv]:
    """A command or a data set as PDVs, none of which makes its PDU longer than `longest`."""
    cut = [
        Pdv(context_id=context_id, content=piece, is_command=is_command)
        for piece in pieces(content, longest=longest - _PDV_HEAD.size, rng=rng)
    ]
    return [*cut[:-1], replace(cut[-1], is_last=True)]


def packed(
    fragments: Sequence[Pdv], *, longest: int, rng: random.Random | None = None
) -> list[bytes]:
    """PDVs as P-DATA-TF PDUs: each by itself, or with `rng` as many together as chance has it."""
    made: list[bytes] = []
    together: list[Pdv] = []
    size = 0
    for fragment in fragments:
        added = len(fragment.content) + _PDV_HEAD.size
        if together and (rng is None or size + added > longest or rng.random() < 0.3):
            made.append(p_data(*together))
            together, size = [], 0
        together.append(fragment)
        size += added
    return [*made, p_data(*together)] if together else made


class Speaker:
    """One association. It says what it is told to say, and reads what comes back."""

    def __init__(
        self,
        port: int,
        contexts: Sequence[Context],
        *,
        calling: str = "CT1",
        called: str = "NODE",
        host: str = "127.0.0.1",
        max_length: int = 16384,
    ) -> None:
        self.connection = socket.create_connection((host, port), timeout=_ANSWERS_WITHIN_S)
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connection.sendall(
            associate_rq(contexts, calling=calling, called=called, max_length=max_length)
        )
        kind, body = self.receive()
        if kind != ASSOCIATE_AC:
            self.connection.close()
            raise ConnectionRefusedError(f"PDU of type {kind}: {body.hex()}")
        self.granted, self.longest = accepted(body)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self.connection.close()

    def send(self, content: bytes) -> None:
        """Send bytes as they are."""
        self.connection.sendall(content)

    def trickle(self, content: bytes, *, rng: random.Random) -> None:
        """Send bytes a few at a time: each in a segment of its own, as far as TCP has it."""
        at = 0
        while at < len(content):
            length = rng.choice((1, 2, 3, 5, 8, 100, 4096))
            self.connection.sendall(content[at : at + length])
            at += length

    def receive(self) -> tuple[int, bytes]:
        """The type and the body of the next PDU; type 0 where the connection has ended."""
        head = self._exactly(_HEAD.size)
        if len(head) < _HEAD.size:
            return 0, b""
        kind, length = _HEAD.unpack(head)
        return int(kind), self._exactly(length)

    def _exactly(self, length: int) -> bytes:
        content = bytearray()
        while len(content) < length:
            try:
                more = self.connection.recv(length - len(content))
            except ConnectionResetError:
                break
            if not more:
                break
            content += more
        return bytes(content)

    def answer(self) -> dict[int, bytes]:
        """The next command set that comes.

        Raises:
            ConnectionAbortedError: Something else came, or nothing.
        """
        content = b""
        while True:
            kind, body = self.receive()
            if kind != P_DATA_TF:
                raise ConnectionAbortedError(f"PDU of type {kind}")
            for value in values(body):
                content += value.content
                if value.is_last:
                    return parsed(content)

    def message(
        self,
        context_id: int,
        elements: Command,
        dataset: bytes | None = None,
        *,
        longest: int | None = None,
        rng: random.Random | None = None,
    ) -> list[bytes]:
        """The PDUs of one message; with `rng` cut where nobody else would."""
        limit = min(longest or self.longest, self.longest)
        said = fragments(
            command(elements), context_id=context_id, is_command=True, longest=limit, rng=rng
        )
        if dataset is not None:
            said += fragments(dataset, context_id=context_id, longest=limit, rng=rng)
        return packed(said, longest=limit, rng=rng)

    def store(
        self,
        context: Context,
        sop_instance_uid: str,
        dataset: bytes,
        *,
        message_id: int = 1,
        longest: int | None = None,
        rng: random.Random | None = None,
    ) -> dict[int, bytes]:
        """Send an instance; returns the elements of the C-STORE-RSP."""
        request = c_store_rq(context.abstract_syntax, sop_instance_uid, message_id=message_id)
        for said in self.message(context.id, request, dataset, longest=longest, rng=rng):
            self.send(said)
        return self.answer()

    def echo(self, context_id: int, *, message_id: int = 1) -> dict[int, bytes]:
        """Ask whether somebody is there; returns the elements of the C-ECHO-RSP."""
        for said in self.message(context_id, c_echo_rq(message_id=message_id)):
            self.send(said)
        return self.answer()

    def release(self) -> bool:
        """End the association in order; returns whether the other side agreed."""
        self.send(RELEASE)
        agreed = self.receive()[0] == RELEASE_RP
        self.connection.close()
        return agreed
