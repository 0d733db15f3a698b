"""Audit messages: each event as PS3.15 A.5 wants it, whatever a data set holds."""

from __future__ import annotations

import base64
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import audit_schema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomnode.auditing import codes, events, message, syslog
from dicomnode.auditing.codes import Code, Kind, Outcome
from dicomnode.auditing.events import Query, Study
from dicomnode.auditing.message import Message, Source
from dicomnode.auditing.recorder import Recorder

AT = 1_700_000_000.25
CT = "1.2.840.10008.5.1.4.1.1.2"
RECORDER = Recorder(
    source=Source(id="NODE", enterprise_site_id="North Wing"), ae_title="NODE", host="ai1"
)
SOURCE = RECORDER.process(codes.SOURCE, is_requestor=True)
DESTINATION = replace(
    RECORDER.process(codes.DESTINATION, is_requestor=False),
    user_id="pacs", ae_title="PACS", user_name="", address="10.0.0.4",
)  # fmt: skip
PERSON = RECORDER.person("ada", codes.role("operator"), address="10.0.0.9")
PROCESS = RECORDER.process(is_requestor=False)
STUDY = Study(
    study_instance_uid="1.2.3",
    patient_id="P-1",
    patient_name="Yamada^Tarou=山田^太郎=やまだ^たろう",
    accession_numbers=("A1", "A2"),
    instances=((CT, 300),),
)

EVERY: dict[str, tuple[Message, Code]] = {
    "start": (
        events.application(RECORDER.process(codes.APPLICATION, is_requestor=False),
                           has_started=True, at=AT),
        codes.APPLICATION_ACTIVITY,
    ),
    "log": (events.log_used(PERSON, PROCESS, uri="dicomnode:x", at=AT), codes.AUDIT_LOG_USED),
    "begun": (events.begun(SOURCE, DESTINATION, STUDY, at=AT), codes.BEGIN_TRANSFERRING),
    "accessed": (events.accessed(PERSON, PROCESS, STUDY, at=AT), codes.INSTANCES_ACCESSED),
    "transferred": (
        events.transferred(SOURCE, DESTINATION, STUDY, action="R", at=AT,
                           outcome=Outcome.SERIOUS_FAILURE, description="destination-refused"),
        codes.INSTANCES_TRANSFERRED,
    ),
    "deleted": (events.deleted(PROCESS, STUDY, at=AT), codes.STUDY_DELETED),
    "procedure": (
        events.procedure(PERSON, PROCESS, STUDY, act=codes.act("retry"), action="U", at=AT),
        codes.PROCEDURE_RECORD,
    ),
    "query": (
        events.queried(SOURCE, DESTINATION, Query(sop_class_uid="1.2.840.10008.5.1.4.1.2.2.1",
                       transfer_syntax_uid="1.2.840.10008.1.2", identifier=b"\0\xff<"), at=AT),
        codes.QUERY,
    ),
    "alert": (
        events.alert(PROCESS, DESTINATION, what=codes.NODE_AUTHENTICATION,
                     about=events.node("10.0.0.66", said="unknown-peer"), at=AT),
        codes.SECURITY_ALERT,
    ),
    "configuration": (
        events.alert(PROCESS, what=codes.SOFTWARE_CONFIGURATION,
                     about=events.file("dicomnode:configuration", said="changed"), at=AT),
        codes.SECURITY_ALERT,
    ),
    "resource": (
        events.alert(PROCESS, what=codes.SECURITY_ROLES_CHANGED,
                     about=events.resource("dicomnode:people/ada", said="made"), at=AT),
        codes.SECURITY_ALERT,
    ),
    "login": (
        events.authenticated(PERSON, PROCESS, is_login=True, at=AT), codes.USER_AUTHENTICATION
    ),
    "logout": (
        events.authenticated(PERSON, PROCESS, is_login=False, at=AT), codes.USER_AUTHENTICATION
    ),
}  # fmt: skip


def told(one: Message) -> Any:
    return audit_schema.parsed(message.xml(one, RECORDER.source))


@pytest.mark.parametrize("name", EVERY)
def test_each_event_has_the_structure_of_the_schema(name: str) -> None:
    made, code = EVERY[name]
    root = told(made)
    event = root.find("EventIdentification/EventID")
    assert (event.get("csd-code"), event.get("codeSystemName")) == (code.value, "DCM")
    assert root.find("EventIdentification").get("EventDateTime") == "2023-11-14T22:13:20.250Z"
    assert root.find("AuditSourceIdentification").attrib == {
        "AuditSourceID": "NODE", "AuditEnterpriseSiteID": "North Wing"
    }  # fmt: skip


@pytest.mark.parametrize("name", EVERY)
def test_no_event_has_more_than_one_requestor(name: str) -> None:
    every = [one.get("UserIsRequestor") for one in told(EVERY[name][0]).iter("ActiveParticipant")]
    assert set(every) <= {"true", "false"}
    assert every.count("true") <= 1


def test_every_kind_of_the_configuration_has_an_event() -> None:
    assert {made.kind for made, _ in EVERY.values()} == set(Kind)


