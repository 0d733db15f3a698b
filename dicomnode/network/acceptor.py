"""The receive loop: listens, admits peers, keeps what they send, and reports each fact in order."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from pydicom import Dataset
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.events import Event, EventHandlerType
from pynetdicom.pdu import A_ABORT_RQ
from pynetdicom.transport import ThreadedAssociationServer

from dicomnode import log
from dicomnode.archive import status
from dicomnode.archive.arrival import Arrival, End, Ended, Opened, Stored, TurnedAway
from dicomnode.archive.files import FileStore
from dicomnode.archive.header import Identity
from dicomnode.errors import Refused
from dicomnode.network import association, connection, listener, storage
from dicomnode.network.association import Admission, PeerEntry
from dicomnode.network.listener import ListenEntry
from dicomnode.network.storage import StoreRequest

_log = log.get(__name__)

_POLL_S = 0.1
_GRACE_S = 5.0
_ABORT_S = 2.0


@dataclass(kw_only=True)
class _Record:
    """What is known of one association. Its own thread writes it, save for `end`.

    Attributes:
        end: How it ended, should it not be released: lost, until an A-ABORT is seen.
    """

    association: str
    peer: str
    end: End = End.LOST
    stored: int = 0
    refused: int = 0


class Acceptor:
    """Receives DICOM objects on one port.

    For each association it reports `Opened`, then `Stored` and `TurnedAway` in the order of the
    requests, then exactly one `Ended`. `Stored` stands for an instance that this association made
    safe; a repetition of what was safe before is acknowledged and counted, not reported. The status
    of a `TurnedAway` is the DIMSE status, or for a whole association the result, source and reason
    of its A-ASSOCIATE-RJ (PS3.8 Table 9-21), one byte each.

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
        new_association_id: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:
        self._listen = listen
        self._admission = Admission(
            ae_title=node_ae_title,
            peers=peers,
            accept_unknown_peers=listen.accept_unknown_peers,
        )
        self._store = store
        self._report = report
        self._clock = clock
        self._new_association_id = new_association_id
        self._records: WeakKeyDictionary[Association, _Record] = WeakKeyDictionary()
        self._farewells: set[threading.Thread] = set()
        self._server: ThreadedAssociationServer | None = None

    @property
    def port(self) -> int:
        """The port that is listened on."""
        if self._server is None:
            raise RuntimeError("the acceptor has not been started")
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Listen; returns when peers can connect.

        Raises:
            Misconfigured: `cannot-listen` where the address or the port is not to be had.
        """
        server = listener.bound(
            self._listen, ae_title=self._admission.ae_title, handlers=self._handlers()
        )
        self._server = server
        threading.Thread(
            target=server.serve_forever, args=[_POLL_S], name="acceptor", daemon=True
        ).start()

    def stop(self, *, grace_s: float = _GRACE_S) -> None:
        """Accept no more, let the open associations end, and after `grace_s` abort them.

        When it returns, each of them has been reported as ended.
        """
        if self._server is None:
            return
        self._server.shutdown()
        self._wait_for_farewells(grace_s)
        for assoc in self._server.active_associations:
            _abort(assoc)
        self._wait_for_farewells(_ABORT_S)
        for assoc in self._server.active_associations:
            connection.cut(assoc)
        self._wait_for_farewells(_ABORT_S)
        if self._farewells:
            _log.error("associations do not end", count=len(self._farewells))

    def _wait_for_farewells(self, limit_s: float) -> None:
        until = time.monotonic() + limit_s
        for farewell in list(self._farewells):
            farewell.join(max(0.0, until - time.monotonic()))

    def _handlers(self) -> list[EventHandlerType]:
        return [
            (evt.EVT_REQUESTED, self._on_requested),
            (evt.EVT_REJECTED, self._on_rejected),
            (evt.EVT_ACCEPTED, self._on_accepted),
            (evt.EVT_PDU_RECV, self._on_pdu_received),
            (evt.EVT_PDU_SENT, self._on_pdu_sent),
            (evt.EVT_C_STORE, self._on_store),
        ]

    def _on_requested(self, event: Event) -> None:
        """Decide on an association; whatever goes wrong here, it is not accepted."""
        assoc = event.assoc
        try:
            peer = self._admit(assoc)
            self._records[assoc] = _Record(association=self._new_association_id(), peer=peer)
        except Refused as named:
            refusal = named
        except Exception:  # noqa: BLE001 - the edge: what nobody named is not let in
            _log.exception("association failed unexpectedly")
            refusal = _unexpected(association.REJECTED_FOR_NOW)
        else:
            return
        _reject(assoc, refusal)
        self._turned_away(refusal)

    def _admit(self, assoc: Association) -> str:
        request: Any = assoc.requestor.primitive
        return self._admission.admit(
            calling_ae_title=request.calling_ae_title,
            called_ae_title=request.called_ae_title,
            address=_address(assoc),
        )

    def _on_rejected(self, event: Event) -> None:
        """Report what pynetdicom rejects by itself, after we would have accepted."""
        calling = event.assoc.requestor.ae_title.strip()
        self._turned_away(
            Refused(
                "too-many-associations",
                f"{calling} has to wait: {listener.MAX_ASSOCIATIONS} associations are open.",
                status=association.LOCAL_LIMIT_EXCEEDED,
            )
        )

    def _on_accepted(self, event: Event) -> None:
        record = self._records[event.assoc]
        farewell = threading.Thread(
            target=self._say_farewell, args=[event.assoc, record], name=f"farewell {record.peer}"
        )
        self._farewells.add(farewell)
        farewell.start()
        self._report(
            Opened(
                association=record.association,
                peer=record.peer,
                calling_ae_title=event.assoc.requestor.ae_title.strip(),
                address=_address(event.assoc),
                at=self._clock(),
            )
        )

    def _say_farewell(self, assoc: Association, record: _Record) -> None:
        """Report the end once the association's thread is over: nothing can come after that."""
        assoc.join()
        try:
            self._report(
                Ended(
                    association=record.association,
                    end=End.RELEASED if assoc.is_released else record.end,
                    stored=record.stored,
                    refused=record.refused,
                    at=self._clock(),
                )
            )
        finally:
            self._farewells.discard(threading.current_thread())

    def _on_pdu_received(self, event: Event) -> None:
        if isinstance(event.pdu, A_ABORT_RQ) and event.assoc in self._records:
            self._records[event.assoc].end = End.ABORTED

    def _on_pdu_sent(self, event: Event) -> None:
        if isinstance(event.pdu, A_ABORT_RQ) and event.assoc in self._records:
            # After a timeout we abort ourselves; it is the peer that is lost.
            is_idle = event.assoc.dul.idle_timer_expired()
            self._records[event.assoc].end = End.LOST if is_idle else End.ABORTED

    def _on_store(self, event: Event) -> Dataset | int:
        """Answer a C-STORE-RQ: success when the instance is safe, otherwise why it is not."""
        record = self._records[event.assoc]
        request = _store_request(event)
        identity: Identity | None = None
        try:
            identity = storage.identify(request)
            self._keep(request, identity, record)
        except Refused as named:
            refusal = named
        except Exception:  # noqa: BLE001 - the edge: what nobody named is never acknowledged
            _log.exception("instance failed unexpectedly", association=record.association)
            refusal = _unexpected(status.PROCESSING_FAILURE)
        else:
            record.stored += 1
            return status.SUCCESS
        record.refused += 1
        self._turned_away(
            refusal,
            record=record,
            sop_instance_uid=request.sop_instance_uid,
            study_instance_uid=identity.study_instance_uid if identity else "",
        )
        return storage.answer(refusal)

    def _keep(self, request: StoreRequest, identity: Identity, record: _Record) -> None:
        stored = storage.keep(request, identity, store=self._store)
        if stored.is_new:
            self._report(Stored(association=record.association, path=stored.path, at=self._clock()))

    def _turned_away(
        self,
        refusal: Refused,
        *,
        record: _Record | None = None,
        sop_instance_uid: str = "",
        study_instance_uid: str = "",
    ) -> None:
        turned_away = TurnedAway(
            association=record.association if record else "",
            peer=record.peer if record else "",
            reason=refusal.reason,
            detail=refusal.detail,
            status=refusal.status,
            sop_instance_uid=sop_instance_uid,
            study_instance_uid=study_instance_uid,
            at=self._clock(),
        )
        _log.warning(
            "turned away",
            association=turned_away.association,
            peer=turned_away.peer,
            reason=refusal.reason,
            detail=refusal.detail,
        )
        self._report(turned_away)


def _address(assoc: Association) -> str:
    remote: Any = assoc.requestor.address_info
    return str(remote.address)


def _store_request(event: Event) -> StoreRequest:
    request: Any = event.request
    return StoreRequest(
        sop_class_uid=str(request.AffectedSOPClassUID),
        sop_instance_uid=str(request.AffectedSOPInstanceUID),
        abstract_syntax_uid=str(event.context.abstract_syntax),
        transfer_syntax_uid=str(event.context.transfer_syntax),
        dataset=request.DataSet,
    )


def _unexpected(code: int) -> Refused:
    return Refused(
        "unexpected-error", "Something failed in the node; its log says what.", status=code
    )


def _reject(assoc: Association, refusal: Refused) -> None:
    """Send an A-ASSOCIATE-RJ; returns when it is out."""
    assoc.acse.send_reject(*association.rejection(refusal.status))
    assoc.kill()


def _abort(assoc: Association) -> None:
    """Abort an association, or hang up on a peer that has not asked for one yet."""
    if assoc.is_established:
        assoc.abort(block=False)
    else:
        connection.cut(assoc)
