"""Programs that others wrote read our results, and find what we meant: dcmqi and dciodvfy."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import phantom
import pytest
from numpy.typing import NDArray

from dicomnode import results, volume
from dicomnode.bundle import Bundle
from dicomnode.prediction import LabelMap, Prediction

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"

_TOOLS = Path(sys.executable).parent  # where dcmqi's wheel puts its programs
_NRRD_TYPES = {"short": "<i2", "unsigned char": "u1", "unsigned short": "<u2"}
_VECTOR = re.compile(r"\(([^)]*)\)")


def run(program: str | Path, *arguments: str | Path) -> str:
    """What a program says, on both channels; it must end well."""
    done = subprocess.run(
        [program, *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@dataclass(frozen=True, kw_only=True)
class Nrrd:
    """An image with its place: `affine` maps (slice, row, column, 1) to LPS."""

    array: NDArray[Any]
    affine: NDArray[np.float64]

    @classmethod
    def read(cls, path: Path) -> Nrrd:
        header, _, data = path.read_bytes().partition(b"\n\n")
        fields = dict(line.split(": ", 1) for line in header.decode().splitlines() if ": " in line)
        assert fields["space"] == "left-posterior-superior"
        assert fields["encoding"] == "gzip"
        fastest_first = [int(size) for size in fields["sizes"].split()]
        values = np.frombuffer(gzip.decompress(data), dtype=_NRRD_TYPES[fields["type"]])
        steps = [_numbers(vector) for vector in _VECTOR.findall(fields["space directions"])]
        affine = np.eye(4)
        affine[:3, :3] = np.stack(steps[::-1], axis=1)
        affine[:3, 3] = _numbers(_VECTOR.findall(fields["space origin"])[0])
        return cls(array=values.reshape(fastest_first[::-1]), affine=affine)

    def on_grid_of(self, vol: volume.Volume) -> NDArray[Any]:
        """The same voxels as an array on the grid of `vol`, by their places in the patient."""
        there = np.moveaxis(np.indices(self.array.shape), 0, -1).reshape(-1, 3)
        index = (np.linalg.inv(vol.affine) @ self.affine)[:3] @ np.c_[there, np.ones(len(there))].T
        rounded = np.round(index).astype(int)
        np.testing.assert_allclose(index, rounded, atol=2e-3)  # no voxel lies between ours
        values = np.full(vol.array.shape, -1)
        values[tuple(rounded)] = self.array.ravel()
        assert (values >= 0).all()  # and each of ours has one
        return values


def _numbers(text: str) -> NDArray[np.float64]:
    return np.array([float(number) for number in text.split(",")])


@dataclass(frozen=True, kw_only=True)
class Answered:
    prediction: Prediction
    model: Bundle
    seg: Path
    sr: Path


def answer(folder: Path, files: tuple[Path, ...], labels: NDArray[np.uint8]) -> Answered:
    """The results of a model that says `labels`."""
    model = phantom.a_bundle()
    prediction = Prediction(
        subject=volume.load(files), answers=(LabelMap(output="bodies", array=labels),)
    )
    built = results.build(
        prediction,
        bundle=model,
        key="key",
        created=datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC),
        profiles=[phantom.PLAIN],
    )
    seg, sr = results.write(built, folder)
    results.check(
        (seg, sr), prediction=prediction, bundle=model, key="key", profiles=[phantom.PLAIN]
    )
    return Answered(prediction=prediction, model=model, seg=seg, sr=sr)


GRIDS = [
    pytest.param({"orientation": name, "reversed": reverse, "enhanced": enhanced}, id=title)
    for name in phantom.ORIENTATIONS
    for reverse in (False, True)
    for enhanced in (False, True)
    for title in [f"{name}{'-reversed' * reverse}{'-enhanced' * enhanced}"]
]


@pytest.fixture
def answered(request: pytest.FixtureRequest, tmp_path: Path) -> Answered:
    """The phantom on one grid, and the right answer to it."""
    scan = phantom.write_series(tmp_path / "images", **getattr(request, "param", {}))
    return answer(tmp_path / "results", scan.files, scan.labels)


@pytest.mark.parametrize("answered", GRIDS, indirect=True)
def test_dcmqi_reads_every_voxel_of_every_segment_where_it_was_marked(
    answered: Answered, tmp_path: Path
) -> None:
    run(
        _TOOLS / "segimage2itkimage", "--inputDICOM", answered.seg,
        "--outputDirectory", tmp_path, "-t", "nrrd",
    )  # fmt: skip
    labels = answered.prediction.answers[0].array
    for number, segment in enumerate(answered.model.manifest.outputs["bodies"].segments, start=1):
        read = Nrrd.read(tmp_path / f"{number}.nrrd").on_grid_of(answered.prediction.volume)
        np.testing.assert_array_equal(read > 0, labels == segment.label)


def test_dcmqi_reads_the_meaning_and_the_color_of_every_segment(
    answered: Answered, tmp_path: Path
) -> None:
    run(
        _TOOLS / "segimage2itkimage", "--inputDICOM", answered.seg,
        "--outputDirectory", tmp_path, "-t", "nrrd",
    )  # fmt: skip
    read = [one for (one,) in json.loads((tmp_path / "meta.json").read_text())["segmentAttributes"]]
    segments = answered.model.manifest.outputs["bodies"].segments
    for number, (found, meant) in enumerate(zip(read, segments, strict=True), start=1):
        assert found["labelID"] == number
        assert found["SegmentLabel"] == found["TrackingIdentifier"] == meant.name
        assert found["SegmentAlgorithmType"] == "AUTOMATIC"
        assert found["SegmentedPropertyTypeCodeSequence"]["CodeValue"] == meant.type.value
        color = [int(meant.color[n : n + 2], 16) for n in (1, 3, 5)]
        assert found["recommendedDisplayRGBValue"] == pytest.approx(color, abs=1)


@pytest.mark.parametrize("answered", GRIDS[::5], indirect=True)
def test_dcmqi_reads_the_volumes_and_the_identifiers_of_the_report(
    answered: Answered, tmp_path: Path
) -> None:
    written = tmp_path / "report.json"
    run(_TOOLS / "tid1500reader", "--inputDICOM", answered.sr, "--outputMetadata", written)
    report = json.loads(written.read_text())
    vol = answered.prediction.volume
    labels = answered.prediction.answers[0].array
    segments = answered.model.manifest.outputs["bodies"].segments
    for number, (group, meant) in enumerate(
        zip(report["Measurements"], segments, strict=True), start=1
    ):
        (measured,) = group["measurementItems"]
        expected = np.count_nonzero(labels == meant.label) * vol.voxel_mm3 / 1000
        assert float(measured["value"]) == pytest.approx(expected, abs=1e-6)
        assert measured["units"]["CodeValue"] == "mL"
        assert group["ReferencedSegment"] == number
        assert group["SourceSeriesForImageSegmentation"] == vol.header.SeriesInstanceUID
        assert group["TrackingIdentifier"] == meant.name
        assert group["measurementAlgorithmIdentification"] == {
            "AlgorithmName": answered.model.manifest.name,
            "AlgorithmVersion": answered.model.algorithm_version,
            "AlgorithmParameters": ["float32"],
        }
    assert report["VerificationFlag"] == "UNVERIFIED"


def test_dcmqi_finds_the_reports_tracking_identifiers_in_the_segmentation(
    answered: Answered, tmp_path: Path
) -> None:
    written = tmp_path / "report.json"
    run(_TOOLS / "tid1500reader", "--inputDICOM", answered.sr, "--outputMetadata", written)
    run(
        _TOOLS / "segimage2itkimage", "--inputDICOM", answered.seg,
        "--outputDirectory", tmp_path, "-t", "nrrd",
    )  # fmt: skip
    groups = json.loads(written.read_text())["Measurements"]
    segments = json.loads((tmp_path / "meta.json").read_text())["segmentAttributes"]
    assert [group["TrackingUniqueIdentifier"] for group in groups] == [
        segment["TrackingUniqueIdentifier"] for (segment,) in segments
    ]


def assert_valid(path: Path) -> None:
    said = run("dciodvfy", path)
    assert "Error" not in said, said


@pytest.mark.server("dicom3tools")
@pytest.mark.parametrize("answered", GRIDS[::3], indirect=True)
def test_dciodvfy_has_nothing_against_the_results(answered: Answered) -> None:
    assert_valid(answered.seg)
    assert_valid(answered.sr)


@pytest.mark.server("dicom3tools")
def test_dcentvfy_finds_one_patient_and_one_study(answered: Answered) -> None:
    sources = [source.path for source in answered.prediction.volume.sources]
    said = run("dcentvfy", *sources, answered.seg, answered.sr)
    assert "Error" not in said, said


@pytest.mark.server("dicom3tools")
def test_dciodvfy_would_find_a_fault(answered: Answered) -> None:
    """What says nothing of a broken object is no witness."""
    import pydicom

    dataset = pydicom.dcmread(answered.seg)
    del dataset.SegmentSequence[0].SegmentedPropertyTypeCodeSequence
    dataset.save_as(answered.seg)
    with pytest.raises(AssertionError, match="SegmentedPropertyTypeCodeSequence"):
        assert_valid(answered.seg)


@pytest.mark.data
@pytest.mark.server("dicom3tools")
class TestRealSeries:
    @pytest.mark.parametrize(
        "folder", ["brain_mr_study/11_HCropVolume", "brain_mr_study/36468-FLAIRreg-58706"]
    )
    def test_the_results_of_a_real_series_are_valid_and_read_back(
        self, tmp_path: Path, folder: str
    ) -> None:
        files = tuple(sorted((DATA / folder).iterdir()))
        shape = volume.load(files).array.shape
        labels = np.zeros(shape, dtype=np.uint8)
        slices, rows, columns = (slice(size // 4, size // 2) for size in shape)
        labels[slices, rows, columns] = 1
        labels[slices.stop :, : rows.start, columns] = 3
        answered = answer(tmp_path / "results", files, labels)
        assert_valid(answered.seg)
        assert_valid(answered.sr)
        run(
            _TOOLS / "segimage2itkimage", "--inputDICOM", answered.seg,
            "--outputDirectory", tmp_path, "-t", "nrrd",
        )  # fmt: skip
        for number, label in ((1, 1), (4, 3)):
            read = Nrrd.read(tmp_path / f"{number}.nrrd").on_grid_of(answered.prediction.volume)
            np.testing.assert_array_equal(read > 0, labels == label)
