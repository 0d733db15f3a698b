"""Archives of strangers, unpacked: zip and tar, and nothing that reaches outside or explodes.

An archive is refused as a whole where a member's name is absolute or climbs ("..", a drive letter),
where a member is neither a file nor a folder (links, devices), where a name stands twice, and where
its members come to more than `MOST_BYTES`, `MOST_MEMBERS` or `MOST_TIMES` the archive's own size.
Sizes are counted as they are written: what a header says is believed only where it is too much.
"""

from __future__ import annotations

import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Self

from dicomnode.errors import Misconfigured

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")

MOST_BYTES = 64 * 1024**3
MOST_MEMBERS = 100_000
#: Weights hardly shrink; what shrinks a hundredfold is no bundle.
MOST_TIMES = 100
_ALWAYS_ALLOWED = 64 * 1024**2  # a small archive of texts may shrink more
_MOST_OF_A_HEADER = 1024**2  # of a tar's extended header, which is read whole
_CHUNK = 1024**2
_SYMBOLS = frozenset('\\:*?"<>|')  # no part of a path, or of another one, on some systems


@dataclass(frozen=True, kw_only=True)
class _Member:
    """One file of an archive, with its name checked.

    Attributes:
        size: As the header says.
        content: What can be read of it.
    """

    path: PurePosixPath
    size: int
    content: IO[bytes]


def is_archive(path: Path) -> bool:
    """Whether the name of a file says that it is one of those that can be unpacked."""
    return path.name.lower().endswith(SUFFIXES)


def unpack(path: Path, into: Path) -> None:
    """Unpack an archive into an empty folder.

    Raises:
        Misconfigured: `archive-faulty` or `archive-unsafe`; what was written until then stays, and
            is the caller's to remove.
    """
    try:
        allowed = min(MOST_BYTES, max(path.stat().st_size * MOST_TIMES, _ALWAYS_ALLOWED))
        _require_room(path, into, path.stat().st_size)
        _write(_members(path), into, path=path, allowed=allowed)
    except (
        zipfile.BadZipFile,
        tarfile.TarError,
        zlib.error,
        lzma.LZMAError,
        EOFError,
        NotImplementedError,
        RuntimeError,  # what zipfile says of an encrypted member
    ) as error:
        raise Misconfigured(
            "archive-faulty",
            f"{path}: {' '.join(str(error).split()) or type(error).__name__}. Fetch it again.",
        ) from error
    except OSError as error:
        raise Misconfigured(
            "archive-faulty", f"{error.filename or path}: {error.strerror or error}."
        ) from error


def _members(path: Path) -> Iterator[_Member]:
    if zipfile.is_zipfile(path):
        return _of_zip(path)
    return _of_tar(path)


def _of_zip(path: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
                raise _unsafe(path, info.filename, "is a link or a device")
            name = _checked(path, info.filename)
            if not info.is_dir():
                with archive.open(info) as content:
                    yield _Member(path=name, size=info.file_size, content=content)


def _of_tar(path: Path) -> Iterator[_Member]:
    with tarfile.open(path, tarinfo=_Header) as archive:
        for info in archive:
            if info.isdir() and info.name == ".":
                continue
            name = _checked(path, info.name)
            if info.isdir():
                continue
            content = archive.extractfile(info) if info.isreg() else None
            if content is None:
                raise _unsafe(path, info.name, "is a link or a device")
            yield _Member(path=name, size=info.size, content=content)


class _Header(tarfile.TarInfo):
    """A tar's header whose extension is not read where it is too large to be one."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        header = super().frombuf(buf, encoding, errors)
        if not (header.isreg() or header.isdir()) and header.size > _MOST_OF_A_HEADER:
            raise tarfile.ReadError("a header is larger than any that is meant")
        return header


def _checked(path: Path, name: str) -> PurePosixPath:
    parts = PurePosixPath(name).parts
    if (
        not parts
        or name.startswith("/")
        or ".." in parts
        or not name.isprintable()
        or _SYMBOLS & set(name)
    ):
        raise _unsafe(path, name, "has no plain path inside of the archive")
    return PurePosixPath(*parts)


def _write(members: Iterator[_Member], into: Path, *, path: Path, allowed: int) -> None:
    left, written = allowed, set[PurePosixPath]()
    for member in members:
        if member.path in written:
            raise _unsafe(path, str(member.path), "stands twice in it")
        written.add(member.path)
        if member.size > left or len(written) > MOST_MEMBERS:
            raise _too_much(path)
        left -= _copy(member, into / member.path, path=path, allowed=left)


def _copy(member: _Member, target: Path, *, path: Path, allowed: int) -> int:
    """Write one file as new; give its bytes."""
    target.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with target.open("xb") as file:
        while chunk := member.content.read(_CHUNK):
            count += len(chunk)
            if count > allowed:
                raise _too_much(path)
            file.write(chunk)
    return count


def _require_room(path: Path, into: Path, size: int) -> None:
    free = shutil.disk_usage(into).free
    if size > free:
        raise Misconfigured(
            "no-room", f"{path} has {size} bytes, and {into} has {free} left. Make room."
        )


def _too_much(path: Path) -> Misconfigured:
    return Misconfigured(
        "archive-unsafe",
        f"{path} unpacks to far more than a bundle is. If it is one all the same, unpack it"
        " yourself and add the folder.",
    )


def _unsafe(path: Path, name: str, what: str) -> Misconfigured:
    return Misconfigured("archive-unsafe", f"{path}: {name!r} {what}. It was not unpacked.")
