"""A model that works on a grid of its own answers on the source's: dcmqi finds each body in place.

The bundle turns the series to RAS, resamples it to 1.5 mm, marks what is dark and what is bright,
and turns its probabilities back (`Invertd`), as published bundles do. What was resampled twice is
not the truth voxel for voxel: but nothing near the truth, moved by a voxel or mirrored, may be
nearer to it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bundles
import numpy as np
import phantom
import pytest
import readers
from examples import Example
from numpy.typing import NDArray

from dicomnode import volume
from dicomnode.prediction import LabelMap
from dicomnode.volume import Volume
from workers import inference

pytestmark = bundles.QUIET

MILLIMETRES = 1.5
#: Label → what is added to the brightness where the body is. A bright body's edge never looks like
#: a dark one; the third body is not there to be seen.
BRIGHTNESS = {0: 0, 1: -1000, 2: 1000, 3: 0}

MANIFEST = (
    bundles.of_one_image(
        "Dark and bright",
        'modality = "MR"\nsop_classes = ["MRImageStorage", "EnhancedMRImageStorage"]',
    )
    + bundles.LABEL_MAP
)
SEGMENTS = "".join(
    bundles.segment(
        label, name, category=bundles.TISSUE, kind=bundles.TISSUE, color="#61e294", is_measured=True
    )
    for label, name in {1: "Dark", 2: "Bright"}.items()
)
#: Half of the contrast between a body and what is around it (about 150).
NET = bundles.net("torch.cat([0 * image, (-350 - image) / 100, (image - 650) / 100], dim=1)")
PREPROCESSING = [
    *bundles.LOAD,
    bundles.TO_RAS,
    {"_target_": "Spacingd", "keys": "image", "pixdim": [MILLIMETRES] * 3, "mode": "bilinear"},
]
POSTPROCESSING = [
    {"_target_": "Activationsd", "keys": "pred", "softmax": True},
    bundles.INVERT,
    bundles.ARGMAX,
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The bundle, loaded."""
    made = bundles.write(
        tmp_path_factory.mktemp("bundle") / "dark_and_bright",
        manifest=MANIFEST + SEGMENTS,
        configuration=bundles.evaluated(before=PREPROCESSING, after=POSTPROCESSING),
        script=NET,
    )
    return inference.load_model(made, device="cpu")


GRIDS = {
    f"{name}{'-reversed' * reverse}{'-enhanced' * enhanced}{'-thick' * thick}": {
        "orientation": name,
        "reversed": reverse,
        "enhanced": enhanced,
    }
    | ({"spacing": (4.5, 0.95, 1.35), "shape": (9, 36, 28)} if thick else {})
    for name in phantom.ORIENTATIONS
    for reverse, enhanced, thick in [
        (False, False, False),
        (True, False, False),
        (False, True, False),
        (True, True, True),
    ]
}


@pytest.mark.parametrize("grid", GRIDS)
def test_what_was_resampled_lies_where_it_was_seen(
    grid: str, model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(phantom, "BRIGHTNESS", BRIGHTNESS)
    scan = phantom.write_series(tmp_path / "images", **GRIDS[grid])
    prediction = model.predict({"image": volume.load(scan.files)})
    example = Example(prediction=prediction, model=model.bundle)
    segmentation, path = example.write(tmp_path / "results", phantom.PLAIN)
    found = readers.Segments.read(segmentation, tmp_path / "read")
    report = readers.measurements(path, tmp_path)["Measurements"]
    (answer,) = prediction.answers
    assert isinstance(answer, LabelMap)
    for label, group in zip((1, 2), report, strict=True):
        mask = found.mask(label, prediction.volume)
        np.testing.assert_array_equal(mask, answer.array == label)
        assert_is_in_place(mask, scan.labels == label, prediction.volume)
        (measured,) = group["measurementItems"]
        millilitres = np.count_nonzero(mask) * prediction.volume.voxel_mm3 / 1000
        assert float(measured["value"]) == pytest.approx(millilitres, abs=1e-6)


def assert_is_in_place(found: NDArray[np.bool_], meant: NDArray[np.bool_], shown: Volume) -> None:
    """Almost all of it is right, and no neighbour of the truth is as near."""
    agreement = dice(found, meant)
    assert agreement > 0.95
    assert max(dice(found, other) for other in moved(meant)) < agreement - 0.05
    assert np.count_nonzero(found) == pytest.approx(np.count_nonzero(meant), rel=0.05)
    assert np.linalg.norm(centre(found, shown) - centre(meant, shown)) < MILLIMETRES / 4


def dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


def centre(mask: NDArray[np.bool_], shown: Volume) -> NDArray[np.float64]:
    index = np.argwhere(mask).mean(axis=0)
    place: NDArray[np.float64] = shown.affine[:3, :3] @ index + shown.affine[:3, 3]
    return place


def moved(mask: NDArray[np.bool_]) -> Iterator[NDArray[np.bool_]]:
    """By a voxel along each axis, and mirrored along each and along several."""
    for axis, step in itertools.product(range(3), (-1, 1)):
        yield np.roll(mask, step, axis=axis)
    for count in (1, 2, 3):
        for axes in itertools.combinations(range(3), count):
            yield np.flip(mask, axis=axes)
