"""Frames → their order and the affine, or the reason why they make no regular volume."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dicomnode.errors import UnsuitableSeries
from dicomnode.volume.frames import Frame

# How far real scanners stray from what they mean: they write about six digits.
ORIENTATION_TOLERANCE = 1e-4  # of each direction cosine between two slices
PIXEL_SPACING_TOLERANCE = 1e-4  # relative, between two slices
POSITION_TOLERANCE = 0.02  # of the slice spacing: where a slice is, and where it should be
TILT_TOLERANCE = 0.00175  # sine of the angle between the slice step and the normal: 0.1 degrees

_DUPLICATE = 0.01  # of the pixel spacing: slices closer than this lie in one place
_AT_MOST_NAMED = 3  # gaps, in one sentence


def normal_of(orientation: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    """Row direction cross column direction of an Image Orientation (Patient)."""
    return np.cross(orientation[:3], orientation[3:])


def along_normal(frames: list[Frame]) -> list[Frame]:
    """Order the frames along the normal, after making sure that they share one.

    Raises:
        UnsuitableSeries: `mixed-orientation` or `mixed-pixel-spacing`.
    """
    first = frames[0]
    for frame in frames:
        if np.abs(frame.orientation - first.orientation).max() > ORIENTATION_TOLERANCE:
            raise UnsuitableSeries("mixed-orientation", "The images do not lie in parallel planes.")
        ratio = frame.pixel_spacing / first.pixel_spacing
        if np.abs(ratio - 1).max() > PIXEL_SPACING_TOLERANCE:
            raise UnsuitableSeries("mixed-pixel-spacing", "The images differ in PixelSpacing.")
    normal = normal_of(first.orientation)
    return sorted(frames, key=lambda frame: float(frame.position @ normal))


def affine_of(frames: Sequence[Frame], *, irregular: bool, tilted: bool) -> NDArray[np.float64]:
    """Map (slice, row, column, 1) of the ordered frames to patient coordinates.

    Args:
        frames: In the order of `along_normal`.
        irregular: Whether uneven slice distances are tolerated; then the slice step is the mean.
            Missing slices never are, nor slices that stray from the line on which the others lie.
        tilted: Whether slices that are shifted sideways are tolerated; the affine is exact.

    Raises:
        UnsuitableSeries: `single-slice`, `duplicate-position`, `missing-slices`,
            `irregular-spacing` or `gantry-tilt`.
    """
    if len(frames) == 1:
        raise UnsuitableSeries("single-slice", "One slice makes no volume.")
    first = frames[0]
    positions = np.array([frame.position for frame in frames])
    normal = normal_of(first.orientation)
    heights = positions @ normal
    _check_steps(heights, pixel=float(first.pixel_spacing.min()), irregular=irregular)
    step = (positions[-1] - positions[0]) / (len(frames) - 1)
    even = np.arange(len(frames), dtype=np.float64)
    uneven = (heights - heights[0]) / (heights[-1] - heights[0]) * even[-1]
    _check_in_line(positions, step, uneven if irregular else even)
    if not tilted:
        _check_upright(step, normal)
    affine = np.eye(4)
    affine[:3, 0] = step
    affine[:3, 1] = first.orientation[3:] * first.pixel_spacing[0]
    affine[:3, 2] = first.orientation[:3] * first.pixel_spacing[1]
    affine[:3, 3] = positions[0]
    return affine


def plane_of(frame: Frame) -> NDArray[np.float64]:
    """Map (0, row, column, 1) of one frame to patient coordinates; the slice step is 1 mm."""
    affine = np.eye(4)
    affine[:3, 0] = normal_of(frame.orientation)
    affine[:3, 1] = frame.orientation[3:] * frame.pixel_spacing[0]
    affine[:3, 2] = frame.orientation[:3] * frame.pixel_spacing[1]
    affine[:3, 3] = frame.position
    return affine


def _check_in_line(
    positions: NDArray[np.float64], step: NDArray[np.float64], steps: NDArray[np.float64]
) -> None:
    """Look whether each slice lies so many steps from the first as it should."""
    meant = positions[0] + np.outer(steps, step)
    stray = float(np.linalg.norm(positions - meant, axis=1).max())
    if stray > POSITION_TOLERANCE * float(np.linalg.norm(step)):
        raise UnsuitableSeries(
            "irregular-spacing",
            f"A slice lies {stray:.3g} mm from its place between the first and the last one.",
        )


def _check_upright(step: NDArray[np.float64], normal: NDArray[np.float64]) -> None:
    sine = float(np.linalg.norm(np.cross(step, normal)) / np.linalg.norm(step))
    if sine > TILT_TOLERANCE:
        raise UnsuitableSeries(
            "gantry-tilt",
            f"The slices are shifted sideways: {math.degrees(math.asin(min(sine, 1.0))):.2f}"
            " degrees between the stack and the normal of its slices.",
        )


def _check_steps(heights: NDArray[np.float64], *, pixel: float, irregular: bool) -> None:
    """Look at the distances between neighbours; `heights` are mm along the normal, ascending."""
    steps = np.diff(heights)
    duplicates = np.flatnonzero(steps < _DUPLICATE * pixel)
    if duplicates.size:
        raise UnsuitableSeries(
            "duplicate-position",
            f"{duplicates.size} times two slices lie in one place, first at"
            f" {heights[duplicates[0]]:.3f} mm along the normal.",
        )
    usual = np.sort(steps)[(steps.size - 1) // 2]  # of an even number the lower: a gap is longer
    multiples = np.round(steps / usual)
    is_even = np.abs(steps / usual - multiples) <= POSITION_TOLERANCE * multiples
    gaps = np.flatnonzero((multiples > 1) & is_even)
    if gaps.size and (irregular or is_even.all()):
        raise UnsuitableSeries("missing-slices", _gaps(heights, gaps, multiples))
    if not irregular and not is_even.all():
        raise UnsuitableSeries(
            "irregular-spacing",
            f"The distances between slices range from {steps.min():.4g} to {steps.max():.4g} mm.",
        )


def _gaps(
    heights: NDArray[np.float64], gaps: NDArray[np.intp], multiples: NDArray[np.float64]
) -> str:
    places = [
        f"{multiples[gap] - 1:.0f} between {heights[gap]:.2f} and {heights[gap + 1]:.2f} mm"
        for gap in gaps[:_AT_MOST_NAMED]
    ]
    more = f" and in {gaps.size - len(places)} more places" if gaps.size > len(places) else ""
    missing = int((multiples[gaps] - 1).sum())
    said = "1 slice is" if missing == 1 else f"{missing} slices are"
    return f"{said} missing along the normal: {', '.join(places)}{more}."
