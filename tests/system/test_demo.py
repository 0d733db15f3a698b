"""`dicomnode demo`, as a newcomer runs it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pydicom
import pytest
import running

STUDY_FOLDER = running.ROOT.parent / "shared" / "data" / "brain_mr_study"


def demo(out: Path, *arguments: str) -> dict[str, Any]:
    run = subprocess.run(
        [*running.PROGRAM, "demo", "--json", "--out", str(out), *arguments],
        capture_output=True, check=False, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    document: dict[str, Any] = json.loads(run.stdout)
    return document


@pytest.mark.server("dicom3tools")
def test_the_sample_gives_a_seg_and_an_sr_without_errors(tmp_path: Path) -> None:
    document = demo(tmp_path / "demo")

    assert set(document) == {"study", "jobs", "refused", "out"}
    (job,) = document["jobs"]
    assert (job["route"], job["state"], job["reason"]) == ("hippocampus volumetry", "delivered", "")
    assert [one["kind"] for one in job["results"]] == ["seg", "capture", "regions", "sr"]
    assert job["timings_s"]["total"] > 0
    for one in job["results"]:
        assert pydicom.dcmread(one["path"]).SOPInstanceUID == one["sop_instance_uid"]
        told = subprocess.run(
            ["dciodvfy", one["path"]], capture_output=True, check=False, text=True
        )
        assert "Error" not in told.stderr
    assert Path(job["results"][0]["path"]).with_name("overlay.png").is_file()
    in_the_pacs = sorted(path.stem for path in (tmp_path / "demo" / "pacs").iterdir())
    assert in_the_pacs == sorted(one["sop_instance_uid"] for one in job["results"])


@pytest.mark.data
def test_of_a_real_study_one_series_is_run_and_the_others_say_why_not(tmp_path: Path) -> None:
    document = demo(tmp_path / "demo", "--study", str(STUDY_FOLDER))

    states = sorted(job["state"] for job in document["jobs"])
    assert states == ["delivered", *["not_applicable"] * 4]
    for job in document["jobs"]:
        if job["state"] == "not_applicable":
            assert "SeriesDescription" in job["reason"]


def test_a_folder_that_no_demo_wrote_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    run = subprocess.run(
        [*running.PROGRAM, "demo", "--out", str(tmp_path)],
        capture_output=True, check=False, text=True,
    )  # fmt: skip
    assert run.returncode == 2
    assert "folder-in-use" in run.stderr
    assert (tmp_path / "thesis.txt").read_text() == "precious"
