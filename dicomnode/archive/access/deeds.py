"""What somebody did on the page or the command line, as audit messages.

Some deeds are no matter for a collector: to ask whether a peer answers, to check the configuration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

from sqlalchemy import Connection, func, select

from dicomnode.archive import tables
from dicomnode.archive.access.action import Action, Result
from dicomnode.archive.auditing import outbox, studies
from dicomnode.archive.auditing.apart import apart
from dicomnode.archive.auditing.refusals import QUIET_S
from dicomnode.auditing import codes, events
from dicomnode.auditing.codes import Code, Kind, Outcome
from dicomnode.auditing.message import Message, Participant
from dicomnode.auditing.recorder import Recorder

#: Where accounts and pages are, for alerts that are about one.
_PEOPLE = "dicomnode:people/"
_PAGE = "dicomnode:page"
#: The trail that the page keeps.
_TRAIL = "dicomnode:page/audit"


@dataclass(frozen=True, kw_only=True)
class Deed:
    """One line of the page's own trail (`access.audit`).

    Attributes:
        study: The study whose data were seen, or with whose jobs something was done.
    """

    action: Action
    at: float
    person: str = field(repr=False)
    address: str
    subject: str
    outcome: Result
    detail: str
    study: str = ""


@dataclass(frozen=True, kw_only=True)
class _Telling:
    """What the functions below need."""

    tx: Connection
    recorder: Recorder
    deed: Deed

    @property
    def person(self) -> Participant:
        """Who did it, as the requestor."""
        return self._person(is_requestor=True)

    @property
    def performer(self) -> Participant:
        """Who did it, as alerts name those (PS3.15 Table A.5.3.11-1)."""
        return self._person(is_requestor=False)

    @property
    def process(self) -> Participant:
        """Where it was done."""
        return self.recorder.process(is_requestor=False)

    def _person(self, *, is_requestor: bool) -> Participant:
        deed = self.deed
        return self.recorder.person(
            deed.person,
            # A user of the machine is no account of the page, whatever the name.
            *(_roles(self.tx, deed.person) if deed.address else ()),
            # What is done on the command line is done on the machine of the node.
            address=deed.address or self.recorder.host,
            is_requestor=is_requestor,
        )


def _roles(tx: Connection, name: str) -> Iterable[Code]:
    columns = tables.person.c
    found = tx.scalar(select(columns.role).where(columns.name == name)) if name else None
    return [codes.role(str(found))] if found else []


@apart
def tell(tx: Connection, deed: Deed) -> None:
    """Tell of a deed, in the transaction that it is written down in, once it is."""
    if deed.action is Action.SIGN_IN and deed.outcome is Result.REFUSED and _is_repeated(tx, deed):
        return
    for kind, make in _TELLINGS.get(deed.action, ()):
        recorder = outbox.recorder(tx, kind)
        if recorder is not None:
            message = make(_Telling(tx=tx, recorder=recorder, deed=deed))
            if message is not None:
                outbox.put(tx, recorder, message)


def _is_repeated(tx: Connection, deed: Deed) -> bool:
    """Whether somebody there was kept out in the same minute, too: one message in each will do.

    Not within a minute before: of an attack without a pause nothing would be told but its begin.
    """
    columns = tables.audit.c
    same = tx.scalar(
        select(func.count()).where(
            columns.at >= deed.at - deed.at % QUIET_S,
            columns.action == deed.action,
            columns.outcome == deed.outcome,
            columns.address == deed.address[:64],  # as much of it as is kept
        )
    )
    return (same or 0) > 1


@apart
def trail_read(tx: Connection, person: str, *, address: str, at: float) -> None:
    """Tell that somebody reads the page's own trail."""
    recorder = outbox.recorder(tx, Kind.LOG_USED)
    if recorder is not None:
        who = recorder.person(person, *_roles(tx, person), address=address)
        process = recorder.process(is_requestor=False)
        outbox.put(tx, recorder, events.log_used(who, process, uri=_TRAIL, at=at))


_SIGN_IN_OUTCOMES = {
    Result.DONE: Outcome.SUCCESS,
    Result.FAILED: Outcome.MINOR_FAILURE,
    # PS3.15 Table A.5.2-1: terminated, for instance after too many attempts
    Result.REFUSED: Outcome.SERIOUS_FAILURE,
}


def _signed_in(of: _Telling) -> Message:
    deed = of.deed
    return events.authenticated(
        of.person,
        of.process,
        is_login=True,
        at=deed.at,
        outcome=_SIGN_IN_OUTCOMES[deed.outcome],
        description=deed.detail if deed.outcome is not Result.DONE else "",
    )


