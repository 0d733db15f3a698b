"""C-STORE requests → instances that are safe, or a status that says why not (PS3.4 Annex B)."""

from __future__ import annotations

import io
from dataclasses import dataclass, field

from pydicom import Dataset
from pydicom.datadict import tag_for_keyword

from dicomnode.archive import files, header, status
from dicomnode.archive.files import FileStore, StoredFile
from dicomnode.archive.header import Identity
from dicomnode.errors import Refused

_MAX_COMMENT_LENGTH = 64  # Error Comment (0000,0902) is LO


@dataclass(frozen=True, kw_only=True)
class StoreRequest:
    """A C-STORE-RQ with the presentation context that it came under (PS3.7 9.3.1).

    Attributes:
        abstract_syntax_uid: What the context is for.
        dataset: The data set, as it was sent.
    """

    sop_class_uid: str
    sop_instance_uid: str
    abstract_syntax_uid: str
    transfer_syntax_uid: str
    dataset: io.BytesIO = field(repr=False)


def identify(request: StoreRequest) -> Identity:
    """Find out which instance is being sent.

    Raises:
        Refused: As `header.scan`; `sop-class-not-supported` (0122) where the command is for another
            class than its context; `does-not-match-command` (A9xx) where the data set is.
    """
    if request.sop_class_uid != request.abstract_syntax_uid:
        raise Refused(
            "sop-class-not-supported",
            "The presentation context of the request is for another SOP class.",
            status=status.SOP_CLASS_NOT_SUPPORTED,
        )
    request.dataset.seek(0)
    identity = header.scan(request.dataset, transfer_syntax_uid=request.transfer_syntax_uid)
    _require_equal("SOPClassUID", request.sop_class_uid, identity.sop_class_uid)
    _require_equal("SOPInstanceUID", request.sop_instance_uid, identity.sop_instance_uid)
    return identity


def _require_equal(keyword: str, commanded: str, found: str) -> None:
    if commanded != found:
        raise Refused(
            "does-not-match-command",
            f"{keyword} of the data set is not the one that the command names.",
            status=status.DATA_SET_DOES_NOT_MATCH,
            element=keyword,
        )


def keep(request: StoreRequest, identity: Identity, *, store: FileStore) -> StoredFile:
    """Make an instance safe, its data set byte for byte as it was sent.

    Raises:
        Refused: As `FileStore.store`.
    """
    meta = files.file_meta(
        sop_class_uid=identity.sop_class_uid,
        sop_instance_uid=identity.sop_instance_uid,
        transfer_syntax_uid=request.transfer_syntax_uid,
    )
    with request.dataset.getbuffer() as dataset:
        return store.store(identity, meta=meta, dataset=dataset)


def answer(refusal: Refused) -> Dataset:
    """The status elements of a C-STORE-RSP that refuses (PS3.7 C.4 and C.5)."""
    response = Dataset()
    response.Status = refusal.status
    comment = str(refusal).replace("\\", "/").encode("ascii", "replace").decode()
    response.ErrorComment = comment[:_MAX_COMMENT_LENGTH]
    if refusal.element:
        response.OffendingElement = tag_for_keyword(refusal.element)
    return response
