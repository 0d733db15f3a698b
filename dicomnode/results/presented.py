"""Regions as a presentation state draws them: on the image, in words, and by the kind of image.

A presentation state is of monochrome images or of colour ones (PS3.3 A.33.1, A.33.2), and has one
polarity for all that it is of (C.11.6): where a run has regions on several kinds of images, there
is one for each kind.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from dicomnode.bundle import Bundle
from dicomnode.prediction import Prediction
from dicomnode.results import regions
from dicomnode.results.regions import Region
from dicomnode.volume import Images, Volume

COLOR = "COLOR"
MONOCHROME1 = "MONOCHROME1"
MONOCHROME2 = "MONOCHROME2"


def of(prediction: Prediction, bundle: Bundle, key: str = "") -> Mapping[str, tuple[Region, ...]]:
    """The regions of each presentation state: its variant (of a `Part`) → what it draws.

    The variant is "" where there is one kind of images. What lies beside the image cannot be drawn.

    Args:
        key: The idempotency key that tracking identifiers are derived from.
    """
    found: dict[str, list[Region]] = defaultdict(list)
    for region in _on_image(regions.of(prediction, bundle, key), prediction):
        found[kind(prediction, region.frame)].append(region)
    is_alone = len(found) == 1
    return {"" if is_alone else name: tuple(one) for name, one in found.items()}


def kind(prediction: Prediction, frame: int) -> str:
    """What kind of image a frame is: `COLOR`, or its Photometric Interpretation."""
    subject = prediction.subject
    header = subject.frames[frame].header if isinstance(subject, Images) else subject.header
    stated = str(header.get("PhotometricInterpretation") or MONOCHROME2)
    return stated if stated in (MONOCHROME1, MONOCHROME2) else COLOR


def size(prediction: Prediction, frame: int) -> tuple[int, int]:
    """Rows and columns of a frame."""
    subject = prediction.subject
    if isinstance(subject, Volume):
        _, rows, columns = subject.array.shape
    elif isinstance(subject, Images):
        rows, columns = subject.frames[frame].array.shape[:2]
    else:
        raise TypeError(f"nothing is drawn on a {type(subject).__name__}")
    return rows, columns


def words(region: Region) -> str:
    """What is written beside a region: what it is, and the first of its measurements."""
    if not region.measurements:
        return region.tracking_id
    _, value, unit = region.measurements[0]
    return f"{region.tracking_id}: {value:.4g} {unit.value}"


def _on_image(found: tuple[Region, ...], prediction: Prediction) -> Iterator[Region]:
    """What lies on the image, and of what reaches beyond it the part that does (C.10.5)."""
    for region in found:
        rows, columns = size(prediction, region.frame)
        points = np.clip(region.points, 0, (columns, rows))
        if region.graphic == "POINT":
            is_there = np.array_equal(points, region.points)
        else:
            is_there = bool(np.ptp(points, axis=0).min() > 0)
        if is_there:
            yield replace(region, points=points)