def _signed_out(of: _Telling) -> Message:
    return events.authenticated(of.person, of.process, is_login=False, at=of.deed.at)


def _kept_out(of: _Telling) -> Message | None:
    """Somebody has failed to sign in so often that no attempt is looked at for a while."""
    if of.deed.outcome is not Result.REFUSED:
        return None
    said = f"Sign-in refused: {of.deed.detail}."
    return _restricted(of, uri=f"{_PAGE}/sign-in", said=said)


def _refused(of: _Telling) -> Message:
    """Somebody wanted what only others may."""
    path = of.deed.subject.partition(" ")[2]  # behind the method; it may have spaces itself
    said = f"{of.deed.subject} refused: {of.deed.detail}."
    return _restricted(of, uri=f"{_PAGE}{quote(path)}", said=said)


def _restricted(of: _Telling, *, uri: str, said: str) -> Message:
    return events.alert(
        of.process,
        of.performer,
        what=codes.USE_OF_RESTRICTED_FUNCTION,
        about=events.resource(uri, said=said),
        at=of.deed.at,
        outcome=Outcome.SERIOUS_FAILURE,
    )


def _account(what: Code, said: str) -> Callable[[_Telling], Message]:
    def made(of: _Telling) -> Message:
        name, detail = of.deed.subject, f" ({of.deed.detail})" if of.deed.detail else ""
        return events.alert(
            of.process,
            of.performer,
            what=what,
            about=events.resource(f"{_PEOPLE}{quote(name)}", said=f"{said} {name}{detail}."),
            at=of.deed.at,
        )

    return made


def _reloaded(of: _Telling) -> Message | None:
    """Another configuration is in force; of a signal nobody knows who sent it."""
    deed = of.deed
    if deed.outcome is not Result.DONE:
        return None
    return events.alert(
        of.process,
        *([of.performer] if deed.person else []),
        what=codes.SOFTWARE_CONFIGURATION,
        about=events.file(events.CONFIGURATION, said=f"Reloaded: {deed.detail}"),
        at=deed.at,
    )


def _looked(of: _Telling) -> Message | None:
    deed = of.deed
    if not deed.study:
        return None
    return events.accessed(of.person, of.process, studies.whole(of.tx, deed.study), at=deed.at)


def _acted(action: str) -> Callable[[_Telling], Message | None]:
    """What an operator has done with a job.

    Args:
        action: EventActionCode: C where one was made, U where one was changed, R where one was
            used.
    """

    def made(of: _Telling) -> Message | None:
        deed = of.deed
        if not deed.study:
            return None
        return events.procedure(
            of.person,
            of.process,
            studies.whole(of.tx, deed.study),
            act=codes.act(str(deed.action)),
            action=action,
            at=deed.at,
            outcome=Outcome.SUCCESS if deed.outcome is Result.DONE else Outcome.MINOR_FAILURE,
        )

    return made


_Make = Callable[[_Telling], Message | None]
#: What is told of each deed. One that is not named is no matter for a collector.
_TELLINGS: Mapping[Action, tuple[tuple[Kind, _Make], ...]] = {
    Action.SIGN_IN: ((Kind.AUTHENTICATION, _signed_in), (Kind.SECURITY, _kept_out)),
    Action.SIGN_OUT: ((Kind.AUTHENTICATION, _signed_out),),
    Action.ADD_PERSON: (
        (Kind.SECURITY, _account(codes.SECURITY_ROLES_CHANGED, "An account was made:")),
    ),
    Action.REMOVE_PERSON: (
        (Kind.SECURITY, _account(codes.SECURITY_ROLES_CHANGED, "An account was removed:")),
    ),
    Action.SET_ROLE: ((Kind.SECURITY, _account(codes.SECURITY_ROLES_CHANGED, "Another role of")),),
    Action.SET_PASSWORD: (
        (Kind.SECURITY, _account(codes.USER_SECURITY_ATTRIBUTES_CHANGED, "A new password of")),
    ),
    Action.LOOK: ((Kind.ACCESS, _looked),),
    Action.RUN: ((Kind.PROCEDURE, _acted("C")),),
    Action.RETRY: ((Kind.PROCEDURE, _acted("U")),),
    Action.CANCEL: ((Kind.PROCEDURE, _acted("U")),),
    Action.SEND: ((Kind.PROCEDURE, _acted("R")),),
    Action.RELOAD: ((Kind.SECURITY, _reloaded),),
    Action.REFUSED: ((Kind.SECURITY, _refused),),
}
