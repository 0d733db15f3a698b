"""Storage Commitment Push Model (PS3.4 Annex J): who asks, what is answered, what is heard.

A peer asks us whether we keep its objects safe (N-ACTION); the answer (N-EVENT-REPORT) goes out on
an association of ours where the configuration says where to call the peer (`reporter`), otherwise
on the association that asked. We ask destinations the same of our results; what they answer comes
here, on whichever association.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from pydicom import Dataset

from dicomnode import log
from dicomnode.archive import commitments, journal
from dicomnode.archive.commitments import Request
from dicomnode.archive.database import Database
from dicomnode.archive.disk.files import FileStore
from dicomnode.archive.journal import Kind
from dicomnode.archive.keeping import custody
from dicomnode.archive.work import confirmations
from dicomnode.errors import Refused, RetryLater
from dicomnode.network.calling.request import AddressEntry
from dicomnode.network.commitment import message
from dicomnode.network.commitment.message import ALL_COMMITTED, SOME_FAILED
from dicomnode.status import PROCESSING_FAILURE, SUCCESS

_log = log.get(__name__)

_FRESH_S = 900.0


@dataclass(frozen=True, kw_only=True)
class Report:
    """An N-EVENT-REPORT-RQ to send.

    Attributes:
        answered: To be told the status of the N-EVENT-REPORT-RSP, or `None` when none came.
    """

    event_type_id: int
    information: Dataset
    answered: Callable[[int | None], None]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The answer to an N-ACTION-RQ.

    Attributes:
        status: Of the N-ACTION-RSP.
        report: Where the peer can be told on the same association alone: makes what to tell it.
            Looks at every object, which takes its time; raises `RetryLater` where the database is
            away. To be called once the N-ACTION-RSP is out.
    """

    status: int
    report: Callable[[], Report] | None


class Commitment(Protocol):
    """What the acceptor does with the messages of this service."""

    def asked(self, *, peer: str, calling_ae_title: str, information: Dataset) -> Asked:
        """Take an N-ACTION-RQ that is meant for this service (`message.misdirected`).

        Args:
            peer: Its name in the configuration, or "" for an unknown one.
            information: The Action Information.
        """

    def reported(self, *, peer: str, event_type_id: int, information: Dataset) -> int:
        """Take an N-EVENT-REPORT-RQ: what a destination says to a question of ours.

        Returns:
            The status of the N-EVENT-REPORT-RSP.
        """


class PeerEntry(Protocol):
    """What the configuration says of one peer."""

    @property
    def commitment_at(self) -> AddressEntry | None:
        """Where it is told; `None` where it cannot be called."""


