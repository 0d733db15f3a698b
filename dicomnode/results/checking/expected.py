"""What the checks of all objects share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread

from dicomnode.bundle import Bundle, Code
from dicomnode.errors import ResultMismatch, RetryLater
from dicomnode.prediction import Prediction, Shown
from dicomnode.profile import Profile
from dicomnode.results import layers, plan, said
from dicomnode.results.part import Part
from dicomnode.volume import SliceSource


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What results are compared with."""

    prediction: Prediction
    bundle: Bundle
    key: str
    profiles: tuple[Profile, ...]

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """The objects that there must be, in order."""
        return plan.of(self.prediction, self.bundle, self.profiles)

    @cached_property
    def headers(self) -> dict[str, Dataset]:
        """SOP Instance UID → header of each source of the grid, read again from its file."""
        return _read_again(self.prediction.subject)

    @cached_property
    def all_headers(self) -> dict[str, Dataset]:
        """The same for everything that the model was shown."""
        others = (_read_again(shown) for shown in self.prediction.also_shown)
        return self.headers | {uid: header for one in others for uid, header in one.items()}

    @cached_property
    def volumes_ml(self) -> dict[str, dict[int, float]]:
        """Of each output with segments of a volume: segment number → millilitres, as was said."""
        found: dict[str, dict[int, float]] = {}
        for output in dict.fromkeys(one.output for one in said.segmented(self.prediction)):
            segments = layers.of(self.prediction, self.bundle, output)
            voxel_ml = self.prediction.volume.voxel_mm3 / 1000
            found[output] = {
                item.number: segments.count(item) * voxel_ml for item in segments.items
            }
        return found

    def position(self, source: SliceSource) -> NDArray[np.float64]:
        """Image Position (Patient) of a frame, as its file has it now."""
        at = self._group(source, "PlanePositionSequence")
        return np.array(at.ImagePositionPatient, dtype=np.float64)

    def across(self, source: SliceSource) -> NDArray[np.float64]:
        """The step in mm to the next row and to the next column of a frame, as its file has it."""
        orientation = self._group(source, "PlaneOrientationSequence").ImageOrientationPatient
        between = self._group(source, "PixelMeasuresSequence").PixelSpacing
        cosines = np.array(orientation, dtype=np.float64)
        return np.stack([cosines[3:] * float(between[0]), cosines[:3] * float(between[1])])

    def pixel_mm2(self, source: SliceSource) -> float | None:
        """The area of a pixel of a frame, as its file has it; `None` where it does not say."""
        placed = source.position is not None
        header = self.headers[source.sop_instance_uid]
        measures = self._group(source, "PixelMeasuresSequence") if placed else header
        between = measures.get("PixelSpacing") or header.get("ImagerPixelSpacing")
        area = float(np.prod(between, dtype=np.float64)) if between else 0.0
        return area if area > 0 else None

    def _group(self, source: SliceSource, keyword: str) -> Dataset:
        """A functional group of a frame; of an image that has none, the image."""
        header = self.headers[source.sop_instance_uid]
        if "PerFrameFunctionalGroupsSequence" not in header:
            return header
        own = header.PerFrameFunctionalGroupsSequence[source.frame_number - 1]
        for groups in (own, header.SharedFunctionalGroupsSequence[0]):
            if keyword in groups:
                item: Dataset = groups[keyword].value[0]
                return item
        raise KeyError(keyword)


@dataclass(frozen=True, kw_only=True)
class Read:
    """An object that was read again, and found right.

    Attributes:
        volumes_ml: Of a SEG of a volume: segment number → millilitres, by its own bits; 0 where no
            voxel is set.
        frames: Of a SEG, for each of its frames: the segment number, and on which frame of the
            source it lies, as `places.check` counts them; 0 of a label map, which has all segments.
    """

    part: Part
    sop_instance_uid: str
    volumes_ml: dict[int, float] = field(default_factory=dict)
    frames: tuple[tuple[int, int], ...] = ()


def _read_again(shown: Shown) -> dict[str, Dataset]:
    paths = {source.sop_instance_uid: source.path for source in shown.sources}
    headers: dict[str, Dataset] = {}
    for uid, path in paths.items():
        try:
            headers[uid] = dcmread(path, stop_before_pixels=True)
        except OSError as error:
            reason = f"A source could not be read again: {error.strerror}."
            raise RetryLater("file-unavailable", reason) from error
        require(headers[uid].SOPInstanceUID == uid, "source-differs", "A source has changed.")
    return headers


def require(holds: bool, reason: str, detail: str) -> None:  # noqa: FBT001 - reads as a sentence
    """Raise `ResultMismatch` unless what should hold does."""
    if not holds:
        raise ResultMismatch(reason, detail)


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal, where an absent one is as good as an empty one."""
    return bool(_bare(one or None) == _bare(other or None))


def _bare(value: Any) -> Any:
    """A value without group lengths (PS3.5 7.2), which some files have and no new one may."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        return value
    return [
        [(each.tag, _bare(each.value)) for each in one if each.tag.element]
        if isinstance(one, Dataset)
        else one
        for one in value
    ]


def has_code(items: Sequence[Dataset] | None, code: Code | None) -> bool:
    """Whether a code sequence has one item, `code`; with `None`, whether it has none."""
    if code is None:
        return not items
    return items is not None and [_code(item) for item in items] == [(code.value, code.scheme)]


def _code(item: Dataset) -> tuple[str, str]:
    return str(item.get("CodeValue", "")), str(item.get("CodingSchemeDesignator", ""))
