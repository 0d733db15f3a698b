"""axe-core, which finds what keeps people from using a page: from npm, kept in `.cache`.

It is no part of the project: it is fetched once, and must be what it was when its digest was
written down here.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import subprocess
import tarfile
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from ohif import NotFetched
from playwright.sync_api import Page

ROOT = Path(__file__).resolve().parents[1]

PACKAGE = "axe-core"
VERSION = "4.14.1"
# As npm writes it: of the archive that `npm pack` brings.
SHA512 = "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ=="

CACHE = ROOT / ".cache" / "axe"

_SCRIPT = "package/axe.min.js"  # in the archive
_FETCH_WITHIN_S = 240
_GRAVE = {"serious", "critical"}


@cache
def script() -> str:
    """The program.

    Raises:
        NotFetched: It is not here and the registry did not give it.
        ValueError: What the registry gave is not what it was.
    """
    file = CACHE / f"{VERSION}.js"
    if not file.is_file():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as temporary:
            made = Path(temporary) / "axe.js"
            made.write_bytes(_packed(Path(temporary)))
            # Another run of the tests may have been faster; its file is the same.
            with contextlib.suppress(OSError):
                made.rename(file)
    return file.read_text(encoding="utf-8")


def _packed(folder: Path) -> bytes:
    """Let npm bring the archive; returns the program in it."""
    try:
        subprocess.run(
            ["npm", "pack", f"{PACKAGE}@{VERSION}", "--silent", "--pack-destination", str(folder)],
            cwd=folder, check=True, capture_output=True, text=True, timeout=_FETCH_WITHIN_S,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        raise NotFetched(
            f"npm did not bring {PACKAGE}: {getattr(error, 'stderr', error)}"
        ) from None
    (archive,) = folder.glob("*.tgz")
    digest = hashlib.sha512(archive.read_bytes()).digest()
    if base64.b64encode(digest).decode() != SHA512:
        raise ValueError(f"{PACKAGE} {VERSION} is not what it was when its digest was taken")
    with tarfile.open(archive) as opened:
        found = opened.extractfile(_SCRIPT)
        assert found is not None
        return found.read()


def faults(page: Page) -> list[str]:
    """What is gravely wrong with a page: the rule, and the elements that break it."""
    page.evaluate(script())
    found: dict[str, Any] = page.evaluate("() => axe.run(document)")
    return [
        f"{one['id']}: {json.dumps([node['html'][:160] for node in one['nodes']])}"
        for one in found["violations"]
        if one["impact"] in _GRAVE
    ]
