"""What an audit collector is told of what happens here: in the same transaction, or not at all."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import audit_schema
import collectors
import paged
import pytest
from paged import FIRST, PASSWORD, PATIENT, Pages, act, sample, sign_in
from sqlalchemy import func, select
from sqlalchemy.exc import OperationalError
from structlog.testing import capture_logs

from dicomnode import inquiry, log
from dicomnode.archive import tables
from dicomnode.archive.access import audit, deeds
from dicomnode.archive.access.action import Action, Result
from dicomnode.archive.arrival import End, Ended, Opened, Stored, TurnedAway
from dicomnode.archive.auditing import outbox, told
from dicomnode.archive.auditing.recording import recorder_of
from dicomnode.archive.auditing.refusals import Refusals
from dicomnode.archive.auditing.repetitions import Repetitions
from dicomnode.archive.database import Database
from dicomnode.archive.keeping import retention
from dicomnode.archive.keeping.retention import Removal
from dicomnode.archive.studies import associations, index
from dicomnode.archive.work import jobs
from dicomnode.auditing import message as messages
from dicomnode.auditing.codes import Kind
from dicomnode.auditing.message import Source
from dicomnode.auditing.recorder import Recorder
from dicomnode.config import Audit
from dicomnode.errors import RetryLater

RECORDER = Recorder(source=Source(id="NODE"), ae_title="NODE", host="ai1")
MR = "1.2.840.10008.5.1.4.1.1.4"


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Pages]:
    with paged.pages(tmp_path) as made:
        made.database.recorder = RECORDER
        yield made


def bodies(database: Database) -> list[str]:
    with database.read() as tx:
        return [one.body for one in outbox.waiting(tx, limit=1000)]


def events(database: Database) -> list[str]:
    return [collectors.told(one) for one in bodies(database)]


# ── The page ────────────────────────────────────────────────────────────────────────────────────


def test_signing_in_and_out_is_told(web: Pages) -> None:
    browser = web.as_("operator")
    act(browser, "/sign-out")
    sign_in(web.browser(), "operator", "wrong")
    assert events(web.database) == [
        "User Authentication (Login) E 0",
        "User Authentication (Logout) E 0",
        "User Authentication (Login) E 4",
    ]
    person, process = audit_schema.parsed(bodies(web.database)[0]).findall("ActiveParticipant")
    assert person.attrib == {
        "UserID": "operator@ai1", "UserName": "operator", "UserIsRequestor": "true",
        "NetworkAccessPointID": "10.0.0.9", "NetworkAccessPointTypeCode": "2",
    }  # fmt: skip
    assert person.find("RoleIDCode").get("csd-code") == "operator"
    assert process.get("AlternativeUserID") == "AETITLES=NODE"


def test_a_name_that_is_no_account_is_told_to_nobody(web: Pages) -> None:
    sign_in(web.browser(), "hunter2-in-the-wrong-field", "wrong")
    (body,) = bodies(web.database)
    assert "hunter2" not in body
    assert audit_schema.parsed(body).find("ActiveParticipant").get("UserID") == "unknown"


def test_too_many_attempts_are_an_alert_as_well(web: Pages) -> None:
    for _ in range(9):
        sign_in(web.browser(), "viewer", "wrong")
    assert len(bodies(web.database)) == 7  # five that were looked at, and one that was not
    assert events(web.database)[-2:] == [
        "User Authentication (Login) E 8",
        "Security Alert (Use of Restricted Function) E 8",
    ]


def test_attempts_that_do_not_end_are_told_once_in_each_minute(web: Pages) -> None:
    with web.database.write() as tx:
        for at in range(0, 300, 10):
            audit.write(
                tx, Action.SIGN_IN, at=float(at), address="10.6.6.6", outcome=Result.REFUSED,
                detail="too many attempts",
            )  # fmt: skip
    assert events(web.database) == [
        "User Authentication (Login) E 8", "Security Alert (Use of Restricted Function) E 8",
    ] * 5  # fmt: skip


def test_who_opens_the_page_of_a_study_is_told_with_the_patient(web: Pages) -> None:
    sample(web.database, web.here.data_dir)
    before = len(bodies(web.database))
    web.as_("viewer").get(f"/studies/{FIRST}")
    _, accessed = bodies(web.database)[before:]
    assert collectors.told(accessed) == "DICOM Instances Accessed R 0"
    root = audit_schema.parsed(accessed)
    study, patient = root.findall("ParticipantObjectIdentification")
    assert study.get("ParticipantObjectID") == FIRST
    assert study.find("ParticipantObjectDescription/SOPClass").get("UID") == MR
    assert patient.findtext("ParticipantObjectName") == PATIENT


def test_what_an_operator_does_with_a_job_is_told(web: Pages) -> None:
    sample(web.database, web.here.data_dir)
    with web.database.read() as tx:
        job = jobs.of_study(tx, FIRST)[0]
    operator = web.as_("operator")
    before = len(bodies(web.database))
    act(operator, f"/jobs/{job.id}/retry")
    told_of = events(web.database)[before:]
    assert len(told_of) == 1
    assert told_of[0].startswith("Procedure Record (Retry) U")


def test_what_is_retried_on_the_command_line_is_told(tmp_path: Path) -> None:
    with paged.pages(tmp_path, web='[audit]\nhost = "collector"') as made:
        sample(made.database, made.here.data_dir)
        inquiry.retry(made.here.configuration, FIRST, person="root", now=made.clock())
        (event,) = events(made.database)
        (body,) = bodies(made.database)
    assert event.startswith("Procedure Record (Retry) U")
    assert audit_schema.parsed(body).find("ActiveParticipant").get("UserName") == "root"


def test_what_somebody_may_not_do_is_an_alert(web: Pages) -> None:
    viewer = web.as_("viewer")
    before = len(bodies(web.database))
    assert viewer.get("/people").status_code == 403
    assert events(web.database)[before:] == ["Security Alert (Use of Restricted Function) E 8"]


def test_a_page_with_spaces_in_its_path_is_named_whole(web: Pages) -> None:
    with web.database.write() as tx:
        audit.write(
            tx, Action.REFUSED, at=1.0, subject="GET /people/a b", outcome=Result.REFUSED,
            detail="x",
        )  # fmt: skip
    assert 'ParticipantObjectID="dicomnode:page/people/a%20b"' in bodies(web.database)[0]


def test_that_the_trail_is_read_is_told(web: Pages) -> None:
    administrator = web.as_("administrator")
    before = len(bodies(web.database))
    assert administrator.get("/audit").status_code == 200
    assert events(web.database)[before:] == ["Audit Log Used R 0"]


def test_every_deed_is_told_or_known_to_be_no_matter_for_a_collector() -> None:
    assert set(Action) - set(deeds._TELLINGS) == {Action.ECHO, Action.CHECK}


def test_accounts_are_told_of(web: Pages) -> None:
    with web.database.write() as tx:
        for action in (
            Action.ADD_PERSON, Action.SET_ROLE, Action.SET_PASSWORD, Action.REMOVE_PERSON,
        ):  # fmt: skip
            audit.write(tx, action, at=1.0, person="root", subject="ada lovelace/1")
    assert events(web.database) == [
        "Security Alert (Security Roles Changed) E 0",
        "Security Alert (Security Roles Changed) E 0",
        "Security Alert (User security Attributes Changed) E 0",
        "Security Alert (Security Roles Changed) E 0",
    ]
    assert "dicomnode:people/ada%20lovelace/1" in bodies(web.database)[0]


def test_a_user_of_the_machine_has_no_role_of_an_account_of_that_name(web: Pages) -> None:
    with web.database.write() as tx:
        for address in ("", "10.0.0.9"):
            audit.write(
                tx, Action.ADD_PERSON, at=1.0, person="administrator", address=address, subject="x"
            )
    machine, page = bodies(web.database)
    assert 'csd-code="administrator"' not in machine
    assert 'csd-code="administrator"' in page


def test_the_trail_of_the_page_is_the_same_with_and_without_a_collector(web: Pages) -> None:
    web.as_("viewer")
    web.database.recorder = None
    web.as_("viewer")
    with web.database.read() as tx:
        first, second = audit.newest(tx, limit=2)
        assert (first.action, first.person) == (second.action, second.person)
        assert tx.scalar(select(func.count()).select_from(tables.audit_message)) == 1


# ── Receiving and removing ──────────────────────────────────────────────────────────────────────


def ended(web: Pages, association: str, *, again: tuple[str, ...] = ()) -> None:
    with web.database.write() as tx:
        told.received(tx, association, again=again, at=2.0)


def brought(web: Pages, study: str, association: str, *, count: int = 3) -> list[str]:
    received = paged.instances(study, count=count, PatientName="A^B", PatientID="7")
    with web.database.write() as tx:
        opening = Opened(
            association=association, peer="mr1", calling_ae_title="MR1", address="10.0.0.5", at=1.0
        )
        associations.opened(tx, opening)
        index.add(tx, [_by(one, association) for one in received])
    return [one.instance.sop_instance_uid for one in received]


def _by(received: index.Received, association: str) -> index.Received:
    return replace(received, association=association)


def test_each_study_that_an_association_brought_has_a_message(web: Pages) -> None:
    brought(web, "1.2.3", "a1")
    brought(web, "1.2.4", "a1", count=2)
    ended(web, "a1")
    found = [audit_schema.parsed(one) for one in bodies(web.database)]
    assert events(web.database) == ["DICOM Instances Transferred C 0"] * 2
    counts = [one.find(".//SOPClass").get("NumberOfInstances") for one in found]
    assert counts == ["3", "2"]
    source, destination = found[0].findall("ActiveParticipant")
    assert (source.get("UserID"), source.get("UserIsRequestor")) == ("mr1", "true")
    assert source.get("NetworkAccessPointID") == "10.0.0.5"
    assert destination.get("AlternativeUserID") == "AETITLES=NODE"


def test_what_came_again_is_told_as_such(web: Pages) -> None:
    uids = brought(web, "1.2.3", "a1")
    ended(web, "a2", again=(uids[0], uids[1], "9.9.9"))
    assert events(web.database) == ["DICOM Instances Transferred R 0"]
    assert 'NumberOfInstances="2"' in bodies(web.database)[0]


def test_an_association_that_brought_nothing_is_not_told_of(web: Pages) -> None:
    ended(web, "a1")
    assert bodies(web.database) == []


def test_repetitions_are_kept_in_mind_until_their_association_has_ended(web: Pages) -> None:
    repetitions = Repetitions()
    stored = Stored(association="a1", path="in/1.2.3.dcm", at=1.0, repeated=True)
    with web.database.write() as tx:
        repetitions.note(tx, [stored])
        repetitions.note(tx, [stored])
    assert len(repetitions.of("a1")) == 1
    repetitions.forget([stored])
    assert len(repetitions.of("a1")) == 1
    repetitions.forget([Ended(association="a1", end=End.RELEASED, stored=1, refused=0, at=2.0)])
    assert not repetitions.of("a1")
    web.database.recorder = None
    with web.database.write() as tx:
        repetitions.note(tx, [stored])
    assert not repetitions.of("a1")


@pytest.mark.parametrize(
    ("reason", "association", "count"),
    [
        ("unknown-peer", "", 1),
        ("wrong-host", "", 1),
        ("wrong-called-ae-title", "", 1),
        ("tls-handshake-failed", "", 1),
        ("too-many-associations", "", 0),
        ("disk-full", "a1", 0),
    ],
)
def test_who_may_not_come_is_an_alert(
    web: Pages, reason: str, association: str, count: int
) -> None:
    arrival = TurnedAway(
        association=association, peer="", reason=reason, detail="EVIL at 10.6.6.6", status=0x010103,
        sop_instance_uid="", study_instance_uid="", at=3.0, calling_ae_title="EVIL",
        address="10.6.6.6",
    )  # fmt: skip
    with web.database.write() as tx:
        Refusals().tell(tx, arrival)
    assert events(web.database) == ["Security Alert (Node Authentication) E 8"] * count
    if count:
        assert 'ParticipantObjectID="10.6.6.6"' in bodies(web.database)[0]
        assert "AETITLES=EVIL" in bodies(web.database)[0]


def test_a_storm_of_refusals_is_told_once_in_a_minute(web: Pages) -> None:
    refusals = Refusals()
    with web.database.write() as tx:
        for second in range(90):
            refusals.tell(tx, _refusal("10.6.6.6", 1000.0 + second))
        refusals.tell(tx, _refusal("10.6.6.7", 1001.0))
    found = [
        audit_schema.parsed(one).find("ParticipantObjectIdentification")
        for one in bodies(web.database)
    ]
    assert [one.get("ParticipantObjectID") for one in found] == [
        "10.6.6.6", "10.6.6.6", "10.6.6.7"
    ]  # fmt: skip
    said = [base64.b64decode(one.find("ParticipantObjectDetail").get("value")) for one in found]
    assert said[0] == b"unknown-peer: X."
    assert said[1] == b"unknown-peer: X. 59 more such since the last alert."


def _refusal(address: str, at: float) -> TurnedAway:
    return TurnedAway(
        association="", peer="", reason="unknown-peer", detail="X.", status=1,
        sop_instance_uid="", study_instance_uid="", at=at, address=address,
    )  # fmt: skip


def test_a_refusal_is_told_again_where_its_transaction_was_rolled_back(web: Pages) -> None:
    refusals, first, same = Refusals(), _refusal("10.6.6.6", 1.0), _refusal("10.6.6.6", 1.0)

    def writes() -> None:
        with web.database.write() as tx:
            for one in (first, same):
                refusals.tell(tx, one)
            if not written:
                raise ZeroDivisionError

    written = False
    with pytest.raises(ZeroDivisionError):
        writes()
    written = True
    writes()
    refusals.forget()
    assert len(bodies(web.database)) == 1
    with web.database.write() as tx:
        refusals.tell(tx, _refusal("10.6.6.6", 100.0))
    about = audit_schema.parsed(bodies(web.database)[1]).find(".//ParticipantObjectDetail")
    said = base64.b64decode(about.get("value"))
    assert said == b"unknown-peer: X. 1 more such since the last alert."


def test_who_was_refused_and_never_came_back_is_forgotten(web: Pages) -> None:
    refusals = Refusals()
    with web.database.write() as tx:
        for number in range(10):
            for at in (1.0, 2.0):
                refusals.tell(tx, _refusal(f"10.6.6.{number}", at))
        refusals.tell(tx, _refusal("10.9.9.9", 100.0))
        assert len(refusals._untold) == 10
        refusals.tell(tx, _refusal("10.9.9.9", 9000.0))
    assert len(refusals._told_at) == 1
    assert not refusals._untold
    web.database.recorder = None
    with web.database.write() as tx:
        refusals.tell(tx, _refusal("10.6.6.6", 9999.0))
    assert len(refusals._told_at) == 1


@pytest.fixture
def no_message_can_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> str:
        raise ValueError("A^B")

    monkeypatch.setattr(messages, "xml", fails)


@pytest.mark.usefixtures("no_message_can_be_made")
def test_what_cannot_be_told_of_happens_all_the_same(web: Pages) -> None:
    brought(web, "1.2.3", "a1")
    ended(web, "a1")
    with web.database.write() as tx:
        told.found(tx, ["9.9"], at=1.0)  # of which there is nothing to tell
        tx.execute(tables.study.update().values(state=index.REMOVING))
        removal = Removal(study_instance_uid="1.2.3", paths=(), folders=(), size=0)
        assert retention.conclude(tx, removal, at=5.0)
    with web.database.read() as tx:
        assert tx.scalar(select(tables.study.c.state)) == index.REMOVED
        assert outbox.state(tx).dropped == 2


@pytest.mark.usefixtures("no_message_can_be_made")
def test_what_is_logged_of_it_names_nobody(web: Pages) -> None:
    brought(web, "1.2.3", "a1")
    with capture_logs() as logged:
        ended(web, "a1")
    (line,) = logged
    assert (line["event"], line["reason"]) == ("audit message failed", "ValueError")
    assert "A^B" not in str(line)


@pytest.mark.usefixtures("no_message_can_be_made")
def test_who_signs_in_does_so_all_the_same(web: Pages) -> None:
    assert web.as_("viewer").get("/studies").status_code == 200


def test_a_database_that_is_away_is_no_fault_of_a_message(
    web: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise OperationalError("INSERT", {}, Exception("disk I/O error"))

    monkeypatch.setattr(outbox, "put", away)
    with pytest.raises(RetryLater):
        told_of_start(web)


def told_of_start(web: Pages) -> None:
    with web.database.write() as tx:
        told.application(tx, has_started=True, at=1.0)


def test_a_study_that_is_removed_is_told_with_what_it_was(web: Pages) -> None:
    brought(web, "1.2.3", "a1")
    with web.database.write() as tx:
        tx.execute(tables.study.update().values(state=index.REMOVING))
    removal = Removal(study_instance_uid="1.2.3", paths=(), folders=(), size=0)
    with web.database.write() as tx:
        assert retention.conclude(tx, removal, at=5.0)
    assert events(web.database) == ["DICOM Study Deleted D 0"]
    (body,) = bodies(web.database)
    assert 'NumberOfInstances="3"' in body
    assert "A^B" in body


def test_what_is_rolled_back_is_not_told(web: Pages) -> None:
    def fails() -> None:
        with web.database.write() as tx:
            told.application(tx, has_started=True, at=1.0)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert bodies(web.database) == []


@pytest.mark.parametrize(("person", "participants"), [("ada", 2), ("", 1)])
def test_a_reload_is_an_alert_and_one_that_was_refused_is_none(
    web: Pages, person: str, participants: int
) -> None:
    with web.database.write() as tx:
        for outcome in (Result.REFUSED, Result.DONE):
            audit.write(tx, Action.RELOAD, at=1.0, person=person, outcome=outcome, detail="x")
    assert events(web.database) == ["Security Alert (Software Configuration) E 0"]
    root = audit_schema.parsed(bodies(web.database)[0])
    assert len(root.findall("ActiveParticipant")) == participants


# ── The configuration ───────────────────────────────────────────────────────────────────────────


def test_without_a_collector_nobody_reports(web: Pages) -> None:
    assert recorder_of(web.here.configuration) is None


def test_what_is_left_out_is_not_told(web: Pages) -> None:
    audit_table = Audit(host="127.0.0.1", leave_out=(Kind.AUTHENTICATION,), source_id="ai-1")
    wanted = web.here.configuration.model_copy(update={"audit": audit_table})
    web.database.recorder = recorder_of(wanted)
    assert web.database.recorder is not None
    assert web.database.recorder.source.id == "ai-1"
    sign_in(web.browser(), "viewer", PASSWORD)
    assert bodies(web.database) == []
    assert web.as_("viewer").get("/people").status_code == 403
    assert len(bodies(web.database)) == 1


def test_no_key_of_the_log_would_take_a_message() -> None:
    assert not log.ALLOWED_KEYS & {"body", "patient", "patient_id", "patient_name", "message"}
