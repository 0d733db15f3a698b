"""Problems of a file that the configuration names: whether the node can read it, and who else."""

from __future__ import annotations

import os
from pathlib import Path

from dicomnode.config import Problem

_READABLE_BY_ALL = 0o004


def is_readable(file: Path) -> bool:
    """Whether it is a file, and this user may read it."""
    return file.is_file() and os.access(file, os.R_OK)


def unreadable(file: Path, *, path: str, code: str) -> Problem:
    """That a file cannot be read.

    Args:
        file: The file.
        path: The key path that names it.
        code: Of the problem.
    """
    message = f"{file} is no file that this user can read. Name one, or give the right to."
    return Problem.error(path, message, code)


def is_open_to_all(file: Path) -> bool:
    """Whether every user of this machine may read it.

    Raises:
        OSError: It is not there.
    """
    return bool(file.stat().st_mode & _READABLE_BY_ALL)


def open_to_all(file: Path, *, path: str, code: str) -> Problem:
    """That others can read what is the node's alone."""
    message = f"Every user here can read {file}. Leave that to the user of the node."
    return Problem.warning(path, message, code)
