"""An instance is whole or absent, kept once, and safe when `store` returns."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import resource
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import IO

import pytest
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian

from dicomnode import status
from dicomnode.archive.disk import files, header
from dicomnode.archive.disk.files import FileStore, StoredFile
from dicomnode.archive.disk.header import Identity
from dicomnode.errors import Refused

ROOT = Path(__file__).resolve().parents[2]
UID = "1.2.3.4.1"
CT = "1.2.840.10008.5.1.4.1.1.2"


def identity(sop_instance_uid: str = UID) -> Identity:
    return Identity(
        sop_class_uid=CT,
        sop_instance_uid=sop_instance_uid,
        series_instance_uid="1.2.3.2",
        study_instance_uid="1.2.3.1",
    )


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "data")


def keep(store: FileStore, content: bytes = b"content", *, uid: str = UID) -> StoredFile:
    with closing(store.draft(b"meta")) as draft:
        draft.write(content)
        return draft.commit(uid)


def incoming(store: FileStore) -> list[Path]:
    return list(store.absolute("incoming").iterdir())


def test_an_instance_lies_where_its_uid_says(store: FileStore) -> None:
    kept = keep(store)
    folder = hashlib.sha256(UID.encode()).hexdigest()[:2]
    assert kept == StoredFile(path=f"instances/{folder}/{UID}.dcm", is_new=True)
    assert store.absolute(kept.path).read_bytes() == b"metacontent"
    assert incoming(store) == []


@pytest.mark.parametrize(
    "fragments",
    [[b"content"], [bytearray(b"content")], [b"con", b"", memoryview(b"tent")], [b"", b"content"]],
    ids=["whole", "bytearray", "fragments", "empty first"],
)
def test_a_data_set_comes_whole_or_in_fragments(store: FileStore, fragments: list[bytes]) -> None:
    with closing(store.draft(b"meta")) as draft:
        for fragment in fragments:
            draft.write(fragment)
        kept = draft.commit(UID)
    assert store.absolute(kept.path).read_bytes() == b"metacontent"


def test_what_was_written_can_be_read_before_it_is_committed(store: FileStore) -> None:
    with closing(store.draft(b"meta")) as draft:
        with draft.dataset() as nothing:
            assert nothing.read() == b""
        draft.write(b"con")
        with draft.dataset() as begun:
            assert begun.read() == b"con"
        draft.write(b"tent")
        kept = draft.commit(UID)
    assert store.absolute(kept.path).read_bytes() == b"metacontent"


def test_a_draft_that_is_closed_leaves_nothing(store: FileStore) -> None:
    draft = store.draft(b"meta")
    draft.write(b"content")
    draft.close()
    draft.close()
    assert incoming(store) == list(store.walk()) == []


def test_a_write_that_the_system_cuts_short_is_continued(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    writev, write = os.writev, os.write

    def some(descriptor: int, pieces: list[bytes]) -> int:
        return writev(descriptor, [b"".join(bytes(piece) for piece in pieces)[:2]])

    monkeypatch.setattr(os, "writev", some)
    monkeypatch.setattr(os, "write", lambda to, content: write(to, bytes(content)[:3]))
    kept = keep(store, b"content" * 3)
    assert store.absolute(kept.path).read_bytes() == b"meta" + b"content" * 3


def test_the_same_again_is_not_new(store: FileStore) -> None:
    first, second = keep(store), keep(store)
    assert (first.is_new, second.is_new) == (True, False)
    assert first.path == second.path
    assert incoming(store) == []


@pytest.mark.parametrize("other", [b"CONTENT", b"content and more", b"", b"conten"])
def test_other_content_is_refused_and_the_first_stays(store: FileStore, other: bytes) -> None:
    kept = keep(store)
    with pytest.raises(Refused, match="duplicate-with-other-content") as raised:
        keep(store, other)
    assert raised.value.status == status.DUPLICATE_SOP_INSTANCE
    assert raised.value.element == "SOPInstanceUID"
    assert store.absolute(kept.path).read_bytes() == b"metacontent"
    assert incoming(store) == []


def test_of_a_race_for_one_instance_exactly_one_is_new(store: FileStore) -> None:
    threads = 4
    together = threading.Barrier(threads)

    def race(uid: str) -> StoredFile:
        together.wait()
        return keep(store, uid=uid)

    with ThreadPoolExecutor(threads) as pool:
        for number in range(25):
            raced = list(pool.map(race, [f"1.2.{number}"] * threads))
            assert sorted(one.is_new for one in raced) == [False] * (threads - 1) + [True]
    assert len(list(store.walk())) == 25
    assert incoming(store) == []


def test_of_a_race_with_other_content_one_is_kept_whole(store: FileStore) -> None:
    threads = 4
    together = threading.Barrier(threads)

    def race(content: bytes) -> bytes | None:
        together.wait()
        try:
            return content if keep(store, content).is_new else None
        except Refused:
            return None

    contents = [bytes([number]) * 100_000 for number in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        (winner,) = [content for content in pool.map(race, contents) if content]
    (path,) = store.walk()
    assert store.absolute(path).read_bytes() == b"meta" + winner


def fails(code: int) -> object:
    def fail(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    return fail


@pytest.mark.parametrize("call", ["open", "writev", "fdatasync", "link"])
@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (errno.ENOSPC, "out-of-space"),
        (errno.EDQUOT, "out-of-space"),
        (errno.EIO, "cannot-write"),
        (errno.EROFS, "cannot-write"),
    ],
)
def test_what_cannot_be_kept_is_refused_and_leaves_nothing(
    store: FileStore, monkeypatch: pytest.MonkeyPatch, call: str, code: int, reason: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, call, fails(code))
        with pytest.raises(Refused, match=reason) as raised:
            keep(store)
    assert raised.value.status == status.OUT_OF_RESOURCES
    assert list(store.walk()) == incoming(store) == []
    assert keep(store).is_new


def test_a_file_that_the_system_does_not_let_grow_is_refused(store: FileStore) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(Refused, match="cannot-write"):
            keep(store, bytes(10_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert list(store.walk()) == incoming(store) == []


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What was synced, linked and unlinked, in order."""
    calls: list[tuple[str, str]] = []
    fsync, fdatasync, link, unlink = os.fsync, os.fdatasync, os.link, os.unlink

    def note_fsync(descriptor: int) -> None:
        calls.append(("fsync", Path(f"/proc/self/fd/{descriptor}").readlink().suffix))
        fsync(descriptor)

    def note_fdatasync(descriptor: int) -> None:
        calls.append(("fdatasync", Path(f"/proc/self/fd/{descriptor}").readlink().suffix))
        fdatasync(descriptor)

    def note_link(source: str, target: str) -> None:
        calls.append(("link", Path(target).suffix))
        link(source, target)

    def note_unlink(name: str) -> None:
        calls.append(("unlink", Path(name).suffix))
        unlink(name)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "fdatasync", note_fdatasync)
    monkeypatch.setattr(os, "link", note_link)
    monkeypatch.setattr(os, "unlink", note_unlink)
    return calls


