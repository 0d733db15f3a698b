"""What a delivery tells an audit collector: what was sent, and what its destination was asked.

A delivery that is tried again and again tells of the first attempt, of success and of the end, not
of each attempt between: a destination that is away for a weekend must not fill a log.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from dicomnode.archive.auditing import told
from dicomnode.archive.auditing.told import Remote
from dicomnode.archive.disk import header
from dicomnode.archive.work.deliveries import Delivery
from dicomnode.archive.work.results import ResultFile
from dicomnode.auditing.codes import Outcome
from dicomnode.auditing.events import Query
from dicomnode.config import Address, Peer
from dicomnode.errors import NodeError, Refused, RetryLater
from workers.context import Context


@dataclass(frozen=True, kw_only=True)
class _Parcel:
    """What is sent: instances of a study, as SOP Class UID → how many."""

    study: str
    to: Remote
    instances: Mapping[str, int]


@contextmanager
def sending(
    context: Context, delivery: Delivery, peer: Peer, study: str, files: Sequence[ResultFile]
) -> Iterator[None]:
    """Tell of objects that the block sends: that it begins, and how it ended."""
    if context.database.recorder is None:
        yield
        return
    parcel = _Parcel(
        study=study,
        to=_remote(delivery, peer.storage_at),
        instances=_instances(context, files),
    )
    is_first = delivery.attempts == 1
    if is_first:
        _begun(context, parcel)
    try:
        yield
    except RetryLater as error:
        if is_first:
            _sent(context, parcel, Outcome.MINOR_FAILURE, error.reason)
        raise
    except Exception as error:
        reason = error.reason if isinstance(error, NodeError) else "unexpected-error"
        _sent(context, parcel, Outcome.SERIOUS_FAILURE, reason)
        raise
    _sent(context, parcel)


def there_already(
    context: Context, delivery: Delivery, peer: Peer, study: str, files: Sequence[ResultFile]
) -> None:
    """Tell of objects that an earlier attempt sent, and did not live to tell of."""
    if context.database.recorder is not None:
        to = _remote(delivery, peer.storage_at)
        parcel = _Parcel(study=study, to=to, instances=_instances(context, files))
        _sent(context, parcel)


def queried(context: Context, delivery: Delivery, peer: Peer, queries: Sequence[Query]) -> None:
    """Tell of what a destination was asked."""
    if context.database.recorder is not None and queries:
        whom = _remote(delivery, peer.query_at)
        with context.database.write() as tx:
            for query in queries:
                told.queried(tx, whom, query, at=context.now())


def _begun(context: Context, parcel: _Parcel) -> None:
    with context.database.write() as tx:
        told.begun(tx, parcel.to, study=parcel.study, instances=parcel.instances, at=context.now())


def _sent(
    context: Context,
    parcel: _Parcel,
    outcome: Outcome = Outcome.SUCCESS,
    description: str = "",
) -> None:
    with context.database.write() as tx:
        told.sent(
            tx,
            parcel.to,
            study=parcel.study,
            instances=parcel.instances,
            at=context.now(),
            outcome=outcome,
            description=description,
        )


def _remote(delivery: Delivery, address: Address | None) -> Remote:
    return Remote(
        name=delivery.destination,
        ae_title=address.ae_title if address else "",
        address=address.host if address else "",
    )


def _instances(context: Context, files: Sequence[ResultFile]) -> dict[str, int]:
    """SOP Class UID → how many; a file that does not read is told of by who sends it."""
    found: Counter[str] = Counter()
    for file in files:
        try:
            with (context.configuration.node.data_dir / file.path).open("rb") as content:
                found[header.read_meta(content).sop_class_uid] += 1
        except (OSError, Refused):
            continue
    return dict(found)
