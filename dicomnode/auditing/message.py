"""One audit message: the elements of the schema of PS3.15 A.5.1, and their XML."""

from __future__ import annotations

import base64
import ipaddress
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from xml.etree import ElementTree as ET

from dicomnode.auditing.codes import Code, Kind, Outcome

# XML 1.0 (2.2) has no way to say these, and a log is read line by line.
_BREAKS = re.compile("[\t\n\r\x85\u2028\u2029]+")
_UNSAYABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_REPLACEMENT = "\ufffd"
# Longer than any value of a data element that ends up here (PN: 3 x 64), and far from 32 KiB.
_LONGEST_TEXT = 512
# A study has one accession number or a few, of 16 characters; a value may hold as many as its
# sender likes.
_MOST_NUMBERS, _LONGEST_NUMBER = 16, 64

#: NetworkAccessPointTypeCode (PS3.15 A.5.1.1).
_MACHINE_NAME, _IP_ADDRESS = "1", "2"
#: ParticipantObjectTypeCode and ParticipantObjectTypeCodeRole (PS3.15 A.5.1.2.2).
PERSON, SYSTEM = "1", "2"
PATIENT, REPORT, MASTER_FILE, SECURITY_RESOURCE = "1", "3", "5", "13"


@dataclass(frozen=True, kw_only=True)
class Source:
    """Who reports (AuditSourceIdentification).

    Attributes:
        id: AuditSourceID.
        enterprise_site_id: AuditEnterpriseSiteID; "" leaves it out.
    """

    id: str
    enterprise_site_id: str = ""


@dataclass(frozen=True, kw_only=True)
class Participant:
    """A person or a process that takes part (ActiveParticipant).

    Attributes:
        user_id: A process by its number in the system's logs, a peer by its name in the
            configuration, a person as name@machine (PS3.15 A.5.2.1).
        ae_title: Of a process that speaks DICOM; "" for any other.
        is_requestor: Whether it began what is told; one of a message at most.
        address: Name or address of its machine; "" where that is not known.
    """

    user_id: str = field(repr=False)
    is_requestor: bool
    ae_title: str = ""
    user_name: str = field(default="", repr=False)
    roles: tuple[Code, ...] = ()
    address: str = ""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What it is about (ParticipantObjectIdentification).

    Attributes:
        name: Stands in the message unless there is a `query`.
        type_code: ParticipantObjectTypeCode; "" leaves it out, as with `role`.
        details: Type and value of each ParticipantObjectDetail.
        instances: SOP Class UID and how many instances of it.
    """

    id: str = field(repr=False)
    id_type: Code
    type_code: str
    role: str = ""
    name: str = field(default="", repr=False)
    query: bytes | None = field(default=None, repr=False)
    details: tuple[tuple[str, bytes], ...] = field(default=(), repr=False)
    accession_numbers: tuple[str, ...] = field(default=(), repr=False)
    instances: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Message:
    """What happened, who took part, and what it was about.

    Attributes:
        kind: What the configuration calls messages like it.
        action: EventActionCode: C, R, U, D or E.
        at: Seconds since the epoch.
        description: EventOutcomeDescription; "" leaves it out.
    """

    kind: Kind
    event: Code
    action: str
    at: float
    participants: tuple[Participant, ...]
    subjects: tuple[Subject, ...] = ()
    types: tuple[Code, ...] = ()
    outcome: Outcome = Outcome.SUCCESS
    description: str = ""


def moment(at: float) -> str:
    """A time as both the message and the frame around it say it (RFC 3339), in UTC."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def xml(message: Message, source: Source) -> str:
    """The XML of a message: one line, its elements in the order of the schema."""
    root = ET.Element("AuditMessage")
    _event(root, message)
    for participant in message.participants:
        _participant(root, participant)
    _source(root, source)
    for subject in message.subjects:
        _subject(root, subject)
    declaration = '<?xml version="1.0" encoding="UTF-8"?>'
    return declaration + ET.tostring(root, encoding="unicode")


