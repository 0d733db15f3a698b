"""PDUs on a connection, walked in place: no byte is copied that is not kept (PS3.8 9.3)."""

from __future__ import annotations

import math
import mmap
import socket
import struct
import time
from collections.abc import Iterator
from enum import IntEnum

from dicomnode.network import connection

# PDU types, PS3.8 Table 9-11 and following.
ASSOCIATE_RQ, P_DATA_TF, RELEASE_RQ, ABORT = 0x01, 0x04, 0x05, 0x07
_KNOWN = range(0x01, 0x08)

HEADER_LENGTH = 6
_HEADER = struct.Struct(">BxL")
_ITEM_HEADER = struct.Struct(">LBB")

# Message Control Header, PS3.8 Annex E.2.
COMMAND, LAST = 0x01, 0x02

RELEASE_RP = b"\x06\x00\x00\x00\x00\x04\x00\x00\x00\x00"  # PS3.8 9.3.7

# Senders count the header in, or not: the length that was agreed on is not taken by the byte.
_TOLERANCE = 1024
# No limit is agreed on for the others: an A-ASSOCIATE-RQ may propose 128 contexts in 60 encodings.
_LONGEST_OTHER = 512 * 1024
# What is read at once, at most: pages that were never written to cost no memory.
_WINDOW = 256 * 1024


class AbortReason(IntEnum):
    """Why the provider aborts (PS3.8 Table 9-26)."""

    NOT_SPECIFIED = 0
    UNRECOGNIZED_PDU = 1
    UNEXPECTED_PDU = 2
    UNEXPECTED_PARAMETER = 5
    INVALID_PARAMETER = 6


def abort(reason: AbortReason | None) -> bytes:
    """An A-ABORT PDU (PS3.8 9.3.8): by the service provider for `reason`, or by its user."""
    source = 0 if reason is None else 2
    return struct.pack(">BxLxxBB", ABORT, 4, source, reason or 0)


class ProtocolFault(ValueError):
    """What came is not DICOM, or not now.

    Attributes:
        reason: What the A-ABORT says.
    """

    def __init__(self, detail: str, reason: AbortReason) -> None:
        super().__init__(detail)
        self.reason = reason


class Inbox:
    """What comes on a connection, PDU by PDU, in one buffer that is allocated once.

    Before it waits for more of a message it acknowledges what has come of it: see
    `connection.acknowledge`.

    The socket blocks; whoever sets a timeout on it uses the kernel's (SO_RCVTIMEO), which costs no
    call of its own.
    """

    def __init__(self, sock: socket.socket, *, longest_pdu: int) -> None:
        """Take over the reading side of a connection.

        Args:
            sock: Nothing may have been read from it that belongs to us.
            longest_pdu: Bytes that the variable field of a P-DATA-TF may have, as announced.
        """
        self._connection = sock
        self._longest_data = longest_pdu + _TOLERANCE
        longest = max(self._longest_data, _LONGEST_OTHER)
        # Not a bytearray: that would be filled with zeros, and take its memory, at once.
        self._buffer = mmap.mmap(-1, HEADER_LENGTH + longest + _WINDOW)
        self._view = memoryview(self._buffer)
        self._begin = self._end = 0
        self._owes_acknowledgement = False
        self._deadline = math.inf

    def first(self, *, within_s: float) -> tuple[int, memoryview]:
        """The first PDU, as `next`: all of it, however slowly it comes, within so many seconds."""
        self._deadline = time.monotonic() + within_s
        pdu = self.next()
        self._deadline = math.inf
        return pdu

    def answered(self) -> None:
        """Something was sent to the peer: it acknowledges what was read before."""
        self._owes_acknowledgement = False

    def next(self) -> tuple[int, memoryview]:
        """The type of the next PDU and its variable field, which is good until the next call.

        Raises:
            ConnectionError: The peer hung up, perhaps in the middle of a PDU.
            TimeoutError: Nothing came for as long as the socket waits.
            ProtocolFault: No DICOM upper layer speaks like this, or it is too long.
        """
        self._require(HEADER_LENGTH)
        kind, length = _HEADER.unpack_from(self._buffer, self._begin)
        if kind not in _KNOWN:
            raise ProtocolFault("It is no PDU of DICOM.", AbortReason.UNRECOGNIZED_PDU)
        if length > (self._longest_data if kind == P_DATA_TF else _LONGEST_OTHER):
            raise ProtocolFault(
                f"A PDU of {length} bytes is longer than agreed.", AbortReason.INVALID_PARAMETER
            )
        self._require(HEADER_LENGTH + length)
        start = self._begin + HEADER_LENGTH
        self._begin = start + length
        return kind, self._view[start : self._begin]

    def _require(self, length: int) -> None:
        """Read until `length` bytes are there behind what was taken."""
        if self._begin == self._end:
            self._begin = self._end = 0
        elif self._begin + length > len(self._buffer):
            rest = self._end - self._begin
            self._view[:rest] = self._view[self._begin : self._end]
            self._begin, self._end = 0, rest
        while self._end - self._begin < length:
            self._end += self._receive()

    def _receive(self) -> int:
        if time.monotonic() > self._deadline:
            raise TimeoutError
        try:
            if self._owes_acknowledgement:
                connection.acknowledge(self._connection)
            count = self._connection.recv_into(self._view[self._end : self._end + _WINDOW])
        except BlockingIOError as error:
            raise TimeoutError from error
        except TimeoutError:
            raise
        except OSError as error:
            raise ConnectionError from error
        if not count:
            raise ConnectionError
        self._owes_acknowledgement = True
        return count


def values(pdu: memoryview) -> Iterator[tuple[int, int, memoryview]]:
    """The Presentation Data Values in a P-DATA-TF: context id, control header, fragment.

    Raises:
        ProtocolFault: The items do not fill the PDU.
    """
    start, end = 0, len(pdu)
    while start < end:
        if end - start < _ITEM_HEADER.size:
            raise ProtocolFault("A PDV ends in its header.", AbortReason.INVALID_PARAMETER)
        length, context_id, control = _ITEM_HEADER.unpack_from(pdu, start)
        stop = start + 4 + length
        if length < 2 or stop > end:  # noqa: PLR2004 - context id and control header
            raise ProtocolFault("A PDV is not as long as it says.", AbortReason.INVALID_PARAMETER)
        yield context_id, control, pdu[start + 6 : stop]
        start = stop
