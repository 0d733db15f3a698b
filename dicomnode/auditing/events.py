"""One function for each event of PS3.15 A.5.3 that the node tells of: facts → `Message`."""

from __future__ import annotations

from dataclasses import dataclass, field

from dicomnode.auditing import codes, message
from dicomnode.auditing.codes import Code, Kind, Outcome
from dicomnode.auditing.message import Message, Participant, Subject

_ALERT_DESCRIPTION = "Alert Description"  # PS3.15 Table A.5.3.11-1
_TRANSFER_SYNTAX = "TransferSyntax"  # PS3.15 Table A.5.3.10-1


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study, or what of it took part, and whose it is.

    Attributes:
        instances: SOP Class UID and how many instances of it.
    """

    study_instance_uid: str
    patient_id: str = field(default="", repr=False)
    patient_name: str = field(default="", repr=False)
    accession_numbers: tuple[str, ...] = field(default=(), repr=False)
    instances: tuple[tuple[str, int], ...] = ()

    @property
    def subjects(self) -> tuple[Subject, ...]:
        """The study, then its patient: every message that names the one names the other."""
        return (
            Subject(
                id=self.study_instance_uid,
                id_type=codes.STUDY_INSTANCE_UID,
                type_code=message.SYSTEM,
                role=message.REPORT,
                name=self.study_instance_uid,
                accession_numbers=self.accession_numbers,
                instances=self.instances,
            ),
            Subject(
                id=self.patient_id,
                id_type=codes.PATIENT_NUMBER,
                type_code=message.PERSON,
                role=message.PATIENT,
                name=self.patient_name,
            ),
        )


@dataclass(frozen=True, kw_only=True)
class Query:
    """A C-FIND.

    Attributes:
        identifier: The data set that was asked with, encoded in that transfer syntax.
    """

    sop_class_uid: str
    transfer_syntax_uid: str
    identifier: bytes = field(repr=False)


def application(process: Participant, *, has_started: bool, at: float) -> Message:
    """Application Activity (A.5.3.1): the node starts or stops."""
    return Message(
        kind=Kind.APPLICATION,
        event=codes.APPLICATION_ACTIVITY,
        types=(codes.APPLICATION_START if has_started else codes.APPLICATION_STOP,),
        action="E",
        at=at,
        participants=(process,),
    )


def log_used(person: Participant, process: Participant, *, uri: str, at: float) -> Message:
    """Audit Log Used (A.5.3.2): somebody reads the trail that the page keeps."""
    return Message(
        kind=Kind.LOG_USED,
        event=codes.AUDIT_LOG_USED,
        action="R",
        at=at,
        participants=(person, process),
        subjects=(
            Subject(
                id=uri,
                id_type=codes.URI,
                type_code=message.SYSTEM,
                role=message.SECURITY_RESOURCE,
                name="Security Audit Log",
            ),
        ),
    )


def begun(source: Participant, destination: Participant, study: Study, *, at: float) -> Message:
    """Begin Transferring DICOM Instances (A.5.3.3)."""
    return Message(
        kind=Kind.TRANSFER,
        event=codes.BEGIN_TRANSFERRING,
        action="E",
        at=at,
        participants=(source, destination),
        subjects=study.subjects,
    )


def transferred(
    source: Participant,
    destination: Participant,
    study: Study,
    *,
    action: str,
    at: float,
    outcome: Outcome = Outcome.SUCCESS,
    description: str = "",
) -> Message:
    """DICOM Instances Transferred (A.5.3.7).

    Args:
        action: C where the receiver had none of them, R where it had or where that is not known.
    """
    return Message(
        kind=Kind.TRANSFER,
        event=codes.INSTANCES_TRANSFERRED,
        action=action,
        at=at,
        outcome=outcome,
        description=description,
        participants=(source, destination),
        subjects=study.subjects,
    )


def accessed(person: Participant, process: Participant, study: Study, *, at: float) -> Message:
    """DICOM Instances Accessed (A.5.3.6): somebody has opened the page of a study."""
    return Message(
        kind=Kind.ACCESS,
        event=codes.INSTANCES_ACCESSED,
        action="R",
        at=at,
        participants=(person, process),
        subjects=study.subjects,
    )


def deleted(process: Participant, study: Study, *, at: float) -> Message:
    """DICOM Study Deleted (A.5.3.8)."""
    return Message(
        kind=Kind.DELETION,
        event=codes.STUDY_DELETED,
        action="D",
        at=at,
        participants=(process,),
        subjects=study.subjects,
    )


def procedure(
    person: Participant,
    process: Participant,
    study: Study,
    *,
    act: Code,
    action: str,
    at: float,
    outcome: Outcome = Outcome.SUCCESS,
) -> Message:
    """Procedure Record (A.5.3.15): an operator has done something with a job of a study."""
    return Message(
        kind=Kind.PROCEDURE,
        event=codes.PROCEDURE_RECORD,
        types=(act,),
        action=action,
        at=at,
        outcome=outcome,
        participants=(person, process),
        subjects=study.subjects,
    )


def queried(source: Participant, destination: Participant, query: Query, *, at: float) -> Message:
    """Query (A.5.3.10): the node has asked a peer what it has."""
    return Message(
        kind=Kind.QUERY,
        event=codes.QUERY,
        action="E",
        at=at,
        participants=(source, destination),
        subjects=(
            Subject(
                id=query.sop_class_uid,
                id_type=codes.SOP_CLASS_UID,
                type_code=message.SYSTEM,
                role=message.REPORT,
                query=query.identifier,
                details=((_TRANSFER_SYNTAX, query.transfer_syntax_uid.encode("ascii")),),
            ),
        ),
    )


def alert(
    reporter: Participant,
    *performers: Participant,
    what: Code,
    about: Subject,
    at: float,
    outcome: Outcome = Outcome.SUCCESS,
) -> Message:
    """Security Alert (A.5.3.11).

    Args:
        reporter: Who noticed it.
        performers: Who did it, where that is known; none of them is the requestor.
        about: As `node`, `resource` or `file` makes it.
        outcome: Of a failure: what it told of was kept out (minor, serious), or not (major).
    """
    return Message(
        kind=Kind.SECURITY,
        event=codes.SECURITY_ALERT,
        types=(what,),
        action="E",
        at=at,
        outcome=outcome,
        participants=(reporter, *performers),
        subjects=(about,),
    )


def node(address: str, *, said: str) -> Subject:
    """A machine that an alert is about, and the alert's description."""
    return _alerted(address, codes.NODE_ID, "", said)


