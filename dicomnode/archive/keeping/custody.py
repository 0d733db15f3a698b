"""Whether objects that were received are still kept, byte for byte: looked up, and read.

The answer lets a sender delete its own copy. It is never taken from the index alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dicomnode import log
from dicomnode import uid as uids
from dicomnode.archive import commitments
from dicomnode.archive.commitments import Failure, FailureReason, Kept, Reference
from dicomnode.archive.database import Database
from dicomnode.archive.disk import contents
from dicomnode.archive.disk.contents import Unreadable
from dicomnode.archive.disk.files import FileStore
from dicomnode.durable import sync
from dicomnode.errors import RetryLater

_log = log.get(__name__)


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What became of objects that somebody asks about.

    Attributes:
        failures: Those that are not kept, and why.
        studies: The Study Instance UIDs of the others, also of those that are not indexed yet.
    """

    failures: tuple[Failure, ...]
    studies: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class _Object:
    sop_class_uid: str
    study_instance_uid: str


def look(database: Database, store: FileStore, references: Sequence[Reference]) -> Findings:
    """Look at each of `references`: is it kept, and in which study?

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
    failures: list[Failure] = []
    studies: set[str] = set()
    for one in references:
        found = _find(store, one, kept)
        if isinstance(found, FailureReason):
            failures.append(Failure(reference=one, reason=found))
        else:
            studies.add(found.study_instance_uid)
    return Findings(failures=tuple(failures), studies=frozenset(studies))


def _find(
    store: FileStore, reference: Reference, kept: Mapping[str, Kept]
) -> _Object | FailureReason:
    uid = reference.sop_instance_uid
    if not uids.is_acceptable(uid):  # nothing was ever stored under it, and it is no file name
        return FailureReason.NO_SUCH_OBJECT
    try:
        indexed = kept.get(uid)
        found = _indexed(store, indexed) if indexed else _unindexed(store, uid)
    except FileNotFoundError:
        return FailureReason.NO_SUCH_OBJECT
    except (OSError, RetryLater) as error:
        _log.error("kept file unreadable", sop_instance=uid, error=type(error).__name__)
        return FailureReason.PROCESSING_FAILURE
    if found is None:
        _log.error("kept file is not what came", sop_instance=uid)
        return FailureReason.PROCESSING_FAILURE
    if found.sop_class_uid != reference.sop_class_uid:
        return FailureReason.CLASS_INSTANCE_CONFLICT
    return found


def _indexed(store: FileStore, kept: Kept) -> _Object | None:
    """An object by its row, or `None` where its file has another digest."""
    with store.absolute(kept.path).open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    if digest != kept.digest:
        return None
    return _Object(sop_class_uid=kept.sop_class_uid, study_instance_uid=kept.study_instance_uid)


def _unindexed(store: FileStore, uid: str) -> _Object | None:
    """An object by what its file says, or `None` where that is somebody else."""
    path = store.place(uid)
    file = store.absolute(path)
    sync(file)
    sync(file.parent)
    content = contents.read(store, path)
    if isinstance(content, Unreadable) or content.instance.sop_instance_uid != uid:
        return None
    return _Object(
        sop_class_uid=content.instance.sop_class_uid,
        study_instance_uid=content.instance.study_instance_uid,
    )
