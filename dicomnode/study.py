"""What was received, as values: instances, series, studies."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Self

Scalar = str | int | float
HeaderValue = Scalar | list[Scalar] | None

# What identifies an instance is known even where the data set leaves it blank: the receiver takes
# it from the request or the file meta information then.
_IDENTITY = {
    "SOPInstanceUID": "sop_instance_uid",
    "SOPClassUID": "sop_class_uid",
    "TransferSyntaxUID": "transfer_syntax_uid",
    "SeriesInstanceUID": "series_instance_uid",
    "StudyInstanceUID": "study_instance_uid",
}


@dataclass(frozen=True, kw_only=True)
class Instance:
    """One received SOP instance.

    Attributes:
        digest: SHA-256, in hex, of the stored file.
        path: Where the file lies, relative to the data folder.
        header: DICOM keyword → value, for the plain top-level elements. Several values are a list;
            an element that is present and empty is `None`.
    """

    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    series_instance_uid: str
    study_instance_uid: str
    digest: str
    path: str
    header: Mapping[str, HeaderValue] = field(repr=False)

    def has(self, keyword: str) -> bool:
        """Whether the element is there, be it empty."""
        return keyword in _IDENTITY or keyword in self.header

    def value(self, keyword: str) -> HeaderValue:
        """The value of an element; `None` where it is absent or empty."""
        attribute = _IDENTITY.get(keyword)
        if attribute is None:
            return self.header.get(keyword)
        identifier: str = getattr(self, attribute)
        return identifier

    @property
    def is_multi_frame(self) -> bool:
        """Whether Number of Frames (0028,0008) says more than one."""
        return str(self.value("NumberOfFrames") or "1").strip() not in {"0", "1"}


@dataclass(frozen=True, kw_only=True)
class Series:
    """The instances of one series, ordered by SOP Instance UID."""

    series_instance_uid: str
    instances: tuple[Instance, ...]


@dataclass(frozen=True, kw_only=True)
class Study:
    """One revision of a study: what had been received when it was complete.

    `series` is ordered by Series Instance UID. A late instance makes a new revision.
    """

    study_instance_uid: str
    revision: int
    series: tuple[Series, ...]

    @classmethod
    def from_instances(cls, instances: Iterable[Instance], *, revision: int) -> Self:
        """The study that `instances`, in any order and with repeats, make up.

        Raises:
            ValueError: There are none, they are of several studies, or two that differ in content
                or series have the same SOP Instance UID.
        """
        by_uid: dict[str, Instance] = {}
        for one in instances:
            same = by_uid.setdefault(one.sop_instance_uid, one)
            if (same.digest, same.series_instance_uid) != (one.digest, one.series_instance_uid):
                raise ValueError(f"two instances are named {one.sop_instance_uid}")
        studies = {one.study_instance_uid for one in by_uid.values()}
        if len(studies) != 1:
            raise ValueError(f"instances of {len(studies)} studies, not of one")
        return cls(study_instance_uid=studies.pop(), revision=revision, series=_grouped(by_uid))


def _grouped(by_uid: Mapping[str, Instance]) -> tuple[Series, ...]:
    groups: dict[str, list[Instance]] = defaultdict(list)
    for _, one in sorted(by_uid.items()):
        groups[one.series_instance_uid].append(one)
    return tuple(
        Series(series_instance_uid=uid, instances=tuple(group))
        for uid, group in sorted(groups.items())
    )
