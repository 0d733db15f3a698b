"""What can be drawn on an image: outlines, boxes and points, each on the one frame it is drawn on.

A lesion is drawn on the slice where it is largest. A segment that is a morphologically altered
structure is taken for as many lesions as it has pieces; any other is one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dicomnode.bundle import BoxesOutput, Bundle, Code, Finding, PointsOutput
from dicomnode.prediction import Boxes, LabelMap, Masks, Points, Prediction
from dicomnode.results import common, contour, layers, said
from dicomnode.results.layers import Layers, Numbered
from dicomnode.results.said import Segmented
from dicomnode.volume import Images, Volume

AREA = Code(value="42798000", scheme="SCT", meaning="Area")
SQUARE_MILLIMETRE = Code(value="mm2", scheme="UCUM", meaning="square millimeter")
VOLUME = Code(value="118565006", scheme="SCT", meaning="Volume")
MILLILITRE = Code(value="mL", scheme="UCUM", meaning="milliliter")
CERTAINTY = Code(value="111012", scheme="DCM", meaning="Certainty of Finding")
PERCENT = Code(value="%", scheme="UCUM", meaning="Percent")

#: Pieces of one segment that are drawn, the largest first; a segmentation has all of them.
LESIONS = 50
#: Corners of an outline: Graphic Data is FL, of which explicit lengths end at 65,534 bytes (PS3.5
#: 7.1.2).
CORNERS = 8191

# "Morphologically Altered Structure" of CID 7150, now and in older editions.
_ALTERED = ("49755003",)
_CENTRE = 0.5  # PS3.3 C.18.6.1.1: the corner of the first pixel is 0, its centre 0.5


@dataclass(frozen=True, kw_only=True, eq=False)
class Region:
    """One thing that is drawn.

    Attributes:
        tracking_uid, tracking_id: Of the finding; those of its segment where that is one finding.
        finding: What it is.
        frame: The index of the frame, in `Prediction.subject.sources`.
        graphic: "POLYLINE", closed, or "POINT" (PS3.3 C.18.6.1.2).
        points: Shape (n, 2): column and row, where the corner of the first pixel is 0.
        mask: What the outline is around, of the frame's rows and columns; `None` of a box, a point.
        stray: How far in pixels the outline may stray from the mask; 0: not at all.
        measurements: Name, value, unit.
    """

    tracking_uid: str
    tracking_id: str
    finding: Finding
    frame: int
    graphic: Literal["POLYLINE", "POINT"]
    points: NDArray[np.float64]
    mask: NDArray[np.bool_] | None = None
    stray: float = 0.0
    measurements: tuple[tuple[Code, float, Code], ...] = ()


def of(prediction: Prediction, bundle: Bundle, key: str = "") -> tuple[Region, ...]:
    """Everything of an answer that can be drawn, in the manifest's order.

    Args:
        key: The idempotency key that tracking identifiers are derived from.
    """
    return tuple(_of_each(prediction, bundle, key))


def exist(prediction: Prediction, bundle: Bundle) -> bool:
    """Whether there is anything in an answer that can be drawn."""
    return any(True for _ in _of_each(prediction, bundle, ""))


def in_patient(region: Region, prediction: Prediction) -> NDArray[np.float64] | None:
    """The points in patient coordinates (LPS, mm): shape (n, 3); `None` of an image without place.

    Whatever is drawn on a frame lies in its plane.
    """
    subject = prediction.subject
    if isinstance(subject, Volume):
        affine: NDArray[np.float64] | None = subject.affine
    else:
        affine = subject.frames[region.frame].affine if isinstance(subject, Images) else None
    # The frame's own place, from which the affine of a volume may stray: of uneven slices it is
    # that of even ones.
    position = subject.sources[region.frame].position
    if affine is None or position is None:
        return None
    columns, rows = (region.points - _CENTRE).T
    placed: NDArray[np.float64] = np.column_stack([rows, columns]) @ affine[:3, 1:3].T + position
    return placed


def _of_each(prediction: Prediction, bundle: Bundle, key: str) -> Iterator[Region]:
    if not isinstance(prediction.subject, Volume | Images):
        return
    for answer in prediction.answers:
        output = bundle.manifest.outputs[answer.output]
        if isinstance(answer, LabelMap | Masks):
            yield from _segments(answer, prediction, bundle, key)
        elif isinstance(answer, Boxes) and isinstance(output, BoxesOutput):
            yield from _boxes(answer, output, prediction, key)
        elif isinstance(answer, Points) and isinstance(output, PointsOutput):
            yield from _points(answer, output, prediction, key)


def _segments(
    answer: Segmented, prediction: Prediction, bundle: Bundle, key: str
) -> Iterator[Region]:
    frames = () if answer.frame is None else (answer.frame,)
    segments = layers.of(prediction, bundle, answer.output, frames)
    for item in segments.items:
        if not segments.count(item):
            continue
        tracked = said.tracking_uid(key, answer.output, item.segment.label)
        apart = said.tracking_uid(key, answer.output, item.segment.label, frame=answer.frame)
        pieces = list(_lesions(segments, item))
        for number, piece in enumerate(pieces, start=1):
            is_alone = len(pieces) == 1
            drawn = contour.largest_piece(piece.plane)
            frame = piece.frame if answer.frame is None else answer.frame
            outline, stray = contour.within(drawn, most=CORNERS)
            yield Region(
                tracking_uid=tracked if is_alone else said.of_piece(apart, number),
                tracking_id=item.segment.name if is_alone else f"{item.segment.name} {number}",
                finding=item.segment,
                frame=frame,
                graphic="POLYLINE",
                points=outline,
                mask=drawn,
                stray=stray,
                measurements=tuple(_sizes(piece, drawn, prediction, frame)),
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Piece:
    """A segment, or a lesion of it: how large it is, and what of it is on its largest frame."""

    voxels: int
    frame: int
    plane: NDArray[np.bool_]


def _lesions(segments: Layers, item: Numbered) -> Iterator[_Piece]:
    """A segment's pieces, the largest first, where each is a lesion; else the segment."""
    if item.segment.category.value not in _ALTERED:
        frame = int(np.argmax(segments.counts[item.number - 1]))
        plane = segments.plane(item, frame)
        yield _Piece(voxels=segments.count(item), frame=frame, plane=plane)
        return
    mask = segments.mask(item)
    around = contour.box_of(mask)
    if around is None:
        return
    pieces, count = ndimage.label(mask[around])
    boxes = ndimage.find_objects(pieces)
    sizes = np.bincount(pieces[mask[around]], minlength=count + 1)[1:]
    for number in np.argsort(-sizes, kind="stable")[:LESIONS].tolist():
        inside = pieces[boxes[number]] == number + 1
        frame = boxes[number][0].start + int(np.argmax(inside.sum(axis=(1, 2))))
        plane = np.zeros(mask.shape[1:], dtype=np.bool_)
        plane[around[1:]] = pieces[frame] == number + 1
        frame += around[0].start
        yield _Piece(voxels=int(sizes[number]), frame=frame, plane=plane)


