"""What the collector of audit messages hears of a whole node: all, in order, and no log does."""

from __future__ import annotations

import os
import re
import subprocess
import urllib.parse
import urllib.request
from collections import Counter
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any

import audit_schema
import collectors
import paged
import pydicom
import pytest
import running
from certificates import Authority
from collectors import Collector, collecting
from running import RunningNode
from servers import Orthanc

from dicomnode import node
from dicomnode.errors import RetryLater
from dicomnode.network.calling import sender
from dicomnode.network.calling.request import Destination

SAMPLE = sorted((running.HIPPOCAMPUS / "sample").rglob("*.dcm"))
STUDY = str(pydicom.dcmread(SAMPLE[0], stop_before_pixels=True).StudyInstanceUID)
PATIENT = pydicom.dcmread(SAMPLE[0], stop_before_pixels=True)

START = "Application Activity (Application Start) E 0"
CHANGED = "Security Alert (Software Configuration) E 0"
STOP = "Application Activity (Application Stop) E 0"
RECEIVED = "DICOM Instances Transferred C 0"
AGAIN = "DICOM Instances Transferred R 0"
BEGUN = "Begin Transferring DICOM Instances E 0"
SENT = "DICOM Instances Transferred R 0"
QUERY = "Query E 0"


def told_to(collector: Collector, authority: Authority, *, more: str = "") -> str:
    """The tables of a node that tells a collector over TLS."""
    ours = authority.issue("node")
    return (
        f'[tls]\nca = "{authority.certificate}"\ncertificate = "{ours.certificate}"\n'
        f'key = "{ours.key}"\n\n[audit]\nhost = "127.0.0.1"\nport = {collector.port}\n'
        f'enterprise_site_id = "North"\n{more}'
    )


def send(of: RunningNode, *, calling: str = "MODALITY") -> None:
    to = Destination(ae_title="DICOMNODE", host="127.0.0.1", port=of.port)
    sent = sender.send(SAMPLE, to=to, calling_ae_title=calling)
    assert {one.status for one in sent} == {0}


def test_a_study_that_goes_the_whole_way(
    tmp_path: Path, orthanc: Orthanc, authority: Authority
) -> None:
    ca = str(authority.certificate)
    with collecting(authority.issue("collector"), client_ca=ca) as there:
        configuration = running.toml(
            pacs={"ae_title": orthanc.ae_title, "port": orthanc.dicom_port},
            routes=running.HIPPOCAMPUS_ROUTE,
            extra=told_to(there, authority),
        )
        with running.running(tmp_path / "node", configuration) as made:
            send(made)
            assert made.outcome(STUDY)["outcome"] == "delivered", made.log
            send(made)
            there.wait_for(lambda found: len(found) == 7)
            assert made.stop() == 0
            log = made.log
        assert there.events == [START, RECEIVED, BEGUN, SENT, QUERY, QUERY, AGAIN, STOP]
        _says_whose_it_is_and_what_went(there)
    for secret in (str(PATIENT.PatientName), str(PATIENT.PatientID), "AuditMessage"):
        assert secret not in log


def _says_whose_it_is_and_what_went(there: Collector) -> None:
    roots = [audit_schema.parsed(one) for one in there.bodies]
    for root in roots[1:4]:
        study, patient = root.findall("ParticipantObjectIdentification")
        assert study.get("ParticipantObjectID") == STUDY
        assert patient.get("ParticipantObjectID") == str(PATIENT.PatientID)
        assert patient.findtext("ParticipantObjectName") == str(PATIENT.PatientName)
        assert root.find("AuditSourceIdentification").get("AuditEnterpriseSiteID") == "North"
    counts = [
        {one.get("UID"): int(one.get("NumberOfInstances")) for one in root.iter("SOPClass")}
        for root in roots[1:4]
    ]
    assert counts[0] == Counter(
        str(pydicom.dcmread(one, stop_before_pixels=True).SOPClassUID) for one in SAMPLE
    )
    assert counts[1] == counts[2] == {
        "1.2.840.10008.5.1.4.1.1.66.4": 1, "1.2.840.10008.5.1.4.1.1.88.34": 1,
    }  # fmt: skip


