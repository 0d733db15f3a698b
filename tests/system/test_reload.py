"""A configuration that changes while the node runs: under a sender, on the page, in the workers."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import ohif
import paged
import phantom
import pydicom
import pytest
import running
import servers
from playwright.sync_api import Browser, Page, expect
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage
from pynetdicom import AE
from pynetdicom.association import Association
from running import RunningNode
from sqlalchemy import select

from dicomnode import config, node
from dicomnode.archive import tables
from dicomnode.archive.arrival import End
from dicomnode.archive.database import Database
from dicomnode.archive.studies import index
from dicomnode.archive.work import in_force
from dicomnode.network.calling import sender
from dicomnode.uid import derived

SUCCESS = 0x0000
RULE = """\
[[routes]]
name = "{name}"
model = "hippocampus"
series = {{ Modality = "MR" }}
send_to = ["pacs"]
"""
PEER = '[peers.other]\nae_title = "OTHER"\nhost = "127.0.0.1"\n'
WITHIN_MS = 60_000


def toml(*, rule: str = "before", more: str = "") -> str:
    text = running.toml(
        pacs={"ae_title": "PACS", "port": servers.free_port()}, routes=RULE.format(name=rule)
    )
    text = text.replace("quiet_s = 3", "quiet_s = 0.5")
    return text.replace("port = 0", "port = 0\nprocesses = 2", 1) + more


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[str], RunningNode]]:
    """Starts `dicomnode serve`; nothing of it is left at the end of the test."""
    made: list[RunningNode] = []

    def _serve(text: str) -> RunningNode:
        made.append(RunningNode(tmp_path / "node", text, command="serve"))
        made[-1].start()
        made[-1].listeners(2)
        return made[-1]

    yield _serve
    for one in made:
        one.end()


Serve = Callable[[str], RunningNode]


def hang_up(on: RunningNode, *, until: str = '"event": "reloaded"') -> None:
    """SIGHUP, and return when the node has said what became of it."""
    before = on.log.count(until)
    os.kill(on.pid, signal.SIGHUP)
    running.wait_for(
        lambda: on.log.count(until) > before, what=f"{until}; the log of the node:\n{on.log}"
    )


def write(on: RunningNode, change: Callable[[str], str]) -> None:
    on.file.write_text(change(on.file.read_text()))


def associate(to: RunningNode, *, calling: str = "MODALITY") -> Association:
    ae = AE(calling)
    ae.add_requested_context(MRImageStorage, ExplicitVRLittleEndian)
    return ae.associate("127.0.0.1", to.port, ae_title="DICOMNODE")


def may_associate(to: RunningNode, calling: str) -> bool:
    made = associate(to, calling=calling)
    accepted = bool(made.is_established)
    if accepted:
        made.release()
    return accepted


def study(folder: Path, key: str) -> tuple[Path, ...]:
    return phantom.write_series(
        folder / key,
        key=key,
        shape=(4, 8, 8),
        attributes={"StudyInstanceUID": derived("study", key)},
    ).files


def rules_of(of: RunningNode) -> dict[str, set[str]]:
    """Study → the rules that decided about it."""
    database = Database(of.configuration.database.url)
    decision = tables.decision.c
    found: dict[str, set[str]] = {}
    try:
        with database.read() as tx:
            for uid, rule in tx.execute(select(decision.study_instance_uid, decision.rule)):
                found.setdefault(uid, set()).add(rule)
            complete = set(index.in_state(tx, index.COMPLETE))
    finally:
        database.close()
    return {uid: names for uid, names in found.items() if uid in complete}


class Sender:
    """Sends studies one after the other, in a thread."""

    def __init__(self, to: RunningNode, files: list[Path]) -> None:
        self.sent = 0
        self.statuses: set[int] = set()
        destination = sender.Destination(ae_title="DICOMNODE", host="127.0.0.1", port=to.port)
        self._thread = threading.Thread(target=self._run, args=[files, destination])
        self._thread.start()

    def _run(self, files: list[Path], to: sender.Destination) -> None:
        sent = sender.send(files, to=to, calling_ae_title="MODALITY", progress=self._count)
        self.statuses = {one.status for one in sent}

    def _count(self, _sent: object) -> None:
        self.sent += 1

    def finish(self) -> None:
        """Wait for the last one."""
        self._thread.join()


def ends_of(of: RunningNode) -> list[str]:
    """How each association ended."""
    database = Database(of.configuration.database.url)
    try:
        with database.read() as tx:
            return list(tx.scalars(select(tables.association.c.end)))
    finally:
        database.close()


def test_a_changed_rule_decides_about_the_next_study_and_no_sender_notices(
    tmp_path: Path, serve: Serve
) -> None:
    studies = [study(tmp_path, str(number)) for number in range(120)]
    uids = [derived("study", str(number)) for number in range(120)]
    made = serve(toml())
    sending = Sender(made, [file for files in studies for file in files])
    running.wait_for(lambda: sending.sent > 40 and rules_of(made), what="a study that was routed")
    write(made, lambda text: text.replace('"before"', '"after"'))
    hang_up(made)
    sending.finish()
    assert sending.statuses == {SUCCESS}
    running.wait_for(lambda: len(rules_of(made)) == len(uids), what="every study to be routed")
    decided = rules_of(made)
    assert set(decided) == set(uids)
    assert {frozenset(names) for names in decided.values()} == {
        frozenset({"before"}),
        frozenset({"after"}),
    }
    assert decided[uids[0]] == {"before"}
    assert decided[uids[-1]] == {"after"}
    assert ends_of(made) == [End.RELEASED]  # of one association


def test_a_bad_file_changes_nothing_and_says_so(serve: Serve) -> None:
    made = serve(toml())
    write(made, lambda text: text.replace('model = "hippocampus"', 'model = "no"') + PEER)
    hang_up(made, until="nothing was reloaded")
    assert "unknown-model" in made.log
    assert not may_associate(made, "OTHER")
    assert may_associate(made, "MODALITY")
    write(made, lambda _text: "this is no TOML")
    hang_up(made, until="nothing was reloaded")
    assert may_associate(made, "MODALITY")
    assert '"event": "reloaded"' not in made.log


def test_a_new_peer_may_associate_and_one_that_was_removed_no_longer(serve: Serve) -> None:
    made = serve(toml())
    assert not may_associate(made, "OTHER")
    write(made, lambda text: text + PEER)
    hang_up(made)
    # Whichever of the two listeners takes the connection up.
    assert all(may_associate(made, "OTHER") for _ in range(12))
    still_open = associate(made, calling="OTHER")
    assert still_open.is_established
    write(made, lambda text: text.replace(PEER, ""))
    hang_up(made)
    assert not any(may_associate(made, "OTHER") for _ in range(12))
    assert still_open.is_established
    assert all(may_associate(made, "MODALITY") for _ in range(4))
    still_open.release()


def test_the_limits_count_what_was_open_before(serve: Serve) -> None:
    made = serve(toml())
    first = associate(made)
    assert first.is_established
    write(
        made,
        lambda text: text.replace("processes = 2", "processes = 2\nmax_associations_per_peer = 1"),
    )
    hang_up(made)
    assert not may_associate(made, "MODALITY")
    first.release()
    running.wait_for(lambda: may_associate(made, "MODALITY"), what="the place")


def test_a_listener_that_dies_after_it_comes_back_with_the_new_peers(serve: Serve) -> None:
    made = serve(toml())
    before = made.listeners(2)
    write(made, lambda text: text + PEER)
    hang_up(made)
    for listener in before:
        os.kill(listener, signal.SIGKILL)
    running.wait_for(
        lambda: len(set(made.processes(running.LISTENER)) - set(before)) == 2, what="new listeners"
    )
    assert all(may_associate(made, "OTHER") for _ in range(6))


def test_what_waits_for_a_restart_is_named_and_stays_as_it_was(serve: Serve) -> None:
    made = serve(toml())
    port = made.port
    write(made, lambda text: text.replace("processes = 2", "processes = 3") + PEER)
    hang_up(made)
    assert "waiting for a restart: listen.processes" in made.log
    assert made.port == port
    assert len(made.listeners(2)) == 2
    assert may_associate(made, "OTHER")


def test_a_node_that_is_killed_right_after_it_starts_with_what_the_file_says(
    serve: Serve,
) -> None:
    made = serve(toml())
    write(made, lambda text: text + PEER)
    os.kill(made.pid, signal.SIGHUP)
    made.kill()
    made.start()
    assert may_associate(made, "OTHER")
    written = config.load(made.file, {})
    database = Database(written.database.url)
    with database.read() as tx:
        current = in_force.current(tx)
    database.close()
    assert current is not None
    assert current.digest == config.digest(written)
    assert current.serial >= 2


def test_a_worker_takes_a_new_model_up(tmp_path: Path) -> None:
    text = running.toml(models={}, pacs={"ae_title": "PACS", "port": servers.free_port()})
    files = sorted((running.HIPPOCAMPUS / "sample").rglob("*.dcm"))
    uid = str(pydicom.dcmread(files[0], specific_tags=["StudyInstanceUID"]).StudyInstanceUID)
    with running.running(tmp_path / "node", text) as made:
        running.wait_for(lambda: made.log.count("worker ready") == 2, what="the workers")
        predict = made.process("--only", "predict")
        model = f'[models.hippocampus]\nbundle = "{running.HIPPOCAMPUS}"\n'
        write(made, lambda old: f"{old}\n{model}\n{running.HIPPOCAMPUS_ROUTE}")
        hang_up(made)
        # At once: the worker may not have seen it yet, and then the job waits for it.
        to = sender.Destination(ae_title="DICOMNODE", host="127.0.0.1", port=made.port)
        sender.send(files, to=to, calling_ae_title="MODALITY")

        def predicted() -> bool:
            found = made.study(uid)
            return bool(found) and any(one["results"] for one in found["jobs"])

        running.wait_for(predicted, what=f"results; the log:\n{made.log}", within_s=180)
        assert made.process("--only", "predict") == predict
        assert "process died" not in made.log


@pytest.fixture
def browser() -> Iterator[Browser]:
    with ohif.chromium() as made:
        yield made


def sign_in(browser: Browser, where: str, who: str) -> Page:
    page = browser.new_context().new_page()
    page.set_default_timeout(WITHIN_MS)
    page.goto(f"{where}/")
    page.get_by_label("Name").fill(who)
    page.get_by_label("Password").fill(paged.PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("link", name="Studies", exact=True)).to_be_visible()
    return page


@pytest.mark.server("chromium")
def test_an_administrator_sees_the_difference_and_applies_it(
    tmp_path: Path, serve: Serve, browser: Browser
) -> None:
    made = serve(toml(more="\n[web]\nport = 0\n"))
    password = tmp_path / "password"
    password.write_text(paged.PASSWORD)
    for role in ("viewer", "administrator"):
        subprocess.run(
            [*running.PROGRAM, "users", "add", role, "--role", role,
             "--password-file", str(password), "--config", str(made.file)],
            check=True, capture_output=True,
            env={**os.environ, "PYTHONPATH": str(running.ROOT)},
        )  # fmt: skip
    where = f"http://127.0.0.1:{node.page_of(made.configuration.node.data_dir)}"

    write(made, lambda text: text.replace("processes = 2", "processes = 3") + PEER)
    page = sign_in(browser, where, "administrator")
    page.goto(f"{where}/configuration")
    page.get_by_role("button", name="Check the file and compare").click()
    expect(page.get_by_role("heading", name="2 changes in the file")).to_be_visible()
    expect(page.get_by_role("cell", name="peers.other")).to_be_visible()
    assert not may_associate(made, "OTHER")

    # The file changes once more, behind the back of whoever looks.
    write(made, lambda text: text.replace("OTHER", "ANOTHER"))
    page.get_by_role("button", name="Apply").click()
    expect(page.get_by_text("The file has changed since it was shown")).to_be_visible()
    assert not may_associate(made, "ANOTHER")
    page.get_by_role("button", name="Apply").click()
    expect(page.get_by_text("Applied; waiting for a restart: listen.processes.")).to_be_visible()
    expect(page.get_by_role("heading", name="Waiting for a restart")).to_be_visible()
    assert may_associate(made, "ANOTHER")
    page.goto(f"{where}/configuration")
    expect(page.get_by_role("heading", name="Waiting for a restart")).to_be_visible()
    page.goto(f"{where}/audit")
    expect(page.get_by_text("peers.other: nothing → ae_title = ANOTHER")).to_be_visible()

    viewer = sign_in(browser, where, "viewer")
    viewer.goto(f"{where}/studies")
    word = viewer.locator('input[name="csrf"]').first.get_attribute("value") or ""
    answer = viewer.request.post(
        f"{where}/configuration/apply", form={"csrf": word, "shown": ""}, max_redirects=0
    )
    assert answer.status == 403
