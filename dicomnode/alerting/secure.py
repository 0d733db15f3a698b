"""Whom a mail server's or a receiver's certificate must be signed by."""

from __future__ import annotations

import ssl
from pathlib import Path

from dicomnode.errors import RetryLater


def context(ca: Path | None, *, key: str) -> ssl.SSLContext:
    """A context that checks certificate and name, by a file or by what the system trusts.

    Args:
        ca: PEM; read anew each time, so that it may be replaced.
        key: Where the file is named, for who puts it right.

    Raises:
        RetryLater: `alert-ca-unreadable`.
    """
    try:
        made = ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError) as error:
        raise RetryLater(
            "alert-ca-unreadable", f"{ca} holds no certificate that can be read: see {key}."
        ) from error
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    return made


def is_at_fault(error: BaseException | None) -> bool:
    """Whether TLS is what went wrong, however libraries have wrapped it."""
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return True
        error = error.__cause__ or error.__context__
    return False