def test_a_collector_that_is_away_for_two_lives_of_the_node_misses_nothing(
    tmp_path: Path, authority: Authority
) -> None:
    ca = str(authority.certificate)
    with collecting(authority.issue("collector"), client_ca=ca) as there:
        there.stop()
        text = running.toml(extra=told_to(there, authority))
        made = RunningNode(tmp_path / "node", text, command="serve")
        try:
            made.start()
            send(made)
            running.wait_for(lambda: made.study(STUDY), what="the study")
            assert made.stop() == 0
            made.file.write_text(text.replace("retry_s = 0.5", "retry_s = 0.6"))
            made.start()
            send(made)
            made.kill()
            there.start()
            made.start()
            there.wait_for(lambda found: found.count(START) == 3)
            assert made.stop() == 0
        finally:
            made.end()
        found = there.events
    assert found[:5] == [START, RECEIVED, STOP, START, CHANGED]
    # The second time the node was killed: what it had not written down yet it cannot tell.
    assert found[5:] in ([START, STOP], [AGAIN, START, STOP])


def test_who_is_refused_and_what_is_done_on_the_page(tmp_path: Path, authority: Authority) -> None:
    ca = str(authority.certificate)
    with collecting(authority.issue("collector"), client_ca=ca) as there:
        text = running.toml(extra=f"[web]\nport = 0\n\n{told_to(there, authority)}")
        with running.running(tmp_path / "node", text, command="serve") as made:
            with pytest.raises(RetryLater, match="calling-ae-title-not-recognized"):
                send(made, calling="STRANGER")
            there.wait_for(lambda found: len(found) == 2)
            _add(made, "ada", "viewer", tmp_path)
            browser = Browser(made)
            assert browser.sign_in("ada", "wrong") == 401
            assert browser.sign_in("ada", paged.PASSWORD) == 200
            send(made)
            running.wait_for(lambda: made.study(STUDY), what="the study")
            assert browser.status(f"/studies/{STUDY}") == 200
            assert browser.status("/people") == 403
            assert made.stop() == 0
        assert there.events == [
            START,
            "Security Alert (Node Authentication) E 8",
            "Security Alert (Security Roles Changed) E 0",
            "User Authentication (Login) E 4",
            "User Authentication (Login) E 0",
            RECEIVED,
            "DICOM Instances Accessed R 0",
            "Security Alert (Use of Restricted Function) E 8",
            STOP,
        ]
        assert "AETITLES=STRANGER" in there.bodies[1]
        assert collectors.opened(there.framed[0])["process"] == str(made.pid)


def _add(of: RunningNode, name: str, role: str, folder: Path) -> None:
    password = folder / "password"
    password.write_text(paged.PASSWORD)
    subprocess.run(
        [*running.PROGRAM, "users", "add", name, "--role", role,
         "--password-file", str(password), "--config", str(of.file)],
        check=True, capture_output=True, env={**os.environ, "PYTHONPATH": str(running.ROOT)},
    )  # fmt: skip


class Browser:
    """Just enough of one to sign in and to look."""

    def __init__(self, of: RunningNode) -> None:
        self._root = f"http://127.0.0.1:{node.page_of(of.configuration.node.data_dir)}"
        cookies = urllib.request.HTTPCookieProcessor(CookieJar())
        self._http = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), cookies, _AnyStatus()
        )

    def sign_in(self, name: str, password: str) -> int:
        form = self._http.open(f"{self._root}/sign-in").read().decode()
        word = re.search(r'name="csrf" value="(\w+)"', form)
        assert word is not None
        fields = {"name": name, "password": password, "csrf": word[1]}
        return self.status("/sign-in", data=urllib.parse.urlencode(fields).encode())

    def status(self, path: str, data: bytes | None = None) -> int:
        with self._http.open(f"{self._root}{path}", data=data) as answer:
            return int(answer.status)


class _AnyStatus(urllib.request.HTTPErrorProcessor):
    """Every answer is one; only those that lead elsewhere are followed."""

    def http_response(self, request: Any, response: Any) -> Any:
        if response.status in (302, 303):
            return super().http_response(request, response)
        return response
