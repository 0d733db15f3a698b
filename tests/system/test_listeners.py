"""Listener processes under a real node: what dies, and what goes on all the same."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import phantom
import pydicom
import pytest
import running
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage
from pynetdicom import AE
from pynetdicom.association import Association
from sqlalchemy import select

from dicomnode.archive import tables
from dicomnode.archive.arrival import End
from dicomnode.archive.database import Database
from dicomnode.archive.journal import Kind
from dicomnode.uid import derived

SENDERS = 8
SLICES = 120
LIMITS = "max_associations = 3\nmax_associations_per_peer = 2"

A_ABORT = b"\x07"  # PS3.8 9.3.8

# What storescu says with --verbose.
_SENDING = re.compile(r"^I: Sending file: (.*)$")
_STORED = re.compile(r"^I: Received Store Response \(Success\)$")


def toml(*, processes: int = 2, port: int = 0, limits: str = "max_associations = 100") -> str:
    text = running.toml(models={}, extra='[peers.other]\nae_title = "OTHER"\nhost = "127.0.0.1"')
    return text.replace("port = 0", f"port = {port}\nprocesses = {processes}\n{limits}")


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., running.RunningNode]]:
    """Starts `dicomnode serve`; nothing of it is left at the end of the test."""
    made: list[running.RunningNode] = []

    def _serve(**settings: Any) -> running.RunningNode:
        node = running.RunningNode(tmp_path / "node", toml(**settings), command="serve")
        made.append(node)
        node.start()
        return node

    yield _serve
    for node in made:
        node.end()


Serve = Callable[..., running.RunningNode]


def rows(node: running.RunningNode, statement: Any) -> list[Any]:
    database = Database(node.configuration.database.url)
    try:
        with database.read() as tx:
            return list(tx.execute(statement))
    finally:
        database.close()


def indexed(node: running.RunningNode) -> list[str]:
    """The SOP Instance UIDs that the index knows."""
    return [row.sop_instance_uid for row in rows(node, select(tables.instance.c.sop_instance_uid))]


def ends(node: running.RunningNode) -> list[str | None]:
    """How each association ended; `None` where it has not."""
    return [row.end for row in rows(node, select(tables.association.c.end))]


def all_ended(node: running.RunningNode) -> bool:
    return None not in ends(node)


def ends_told(node: running.RunningNode) -> list[str]:
    """How the journal says that associations ended."""
    event = tables.event.c
    told = rows(node, select(event.facts).where(event.kind == Kind.ASSOCIATION_ENDED))
    return [row.facts["end"] for row in told]


def sockets_of(pid: int) -> int:
    """How many sockets a process has open."""
    try:
        files = list(Path(f"/proc/{pid}/fd").iterdir())
        return sum(str(file.readlink()).startswith("socket:") for file in files)
    except OSError:
        return 0


def storescu(node: running.RunningNode, files: tuple[Path, ...]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["/usr/bin/storescu", "--verbose", "--propose-little", "-aet", "MODALITY",
         "-aec", "DICOMNODE", "127.0.0.1", str(node.port), *map(str, files)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def acknowledged(sender: subprocess.Popen[str]) -> set[str]:
    """The SOP Instance UIDs of what a sender was told that it is safe, once it is done."""
    said, _ = sender.communicate()
    safe, last = set(), ""
    for line in said.splitlines():
        if sending := _SENDING.match(line):
            last = Path(sending.group(1)).stem
        elif _STORED.match(line):
            safe.add(last)
    return safe


def study(folder: Path, key: str, *, slices: int = SLICES) -> tuple[Path, ...]:
    """The files of a study of its own, each named by its SOP Instance UID."""
    scanned = phantom.write_series(
        folder / key,
        key=key,
        shape=(slices, 8, 8),
        attributes={"StudyInstanceUID": derived("study", key)},
    )
    return tuple(file.rename(file.with_stem(uid_of(file))) for file in scanned.files)


def uid_of(file: Path) -> str:
    return str(pydicom.dcmread(file, specific_tags=["SOPInstanceUID"]).SOPInstanceUID)


def associate(node: running.RunningNode, *, calling: str = "MODALITY") -> Association:
    ae = AE(calling)
    ae.add_requested_context(MRImageStorage, ExplicitVRLittleEndian)
    return ae.associate("127.0.0.1", node.port, ae_title="DICOMNODE")


def is_accepted(node: running.RunningNode, *, calling: str = "MODALITY") -> bool:
    """Whether one more association is taken; it stays open."""
    return bool(associate(node, calling=calling).is_established)


@pytest.mark.server("dcmtk")
def test_a_listener_is_killed_under_load_and_nothing_acknowledged_is_lost(
    tmp_path: Path, serve: Serve
) -> None:
    studies = [study(tmp_path, str(number)) for number in range(SENDERS)]
    every = {file.stem for files in studies for file in files}
    node = serve()
    instances = node.configuration.node.data_dir / "instances"
    senders = [storescu(node, files) for files in studies]
    running.wait_for(lambda: len(list(instances.glob("*/*.dcm"))) > SLICES, what="some load")
    victim = max(node.listeners(2), key=sockets_of)
    os.kill(victim, signal.SIGKILL)
    safe = set().union(*map(acknowledged, senders))
    assert SLICES < len(safe) < len(every), "the listener was not killed in the middle"
    running.wait_for(lambda: safe <= set(indexed(node)), what="what was acknowledged in the index")
    running.wait_for(lambda: all_ended(node), what="the end of each association")
    assert End.UNKNOWN in ends(node)
    assert sorted(ends_told(node)) == sorted(str(end) for end in ends(node))

    # What was not acknowledged is sent again, and everything with it.
    again = [storescu(node, files) for files in studies]
    assert set().union(*map(acknowledged, again)) == every
    running.wait_for(lambda: set(indexed(node)) == every, what="everything in the index")
    assert len(indexed(node)) == len(every)
    for number, files in enumerate(studies):
        assert node.outcome(derived("study", str(number)))["instances"] == len(files)
    assert victim not in node.listeners(2)
    assert "listener died" in node.log
    assert list((instances.parent / "incoming").iterdir()) == []


@pytest.mark.server("dcmtk")
def test_what_a_listener_stored_and_could_not_report_is_indexed_when_it_comes_again(
    tmp_path: Path, serve: Serve
) -> None:
    files = study(tmp_path, "one", slices=4)
    node = serve()
    assert len(acknowledged(storescu(node, files))) == len(files)
    running.wait_for(lambda: len(indexed(node)) == len(files), what="the index")
    # As if the listener had died between its last sync and its report.
    lost = files[0].stem
    database = Database(node.configuration.database.url)
    with database.write() as tx:
        tx.execute(tables.instance.delete().where(tables.instance.c.sop_instance_uid == lost))
    database.close()
    assert acknowledged(storescu(node, files[:1])) == {lost}
    running.wait_for(lambda: lost in indexed(node), what="the instance in the index")


@pytest.mark.server("dcmtk")
def test_a_connection_that_is_made_while_the_listener_is_down_waits_and_is_served(
    tmp_path: Path, serve: Serve
) -> None:
    files = study(tmp_path, "one", slices=4)
    node = serve(processes=1)
    (listener,) = node.listeners()
    port = node.port
    os.kill(node.pid, signal.SIGSTOP)  # it starts no other one
    os.kill(listener, signal.SIGKILL)
    running.wait_for(lambda: not running.is_running(listener), what="the listener's end")
    with socket.create_connection(("127.0.0.1", port)) as early:
        early.sendall(b"\xff\0\0\0\0\0")  # a PDU of no known type
        os.kill(node.pid, signal.SIGCONT)
        assert early.recv(1) == A_ABORT
    assert acknowledged(storescu(node, files)) == {file.stem for file in files}
    assert listener not in node.listeners()


def test_the_limits_hold_over_all_listeners(serve: Serve) -> None:
    node = serve(limits=LIMITS)
    first, second = associate(node), associate(node)
    assert first.is_established
    assert second.is_established
    assert not is_accepted(node)
    other = associate(node, calling="OTHER")
    assert other.is_established
    assert not is_accepted(node, calling="OTHER")
    first.release()
    running.wait_for(lambda: is_accepted(node), what="the place that was given back")
    assert not is_accepted(node)
    for listener in node.listeners(2):
        os.kill(listener, signal.SIGKILL)
    running.wait_for(lambda: is_accepted(node), what="a place after the listeners' death")
    assert is_accepted(node)
    assert not is_accepted(node)
    running.wait_for(lambda: ends(node).count(End.UNKNOWN) == 3, what="the end of the others")


def test_the_listeners_end_with_their_node_and_the_next_one_takes_the_port(
    serve: Serve, free_port: int
) -> None:
    node = serve(port=free_port)
    opened = associate(node)
    assert opened.is_established
    running.wait_for(lambda: ends(node) == [None], what="the association in the index")
    listeners = node.listeners(2)
    os.kill(node.pid, signal.SIGKILL)
    node.end()
    node.start()
    assert not any(map(running.is_running, listeners))
    assert node.port == free_port
    assert ends(node) == [End.UNKNOWN]
    assert ends_told(node) == [End.UNKNOWN]
    assert is_accepted(node)


def test_stopping_ends_associations_in_order(serve: Serve) -> None:
    node = serve()
    opened = [associate(node) for _ in range(4)]
    assert all(one.is_established for one in opened)
    listeners = node.listeners(2)
    assert node.stop() == 0
    assert ends(node) == [End.ABORTED] * 4
    assert ends_told(node) == [End.ABORTED] * 4
    assert not any(map(running.is_running, listeners))


def test_a_listener_that_is_told_to_end_ends_its_associations_and_is_replaced(
    serve: Serve,
) -> None:
    node = serve(processes=1)
    opened = associate(node)
    assert opened.is_established
    (listener,) = node.listeners()
    os.kill(listener, signal.SIGTERM)
    running.wait_for(lambda: ends(node) == [End.ABORTED], what="the end of the association")
    assert is_accepted(node)
    assert listener not in node.listeners()
