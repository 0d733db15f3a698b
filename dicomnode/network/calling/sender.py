"""Stored objects → a peer, each answer checked; and what a peer says that it has."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom import Dataset
from pydicom.uid import UID
from pynetdicom import build_context
from pynetdicom.association import Association
from pynetdicom.dsutils import encode
from pynetdicom.presentation import PresentationContext

from dicomnode import status
from dicomnode.archive.disk import elements, header
from dicomnode.archive.disk.header import FileMeta
from dicomnode.auditing.events import Query
from dicomnode.errors import Misconfigured, Refused, RetryLater
from dicomnode.network.calling import conversion
from dicomnode.network.calling.request import MAX_CONTEXTS, Destination, Patience, requested
from dicomnode.status import outcome

__all__ = [
    "Destination",
    "Sent",
    "dicom_files",
    "echo",
    "find_instances",
    "outcome",
    "parse_destination",
    "send",
]

_VERIFICATION = "1.2.840.10008.1.1"  # PS3.4 A.4
_STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"  # PS3.4 C.6.2
_MEDIUM = 0x0000  # Priority (0000,0700), PS3.7 Table 9.3-1
_LAST_MESSAGE_ID = 65535  # Message ID (0000,0110) is US
_PENDING = frozenset({0xFF00, 0xFF01})  # PS3.4 Table C.4-1
_MEDIA_STORAGE_DIRECTORY = "1.2.840.10008.1.3.10"  # PS3.3 F: the DICOMDIR

_DESTINATION = re.compile(r"(?P<ae>[^@]{1,16})@(\[(?P<v6>.+)\]|(?P<host>[^:\[\]]+)):(?P<port>\d+)")
_PORTS = range(1, 65536)


@dataclass(frozen=True, kw_only=True)
class Sent:
    """What became of one object.

    Attributes:
        sop_instance_uid: "" where the file does not say it.
        status: What the peer answered; for an object that could not be sent at all, the status
            that says why.
        comment: Why it was not stored, in the peer's words or ours.
    """

    path: Path
    sop_instance_uid: str
    status: int
    comment: str = ""


@dataclass(frozen=True, kw_only=True)
class _Outgoing:
    path: Path
    meta: FileMeta


_Item = _Outgoing | Sent  # what cannot be read has its outcome already
_Proposal = tuple[str, tuple[str, ...]]  # an abstract syntax and its transfer syntaxes


def send(
    paths: Sequence[Path],
    *,
    to: Destination,
    calling_ae_title: str,
    progress: Callable[[Sent], None] | None = None,
) -> tuple[Sent, ...]:
    """Send files in their order.

    An object goes out as the bytes that are stored, where the peer takes their transfer syntax;
    otherwise uncompressed, where that loses nothing. Objects of more kinds than one association
    can carry go out on several, one after the other.

    Args:
        paths: DICOM files.
        to: The peer.
        calling_ae_title: Our own AE title.
        progress: Told of each object as soon as its outcome is known.

    Returns:
        One outcome for each path. `outcome(sent.status)` says what it means.

    Raises:
        RetryLater: The peer cannot be reached, rejects us, or stops answering (`request.requested`,
            `no-answer`), or a file goes away while it is sent (`unreadable-file`). What was sent
            before may be sent again: twice is once.
    """
    sent: list[Sent] = []
    for items, proposals in _batches([_item(path) for path in paths]):
        for one in _send_batch(items, proposals, to=to, calling_ae_title=calling_ae_title):
            sent.append(one)
            if progress is not None:
                progress(one)
    return tuple(sent)


def _item(path: Path) -> _Item:
    try:
        with path.open("rb") as file:
            return _Outgoing(path=path, meta=header.read_meta(file))
    except Refused as refusal:
        return _unsent(path, "", refusal.status, refusal.detail)
    except OSError as error:
        return _unsent(path, "", status.CANNOT_UNDERSTAND, f"Cannot be read: {error.strerror}.")


def _unsent(path: Path, sop_instance_uid: str, code: int, comment: str) -> Sent:
    return Sent(path=path, sop_instance_uid=sop_instance_uid, status=code, comment=comment)


def _batches(items: Iterable[_Item]) -> Iterator[tuple[list[_Item], list[_Proposal]]]:
    """Cut `items` into what one association can carry, with what it has to propose."""
    batch: list[_Item] = []
    proposals: dict[_Proposal, None] = {}
    for item in items:
        needed = dict.fromkeys(_proposals(item))
        if len(proposals | needed) > MAX_CONTEXTS:
            yield batch, list(proposals)
            batch, proposals = [], {}
        batch.append(item)
        proposals |= needed
    if batch:
        yield batch, list(proposals)


def _proposals(item: _Item) -> list[_Proposal]:
    """The transfer syntax of the object by itself, then those that it could be converted to."""
    if isinstance(item, Sent):
        return []
    sop_class_uid, transfer_syntax_uid = item.meta.sop_class_uid, item.meta.transfer_syntax_uid
    others = conversion.alternatives(transfer_syntax_uid)
    as_it_is = (sop_class_uid, (transfer_syntax_uid,))
    return [as_it_is, (sop_class_uid, others)] if others else [as_it_is]


def _send_batch(
    items: Sequence[_Item],
    proposals: Sequence[_Proposal],
    *,
    to: Destination,
    calling_ae_title: str,
) -> Iterator[Sent]:
    if not proposals:
        yield from (item for item in items if isinstance(item, Sent))
        return
    contexts = [build_context(sop_class_uid, [*syntaxes]) for sop_class_uid, syntaxes in proposals]
    with requested(to, calling_ae_title=calling_ae_title, contexts=contexts) as assoc:
        for number, item in enumerate(items):
            message_id = number % _LAST_MESSAGE_ID + 1
            yield item if isinstance(item, Sent) else _send_one(assoc, item, message_id, to=to)


def _send_one(assoc: Association, item: _Outgoing, message_id: int, *, to: Destination) -> Sent:
    uid = item.meta.sop_instance_uid
    try:
        content = _content(assoc, item)
        response = assoc.send_c_store(content, msg_id=message_id, priority=_MEDIUM)
    except Refused as refusal:
        return _unsent(item.path, uid, refusal.status, refusal.detail)
    except (ValueError, AttributeError):  # what was converted does not encode
        return _unsent(item.path, uid, status.CANNOT_UNDERSTAND, "Cannot be encoded for the peer.")
    except OSError as error:  # perhaps in the middle of the message: the association is of no use
        raise RetryLater(
            "unreadable-file", f"{item.path.name} could not be read while it was sent."
        ) from error
    except RuntimeError as error:  # the association is gone
        raise _no_answer(to) from error
    if "Status" not in response:
        raise _no_answer(to)
    comment = str(response.get("ErrorComment", ""))
    return Sent(path=item.path, sop_instance_uid=uid, status=response.Status, comment=comment)


def _content(assoc: Association, item: _Outgoing) -> Path | Dataset:
    """The file itself where the peer takes its transfer syntax, else its data set, decoded."""
    accepted = {
        context.transfer_syntax[0]
        for context in assoc.accepted_contexts
        if context.abstract_syntax == item.meta.sop_class_uid
    }
    transfer_syntax_uid = item.meta.transfer_syntax_uid
    if transfer_syntax_uid in accepted:
        return item.path
    if accepted.isdisjoint(conversion.alternatives(transfer_syntax_uid)):
        raise Refused(
            "not-accepted",
            "The peer takes no objects of this SOP class in this transfer syntax.",
            status=status.SOP_CLASS_NOT_SUPPORTED,
        )
    return conversion.uncompressed(item.path, transfer_syntax_uid=transfer_syntax_uid)


def _no_answer(to: Destination) -> RetryLater:
    return RetryLater("no-answer", f"{to} stopped answering in the middle of an association.")


def echo(to: Destination, *, calling_ae_title: str, timeout_s: float = 5) -> None:
    """Verify that a peer answers (C-ECHO, PS3.4 Annex A).

    Raises:
        RetryLater: As `send`; `echo-refused` where it answers something else than success.
    """
    patience = Patience(connect_s=timeout_s, acse_s=timeout_s, answer_s=timeout_s)
    contexts = [build_context(_VERIFICATION, [elements.IMPLICIT_VR_LITTLE_ENDIAN])]
    with requested(
        to, calling_ae_title=calling_ae_title, contexts=contexts, patience=patience
    ) as assoc:
        if not assoc.accepted_contexts:
            raise RetryLater("echo-refused", f"{to} does not take Verification.")
        response = assoc.send_c_echo()
        if "Status" not in response:
            raise _no_answer(to)
        if response.Status != status.SUCCESS:
            raise RetryLater("echo-refused", f"{to} answered C-ECHO with 0x{response.Status:04X}.")


def find_instances(
    destination: Destination,
    *,
    calling_ae_title: str,
    study_instance_uid: str,
    series_instance_uid: str,
    sop_instance_uids: Sequence[str],
    asked: Callable[[Query], None] = lambda _: None,
) -> set[str]:
    """Ask a peer which of some instances of a series it has (C-FIND, PS3.4 C.6.2).

    Args:
        destination: The peer.
        calling_ae_title: Our own AE title.
        study_instance_uid: Of the series.
        series_instance_uid: Of the instances.
        sop_instance_uids: The instances.
        asked: Told of the query as it goes out; not called where there is no association for it.

    Returns:
        Those of `sop_instance_uids` that it lists.

    Raises:
        RetryLater: As `send`; `find-refused` where it does not answer such queries or fails.
    """
    query = Dataset()
    query.QueryRetrieveLevel = "IMAGE"
    query.StudyInstanceUID = study_instance_uid
    query.SeriesInstanceUID = series_instance_uid
    # Not every peer matches lists of UIDs: for several, everything in the series is asked for.
    query.SOPInstanceUID = sop_instance_uids[0] if len(sop_instance_uids) == 1 else ""
    contexts = [build_context(_STUDY_ROOT_FIND, [*conversion.UNCOMPRESSED])]
    with requested(destination, calling_ae_title=calling_ae_title, contexts=contexts) as assoc:
        if not assoc.accepted_contexts:
            raise RetryLater("find-refused", f"{destination} does not take C-FIND.")
        asked(_as_asked(query, assoc.accepted_contexts[0]))
        return set(_found(assoc, query, destination)) & set(sop_instance_uids)


def _as_asked(query: Dataset, context: PresentationContext) -> Query:
    """A query as it goes out in an accepted context."""
    syntax = UID(context.transfer_syntax[0])
    encoded = encode(query, syntax.is_implicit_VR, syntax.is_little_endian)
    return Query(
        sop_class_uid=_STUDY_ROOT_FIND, transfer_syntax_uid=str(syntax), identifier=encoded or b""
    )


def _found(assoc: Association, query: Dataset, destination: Destination) -> Iterator[str]:
    for response, identifier in assoc.send_c_find(query, _STUDY_ROOT_FIND):
        if "Status" not in response:
            raise _no_answer(destination)
        if response.Status in _PENDING:
            yield str(identifier.get("SOPInstanceUID", "")) if identifier is not None else ""
        elif response.Status != status.SUCCESS:
            raise RetryLater(
                "find-refused", f"{destination} answered C-FIND with 0x{response.Status:04X}."
            )


def parse_destination(text: str) -> Destination:
    """Read `AET@HOST:PORT`; an IPv6 address stands in brackets.

    Raises:
        Misconfigured: `bad-destination`.
    """
    match = _DESTINATION.fullmatch(text.strip())
    if match is None or int(match["port"]) not in _PORTS:
        raise Misconfigured("bad-destination", f"{text!r} is not of the form AET@HOST:PORT.")
    return Destination(
        ae_title=match["ae"].strip(), host=match["host"] or match["v6"], port=int(match["port"])
    )


def dicom_files(
    paths: Iterable[Path], *, skipped: Callable[[Path, str], None] | None = None
) -> list[Path]:
    """The DICOM files among files and, in all depths, folders: sorted within each folder.

    Args:
        paths: What to look at.
        skipped: Told of each file that is left out, and why: a DICOMDIR, or no DICOM file.

    Raises:
        Misconfigured: `no-such-file` where one of `paths` is not there.
    """
    found: list[Path] = []
    for file in dict.fromkeys(_files(paths)):
        why = _why_not(file)
        if not why:
            found.append(file)
        elif skipped is not None:
            skipped(file, why)
    return found


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if not path.exists():
            raise Misconfigured("no-such-file", f"{path} is not there.")
        if path.is_dir():
            yield from sorted(file for file in path.rglob("*") if file.is_file())
        else:
            yield path


def _why_not(file: Path) -> str:
    try:
        with file.open("rb") as content:
            meta = header.read_meta(content)
    except Refused as refusal:
        return refusal.detail
    except OSError as error:
        return f"Cannot be read: {error.strerror}."
    return "It is a DICOMDIR." if meta.sop_class_uid == _MEDIA_STORAGE_DIRECTORY else ""
