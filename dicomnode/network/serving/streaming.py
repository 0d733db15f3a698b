"""An association served by one thread, which owns its socket.

pynetdicom negotiates it and serves what is no C-STORE; it believes to speak through its own upper
layer, whose place `_Wire` takes. The fragments of a C-STORE go from the one buffer of the
connection straight to the file of the instance.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
from collections.abc import Callable, Sequence
from typing import Any

from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_CANCEL, N_EVENT_REPORT
from pynetdicom.pdu import A_ABORT_RQ, A_ASSOCIATE_AC, A_ASSOCIATE_RJ, A_ASSOCIATE_RQ, P_DATA_TF
from pynetdicom.pdu_primitives import A_ABORT, A_ASSOCIATE, A_P_ABORT, P_DATA
from pynetdicom.presentation import PresentationContext

from dicomnode import log
from dicomnode.archive.arrival import End
from dicomnode.errors import RetryLater
from dicomnode.network import association, connection
from dicomnode.network.commitment.service import Report
from dicomnode.network.serving import command, message, wire
from dicomnode.network.serving.message import Message, OtherMessage, StoreMessage
from dicomnode.network.serving.reception import Reception
from dicomnode.network.serving.storage import StoreRequest
from dicomnode.network.serving.wire import AbortReason, Inbox, ProtocolFault

_log = log.get(__name__)


class _Wire:
    """Stands where pynetdicom expects its upper layer: what it is told to send goes out at once."""

    def __init__(self, assoc: Association, sock: socket.socket) -> None:
        self.socket = assoc.dul.socket
        self._connection = sock

    def send_pdu(self, primitive: Any) -> None:
        """Send what a primitive of pynetdicom's stands for."""
        self.send(_pdu(primitive).encode())

    def send(self, encoded: bytes) -> None:
        """Send a PDU.

        Raises:
            ConnectionError: It cannot be sent any more, or the peer does not take it.
        """
        try:
            self._connection.sendall(encoded)
        except OSError as error:
            raise ConnectionError from error

    def is_alive(self) -> bool:
        """There is no thread to wait for."""
        return False

    def stop_dul(self) -> bool:
        """There is no thread to stop."""
        return True

    def peek_next_pdu(self) -> None:
        """Nothing waits here: the conversation takes what comes."""


def _pdu(primitive: Any) -> Any:
    if isinstance(primitive, P_DATA):
        return P_DATA_TF(primitive)
    if isinstance(primitive, A_ASSOCIATE):
        return A_ASSOCIATE_RJ(primitive) if primitive.result else A_ASSOCIATE_AC(primitive)
    if isinstance(primitive, A_ABORT | A_P_ABORT):
        return A_ABORT_RQ(primitive)
    raise TypeError(type(primitive).__name__)


