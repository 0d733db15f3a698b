"""Files that are set aside to be removed: out of place, and not gone yet.

A file is moved, never copied: each is at any moment either in its place or here, so that whoever
comes after a crash sees how far the move had come. `removing/study-<UID>/` holds what belongs to
one study, each file under the path that it had in the data folder.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from dicomnode.durable import sync

_FOLDER = "removing"
_PREFIX = "study-"  # a UID alone might be a name that means something to the file system


class Aside:
    """What is set aside below a data folder. The instances must lie on the same file system."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._folder = data_dir / _FOLDER

    def studies(self) -> list[str]:
        """The Study Instance UIDs of which something is set aside."""
        if not self._folder.is_dir():
            return []
        return sorted(one.name.removeprefix(_PREFIX) for one in self._folder.iterdir())

    def files(self, study_instance_uid: str) -> list[str]:
        """The paths, relative to the data folder, that the files of a study had."""
        folder = self._of(study_instance_uid)
        return sorted(str(file.relative_to(folder)) for file in _files(folder))

    def put(self, study_instance_uid: str, paths: Iterable[str]) -> None:
        """Move files and folders out of place; returns when that survives a power cut.

        What is in its place no more is passed by.
        """
        to_sync = {self._data_dir, self._folder}
        for path in paths:
            before, after = self._data_dir / path, self._of(study_instance_uid) / path
            if before.exists():
                after.parent.mkdir(parents=True, exist_ok=True)
                before.rename(after)
                to_sync |= {before.parent, *_up_to(self._folder, after.parent)}
        _sync_all(to_sync)

    def bring_back(self, study_instance_uid: str) -> list[str]:
        """Move the files of a study back; returns when that survives a power cut.

        Returns:
            The paths whose places are taken: another file was stored there since, and stays.
        """
        folder = self._of(study_instance_uid)
        taken, to_sync = [], set()
        for file in _files(folder):
            path = file.relative_to(folder)
            place = self._data_dir / path
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(file, place)  # unlike a rename it never replaces what has come since
            except FileExistsError:
                if not place.samefile(file):  # else an earlier call came so far and no further
                    taken.append(str(path))
            to_sync |= {*_up_to(self._data_dir, place.parent)}
        _sync_all(to_sync)
        self.drop(study_instance_uid)
        return taken

    def drop(self, study_instance_uid: str) -> None:
        """Remove for good what is set aside of a study."""
        folder = self._of(study_instance_uid)
        if folder.is_dir():
            shutil.rmtree(folder)

    def _of(self, study_instance_uid: str) -> Path:
        return self._folder / f"{_PREFIX}{study_instance_uid}"


def _files(folder: Path) -> Iterator[Path]:
    return (found for found in sorted(folder.rglob("*")) if found.is_file())


def _up_to(top: Path, folder: Path) -> Iterator[Path]:
    """`folder` and those above it, up to and with `top`."""
    while folder != top:
        yield folder
        folder = folder.parent
    yield top


def _sync_all(folders: Iterable[Path]) -> None:
    """Make the entries of folders survive a power cut."""
    for folder in folders:
        if folder.is_dir():
            sync(folder)