def _event(root: ET.Element, message: Message) -> None:
    event = ET.SubElement(
        root,
        "EventIdentification",
        EventActionCode=message.action,
        EventDateTime=moment(message.at),
        EventOutcomeIndicator=str(int(message.outcome)),
    )
    _code(event, "EventID", message.event)
    for code in message.types:
        _code(event, "EventTypeCode", code)
    if message.description:
        ET.SubElement(event, "EventOutcomeDescription").text = sayable(message.description)


def _participant(root: ET.Element, participant: Participant) -> None:
    values = {
        "UserID": sayable(participant.user_id),
        # PS3.15 A.5.2.2
        "AlternativeUserID": f"AETITLES={sayable(participant.ae_title)}"
        if participant.ae_title
        else "",
        "UserName": sayable(participant.user_name),
        "UserIsRequestor": str(participant.is_requestor).lower(),
    }
    made = ET.SubElement(root, "ActiveParticipant", _given(values) | {"UserID": values["UserID"]})
    if participant.address:
        made.set("NetworkAccessPointID", sayable(participant.address))
        made.set("NetworkAccessPointTypeCode", _kind_of_address(participant.address))
    for code in participant.roles:
        _code(made, "RoleIDCode", code)


def _source(root: ET.Element, source: Source) -> None:
    values = {
        "AuditEnterpriseSiteID": sayable(source.enterprise_site_id),
        "AuditSourceID": sayable(source.id),
    }
    made = ET.SubElement(
        root,
        "AuditSourceIdentification",
        _given(values) | {"AuditSourceID": values["AuditSourceID"]},
    )
    # PS3.15 Table A.5.1.2.1-1: an application server process
    ET.SubElement(made, "AuditSourceTypeCode", {"csd-code": "4"})


def _subject(root: ET.Element, subject: Subject) -> None:
    values = {
        "ParticipantObjectID": sayable(subject.id),
        "ParticipantObjectTypeCode": subject.type_code,
        "ParticipantObjectTypeCodeRole": subject.role,
    }
    made = ET.SubElement(
        root,
        "ParticipantObjectIdentification",
        _given(values) | {"ParticipantObjectID": values["ParticipantObjectID"]},
    )
    _code(made, "ParticipantObjectIDTypeCode", subject.id_type)
    # The schema asks for exactly one of the two.
    if subject.query is None:
        ET.SubElement(made, "ParticipantObjectName").text = sayable(subject.name)
    else:
        ET.SubElement(made, "ParticipantObjectQuery").text = _base64(subject.query)
    for kind, value in subject.details:
        ET.SubElement(made, "ParticipantObjectDetail", type=kind, value=_base64(value))
    _description(made, subject)


def _description(made: ET.Element, subject: Subject) -> None:
    if not (subject.accession_numbers or subject.instances):
        return
    description = ET.SubElement(made, "ParticipantObjectDescription")
    for number in subject.accession_numbers[:_MOST_NUMBERS]:
        ET.SubElement(description, "Accession", Number=sayable(number, _LONGEST_NUMBER))
    for uid, count in subject.instances:
        ET.SubElement(description, "SOPClass", UID=sayable(uid), NumberOfInstances=str(count))


def _code(parent: ET.Element, name: str, code: Code) -> None:
    ET.SubElement(
        parent,
        name,
        {"csd-code": code.value, "codeSystemName": code.scheme, "originalText": code.meaning},
    )


def _given(values: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in values.items() if value}


def _kind_of_address(address: str) -> str:
    try:
        ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return _MACHINE_NAME
    return _IP_ADDRESS


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")


def sayable(text: str, longest: int = _LONGEST_TEXT) -> str:
    """A text as XML can say it, in one line, and not too long.

    What a data set holds may be anything: what XML has no way to say is replaced, not left out, so
    that it is seen.
    """
    said = _UNSAYABLE.sub(_REPLACEMENT, _BREAKS.sub(" ", text))
    return said if len(said) <= longest else f"{said[: longest - 1]}…"
