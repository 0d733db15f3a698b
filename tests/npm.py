"""Programs from the npm registry: fetched once, and compared with what they were.

They are no part of the project; who uses one keeps it in `.cache`.
"""

from __future__ import annotations

import base64
import hashlib
import subprocess
from pathlib import Path

_WITHIN_S = 240


class NotFetched(Exception):
    """A program is not here, and could not be had."""


def packed(package: str, version: str, *, sha512: str, folder: Path) -> Path:
    """Let npm bring the archive of a package.

    Args:
        package: Its name.
        version: The one that was looked at.
        sha512: Digest of the archive as npm writes it, in base64.
        folder: Where to put the archive; empty.

    Raises:
        NotFetched: The registry did not give it.
        ValueError: What the registry gave is not what it was.
    """
    try:
        subprocess.run(
            ["npm", "pack", f"{package}@{version}", "--silent", "--pack-destination", str(folder)],
            cwd=folder, check=True, capture_output=True, text=True, timeout=_WITHIN_S,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", error)
        raise NotFetched(f"npm did not bring {package}: {said}") from None
    (archive,) = folder.glob("*.tgz")
    digest = hashlib.sha512(archive.read_bytes()).digest()
    if base64.b64encode(digest).decode() != sha512:
        raise ValueError(f"{package} {version} is not what it was when its digest was taken")
    return archive
