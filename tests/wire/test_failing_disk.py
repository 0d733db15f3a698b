"""Disks that fail now and then: what is acknowledged is there, and was written after that."""

from __future__ import annotations

import errno
import os
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from pydicom import Dataset
from wire import raw
from wire.receiving import KIND, Receiver, Start, dataset_bytes, instance, write

from dicomnode import status
from dicomnode.archive.arrival import Stored, TurnedAway
from dicomnode.archive.disk.space import Space

CT = raw.Context(id=1, abstract_syntax=KIND[0], transfer_syntaxes=(raw.EXPLICIT,))
SENDERS = 4
EACH = 12
ATTEMPTS = 100

Sync = Callable[[int], None]


class FailingSync:
    """Fails some calls, and remembers which files it did not write."""

    def __init__(self, sync: Sync, *, rng: random.Random) -> None:
        self._sync = sync
        self._rng = rng
        self._lock = threading.Lock()
        self.failed: set[str] = set()

    def __call__(self, descriptor: int) -> None:
        with self._lock:
            fails = self._rng.random() < 0.3
            if fails:
                self.failed.add(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        if fails:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self._sync(descriptor)


def datasets(folder: Path, sender: int) -> dict[str, bytes]:
    """SOP Instance UID → encoded data set of what one sender has."""
    made = {}
    for number in range(sender * EACH, (sender + 1) * EACH):
        ds = instance(number + 1)
        made[str(ds.SOPInstanceUID)] = dataset_bytes(write(folder / f"{number}.dcm", ds))
    return made


def send_until_taken(node: Receiver, mine: dict[str, bytes]) -> list[int]:
    """Send each instance until it is acknowledged; returns every status."""
    statuses = []
    with raw.Speaker(node.port, [CT]) as speaker:
        for uid, dataset in mine.items():
            for _ in range(ATTEMPTS):
                answer = speaker.store(CT, uid, dataset)
                statuses.append(raw.number(answer, raw.STATUS))
                if statuses[-1] == status.SUCCESS:
                    break
        speaker.release()
    return statuses


def test_where_syncs_fail_now_and_then_each_acknowledged_instance_was_written_anew(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(7)
    node = start()
    every = [datasets(tmp_path, sender) for sender in range(SENDERS)]
    written_as: dict[str, str] = {}
    link = os.link

    def note_link(part: str, final: str) -> None:
        link(part, final)
        written_as[final] = part

    content, folder = FailingSync(os.fdatasync, rng=rng), FailingSync(os.fsync, rng=rng)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", content)
        patch.setattr(os, "fsync", folder)
        patch.setattr(os, "link", note_link)
        with ThreadPoolExecutor(SENDERS) as pool:
            statuses = [
                one for said in pool.map(send_until_taken, [node] * SENDERS, every) for one in said
            ]
    assert set(statuses) == {status.SUCCESS, status.OUT_OF_RESOURCES}
    assert statuses.count(status.SUCCESS) == SENDERS * EACH
    assert content.failed
    assert folder.failed
    assert node.leftovers == []
    sent = {node.store.place(uid): dataset for mine in every for uid, dataset in mine.items()}
    reported = {fact.path for fact in node.facts if isinstance(fact, Stored)}
    assert set(node.on_disk) == sent.keys() == reported
    for path, dataset in sent.items():
        file = node.store.absolute(path)
        assert dataset_bytes(file) == dataset
        # After a failed sync the page cache calls clean what never reached the disk.
        assert written_as[str(file)] not in content.failed
    reasons = {fact.reason for fact in node.facts if isinstance(fact, TurnedAway)}
    assert reasons == {"cannot-write"}


def test_the_gate_refuses_a_new_study_and_lets_an_open_one_end(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = {"bytes": 3000}
    monkeypatch.setattr(
        os, "statvfs", lambda _: SimpleNamespace(f_bavail=free["bytes"], f_frsize=1)
    )
    gate = Space(tmp_path, min_free_bytes=2000, floor_bytes=1000, is_open=lambda _: False)
    node = start(gate=gate)
    ours, another = instance(1), instance(2)
    more = instance(3)
    another.StudyInstanceUID = "1.2.3.99"

    with raw.Speaker(node.port, [CT]) as speaker:

        def send(ds: Dataset) -> int:
            dataset = dataset_bytes(write(tmp_path / "sent.dcm", ds))
            return raw.number(speaker.store(CT, ds.SOPInstanceUID, dataset), raw.STATUS)

        assert send(ours) == status.SUCCESS
        free["bytes"] = 1500
        assert send(another) == status.OUT_OF_RESOURCES
        assert node.turned_away.reason == "disk-nearly-full"
        assert send(more) == status.SUCCESS
        free["bytes"] = 500
        assert send(ours) == status.OUT_OF_RESOURCES
        assert node.turned_away.reason == "disk-full"
        free["bytes"] = 2000
        assert send(another) == status.SUCCESS
        speaker.release()
    assert len(node.on_disk) == 3
    assert node.leftovers == []
