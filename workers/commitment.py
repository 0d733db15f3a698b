"""Deliveries that are confirmed by Storage Commitment (PS3.4 Annex J): asked, waited for, heard.

A destination may take hours to answer, and answers to whichever process of ours listens. So nobody
waits: the delivery goes back to the queue, and the row of the answer calls it up again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dicomnode import log, settings
from dicomnode.archive.commitments import Reference
from dicomnode.archive.disk import header
from dicomnode.archive.work import confirmations
from dicomnode.archive.work.confirmations import Confirmation, State
from dicomnode.archive.work.deliveries import Delivery
from dicomnode.archive.work.results import ResultFile
from dicomnode.config import Peer
from dicomnode.errors import Failed, Misconfigured, NodeError, RetryLater
from dicomnode.network.calling.request import Destination
from dicomnode.network.commitment import call as commitment_call
from dicomnode.network.commitment.service import Commitments
from dicomnode.pauses import Pauses
from workers.context import Context

_log = log.get(__name__)

# What stays as it is however often it is sent (PS3.3 C.14.1.1): the destination has something else
# under this UID, or commits itself to no object of this kind.
_FOR_GOOD = frozenset({0x0119, 0x0122})

# A destination that does not answer is asked more and more seldom, but not more than this (s).
_LONGEST_S = 3600.0
# So many questions without an answer are somebody's business.
_SEVERAL = 3

Send = Callable[[Sequence[ResultFile]], None]


class Awaiting(RetryLater):
    """The destination has yet to say whether it keeps the results: no fault, and no attempt.

    Attributes:
        heard: The UIDs of the transactions whose answers were known when this attempt began.
        not_before: When it is asked again, should nothing come (seconds since the epoch).
    """

    def __init__(self, asked: Confirmation, *, heard: frozenset[str], pause_s: float) -> None:
        doubt = "" if asked.number == 1 else " Does it know this node's AE title, host and port?"
        super().__init__(
            confirmations.AWAITING,
            f"{asked.destination} has the results and was asked to commit itself to them, "
            f"{asked.number} times so far.{doubt}",
        )
        self.heard = heard
        self.not_before = asked.asked_at + pause_s


@dataclass(frozen=True, kw_only=True)
class _History:
    """What a destination was asked of one delivery, and what it said, in order of the questions."""

    every: tuple[Confirmation, ...]

    @property
    def last(self) -> Confirmation | None:
        """The newest question."""
        return self.every[-1] if self.every else None

    @property
    def word(self) -> Confirmation | None:
        """The transaction that was answered last: the newest word is the one that counts."""
        answered = [one for one in self.every if one.answered_at is not None]
        return max(answered, key=_answered_at, default=None)

    @property
    def news(self) -> Confirmation | None:
        """The newest word, unless a question was asked after it."""
        last, word = self.last, self.word
        if last is None or word is None:
            return None
        return word if word is last or _answered_at(word) >= last.asked_at else None

    @property
    def heard(self) -> frozenset[str]:
        """The UIDs of the transactions that were answered."""
        return frozenset(one.transaction_uid for one in self.every if one.answered_at is not None)

    @property
    def unanswered(self) -> int:
        """How many questions were asked since the newest word."""
        since = _answered_at(self.word)
        return sum(one.asked_at > since for one in self.every)


def _answered_at(one: Confirmation | None) -> float:
    return 0.0 if one is None else one.answered_at or 0.0


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
        history = _History(every=tuple(confirmations.of_delivery(tx, delivery.id)))
    last, word, news = history.last, history.word, history.news
    if word is not None and word.state is State.CONFIRMED:
        return
    if last is None:
        send(files)
    elif news is not None:
        _require_rest(context, history, news)
        failed = {one.reference.sop_instance_uid for one in news.failures}
        send([file for file in files if file.sop_instance_uid in failed])
    else:
        _require_patience_over(context, history, last)
    _settle(context, _ask(context, delivery, peer, files), history)


def _require_patience_over(context: Context, history: _History, last: Confirmation) -> None:
    """A destination that does not answer is asked again after a pause, longer each time.

    Raises:
        Awaiting: The pause is not over.
    """
    pause_s = _pause_s(context, unanswered=history.unanswered)
    if last.state is State.ASKED and context.now() < last.asked_at + pause_s:
        raise Awaiting(last, heard=history.heard, pause_s=pause_s)
    say = _log.warning if history.unanswered >= _SEVERAL else _log.info
    say("commitment not answered", destination=last.destination, attempt=last.number)


def _pause_s(context: Context, *, unanswered: int) -> float:
    """Seconds from the last of so many questions to the next one."""
    first_s = context.configuration.deliver.commitment_s
    return Pauses(first_s=first_s, longest_s=max(first_s, _LONGEST_S)).after(unanswered)


def _require_rest(context: Context, history: _History, word: Confirmation) -> None:
    """What a destination lost is sent again after a pause, longer each time.

    Raises:
        RetryLater: The pause is not over.
        Failed: It never will be.
    """
    failed = sum(one.state is State.FAILED for one in history.every)
    pause_s = settings.pauses(context.configuration).after(failed)
    error = _failure(word)
    if isinstance(error, Failed) or context.now() < _answered_at(word) + pause_s:
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


def _settle(context: Context, asked: Confirmation, before: _History) -> None:
    if asked.state is State.FAILED:
        raise _failure(asked)
    if asked.state is not State.CONFIRMED:
        pause_s = _pause_s(context, unanswered=before.unanswered + 1)
        raise Awaiting(asked, heard=before.heard, pause_s=pause_s)


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
            heard=awaiting.heard,
            owner=context.owner,
            at=context.now(),
            not_before=awaiting.not_before,
            reason=awaiting.reason,
            detail=awaiting.detail,
        )
    _log.info("awaiting commitment", job=delivery.job, destination=delivery.destination)
