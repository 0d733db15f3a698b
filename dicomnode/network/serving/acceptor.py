"""The receiver: listens, admits peers, keeps what they send, and reports each fact in order."""

from __future__ import annotations

import socket
import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from pydicom import Dataset
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.events import Event, EventHandlerType
from pynetdicom.transport import RequestHandler

from dicomnode import log, status
from dicomnode.archive.arrival import Arrival
from dicomnode.archive.disk.files import FileStore
from dicomnode.errors import Misconfigured, Refused
from dicomnode.network import association, connection
from dicomnode.network.association import Admission, PeerEntry
from dicomnode.network.commitment import message as commitment_message
from dicomnode.network.commitment.service import Commitment
from dicomnode.network.connection import PromptSocket
from dicomnode.network.serving import listener, storage
from dicomnode.network.serving.listener import ListenEntry, Server, Sockets
from dicomnode.network.serving.places import Places
from dicomnode.network.serving.reception import Desk, Reception
from dicomnode.network.serving.stock import StockConversation
from dicomnode.network.serving.storage import Gate, OpenGate, Shelf
from dicomnode.network.serving.streaming import Conversation
from dicomnode.network.tls import Certificates

_log = log.get(__name__)

_POLL_S = 0.1
_GRACE_S = 5.0
_ABORT_S = 2.0
_GIB = 1024**3
# Connections that may have no association yet: that wait for a handshake, or to be told to wait.
_WAITING = 128


class _Open(Protocol):
    """A connection that is being served."""

    def abort(self) -> None:
        """End it, from any thread."""

    def cut(self) -> None:
        """Hang up, from any thread."""


@dataclass(frozen=True, kw_only=True)
class _Terms:
    """What holds for an association that begins now; one that is open keeps what it began with.

    Attributes:
        desk: Where what it brings goes.
        commitment, certificates: `None` where there are none.
    """

    listen: ListenEntry
    admission: Admission
    desk: Desk
    commitment: Commitment | None
    certificates: Certificates | None


