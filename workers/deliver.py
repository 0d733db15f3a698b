"""Results → destination: sent in order, each status checked, then confirmed by it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dicomnode import log, settings, status
from dicomnode.archive.work import deliveries, jobs, results
from dicomnode.archive.work.deliveries import Delivery
from dicomnode.archive.work.results import ResultFile
from dicomnode.auditing.events import Query
from dicomnode.config import Peer
from dicomnode.errors import Failed, Misconfigured, NodeError, RetryLater
from dicomnode.job import Purpose
from dicomnode.network.calling import sender
from dicomnode.network.calling.request import AddressEntry, Destination
from workers import audited, commitment, kept, notices
from workers.commitment import Awaiting
from workers.context import Behind, Context, require_up_to_date

_log = log.get(__name__)


@dataclass(frozen=True, kw_only=True)
class Parcel:
    """What goes to one destination: what is named first, the report of everything last.

    Attributes:
        study_instance_uid: The study that the results belong to.
        files: In the order in which they are sent.
    """

    study_instance_uid: str
    files: tuple[ResultFile, ...]


def deliver(context: Context, delivery_id: str) -> None:
    """Make one delivery, if it is still pending: pending → sending → confirmed.

    A destination that is down delays and loses nothing: the delivery is pending again, with a
    longer wait each time. One that has yet to commit itself to the results lets it wait for its
    word. One that refuses an object for good ends it as failed.
    """
    with context.database.write() as tx:
        delivery = deliveries.claim(
            tx,
            delivery_id,
            owner=context.owner,
            at=context.now(),
            lease_s=context.configuration.worker.lease_s,
        )
    if delivery is None:
        return
    try:
        _deliver(context, delivery)
    except Awaiting as awaiting:
        commitment.put_off(context, delivery, awaiting)
    except RetryLater as error:
        _put_off(context, delivery, error)
    except (Failed, Misconfigured) as error:
        _fail(context, delivery, error)
    except Exception as error:  # noqa: BLE001 - the edge of the task: what nobody named is parked
        _log.exception("delivery failed unexpectedly", job=delivery.job)
        unknown = Failed("unexpected-error", f"{type(error).__name__} in the worker; see its log.")
        _fail(context, delivery, unknown)
    else:
        with context.database.write() as tx:
            held = deliveries.confirm(tx, delivery, owner=context.owner, at=context.now())
        if held:
            _log.info("delivered", job=delivery.job, destination=delivery.destination)
        else:
            _log.warning("delivered too late", job=delivery.job, destination=delivery.destination)


def _deliver(context: Context, delivery: Delivery) -> None:
    peer = _peer(context, delivery)
    parcel = _parcel(context, delivery)

    study = parcel.study_instance_uid

    def send(files: Sequence[ResultFile]) -> None:
        with audited.sending(context, delivery, peer, study, files):
            for file in files:
                _require_held(context, delivery)
                _send(context, peer, file)

    match peer.confirm:
        case "commitment":
            commitment.commit(context, delivery, peer, parcel.files, send=send)
        case "find":
            # What an earlier attempt got there is not sent again: a large answer over a slow line
            # would begin anew each time, and never end.
            is_first = delivery.attempts == 1
            files = parcel.files if is_first else _missing(context, delivery, peer, parcel)
            if files:
                send(files)
                _require_listed(context, delivery, peer, parcel)
            there = [file for file in parcel.files if file not in files]
            if there:  # that attempt never learned it
                audited.there_already(context, delivery, peer, study, there)
        case "none":
            send(parcel.files)


def _require_listed(context: Context, delivery: Delivery, peer: Peer, parcel: Parcel) -> None:
    missing = _missing(context, delivery, peer, parcel)
    if missing:
        raise RetryLater(
            results.NOT_LISTED,
            f"{peer.ae_title} accepted the {missing[0].kind} and does not list it (C-FIND).",
        )


def _require_held(context: Context, delivery: Delivery) -> None:
    with context.database.read() as tx:
        if not deliveries.is_held(tx, delivery, owner=context.owner):
            raise RetryLater("not-held", "Another worker has taken this delivery over.")


def _peer(context: Context, delivery: Delivery) -> Peer:
    peer = context.configuration.peers.get(delivery.destination)
    if peer is None or peer.storage_at is None:
        require_up_to_date(context)
        raise Misconfigured(
            "unknown-destination",
            f"The configuration has no peer {delivery.destination!r} with a port.",
        )
    return peer


def _destination(context: Context, address: AddressEntry | None) -> Destination:
    if address is None:
        raise Misconfigured("no-port", "The destination has no port to send to.")
    return Destination.at(address, certificates=context.certificates)


def _parcel(context: Context, delivery: Delivery) -> Parcel:
    with context.database.read() as tx:
        job = jobs.job(tx, delivery.job)
        files = results.of_job(tx, delivery.job, profile=delivery.profile)
    if job is not None and delivery.purpose is not Purpose.RESULTS:
        files = [notices.of(context, delivery, job)]
    if job is None or not files or not all(file.path for file in files):
        raise Failed(
            "no-results", "The job has no results to deliver, or they are not kept any more."
        )
    return Parcel(study_instance_uid=job.study_instance_uid, files=tuple(files))


def _send(context: Context, peer: Peer, file: ResultFile) -> None:
    """Send one object; only what was stored lets the next one go."""
    path = context.configuration.node.data_dir / file.path
    _require_unchanged(path, file)
    (sent,) = sender.send(
        [path],
        to=_destination(context, peer.storage_at),
        calling_ae_title=context.configuration.node.ae_title,
    )
    if sent.status == status.DUPLICATE_SOP_INSTANCE and peer.confirm != "none":
        return  # it says that it has the object already: whether it does is asked afterwards
    outcome = sender.outcome(sent.status)
    said = f"{peer.ae_title} answered 0x{sent.status:04X} to {path.name}."
    if outcome == "retry":
        raise RetryLater("destination-busy", said)
    if outcome != "stored":
        raise Failed("destination-refused", said)


def _require_unchanged(path: Path, file: ResultFile) -> None:
    """What leaves is what was checked, byte for byte."""
    try:
        digest = kept.digest(path)
    except FileNotFoundError as error:
        raise Failed("result-missing", f"{path.name} is not on disk any more.") from error
    except OSError as error:
        raise RetryLater("file-system", f"{path.name}: {error.strerror}.") from error
    if digest != file.digest:
        raise Failed("result-changed", f"{path.name} is not the file that was checked.")


def _missing(context: Context, delivery: Delivery, peer: Peer, parcel: Parcel) -> list[ResultFile]:
    """What the destination does not list."""
    queries: list[Query] = []

    def is_listed(file: ResultFile) -> bool:
        return _is_listed(context, peer, parcel, file, asked=queries.append)

    try:
        return [file for file in parcel.files if not is_listed(file)]
    finally:
        audited.queried(context, delivery, peer, queries)


def _is_listed(
    context: Context,
    peer: Peer,
    parcel: Parcel,
    file: ResultFile,
    *,
    asked: Callable[[Query], None],
) -> bool:
    found = sender.find_instances(
        _destination(context, peer.query_at),
        calling_ae_title=context.configuration.node.ae_title,
        study_instance_uid=parcel.study_instance_uid,
        series_instance_uid=file.series_instance_uid,
        sop_instance_uids=[file.sop_instance_uid],
        asked=asked,
    )
    return file.sop_instance_uid in found


def _put_off(context: Context, delivery: Delivery, error: RetryLater) -> None:
    pauses = settings.pauses(context.configuration)
    wait_s = error.retry_s if isinstance(error, Behind) else pauses.after(delivery.attempts)
    with context.database.write() as tx:
        deliveries.try_again(
            tx,
            delivery,
            owner=context.owner,
            at=context.now(),
            not_before=context.now() + wait_s,
            reason=error.reason,
            detail=error.detail,
            counts=not isinstance(error, Behind),
        )
    _log.warning(
        "delivery put off",
        job=delivery.job,
        destination=delivery.destination,
        reason=error.reason,
        delay_s=wait_s,
    )


def _fail(context: Context, delivery: Delivery, error: NodeError) -> None:
    with context.database.write() as tx:
        deliveries.fail(
            tx,
            delivery,
            owner=context.owner,
            at=context.now(),
            reason=error.reason,
            detail=error.detail,
        )
    _log.error(
        "delivery failed",
        job=delivery.job,
        destination=delivery.destination,
        reason=error.reason,
    )
