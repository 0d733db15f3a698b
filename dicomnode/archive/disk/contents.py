"""What a stored file says of itself, read for the index: off the way of the acknowledgement.

A file that was acknowledged is indexed whatever is odd in it, as long as it says who it is.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dicomnode import log
from dicomnode.archive.disk import header
from dicomnode.archive.disk.files import FileStore
from dicomnode.archive.disk.header import Identity
from dicomnode.errors import NodeError, Refused, RetryLater
from dicomnode.study import HeaderValue, Instance

_log = log.get(__name__)

# What passes: too many files open, no memory, a network file system that lost its handle or does
# not answer.
_PASSING = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE, errno.ETIMEDOUT})


@dataclass(frozen=True, kw_only=True)
class Content:
    """What the index keeps of a stored file.

    Attributes:
        fault: Why its header could not be read, or "".
    """

    instance: Instance
    size: int
    fault: str


@dataclass(frozen=True, kw_only=True)
class Unreadable:
    """A stored file that does not even say who it is any more."""

    detail: str


def read(store: FileStore, path: str) -> Content | Unreadable:
    """Read a stored file for the index.

    Args:
        path: As the store gave it.

    Raises:
        RetryLater: `file-system`: it may be read in a while.
    """
    file = store.absolute(path)
    try:
        digest, size = _digest(file)
        identity, transfer_syntax_uid, values, fault = _header(file)
    except NodeError as error:
        return Unreadable(detail=error.detail)
    except OSError as error:
        if error.errno in _PASSING:
            raise RetryLater("file-system", f"{path}: {error.strerror}.") from error
        return Unreadable(detail=str(error.strerror))
    except Exception as error:  # noqa: BLE001 - one odd file must not stop all the others
        _log.exception("stored file unreadable", path=path)
        return Unreadable(detail=f"{type(error).__name__} while it was read; see the log.")
    instance = Instance(
        sop_instance_uid=identity.sop_instance_uid,
        sop_class_uid=identity.sop_class_uid,
        transfer_syntax_uid=transfer_syntax_uid,
        series_instance_uid=identity.series_instance_uid,
        study_instance_uid=identity.study_instance_uid,
        digest=digest,
        path=path,
        header=values,
    )
    return Content(instance=instance, size=size, fault=fault)


def _header(file: Path) -> tuple[Identity, str, Mapping[str, HeaderValue], str]:
    """The header, and what is wrong with it.

    A file that breaks off behind its UIDs has none; it is indexed all the same, so that its study
    is seen and each rule says what it lacks.
    """
    try:
        return *header.index_header(file), ""
    except OSError:
        raise
    except Refused as error:
        return *header.identify(file), {}, error.detail
    except Exception as error:  # noqa: BLE001 - whatever is odd in it, it was acknowledged
        _log.exception("header unreadable", path=str(file.name))
        return *header.identify(file), {}, f"{type(error).__name__}; see the log."


def _digest(file: Path) -> tuple[str, int]:
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256")
        return digest.hexdigest(), content.tell()
