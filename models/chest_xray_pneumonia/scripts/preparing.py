"""How an image of any size becomes what the network was trained on."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from monai.config.type_definitions import KeysCollection
from monai.transforms.croppad.array import CenterSpatialCrop
from monai.transforms.transform import MapTransform


class CentreSquared(MapTransform):
    """Cuts the largest square out of the middle, as the makers of the training images did."""

    def __init__(self, keys: KeysCollection) -> None:
        super().__init__(keys)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Crop each image (channel, columns, rows); where it lay stays known."""
        prepared = dict(data)
        for key in self.key_iterator(prepared):
            image = prepared[key]
            prepared[key] = CenterSpatialCrop(min(image.shape[1:]))(image)
        return prepared
