"""axe-core, which finds what keeps people from using a page: from npm, kept in `.cache`.

It is no part of the project: it is fetched once, and must be what it was when its digest was
written down here.
"""

from __future__ import annotations

import contextlib
import json
import tarfile
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import npm
from playwright.sync_api import Page

ROOT = Path(__file__).resolve().parents[1]

PACKAGE = "axe-core"
VERSION = "4.14.1"
# As npm writes it: of the archive that `npm pack` brings.
SHA512 = "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ=="

CACHE = ROOT / ".cache" / "axe"

_SCRIPT = "package/axe.min.js"  # in the archive
_GRAVE = {"serious", "critical"}


@cache
def script() -> str:
    """The program.

    Raises:
        npm.NotFetched: It is not here and the registry did not give it.
        ValueError: What the registry gave is not what it was.
    """
    file = CACHE / f"{VERSION}.js"
    if not file.is_file():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as temporary:
            made = Path(temporary) / "axe.js"
            archive = npm.packed(PACKAGE, VERSION, sha512=SHA512, folder=Path(temporary))
            made.write_bytes(_program(archive))
            # Another run of the tests may have been faster; its file is the same.
            with contextlib.suppress(OSError):
                made.rename(file)
    return file.read_text(encoding="utf-8")


def _program(archive: Path) -> bytes:
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
