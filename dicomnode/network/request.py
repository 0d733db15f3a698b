"""The associations that the node asks for: opened, used, released, or named in their failure."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.events import Event
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.presentation import PresentationContext

from dicomnode.archive.files import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicomnode.errors import Misconfigured, RetryLater
from dicomnode.network import association, connection

MAX_CONTEXTS = 128  # PS3.8 7.1.1.13: their ids are the odd numbers up to 255

_CONNECT_S = 10.0
_ACSE_S = 30.0
# From the first byte of a message to its answer: a large object over a slow line takes its time.
_ANSWER_S = 600.0

# Source and reason of an A-ASSOCIATE-RJ (PS3.8 Table 9-21) → what to call it and what to do.
_REJECTIONS = {
    (1, 3): ("calling-ae-title-not-recognized", "it does not know {calling}. Make it known there"),
    (1, 7): ("called-ae-title-not-recognized", "it is not {called}. Correct its ae_title"),
    (3, 1): ("peer-busy", "it is busy"),
    (3, 2): ("peer-busy", "it has no association left"),
}


@dataclass(frozen=True, kw_only=True)
class Destination:
    """Where to send."""

    ae_title: str
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.ae_title}@{self.host}:{self.port}"


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long a peer is waited for (seconds).

    Attributes:
        connect_s: For the connection.
        acse_s: For answers about the association itself.
        answer_s: For the answer to a message, its sending included.
    """

    connect_s: float = _CONNECT_S
    acse_s: float = _ACSE_S
    answer_s: float = _ANSWER_S


@contextlib.contextmanager
def requested(
    to: Destination,
    *,
    calling_ae_title: str,
    contexts: Sequence[PresentationContext],
    patience: Patience | None = None,
) -> Iterator[Association]:
    """An association with `to`, released when the block is left, aborted when it fails.

    Where the peer takes none of `contexts` the association is over before it began: it has no
    accepted contexts then, and nothing can be sent on it.

    Raises:
        RetryLater: `peer-unreachable`, `calling-ae-title-not-recognized`,
            `called-ae-title-not-recognized`, `peer-busy`, `association-rejected` or
            `association-aborted`.
    """
    connected = threading.Event()
    assoc = _associate(to, calling_ae_title, contexts, patience or Patience(), connected)
    if not connected.is_set():
        raise _unreachable(to)
    if not assoc.is_established and not assoc.rejected_contexts:
        raise _failure(assoc, to, calling_ae_title)
    try:
        yield assoc
    except BaseException:
        if assoc.is_established:
            assoc.abort()
        raise
    if assoc.is_established:
        assoc.release()


def _associate(
    to: Destination,
    calling_ae_title: str,
    contexts: Sequence[PresentationContext],
    patience: Patience,
    connected: threading.Event,
) -> Association:
    ae = AE()
    ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    ae.connection_timeout = patience.connect_s
    ae.acse_timeout = patience.acse_s
    ae.dimse_timeout = ae.network_timeout = patience.answer_s
    try:
        ae.ae_title = calling_ae_title
        return ae.associate(
            to.host,
            to.port,
            contexts=list(contexts),
            ae_title=to.ae_title,
            max_pdu=association.MAX_PDU_LENGTH,
            evt_handlers=[(evt.EVT_CONN_OPEN, _on_connected, [patience.answer_s, connected])],
        )
    except OSError as error:  # its name does not resolve
        raise _unreachable(to) from error
    except (TypeError, ValueError) as error:
        raise Misconfigured(
            "bad-ae-title", f"{calling_ae_title!r} or {to.ae_title!r} is no AE title: {error}."
        ) from error


def _on_connected(event: Event, timeout_s: float, connected: threading.Event) -> None:
    connection.set_up(event.assoc, timeout_s=timeout_s)
    connected.set()


def _failure(assoc: Association, to: Destination, calling_ae_title: str) -> RetryLater:
    reply = assoc.acceptor.primitive
    if assoc.is_rejected and isinstance(reply, A_ASSOCIATE):
        return _rejected(reply, to, calling_ae_title)
    return RetryLater(
        "association-aborted",
        f"{to} took the connection and no association. Is it a DICOM node?",
    )


def _rejected(reply: A_ASSOCIATE, to: Destination, calling_ae_title: str) -> RetryLater:
    reason, why = _REJECTIONS.get(
        (reply.result_source or 0, reply.diagnostic or 0),
        ("association-rejected", "it gives no reason"),
    )
    why = why.format(calling=calling_ae_title, called=to.ae_title)
    return RetryLater(reason, f"{to} rejected the association: {why}.")


def _unreachable(to: Destination) -> RetryLater:
    return RetryLater(
        "peer-unreachable", f"Nothing answers at {to}. Is it running, and are host and port right?"
    )
