"""The evidence that a study is complete, and until when it is waited for.

DICOM has no word for "that was all". A study whose associations all ended in order and whose every
series shows no gap is taken as complete after a short time; any other after a long one. What is
found here chooses between the two times and nothing else: a study is never refused for it.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median_low

from dicomnode.matcher import number
from dicomnode.study import Instance, Series, Study

# Slices nearer to each other than this lie at one position (mm).
_SAME_POSITION_MM = 0.01
# A step this much longer than the usual one has room for a slice that is missing.
_HOLE = 1.5
# Steps are known from three positions on: of two nobody can say whether one between is missing.
_POSITIONS_NEEDED = 3
# Direction cosines that are the same when rounded to this are of one stack.
_ORIENTATION_DECIMALS = 2
# Who begins anew after a connection that broke sends first what is there already. He is waited for,
# so many times as long as a silence, and no longer: some senders repeat without an end.
_AGAIN = 10

_Vector = tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What is known of how a study came. Times are seconds since the epoch.

    Attributes:
        last_received: When its last instance was stored, or when the node began to listen, should
            that be later: who was not heard was not silent.
        last_again: When an instance came last that was there before, where one did.
        last_ended: When the last association that brought an instance ended, where one did.
        ended_in_order: Whether each of them was released, none aborted or lost.
        open_associations: How many of them are not over.
        turned_away: How many instances the node refused on them.
    """

    last_received: float
    last_again: float | None = None
    last_ended: float | None = None
    ended_in_order: bool
    open_associations: int
    turned_away: int = 0


@dataclass(frozen=True, kw_only=True)
class Release:
    """When a study is taken as complete, and one sentence that says why then."""

    at: float
    because: str


def release_at(study: Study, evidence: Evidence, *, settle_s: float, quiet_s: float) -> Release:
    """When the study is taken as complete if nothing more comes.

    Args:
        study: What has come so far.
        evidence: How it came.
        settle_s: Seconds after the last instance or association, where all is in order.
        quiet_s: Seconds after the last instance, otherwise.
    """
    doubt = _doubt(study, evidence)
    if doubt is not None:
        at = _end_of_silence(evidence, quiet_s)
        silence_s = at - evidence.last_received
        return Release(at=at, because=f"No new instance came for {silence_s:g} s. {doubt}")
    last = max(evidence.last_received, evidence.last_ended or evidence.last_received)
    return Release(
        at=last + settle_s, because="Every association ended in order and no series shows a gap."
    )


def earliest_release(evidence: Evidence, *, settle_s: float, quiet_s: float) -> float:
    """The time before which `release_at` cannot be, whatever has come."""
    if _doubt_of_associations(evidence) is not None:
        return _end_of_silence(evidence, quiet_s)
    return evidence.last_received + min(settle_s, quiet_s)


def _end_of_silence(evidence: Evidence, quiet_s: float) -> float:
    again = evidence.last_again or evidence.last_received
    longest = evidence.last_received + _AGAIN * quiet_s
    return max(evidence.last_received, min(again, longest)) + quiet_s


def _doubt_of_associations(evidence: Evidence) -> str | None:
    if evidence.open_associations:
        return "An association that brought instances was still open."
    if not evidence.ended_in_order:
        return "An association that brought instances did not end in order."
    if evidence.turned_away:
        return "The node refused some of what the associations brought."
    return None


def _doubt(study: Study, evidence: Evidence) -> str | None:
    doubt = _doubt_of_associations(evidence)
    if doubt is not None:
        return doubt
    for series in study.series:
        gap = gaps(series)
        if gap is not None:
            return f"Series {series.series_instance_uid}: {gap}"
    return None


def gaps(series: Series) -> str | None:
    """What of a series seems to be missing, as one sentence; `None` for nothing.

    Three witnesses are heard: Images in Acquisition (0020,1002), the Instance Numbers, and the
    slice positions. Any of them can say that something is missing; that nothing is takes the word
    of the numbers or of the positions. One instance alone is whole.
    """
    if len(series.instances) <= 1:
        return None
    numbers, stacks = _numbers(series), _stacks(series)
    missing = _too_few(series) or _jump(numbers) or _hole(stacks)
    if missing is not None:
        return missing
    if len(set(numbers)) > 1 or _shows_steps(stacks):
        return None
    return "Neither instance numbers nor slice positions tell whether something is missing."


