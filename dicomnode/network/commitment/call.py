"""Storage commitment on associations that we ask for: our question, and our answers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import build_context, build_role, evt
from pynetdicom.association import Association
from pynetdicom.events import Event
from pynetdicom.pdu import P_DATA_TF

from dicomnode import status
from dicomnode.archive.commitments import Reference
from dicomnode.errors import Failed, Misconfigured, RetryLater
from dicomnode.network.calling.request import Destination, Patience, requested
from dicomnode.network.commitment import message
from dicomnode.network.commitment.message import SOP_CLASS, SOP_INSTANCE
from dicomnode.network.commitment.service import Report

_SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
# Messages are short here, but a peer may look at every object before it answers.
_PATIENCE = Patience(answer_s=60.0)
# How long the association of a question is kept open: some peers answer there, and at once.
_STAY_S = 3.0
_POLL_S = 0.1

# What a peer says that does not have this service, or not this instance of it (PS3.7 C.5).
_NOT_SUPPORTED = frozenset({0x0112, 0x0117, 0x0118, 0x0122, 0x0123, 0x0211})


def ask(
    to: Destination,
    *,
    calling_ae_title: str,
    transaction_uid: str,
    references: Sequence[Reference],
    reported: Callable[[int, Dataset], int],
    is_answered: Callable[[], bool],
) -> None:
    """Ask a peer to commit itself to objects (N-ACTION), and stay a moment for its answer.

    Args:
        to: The peer.
        calling_ae_title: Our own AE title.
        transaction_uid: Of this question alone.
        references: The objects.
        reported: Takes an answer that comes on this association, its Event Type ID and Event
            Information; returns the status of the N-EVENT-REPORT-RSP.
        is_answered: Whether the answer has come, here or on an association of the peer's.

    Raises:
        RetryLater: The peer cannot be reached or asks to be asked later (`request.requested`,
            `no-answer`, `commitment-busy`).
        Misconfigured: `commitment-not-supported`.
        Failed: `commitment-refused`.
    """
    heard, replied = threading.Event(), threading.Event()

    def on_report(event: Event) -> tuple[int, None]:
        heard.set()
        return _take(event, reported), None

    def on_sent(event: Event) -> None:
        if heard.is_set() and isinstance(event.pdu, P_DATA_TF):
            replied.set()

    with requested(
        to,
        calling_ae_title=calling_ae_title,
        contexts=[build_context(SOP_CLASS, [*_SYNTAXES])],
        patience=_PATIENCE,
        handlers=[(evt.EVT_N_EVENT_REPORT, on_report), (evt.EVT_PDU_SENT, on_sent)],
    ) as assoc:
        if not assoc.accepted_contexts:
            raise _not_supported(to)
        information = message.action_information(transaction_uid, references)
        _require_taken(_status(to, lambda: _ask(assoc, information)), to)
        _stay(assoc, is_answered)
        while heard.is_set() and assoc.is_established and not replied.wait(_POLL_S):
            pass  # our reply comes before our farewell


def _take(event: Event, reported: Callable[[int, Dataset], int]) -> int:
    request: Any = event.request
    wrong = message.misdirected(
        sop_class_uid=str(request.AffectedSOPClassUID),
        sop_instance_uid=str(request.AffectedSOPInstanceUID),
    )
    return wrong or reported(int(request.EventTypeID), event.event_information)


def _ask(assoc: Association, information: Dataset) -> Dataset:
    response, _ = assoc.send_n_action(
        information, message.REQUEST_STORAGE_COMMITMENT, SOP_CLASS, SOP_INSTANCE
    )
    return response


def _status(to: Destination, send: Callable[[], Dataset]) -> int:
    """The status of the answer to what `send` sends."""
    try:
        response = send()
    except (RuntimeError, ValueError) as error:  # the association is gone
        raise _no_answer(to) from error
    if "Status" not in response:
        raise _no_answer(to)
    return int(response.Status)


def _require_taken(code: int, to: Destination) -> None:
    if code in _NOT_SUPPORTED:
        raise _not_supported(to)
    outcome = status.outcome(code)
    said = f"{to} answered 0x{code:04X} when asked to commit itself to the results."
    if outcome == "retry":
        raise RetryLater("commitment-busy", said)
    if outcome == "refused":
        raise Failed("commitment-refused", said)


def _stay(assoc: Association, is_answered: Callable[[], bool]) -> None:
    """Keep the association open till the answer came, the peer ends it, or a moment is over."""
    pause = threading.Event()
    for _ in range(round(_STAY_S / _POLL_S)):
        if is_answered() or not assoc.is_established:
            return
        pause.wait(_POLL_S)


def tell(to: Destination, *, calling_ae_title: str, reports: Iterable[Report]) -> None:
    """Tell a peer what we commit ourselves to (N-EVENT-REPORT), all on one association.

    Each report is told its answer. The first that gets none ends it.

    Raises:
        RetryLater: The peer cannot be reached, or does not answer (`request.requested`,
            `no-answer`), or takes no such messages (`report-not-accepted`).
    """
    with requested(
        to,
        calling_ae_title=calling_ae_title,
        contexts=[build_context(SOP_CLASS, [*_SYNTAXES])],
        patience=_PATIENCE,
        roles=[build_role(SOP_CLASS, scp_role=True)],
    ) as assoc:
        if not assoc.accepted_contexts:
            raise RetryLater(
                "report-not-accepted",
                f"{to} asked for a storage commitment and takes no answer from us in the role of"
                " SCP. Allow it there.",
            )
        for report in reports:
            _tell(assoc, report, to)


def _tell(assoc: Association, report: Report, to: Destination) -> None:
    def send() -> Dataset:
        response, _ = assoc.send_n_event_report(
            report.information, report.event_type_id, SOP_CLASS, SOP_INSTANCE
        )
        return response

    try:
        code = _status(to, send)
    except RetryLater:
        report.answered(None)
        raise
    report.answered(code)


def _not_supported(to: Destination) -> Misconfigured:
    return Misconfigured(
        "commitment-not-supported",
        f"{to} knows no Storage Commitment. Name in the peer's `commitment` who does, or set its"
        ' `confirm` to "find".',
    )


def _no_answer(to: Destination) -> RetryLater:
    return RetryLater("no-answer", f"{to} stopped answering.")
