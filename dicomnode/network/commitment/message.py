"""What the messages of the Storage Commitment Push Model hold (PS3.4 Annex J): read and made.

What a peer sends is read with suspicion: only what is well formed becomes a row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pydicom
from pydicom import DataElement, Dataset
from pydicom import config as pydicom_config
from pydicom.datadict import dictionary_VR, tag_for_keyword

from dicomnode import uid
from dicomnode.archive.commitments import Failure, FailureReason, Reference
from dicomnode.errors import Refused
from dicomnode.status import SUCCESS

SOP_CLASS = "1.2.840.10008.1.20.1"
"""Storage Commitment Push Model SOP Class."""

SOP_INSTANCE = "1.2.840.10008.1.20.1.1"
"""Its one, well-known instance (PS3.4 J.3.5)."""

REQUEST_STORAGE_COMMITMENT = 1
"""The one Action Type ID of an N-ACTION (PS3.4 Table J.3-1)."""

ALL_COMMITTED = 1
"""Event Type ID: every object is kept (PS3.4 Table J.3-2)."""

SOME_FAILED = 2
"""Event Type ID: some, or all, are not."""

# PS3.7 Annex C.5.
NO_SUCH_OBJECT_INSTANCE = 0x0112
NO_SUCH_EVENT_TYPE = 0x0113
INVALID_ARGUMENT_VALUE = 0x0115
NO_SUCH_SOP_CLASS = 0x0118
NO_SUCH_ACTION = 0x0123


def misdirected(
    *, sop_class_uid: str, sop_instance_uid: str, action_type_id: int | None = None
) -> int:
    """Whether a message of this service is for something else.

    Args:
        action_type_id: Of an N-ACTION-RQ.

    Returns:
        The status that says so (PS3.7 C.5), or 0 where all is as it should be.
    """
    if sop_class_uid != SOP_CLASS:
        return NO_SUCH_SOP_CLASS
    if sop_instance_uid != SOP_INSTANCE:
        return NO_SUCH_OBJECT_INSTANCE
    if action_type_id not in (None, REQUEST_STORAGE_COMMITMENT):
        return NO_SUCH_ACTION
    return SUCCESS


def action_information(transaction_uid: str, references: Iterable[Reference]) -> Dataset:
    """The Action Information of a request (PS3.4 Table J.3-1)."""
    information = Dataset()
    _set(information, "TransactionUID", transaction_uid)
    information.ReferencedSOPSequence = [_item(one) for one in references]
    return information


def event_information(
    transaction_uid: str, references: Iterable[Reference], failures: Sequence[Failure]
) -> Dataset:
    """The Event Information of an answer (PS3.4 Table J.3-2)."""
    failed = {one.reference for one in failures}
    information = Dataset()
    _set(information, "TransactionUID", transaction_uid)
    safe = [_item(one) for one in references if one not in failed]
    if safe:
        information.ReferencedSOPSequence = safe
    if failures:
        information.FailedSOPSequence = [_failed_item(one) for one in failures]
    return information


def _item(reference: Reference) -> Dataset:
    item = Dataset()
    _set(item, "ReferencedSOPClassUID", reference.sop_class_uid)
    _set(item, "ReferencedSOPInstanceUID", reference.sop_instance_uid)
    return item


def _failed_item(failure: Failure) -> Dataset:
    item = _item(failure.reference)
    item.FailureReason = failure.reason
    return item


def _set(dataset: Dataset, keyword: str, value: str) -> None:
    """Set an element to what somebody sent: who sends leading zeros in a UID gets them back."""
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise ValueError(f"{keyword} is no keyword")
    vr = dictionary_VR(tag)
    dataset.add(DataElement(tag, vr, value, validation_mode=pydicom_config.IGNORE))


def request_of(information: Dataset) -> tuple[str, list[Reference]]:
    """The Transaction UID and the objects of an N-ACTION-RQ.

    Raises:
        Refused: `bad-transaction-uid`, `no-references` or `bad-reference` (0115).
    """
    transaction_uid = transaction_uid_of(information)
    references = references_of(information)
    if not references:
        raise Refused(
            "no-references",
            "The request names no object in its Referenced SOP Sequence.",
            status=INVALID_ARGUMENT_VALUE,
        )
    return transaction_uid, references


def transaction_uid_of(information: Dataset) -> str:
    """The Transaction UID of a message.

    Raises:
        Refused: `bad-transaction-uid` (0115).
    """
    transaction_uid = _text(information, "TransactionUID")
    if not uid.is_acceptable(transaction_uid):
        raise Refused(
            "bad-transaction-uid",
            "The message has no Transaction UID (0008,1195), or one that is no UID.",
            status=INVALID_ARGUMENT_VALUE,
        )
    return transaction_uid


def references_of(information: Dataset) -> list[Reference]:
    """The objects of its Referenced SOP Sequence, if it has one.

    Raises:
        Refused: `bad-reference` (0115).
    """
    return [_reference(item) for item in _items(information, "ReferencedSOPSequence")]


def failures_of(information: Dataset) -> list[Failure]:
    """The objects of its Failed SOP Sequence, if it has one.

    Raises:
        Refused: `bad-reference` (0115).
    """
    return [
        Failure(reference=_reference(item), reason=_reason(item))
        for item in _items(information, "FailedSOPSequence")
    ]


def _reason(item: Dataset) -> int:
    reason = item.get("FailureReason")
    return reason if isinstance(reason, int) else FailureReason.PROCESSING_FAILURE


def _items(information: Dataset, keyword: str) -> Sequence[Dataset]:
    items = information.get(keyword)
    return items if isinstance(items, pydicom.Sequence) else ()


def _reference(item: Dataset) -> Reference:
    reference = Reference(
        sop_class_uid=_text(item, "ReferencedSOPClassUID"),
        sop_instance_uid=_text(item, "ReferencedSOPInstanceUID"),
    )
    if not uid.is_acceptable(reference.sop_class_uid) or not uid.is_acceptable(
        reference.sop_instance_uid
    ):
        raise Refused(
            "bad-reference",
            "An item names no SOP Class UID and SOP Instance UID that are UIDs.",
            status=INVALID_ARGUMENT_VALUE,
        )
    return reference


def _text(dataset: Dataset, keyword: str) -> str:
    return str(dataset.get(keyword) or "").strip("\0 ")
