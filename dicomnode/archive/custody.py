"""Whether objects that were received are still kept, byte for byte: looked up, and read.

The answer lets a sender delete its own copy. It is never taken from the index alone.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from dicomnode import log
from dicomnode import uid as uids
from dicomnode.archive import commitments, contents
from dicomnode.archive.commitments import Failure, FailureReason, Kept, Reference
from dicomnode.archive.contents import Unreadable
from dicomnode.archive.database import Database
from dicomnode.archive.files import FileStore
from dicomnode.errors import RetryLater

_log = log.get(__name__)


def failures(
    database: Database, store: FileStore, references: Sequence[Reference]
) -> list[Failure]:
    """Those of `references` that are not kept, and why.

    An object is kept when its file is there under its SOP Instance UID, is of the SOP class that is
    named, and has the SHA-256 that the index noted when it came. The index lags behind the files:
    what is not indexed yet is judged by its file, which says itself who it is, is read to its end,
    and is synced here once more. There is nothing to wait for: a file bears its name only when it
    is whole.

    Raises:
        RetryLater: `database-unavailable`.
    """
    with database.read() as tx:
        kept = commitments.kept(tx, references)
    return [
        Failure(reference=one, reason=reason)
        for one in references
        if (reason := _fault(store, one, kept)) is not None
    ]


def _fault(
    store: FileStore, reference: Reference, kept: Mapping[str, Kept]
) -> FailureReason | None:
    uid = reference.sop_instance_uid
    if not uids.is_acceptable(uid):  # nothing was ever stored under it, and it is no file name
        return FailureReason.NO_SUCH_OBJECT
    try:
        indexed = kept.get(uid)
        sop_class_uid = _indexed(store, indexed) if indexed else _unindexed(store, uid)
    except FileNotFoundError:
        return FailureReason.NO_SUCH_OBJECT
    except (OSError, RetryLater) as error:
        _log.error("kept file unreadable", sop_instance=uid, error=type(error).__name__)
        return FailureReason.PROCESSING_FAILURE
    if not sop_class_uid:
        _log.error("kept file is not what came", sop_instance=uid)
        return FailureReason.PROCESSING_FAILURE
    if sop_class_uid != reference.sop_class_uid:
        return FailureReason.CLASS_INSTANCE_CONFLICT
    return None


def _indexed(store: FileStore, kept: Kept) -> str:
    """The SOP class of an object whose file has the digest of its row, or ""."""
    with store.absolute(kept.path).open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    return kept.sop_class_uid if digest == kept.digest else ""


def _unindexed(store: FileStore, uid: str) -> str:
    """The SOP class of an object by what its file says, or "" where that is somebody else."""
    path = store.place(uid)
    file = store.absolute(path)
    _sync(file)
    _sync(file.parent)
    content = contents.read(store, path)
    if isinstance(content, Unreadable) or content.instance.sop_instance_uid != uid:
        return ""
    return content.instance.sop_class_uid


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