class Conversation:
    """One association, from its request to its end."""

    def __init__(
        self,
        assoc: Association,
        sock: socket.socket,
        *,
        reception_of: Callable[[Association], Reception | None],
        longest_pdu: int,
    ) -> None:
        """Take over an association whose threads have not been started.

        Args:
            assoc: With its handlers bound: that for the request decides who may come.
            sock: The connection; it blocks.
            reception_of: Gives the reception of an association that was admitted.
            longest_pdu: Bytes, as announced.
        """
        self._assoc = assoc
        self._socket = sock
        self._reception_of = reception_of
        self._wire = _Wire(assoc, sock)
        self._inbox = Inbox(sock, longest_pdu=longest_pdu)
        self._contexts: dict[int, tuple[str, str]] = {}
        self._command = bytearray()
        self._message: Message | None = None
        self._reports: dict[int, Report] = {}
        self._message_ids = itertools.count(1)
        self._is_told_to_end = False
        assoc.dul = self._wire  # type: ignore[assignment] # it is all that is asked of one

    def run(self, *, acse_s: float, idle_s: float) -> None:
        """Serve it until it is over.

        Args:
            acse_s: How long its request is waited for, in seconds.
            idle_s: How long the peer may be silent afterwards.
        """
        connection.make_quick(self._socket)
        connection.limit_waiting(self._socket, timeout_s=acse_s)
        end = End.LOST
        try:
            if self._negotiate(acse_s):
                connection.limit_waiting(self._socket, timeout_s=idle_s)
                end = self._serve()
        except ConnectionError:
            pass
        except TimeoutError:
            self._abort(None)
        except ProtocolFault as fault:
            _log.warning("not understood", association=self._name, detail=str(fault))
            self._abort(fault.reason)
            end = End.ABORTED
        except Exception:  # noqa: BLE001 - the edge of the thread: the peer has to hear of it
            _log.exception("association failed unexpectedly", association=self._name)
            self._abort(AbortReason.NOT_SPECIFIED)
            end = End.ABORTED
        finally:
            self._end_all(end)

    def abort(self) -> None:
        """Abort it, or hang up on a peer that has not asked for one yet; `run` returns soon.

        Any thread may call it.
        """
        # Its own thread says the last word: nobody else may write in the middle of an answer.
        self._is_told_to_end = True
        connection.stop_reading(self._socket)

    def cut(self) -> None:
        """Hang up, from any thread."""
        connection.hang_up(self._socket)

    @property
    def _name(self) -> str:
        reception = self._reception_of(self._assoc)
        return reception.association if reception else ""

    def _abort(self, reason: AbortReason | None) -> None:
        with contextlib.suppress(ConnectionError):
            self._wire.send(wire.abort(reason))

    def _end_all(self, end: End) -> None:
        if self._is_told_to_end and end is End.LOST:
            end = End.ABORTED
            if self._assoc.is_established:
                self._abort(None)
        if self._message is not None:
            self._message.close()
        reception = self._reception_of(self._assoc)
        if reception is not None:
            reception.ended(end)
        for report in self._reports.values():
            report.answered(None)

    def _negotiate(self, acse_s: float) -> bool:
        """Let pynetdicom answer the A-ASSOCIATE-RQ; whether there is an association now."""
        kind, pdu = self._inbox.first(within_s=acse_s)
        if kind == wire.ABORT:  # PS3.8 Table 9-10: there is nobody to answer
            return False
        if kind != wire.ASSOCIATE_RQ:
            raise ProtocolFault("It asks for no association.", AbortReason.UNEXPECTED_PDU)
        assoc = self._assoc
        request = _association_request(bytes(pdu))
        assoc.requestor.primitive = request
        evt.trigger(assoc, evt.EVT_REQUESTED, {})
        if self._reception_of(assoc) is None:
            return False
        # Of all that we support, what is asked for: to compare with the rest takes long.
        asked = {str(one.abstract_syntax) for one in _proposed(request)}
        assoc.acceptor.supported_contexts = association.contexts_for(asked)
        try:
            assoc.acse.negotiate_association()
        except ConnectionError:
            raise
        except Exception as error:  # what it trips over in a request has no common class
            raise _unreadable("An A-ASSOCIATE-RQ cannot be negotiated.") from error
        self._contexts = {
            context.context_id: (str(context.abstract_syntax), str(context.transfer_syntax[0]))
            for context in assoc.accepted_contexts
            if context.context_id is not None
        }
        return bool(assoc.is_established)

    def _serve(self) -> End:
        while not self._is_told_to_end:
            kind, pdu = self._inbox.next()
            if kind == wire.P_DATA_TF:
                for context_id, control, fragment in wire.values(pdu):
                    self._take(context_id, control, fragment)
                    if self._assoc.is_aborted:  # by pynetdicom, of what it was passed
                        return End.ABORTED
            elif kind == wire.RELEASE_RQ:
                self._wire.send(wire.RELEASE_RP)
                # Who lets go in the middle of a message has not said all that he wanted.
                return End.ABORTED if self._message or self._command else End.RELEASED
            elif kind == wire.ABORT:
                return End.ABORTED
            else:
                raise ProtocolFault("This PDU has no place here.", AbortReason.UNEXPECTED_PDU)
        return End.LOST

    def _take(self, context_id: int, control: int, fragment: memoryview) -> None:
        if control & wire.COMMAND:
            if self._message is not None:
                raise _misplaced("A command within the data set of another.")
            self._command += fragment
            if len(self._command) > message.LONGEST_COMMAND:
                raise _misplaced("A command set that does not end.")
            if control & wire.LAST:
                encoded, self._command = bytes(self._command), bytearray()
                self._begin(context_id, encoded)
            return
        if self._message is None or context_id != self._message.context_id:
            raise _misplaced("A data set that no command announced.")
        self._message.write(fragment)
        if control & wire.LAST:
            self._end()

    def _begin(self, context_id: int, encoded: bytes) -> None:
        if context_id not in self._contexts:
            raise _misplaced("A message in a context that was not accepted.")
        request = command.parse(encoded)
        if request.field == command.C_STORE_RQ:
            abstract_syntax_uid, transfer_syntax_uid = self._contexts[context_id]
            self._message = StoreMessage(
                context_id,
                request,
                StoreRequest(
                    sop_class_uid=command.text(request.sop_class_uid),
                    sop_instance_uid=command.text(request.sop_instance_uid),
                    abstract_syntax_uid=abstract_syntax_uid,
                    transfer_syntax_uid=transfer_syntax_uid,
                ),
                self._reception,
            )
        else:
            self._message = OtherMessage(context_id, encoded)
        if not request.has_data_set:
            self._end()

    @property
    def _reception(self) -> Reception:
        reception = self._reception_of(self._assoc)
        if reception is None:
            raise RuntimeError("an association that was not admitted")
        return reception

    def _end(self) -> None:
        """The message is whole: answer it."""
        whole, self._message = self._message, None
        if isinstance(whole, StoreMessage):
            self._wire.send(whole.answer())
        elif isinstance(whole, OtherMessage):
            self._pass_on(whole)
        self._inbox.answered()

    def _pass_on(self, whole: OtherMessage) -> None:
        """Let pynetdicom answer what is no C-STORE."""
        assoc = self._assoc
        try:
            received = whole.decoded(assoc)
        except Exception as error:  # what it trips over in a message has no common class
            raise _unreadable("A message does not read.") from error
        if isinstance(received, C_CANCEL):
            return  # of nothing: what is served here is done before anything else is read
        if isinstance(received, N_EVENT_REPORT) and received.is_valid_response:
            self._hear(received)
        elif received.is_valid_request:
            assoc._serve_request(received, whole.context_id)  # noqa: SLF001 - as its own loop does
            self._send_reports(whole.context_id)
        else:
            raise _unreadable("A message lacks what it must have.")

    def _send_reports(self, context_id: int) -> None:
        """Send what a service has to say after its answer (PS3.4 J.3.3)."""
        reception = self._reception
        _, transfer_syntax_uid = self._contexts[context_id]
        while reception.reports:
            try:
                report = reception.reports.pop(0)()
            except RetryLater as error:  # the peer, which gets no answer, asks again
                _log.warning("no report", association=self._name, detail=error.detail)
                continue
            message_id = next(self._message_ids)
            self._reports[message_id] = report
            request = message.event_report(
                report, message_id=message_id, transfer_syntax_uid=transfer_syntax_uid
            )
            self._assoc.dimse.send_msg(request, context_id)

    def _hear(self, answer: N_EVENT_REPORT) -> None:
        report = self._reports.pop(answer.MessageIDBeingRespondedTo or 0, None)
        if report is not None:
            report.answered(answer.Status)


def _misplaced(detail: str) -> ProtocolFault:
    return ProtocolFault(detail, AbortReason.UNEXPECTED_PARAMETER)


def _unreadable(detail: str) -> ProtocolFault:
    return ProtocolFault(detail, AbortReason.INVALID_PARAMETER)


def _association_request(variable_field: bytes) -> A_ASSOCIATE:
    """The request in an A-ASSOCIATE-RQ, as pynetdicom reads it.

    Raises:
        ProtocolFault: It does not read, whatever is wrong with it.
    """
    header = bytes([wire.ASSOCIATE_RQ, 0]) + len(variable_field).to_bytes(4, "big")
    try:
        pdu = A_ASSOCIATE_RQ()
        pdu.decode(header + variable_field)
        request = pdu.to_primitive()
    except Exception as error:  # what its decoder trips over has no common class
        raise _unreadable("An A-ASSOCIATE-RQ does not read.") from error
    # pynetdicom's primitive has no place for it.
    request.protocol_version = pdu.protocol_version  # type: ignore[attr-defined]
    return request


def _proposed(request: A_ASSOCIATE) -> Sequence[PresentationContext]:
    return request.presentation_context_definition_list
