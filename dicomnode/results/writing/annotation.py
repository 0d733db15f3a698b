r"""Regions as graphics and texts of a presentation state (PS3.3 C.10.5, C.10.7).

Graphic coordinates in units of PIXEL count as those of a report do (C.18.6.1.1): 0\0 is the upper
left corner of the first pixel, 1\1 its lower right one. (The corners of the displayed area, C.10.4,
are whole pixels and count from 1.)
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from dicomnode.bundle import Finding
from dicomnode.prediction import Prediction
from dicomnode.results import presented
from dicomnode.results.regions import Region

#: The layer of what is said on every image.
NOTICE_LAYER = "NOTICE"
_NOTICE_COLOR = "#ffc14d"


_CODE_STRING = re.compile(r"[^A-Z0-9]+")
_MAX_CODE_STRING = 16
_WHITE = 65535  # of a layer on a display without colours, P-values (C.10.7)

_LINES = 32  # of text that would fill an image from top to bottom
_LETTER = 0.55  # of a line's height: the width of a letter
_GAP = 0.5  # of a line's height: between an outline and its text

_Rectangle = tuple[float, float, float, float]


def layers(found: Sequence[Region]) -> dict[Finding, Dataset]:
    """A layer for each finding (C.10.7), in order: its colour holds for all that is in it."""
    made: dict[Finding, Dataset] = {}
    for region in found:
        if region.finding not in made:
            number = len(made) + 1
            name = _CODE_STRING.sub("_", region.finding.name.upper()).strip("_")
            layer = _layer(f"{number} {name}"[:_MAX_CODE_STRING].rstrip("_ "), number)
            layer.GraphicLayerRecommendedDisplayCIELabValue = _lab(region.finding.color)
            layer.GraphicLayerDescription = region.finding.name
            made[region.finding] = layer
    return made


def notice_layer(number: int) -> Dataset:
    """The layer of what is said on every image."""
    layer = _layer(NOTICE_LAYER, number)
    layer.GraphicLayerRecommendedDisplayCIELabValue = _lab(_NOTICE_COLOR)
    return layer


def _layer(name: str, number: int) -> Dataset:
    layer = Dataset()
    layer.GraphicLayer = name
    layer.GraphicLayerOrder = number
    layer.GraphicLayerRecommendedDisplayGrayscaleValue = _WHITE
    return layer


def _lab(color: str) -> list[int]:
    """CIELab as PCS-values (C.10.7.1.1) of a colour "#rrggbb"."""
    return [int(value) for value in hd.color.CIELabColor.from_string(color).value]


def notice(text: str) -> Dataset:
    """A sentence at the lower edge of every image (C.10.5)."""
    words = Dataset()
    words.BoundingBoxAnnotationUnits = "DISPLAY"
    words.BoundingBoxTopLeftHandCorner = [0.0, 0.94]
    words.BoundingBoxBottomRightHandCorner = [1.0, 1.0]
    words.BoundingBoxTextHorizontalJustification = "LEFT"
    words.UnformattedTextValue = text
    item = Dataset()
    item.GraphicLayer = NOTICE_LAYER
    item.TextObjectSequence = [words]
    return item


def of(
    found: Sequence[Region], prediction: Prediction, layer: dict[Finding, Dataset]
) -> Iterator[Dataset]:
    """An item of Graphic Annotation Sequence for each region, without the image that it is on."""
    taken: dict[int, list[_Rectangle]] = defaultdict(list)
    for region in found:
        rows, columns = presented.size(prediction, region.frame)
        place = _beside(region, rows, columns, taken[region.frame])
        taken[region.frame].append(place)
        item = Dataset()
        item.GraphicLayer = layer[region.finding].GraphicLayer
        item.GraphicObjectSequence = [_graphic(region)]
        item.TextObjectSequence = [_text(region, place)]
        yield item


def _graphic(region: Region) -> Dataset:
    """The outline, or the point."""
    graphic = Dataset()
    graphic.GraphicAnnotationUnits = "PIXEL"
    graphic.GraphicDimensions = 2
    graphic.NumberOfGraphicPoints = len(region.points)
    graphic.GraphicData = [float(value) for value in region.points.ravel()]
    graphic.GraphicType = region.graphic
    if region.graphic == "POLYLINE":
        graphic.GraphicFilled = "N"
    graphic.TrackingID = region.tracking_id
    graphic.TrackingUID = region.tracking_uid
    return graphic


def _text(region: Region, place: _Rectangle) -> Dataset:
    """What it is, and how large, beside it, with a line to it."""
    left, top, right, bottom = place
    text = Dataset()
    text.BoundingBoxAnnotationUnits = text.AnchorPointAnnotationUnits = "PIXEL"
    text.UnformattedTextValue = presented.words(region)
    text.BoundingBoxTopLeftHandCorner = [left, top]
    text.BoundingBoxBottomRightHandCorner = [right, bottom]
    text.BoundingBoxTextHorizontalJustification = "LEFT"
    middle = np.array([(left + right) / 2, (top + bottom) / 2])
    text.AnchorPoint = [float(value) for value in _nearest(region.points, middle)]
    text.AnchorPointVisibility = "Y"
    text.TrackingID = region.tracking_id
    text.TrackingUID = region.tracking_uid
    return text


def _nearest(points: NDArray[np.float64], to: NDArray[np.float64]) -> NDArray[np.float64]:
    nearest: NDArray[np.float64] = points[int(np.argmin(np.linalg.norm(points - to, axis=1)))]
    return nearest


def _beside(region: Region, rows: int, columns: int, taken: Sequence[_Rectangle]) -> _Rectangle:
    """Where a region's text goes: at its right, else at its left, and below what is there already.

    Viewers write in a size of their own: this is what a text of usual size takes.
    """
    height = rows / _LINES
    width = min(float(columns), _LETTER * height * len(presented.words(region)))
    (first, top), (last, _) = region.points.min(axis=0), region.points.max(axis=0)
    left = last + _GAP * height
    if left + width > columns:
        left = max(0.0, first - _GAP * height - width)
    top = min(float(top), rows - height)
    while any(_overlap((left, top, left + width, top + height), one) for one in taken):
        top += height
        if top + height > rows:  # full down to the lower edge: texts lie on each other
            return left, rows - height, min(left + width, columns), float(rows)
    return float(left), top, float(min(left + width, columns)), top + height


def _overlap(one: _Rectangle, other: _Rectangle) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
