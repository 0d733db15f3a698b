"""dcmqi and highdicom read our objects, and find what the model said, where it said it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import examples
import highdicom as hd
import numpy as np
import phantom
import pictured
import pytest
import readers
import validators
from examples import Example
from readers import Segments

from dicomnode import volume
from dicomnode.prediction import LabelMap, Masks, Prediction, ProbabilityMap

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"

LABEL_MAP = phantom.PLAIN.with_choices({"segmentation": "labelmap"})
FRACTIONAL = phantom.PLAIN.with_choices({"segmentation": "fractional"})
ENCODINGS = {"binary": phantom.PLAIN, "labelmap": LABEL_MAP}
EVERY_ENCODING = ENCODINGS | {"fractional": FRACTIONAL}

GRIDS = {
    f"{name}{'-reversed' * reverse}{'-enhanced' * enhanced}": {
        "orientation": name, "reversed": reverse, "enhanced": enhanced,
    }
    for name in phantom.ORIENTATIONS
    for reverse in (False, True)
    for enhanced in (False, True)
} | {
    f"{name}-thick": {"orientation": name, "spacing": (5.0, 0.8, 1.1), "shape": (8, 40, 34)}
    for name in phantom.ORIENTATIONS
}  # fmt: skip
SOME_GRIDS = list(GRIDS)[::5]


@pytest.fixture
def written(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Example, Path, Path]:
    """The phantom on one grid, and the right answer to it: a segmentation and a report."""
    grid = GRIDS[getattr(request, "param", "axial")]
    example = examples.bodies(tmp_path / "images", **grid)
    segmentation, report = example.write(tmp_path / "results", phantom.PLAIN)
    return example, segmentation, report


def labels_of(example: Example) -> Any:
    (answer,) = example.prediction.answers
    assert isinstance(answer, LabelMap)
    return answer.array


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("grid", GRIDS)
def test_dcmqi_reads_every_voxel_of_every_segment_where_it_was_marked(
    grid: str, encoding: str, tmp_path: Path
) -> None:
    example = examples.bodies(tmp_path / "images", **GRIDS[grid])
    segmentation, _ = example.write(tmp_path / "results", ENCODINGS[encoding])
    found = Segments.read(segmentation, tmp_path / "read")
    for number, segment in enumerate(example.model.manifest.outputs["bodies"].segments, start=1):
        mask = found.mask(number, example.prediction.volume)
        np.testing.assert_array_equal(mask, labels_of(example) == segment.label)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_dcmqi_reads_the_meaning_and_the_color_of_every_segment(
    encoding: str, tmp_path: Path
) -> None:
    example = examples.bodies(tmp_path / "images")
    segmentation, _ = example.write(tmp_path / "results", ENCODINGS[encoding])
    found = Segments.read(segmentation, tmp_path / "read").attributes
    segments = example.model.manifest.outputs["bodies"].segments
    for number, (one, meant) in enumerate(zip(found, segments, strict=True), start=1):
        assert one["labelID"] == number
        assert one["SegmentLabel"] == one["TrackingIdentifier"] == meant.name
        assert one["SegmentAlgorithmType"] == "AUTOMATIC"
        assert one["SegmentedPropertyTypeCodeSequence"]["CodeValue"] == meant.type.value
        color = [int(meant.color[n : n + 2], 16) for n in (1, 3, 5)]
        assert one["recommendedDisplayRGBValue"] == pytest.approx(color, abs=1)


def test_dcmqi_reads_masks_that_overlap(tmp_path: Path) -> None:
    example = examples.overlapping(tmp_path / "images", orientation="sagittal", reversed=True)
    segmentation, _ = example.write(tmp_path / "results", LABEL_MAP)
    found = Segments.read(segmentation, tmp_path / "read")
    (answer,) = example.prediction.answers
    assert isinstance(answer, Masks)
    for number, mask in enumerate(answer.array, start=1):
        np.testing.assert_array_equal(found.mask(number, example.prediction.volume), mask)


@pytest.mark.parametrize("written", SOME_GRIDS, indirect=True)
def test_dcmqi_reads_the_volumes_and_the_identifiers_of_the_report(
    written: tuple[Example, Path, Path], tmp_path: Path
) -> None:
    example, segmentation, path = written
    report = readers.measurements(path, tmp_path)
    vol = example.prediction.volume
    found = Segments.read(segmentation, tmp_path / "read")
    for number, (group, meant) in enumerate(
        zip(
            report["Measurements"],
            example.model.manifest.outputs["bodies"].segments,
            strict=True,
        ),
        start=1,
    ):
        (measured,) = group["measurementItems"]
        expected = np.count_nonzero(found.mask(number, vol)) * vol.voxel_mm3 / 1000
        assert float(measured["value"]) == pytest.approx(expected, abs=1e-6)
        assert measured["units"]["CodeValue"] == "mL"
        assert group["ReferencedSegment"] == number
        assert group["SourceSeriesForImageSegmentation"] == vol.header.SeriesInstanceUID
        assert group["TrackingIdentifier"] == meant.name
        assert group["measurementAlgorithmIdentification"] == {
            "AlgorithmName": example.model.manifest.name,
            "AlgorithmVersion": example.model.algorithm_version,
            "AlgorithmParameters": ["float32"],
        }
    assert report["VerificationFlag"] == "UNVERIFIED"


def test_dcmqi_finds_the_reports_tracking_identifiers_in_the_segmentation(
    written: tuple[Example, Path, Path], tmp_path: Path
) -> None:
    _, segmentation, path = written
    report = readers.measurements(path, tmp_path)
    found = Segments.read(segmentation, tmp_path / "read").attributes
    assert [group["TrackingUniqueIdentifier"] for group in report["Measurements"]] == [
        one["TrackingUniqueIdentifier"] for one in found
    ]


SEGMENTED: dict[str, Callable[..., Example]] = {
    "bodies": examples.bodies,
    "overlapping": examples.overlapping,
}


@pytest.mark.parametrize("grid", SOME_GRIDS)
@pytest.mark.parametrize("name", SEGMENTED)
@pytest.mark.parametrize("encoding", EVERY_ENCODING)
def test_highdicom_reads_every_voxel_of_every_segment(
    encoding: str, name: str, grid: str, tmp_path: Path
) -> None:
    example = SEGMENTED[name](tmp_path / "images", **GRIDS[grid])
    segmentation, _ = example.write(tmp_path / "results", EVERY_ENCODING[encoding])
    (output,) = example.model.manifest.outputs.values()
    (answer,) = example.prediction.answers
    for number, segment in enumerate(output.segments, start=1):
        found = readers.by_highdicom(segmentation, number, example.prediction.volume)
        if isinstance(answer, LabelMap):
            np.testing.assert_array_equal(found, answer.array == segment.label)
        else:
            np.testing.assert_array_equal(found, answer.array[number - 1])


@pytest.mark.parametrize("grid", SOME_GRIDS)
def test_highdicom_reads_every_probability_to_within_half_a_step(grid: str, tmp_path: Path) -> None:
    example = examples.probabilities(tmp_path / "images", **GRIDS[grid])
    segmentation, _ = example.write(tmp_path / "results", FRACTIONAL)
    (answer,) = example.prediction.answers
    assert isinstance(answer, ProbabilityMap)
    for number, meant in enumerate(answer.array, start=1):
        found = readers.by_highdicom(segmentation, number, example.prediction.volume)
        assert np.abs(found - meant).max() <= 0.5 / 255 + 1e-6
        assert found.min() == 0
        assert found.max() > 0.99


@pytest.mark.parametrize("encoding", EVERY_ENCODING)
@pytest.mark.parametrize("name", pictured.PICTURES)
def test_highdicom_reads_the_segments_of_each_image(
    name: str, encoding: str, tmp_path: Path
) -> None:
    example = pictured.marked(pictured.PICTURES[name](tmp_path / "images"))
    segmentation, _ = example.write(tmp_path / "results", EVERY_ENCODING[encoding])
    read = hd.seg.segread(segmentation)
    numbers = [1, 2, 3]
    for answer, source in zip(
        example.prediction.answers, example.prediction.subject.sources, strict=True
    ):
        assert isinstance(answer, LabelMap)
        if source.is_multiframe:
            found = read.get_pixels_by_source_frame(
                source.sop_instance_uid, [source.frame_number], segment_numbers=numbers,
                assert_missing_frames_are_empty=True,
            )  # fmt: skip
        else:
            found = read.get_pixels_by_source_instance(
                [source.sop_instance_uid], segment_numbers=numbers,
                assert_missing_frames_are_empty=True,
            )  # fmt: skip
        meant = np.stack([answer.array == label for label in (1, 4, 2)], axis=-1)
        np.testing.assert_array_equal(found[0], meant)


@pytest.mark.data
@pytest.mark.server("dicom3tools")
@pytest.mark.parametrize(
    "folder", ["brain_mr_study/11_HCropVolume", "brain_mr_study/36468-FLAIRreg-58706"]
)
def test_the_results_of_a_real_series_are_valid_and_read_back(tmp_path: Path, folder: str) -> None:
    shown = volume.load(tuple(sorted((DATA / folder).iterdir())))
    labels = np.zeros(shown.array.shape, dtype=np.uint8)
    slices, rows, columns = (slice(size // 4, size // 2) for size in labels.shape)
    labels[slices, rows, columns] = 1
    labels[slices.stop :, : rows.start, columns] = 3
    example = Example(
        prediction=Prediction(subject=shown, answers=(LabelMap(output="bodies", array=labels),)),
        model=phantom.a_bundle(),
    )
    files = example.write(tmp_path / "results", phantom.PLAIN)
    assert [validators.complaints("dciodvfy", path) for path in files] == [[], []]
    found = Segments.read(files[0], tmp_path / "read")
    for number, label in ((1, 1), (4, 3)):
        np.testing.assert_array_equal(found.mask(number, shown), labels == label)
