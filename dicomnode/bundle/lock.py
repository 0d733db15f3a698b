"""The lock of a bundle: the SHA-256 of every file that can change what the model says.

It is written as `sha256sum` writes it: `sha256sum -c bundle.lock` in the bundle's folder checks it
without this program. Documentation and the sample are not listed: a corrected typing error changes
no result. Nor is what `models tune` measured, which holds on one machine.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from dicomnode.bundle.manifest import MANIFEST_NAME
from dicomnode.errors import Misconfigured

LOCK_NAME = "bundle.lock"
#: Where the fastest way of running the model on this machine is recorded.
TUNING_NAME = "tuning.json"

# What lies in a bundle's folder and cannot change what the model says.
_UNLISTED_AT_TOP = frozenset({LOCK_NAME, TUNING_NAME, "LICENSE", "docs", "sample"})
_UNLISTED_FOLDER = "__pycache__"
_UNLISTED_SUFFIX = ".pyc"  # the runner imports from source alone

_LOCK_LINE = re.compile(r"(?P<digest>[0-9a-f]{64})  (?P<path>\S.*)")
_NAMED_AT_MOST = 5


def lock_path(root: Path, *, manifest: Path | None = None) -> Path:
    """Where the lock lies: in the bundle, or beside a manifest that lies outside of it."""
    return root / LOCK_NAME if manifest is None else manifest.with_suffix(".lock")


def write_lock(root: Path, *, manifest: Path | None = None) -> str:
    """List the files as they are now in the lock, and give the digest.

    The same files give the same lock on every machine.

    Raises:
        Misconfigured: `bundle-incomplete` or `bundle-unlockable`.
    """
    hashes = _hashes(root, manifest=manifest)
    lock_path(root, manifest=manifest).write_text(_canonical(hashes), encoding="utf-8")
    return digest_of(hashes)


def verify(root: Path, *, manifest: Path | None = None) -> str:
    """Compare every file with the lock, and give the lock's digest.

    Raises:
        Misconfigured: `bundle-changed` where a file differs, appeared or vanished; else as `load`.
    """
    lock = lock_path(root, manifest=manifest)
    locked = read(lock)
    found = _hashes(root, manifest=manifest)
    differences = [
        f"{what} {listed(sorted(paths))}"
        for what, paths in (
            ("changed:", {path for path in locked.keys() & found if locked[path] != found[path]}),
            ("appeared:", found.keys() - locked.keys()),
            ("vanished:", locked.keys() - found.keys()),
        )
        if paths
    ]
    if differences:
        raise Misconfigured(
            "bundle-changed",
            f"{root} is not what {lock} lists ({'; '.join(differences)}). Put the files back, or"
            " run `dicomnode models lock` if the change is meant.",
        )
    return digest_of(locked)


def read(path: Path) -> dict[str, str]:
    """Path → SHA-256, as the lock lists them.

    Raises:
        Misconfigured: `lock-missing` or `lock-faulty`.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise Misconfigured(
            "lock-missing", f"{path}: no lock. Run `dicomnode models lock` once to trust the files."
        ) from error
    hashes: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        match = _LOCK_LINE.fullmatch(line)
        if match is None or match["path"] in hashes:
            raise Misconfigured(
                "lock-faulty", f"{path}: line {number}: must be a SHA-256, two blanks and a path."
            )
        hashes[match["path"]] = match["digest"]
    return hashes


def _hashes(root: Path, *, manifest: Path | None) -> dict[str, str]:
    """Path relative to `root` → SHA-256; an outside manifest takes the place of `dicom.toml`."""
    files = {path.relative_to(root).as_posix(): path for path in _files(root)}
    files[MANIFEST_NAME] = manifest or root / MANIFEST_NAME
    missing = [str(path) for path in files.values() if not path.is_file()]
    if missing or not root.is_dir():
        raise Misconfigured("bundle-incomplete", f"{listed(missing) or root}: no such file.")
    return {name: _file_digest(path) for name, path in files.items()}


def _files(root: Path) -> Iterator[Path]:
    for path in sorted(root.rglob("*")):
        relative = path.relative_to(root)
        if (
            relative.parts[0] in _UNLISTED_AT_TOP
            or _UNLISTED_FOLDER in relative.parts
            or path.suffix == _UNLISTED_SUFFIX
        ):
            continue
        if path.is_dir() and not path.is_symlink():
            continue
        _require_lockable(path)
        yield path


def _require_lockable(path: Path) -> None:
    """A lock can only list what is a file and has a name that fits on one line."""
    if path.is_dir():
        raise Misconfigured("bundle-unlockable", f"{path}: a link to a folder cannot be locked.")
    if not str(path).isprintable() or "\\" in str(path):
        raise Misconfigured("bundle-unlockable", f"{str(path)!r}: rename it to plain characters.")


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _canonical(hashes: Mapping[str, str]) -> str:
    return "".join(f"{hashes[path]}  {path}\n" for path in sorted(hashes))


def digest_of(hashes: Mapping[str, str]) -> str:
    """SHA-256, in hex, of the canonical lock: the identity of the model."""
    return hashlib.sha256(_canonical(hashes).encode()).hexdigest()


def listed(names: Iterable[str]) -> str:
    """The first few of `names`, and how many more there are."""
    shown = list(names)
    rest = len(shown) - _NAMED_AT_MOST
    return ", ".join(shown[:_NAMED_AT_MOST]) + (f" and {rest} more" if rest > 0 else "")