def test_a_transfer_names_both_sides_the_study_and_the_patient() -> None:
    root = told(EVERY["begun"][0])
    source, destination = root.findall("ActiveParticipant")
    assert source.attrib == {
        "UserID": str(os.getpid()),
        "AlternativeUserID": "AETITLES=NODE",
        "UserName": "dicomnode",
        "UserIsRequestor": "true",
        "NetworkAccessPointID": "ai1",
        "NetworkAccessPointTypeCode": "1",
    }
    assert destination.get("NetworkAccessPointTypeCode") == "2"
    assert [one.find("RoleIDCode").get("csd-code") for one in (source, destination)] == [
        "110153", "110152"
    ]  # fmt: skip
    study, patient = root.findall("ParticipantObjectIdentification")
    assert study.get("ParticipantObjectID") == "1.2.3"
    description = study.find("ParticipantObjectDescription")
    assert [one.get("Number") for one in description.findall("Accession")] == ["A1", "A2"]
    assert description.find("SOPClass").attrib == {"UID": CT, "NumberOfInstances": "300"}
    assert patient.get("ParticipantObjectID") == "P-1"
    assert patient.findtext("ParticipantObjectName") == STUDY.patient_name
    assert patient.find("ParticipantObjectIDTypeCode").attrib == {
        "csd-code": "2", "codeSystemName": "RFC-3881", "originalText": "Patient Number"
    }  # fmt: skip


def test_a_query_holds_the_data_set_and_its_transfer_syntax() -> None:
    subject = told(EVERY["query"][0]).find("ParticipantObjectIdentification")
    assert base64.b64decode(subject.findtext("ParticipantObjectQuery")) == b"\0\xff<"
    detail = subject.find("ParticipantObjectDetail")
    assert detail.get("type") == "TransferSyntax"
    assert base64.b64decode(detail.get("value")) == b"1.2.840.10008.1.2"


def test_a_person_is_named_with_the_role() -> None:
    person = told(EVERY["accessed"][0]).find("ActiveParticipant")
    assert person.get("UserID") == "ada@ai1"
    assert person.find("RoleIDCode").get("originalText") == "Operator"


HOSTILE = {
    "\x00\x1b[2J": "\ufffd\ufffd[2J",
    "a\r\n<85>1 forged": "a <85>1 forged",
    'x" UserID="root': 'x" UserID="root',
    "]]><!-- &amp; &lt;": "]]><!-- &amp; &lt;",
    "\ud800\uffff": "\ufffd\ufffd",
    "": "",
    "Wałęsa^Änne^ЖÅ": "Wałęsa^Änne^ЖÅ",
}


@pytest.mark.parametrize(("name", "said"), HOSTILE.items(), ids=ascii)
def test_a_hostile_name_is_told_and_does_no_harm(name: str, said: str) -> None:
    body = message.xml(
        events.deleted(PROCESS, replace(STUDY, patient_name=name, patient_id=name), at=AT),
        RECORDER.source,
    )
    assert body.isprintable()
    _, patient = audit_schema.parsed(body).findall("ParticipantObjectIdentification")
    assert (patient.findtext("ParticipantObjectName") or "") == said
    assert patient.get("ParticipantObjectID") == said


@given(st.text(st.characters()))
def test_whatever_a_header_holds_makes_a_message(text: str) -> None:
    study = Study(
        study_instance_uid=text, patient_id=text, patient_name=text, accession_numbers=(text,),
        instances=((text, 1),),
    )  # fmt: skip
    person = RECORDER.person(text, address=text)
    for made in (
        events.transferred(SOURCE, DESTINATION, study, action="C", at=AT, description=text),
        events.alert(person, what=codes.NODE_AUTHENTICATION, about=events.node(text, said=text),
                     at=AT),
    ):  # fmt: skip
        body = message.xml(made, Source(id=text, enterprise_site_id=text))
        audit_schema.parsed(body)
        framed = syslog.frame(body, at=AT, host=text, process=text)
        assert len(framed) < syslog.LEAST_LONGEST
        assert not set(framed) & set(range(32))


def test_a_value_of_any_length_makes_no_message_that_a_collector_need_not_take() -> None:
    worst = '"' * 10_000  # six octets each
    study = replace(
        STUDY, accession_numbers=("A1", *[worst] * 100_000), patient_name=worst, patient_id=worst
    )
    body = message.xml(events.deleted(PROCESS, study, at=AT), RECORDER.source)
    framed = syslog.frame(body, at=AT, host="ai1", process="1")
    assert len(framed) < syslog.LEAST_LONGEST
    assert 'Number="A1"' in body


def test_a_frame_has_the_header_that_the_standard_asks_for() -> None:
    framed = syslog.frame("<x/>", at=AT, host="ai1", process="77")
    assert framed == (
        b"<85>1 2023-11-14T22:13:20.250Z ai1 dicomnode 77 DICOM+RFC3881 - \xef\xbb\xbf<x/>"
    )
    assert syslog.counted(framed) == b"%d %b" % (len(framed), framed)


def test_a_host_without_a_name_is_nothing() -> None:
    assert syslog.frame("", at=AT, host="ä ö", process="").split(b" ")[2:5] == [
        b"-", b"dicomnode", b"-"
    ]  # fmt: skip


def test_nothing_that_names_a_patient_is_in_the_repr_of_a_message() -> None:
    said = repr(EVERY["transferred"][0]) + repr(STUDY) + repr(EVERY["query"][0])
    assert not any(word in said for word in ("Yamada", "P-1", "A1"))


def test_the_package_says_itself_that_it_stays_out_of_the_log() -> None:
    folder = Path(events.__file__).parent
    assert not [path for path in folder.glob("*.py") if "import log" in path.read_text()]
