"""What survives a power cut: the content of a file, and the names in a folder."""

from __future__ import annotations

import os
from pathlib import Path


def sync(path: Path | str) -> None:
    """Make the content of a file, or the entries of a folder, survive a power cut.

    Raises:
        OSError: It is not safe. A second call may say that it is, and be wrong: after a failed
            sync the kernel may have dropped what it could not write.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
