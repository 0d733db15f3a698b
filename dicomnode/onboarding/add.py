"""`models add`: a bundle from a folder, an archive or the Model Zoo, ready to be looked at.

Everything happens in a hidden folder beside the bundle's place; the last step is a rename. What
fails before it leaves nothing behind.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from dicomnode import bundle
from dicomnode.bundle import LOCK_NAME, MANIFEST_NAME, METADATA_NAME, manifest
from dicomnode.errors import Misconfigured
from dicomnode.onboarding import archive, description, download, large_files, zoo
from dicomnode.onboarding.download import Progress
from dicomnode.onboarding.draft import draft

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_VERSION_IN_NAME = re.compile(r"_v\d[\w.]*$")
#: What lies in folders that were cloned, downloaded or run, and is no part of a bundle.
_LEFT_OUT = frozenset({".git", ".cache", "__pycache__", ".DS_Store", ".ipynb_checkpoints"})


@dataclass(frozen=True, kw_only=True)
class Added:
    """A bundle in its place.

    Attributes:
        source: Where it came from: a path or an address.
        digest: Of its lock.
        drafted: Whether its manifest was drafted; else it came with one.
        guesses: What of the manifest is to be confirmed.
        warnings: What an administrator should know.
    """

    name: str
    path: Path
    version: str
    source: str
    digest: str
    drafted: bool
    guesses: tuple[str, ...]
    warnings: tuple[str, ...]


def add(
    source: str,
    *,
    into: Path,
    name: str | None = None,
    index: str = zoo.INDEX,
    progress: Progress | None = None,
) -> Added:
    """Bring a bundle into `into`, draft its manifest where it has none, and lock it.

    Args:
        source: A folder, an archive, or a name of the Zoo, "name" or "name@version".
        name: Of the folder in `into`; left out, as the bundle is called.
        index: Of the Zoo.

    Raises:
        Misconfigured: Whatever is wrong with it; nothing is left in `into` then.
    """
    try:
        with _staged(into) as stage:
            root, called, origin, warnings = _bring(source, stage, index=index, progress=progress)
            target = into / _checked(name or called)
            _require_free(target)
            warnings += large_files.bring(root, progress=progress)
            made = _describe(root, name=target.name)
            digest = _lock(root)
            version = manifest.read_version(root / METADATA_NAME)
            guesses = manifest.read(root / MANIFEST_NAME).draft
            _put(root, target)
    except OSError as error:
        raise Misconfigured(
            "cannot-write", f"{error.filename or into}: {error.strerror or error}."
        ) from error
    return Added(
        name=target.name,
        path=target,
        version=version,
        source=origin,
        digest=digest,
        drafted=made,
        guesses=guesses,
        warnings=tuple(warnings),
    )


@contextmanager
def _staged(into: Path) -> Iterator[Path]:
    """A hidden folder in `into`; afterwards neither is there, unless `into` holds something."""
    is_new = not into.is_dir()
    into.mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(prefix=".adding-", dir=into))
    try:
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)
        if is_new:
            with suppress(OSError):
                into.rmdir()


def _bring(
    source: str, stage: Path, *, index: str, progress: Progress | None
) -> tuple[Path, str, str, list[str]]:
    """The bundle's folder in `stage`, what it is called, where it came from, and warnings."""
    path = Path(source).expanduser()
    if path.is_dir():
        return _copied(path, stage), path.resolve().name, str(path), []
    if path.is_file():
        root = _unpacked(path, stage)
        inner = root.name if root != stage / "unpacked" else _stem(path)
        return root, inner, str(path), []
    if os.sep in source or archive.is_archive(path):
        raise Misconfigured("source-missing", f"{source}: no such folder or archive.")
    called, _, version = source.partition("@")
    release = zoo.find(_checked(called), version=version or None, index=index)
    file = stage / "archive.zip"
    download.fetch(release.url, file, expected=release.expected, progress=progress)
    unvouched = "The Zoo's index has no hash of the archive: nothing vouches for it."
    return (
        _unpacked(file, stage),
        called,
        release.url,
        [] if release.expected is not None else [unvouched],
    )


def _copied(source: Path, stage: Path) -> Path:
    """A copy of a folder: the files that links lead to, and nothing that is no file."""
    if stage.resolve().is_relative_to(source.resolve()):
        raise Misconfigured(
            "source-unsafe", f"{source} contains the place where it is to go. Name another --into."
        )
    root = stage / "copied"
    _copy(source, root)
    return _root_of(root, source)


def _copy(source: Path, target: Path) -> None:
    target.mkdir()
    for one in sorted(source.iterdir()):
        if one.name in _LEFT_OUT or one.suffix == ".pyc":
            continue
        _require_plain(one)
        if one.is_dir():
            _copy(one, target / one.name)
        else:
            shutil.copyfile(one, target / one.name)


def _require_plain(path: Path) -> None:
    if path.is_dir() and path.is_symlink():
        raise Misconfigured("source-unsafe", f"{path}: a link to a folder. Put the folder there.")
    if not path.is_dir() and not path.is_file():
        raise Misconfigured("source-unsafe", f"{path}: neither a file nor a folder. Remove it.")


def _unpacked(path: Path, stage: Path) -> Path:
    folder = stage / "unpacked"
    folder.mkdir()
    archive.unpack(path, folder)
    return _root_of(folder, path)


def _root_of(folder: Path, source: Path) -> Path:
    """The folder itself, or the only one in it: where the bundle's metadata are."""
    inside = [one for one in folder.iterdir() if one.is_dir() and one.name != "__MACOSX"]
    places: list[Path] = [folder, *inside] if len(inside) == 1 else [folder]
    for root in places:
        if (root / METADATA_NAME).is_file():
            return root
    raise Misconfigured(
        "bundle-incomplete",
        f"{source} has no {METADATA_NAME}: is it a MONAI bundle? Name the bundle's own folder.",
    )


def _stem(path: Path) -> str:
    lower = path.name.lower()
    suffix = max((one for one in archive.SUFFIXES if lower.endswith(one)), key=len, default="")
    return _VERSION_IN_NAME.sub("", path.name[: len(path.name) - len(suffix)])


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise Misconfigured(
            "bad-name",
            f"'{name}' cannot be a bundle's name: letters, digits, '.', '_' and '-', at most 64. Is"
            " it meant as a path? Otherwise choose one with --name.",
        )
    return name


def _require_free(target: Path) -> None:
    if os.path.lexists(target):
        raise Misconfigured(
            "bundle-exists",
            f"{target} is there already and stays as it is. Choose another --name or --into, or"
            " move it away first.",
        )


def _describe(root: Path, *, name: str) -> bool:
    """Draft the manifest where there is none; whether that was so."""
    path = root / MANIFEST_NAME
    if path.is_file():
        manifest.read(path)
        return False
    manifest.read_version(root / METADATA_NAME)
    text = draft(description.read(root), name=name).text
    path.write_text(text, encoding="utf-8")
    manifest.read(path)
    return True


def _lock(root: Path) -> str:
    """Trust the files as they are; one that came with a lock must be what that lock says."""
    if (root / LOCK_NAME).is_file():
        return bundle.verify(root)
    return bundle.write_lock(root)


def _put(root: Path, target: Path) -> None:
    _require_free(target)  # a rename would take the place of an empty folder
    root.rename(target)
