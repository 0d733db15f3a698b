"""Many associations at once that say nothing: asked for, held for a moment, released."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable

from pynetdicom import build_context
from pynetdicom.pdu import A_ASSOCIATE_RQ, A_RELEASE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    A_RELEASE,
    ImplementationClassUIDNotification,
    MaximumLengthNotification,
)

from dicomnode.archive.disk import elements
from dicomnode.archive.disk.files import IMPLEMENTATION_CLASS_UID
from dicomnode.network import association
from dicomnode.network.calling.request import Destination

#: Why some of a crowd are refused by a node that does as it should.
NO_ROOM = "peer-busy"
_APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"  # PS3.7 A.2.1
_VERIFICATION = "1.2.840.10008.1.1"  # PS3.4 A.4
_CONNECT_S = 10.0
_ANSWER_S = 30.0
_LEAST_S = 0.001
_HEAD = struct.Struct(">BxI")  # PS3.8 9.3.1
# Of what is answered to an association no more is of interest.
_LONGEST = 65536

# The first byte of what comes back: PS3.8 9.3.1.
_ACCEPTED, _REJECTED = 0x02, 0x03
_LIMIT_EXCEEDED = association.rejection(association.LOCAL_LIMIT_EXCEEDED)


def gather(
    to: Destination, *, calling_ae_title: str, count: int, hold: Callable[[], object]
) -> Counter[str]:
    """Open `count` associations, one after the other, and keep those that are accepted open.

    Args:
        to: The node; it is called without TLS.
        calling_ae_title: Who calls.
        count: How many.
        hold: Returns when they have been open for long enough.

    Returns:
        Reason → how many were refused for it; "" → how many were accepted.
    """
    request = _request(to, calling_ae_title)
    came: Counter[str] = Counter()
    with contextlib.ExitStack() as open_:
        accepted: list[socket.socket] = []
        for _ in range(count):
            try:
                line = open_.enter_context(
                    socket.create_connection((to.host, to.port), timeout=_CONNECT_S)
                )
                reason = _asked(line, request)
            except OSError:
                reason = "peer-unreachable"
            came[reason] += 1
            if not reason:
                accepted.append(line)
        hold()
        for line in accepted:
            with contextlib.suppress(OSError):
                line.sendall(A_RELEASE_RQ(A_RELEASE()).encode())
        for line in accepted:
            with contextlib.suppress(OSError):
                _received(line)
    return came


def _asked(line: socket.socket, request: bytes) -> str:
    line.settimeout(_ANSWER_S)  # also for the sending
    line.sendall(request)
    kind, body = _received(line)
    if kind == _ACCEPTED:
        return ""
    if kind != _REJECTED:
        return "association-aborted"
    # Result, source and reason stand in the last bytes (PS3.8 Table 9-21).
    return NO_ROOM if tuple(body[1:]) == _LIMIT_EXCEEDED else "association-rejected"


def _received(line: socket.socket) -> tuple[int, bytes]:
    """The type and the body of the next PDU; type 0 where none comes any more.

    Raises:
        OSError: It is not whole in time, however it trickles in.
    """
    until = time.monotonic() + _ANSWER_S
    head = _read(line, _HEAD.size, until=until)
    if len(head) < _HEAD.size:
        return 0, b""
    kind, length = _HEAD.unpack(head)
    return int(kind), _read(line, min(length, _LONGEST), until=until)


def _read(line: socket.socket, count: int, *, until: float) -> bytes:
    content = b""
    while len(content) < count:
        line.settimeout(max(until - time.monotonic(), _LEAST_S))
        piece = line.recv(count - len(content))
        if not piece:
            break
        content += piece
    return content


def _request(to: Destination, calling_ae_title: str) -> bytes:
    asked = A_ASSOCIATE()
    asked.application_context_name = _APPLICATION_CONTEXT
    asked.calling_ae_title, asked.called_ae_title = calling_ae_title, to.ae_title
    context = build_context(_VERIFICATION, [elements.IMPLICIT_VR_LITTLE_ENDIAN])
    context.context_id = 1
    asked.presentation_context_definition_list = [context]
    longest, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    longest.maximum_length_received = association.MAX_PDU_LENGTH
    implementation.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    asked.user_information = [longest, implementation]
    return bytes(A_ASSOCIATE_RQ(asked).encode())
