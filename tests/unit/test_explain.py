"""A heat map shows where the classifier looked, in its place on the image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bundles
import numpy as np
import pytest
from pydicom import Dataset

from dicomnode import bundle
from dicomnode.errors import ModelFailed
from dicomnode.prediction import Classification, HeatMap
from dicomnode.volume import Images, Picture, SliceSource
from workers import inference

pytestmark = bundles.QUIET

MANIFEST = (
    bundles.head("Corner")
    + """
[inputs.image]
form        = "image"
modality    = "CR"
sop_classes = ["ComputedRadiographyImageStorage"]
values      = "displayed"

[outputs.pred]
kind       = "classification"
of         = "image"
concept    = { value = "363698007", scheme = "SCT", meaning = "Finding Site" }
activation = "sigmoid"
classes    = [
    { name = "dark",   code = { value = "1", scheme = "99T", meaning = "dark" } },
    { name = "bright", code = { value = "2", scheme = "99T", meaning = "bright" } },
]

[outputs.heat]
kind = "heat_map"
of   = "pred"
"""
)
# One number, the higher the brighter the image is anywhere.
NET = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.features = torch.nn.Conv2d(1, 1, 3, padding=1, bias=False)
        torch.nn.init.constant_(self.features.weight, 1 / 9)

    def forward(self, image):
        return self.features(image).relu().mean(dim=(2, 3)) * 100 - 1
"""
PREPROCESSING = [
    *bundles.LOAD,
    {"_target_": "Resized", "keys": "image", "spatial_size": [24, 16], "mode": "area"},
    {"_target_": "ScaleIntensityd", "keys": "image"},
]


def a_bundle(root: Path, method: str) -> bundle.Bundle:
    import torch

    configuration = bundles.plain(before=PREPROCESSING)
    del configuration["postprocessing"]
    return bundles.write(
        root,
        manifest=MANIFEST + method,
        configuration=configuration,
        script=NET,
        weights={"features.weight": torch.full((1, 1, 3, 3), 1 / 9)},
    )


def an_image(row: int, column: int) -> Picture:
    """Dark, and bright in one place; 32 rows, 72 columns."""
    array = np.zeros((32, 72), dtype=np.float32)
    array[row : row + 4, column : column + 6] = 255
    source = SliceSource(
        sop_instance_uid="1.2",
        sop_class_uid="1.3",
        path="",
        frame_number=1,
        is_multiframe=False,
        position=None,
    )
    return Picture(array=array, source=source, pixel_spacing=None, affine=None, header=Dataset())


def answers(root: Path, method: str, *pictures: Picture) -> list[Any]:
    model = inference.load_model(a_bundle(root, method), device="cpu")
    shown = Images(frames=pictures, form="image", modality="CR")
    return list(model.predict({"image": shown}).answers)


GRADCAM = 'method = "gradcam"\nlayer = "features"\n'
OCCLUSION = 'method = "occlusion"\nwindow = 6\n'


@pytest.mark.parametrize("method", [GRADCAM, OCCLUSION])
def test_the_map_is_hottest_where_the_image_is_bright(tmp_path: Path, method: str) -> None:
    places = ((4, 60), (24, 6))

    found = answers(tmp_path / "corner", method, *(an_image(*place) for place in places))

    classified = [one for one in found if isinstance(one, Classification)]
    heat = [one for one in found if isinstance(one, HeatMap)]
    assert [one.frame for one in classified] == [0, 1]
    assert [one.chosen for one in classified] == [(1,), (1,)]
    for one, (row, column) in zip(heat, places, strict=True):
        assert (one.of, one.explains) == ("pred", 1)
        assert one.array.shape == (32, 72)
        hottest = np.argwhere(one.array > 0.9).mean(axis=0)
        assert abs(hottest[0] - (row + 1.5)) <= 4
        assert abs(hottest[1] - (column + 2.5)) <= 6
        assert one.array[31 - row, 71 - column] < 0.2


def test_explaining_leaves_nothing_on_the_network(tmp_path: Path) -> None:
    model = inference.load_model(a_bundle(tmp_path / "corner", GRADCAM), device="cpu")
    shown = Images(frames=(an_image(4, 60),), form="image", modality="CR")
    first = model.predict({"image": shown})
    second = model.predict({"image": shown})

    network: Any = model.workflow.main_network  # type: ignore[union-attr]
    assert not network.features._forward_hooks
    assert not network.features._backward_hooks
    for one, other in zip(first.answers, second.answers, strict=True):
        if isinstance(one, HeatMap) and isinstance(other, HeatMap):
            np.testing.assert_array_equal(one.array, other.array)


def test_a_layer_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelFailed) as caught:
        answers(tmp_path / "corner", 'method = "gradcam"\nlayer = "deep"\n', an_image(4, 60))
    assert caught.value.reason == "no-layer"
    assert "'deep'" in caught.value.detail
