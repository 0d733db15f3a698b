"""How a presentation state shows its images: compared with what the images' own files say.

What it leaves out is the identity (PS3.4 N.2.1), so each image's own way from stored values to gray
must stand in it: here both ways are followed to the stored values that become black and white.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from pydicom import Dataset

from dicomnode.results.checking.expected import Expected, require
from dicomnode.volume import SliceSource

_RELATIVE = 1e-6  # what 16 characters of a decimal string lose

#: Instance and frame; `None` of an image that has but one.
Frame = tuple[str, int | None]


def frame_of(source: SliceSource) -> Frame:
    """What an object names a frame by."""
    return source.sop_instance_uid, source.frame_number if source.is_multiframe else None


def named(items: Iterable[Dataset]) -> list[Frame]:
    """Every frame that an image reference names (PS3.3 Table 10-3)."""
    found: list[Frame] = []
    for item in items:
        numbers = item.get("ReferencedFrameNumber")
        frames = [None] if numbers is None else [int(n) for n in np.atleast_1d(numbers)]
        found += [(str(item.ReferencedSOPInstanceUID), number) for number in frames]
    return found


def _of(items: Sequence[Dataset], frame: Frame) -> list[Dataset]:
    """The items that hold for a frame: those that name it, and those that name none."""
    return [
        item
        for item in items
        if "ReferencedImageSequence" not in item or frame in named(item.ReferencedImageSequence)
    ]


def check_area(dataset: Dataset, source: SliceSource, expected: Expected) -> None:
    r"""All of the image is shown, from pixel 1\1 on, and its pixels have their shape (C.10.4)."""
    header = expected.headers[source.sop_instance_uid]
    areas = _of(dataset.DisplayedAreaSelectionSequence, frame_of(source))
    require(len(areas) == 1, "area-differs", "An image has not exactly one displayed area.")
    (area,) = areas
    require(
        list(area.DisplayedAreaTopLeftHandCorner) == [1, 1]
        and list(area.DisplayedAreaBottomRightHandCorner) == [header.Columns, header.Rows]
        and area.PresentationSizeMode == "SCALE TO FIT",
        "area-differs",
        "The displayed area is not the whole image.",
    )
    vertical, horizontal = map(float, _shape_said(area))
    meant_vertical, meant_horizontal = _shape_meant(header, source)
    require(
        math.isclose(vertical * meant_horizontal, horizontal * meant_vertical, rel_tol=1e-3),
        "area-differs",
        "The displayed area gives the image another shape.",
    )


def _shape_said(area: Dataset) -> Sequence[float]:
    spacing = area.get("PresentationPixelSpacing")
    return list(spacing if spacing is not None else area.PresentationPixelAspectRatio)


def _shape_meant(header: Dataset, source: SliceSource) -> tuple[float, float]:
    measures = _group(header, source, "PixelMeasuresSequence")
    for values in (
        measures.get("PixelSpacing"),
        header.get("ImagerPixelSpacing"),
        header.get("PixelAspectRatio"),
    ):
        if values and min(map(float, values)) > 0:
            return float(values[0]), float(values[1])
    return 1.0, 1.0


def check_gray(dataset: Dataset, source: SliceSource, expected: Expected) -> None:
    """The values of a frame become gray as its own image has it."""
    header = expected.headers[source.sop_instance_uid]
    items = _of(dataset.get("SoftcopyVOILUTSequence", ()), frame_of(source))
    require(len(items) <= 1, "window-differs", "An image has more than one window.")
    _check_table(dataset, header)
    said = items[0] if items else Dataset()
    meant = _group(header, source, "FrameVOILUTSequence")
    if meant.get("VOILUTSequence"):
        require(
            [one.LUTData for one in said.get("VOILUTSequence", ())]
            == [meant.VOILUTSequence[0].LUTData],
            "window-differs",
            "The VOI LUT is not that of the image.",
        )
    elif meant.get("WindowWidth") and meant.get("WindowCenter") not in (None, ""):
        rescale = _group(header, source, "PixelValueTransformationSequence")
        require(
            np.allclose(_limits(said, dataset), _limits(meant, rescale), rtol=_RELATIVE)
            and said.get("VOILUTFunction") == meant.get("VOILUTFunction"),
            "window-differs",
            "The window is not that of the image.",
        )
    meant_shape = "INVERSE" if header.PhotometricInterpretation == "MONOCHROME1" else "IDENTITY"
    require(
        dataset.PresentationLUTShape == meant_shape,
        "polarity-differs",
        "Black and white are not as the image has them.",
    )


def _check_table(dataset: Dataset, header: Dataset) -> None:
    tables = [
        [one.LUTData for one in of.get("ModalityLUTSequence", ())] for of in (dataset, header)
    ]
    is_identity = "ModalityLUTSequence" not in dataset and "SoftcopyVOILUTSequence" not in dataset
    require(
        tables[0] == tables[1] or is_identity,
        "window-differs",
        "The Modality LUT is not that of the image.",
    )


def _limits(window: Dataset, rescale: Dataset) -> list[float]:
    """The stored values that the lower and the upper end of a linear window are of."""
    center, width = (
        float(np.atleast_1d(window[keyword].value)[0])
        for keyword in ("WindowCenter", "WindowWidth")
    )
    if str(window.get("VOILUTFunction") or "LINEAR") == "LINEAR":
        center, width = center - 0.5, width - 1
    slope = float(rescale.get("RescaleSlope") or 1)
    intercept = float(rescale.get("RescaleIntercept") or 0)
    return [(end - intercept) / slope for end in (center - width / 2, center + width / 2)]


def _group(header: Dataset, source: SliceSource, keyword: str) -> Dataset:
    """A functional group of a frame; of an image that has none, the image."""
    if "PerFrameFunctionalGroupsSequence" not in header:
        return header
    own = header.PerFrameFunctionalGroupsSequence[source.frame_number - 1]
    for groups in (own, *(header.get("SharedFunctionalGroupsSequence") or ())):
        if items := groups.get(keyword):
            item: Dataset = items[0]
            return item
    return header
