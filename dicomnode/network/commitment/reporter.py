"""Answers to storage commitments → the peers that asked, on associations of ours, until heard."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from dicomnode import log
from dicomnode.archive import commitments
from dicomnode.archive.commitments import Request
from dicomnode.archive.database import Database
from dicomnode.archive.disk.files import FileStore
from dicomnode.errors import NodeError, RetryLater
from dicomnode.network.calling.request import AddressEntry, Destination
from dicomnode.network.commitment import call
from dicomnode.network.commitment.service import Commitments, PeerEntry, Report
from dicomnode.network.tls import Certificates
from dicomnode.pauses import Pauses

_log = log.get(__name__)

_TICK_S = 0.2
_AFTER_FAULT_S = 1.0
_STOP_S = 5.0


@dataclass(frozen=True, kw_only=True)
class _Terms:
    """What a peer is told by.

    Attributes:
        commitments: Makes what there is to say.
        addresses: Peer → where it is called; who is not there asks on an association of its own.
    """

    commitments: Commitments
    addresses: Mapping[str, AddressEntry]
    pauses: Pauses
    certificates: Certificates | None


class CommitmentReporter:
    """Answers the storage commitments of peers that can be called. `start`, then `stop`.

    The rows are the truth: what an earlier life of the node was asked is answered by this one. Each
    peer is told by a thread of its own, so that one that does not answer keeps no other waiting.
    """

    def __init__(
        self,
        database: Database,
        store: FileStore,
        peers: Mapping[str, PeerEntry],
        *,
        calling_ae_title: str,
        pauses: Pauses,
        clock: Callable[[], float],
        certificates: Certificates | None = None,
    ) -> None:
        self._database = database
        self._store = store
        self._calling_ae_title = calling_ae_title
        self._clock = clock
        self.change(peers, pauses=pauses, certificates=certificates)
        self._stop = threading.Event()
        self._tellers: dict[str, threading.Thread] = {}
        self._thread = threading.Thread(target=self._run, name="commitment reports", daemon=True)

    def change(
        self,
        peers: Mapping[str, PeerEntry],
        *,
        pauses: Pauses,
        certificates: Certificates | None = None,
    ) -> None:
        """Tell these peers from now on; any thread may say so."""
        self._terms = _Terms(
            commitments=Commitments(self._database, self._store, peers, clock=self._clock),
            addresses={
                name: peer.commitment_at for name, peer in peers.items() if peer.commitment_at
            },
            pauses=pauses,
            certificates=certificates,
        )

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End. An answer that a peer is just being told may be told again after the next start."""
        self._stop.set()
        until = time.monotonic() + _STOP_S
        if self._thread.ident is not None:
            self._thread.join(_STOP_S)
        for teller in self._tellers.values():
            teller.join(max(0.0, until - time.monotonic()))

    def _run(self) -> None:
        while not self._stop.is_set():
            self._stop.wait(self._step())

    def _step(self) -> float:
        """Let each peer be told that waits; returns how long to wait before the next look."""
        try:
            self._send_tellers()
        except RetryLater as error:
            _log.warning("commitment reports wait", reason=error.reason, detail=error.detail)
            return _AFTER_FAULT_S
        except Exception:  # noqa: BLE001 - the edge of this thread: without it nobody is answered
            _log.exception("commitment reports failed")
            return _AFTER_FAULT_S
        return _TICK_S

    def _send_tellers(self) -> None:
        self._tellers = {name: one for name, one in self._tellers.items() if one.is_alive()}
        terms = self._terms
        free = terms.addresses.keys() - self._tellers.keys()
        with self._database.read() as tx:
            due = commitments.due(tx, free, at=self._clock())
        for peer, request_ids in due.items():
            teller = threading.Thread(
                target=self._tell,
                args=[peer, request_ids, terms],
                name=f"tells {peer}",
                daemon=True,
            )
            self._tellers[peer] = teller
            teller.start()

    def _tell(self, peer: str, request_ids: Sequence[str], terms: _Terms) -> None:
        """Tell one peer all that waits for it; what it does not hear waits on."""
        begun: list[str] = []
        try:
            call.tell(
                Destination.at(terms.addresses[peer], certificates=terms.certificates),
                calling_ae_title=self._calling_ae_title,
                reports=self._reports(request_ids, begun, terms.commitments),
            )
        except NodeError as error:
            self._put_off(peer, request_ids, begun, error)
        except Exception as error:  # noqa: BLE001 - the edge of this thread: not again at once
            _log.exception("commitment report failed unexpectedly", peer=peer)
            unknown = RetryLater("unexpected-error", f"{type(error).__name__}; see the log.")
            self._put_off(peer, request_ids, begun, unknown)

    def _reports(
        self, request_ids: Sequence[str], begun: list[str], made_by: Commitments
    ) -> Iterator[Report]:
        """What to say, made one at a time: looking at the objects of a request takes a while.

        Args:
            request_ids: The requests, in their order.
            begun: Gets those that the peer is being told of.
            made_by: Makes them.
        """
        for request_id in request_ids:
            if self._stop.is_set():
                return
            request = self._request(request_id)
            if request is not None:
                begun.append(request_id)
                yield made_by.report_of(request)

    def _request(self, request_id: str) -> Request | None:
        with self._database.read() as tx:
            return commitments.request(tx, request_id)

    def _put_off(
        self, peer: str, request_ids: Sequence[str], begun: Sequence[str], error: NodeError
    ) -> None:
        """Leave a peer alone for a while.

        Where it could not be reached, each answer waits, the longer the older it is. Where it broke
        off, the answer that it broke off at does, and the others have another turn before it.
        """
        _log.warning(
            "commitment report put off", peer=peer, reason=error.reason, detail=error.detail
        )
        failed = set(begun[-1:] or request_ids)
        try:
            with self._database.write() as tx:
                for request_id in request_ids:
                    self._put_one_off(tx, request_id, in_vain=request_id in failed)
        except RetryLater as fault:  # nothing else is told either, meanwhile
            _log.error("commitment report not put off", peer=peer, detail=fault.detail)

    def _put_one_off(self, tx: Connection, request_id: str, *, in_vain: bool) -> None:
        request = commitments.request(tx, request_id)
        if request is None:  # the peer has heard this one
            return
        pause_s = self._terms.pauses.after(1 + request.attempts if in_vain else 1)
        commitments.put_off(tx, request, not_before=self._clock() + pause_s, in_vain=in_vain)
