"""Reads a presentation state again: what it draws, on which images, and how it shows them.

Outlines are put together again and filled, pixel by pixel, and compared with the masks that they
are around; where they lie is compared with what the model said, in the corners of pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import (
    ColorSoftcopyPresentationStateStorage,
    GrayscaleSoftcopyPresentationStateStorage,
)

from dicomnode.results import presented
from dicomnode.results.checking import displayed
from dicomnode.results.checking.expected import Expected, require
from dicomnode.results.checking.regions import require_around
from dicomnode.results.part import Part
from dicomnode.results.regions import Region

_COLOR_STEPS = 700  # of 65535: about one step of 8 bits, in each axis of CIELab
_INPUT_DEVICE = b"scnr"  # PS3.3 C.11.15.1.1


def check(dataset: Dataset, part: Part, expected: Expected) -> None:
    """Check a presentation state.

    Raises:
        ResultMismatch: It draws something else than what the model said, or elsewhere, or shows the
            images otherwise than they say themselves.
    """
    found = presented.of(expected.prediction, expected.bundle, expected.key)[part.variant]
    sources = expected.prediction.subject.sources
    shown = [sources[number] for number in sorted({region.frame for region in found})]
    is_color = presented.kind(expected.prediction, found[0].frame) == presented.COLOR
    meant = (
        ColorSoftcopyPresentationStateStorage
        if is_color
        else GrayscaleSoftcopyPresentationStateStorage
    )
    require(
        dataset.SOPClassUID == meant and dataset.Modality == "PR",
        "unexpected-objects",
        "The presentation state is of another kind of images.",
    )
    _check_relationship(dataset, [displayed.frame_of(one) for one in shown], expected)
    for source in shown:
        displayed.check_area(dataset, source, expected)
        if not is_color:
            displayed.check_gray(dataset, source, expected)
    if is_color:
        _check_profile(dataset, expected)
    _check_annotations(dataset, found, expected)


def _check_relationship(
    dataset: Dataset, frames: Sequence[displayed.Frame], expected: Expected
) -> None:
    (series,) = dataset.ReferencedSeriesSequence
    first = expected.headers[frames[0][0]]
    require(
        series.SeriesInstanceUID == first.SeriesInstanceUID
        and displayed.named(series.ReferencedImageSequence) == list(frames),
        "reference-differs",
        "The presentation state is not of exactly the images that something is drawn on.",
    )
    for item in series.ReferencedImageSequence:
        require(
            item.ReferencedSOPClassUID
            == expected.headers[item.ReferencedSOPInstanceUID].SOPClassUID,
            "reference-differs",
            "An image is named with another SOP class.",
        )


def _check_profile(dataset: Dataset, expected: Expected) -> None:
    own = {bytes(one.get("ICCProfile") or b"") for one in expected.headers.values()}
    profile = bytes(dataset.get("ICCProfile") or b"")
    require(
        profile[12:16] == _INPUT_DEVICE or profile in own,
        "profile-differs",
        "The presentation state has no ICC profile of an input device.",
    )


def _check_annotations(dataset: Dataset, found: Sequence[Region], expected: Expected) -> None:
    *drawn, notice = dataset.GraphicAnnotationSequence
    layers = {one.GraphicLayer: one for one in dataset.GraphicLayerSequence}
    require(
        len(layers) == len(dataset.GraphicLayerSequence) and len(drawn) == len(found),
        "place-differs",
        "The presentation state has not one annotation for each region.",
    )
    for item, region in zip(drawn, found, strict=True):
        source = expected.prediction.subject.sources[region.frame]
        require(
            displayed.named(item.ReferencedImageSequence) == [displayed.frame_of(source)],
            "reference-differs",
            f"{region.tracking_id} is drawn on another image.",
        )
        _check_layer(layers[item.GraphicLayer], region)
        _check_graphic(item, region)
        _check_text(item, region, expected)
    said = [one.UnformattedTextValue for one in notice.get("TextObjectSequence", ())]
    require(
        said == [expected.bundle.series_description] and "ReferencedImageSequence" not in notice,
        "notice-missing",
        "It does not stand on every image which model drew on it, and that it is for research.",
    )


def _check_layer(layer: Dataset, region: Region) -> None:
    require(
        layer.GraphicLayerDescription == region.finding.name,
        "finding-differs",
        f"{region.tracking_id} lies in the layer of another finding.",
    )
    said = np.array(layer.GraphicLayerRecommendedDisplayCIELabValue, dtype=np.float64)
    require(
        bool(np.abs(said - _lab(region.finding.color)).max() <= _COLOR_STEPS),
        "color-differs",
        f"{region.tracking_id} has not the colour of its finding.",
    )


def _check_graphic(item: Dataset, region: Region) -> None:
    """The outline or the point, in the corners of pixels (PS3.3 C.10.5)."""
    (graphic,) = item.GraphicObjectSequence
    require(
        graphic.GraphicAnnotationUnits == "PIXEL"
        and graphic.GraphicDimensions == 2  # noqa: PLR2004 - columns and rows
        and graphic.GraphicType == region.graphic
        and (graphic.TrackingID, graphic.TrackingUID) == (region.tracking_id, region.tracking_uid),
        "tracking-differs",
        f"{region.tracking_id} is not drawn in pixels, or is not tracked.",
    )
    drawn = np.array(graphic.GraphicData, dtype=np.float64).reshape(-1, 2)
    require(
        len(drawn) == graphic.NumberOfGraphicPoints
        and np.array_equal(drawn, region.points.astype(np.float32)),
        "place-differs",
        f"{region.tracking_id} is not drawn where the model said.",
    )
    require_around(drawn, region)


def _check_text(item: Dataset, region: Region, expected: Expected) -> None:
    """What is written, and that it lies on the image."""
    (text,) = item.TextObjectSequence
    require(
        text.UnformattedTextValue == presented.words(region),
        "measurement-differs",
        f"What is written beside {region.tracking_id} is not what was found.",
    )
    rows, columns = presented.size(expected.prediction, region.frame)
    corners = np.array(
        [*text.BoundingBoxTopLeftHandCorner, *text.BoundingBoxBottomRightHandCorner]
    ).reshape(2, 2)
    require(
        text.BoundingBoxAnnotationUnits == "PIXEL"
        and bool((corners >= 0).all())
        and bool((corners <= (columns, rows)).all()),
        "place-differs",
        f"What is written beside {region.tracking_id} lies beside the image.",
    )


def _lab(color: str) -> NDArray[np.float64]:
    """CIELab of an sRGB colour "#rrggbb", white point D65, as PS3.3 C.10.7.1.1 encodes it."""
    encoded = np.array([int(color[n : n + 2], 16) for n in (1, 3, 5)]) / 255
    linear = np.where(encoded > 0.04045, ((encoded + 0.055) / 1.055) ** 2.4, encoded / 12.92)  # noqa: PLR2004 - IEC 61966-2-1
    to_xyz = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    ratio = to_xyz @ linear / (0.9505, 1.0, 1.0889)
    curve = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio * (29 / 6) ** 2 / 3 + 4 / 29)
    lightness = 116 * curve[1] - 16
    a, b = 500 * (curve[0] - curve[1]), 200 * (curve[1] - curve[2])
    encoded_lab: NDArray[np.float64] = np.array(
        [lightness * 65535 / 100, (a + 128) * 65535 / 255, (b + 128) * 65535 / 255]
    )
    return encoded_lab