def resource(uri: str, *, said: str) -> Subject:
    """A part of the node that an alert is about, and the alert's description."""
    return _alerted(uri, codes.URI, message.SECURITY_RESOURCE, said)


#: What a configuration is called in an alert: no path says anything to a collector.
CONFIGURATION = "dicomnode:configuration"


def file(uri: str, *, said: str) -> Subject:
    """A file that an alert is about, and the alert's description."""
    return _alerted(uri, codes.URI, message.MASTER_FILE, said)


def _alerted(id: str, id_type: Code, role: str, said: str) -> Subject:  # noqa: A002 - the schema's
    return Subject(
        id=id,
        id_type=id_type,
        type_code=message.SYSTEM,
        role=role,
        name=id,
        details=((_ALERT_DESCRIPTION, message.sayable(said).encode()),),
    )


def authenticated(
    person: Participant,
    process: Participant,
    *,
    is_login: bool,
    at: float,
    outcome: Outcome = Outcome.SUCCESS,
    description: str = "",
) -> Message:
    """User Authentication (A.5.3.12): somebody has signed in or out, or has tried to."""
    return Message(
        kind=Kind.AUTHENTICATION,
        event=codes.USER_AUTHENTICATION,
        types=(codes.LOGIN if is_login else codes.LOGOUT,),
        action="E",
        at=at,
        outcome=outcome,
        description=description,
        participants=(person, process),
    )
