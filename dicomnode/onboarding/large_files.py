"""`large_files.yml`: what of a bundle lies elsewhere, weights above all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from dicomnode.errors import Misconfigured
from dicomnode.onboarding import download
from dicomnode.onboarding.download import Hash, Progress

NAMES = ("large_files.yml", "large_files.yaml", "large_files.json")


@dataclass(frozen=True, kw_only=True)
class LargeFile:
    """One file that lies elsewhere.

    Attributes:
        path: In the bundle.
        expected: `None` where the list names no hash.
    """

    path: PurePosixPath
    url: str
    expected: Hash | None


def bring(root: Path, *, progress: Progress | None = None) -> list[str]:
    """Fetch what is missing in the bundle at `root`, and check what is there.

    Returns:
        Warnings: files that no hash vouches for.

    Raises:
        Misconfigured: `large-files-faulty`, `large-file-changed` where a file that is there already
            is another one, or as `download.fetch`.
    """
    warnings = []
    for file in _listed(root):
        target = root.joinpath(*file.path.parts)
        if not target.is_file():
            download.fetch(file.url, target, expected=file.expected, progress=progress)
        elif file.expected is not None and not file.expected.fits(target):
            raise Misconfigured(
                "large-file-changed",
                f"{file.path}: its {file.expected.kind} is not {file.expected.value}, as the"
                " bundle's list says. Remove it to fetch it again.",
            )
        if file.expected is None:
            warnings.append(
                f"{file.path}: the bundle's list names no hash: nothing vouches for it."
            )
    return warnings


def _listed(root: Path) -> list[LargeFile]:
    file = next((root / name for name in NAMES if (root / name).is_file()), None)
    if file is None:
        return []
    try:
        text = file.read_text(encoding="utf-8")
        content = json.loads(text) if file.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise _faulty(file, " ".join(str(error).split())) from error
    entries = content.get("large_files") if isinstance(content, Mapping) else None
    if not isinstance(entries, list):
        raise _faulty(file, "it has no list 'large_files'")
    return [_entry(file, number, entry) for number, entry in enumerate(entries)]


def _entry(file: Path, number: int, entry: Any) -> LargeFile:
    if not isinstance(entry, Mapping):
        raise _faulty(file, f"entry {number} is no table")
    path, url = entry.get("path"), entry.get("url")
    if not isinstance(path, str) or not isinstance(url, str) or not path.strip():
        raise _faulty(file, f"entry {number} has no path and url")
    inside = PurePosixPath(path)
    if inside.is_absolute() or ".." in inside.parts or "\\" in path or not path.isprintable():
        raise _faulty(file, f"'{path}' leaves the bundle")
    value = entry.get("hash_val") or ""
    expected = download.hash_of(str(entry.get("hash_type") or ""), str(value)) if value else None
    return LargeFile(path=inside, url=url, expected=expected)


def _faulty(file: Path, why: str) -> Misconfigured:
    return Misconfigured("large-files-faulty", f"{file}: {why}.")
