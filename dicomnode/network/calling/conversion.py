"""Stored objects in a transfer syntax that the peer takes, where that loses nothing."""

from __future__ import annotations

from pathlib import Path

from pydicom import Dataset, dcmread

from dicomnode import status
from dicomnode.archive.disk import elements
from dicomnode.errors import Refused

UNCOMPRESSED = (elements.EXPLICIT_VR_LITTLE_ENDIAN, elements.IMPLICIT_VR_LITTLE_ENDIAN)

# They differ in how elements are written; the pixels are the same bytes.
_SAME_PIXELS = frozenset({*UNCOMPRESSED, elements.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN})

# What these decode to is what was encoded, bit for bit (PS3.5 A.4).
_REVERSIBLE = frozenset(
    {
        "1.2.840.10008.1.2.5",  # RLE Lossless
        "1.2.840.10008.1.2.4.57",  # JPEG Lossless
        "1.2.840.10008.1.2.4.70",  # JPEG Lossless, first-order prediction
        "1.2.840.10008.1.2.4.80",  # JPEG-LS Lossless
        "1.2.840.10008.1.2.4.90",  # JPEG 2000, lossless only
        "1.2.840.10008.1.2.4.201",  # HTJ2K, lossless only
        "1.2.840.10008.1.2.4.202",  # HTJ2K with RPCL options, lossless only
    }
)


def alternatives(transfer_syntax_uid: str) -> tuple[str, ...]:
    """The other transfer syntaxes that an object can be sent in without loss.

    None for a lossy one: its uncompressed form would pass for an original. None for big endian:
    nothing here swaps pixels.
    """
    if transfer_syntax_uid not in _SAME_PIXELS | _REVERSIBLE:
        return ()
    return tuple(uid for uid in UNCOMPRESSED if uid != transfer_syntax_uid)


def uncompressed(path: Path, *, transfer_syntax_uid: str) -> Dataset:
    """Read a file for sending in one of its `alternatives`.

    The SOP Instance UID stays, and so do the colours: it is the same image.

    Raises:
        Refused: `cannot-convert` where the pixels do not decode.
    """
    try:
        dataset = dcmread(path)
        if transfer_syntax_uid in _REVERSIBLE:
            dataset.decompress(as_rgb=False, generate_instance_uid=False)
    except Exception as error:  # each codec has its own ways to fail
        raise Refused(
            "cannot-convert",
            "The peer takes it uncompressed only, and it does not decode.",
            status=status.CANNOT_UNDERSTAND,
        ) from error
    return dataset