class Commitments:
    """The node's side of the service, over its rows and its files.

    Any thread may call it. There may be one in each process: what it knows stands in the database.
    """

    def __init__(
        self,
        database: Database,
        store: FileStore,
        peers: Mapping[str, PeerEntry],
        *,
        clock: Callable[[], float],
    ) -> None:
        self._database = database
        self._store = store
        self._peers = peers
        self._clock = clock

    def asked(self, *, peer: str, calling_ae_title: str, information: Dataset) -> Asked:
        """Take a request down; once it is answered with success it survives a power cut."""
        try:
            transaction_uid, references = message.request_of(information)
            with self._database.write(durable=True) as tx:
                request_id = commitments.ask(
                    tx,
                    peer=peer,
                    calling_ae_title=calling_ae_title,
                    transaction_uid=transaction_uid,
                    references=references,
                    at=self._clock(),
                )
        except Refused as refusal:
            self._refused(refusal, peer=peer, calling_ae_title=calling_ae_title)
            return Asked(status=refusal.status, report=None)
        except RetryLater as error:
            _log.error("commitment not taken", peer=peer, reason=error.reason, detail=error.detail)
            return Asked(status=PROCESSING_FAILURE, report=None)
        except Exception:  # noqa: BLE001 - the edge: what nobody named is never promised
            _log.exception("commitment failed unexpectedly", peer=peer)
            return Asked(status=PROCESSING_FAILURE, report=None)
        _log.info("commitment asked", peer=peer, instances=len(references))
        known = self._peers.get(peer)
        if known is not None and known.commitment_at is not None:
            return Asked(status=SUCCESS, report=None)
        return Asked(status=SUCCESS, report=lambda: self._report(request_id))

    def _report(self, request_id: str) -> Report:
        with self._database.read() as tx:
            request = commitments.request(tx, request_id)
        if request is None:  # another association of the same peer has asked the same
            raise RetryLater("already-answered", "The request was answered on another association.")
        return self.report_of(request)

    def report_of(self, request: Request) -> Report:
        """Look at every object of a request, unless that was done just now; say what to tell.

        Raises:
            RetryLater: `database-unavailable`.
        """
        failures, studies = request.failures, frozenset[str]()
        if failures is None or not self._is_fresh(request):
            findings = custody.look(self._database, self._store, request.references)
            failures, studies = findings.failures, findings.studies
            with self._database.write() as tx:
                commitments.check(tx, request, failures, at=self._clock())
        checked = replace(request, failures=failures)
        return Report(
            event_type_id=SOME_FAILED if failures else ALL_COMMITTED,
            information=message.event_information(
                request.transaction_uid, request.references, failures
            ),
            answered=lambda status: self._answered(checked, studies, status),
        )

    def _is_fresh(self, request: Request) -> bool:
        """Whether what was found out can still be said.

        It is kept at all for a peer that gives up while many objects are looked at: next time it is
        told at once. One that comes back after days is told what is true then. What was found and
        is not indexed yet is looked at again: only its file says which study is promised.
        """
        if request.is_duplicate:
            return True
        return self._clock() - request.checked_at < _FRESH_S and self._is_indexed(request)

    def _is_indexed(self, request: Request) -> bool:
        """Whether all that was found is indexed."""
        failed = {one.reference for one in request.failures or ()}
        with self._database.read() as tx:
            indexed = commitments.kept(tx, request.references)
        return all(one in failed or one.sop_instance_uid in indexed for one in request.references)

    def _answered(self, request: Request, studies: Collection[str], status: int | None) -> None:
        if status is None:
            _log.warning("commitment not heard", peer=request.peer)
            return
        try:
            with self._database.write() as tx:
                commitments.answer(tx, request, status=status, at=self._clock(), studies=studies)
        except RetryLater as error:  # the peer will be told once more, where it can be
            _log.error("answer not noted", peer=request.peer, reason=error.reason)
            return
        _log.info(
            "commitment answered",
            peer=request.peer,
            instances=len(request.references),
            status=f"0x{status:04X}",
        )

    def reported(self, *, peer: str, event_type_id: int, information: Dataset) -> int:
        """Write down what a destination says; a delivery that waits for it goes on at once."""
        try:
            self._take_report(peer, event_type_id, information)
        except Refused as refusal:
            self._refused(refusal, peer=peer)
            return refusal.status
        except RetryLater as error:
            _log.error("report not taken", peer=peer, reason=error.reason, detail=error.detail)
            return PROCESSING_FAILURE
        except Exception:  # noqa: BLE001 - the edge, as in `asked`
            _log.exception("report failed unexpectedly", peer=peer)
            return PROCESSING_FAILURE
        return SUCCESS

    def _take_report(self, peer: str, event_type_id: int, information: Dataset) -> None:
        if event_type_id not in (ALL_COMMITTED, SOME_FAILED):
            raise Refused(
                "no-such-event-type",
                f"{peer or 'An unknown peer'} reports an event of type {event_type_id}.",
                status=message.NO_SUCH_EVENT_TYPE,
            )
        transaction_uid = message.transaction_uid_of(information)
        listed = message.references_of(information)
        failed = message.failures_of(information)
        with self._database.write() as tx:
            reason = confirmations.answer(
                tx,
                transaction_uid,
                destination=peer,
                safe={one.sop_instance_uid for one in listed},
                failed=failed,
                at=self._clock(),
            )
        if reason:
            raise Refused(
                reason,
                f"{peer or 'An unknown peer'} was not asked under {transaction_uid}.",
                status=message.INVALID_ARGUMENT_VALUE,
            )
        _log.info("confirmation answered", peer=peer)

    def _refused(self, refusal: Refused, **facts: Any) -> None:
        _log.warning(
            "commitment refused", peer=facts["peer"], reason=refusal.reason, detail=refusal.detail
        )
        try:
            with self._database.write() as tx:
                journal.write(
                    tx,
                    Kind.COMMITMENT_REFUSED,
                    at=self._clock(),
                    reason=refusal.reason,
                    detail=refusal.detail,
                    status=f"0x{refusal.status:04X}",
                    **facts,
                )
        except RetryLater as error:  # the peer is told all the same
            _log.error("journal not written", reason=error.reason, detail=error.detail)