def _sizes(
    piece: _Piece, drawn: NDArray[np.bool_], prediction: Prediction, frame: int
) -> Iterator[tuple[Code, float, Code]]:
    """The volume of the whole, and the area of what is drawn, as far as they can be known."""
    subject = prediction.subject
    if isinstance(subject, Volume):
        millilitres = common.volume_ml(piece.voxels, voxel_mm3=subject.voxel_mm3)
        yield VOLUME, millilitres, MILLILITRE
    spacing = _pixel_spacing(prediction, frame)
    if spacing is not None:
        area = common.area_mm2(int(drawn.sum()), pixel_spacing=spacing)
        yield AREA, area, SQUARE_MILLIMETRE


def _pixel_spacing(prediction: Prediction, frame: int) -> tuple[float, float] | None:
    subject = prediction.subject
    if isinstance(subject, Volume):
        return subject.pixel_spacing
    return subject.frames[frame].pixel_spacing if isinstance(subject, Images) else None


def _boxes(
    answer: Boxes, output: BoxesOutput, prediction: Prediction, key: str
) -> Iterator[Region]:
    findings: Mapping[int, Finding] = {one.label: one for one in output.findings}
    for number, box in enumerate(answer.boxes, start=1):
        corners = np.array(list(product(*zip(box.low, box.high, strict=True))))
        frame, drawn = _on_frame(corners, prediction, answer.frame)
        (left, top), (right, bottom) = drawn.min(axis=0), drawn.max(axis=0)
        way = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
        yield Region(
            tracking_uid=said.tracking_uid(key, answer.output, number, frame=answer.frame),
            tracking_id=f"{findings[box.label].name} {number}",
            finding=findings[box.label],
            frame=frame,
            graphic="POLYLINE",
            points=_written(np.array(way)),
            measurements=((CERTAINTY, round(box.score * 100, 2), PERCENT),),
        )


def _points(
    answer: Points, output: PointsOutput, prediction: Prediction, key: str
) -> Iterator[Region]:
    landmarks = {one.label: one for one in output.landmarks}
    for number, point in enumerate(answer.points, start=1):
        frame, drawn = _on_frame(np.array([point.at]), prediction, answer.frame)
        yield Region(
            tracking_uid=said.tracking_uid(key, answer.output, number, frame=answer.frame),
            tracking_id=landmarks[point.label].name,
            finding=landmarks[point.label],
            frame=frame,
            graphic="POINT",
            points=_written(drawn),
        )


def _on_frame(
    points: NDArray[np.float64], prediction: Prediction, frame: int | None
) -> tuple[int, NDArray[np.float64]]:
    """The frame nearest to the middle of some points, and their columns and rows on it.

    Columns and rows of an image are what the model said (from the centre of the first pixel); of a
    volume they are reckoned from patient coordinates.
    """
    subject = prediction.subject
    if not isinstance(subject, Volume):
        return frame or 0, points[:, :2] + _CENTRE
    to_index = np.linalg.inv(subject.affine)
    index = points @ to_index[:3, :3].T + to_index[:3, 3]
    middle = (index[:, 0].min() + index[:, 0].max()) / 2
    last = subject.array.shape[0] - 1
    return int(np.clip(round(float(middle)), 0, last)), index[:, [2, 1]] + _CENTRE


def _written(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Coordinates as SCOORD has them: 32 bits."""
    return points.astype(np.float32).astype(np.float64)
