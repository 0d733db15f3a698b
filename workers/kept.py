"""Result objects on disk, as the archive knows them."""

from __future__ import annotations

import hashlib
from pathlib import Path

from dicomnode.archive.work.results import ResultFile
from dicomnode.results import Result


def digest(path: Path) -> str:
    """SHA-256, in hex, of a file.

    Raises:
        OSError: It is not there, or cannot be read.
    """
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def of(result: Result, path: Path, *, data_dir: Path) -> ResultFile:
    """A result as it is to be recorded, once it is written.

    Args:
        result: The result.
        path: Its file, somewhere below `data_dir`.
        data_dir: The data folder.

    Raises:
        OSError: As `digest`.
    """
    return ResultFile(
        kind=result.kind,
        sop_instance_uid=str(result.dataset.SOPInstanceUID),
        series_instance_uid=str(result.dataset.SeriesInstanceUID),
        path=str(path.relative_to(data_dir)),
        digest=digest(path),
        profiles=result.part.profiles,
    )
