"""The MONAI Model Zoo: which bundles there are, and where.

Its index is the one that MONAI documents (`monai.bundle.get_all_bundles_list`): `model_info.json`,
"name_vX.Y.Z" → the address of an archive and its SHA-1. A hospital may keep a copy of both and name
that index instead.
"""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import dataclass
from typing import Any

from packaging.version import InvalidVersion, Version

from dicomnode.errors import Misconfigured
from dicomnode.onboarding import download
from dicomnode.onboarding.download import Hash

INDEX = "https://raw.githubusercontent.com/Project-MONAI/model-zoo/dev/models/model_info.json"

_ENTRY = re.compile(r"(?P<name>.+)_v(?P<version>\d[\w.+-]*)")
_ALIKE = 5


@dataclass(frozen=True, kw_only=True)
class Release:
    """One version of one bundle.

    Attributes:
        url: Of its archive.
        expected: What the archive's content must come to; `None` where the index does not say.
    """

    name: str
    version: str
    url: str
    expected: Hash | None


def find(name: str, *, version: str | None, index: str = INDEX) -> Release:
    """Look a bundle up: the version, or the newest one.

    Raises:
        Misconfigured: `download-failed`, `zoo-faulty`, `zoo-has-not`.
    """
    releases = _releases(index)
    known = {one.name for one in releases}
    of_name = [one for one in releases if one.name == name]
    if not of_name:
        alike = difflib.get_close_matches(name, known, n=_ALIKE, cutoff=0.4)
        raise Misconfigured(
            "zoo-has-not",
            f"{index} has no bundle '{name}'."
            + (f" Alike are {', '.join(alike)}." if alike else "")
            + " Where it is published elsewhere, download it, then `dicomnode models add` it.",
        )
    wanted = [one for one in of_name if version is None or one.version == version]
    if not wanted:
        versions = ", ".join(one.version for one in sorted(of_name, key=_order)[-_ALIKE:])
        raise Misconfigured(
            "zoo-has-not", f"{index} has no version '{version}' of '{name}'. Newest: {versions}."
        )
    return max(wanted, key=_order)


def _releases(index: str) -> list[Release]:
    try:
        entries = json.loads(download.text(index))
    except ValueError as error:
        raise Misconfigured("zoo-faulty", f"{index} is no index: {error}.") from error
    if not isinstance(entries, dict):
        raise Misconfigured("zoo-faulty", f"{index} is no index: it must be a table.")
    return [
        _release(match, entry)
        for key, entry in entries.items()
        if (match := _ENTRY.fullmatch(key)) and isinstance(entry, dict)
        if isinstance(entry.get("source"), str)
    ]


def _release(match: re.Match[str], entry: dict[str, Any]) -> Release:
    checksum = entry.get("checksum")
    return Release(
        name=match["name"],
        version=match["version"],
        url=entry["source"],
        expected=download.hash_of("", checksum) if isinstance(checksum, str) and checksum else None,
    )


def _order(release: Release) -> tuple[Version, str]:
    try:
        return Version(release.version), release.version
    except InvalidVersion:
        return Version("0"), release.version
