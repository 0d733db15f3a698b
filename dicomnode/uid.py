"""DICOM unique identifiers: which are well formed, and how ours are derived (PS3.5 chapter 9)."""

from __future__ import annotations

import re
import uuid

# Every UID that the node makes lives under this name space: the same key gives the same UID on
# every machine and in every year. Changing it would orphan all results made so far.
_NAMESPACE = uuid.UUID("6f6d1c7c-4a0e-5d3a-9c59-1f6f0f1c8f55")

MAX_LENGTH = 64
_ACCEPTABLE = re.compile(r"[0-9]+(\.[0-9]+)+", re.ASCII)


def is_acceptable(uid: str) -> bool:
    """Whether `uid` is made of digits and dots as PS3.5 9.1 says: then it is safe as a file name.

    Components with leading zeros are let pass: PS3.5 forbids them, real scanners send them, and
    turning a patient's images away for that would help nobody.
    """
    return len(uid) <= MAX_LENGTH and _ACCEPTABLE.fullmatch(uid) is not None


def derived(key: str, *parts: str) -> str:
    """The UID of what `key` and `parts` name, in the UUID form of PS3.5 B.2 (`2.25.…`)."""
    name = "\x1f".join((key, *parts))
    return f"2.25.{uuid.uuid5(_NAMESPACE, name).int}"
