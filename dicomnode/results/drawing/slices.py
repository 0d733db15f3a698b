"""A picture of the answer about a volume: key slices with all that was found, and what is told.

For people, never for measuring: it shows nothing of the patient's identity, and says what it is.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor

from dicomnode.bundle import BoxesOutput, Bundle, ImageOutput, PointsOutput
from dicomnode.prediction import (
    Boxes,
    DerivedImage,
    HeatMap,
    LabelMap,
    Masks,
    Points,
    Prediction,
    ProbabilityMap,
)
from dicomnode.results import layers
from dicomnode.results.drawing import canvas, gray, legend, panels, telling
from dicomnode.results.drawing.canvas import COLUMNS, MARGIN, PANELS, TEXT, WIDTH, Color
from dicomnode.results.drawing.gray import Window
from dicomnode.results.drawing.marks import Mark
from dicomnode.results.drawing.panels import Plane
from dicomnode.results.layers import Layers, Numbered
from dicomnode.volume import Volume

_HALF = 0.5  # from which probability on a voxel is outlined
_MARKED = 24  # boxes at most, the highest scores
_CROP_SHARE = 0.45  # the field of view is cropped where what was found takes less of it than this
_CROP_LEAST = 0.4  # of the whole; less would not show where in the patient it is
_CROP_LEAST_MM = 90.0
_TALLEST = 1.6  # height of a panel to its width, at most
_NEW = 0.25  # what a further slice must show: this much of a thing that is not seen as large yet

_Box = tuple[slice, slice]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Found:
    """One thing that was found.

    Attributes:
        areas: How much of it is on each slice.
        at: Gives it on one slice that it is on.
        extent: The rows and columns that it takes, on all slices.
    """

    areas: NDArray[np.int64]
    at: Callable[[int], Mark]
    extent: Callable[[], _Box]


def overlay(prediction: Prediction, *, bundle: Bundle) -> Image.Image:
    """Draw key slices with the outlines of all that was found, a legend, and the notice."""
    volume = prediction.volume
    segments = _segments(prediction, bundle)
    found = [*_outlined(segments), *_marked(prediction, bundle)]
    heat = next((one.array for one in prediction.answers if isinstance(one, HeatMap)), None)
    made = next((one for one in prediction.answers if isinstance(one, DerivedImage)), None)
    count = PANELS if made is None else COLUMNS
    indices = key_slices(_areas(found, heat, volume), most=count)
    window = gray.window(volume, bundle)
    box = _field_of_view(found, volume)
    columns = 2 if len(indices) == 4 else min(COLUMNS, len(indices))  # noqa: PLR2004 - two by two
    view = _View(
        volume=volume, window=window, box=box, size=_panel_size(volume, box, columns), heat=heat
    )
    shown = [view.panel(index, found) for index in indices]
    if made is not None:
        shown += [view.of_made(made, bundle).panel(index, ()) for index in indices]
    told = telling.chapters(
        prediction, bundle, {name: {None: one} for name, one in segments.items()}
    )
    return canvas.stacked(
        [
            canvas.header(bundle, _described(volume, window)),
            canvas.grid(shown, columns),
            legend.drawn(told),
            canvas.footer(bundle.manifest.notice),
        ]
    )


def _segments(prediction: Prediction, bundle: Bundle) -> dict[str, Layers]:
    """The segments of each output; of probabilities, where they reach one half."""
    found: dict[str, Layers] = {}
    for answer in prediction.answers:
        if isinstance(answer, LabelMap | Masks):
            found[answer.output] = layers.of(prediction, bundle, answer.output)
        elif isinstance(answer, ProbabilityMap):
            items = layers.numbered(bundle, answer.output)
            found[answer.output] = Layers(items=items, array=answer.array >= _HALF)
    return found


def _outlined(segments: Mapping[str, Layers]) -> Iterator[_Found]:
    for of_output in segments.values():
        extent = functools.cache(functools.partial(_extent, of_output))
        for item in of_output.items:
            if of_output.count(item):
                yield _Found(
                    areas=of_output.counts[item.number - 1],
                    at=functools.partial(_outline, of_output, item),
                    extent=extent,
                )


def _outline(segments: Layers, item: Numbered, index: int) -> Mark:
    color = ImageColor.getrgb(item.segment.color)
    return Mark(color=color, mask=segments.plane(item, index).astype(np.bool_, copy=False))


def _extent(segments: Layers) -> _Box:
    """The rows and columns of all segments of an output, on all slices."""
    seen: NDArray[np.bool_] = np.zeros(segments.array.shape[-2:], dtype=np.bool_)
    for frame in range(segments.frames):
        plane = segments.array[..., frame, :, :] != 0
        seen |= plane if segments.is_label_map else plane.any(axis=0)
    rows, columns = (np.flatnonzero(seen.any(axis=axis)) for axis in (1, 0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _marked(prediction: Prediction, bundle: Bundle) -> Iterator[_Found]:
    """Boxes and points."""
    volume = prediction.volume
    for answer in prediction.answers:
        output = bundle.manifest.outputs[answer.output]
        if isinstance(answer, Boxes) and isinstance(output, BoxesOutput):
            colors = {one.label: one.color for one in output.findings}
            for box in reversed(answer.boxes[:_MARKED]):  # the highest score on top
                color = ImageColor.getrgb(colors[box.label])
                yield _place(volume, box.low, box.high, color=color, label=f"{box.score:.0%}")
        elif isinstance(answer, Points) and isinstance(output, PointsOutput):
            numbers = {one.label: n for n, one in enumerate(output.landmarks, start=1)}
            for point in answer.points:
                number = numbers[point.label]
                color = ImageColor.getrgb(output.landmarks[number - 1].color)
                yield _place(volume, point.at, point.at, color=color, label=str(number))


def _place(
    volume: Volume, low: Sequence[float], high: Sequence[float], *, color: Color, label: str
) -> _Found:
    """A box or a point in the patient (LPS, mm), on the slices that it reaches."""
    corners = np.array(list(product(*zip(low, high, strict=True))))
    to_index = np.linalg.inv(volume.affine)
    placed = corners @ to_index[:3, :3].T + to_index[:3, 3]
    count, rows, columns = volume.array.shape
    first, last = (
        int(np.clip(round(float(edge)), 0, count - 1))
        for edge in (placed[:, 0].min(), placed[:, 0].max())
    )
    top, left = np.clip(placed[:, 1:].min(axis=0) + 0.5, 0, (rows, columns))
    bottom, right = np.clip(placed[:, 1:].max(axis=0) + 0.5, 0, (rows, columns))
    areas = np.zeros(count, dtype=np.int64)
    areas[first : last + 1] = max(1, round((bottom - top) * (right - left)))
    # The middle slice comes first, of slices that show as much.
    areas[(first + last) // 2] += 1
    if tuple(low) == tuple(high):
        mark = Mark(color=color, point=(float(left), float(top)), label=label)
    else:
        rectangle = (float(left), float(top), float(right), float(bottom))
        mark = Mark(color=color, box=rectangle, label=label)
    extent = (
        slice(int(top), max(int(top) + 1, int(np.ceil(bottom)))),
        slice(int(left), max(int(left) + 1, int(np.ceil(right)))),
    )
    return _Found(areas=areas, at=lambda _: mark, extent=lambda: extent)


def _areas(
    found: Sequence[_Found], heat: NDArray[np.float32] | None, volume: Volume
) -> NDArray[np.float64]:
    """How much is on each slice: of each thing that was found; else of heat; else as much on all.

    Shape (things, slices).
    """
    if found:
        return np.array([one.areas for one in found], dtype=np.float64)
    if heat is not None and heat.max() > 0:
        hottest: NDArray[np.float64] = heat.max(axis=(1, 2)).astype(np.float64)[None]
        return hottest
    return np.ones((1, volume.array.shape[0]))


def key_slices(areas: NDArray[np.float64], *, most: int) -> list[int]:
    """The slices that show most things near their largest, then some spread over all of them.

    Args:
        areas: Shape (things, slices).
        most: How many slices.
    """
    shares = areas / areas.max(axis=1, keepdims=True)
    seen = np.zeros(len(shares))
    chosen: list[int] = []
    while len(chosen) < most and np.ptp(shares):  # where all show as much, none comes first
        gains = np.maximum(shares - seen[:, None], 0).sum(axis=0)
        best = int(np.argmax(gains))
        if gains[best] < _NEW:
            break
        chosen.append(best)
        seen = np.maximum(seen, shares[:, best])
    total = shares.sum(axis=0)
    passed = np.cumsum(total) / total.sum()
    spread = {int(np.searchsorted(passed, (n + 0.5) / most)) for n in range(most)}
    for candidates in (spread, set(np.flatnonzero(total).tolist())):
        while len(chosen) < most and (left := sorted(candidates.difference(chosen))):
            chosen.append(max(left, key=lambda each: _distance(each, chosen)))
    # What is on one slice or two is shown with its neighbours.
    near = sorted(range(len(total)), key=lambda each: (_distance(each, chosen), each))
    return sorted(near[: max(len(chosen), COLUMNS)])


def _distance(candidate: int, chosen: Sequence[int]) -> int:
    """How many slices lie between a candidate and what is shown already."""
    return min((abs(candidate - each) for each in chosen), default=0)


def _field_of_view(found: Sequence[_Found], volume: Volume) -> _Box:
    """Rows and columns to show: all, or around what was found where that is small."""
    _, rows, columns = volume.array.shape
    extents = [one.extent() for one in found]
    if not extents:
        return slice(0, rows), slice(0, columns)
    box = [
        _around(
            min(one[axis].start for one in extents),
            max(one[axis].stop for one in extents),
            length,
            spacing,
        )
        for axis, (length, spacing) in enumerate(
            zip((rows, columns), volume.spacing[1:], strict=True)
        )
    ]
    return box[0], box[1]


def _around(start: int, stop: int, length: int, spacing: float) -> slice:
    least = max(_CROP_LEAST_MM / spacing, _CROP_LEAST * length)
    shown = round(max((stop - start) / _CROP_SHARE, least))
    if shown >= length:
        return slice(0, length)
    begin = min(max(0, (start + stop - shown) // 2), length - shown)
    return slice(begin, begin + shown)


def _panel_size(volume: Volume, box: _Box, columns: int) -> tuple[int, int]:
    """Pixels of a panel, as near to the shape of the slices in mm as fits."""
    width = canvas.panel_width(columns)
    height_mm = (box[0].stop - box[0].start) * volume.spacing[1]
    width_mm = (box[1].stop - box[1].start) * volume.spacing[2]
    tallest = _TALLEST * (WIDTH - 2 * MARGIN) / COLUMNS
    return width, round(min(width * height_mm / width_mm, tallest))


@dataclass(frozen=True, kw_only=True, eq=False)
class _View:
    """How each slice is shown.

    Attributes:
        box: Rows and columns of the field of view.
        size: Pixels of a panel.
        heat: On the volume's grid.
        label: What is shown instead of the source; "" for the source.
    """

    volume: Volume
    window: Window
    box: _Box
    size: tuple[int, int]
    heat: NDArray[np.float32] | None = None
    label: str = ""

    def of_made(self, made: DerivedImage, bundle: Bundle) -> _View:
        """The same of an image that was made of the source."""
        output = bundle.manifest.outputs[made.output]
        described = output.description if isinstance(output, ImageOutput) else made.output
        return replace(
            self,
            volume=replace(self.volume, array=made.array),
            window=gray.of_values(made.array),
            heat=None,
            label=canvas.fitted(described, self.size[0] / 2 - 2 * TEXT),
        )

    def panel(self, index: int, found: Sequence[_Found]) -> Image.Image:
        """One slice with all that is on it, in the middle of a panel."""
        # Smaller things lie on larger ones.
        here = sorted((one for one in found if one.areas[index]), key=lambda one: -one.areas[index])
        count = self.volume.array.shape[0]
        _, height_mm, width_mm = self.volume.spacing
        plane = Plane(
            shown=self.window.gray(self.volume.array[index][self.box]),
            aspect=height_mm / width_mm,
            pixel_mm=width_mm,
            directions=panels.of_affine(self.volume.affine),
            label=self.label or f"{index + 1} / {count}",
            heat=None if self.heat is None else self.heat[index][self.box],
            is_inverse=self.window.is_inverse,
        )
        marks = [_cropped(one.at(index), self.box) for one in here]
        return panels.draw(plane, marks, size=self.size)


def _cropped(mark: Mark, box: _Box) -> Mark:
    """A mark on a part of the plane."""
    top, left = box[0].start, box[1].start
    if mark.mask is not None:
        return replace(mark, mask=mark.mask[box])
    if mark.box is not None:
        x0, y0, x1, y1 = mark.box
        return replace(mark, box=(x0 - left, y0 - top, x1 - left, y1 - top))
    x, y = mark.point or (0.0, 0.0)
    return replace(mark, point=(x - left, y - top))


def _described(volume: Volume, window: Window) -> str:
    spacing = " x ".join(f"{mm:.3g}" for mm in volume.spacing)
    parts = [volume.modality, volume.plane, f"{volume.array.shape[0]} slices", f"{spacing} mm"]
    return ", ".join([*parts, *filter(None, [window.described])])
