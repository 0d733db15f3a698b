"""What the node does by itself, as audit messages: each in the transaction that it belongs to."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, select

from dicomnode.archive import tables
from dicomnode.archive.arrival import TurnedAway
from dicomnode.archive.auditing import outbox, studies
from dicomnode.archive.auditing.apart import apart
from dicomnode.auditing import codes, events
from dicomnode.auditing.codes import Code, Kind, Outcome
from dicomnode.auditing.events import Query, Study
from dicomnode.auditing.message import Participant, Subject

#: Why an association is refused that is a security alert; a node that is full is none.
ALERTS = frozenset({"wrong-called-ae-title", "unknown-peer", "wrong-host", "tls-handshake-failed"})
_OUTBOX = "dicomnode:audit-messages"
_NOBODY = "unknown"


@dataclass(frozen=True, kw_only=True)
class Remote:
    """A peer that sends to us, or that we send to.

    Attributes:
        name: In the configuration; "" for an unknown one.
        address: Name or address of its machine.
    """

    name: str
    ae_title: str
    address: str

    def participant(self, *roles: Code, is_requestor: bool) -> Participant:
        """It, as a message names it."""
        return Participant(
            user_id=self.name or self.ae_title or _NOBODY,
            ae_title=self.ae_title,
            is_requestor=is_requestor,
            roles=roles,
            address=self.address,
        )


@apart
def application(tx: Connection, *, has_started: bool, at: float) -> None:
    """The node starts, or stops."""
    recorder = outbox.recorder(tx, Kind.APPLICATION)
    if recorder is not None:
        process = recorder.process(codes.APPLICATION, is_requestor=False)
        outbox.put(tx, recorder, events.application(process, has_started=has_started, at=at))


@apart
def received(tx: Connection, association: str, *, again: Collection[str] = (), at: float) -> None:
    """An association is over: one message for each study that it brought something of.

    Args:
        again: SOP Instance UIDs that had been received before: of those there is another message.
    """
    recorder = outbox.recorder(tx, Kind.TRANSFER)
    if recorder is None:
        return
    source = _remote(tx, association).participant(codes.SOURCE, is_requestor=True)
    us = recorder.process(codes.DESTINATION, is_requestor=False)
    for study in studies.brought(tx, association):
        outbox.put(tx, recorder, events.transferred(source, us, study, action="C", at=at))
    for uid, counts in sorted(studies.of_instances(tx, again).items()):
        study = studies.part(tx, uid, counts)
        outbox.put(tx, recorder, events.transferred(source, us, study, action="R", at=at))


def _remote(tx: Connection, association: str) -> Remote:
    columns = tables.association.c
    row = tx.execute(
        select(columns.peer, columns.calling_ae_title, columns.address).where(
            columns.id == association
        )
    ).one_or_none()
    if row is None:
        return _nobody()
    return Remote(name=row.peer, ae_title=row.calling_ae_title, address=row.address)


def _nobody() -> Remote:
    return Remote(name="", ae_title="", address="")


@apart
def found(tx: Connection, sop_instance_uids: Collection[str], *, at: float) -> None:
    """Instances were on disk at the start that nobody had told of: who sent them is not known."""
    recorder = outbox.recorder(tx, Kind.TRANSFER)
    if recorder is None:
        return
    source = _nobody().participant(codes.SOURCE, is_requestor=False)
    us = recorder.process(codes.DESTINATION, is_requestor=False)
    for uid, instances in sorted(studies.of_instances(tx, sop_instance_uids).items()):
        study = studies.part(tx, uid, instances)
        outbox.put(tx, recorder, events.transferred(source, us, study, action="C", at=at))


@apart
def turned_away(tx: Connection, arrival: TurnedAway) -> None:
    """An association was refused for one of `ALERTS`; see `refusals`."""
    recorder = outbox.recorder(tx, Kind.SECURITY)
    if recorder is None:
        return
    remote = Remote(name="", ae_title=arrival.calling_ae_title, address=arrival.address)
    alert = events.alert(
        recorder.process(is_requestor=False),
        remote.participant(is_requestor=False),
        what=codes.NODE_AUTHENTICATION,
        about=events.node(arrival.address or _NOBODY, said=f"{arrival.reason}: {arrival.detail}"),
        at=arrival.at,
        outcome=Outcome.SERIOUS_FAILURE,
    )
    outbox.put(tx, recorder, alert)


@apart
def begun(
    tx: Connection, to: Remote, *, study: str, instances: Mapping[str, int], at: float
) -> None:
    """Results are about to be sent.

    Args:
        instances: SOP Class UID → how many of it.
    """
    recorder = outbox.recorder(tx, Kind.TRANSFER)
    if recorder is not None:
        us = recorder.process(codes.SOURCE, is_requestor=True)
        them = to.participant(codes.DESTINATION, is_requestor=False)
        sent = studies.part(tx, study, instances)
        outbox.put(tx, recorder, events.begun(us, them, sent, at=at))


@apart
def sent(
    tx: Connection,
    to: Remote,
    *,
    study: str,
    instances: Mapping[str, int],
    at: float,
    outcome: Outcome = Outcome.SUCCESS,
    description: str = "",
) -> None:
    """Results were sent, or could not be. Whether the receiver had them before is not known."""
    recorder = outbox.recorder(tx, Kind.TRANSFER)
    if recorder is None:
        return
    message = events.transferred(
        recorder.process(codes.SOURCE, is_requestor=True),
        to.participant(codes.DESTINATION, is_requestor=False),
        studies.part(tx, study, instances),
        action="R",
        at=at,
        outcome=outcome,
        description=description,
    )
    outbox.put(tx, recorder, message)


@apart
def queried(tx: Connection, whom: Remote, query: Query, *, at: float) -> None:
    """A peer was asked what it has."""
    recorder = outbox.recorder(tx, Kind.QUERY)
    if recorder is not None:
        us = recorder.process(codes.SOURCE, is_requestor=True)
        them = whom.participant(codes.DESTINATION, is_requestor=False)
        outbox.put(tx, recorder, events.queried(us, them, query, at=at))


@apart
def deleted(tx: Connection, study_instance_uid: str, *, at: float) -> None:
    """A study is removed: to be told while its rows are still there."""
    recorder = outbox.recorder(tx, Kind.DELETION)
    if recorder is not None:
        study: Study = studies.whole(tx, study_instance_uid)
        process = recorder.process(is_requestor=True)
        outbox.put(tx, recorder, events.deleted(process, study, at=at))


@apart
def configuration_changed(tx: Connection, *, at: float) -> None:
    """The node starts with another configuration than it had."""
    said = "The node starts with another configuration than it had."
    _alert(tx, codes.SOFTWARE_CONFIGURATION, events.file(events.CONFIGURATION, said=said), at=at)


@apart
def dropped(tx: Connection, count: int, *, at: float) -> None:
    """Messages were dropped that the collector will never have: what comes after this has a gap."""
    said = f"{count} audit messages were dropped: they were too old, or too many were waiting."
    about = events.resource(_OUTBOX, said=said)
    _alert(tx, codes.AUDIT_RECORDING_STOPPED, about, at=at, outcome=Outcome.MAJOR_FAILURE)


def _alert(
    tx: Connection,
    what: Code,
    about: Subject,
    *,
    at: float,
    outcome: Outcome = Outcome.SUCCESS,
) -> None:
    recorder = outbox.recorder(tx, Kind.SECURITY)
    if recorder is not None:
        process = recorder.process(is_requestor=True)
        alert = events.alert(process, what=what, about=about, at=at, outcome=outcome)
        outbox.put(tx, recorder, alert)