def test_content_is_synced_before_it_gets_its_name_and_the_folder_after(
    store: FileStore, synced: list[tuple[str, str]]
) -> None:
    keep(store)
    assert synced == [("fdatasync", ".part"), ("link", ".dcm"), ("fsync", ""), ("unlink", ".part")]


def test_a_repetition_is_synced_and_named_anew(
    store: FileStore, synced: list[tuple[str, str]]
) -> None:
    first = store.absolute(keep(store).path).stat().st_ino
    synced.clear()
    again = store.absolute(keep(store).path)
    assert synced == [("fdatasync", ".part"), ("link", ".dcm"), ("fsync", ""), ("unlink", ".part")]
    assert again.stat().st_ino != first
    assert incoming(store) == []


def test_a_repetition_that_is_taken_away_while_it_is_synced_is_not_acknowledged(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Retention sets the files of its study aside: nobody has said yet that one came again."""
    kept = keep(store)
    sync = files.sync

    def slow(folder: Path | str) -> None:
        sync(folder)
        store.absolute(kept.path).unlink()

    with monkeypatch.context() as patched:
        patched.setattr(files, "sync", slow)
        with pytest.raises(Refused, match="cannot-write") as raised:
            keep(store)
    assert raised.value.status == status.OUT_OF_RESOURCES
    assert keep(store).is_new


def test_an_instance_whose_folder_could_not_be_synced_is_made_safe_by_its_repetition(
    store: FileStore, monkeypatch: pytest.MonkeyPatch, synced: list[tuple[str, str]]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fails(errno.EIO))
        with pytest.raises(Refused, match="cannot-write"):
            keep(store)
    synced.clear()
    assert not keep(store).is_new
    assert ("fsync", "") in synced


def test_no_folder_is_made_while_a_sender_waits(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "mkdir", fails(errno.EIO))
    for number in range(50):
        keep(store, uid=f"1.2.{number}")


def test_what_is_stored_is_listed_and_nothing_else(store: FileStore) -> None:
    kept = {keep(store, uid=f"1.2.{number}").path for number in range(20)}
    store.absolute("incoming/x.part").write_bytes(b"")
    listed = list(store.walk())
    assert listed == sorted(listed)
    assert set(listed) == kept


def test_a_store_that_is_opened_again_has_everything(store: FileStore, tmp_path: Path) -> None:
    kept = keep(store)
    again = FileStore(tmp_path / "data")
    assert list(again.walk()) == [kept.path]
    assert not keep(again).is_new


def test_what_a_dead_receiver_was_writing_is_removed(store: FileStore) -> None:
    kept = keep(store)
    for number in range(3):
        store.absolute(f"incoming/{number}.part").write_bytes(b"half")
    assert store.remove_partial() == 3
    assert incoming(store) == []
    assert list(store.walk()) == [kept.path]


def test_what_a_living_receiver_is_writing_is_left_alone(store: FileStore) -> None:
    part = store.absolute("incoming/1.part")
    with part.open("wb") as writing:
        fcntl.flock(writing, fcntl.LOCK_EX)
        assert store.remove_partial() == 0
    assert part.exists()


def test_what_is_left_over_is_removed_where_a_lock_needs_the_right_to_write(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As over NFS, which has byte ranges for whole files: flock(2)."""
    flock = fcntl.flock

    def over_nfs(file: IO[bytes] | int, operation: int) -> None:
        mode = fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE
        if operation & fcntl.LOCK_EX and mode == os.O_RDONLY:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        flock(file, operation)

    (store.absolute("incoming") / "left.part").write_bytes(b"half of it")
    monkeypatch.setattr(fcntl, "flock", over_nfs)
    assert store.remove_partial() == 1
    assert incoming(store) == []


def test_a_draft_is_not_removed_while_it_is_written(store: FileStore) -> None:
    with closing(store.draft(b"meta")) as draft:
        draft.write(b"con")
        assert FileStore(store.absolute("")).remove_partial() == 0
        draft.write(b"tent")
        kept = draft.commit(UID)
    assert store.absolute(kept.path).read_bytes() == b"metacontent"


def test_a_draft_that_was_taken_for_left_over_before_it_was_marked_begins_anew(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock, removed = fcntl.flock, []

    def another_is_quicker(descriptor: int, operation: int) -> None:
        if operation == fcntl.LOCK_EX and not removed:
            removed.append(store.remove_partial())
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", another_is_quicker)
    with closing(store.draft(b"meta")) as draft:
        kept = draft.commit(UID)
    assert removed == [1]
    assert store.absolute(kept.path).read_bytes() == b"meta"
    assert incoming(store) == []


WRITER = """
import sys
from pathlib import Path
from dicomnode.archive.disk.files import FileStore

store = FileStore(Path(sys.argv[1]))
for number in range(1_000_000):
    uid = f"1.2.{number}"
    draft = store.draft(b"meta")
    draft.write(uid.encode() * 10_000)
    draft.commit(uid)
    draft.close()
    print(uid, flush=True)
"""


def test_what_was_acknowledged_before_a_kill_is_whole(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        acknowledged = [next(writer.stdout).strip() for _ in range(30)]
        writer.kill()
        acknowledged += [line.strip() for line in writer.stdout if line.endswith("\n")]
    store = FileStore(tmp_path)
    store.remove_partial()
    on_disk = {Path(path).stem: store.absolute(path).read_bytes() for path in store.walk()}
    assert set(acknowledged) <= on_disk.keys()
    assert len(on_disk) - len(acknowledged) <= 1
    assert all(content == b"meta" + uid.encode() * 10_000 for uid, content in on_disk.items())
    assert incoming(store) == []


def meta(uid: str = UID) -> bytes:
    return files.file_meta(
        sop_class_uid=CT, sop_instance_uid=uid, transfer_syntax_uid=ExplicitVRLittleEndian
    )


@pytest.mark.parametrize("uid", ["1.2.3", "1.2.34"])
def test_the_meta_reads_as_the_standard_says(uid: str) -> None:
    written = dcmread(BytesIO(meta(uid)))
    found = written.file_meta
    assert written.preamble == bytes(128)
    assert found.FileMetaInformationGroupLength == len(meta(uid)) - 128 - 4 - 12
    assert found.FileMetaInformationVersion == b"\x00\x01"
    assert found.MediaStorageSOPClassUID == CT
    assert found.MediaStorageSOPInstanceUID == uid
    assert found.TransferSyntaxUID == ExplicitVRLittleEndian
    assert found.ImplementationClassUID == files.IMPLEMENTATION_CLASS_UID
    assert found.ImplementationVersionName == files.IMPLEMENTATION_VERSION_NAME
    assert len(found) == 7


def test_what_stands_behind_the_meta_is_found_again() -> None:
    read = header.read_meta(BytesIO(meta() + b"\x08\x00\x05\x00CS\x00\x00"))
    assert read.offset == len(meta())
    assert (read.sop_class_uid, read.sop_instance_uid) == (CT, UID)


def test_the_meta_never_changes_or_resent_instances_would_differ() -> None:
    assert hashlib.sha256(meta()).hexdigest() == (
        "cc3b30bbd29eb95ccf28ab72cc0216de7e960b09147f2bf9ff3b051aacc305e9"
    )
