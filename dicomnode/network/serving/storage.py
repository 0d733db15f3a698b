"""C-STORE requests → instances that are safe, or a status that says why not (PS3.4 Annex B)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from dicomnode import log, status, uid
from dicomnode.archive.disk import files, header
from dicomnode.archive.disk.files import Draft, FileStore, StoredFile
from dicomnode.archive.disk.header import Identity
from dicomnode.errors import Refused
from dicomnode.network import association

_log = log.get(__name__)

_MAX_COMMENT_LENGTH = 64  # Error Comment (0000,0902) is LO

# Most instances say who they are within so many bytes of their first fragment. Those that do not
# are asked once they are whole.
_HEAD_LENGTH = 4096
# So much of an instance comes before it is asked again whether there is room for it.
_LOOK_AGAIN_BYTES = 64 * 1024 * 1024


class Gate(Protocol):
    """Whether there is room for more."""

    def admit(self, study_instance_uid: str) -> None:
        """Let an instance of a study in.

        Raises:
            Refused: With a status of A7xx where there is no room for it.
        """


class OpenGate:
    """Room without end: the disk itself says when it is full."""

    def admit(self, study_instance_uid: str) -> None:
        """Let it in."""


@dataclass(frozen=True, kw_only=True)
class StoreRequest:
    """A C-STORE-RQ with the presentation context that it came under (PS3.7 9.3.1).

    Attributes:
        abstract_syntax_uid: What the context is for.
    """

    sop_class_uid: str
    sop_instance_uid: str
    abstract_syntax_uid: str
    transfer_syntax_uid: str


@dataclass(frozen=True, kw_only=True)
class Shelf:
    """Where instances go, and within which limits.

    Attributes:
        longest: Bytes that a data set may have.
    """

    store: FileStore
    gate: Gate
    longest: int


class Incoming:
    """An instance while it is being received: fragments in, one outcome.

    It is judged as soon as it says who it is. What is refused is not written any further, and read
    to its end all the same: the sender hears the status, and the next instance has its turn.
    """

    def __init__(self, request: StoreRequest, shelf: Shelf) -> None:
        self._request = request
        self._shelf = shelf
        self._length = 0
        self._look_again_at = _LOOK_AGAIN_BYTES
        self._identity: Identity | None = None
        self._draft: Draft | None = None
        self._refusal: Refused | None = None

    @property
    def study_instance_uid(self) -> str:
        """The study that it is of; "" as long as that is not known."""
        return self._identity.study_instance_uid if self._identity else ""

    def write(self, fragment: bytes | memoryview) -> None:
        """Take the next fragment of the data set. It is used before the call returns."""
        if self._refusal is None:
            self._guard(lambda: self._take(fragment))

    def finish(self, keep: Callable[[StoredFile], None]) -> Refused | None:
        """The data set is whole: make it safe, and tell `keep` before anyone else.

        Returns:
            Why it was refused, or `None` for an instance that is safe. Whatever `keep` raises
            refuses it too.
        """
        if self._refusal is None:
            self._guard(lambda: keep(self._commit()))
        self.close()
        return self._refusal

    def close(self) -> None:
        """Forget what is not finished. May be called again."""
        if self._draft is not None:
            self._draft.close()

    def _guard(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Refused as named:
            self._refusal = named
        except Exception:  # noqa: BLE001 - the edge: what nobody named is never acknowledged
            _log.exception("instance failed unexpectedly")
            self._refusal = unexpected(status.PROCESSING_FAILURE)
        if self._refusal is not None:
            self.close()

    def _take(self, fragment: bytes | memoryview) -> None:
        self._length += len(fragment)
        if self._length > self._shelf.longest:
            raise _too_long(self._shelf.longest)
        if self._draft is None:
            self._draft = self._begin(fragment)
        self._draft.write(fragment)
        if self._length > self._look_again_at and self._identity is not None:
            # A long one may eat what was free when it began.
            self._look_again_at = self._length + _LOOK_AGAIN_BYTES
            self._shelf.gate.admit(self._identity.study_instance_uid)

    def _begin(self, fragment: bytes | memoryview) -> Draft:
        request = self._request
        if request.sop_class_uid != request.abstract_syntax_uid:
            raise _other_sop_class()
        if not association.is_for_storage(request.abstract_syntax_uid):
            raise _other_sop_class()
        try:
            self._identity = self._scan(bytes(fragment[:_HEAD_LENGTH]))
        except Refused:
            # Its head may lie in the fragments to come: it is asked again when it is whole. Until
            # then the file goes by what the command says.
            if not uid.is_acceptable(request.sop_instance_uid):
                raise
        else:
            self._judge(self._identity)
        meta = files.file_meta(
            sop_class_uid=request.sop_class_uid,
            sop_instance_uid=request.sop_instance_uid,
            transfer_syntax_uid=request.transfer_syntax_uid,
        )
        return self._shelf.store.draft(meta)

    def _scan(self, head: bytes) -> Identity:
        return header.scan(head, transfer_syntax_uid=self._request.transfer_syntax_uid)

    def _judge(self, identity: Identity) -> None:
        if self._request.sop_class_uid != identity.sop_class_uid:
            raise _does_not_match("SOPClassUID")
        if self._request.sop_instance_uid != identity.sop_instance_uid:
            raise _does_not_match("SOPInstanceUID")
        self._shelf.gate.admit(identity.study_instance_uid)

    def _commit(self) -> StoredFile:
        if self._draft is None:  # not one byte came
            self._draft = self._begin(b"")
        if self._identity is None:
            with self._draft.dataset() as dataset:
                self._identity = header.scan(
                    dataset, transfer_syntax_uid=self._request.transfer_syntax_uid
                )
            self._judge(self._identity)
        return self._draft.commit(self._identity.sop_instance_uid)


def comment(refusal: Refused) -> str:
    """What a C-STORE-RSP says of a refusal in its Error Comment (PS3.7 C.5)."""
    text = str(refusal).replace("\\", "/").encode("ascii", "replace").decode()
    return text[:_MAX_COMMENT_LENGTH].strip()


def unexpected(code: int) -> Refused:
    """The refusal for what went wrong without a name."""
    return Refused(
        "unexpected-error", "Something failed in the node; its log says what.", status=code
    )


def _other_sop_class() -> Refused:
    return Refused(
        "sop-class-not-supported",
        "The presentation context of the request is for another SOP class.",
        status=status.SOP_CLASS_NOT_SUPPORTED,
    )


def _does_not_match(keyword: str) -> Refused:
    return Refused(
        "does-not-match-command",
        f"{keyword} of the data set is not the one that the command names.",
        status=status.DATA_SET_DOES_NOT_MATCH,
        element=keyword,
    )


def _too_long(longest: int) -> Refused:
    return Refused(
        "instance-too-long",
        f"The instance has more than {longest} bytes: see listen.max_instance_gib.",
        status=status.CANNOT_UNDERSTAND,
    )