def _too_few(series: Series) -> str | None:
    """Whether fewer came than the headers of a single acquisition announce.

    Scanners differ in what they count there: several acquisitions, several frames or several
    answers make it no witness.
    """
    instances = series.instances
    acquisitions = {repr(one.value("AcquisitionNumber")) for one in instances}
    announced = {_number(one, "ImagesInAcquisition") for one in instances}
    (count,) = announced if len(announced) == 1 else (None,)
    if len(acquisitions) > 1 or any(one.is_multi_frame for one in instances):
        return None
    if count is None or count <= len(instances):
        return None
    return f"{len(instances)} of {count:g} announced images have come."


def _numbers(series: Series) -> list[int]:
    """The Instance Numbers (0020,0013) in order; none at all if one is not a whole number."""
    found = [_number(one, "InstanceNumber") for one in series.instances]
    whole = [int(n) for n in found if n is not None and n == int(n)]
    return sorted(whole) if len(whole) == len(found) else []


def _jump(numbers: Sequence[int]) -> str | None:
    """What is missing in numbers that should run on from 0 or 1, each as often as the others."""
    if not numbers:
        return None
    if numbers[0] > 1:
        return f"The instance numbers begin with {numbers[0]}."
    for before, after in pairwise(numbers):
        if after - before > 1:
            return f"The instance numbers jump from {before} to {after}."
    if not _even(Counter(numbers)):
        return "Some instance numbers occur more often than others."
    return None


def _stacks(series: Series) -> list[Counter[float]]:
    """For each orientation, its positions along the normal (mm) and how many images lie at each.

    None at all if one instance has no usable Image Position and Image Orientation (Patient)
    (PS3.3 C.7.6.2.1.1).
    """
    stacks: dict[_Vector, list[_Vector]] = defaultdict(list)
    for one in series.instances:
        position = _vector(one, "ImagePositionPatient", length=3)
        orientation = _vector(one, "ImageOrientationPatient", length=6)
        if position is None or orientation is None:
            return []
        # Adding zero makes -0.0 the same orientation as 0.0.
        stacks[tuple(round(c, _ORIENTATION_DECIMALS) + 0.0 for c in orientation)].append(position)
    return [_along_normal(orientation, positions) for orientation, positions in stacks.items()]


def _along_normal(orientation: _Vector, positions: Sequence[_Vector]) -> Counter[float]:
    rx, ry, rz, cx, cy, cz = orientation
    nx, ny, nz = ry * cz - rz * cy, rz * cx - rx * cz, rx * cy - ry * cx
    places: Counter[float] = Counter()
    last = -math.inf
    for place in sorted(nx * x + ny * y + nz * z for x, y, z in positions):
        if place - last > _SAME_POSITION_MM:
            last = place
        places[last] += 1
    return places


def _hole(stacks: Sequence[Counter[float]]) -> str | None:
    for places in stacks:
        steps = [after - before for before, after in pairwise(places)]
        if steps and max(steps) >= _HOLE * (usual := median_low(steps)):
            return f"Slices lie {usual:.4g} mm apart, but once {max(steps):.4g} mm."
        if not _even(places):
            return "There are more images at some slice positions than at others."
    return None


def _shows_steps(stacks: Sequence[Counter[float]]) -> bool:
    return bool(stacks) and all(len(places) >= _POSITIONS_NEEDED for places in stacks)


def _even(counts: Counter[int] | Counter[float]) -> bool:
    return len(set(counts.values())) == 1


def _number(instance: Instance, keyword: str) -> float | None:
    value = instance.value(keyword)
    return None if value is None or isinstance(value, list) else number(value)


def _vector(instance: Instance, keyword: str, *, length: int) -> _Vector | None:
    value = instance.value(keyword)
    if not isinstance(value, list) or len(value) != length:
        return None
    numbers = [number(one) for one in value]
    vector = tuple(n for n in numbers if n is not None)
    return vector if len(vector) == length else None
