"""A whole node tells of what is wrong: by e-mail and webhook, once, and of its end."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import channels
import pydicom
import pytest
import running
import servers
from channels import MailServer, Receiver, mail_server, receiver
from pynetdicom import AE, evt
from running import RunningNode, wait_for
from running import running as running_node

from dicomnode import check
from dicomnode.archive.alerts import messages
from dicomnode.archive.database import Database
from dicomnode.network.calling import sender

SAMPLE = sorted((running.HIPPOCAMPUS / "sample").rglob("*.dcm"))
TABLE = """
[alerts]
collect_s = 1
destination_down_minutes = 0.05
ignore = ["everything-fails"]
"""
DOWN = "pacs takes no results; 1 delivery does not get through."
#: Whatever of an instance could lead to a person. Numbers that are short lead to nobody.
IDENTIFYING = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientBirthTime", "AccessionNumber",
    "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "StudyID", "StudyDate",
    "SeriesDescription", "StudyDescription", "ReferringPhysicianName", "InstitutionName",
)  # fmt: skip


def named(folder: Path, files: list[Path]) -> list[Path]:
    """The images of somebody, with every value by which somebody could be known."""
    folder.mkdir()
    found = []
    for file in files:
        dataset = pydicom.dcmread(file)
        dataset.PatientName = "Lindqvist^Astrid^Maria"
        dataset.PatientID = "PID-20425-X"
        dataset.PatientBirthDate = "19530412"
        dataset.AccessionNumber = "ACC-77120"
        dataset.StudyID = "STUDY-4711"
        dataset.ReferringPhysicianName = "Okafor^Chidi"
        dataset.InstitutionName = "St. Elsewhere"
        dataset.save_as(folder / file.name)
        found.append(folder / file.name)
    return found


def with_a_gap(files: list[Path]) -> list[Path]:
    slices = sorted(files, key=lambda file: float(pydicom.dcmread(file).SliceLocation or 0))
    return [one for number, one in enumerate(slices) if number != len(slices) // 2]


def values(files: list[Path]) -> set[str]:
    """Every identifying value of some images."""
    found: set[str] = set()
    for file in files:
        dataset = pydicom.dcmread(file, stop_before_pixels=True)
        for keyword in IDENTIFYING:
            text = str(dataset.get(keyword, "") or "")
            found |= {part for part in (text, *text.split("^")) if len(part) > 4}
    return found


def send(files: list[Path], to: RunningNode) -> str:
    destination = sender.Destination(ae_title="DICOMNODE", host="127.0.0.1", port=to.port)
    sent = sender.send(files, to=destination, calling_ae_title="MODALITY")
    assert all(sender.outcome(one.status) == "stored" for one in sent)
    return str(pydicom.dcmread(files[0], specific_tags=["StudyInstanceUID"]).StudyInstanceUID)


def subjects(server: MailServer) -> list[str]:
    return [str(one["Subject"]).removeprefix("[DICOMNODE] ") for one in server.messages]


def waits_for(server: MailServer, *told: str, live: RunningNode) -> list[str]:
    """Return once each of some messages has come; returns all that have."""

    def ask() -> list[str] | None:
        found = subjects(server)
        return found if all(any(s.startswith(one) for s in found) for one in told) else None

    try:
        return wait_for(ask, what=f"the messages {told}")
    except AssertionError as error:
        raise AssertionError(f"{error}\n{subjects(server)}\n{live.log}") from None


@contextmanager
def pacs(port: int) -> Iterator[None]:
    """A destination that takes everything."""
    entity = AE(ae_title="PACS")
    entity.supported_contexts = AE().supported_contexts
    from pynetdicom import AllStoragePresentationContexts
    from pynetdicom.sop_class import Verification

    entity.add_supported_context(Verification)
    for context in AllStoragePresentationContexts:
        entity.add_supported_context(str(context.abstract_syntax))
    server = entity.start_server(
        ("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, lambda _: 0x0000)]
    )
    assert server is not None
    try:
        yield
    finally:
        server.shutdown()


@pytest.fixture(
    params=["sqlite", pytest.param("postgresql", marks=pytest.mark.server("postgresql"))]
)
def database(request: pytest.FixtureRequest) -> str:
    if request.param == "sqlite":
        return ""
    return f'[database]\nurl = "{request.getfixturevalue("postgres_url")}"'


def configuration(port: int, *extra: str) -> str:
    peer = {"ae_title": "PACS", "port": port, "more": f'confirm = "none"\n{running.PLAIN}'}
    return running.toml(
        pacs=peer, routes=running.HIPPOCAMPUS_ROUTE, extra="\n\n".join(("[web]\nport = 0", *extra))
    )


def hook(there: Receiver, secret: Path) -> str:
    return f'[alerts.webhook]\nurl = "{there.url}"\nsecret_file = "{secret}"'


def test_a_failed_study_and_a_destination_that_is_down_and_comes_back(
    tmp_path: Path, database: str, free_port: int
) -> None:
    images = named(tmp_path / "images", SAMPLE)
    secret = channels.written(tmp_path, "signing", channels.SECRET)
    with mail_server() as server, receiver() as there:
        text = configuration(free_port, database, TABLE, server.table(), hook(there, secret))
        with running_node(tmp_path / "node", text) as live:
            assert live.outcome(send(with_a_gap(images), live))["outcome"] == "failed"
            assert waits_for(server, "1 study", live=live) == ["1 study has failed."]
            # Now whole: it has failed no more, and its destination is not there.
            send(images, live)
            waits_for(server, DOWN, "Over: no study has failed", live=live)
            # In between everything is started again: nothing is told twice.
            assert live.stop() == 0
            live.start()
            with pacs(free_port):
                told = waits_for(server, "Over: pacs takes results again", live=live)
            assert len(told) == len(set(told)) == 4
            wait_for(lambda: len(there.posted) == 4, what="the same by webhook")
            listed = [one["alert"] for one in _run(live, "alerts", "list", "--json")["alerts"]]
            assert listed == ["destination-down", "study-failed"]
    _assert_nobody_is_named(server, there, images)
    for headers, body in there.posted:
        at = int(headers["webhook-timestamp"])
        assert channels.is_genuine(headers, body, secret=channels.SECRET.encode(), now=at)


def _assert_nobody_is_named(server: MailServer, there: Receiver, images: list[Path]) -> None:
    said = [one.as_string() + one.get_content() for one in server.messages]
    said += [body.decode() for _, body in there.posted]
    said += [str(headers) for headers, _ in there.posted]
    named_by = values(images)
    assert len(named_by) > 20
    for text in said:
        assert [value for value in named_by if value.casefold() in text.casefold()] == []


def _run(live: RunningNode, *words: str) -> Any:
    done = subprocess.run(
        [*running.PROGRAM, *words, "--config", str(live.file)],
        capture_output=True, check=True, env=running._environment(),
    )  # fmt: skip
    return json.loads(done.stdout)


def test_a_mail_server_that_hangs_holds_up_nothing_and_is_seen(
    tmp_path: Path, free_port: int
) -> None:
    with channels.rude(channels.says_nothing) as port, pacs(free_port), receiver() as there:
        secret = channels.written(tmp_path, "signing", channels.SECRET)
        hanging = MailServer(port=port).table()
        text = configuration(free_port, TABLE, hanging, hook(there, secret))
        with running_node(tmp_path / "node", text) as live:
            assert live.outcome(send(with_a_gap(SAMPLE), live))["outcome"] == "failed"
            wait_for(lambda: there.posted, what="a message by the other channel")
            # Meanwhile studies come and go as ever.
            assert live.outcome(send(SAMPLE, live))["outcome"] == "delivered"
            database = Database(live.configuration.database.url)

            def trouble() -> list[messages.Trouble]:
                with database.read() as tx:
                    return messages.troubles(tx)

            (found,) = wait_for(trouble, what="the trouble with the mail server")
            database.close()
            assert (found.channel, found.reason) == ("email", "mail-timeout")
            assert "alert not sent" in live.log
            assert live.stop() == 0


def test_the_configuration_of_these_tests_is_sound(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text(configuration(servers.free_port(), TABLE, MailServer(port=25).table()))
    errors = [one for one in check.run(file, {}) if one.level == "error"]
    assert errors == []
