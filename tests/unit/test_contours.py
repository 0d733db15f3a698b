"""Outlines with more corners than an object can hold: fewer, and as near as that allows."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import phantom
import pydicom
import pytest
from scipy import ndimage

from dicomnode import results, volume
from dicomnode.errors import ResultMismatch
from dicomnode.prediction import LabelMap, Prediction
from dicomnode.profile import Profile
from dicomnode.results import contour, regions
from dicomnode.results.checking.regions import filled

CREATED = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


def ragged(side: int) -> np.ndarray:
    """One piece whose edge is as long as it gets: noise, filled."""
    noise = np.random.default_rng(1).normal(size=(side, side))
    piece = contour.largest_piece(ndimage.gaussian_filter(noise, 2) > -0.02)
    return ndimage.binary_fill_holes(piece)


def test_an_outline_that_is_short_enough_stays_exact() -> None:
    mask = ragged(200)
    outline = contour.around(mask)
    kept, stray = contour.within(mask, most=len(outline))
    assert stray == 0
    assert np.array_equal(kept, outline)
    assert np.array_equal(filled(kept, mask.shape), mask)


@pytest.mark.parametrize("most", [1000, 300, 50])
def test_a_longer_one_strays_no_further_than_it_says(most: int) -> None:
    mask = ragged(200)
    kept, stray = contour.within(mask, most=most)
    assert 4 <= len(kept) <= most
    assert np.array_equal(kept[0], kept[-1])
    # Beyond the image there is nothing of the mask either.
    differs = np.pad(filled(kept, mask.shape) != mask, 1)
    mask = np.pad(mask, 1)
    inside = ndimage.distance_transform_edt(mask)
    outside = ndimage.distance_transform_edt(~mask)
    assert np.maximum(inside, outside)[differs].max(initial=0) <= stray + 1


def test_a_report_with_a_very_long_outline_reads_and_a_moved_one_is_caught(tmp_path: Path) -> None:
    scan = phantom.write_series(tmp_path / "images", shape=(2, 1024, 1024))
    labels = np.stack([ragged(1024), np.zeros((1024, 1024), dtype=bool)]).astype(np.uint8)
    prediction = Prediction(
        subject=volume.load(scan.files), answers=(LabelMap(output="bodies", array=labels),)
    )
    model, profile = phantom.a_bundle(), Profile(capture=False, segmentation="none", report=False)
    (region,) = regions.of(prediction, model)
    assert region.stray > 0
    built = results.build(prediction, bundle=model, key="key", created=CREATED, profiles=[profile])
    (path,) = results.write(built, tmp_path / "results")
    given = {"prediction": prediction, "bundle": model, "key": "key", "profiles": [profile]}
    results.check([path], **given)
    dataset = pydicom.dcmread(path)
    drawn = _drawn(dataset)
    assert drawn["GraphicData"].VR == "FL"
    drawn.GraphicData = [value + 30 for value in drawn.GraphicData]
    dataset.save_as(path)
    with pytest.raises(ResultMismatch, match="place-differs"):
        results.check([path], **given)


def _drawn(item: pydicom.Dataset) -> pydicom.Dataset:
    found = [child for child in item.get("ContentSequence", ()) if "GraphicData" in child]
    for child in item.get("ContentSequence", ()):
        found += [one] if (one := _drawn(child)) is not None else []
    return found[0] if found else None
