"""The message that is being received: a C-STORE goes to disk, any other one to pynetdicom."""

from __future__ import annotations

import io
from typing import Any

from pydicom.uid import UID
from pynetdicom.association import Association
from pynetdicom.dimse_messages import DIMSEMessage
from pynetdicom.dimse_primitives import N_EVENT_REPORT
from pynetdicom.dsutils import encode
from pynetdicom.pdu_primitives import P_DATA

from dicomnode import status
from dicomnode.network.commitment import message as commitment_message
from dicomnode.network.commitment.service import Report
from dicomnode.network.serving import command, storage, wire
from dicomnode.network.serving.command import Command
from dicomnode.network.serving.reception import Reception
from dicomnode.network.serving.storage import StoreRequest
from dicomnode.network.serving.wire import AbortReason, ProtocolFault

#: Command sets have a few hundred bytes.
LONGEST_COMMAND = 64 * 1024
# Data sets that are not stored are lists of references: so long is one with 500,000 of them.
_LONGEST_DATA_SET = 64 * 1024 * 1024


class StoreMessage:
    """A C-STORE-RQ, whose data set is written while it comes."""

    def __init__(
        self, context_id: int, request: Command, store: StoreRequest, reception: Reception
    ) -> None:
        self.context_id = context_id
        self._command = request
        self._request = store
        self._reception = reception
        self._incoming = reception.begin(store)

    def write(self, fragment: memoryview) -> None:
        """Take the next fragment of the data set."""
        self._incoming.write(fragment)

    def answer(self) -> bytes:
        """Keep the instance, whose data set is whole; gives the PDU that says what became of it."""
        refusal = self._reception.finish(self._request, self._incoming)
        if refusal is None:
            return command.store_response(
                self._command, context_id=self.context_id, status=status.SUCCESS
            )
        return command.store_response(
            self._command,
            context_id=self.context_id,
            status=refusal.status,
            comment=storage.comment(refusal),
            element=refusal.element,
        )

    def close(self) -> None:
        """The association is over in the middle of it."""
        self._incoming.close()


class OtherMessage:
    """A message that pynetdicom is given once it is whole."""

    def __init__(self, context_id: int, command_set: bytes) -> None:
        self.context_id = context_id
        self._command_set = command_set
        self._data_set = bytearray()

    def write(self, fragment: memoryview) -> None:
        """Take the next fragment of the data set.

        Raises:
            ProtocolFault: It does not end.
        """
        self._data_set += fragment
        if len(self._data_set) > _LONGEST_DATA_SET:
            raise ProtocolFault("A data set that does not end.", AbortReason.INVALID_PARAMETER)

    def decoded(self, assoc: Association) -> Any:
        """All of it as a primitive of pynetdicom's, which serves it.

        Raises:
            Exception: Of any class, where it does not read.
        """
        message = DIMSEMessage()
        if not message.decode_msg(self._primitive(), assoc):
            raise ValueError("it is not whole")
        return message.message_to_primitive()

    def _primitive(self) -> P_DATA:
        last = wire.LAST.to_bytes(1, "big")
        whole = P_DATA()
        whole.presentation_data_value_list = [
            [self.context_id, bytes([wire.COMMAND | wire.LAST]) + self._command_set],  # type: ignore[list-item] # it insists on lists
            [self.context_id, last + self._data_set],  # type: ignore[list-item] # as above
        ]
        return whole

    def close(self) -> None:
        """The association is over in the middle of it."""


Message = StoreMessage | OtherMessage


def event_report(report: Report, *, message_id: int, transfer_syntax_uid: str) -> N_EVENT_REPORT:
    """An N-EVENT-REPORT-RQ for the outcome of a storage commitment (PS3.4 J.3.3)."""
    syntax = UID(transfer_syntax_uid)
    information = encode(
        report.information, syntax.is_implicit_VR, syntax.is_little_endian, syntax.is_deflated
    )
    request = N_EVENT_REPORT()
    request.MessageID = message_id
    request.AffectedSOPClassUID = commitment_message.SOP_CLASS
    request.AffectedSOPInstanceUID = commitment_message.SOP_INSTANCE
    request.EventTypeID = report.event_type_id
    request.EventInformation = io.BytesIO(information or b"")
    return request
