"""The measurement of `make bench-pages`, on next to nothing: whether it counts what it says."""

from __future__ import annotations

import json
import subprocess
import sys

import running

BENCH = running.ROOT / "tests" / "bench" / "pages.py"


def test_every_page_is_measured_while_images_arrive() -> None:
    run = subprocess.run(
        [sys.executable, str(BENCH), "--json",
         "--studies", "60", "--rounds", "2", "--arriving", "50", "--side", "16"],
        capture_output=True, text=True, check=False, cwd=running.ROOT,
    )  # fmt: skip
    # 1 is for a page that took too long, which is no matter here.
    assert run.returncode in {0, 1}, run.stderr
    found = json.loads(run.stdout)
    assert found["rows"] == {"study": 60, "instance": 600, "job": 60, "event": 480}
    assert {"list", "search, family name", "accounting"} <= set(found["pages"])
    assert all(0 < one["p50_ms"] <= one["p95_ms"] for one in found["pages"].values())
    assert found["arrived"]["sent"] > 0
    assert 0 <= found["arrived"]["behind"] <= found["arrived"]["sent"]
