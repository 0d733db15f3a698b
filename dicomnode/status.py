"""The DIMSE statuses that the node answers with, and what those of others mean for what it sent.

PS3.4 Table B.2-1 for the Storage Service Class, PS3.7 Annex C for all services.
"""

from __future__ import annotations

from typing import Literal

SUCCESS = 0x0000
"""PS3.7 C.1: the instance is safe."""

PROCESSING_FAILURE = 0x0110
"""PS3.7 C.5: something went wrong that has no other name."""

DUPLICATE_SOP_INSTANCE = 0x0111
"""PS3.7 C.5: another object with this SOP Instance UID is stored already."""

SOP_CLASS_NOT_SUPPORTED = 0x0122
"""PS3.7 C.5: the presentation context is not for objects of this class."""

OUT_OF_RESOURCES = 0xA700
"""PS3.4 B.2.3, A7xx: it could not be kept; sending it again later may succeed."""

DATA_SET_DOES_NOT_MATCH = 0xA900
"""PS3.4 B.2.3, A9xx: the data set is not what the command or its SOP class says."""

CANNOT_UNDERSTAND = 0xC000
"""PS3.4 B.2.3, Cxxx: the data set does not read as its transfer syntax says."""

_OUT_OF_RESOURCES = range(0xA700, 0xA800)
_RESOURCE_LIMITATION = 0x0213  # PS3.7 C.5.21
_PASSING = frozenset({PROCESSING_FAILURE, _RESOURCE_LIMITATION})
_WARNINGS = range(0xB000, 0xC000)  # PS3.7 C.3: done, though not quite as asked

Outcome = Literal["stored", "retry", "refused"]


def outcome(status: int) -> Outcome:
    """What a peer's answer to a C-STORE means for the object that was sent.

    Success and warnings (Bxxx) mean that it is stored; A7xx, a failure to process (0110) and a lack
    of resources (0213) that it may be sent again later; anything else that no repetition helps.
    """
    if status == SUCCESS or status in _WARNINGS:
        return "stored"
    is_passing = status in _OUT_OF_RESOURCES or status in _PASSING
    return "retry" if is_passing else "refused"
