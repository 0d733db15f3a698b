"""Frames of a segmentation, arranged for a viewer that misreads those within a byte."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import phantom
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomnode import results, volume
from dicomnode.errors import ResultMismatch
from dicomnode.prediction import LabelMap, Prediction
from dicomnode.profile import NAMED, Profile
from dicomnode.results import arrangement, layers, plan
from dicomnode.results.layers import Layers

CREATED = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
OHIF = Profile(capture=False, regions=False, report=False, workarounds="ohif")


def of(array: np.ndarray) -> Layers:
    return Layers(items=layers.numbered(phantom.a_bundle(), "bodies"), array=array)


@given(
    rows=st.integers(3, 9),
    columns=st.integers(3, 9),
    slices=st.integers(1, 12),
    seed=st.integers(0, 1000),
)
def test_an_arrangement_reads_right_or_there_is_none(
    rows: int, columns: int, slices: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    labels = np.zeros((slices, rows, columns), dtype=np.uint8)
    for label in (1, 2, 3):
        labels[rng.integers(slices), rng.integers(rows), rng.integers(columns)] = label
    segments = of(labels)
    order = arrangement.aligned(segments)
    if order is None:
        return
    size = rows * columns
    full = {
        (item.number, int(i))
        for item in segments.items
        for i in np.flatnonzero(segments.counts[item.number - 1])
    }
    assert full <= set(order)
    assert len(set(order)) == len(order)
    assert {number for number, _ in order} == {item.number for item in segments.items}
    assert all(order.index(one) * size % 8 == 0 for one in full)
    assert -(-len(order) * size // 8) % 2 == 0


@pytest.mark.parametrize(
    ("shape", "variants"),
    [
        ((14, 24, 22), ["binary"]),  # 66 bytes a frame, 56 frames
        ((13, 27, 24), ["binary"]),
        ((40, 24, 27), ["binary"]),
        ((30, 25, 30), ["aligned"]),  # 750 bits: every fourth frame starts on a byte
        ((14, 25, 25), []),  # 625 bits: every eighth one, and there are not so many empty ones
    ],
)
def test_what_cannot_be_read_right_is_arranged_or_left_out(
    tmp_path: Path, shape: tuple[int, int, int], variants: list[str]
) -> None:
    scan = phantom.write_series(tmp_path / "images", shape=shape)
    prediction = Prediction(
        subject=volume.load(scan.files), answers=(LabelMap(output="bodies", array=scan.labels),)
    )
    model = phantom.a_bundle()
    parts = plan.of(prediction, model, [OHIF])
    assert [one.variant for one in parts] == variants
    built = results.build(prediction, bundle=model, key="k", created=CREATED, profiles=[OHIF])
    files = results.write(built, tmp_path / "results")
    results.check(files, prediction=prediction, bundle=model, key="k", profiles=[OHIF])


def test_frames_that_are_moved_back_into_a_byte_are_caught(tmp_path: Path) -> None:
    scan = phantom.write_series(tmp_path / "images", shape=(30, 25, 30))
    prediction = Prediction(
        subject=volume.load(scan.files), answers=(LabelMap(output="bodies", array=scan.labels),)
    )
    model = phantom.a_bundle()
    (plain,) = results.build(
        prediction,
        bundle=model,
        key="k",
        created=CREATED,
        profiles=[OHIF.with_choices({"workarounds": "none"})],
    )
    (arranged,) = results.build(prediction, bundle=model, key="k", created=CREATED, profiles=[OHIF])
    dataset = arranged.dataset
    for keyword in ("PixelData", "PerFrameFunctionalGroupsSequence", "NumberOfFrames"):
        dataset[keyword] = plain.dataset[keyword]
    path = tmp_path / "spoilt.dcm"
    dataset.save_as(path, enforce_file_format=True)
    assert pydicom.dcmread(path).SOPInstanceUID != plain.dataset.SOPInstanceUID
    with pytest.raises(ResultMismatch, match="frames-differ"):
        results.check([path], prediction=prediction, bundle=model, key="k", profiles=[OHIF])


def test_regions_on_pixels_that_are_not_square_are_left_out_for_ohif(tmp_path: Path) -> None:
    scan = phantom.write_series(tmp_path / "images")
    prediction = Prediction(
        subject=volume.load(scan.files), answers=(LabelMap(output="bodies", array=scan.labels),)
    )
    assert prediction.volume.pixel_spacing == (1.25, 1.5)
    kinds = [one.kind for one in plan.of(prediction, phantom.a_bundle(), [NAMED["ohif"]])]
    assert "regions" not in kinds
    square = phantom.write_series(tmp_path / "square", spacing=(2.5, 1.25, 1.25))
    prediction = Prediction(
        subject=volume.load(square.files), answers=(LabelMap(output="bodies", array=square.labels),)
    )
    kinds = [one.kind for one in plan.of(prediction, phantom.a_bundle(), [NAMED["ohif"]])]
    assert "regions" in kinds
