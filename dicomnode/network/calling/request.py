"""The associations that the node asks for: opened, used, released, or named in their failure."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.events import Event, EventHandlerType
from pynetdicom.pdu_primitives import A_ASSOCIATE, SCP_SCU_RoleSelectionNegotiation
from pynetdicom.presentation import PresentationContext

from dicomnode.archive.disk.files import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicomnode.errors import Misconfigured, RetryLater
from dicomnode.network import association, checkpoint, connection
from dicomnode.network.calling.handshake import Handshake, explained
from dicomnode.network.tls import Certificates, Security

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


class AddressEntry(Protocol):
    """Where the configuration says that an application entity is called."""

    @property
    def ae_title(self) -> str:
        """AE title that it answers to."""

    @property
    def host(self) -> str:
        """Name or address."""

    @property
    def port(self) -> int:
        """TCP port."""

    @property
    def tls(self) -> bool:
        """Whether it is called with TLS."""

    @property
    def tls_name(self) -> str:
        """What its certificate must be issued for; "" where that may be anything."""


@dataclass(frozen=True, kw_only=True)
class Destination:
    """Where to send.

    Attributes:
        security: How it is called with TLS; `None` for a plain connection.
    """

    ae_title: str
    host: str
    port: int
    security: Security | None = None

    def __str__(self) -> str:
        return f"{self.ae_title}@{self.host}:{self.port}"

    @classmethod
    def at(cls, address: AddressEntry, *, certificates: Certificates | None) -> Destination:
        """The destination at an address of the configuration.

        Args:
            address: Where.
            certificates: Needed where that is called with TLS.

        Raises:
            Misconfigured: `no-certificates` where they are needed and not given.
        """
        if address.tls and certificates is None:
            raise Misconfigured("no-certificates", f"{address.ae_title} cannot be called with TLS.")
        security = (
            Security(certificates=certificates, name=address.tls_name)
            if address.tls and certificates is not None
            else None
        )
        return cls(
            ae_title=address.ae_title, host=address.host, port=address.port, security=security
        )


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
    handlers: Sequence[EventHandlerType] = (),
    roles: Sequence[SCP_SCU_RoleSelectionNegotiation] = (),
) -> Iterator[Association]:
    """An association with `to`, released when the block is left, aborted when it fails.

    Where the peer takes none of `contexts` the association is over before it began: it has no
    accepted contexts then, and nothing can be sent on it.

    Args:
        to: The peer.
        calling_ae_title: Our own AE title.
        contexts: What is proposed.
        patience: How long is waited.
        handlers: What is done with what the peer asks of us meanwhile.
        roles: Which of the two sides is to be what for a SOP class, where not as usual (PS3.7
            D.3.3.4).

    Raises:
        RetryLater: `peer-unreachable`, `tls-failed`, `calling-ae-title-not-recognized`,
            `called-ae-title-not-recognized`, `peer-busy`, `association-rejected` or
            `association-aborted`.
        Misconfigured: `bad-ae-title`, or as `Handshake`: `no-ca`, `bad-tls-name`.
    """
    with contextlib.closing(_Attempt(to=to, calling_ae_title=calling_ae_title)) as attempt:
        assoc = attempt.associate(contexts, patience or Patience(), handlers=handlers, roles=roles)
        if not assoc.is_established and not (attempt.is_connected and assoc.rejected_contexts):
            raise attempt.failure(assoc)
        try:
            yield assoc
        except BaseException:
            if assoc.is_established:
                assoc.abort()
            raise
        if assoc.is_established:
            assoc.release()


class _Attempt:
    """One attempt to get an association, and how far it came; to be closed in the end."""

    def __init__(self, *, to: Destination, calling_ae_title: str) -> None:
        self._to = to
        self._calling_ae_title = calling_ae_title
        self._handshake = None if to.security is None else Handshake(to.security)
        self._connected = threading.Event()

    @property
    def is_connected(self) -> bool:
        """Whether there was a connection, secure where it has to be."""
        return self._connected.is_set()

    def associate(
        self,
        contexts: Sequence[PresentationContext],
        patience: Patience,
        *,
        handlers: Sequence[EventHandlerType],
        roles: Sequence[SCP_SCU_RoleSelectionNegotiation],
    ) -> Association:
        """Ask for the association."""
        to = self._to
        ae = AE()
        ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        ae.connection_timeout = patience.connect_s
        ae.acse_timeout = patience.acse_s
        ae.dimse_timeout = ae.network_timeout = patience.answer_s
        on_connected = (evt.EVT_CONN_OPEN, self._on_connected, [patience.answer_s])
        try:
            ae.ae_title = self._calling_ae_title
            return ae.associate(
                to.host,
                to.port,
                contexts=list(contexts),
                ae_title=to.ae_title,
                max_pdu=association.MAX_PDU_LENGTH,
                evt_handlers=[on_connected, *handlers],
                ext_neg=[*roles],
                tls_args=None if self._handshake is None else self._handshake.arguments,
            )
        except OSError as error:  # its name does not resolve
            raise self._unreachable() from error
        except (TypeError, ValueError) as error:
            raise Misconfigured(
                "bad-ae-title",
                f"{self._calling_ae_title!r} or {to.ae_title!r} is no AE title: {error}.",
            ) from error

    def _on_connected(self, event: Event, timeout_s: float) -> None:
        checkpoint.install(event.assoc)
        connection.set_up(event.assoc, timeout_s=timeout_s)
        connection.read_within(event.assoc, timeout_s=timeout_s)
        self._connected.set()

    def failure(self, assoc: Association) -> RetryLater:
        """Why there is no association."""
        to, reply = self._to, assoc.acceptor.primitive or unread(assoc)
        if self._handshake is not None and self._handshake.failure is not None:
            return RetryLater("tls-failed", f"{to} {explained(self._handshake.failure)}.")
        if not self.is_connected:
            return self._unreachable()
        if isinstance(reply, A_ASSOCIATE) and reply.result:
            return _rejected(reply, to, self._calling_ae_title)
        doubt = "Is it a DICOM node?"
        if to.security is not None:
            doubt = "Is it a DICOM node, and does it trust our certificate?"
        return RetryLater(
            "association-aborted", f"{to} took the connection and no association. {doubt}"
        )

    def close(self) -> None:
        """Let go of the connection, which is over."""
        if self._handshake is not None:
            self._handshake.close()

    def _unreachable(self) -> RetryLater:
        return RetryLater(
            "peer-unreachable",
            f"Nothing answers at {self._to}. Is it running, and are host and port right?",
        )


def unread(assoc: Association) -> object | None:
    """The answer, where it came and the connection ended behind it before pynetdicom looked.

    It takes such a connection for one that never was, and leaves the answer in its queue.
    """
    with contextlib.suppress(queue.Empty):
        return assoc.dul.to_user_queue.get(block=False)
    return None


def _rejected(reply: A_ASSOCIATE, to: Destination, calling_ae_title: str) -> RetryLater:
    reason, why = _REJECTIONS.get(
        (reply.result_source or 0, reply.diagnostic or 0),
        ("association-rejected", "it gives no reason"),
    )
    why = why.format(calling=calling_ae_title, called=to.ae_title)
    return RetryLater(reason, f"{to} rejected the association: {why}.")
