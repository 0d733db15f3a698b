"""The instances as files: the write-ahead log of what was received.

An instance is safe when its file is synced, linked into place, and its folder is synced. Nothing
here ever changes or removes a file that was linked into place.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import filecmp
import hashlib
import os
import struct
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from dicomnode import uid
from dicomnode.archive import status
from dicomnode.archive.header import PREAMBLE_LENGTH, PREFIX, Identity
from dicomnode.errors import Refused

# PS3.7 D.3.3.2. Both stand in every file, and the same instance must always give the same file: a
# new release of the node does not change them.
IMPLEMENTATION_CLASS_UID = uid.derived("implementation class")
IMPLEMENTATION_VERSION_NAME = "DICOMNODE"

_INSTANCES, _INCOMING = "instances", "incoming"
_SUFFIX, _PARTIAL = ".dcm", ".part"
_OUT_OF_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})

Bytes = bytes | bytearray | memoryview


@dataclass(frozen=True, kw_only=True)
class StoredFile:
    """Where an instance lies.

    Attributes:
        path: Relative to the data folder.
        is_new: Whether this call is the one that made it safe. For a repetition of what was safe
            before it is false.
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
        self._incoming = data_dir / _INCOMING
        self._instances = data_dir / _INSTANCES
        self._incoming.mkdir(parents=True, exist_ok=True)
        for number in range(256):
            (self._instances / f"{number:02x}").mkdir(parents=True, exist_ok=True)
        for folder in (self._instances, data_dir):
            _sync(folder)
        # Where we may not read, somebody else has made the data folder long before.
        with contextlib.suppress(PermissionError):
            _sync(data_dir.absolute().parent)
        # What is linked into place and not known to be safe yet, so that a repetition after a
        # failed sync counts as new. A dict for its atomic `pop`.
        self._unsafe: dict[str, bool] = {}

    def absolute(self, path: str) -> Path:
        """The place of a path that `store` or `walk` gave."""
        return self._data_dir / path

    def store(
        self, identity: Identity, *, meta: bytes, dataset: Bytes | Iterable[Bytes]
    ) -> StoredFile:
        """Keep one instance; returns when it survives a power cut.

        Args:
            identity: Who it is.
            meta: What `file_meta` made.
            dataset: The encoded data set, whole or in pieces.

        Raises:
            Refused: `duplicate-with-other-content` (0111) where the UID is taken by other bytes,
                which stay; `out-of-space` or `cannot-write` (A700), and nothing is left behind.
        """
        path = _place(identity.sop_instance_uid)
        final = self.absolute(path)
        pieces = [dataset] if isinstance(dataset, Bytes) else dataset
        with _refusing(), self._partial(chain([meta], pieces)) as part:
            try:
                os.link(part, final)
                self._unsafe[path] = True
            except FileExistsError:
                _require_same(part, final)
                _sync(final)
            _sync(final.parent)
        return StoredFile(path=path, is_new=self._unsafe.pop(path, False))

    @contextlib.contextmanager
    def _partial(self, pieces: Iterable[Bytes]) -> Iterator[Path]:
        """A synced file of `pieces` in `incoming/`, gone when the block is left."""
        descriptor, name = tempfile.mkstemp(suffix=_PARTIAL, dir=self._incoming)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # tells `remove_partial` that it is in use
            for piece in pieces:
                _write(descriptor, piece)
            os.fsync(descriptor)
            yield Path(name)
        finally:
            os.close(descriptor)
            # What cannot be removed now is removed at the next start.
            with contextlib.suppress(OSError):
                os.unlink(name)  # noqa: PTH108 - beside os.link and os.fsync

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


def _place(sop_instance_uid: str) -> str:
    digest = hashlib.sha256(sop_instance_uid.encode("ascii")).hexdigest()
    return f"{_INSTANCES}/{digest[:2]}/{sop_instance_uid}{_SUFFIX}"


def _write(descriptor: int, piece: Bytes) -> None:
    left = memoryview(piece)
    while left:
        left = left[os.write(descriptor, left) :]


def _sync(path: Path) -> None:
    """Make the content of a file, or the entries of a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _require_same(part: Path, final: Path) -> None:
    if not filecmp.cmp(part, final, shallow=False):
        raise Refused(
            "duplicate-with-other-content",
            "Another object with this SOP Instance UID is stored; the first one is kept.",
            status=status.DUPLICATE_SOP_INSTANCE,
            element="SOPInstanceUID",
        )


def _remove_if_unused(file: Path) -> bool:
    try:
        with file.open("rb") as partial:
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
