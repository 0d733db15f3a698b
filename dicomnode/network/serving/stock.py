"""An association served by pynetdicom's own threads: slower, and a way out."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from pydicom import Dataset
from pydicom.datadict import tag_for_keyword
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.events import Event
from pynetdicom.pdu import A_ABORT_RQ

from dicomnode import log, status
from dicomnode.archive.arrival import End
from dicomnode.errors import Refused, RetryLater
from dicomnode.network import checkpoint, connection
from dicomnode.network.commitment import message as commitment_message
from dicomnode.network.commitment.service import Report
from dicomnode.network.serving import storage
from dicomnode.network.serving.reception import Reception
from dicomnode.network.serving.storage import StoreRequest

_log = log.get(__name__)


class StockConversation:
    """One association, from its request to its end."""

    def __init__(
        self, assoc: Association, *, reception_of: Callable[[Association], Reception | None]
    ) -> None:
        """Take over an association whose threads have not been started.

        Args:
            assoc: With its handlers bound: that for the request decides who may come.
            reception_of: Gives the reception of an association that was admitted.
        """
        self._assoc = assoc
        self._reception_of = reception_of
        self._end = End.LOST

    def run(self, *, acse_s: float, idle_s: float) -> None:
        """Serve it until it is over.

        Args:
            acse_s: How long its request is waited for, in seconds.
            idle_s: How long the peer may be silent afterwards, and a read may take.
        """
        assoc = self._assoc
        assoc.acse_timeout, assoc.network_timeout = acse_s, idle_s
        connection.set_up(assoc, timeout_s=idle_s)
        checkpoint.install(assoc)
        assoc.bind(evt.EVT_PDU_RECV, self._on_pdu_received)
        assoc.bind(evt.EVT_PDU_SENT, self._on_pdu_sent)
        assoc.bind(evt.EVT_C_STORE, self._on_store)
        assoc.bind(evt.EVT_DIMSE_SENT, self._on_answered)
        assoc.start()
        # Its end can be told once its threads are over: nothing can come after that.
        assoc.join()
        reception = self._reception_of(assoc)
        if reception is not None:
            reception.ended(self._how_it_ended())

    def _how_it_ended(self) -> End:
        if not self._assoc.is_released:
            return self._end
        # Who lets go in the middle of a message has not said all that he wanted.
        return End.RELEASED if self._assoc.dimse.message is None else End.ABORTED

    def abort(self) -> None:
        """Abort it, or hang up on a peer that has not asked for one yet."""
        if self._assoc.is_established:
            self._assoc.abort(block=False)
        else:
            self.cut()

    def cut(self) -> None:
        """Hang up."""
        connection.cut(self._assoc)

    def _on_pdu_received(self, event: Event) -> None:
        if isinstance(event.pdu, A_ABORT_RQ):
            self._end = End.ABORTED

    def _on_pdu_sent(self, event: Event) -> None:
        if isinstance(event.pdu, A_ABORT_RQ):
            # After a timeout we abort ourselves; it is the peer that is lost.
            is_idle = event.assoc.dul.idle_timer_expired()
            self._end = End.LOST if is_idle else End.ABORTED

    def _on_store(self, event: Event) -> Dataset | int:
        """Answer a C-STORE-RQ: success when the instance is safe, otherwise why it is not."""
        reception = self._reception_of(event.assoc)
        if reception is None:
            return status.PROCESSING_FAILURE
        request, dataset = _store_request(event)
        incoming = reception.begin(request)
        with dataset.getbuffer() as content:
            incoming.write(content)
        refusal = reception.finish(request, incoming)
        return status.SUCCESS if refusal is None else _answer(refusal)

    def _on_answered(self, event: Event) -> None:
        """Say what a service has to say after its answer, from a thread of its own.

        pynetdicom does not receive while it is in a handler.
        """
        reception = self._reception_of(event.assoc)
        if reception is not None and reception.reports:
            reports, reception.reports = reception.reports, []
            threading.Thread(target=self._send_reports, args=[reports], daemon=True).start()

    def _send_reports(self, reports: list[Callable[[], Report]]) -> None:
        for make in reports:
            try:
                report = make()
            except RetryLater as error:  # the peer, which gets no answer, asks again
                _log.warning("no report", detail=error.detail)
                continue
            report.answered(self._send_report(report))

    def _send_report(self, report: Report) -> int | None:
        try:
            response, _ = self._assoc.send_n_event_report(
                report.information,
                report.event_type_id,
                commitment_message.SOP_CLASS,
                commitment_message.SOP_INSTANCE,
            )
        except (RuntimeError, ValueError):  # it is over, or its context is of another kind
            return None
        return int(response.Status) if "Status" in response else None


def _store_request(event: Event) -> tuple[StoreRequest, Any]:
    request: Any = event.request
    return StoreRequest(
        sop_class_uid=str(request.AffectedSOPClassUID),
        sop_instance_uid=str(request.AffectedSOPInstanceUID),
        abstract_syntax_uid=str(event.context.abstract_syntax),
        transfer_syntax_uid=str(event.context.transfer_syntax),
    ), request.DataSet


def _answer(refusal: Refused) -> Dataset:
    """The status elements of a C-STORE-RSP that refuses (PS3.7 C.4 and C.5)."""
    response = Dataset()
    response.Status = refusal.status
    response.ErrorComment = storage.comment(refusal)
    if refusal.element:
        response.OffendingElement = tag_for_keyword(refusal.element)
    return response
