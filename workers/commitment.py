"""Deliveries that are confirmed by Storage Commitment (PS3.4 Annex J): asked, waited for, heard.

A destination may take hours to answer, and answers to whichever process of ours listens. So nobody
waits: the delivery goes back to the queue, and the row of the answer calls it up again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dicomnode import log
from dicomnode.archive import confirmations, header
from dicomnode.archive.commitments import Reference
from dicomnode.archive.confirmations import Confirmation, State
from dicomnode.archive.deliveries import Delivery
from dicomnode.archive.results import ResultFile
from dicomnode.config import Peer
from dicomnode.errors import Failed, Misconfigured, NodeError, RetryLater
from dicomnode.network import commitment_call
from dicomnode.network.commitment import Commitments
from dicomnode.network.request import Destination
from workers.context import Context

_log = log.get(__name__)

# What stays as it is however often it is sent (PS3.3 C.14.1.1): the destination has something else
# under this UID, or commits itself to no object of this kind.
_FOR_GOOD = frozenset({0x0119, 0x0122})

Send = Callable[[Sequence[ResultFile]], None]


class Awaiting(RetryLater):
    """The destination has yet to say whether it keeps the results: no fault, and no attempt.

    Attributes:
        transaction_uid: What it was asked under.
        not_before: When it is asked again, should nothing come (seconds since the epoch).
    """

    def __init__(self, asked: Confirmation, *, commitment_s: float) -> None:
        doubt = "" if asked.number == 1 else " Does it know this node's AE title, host and port?"
        super().__init__(
            "awaiting-commitment",
            f"{asked.destination} has the results and was asked to commit itself to them, "
            f"{asked.number} times so far.{doubt}",
        )
        self.transaction_uid = asked.transaction_uid
        self.not_before = asked.asked_at + commitment_s


def commit(
    context: Context, delivery: Delivery, peer: Peer, files: Sequence[ResultFile], *, send: Send
) -> None:
    """Have a destination commit itself to results; returns once it has.

    What an earlier attempt has reached is not done again: objects that were sent and asked about
    are sent again only where the destination says that it does not keep them.

    Args:
        context: The surroundings.
        delivery: Whose results they are.
        peer: The destination.
        files: The results.
        send: Sends some of them; returns when all of those are stored.

    Raises:
        Awaiting: It was asked, and has not answered yet.
        RetryLater: `commitment-failed`: it does not keep some, and gets them again after a while.
            Otherwise as `commitment_call.ask`, or as `send`.
        Failed: `commitment-failed` where no repetition helps.
        Misconfigured: `no-port`.
    """
    with context.database.read() as tx:
        history = confirmations.of_delivery(tx, delivery.id)
    if any(one.state is State.CONFIRMED for one in history):
        return
    last = history[-1] if history else None
    commitment_s = context.configuration.deliver.commitment_s
    if last is None:
        send(files)
    elif last.state is State.FAILED:
        _require_rest(context, history)
        failed = {one.reference.sop_instance_uid for one in last.failures}
        send([file for file in files if file.sop_instance_uid in failed])
    elif last.state is State.ASKED and context.now() < last.asked_at + commitment_s:
        raise Awaiting(last, commitment_s=commitment_s)
    else:
        _log.warning(
            "commitment not answered", destination=delivery.destination, attempt=last.number
        )
    _settle(context, _ask(context, delivery, peer, files))


def _require_rest(context: Context, history: Sequence[Confirmation]) -> None:
    """What a destination lost is sent again after a pause, longer each time.

    Raises:
        RetryLater: The pause is not over.
        Failed: It never will be.
    """
    limits = context.configuration.deliver
    last = history[-1]
    failed = sum(one.state is State.FAILED for one in history)
    pause_s = min(limits.retry_max_s, limits.retry_s * 2.0 ** min(failed - 1, 30))
    error = _failure(last)
    if isinstance(error, Failed) or context.now() < (last.answered_at or 0.0) + pause_s:
        raise error


def _failure(answered: Confirmation) -> RetryLater | Failed:
    reasons = sorted({one.reason for one in answered.failures})
    said = (
        f"{answered.destination} does not keep {len(answered.failures)} of"
        f" {len(answered.references)} objects (failure reason {_listed(reasons)})."
    )
    if _FOR_GOOD.isdisjoint(reasons):
        return RetryLater("commitment-failed", f"{said} They are sent again.")
    return Failed("commitment-failed", f'{said} Look there, or set its `confirm` to "find".')


def _listed(reasons: Sequence[int]) -> str:
    return ", ".join(f"0x{one:04X}" for one in reasons)


def _ask(
    context: Context, delivery: Delivery, peer: Peer, files: Sequence[ResultFile]
) -> Confirmation:
    """Ask; returns the transaction as it stands after the moment that was waited for the answer."""
    to = _destination(context, peer)
    references = [_reference(context, file) for file in files]
    with context.database.write() as tx:
        asked = confirmations.ask(tx, delivery, references, at=context.now())
    ours = Commitments(
        context.database, context.store, context.configuration.peers, clock=context.now
    )
    try:
        commitment_call.ask(
            to,
            calling_ae_title=context.configuration.node.ae_title,
            transaction_uid=asked.transaction_uid,
            references=references,
            reported=lambda event_type_id, information: ours.reported(
                peer=delivery.destination, event_type_id=event_type_id, information=information
            ),
            is_answered=lambda: _is_answered(context, asked),
        )
    except NodeError:
        with context.database.write() as tx:
            is_lost = confirmations.lose(tx, asked)
        if is_lost:
            raise
    return _as_it_stands(context, asked)


def _settle(context: Context, asked: Confirmation) -> None:
    if asked.state is State.FAILED:
        raise _failure(asked)
    if asked.state is not State.CONFIRMED:
        raise Awaiting(asked, commitment_s=context.configuration.deliver.commitment_s)


def _destination(context: Context, peer: Peer) -> Destination:
    if peer.commitment_at is None:
        raise Misconfigured("no-port", f"{peer.ae_title} has no port to ask it at.")
    return Destination.at(peer.commitment_at, certificates=context.certificates)


def _reference(context: Context, file: ResultFile) -> Reference:
    path = context.configuration.node.data_dir / file.path
    try:
        with path.open("rb") as content:
            meta = header.read_meta(content)
    except FileNotFoundError as error:
        raise Failed("result-missing", f"{path.name} is not on disk any more.") from error
    except OSError as error:
        raise RetryLater("file-system", f"{path.name}: {error.strerror}.") from error
    return Reference(sop_class_uid=meta.sop_class_uid, sop_instance_uid=file.sop_instance_uid)


def _is_answered(context: Context, asked: Confirmation) -> bool:
    return _as_it_stands(context, asked).state in (State.CONFIRMED, State.FAILED)


def _as_it_stands(context: Context, asked: Confirmation) -> Confirmation:
    with context.database.read() as tx:
        return confirmations.find(tx, asked.transaction_uid) or asked


def put_off(context: Context, delivery: Delivery, awaiting: Awaiting) -> None:
    """Let a delivery wait for its answer, or go on at once where that has come meanwhile."""
    with context.database.write() as tx:
        confirmations.await_answer(
            tx,
            delivery,
            awaiting.transaction_uid,
            owner=context.owner,
            at=context.now(),
            not_before=awaiting.not_before,
            reason=awaiting.reason,
            detail=awaiting.detail,
        )
    _log.info("awaiting commitment", job=delivery.job, destination=delivery.destination)
