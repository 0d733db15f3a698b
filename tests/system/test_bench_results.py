"""The measurement of `make bench-results`, on next to nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench import segmentation
from bench.inference import write_ct


@pytest.mark.parametrize("name", segmentation.CLAIMED)
def test_a_segmentation_is_built_written_and_checked(name: str, tmp_path: Path) -> None:
    files = write_ct(tmp_path / "ct", (6, 48, 48))
    found = segmentation.measure(name, files, tmp_path / "out")
    assert list(found["seconds"]) == ["build", "write", "check"]
    assert list(found["files_mib"]) == ["seg.dcm"]
    assert 0 < found["filled"] < 1
    assert segmentation.as_text(found).startswith(f"{name}: 1 objects, the largest seg.dcm")
