"""The instances as files: the write-ahead log of what was received.

An instance is safe when its file is synced, linked into place, and its folder is synced. Nothing
here ever changes or removes what has its name; a repetition takes its place with the same bytes.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import filecmp
import hashlib
import itertools
import os
import struct
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from dicomnode import status, uid
from dicomnode.archive.disk.header import PREAMBLE_LENGTH, PREFIX
from dicomnode.durable import sync
from dicomnode.errors import Refused

# PS3.7 D.3.3.2. Both stand in every file, and the same instance must always give the same file: a
# new release of the node does not change them.
IMPLEMENTATION_CLASS_UID = uid.derived("implementation class")
IMPLEMENTATION_VERSION_NAME = "DICOMNODE"

_INSTANCES, _INCOMING = "instances", "incoming"
_SUFFIX, _PARTIAL = ".dcm", ".part"
_OUT_OF_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})

# What has gathered by then goes to the disk while more comes: the sync at the end finds less to do.
_EARLY_BYTES = 256 * 1024
_SYNC_FILE_RANGE_WRITE = 2  # linux/fs.h
# Linux's alone, and unknown to `os`.
_sync_file_range = getattr(ctypes.CDLL(None), "sync_file_range", None)
if _sync_file_range is not None:
    _sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)

Bytes = bytes | bytearray | memoryview


@dataclass(frozen=True, kw_only=True)
class StoredFile:
    """Where an instance lies.

    Attributes:
        path: Relative to the data folder.
        is_new: Whether it got its name now. Where it had it before it may be indexed already, or
            not: whoever gave it its name may have died before it could say so.
    """

    path: str
    is_new: bool


def file_meta(*, sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str) -> bytes:
    """Preamble and File Meta Information (PS3.10 7.1) for a received data set.

    The same instance gives the same bytes whoever sent it and whenever: neither a time nor the
    sender's AE title stands here.
    """
    group = b"".join(
        (
            # OB is the one VR here whose length takes 32 bits.
            struct.pack("<HH2sHL2s", 0x0002, 0x0001, b"OB", 0, 2, b"\x00\x01"),
            _short(0x0002, b"UI", sop_class_uid, padding=b"\0"),
            _short(0x0003, b"UI", sop_instance_uid, padding=b"\0"),
            _short(0x0010, b"UI", transfer_syntax_uid, padding=b"\0"),
            _short(0x0012, b"UI", IMPLEMENTATION_CLASS_UID, padding=b"\0"),
            _short(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME, padding=b" "),
        )
    )
    group_length = struct.pack("<HH2sHL", 0x0002, 0x0000, b"UL", 4, len(group))
    return bytes(PREAMBLE_LENGTH) + PREFIX + group_length + group


def _short(number: int, vr: bytes, value: str, *, padding: bytes) -> bytes:
    """One element of group 0002, in Explicit VR Little Endian, padded to even length."""
    encoded = value.encode("ascii")
    encoded += padding * (len(encoded) % 2)
    return struct.pack("<HH2sH", 0x0002, number, vr, len(encoded)) + encoded


class FileStore:
    """The received instances under a data folder.

    `instances/<xx>/<SOP Instance UID>.dcm`, where xx is taken from a hash of the UID: one UID has
    one place whatever study it claims to be of. `incoming/` holds what is being written; both must
    lie on one file system, and it must know hard links.
    """

    def __init__(self, data_dir: Path) -> None:
        """Make the folders, so that none has to be made while a sender waits."""
        self._data_dir = data_dir
        # A Path takes longer to join than a file to open: strings are for what senders wait for.
        self._root = str(data_dir)
        self._incoming = data_dir / _INCOMING
        self._instances = data_dir / _INSTANCES
        self._incoming.mkdir(parents=True, exist_ok=True)
        for number in range(256):
            (self._instances / f"{number:02x}").mkdir(parents=True, exist_ok=True)
        for folder in (self._instances, data_dir):
            sync(folder)
        # Where we may not read, somebody else has made the data folder long before.
        with contextlib.suppress(PermissionError):
            sync(data_dir.absolute().parent)
        # Names of drafts: other processes write into the same folder, and so did earlier ones.
        self._life, self._numbers = uuid.uuid4().hex, itertools.count()

    def absolute(self, path: str) -> Path:
        """The place of a path that `walk` or a commit gave."""
        return self._data_dir / path

    @staticmethod
    def place(sop_instance_uid: str) -> str:
        """The path of an instance with this UID, whether there is one or not.

        The UID has to be acceptable (`uid.is_acceptable`): it becomes the name of a file.
        """
        return _place(sop_instance_uid)

    def draft(self, meta: bytes) -> Draft:
        """Begin an instance: what is written becomes the instance when it is committed.

        Args:
            meta: What `file_meta` made.

        Raises:
            Refused: As `Draft.write`.
        """
        with _refusing():
            return Draft(self, meta)

    def _new_part(self) -> tuple[str, int]:
        """A new file in `incoming/`, open and marked as in use."""
        while True:
            part = f"{self._incoming}/{self._life}-{next(self._numbers)}{_PARTIAL}"
            descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)  # tells `remove_partial` that it is in use
                if os.fstat(descriptor).st_nlink:  # it was not a moment earlier
                    return part, descriptor
            except OSError:
                os.close(descriptor)
                raise
            os.close(descriptor)

    def _put_in_place(self, part: str, path: str) -> bool:
        """Give a synced file its name, durably; whether it is this call that did it."""
        final = f"{self._root}/{path}"
        try:
            os.link(part, final)
        except FileExistsError:
            _require_same(part, final)
            # The same bytes once more. Whether those that lie there are safe nobody knows, nor
            # their name: whoever wrote them may have failed to sync the folder, after which the
            # kernel calls it clean.
            os.replace(part, final)  # noqa: PTH105 - see `_root`
            is_new = False
        else:
            is_new = True
        sync(final.rpartition("/")[0])
        if not is_new:
            # A sync may take longer than the remover waits for what came again meanwhile: what it
            # has taken away since is not there, and its sender has to send it once more.
            os.stat(final)  # noqa: PTH116 - see `_root`
        return is_new

    def walk(self) -> Iterator[str]:
        """The paths of all stored instances."""
        for folder in sorted(self._instances.iterdir()):
            for file in sorted(folder.glob(f"*{_SUFFIX}")):
                yield str(file.relative_to(self._data_dir))

    def remove_partial(self) -> int:
        """Remove what a receiver that died was writing; none of it was acknowledged.

        Returns:
            How many files there were. What another process is writing now is left alone.
        """
        return sum(_remove_if_unused(file) for file in self._incoming.glob(f"*{_PARTIAL}"))


class Draft:
    """An instance that is being written. It is nothing until it is committed.

    Memory does not depend on its size. After `close` nothing of it is left but what was committed.
    """

    def __init__(self, store: FileStore, meta: bytes) -> None:
        self._store = store
        self._part, self._descriptor = store._new_part()  # noqa: SLF001 - two halves of one thing
        self._meta_length = len(meta)
        self._length = self._begun = 0
        # Goes out together with the first fragment.
        self._unwritten: tuple[Bytes, ...] = (meta,)

    def write(self, fragment: Bytes) -> None:
        """Append to the data set.

        Raises:
            Refused: `out-of-space` or `cannot-write` (A700).
        """
        with _refusing():
            self._length += _write(self._descriptor, (*self._unwritten, fragment))
        self._unwritten = ()
        if self._length - self._begun >= _EARLY_BYTES:
            _begin_to_sync(self._descriptor, self._begun, self._length - self._begun)
            self._begun = self._length

    def dataset(self) -> BinaryIO:
        """What has been written of the data set so far, from its beginning.

        Raises:
            Refused: As `write`.
        """
        self.write(b"")
        with _refusing():
            stream = os.fdopen(os.dup(self._descriptor), "rb")
        stream.seek(self._meta_length)
        return stream

    def commit(self, sop_instance_uid: str) -> StoredFile:
        """Make the instance safe under its UID; returns when it survives a power cut.

        First the content is synced, then it gets its name, then the name is synced: under a name
        there is never anything but a whole instance. A draft that failed to sync cannot be
        committed again: the kernel may have dropped what it could not write.

        Raises:
            Refused: `duplicate-with-other-content` (0111) where the UID is taken by other bytes,
                which stay; otherwise as `write`.
        """
        path = _place(sop_instance_uid)
        self.write(b"")
        with _refusing():
            os.fdatasync(self._descriptor)
            is_new = self._store._put_in_place(self._part, path)  # noqa: SLF001 - as above
        return StoredFile(path=path, is_new=is_new)

    def close(self) -> None:
        """Let go of the file; may be called again."""
        if self._descriptor < 0:
            return
        descriptor, self._descriptor = self._descriptor, -1
        # What cannot be removed now is removed at the next start.
        with contextlib.suppress(OSError):
            os.unlink(self._part)  # noqa: PTH108 - as above
        with contextlib.suppress(OSError):
            os.close(descriptor)


def _place(sop_instance_uid: str) -> str:
    digest = hashlib.sha256(sop_instance_uid.encode("ascii")).hexdigest()
    return f"{_INSTANCES}/{digest[:2]}/{sop_instance_uid}{_SUFFIX}"


def sop_instance_uid_of(path: str) -> str:
    """Whose place a path is, by its name alone."""
    return Path(path).name.removesuffix(_SUFFIX)


def _write(descriptor: int, pieces: Sequence[Bytes]) -> int:
    """Write all of it; returns how many bytes that were."""
    written = os.writev(descriptor, pieces)
    for piece in pieces:
        left = memoryview(piece)[written:]
        written = max(0, written - len(piece))
        while left:
            left = left[os.write(descriptor, left) :]
    return sum(len(piece) for piece in pieces)


def _begin_to_sync(descriptor: int, start: int, length: int) -> None:
    """Let the disk begin with a part of a file while more of it comes.

    Only a hint: what goes wrong with the part is told by the sync of the whole file.
    """
    if _sync_file_range is not None:
        _sync_file_range(descriptor, start, length, _SYNC_FILE_RANGE_WRITE)


def _require_same(part: str, final: str) -> None:
    if not filecmp.cmp(part, final, shallow=False):
        raise Refused(
            "duplicate-with-other-content",
            "Another object with this SOP Instance UID is stored; the first one is kept.",
            status=status.DUPLICATE_SOP_INSTANCE,
            element="SOPInstanceUID",
        )


def _remove_if_unused(file: Path) -> bool:
    try:
        # NFS locks exclusively what is open for writing alone: flock(2).
        with file.open("rb+") as partial:
            fcntl.flock(partial, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.unlink()
    except (BlockingIOError, FileNotFoundError):
        return False
    return True


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    """Translates what the file system says into what the sender is told."""
    try:
        yield
    except OSError as error:
        if error.errno in _OUT_OF_SPACE:
            raise Refused(
                "out-of-space",
                "The disk of the node is full: free space under its data folder, then send again.",
                status=status.OUT_OF_RESOURCES,
            ) from error
        raise Refused(
            "cannot-write",
            f"The node could not write the instance ({error.strerror}); send it again later.",
            status=status.OUT_OF_RESOURCES,
        ) from error
