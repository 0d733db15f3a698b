"""Command sets as bytes: what a C-STORE-RQ says, and the C-STORE-RSP to it (PS3.7 6.3, 9.3.1)."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from pydicom.datadict import tag_for_keyword

from dicomnode.network.serving.wire import COMMAND, LAST, P_DATA_TF, AbortReason, ProtocolFault

C_STORE_RQ = 0x0001
_C_STORE_RSP = 0x8001
_NO_DATA_SET = 0x0101  # Command Data Set Type (0000,0800)

# Element numbers in group 0000, PS3.7 Annex E.
_GROUP_LENGTH, _SOP_CLASS, _FIELD, _MESSAGE_ID = 0x0000, 0x0002, 0x0100, 0x0110
_RESPONDED_TO, _DATA_SET_TYPE, _STATUS = 0x0120, 0x0800, 0x0900
_OFFENDING_ELEMENT, _ERROR_COMMENT, _SOP_INSTANCE = 0x0901, 0x0902, 0x1000

_LONGEST_UID = 64  # PS3.5 9.1; what is longer is refused, and not sent back at its length

_HEAD = struct.Struct("<HHL")
_US = struct.Struct("<H")
_UL = struct.Struct("<L")
_PDU_HEADER = struct.Struct(">BxLLBB")


@dataclass(frozen=True, kw_only=True, slots=True)
class Command:
    """The elements of a command set that matter for what follows it.

    Attributes:
        field: Command Field (0000,0100), or `None` where there is none.
        message_id: Message ID (0000,0110); 0 where there is none.
        sop_class_uid: As it was sent, padding included, so that it can be sent back, but no more
            of it than a UID has; likewise `sop_instance_uid`.
    """

    field: int | None
    message_id: int
    has_data_set: bool
    sop_class_uid: bytes
    sop_instance_uid: bytes


def parse(encoded: bytes) -> Command:
    """Read a command set: Implicit VR Little Endian always (PS3.7 6.3.1).

    Raises:
        ProtocolFault: It ends within an element, or holds one of another group.
    """
    elements: dict[int, bytes] = {}
    start, end = 0, len(encoded)
    while start < end:
        if end - start < _HEAD.size:
            raise _broken()
        group, number, length = _HEAD.unpack_from(encoded, start)
        start += _HEAD.size
        if group or length > end - start:
            raise _broken()
        elements[number] = encoded[start : start + length]
        start += length
    return Command(
        field=_number(elements, _FIELD),
        message_id=_number(elements, _MESSAGE_ID) or 0,
        has_data_set=_number(elements, _DATA_SET_TYPE) != _NO_DATA_SET,
        sop_class_uid=elements.get(_SOP_CLASS, b"")[:_LONGEST_UID],
        sop_instance_uid=elements.get(_SOP_INSTANCE, b"")[:_LONGEST_UID],
    )


def _number(elements: Mapping[int, bytes], number: int) -> int | None:
    value = elements.get(number, b"")
    return int(_US.unpack(value)[0]) if len(value) == _US.size else None


def _broken() -> ProtocolFault:
    return ProtocolFault("A command set does not read.", AbortReason.INVALID_PARAMETER)


def text(uid: bytes) -> str:
    """A UID as text, without its padding. What is no ASCII is left to whoever compares it."""
    return uid.rstrip(b"\0 ").decode("ascii", "replace")


def store_response(
    request: Command, *, context_id: int, status: int, comment: str = "", element: str = ""
) -> bytes:
    """The C-STORE-RSP to a request, as one P-DATA-TF (PS3.7 9.3.1.2; C.5 for the last two).

    Args:
        request: What is answered.
        context_id: Of the request.
        status: Status (0000,0900).
        comment: Error Comment (0000,0902): LO, ASCII; none where it is empty.
        element: Keyword for Offending Element (0000,0901); none where it is empty.
    """
    elements = [
        _element(_SOP_CLASS, request.sop_class_uid),
        _element(_FIELD, _US.pack(_C_STORE_RSP)),
        _element(_RESPONDED_TO, _US.pack(request.message_id)),
        _element(_DATA_SET_TYPE, _US.pack(_NO_DATA_SET)),
        _element(_STATUS, _US.pack(status)),
    ]
    tag = tag_for_keyword(element) if element else None
    if tag is not None:
        elements.append(_element(_OFFENDING_ELEMENT, struct.pack("<HH", tag >> 16, tag & 0xFFFF)))
    if comment:
        elements.append(_element(_ERROR_COMMENT, comment.encode("ascii", "replace"), padding=b" "))
    elements.append(_element(_SOP_INSTANCE, request.sop_instance_uid))
    return _message(b"".join(elements), context_id=context_id)


def _element(number: int, value: bytes, *, padding: bytes = b"\0") -> bytes:
    if len(value) % 2:
        value += padding
    return _HEAD.pack(0, number, len(value)) + value


def _message(elements: bytes, *, context_id: int) -> bytes:
    command_set = _element(_GROUP_LENGTH, _UL.pack(len(elements))) + elements
    length = len(command_set) + 2
    return _PDU_HEADER.pack(P_DATA_TF, length + 4, length, context_id, COMMAND | LAST) + command_set
