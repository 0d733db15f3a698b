"""Command sets are read and written as pynetdicom does it (PS3.7 6.3, 9.3.1)."""

from __future__ import annotations

from io import BytesIO

import pytest
from pydicom import Dataset
from pynetdicom.dimse_messages import C_STORE_RSP
from pynetdicom.dsutils import decode, encode

from dicomnode import status
from dicomnode.network.serving import command
from dicomnode.network.serving.command import Command
from dicomnode.network.serving.wire import ProtocolFault

CT, UID = "1.2.840.10008.5.1.4.1.1.2", "1.2.3.45"


def command_set(**elements: object) -> bytes:
    ds = Dataset()
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    encoded = encode(ds, is_implicit_vr=True, is_little_endian=True)
    assert encoded is not None
    return encoded


def request(**changes: object) -> bytes:
    return command_set(
        **{
            "CommandGroupLength": 0,
            "AffectedSOPClassUID": CT,
            "CommandField": 0x0001,
            "MessageID": 7,
            "Priority": 0,
            "CommandDataSetType": 1,
            "AffectedSOPInstanceUID": UID,
            **changes,
        }
    )


def test_what_a_request_says_is_found() -> None:
    found = command.parse(request())
    assert found.field == command.C_STORE_RQ
    assert found.message_id == 7
    assert found.has_data_set
    assert command.text(found.sop_class_uid) == CT
    assert command.text(found.sop_instance_uid) == UID


def test_a_command_without_a_data_set_says_so() -> None:
    assert not command.parse(request(CommandDataSetType=0x0101)).has_data_set


def test_what_is_missing_is_missing() -> None:
    found = command.parse(command_set(CommandDataSetType=1))
    assert (found.field, found.message_id, found.sop_class_uid) == (None, 0, b"")


@pytest.mark.parametrize(
    "encoded",
    [b"\0", request()[:-1], request() + b"\x08\0\x05\0\0\0\0\0", b"\0\0\0\1\xff\xff\xff\xff"],
    ids=["too short", "cut", "another group", "too long"],
)
def test_what_is_no_command_set_is_a_fault(encoded: bytes) -> None:
    with pytest.raises(ProtocolFault):
        command.parse(encoded)


def test_bytes_that_are_no_text_do_no_harm() -> None:
    assert command.text(b"1.2\xff\0") == "1.2�"


def answered(response: bytes) -> Dataset:
    """What pynetdicom reads of a response, whose lengths have to be right."""
    assert response[0] == 4
    assert int.from_bytes(response[2:6], "big") == len(response) - 6
    assert int.from_bytes(response[6:10], "big") == len(response) - 10
    assert response[10:12] == b"\x05\x03"
    ds = decode(BytesIO(response[12:]), is_implicit_vr=True, is_little_endian=True)
    assert ds.CommandGroupLength == len(response) - 12 - 12
    return ds


@pytest.mark.parametrize("uid", [UID, UID + "6"])
def test_success_is_answered_as_pynetdicom_would(uid: str) -> None:
    asked = command.parse(request(AffectedSOPInstanceUID=uid))
    ds = answered(command.store_response(asked, context_id=5, status=status.SUCCESS))
    assert ds.AffectedSOPClassUID == CT
    assert ds.CommandField == 0x8001
    assert ds.MessageIDBeingRespondedTo == 7
    assert ds.CommandDataSetType == 0x0101
    assert ds.Status == status.SUCCESS
    assert ds.AffectedSOPInstanceUID == uid
    assert {element.keyword for element in ds} <= {
        element.keyword for element in C_STORE_RSP().command_set
    }


def test_a_refusal_says_why_and_what_is_to_blame() -> None:
    asked = command.parse(request())
    response = command.store_response(
        asked, context_id=5, status=0xA900, comment="blank-uid: of it", element="StudyInstanceUID"
    )
    ds = answered(response)
    assert ds.Status == 0xA900
    assert ds.ErrorComment == "blank-uid: of it"
    assert ds.OffendingElement == 0x0020000D


def test_a_request_without_uids_is_answered_too() -> None:
    asked = Command(
        field=1, message_id=1, has_data_set=False, sop_class_uid=b"", sop_instance_uid=b""
    )
    assert answered(command.store_response(asked, context_id=5, status=0xA900)).Status == 0xA900