class Acceptor:
    """Receives DICOM objects on one port, or on two where associations over TLS are taken too.

    For each association it reports `Opened`, then `Stored` and `TurnedAway` in the order of the
    requests, then exactly one `Ended`. The status of a `TurnedAway` is the DIMSE status, or for a
    whole association the result, source and reason of its A-ASSOCIATE-RJ (PS3.8 Table 9-21), one
    byte each.

    `report` is called from the threads of the associations. It has to return soon and not to raise:
    what it does not take is not acknowledged.
    """

    def __init__(
        self,
        *,
        listen: ListenEntry,
        node_ae_title: str,
        peers: Mapping[str, PeerEntry],
        store: FileStore,
        report: Callable[[Arrival], None],
        clock: Callable[[], float],
        places: Places,
        sockets: Sockets,
        gate: Gate | None = None,
        commitment: Commitment | None = None,
        certificates: Certificates | None = None,
        new_association_id: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:
        self._terms = _Terms(
            listen=listen,
            admission=_admission(node_ae_title, peers, listen),
            desk=Desk(
                shelf=Shelf(store=store, gate=gate or OpenGate(), longest=_longest(listen)),
                report=report,
                clock=clock,
                new_association_id=new_association_id,
            ),
            commitment=commitment,
            certificates=certificates,
        )
        self._places = places
        self._sockets = sockets
        self._receptions: WeakKeyDictionary[Association, Reception] = WeakKeyDictionary()
        self._open: set[_Open] = set()
        self._is_stopping = False
        self._changed = threading.Condition()
        self._servers: list[Server] = []

    def change(
        self,
        *,
        listen: ListenEntry,
        peers: Mapping[str, PeerEntry],
        commitment: Commitment | None,
        certificates: Certificates | None,
    ) -> None:
        """Let other terms hold for the associations that begin from now on.

        The reactor, the longest PDU and the sockets stay as they are.
        """
        old = self._terms
        shelf = replace(old.desk.shelf, longest=_longest(listen))
        self._terms = _Terms(
            listen=listen,
            admission=_admission(old.admission.ae_title, peers, listen),
            desk=replace(old.desk, shelf=shelf),
            commitment=commitment,
            certificates=certificates,
        )
        for server in self._servers:
            server.most_connections = listen.max_associations + _WAITING
            server.ae.network_timeout = listen.idle_s

    def start(self) -> None:
        """Take up connections, on sockets that listen already."""
        self._servers.append(self._server(self._sockets.plain, take_up=self._take_up))
        if self._sockets.secure is not None:
            self._servers.append(self._server(self._sockets.secure, take_up=self._take_up_secure))
        for server in self._servers:
            threading.Thread(
                target=server.serve_forever, args=[_POLL_S], name="acceptor", daemon=True
            ).start()

    def stop(self, *, grace_s: float = _GRACE_S) -> None:
        """Accept no more, let the open associations end, and after `grace_s` abort them.

        When it returns, each of them has been reported as ended.
        """
        for server in self._servers:
            server.shutdown()
        with self._changed:
            self._is_stopping = True
        if self._wait_until_none_is_open(grace_s):
            return
        for one in self._still_open():
            one.abort()
        if self._wait_until_none_is_open(_ABORT_S):
            return
        for one in self._still_open():
            one.cut()
        if not self._wait_until_none_is_open(_ABORT_S):
            _log.error("associations do not end", count=len(self._still_open()))

    def _still_open(self) -> list[_Open]:
        with self._changed:
            return list(self._open)

    def _wait_until_none_is_open(self, limit_s: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: not self._open, limit_s)

    def _server(
        self, listening: socket.socket, *, take_up: Callable[[RequestHandler], None]
    ) -> Server:
        terms = self._terms
        return Server.on(
            listening,
            ae=listener.application_entity(terms.admission.ae_title, terms.listen),
            # What the streaming conversation supports it looks up by itself.
            contexts=association.accepted_contexts() if terms.listen.reactor == "stock" else [],
            events=self._handlers(),
            take_up=take_up,
            most_connections=terms.listen.max_associations + _WAITING,
        )

    def _handlers(self) -> list[EventHandlerType]:
        return [
            (evt.EVT_REQUESTED, self._on_requested),
            (evt.EVT_ACCEPTED, self._on_accepted),
            (evt.EVT_N_ACTION, self._on_action),
            (evt.EVT_N_EVENT_REPORT, self._on_event_report),
        ]

    def _take_up(self, handler: RequestHandler) -> None:
        """Serve a connection, in its own thread, to its end."""
        listen = self._terms.listen
        if listen.reactor == "stock" and type(handler.request) is socket.socket:
            handler.request = PromptSocket.taking_over(handler.request)
        assoc = handler._create_association()  # noqa: SLF001 - pynetdicom's own seam for handlers
        conversation = self._conversation(assoc, handler.request)
        with self._changed:
            if self._is_stopping:  # it was taken up in the last moment
                return
            self._open.add(conversation)
        try:
            conversation.run(acse_s=listener.ACSE_S, idle_s=listen.idle_s)
        finally:
            reception = self._receptions.pop(assoc, None)
            if reception is not None:
                self._places.give_back(reception.peer)
            with self._changed:
                self._open.discard(conversation)
                self._changed.notify_all()

    def _conversation(
        self, assoc: Association, sock: socket.socket
    ) -> Conversation | StockConversation:
        listen = self._terms.listen
        if listen.reactor == "stock":
            return StockConversation(assoc, reception_of=self._receptions.get)
        return Conversation(
            assoc,
            sock,
            reception_of=self._receptions.get,
            longest_pdu=listen.max_pdu_kib * 1024,
        )

    def _take_up_secure(self, handler: RequestHandler) -> None:
        terms = self._terms
        if terms.certificates is None:
            raise RuntimeError("a secure socket without certificates")
        try:
            secured = connection.secured(
                handler.request, terms.certificates.server(), timeout_s=listener.ACSE_S
            )
        except (OSError, Misconfigured) as error:  # ssl.SSLError is an OSError
            address = handler.client_address[0]
            terms.desk.turn_away(_no_tls(address, error), address=address)
            return
        if secured is None:  # as on the plain port: who asks for nothing is not turned away
            return
        handler.request = secured
        self._take_up(handler)

    def _on_requested(self, event: Event) -> None:
        """Decide on an association; whatever goes wrong here, it is not accepted."""
        assoc, terms = event.assoc, self._terms
        try:
            peer = _admit(assoc, terms.admission)
            self._places.take(peer)
            self._receptions[assoc] = Reception(desk=terms.desk, peer=peer)
        except Refused as named:
            refusal = named
        except Exception:  # noqa: BLE001 - the edge: what nobody named is not let in
            _log.exception("association failed unexpectedly")
            refusal = storage.unexpected(association.REJECTED_FOR_NOW)
        else:
            return
        request: Any = assoc.requestor.primitive
        try:
            terms.desk.turn_away(
                refusal,
                calling_ae_title=str(request.calling_ae_title).strip(),
                address=_address(assoc),
            )
        finally:
            # pynetdicom goes on after whatever is raised here: who is not told no would be let in.
            _reject(assoc, refusal)

    def _on_accepted(self, event: Event) -> None:
        self._receptions[event.assoc].opened(
            calling_ae_title=event.assoc.requestor.ae_title.strip(), address=_address(event.assoc)
        )

    def _on_action(self, event: Event) -> tuple[int, Dataset | None]:
        """Answer a request for storage commitment (PS3.4 J.3.2)."""
        request: Any = event.request
        fault = commitment_message.misdirected(
            sop_class_uid=str(request.RequestedSOPClassUID),
            sop_instance_uid=str(request.RequestedSOPInstanceUID),
            action_type_id=request.ActionTypeID,
        )
        if fault:
            return fault, None
        commitment = self._terms.commitment
        if commitment is None:
            return status.PROCESSING_FAILURE, None
        reception = self._receptions[event.assoc]
        asked = commitment.asked(
            peer=reception.peer,
            calling_ae_title=event.assoc.requestor.ae_title.strip(),
            information=event.action_information,
        )
        if asked.report is not None:
            reception.reports.append(asked.report)
        return asked.status, None

    def _on_event_report(self, event: Event) -> tuple[int, Dataset | None]:
        """Take what a destination says of the objects that it was asked for (PS3.4 J.3.3)."""
        request: Any = event.request
        fault = commitment_message.misdirected(
            sop_class_uid=str(request.AffectedSOPClassUID),
            sop_instance_uid=str(request.AffectedSOPInstanceUID),
        )
        if fault:
            return fault, None
        commitment = self._terms.commitment
        if commitment is None:
            return status.PROCESSING_FAILURE, None
        said = commitment.reported(
            peer=self._receptions[event.assoc].peer,
            event_type_id=request.EventTypeID,
            information=event.event_information,
        )
        return said, None


def _admission(ae_title: str, peers: Mapping[str, PeerEntry], listen: ListenEntry) -> Admission:
    return Admission(
        ae_title=ae_title, peers=peers, accept_unknown_peers=listen.accept_unknown_peers
    )


def _longest(listen: ListenEntry) -> int:
    """The longest instance that is taken, in bytes."""
    return int(listen.max_instance_gib * _GIB)


def _admit(assoc: Association, admission: Admission) -> str:
    request: Any = assoc.requestor.primitive
    association.require_dicom(
        str(request.application_context_name or ""),
        # pynetdicom itself turns other versions away, and does not hand them on.
        protocol_version=getattr(request, "protocol_version", 1),
    )
    return admission.admit(
        calling_ae_title=request.calling_ae_title,
        called_ae_title=request.called_ae_title,
        address=_address(assoc),
    )


def _address(assoc: Association) -> str:
    remote: Any = assoc.requestor.address_info
    return str(remote.address)


def _no_tls(address: str, error: OSError | Misconfigured) -> Refused:
    why = error.reason if hasattr(error, "reason") else type(error).__name__
    return Refused(
        "tls-handshake-failed",
        f"{address} did not get through the TLS handshake: {why}.",
        status=association.REJECTED_FOR_NOW,
    )


def _reject(assoc: Association, refusal: Refused) -> None:
    """Send an A-ASSOCIATE-RJ; returns when it is out."""
    assoc.acse.send_reject(*association.rejection(refusal.status))
    assoc.kill()
