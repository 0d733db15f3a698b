"""What a day consists of, as values: studies, and the associations that bring them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from dicomnode import uid
from dicomnode.simulation.hospital import Kind, Profile
from dicomnode.simulation.people import Person


class Fault(StrEnum):
    """How a study, or an association, is not as it should be. `hospital.Faults` says how often."""

    SLOW = "slow"
    ABORTS = "aborts"
    CUTS = "cuts"
    TWICE = "twice"
    LATE = "late"
    WRONG_PATIENT = "wrong-patient"
    MISSING_SLICES = "missing-slices"
    DUPLICATE_UID = "duplicate-uid"
    UNKNOWN_CLASS = "unknown-class"
    UNKNOWN_SYNTAX = "unknown-syntax"
    WRONG_CALLED = "wrong-called"
    ECHO = "echo"
    CROWD = "crowd"


class Arrival(StrEnum):
    """What of a study a node has in the end, if it does as it should."""

    WHOLE = "whole"
    """Everything that belongs to it, and nothing else."""
    GAP = "with a gap"
    """All but one object from the middle."""
    HALF = "half"
    """The first half of its objects."""
    MIXED = "mixed"
    """Everything, and one of the objects names another patient."""
    NOTHING = "nothing"


class Content(StrEnum):
    """What an object is."""

    LOCALIZER = "localizer"
    SLICE = "slice"
    FRAMES = "frames"
    RADIOGRAPH = "radiograph"
    VIEW = "view"
    STILL = "still"
    CINE = "cine"
    REPORT = "report"


class Edit(StrEnum):
    """How an object differs from what it should be."""

    NONE = ""
    OTHER_PATIENT = "other-patient"
    OTHER_CONTENT = "other-content"
    UNKNOWN_CLASS = "unknown-class"
    UNKNOWN_SYNTAX = "unknown-syntax"


class Ending(StrEnum):
    """How an association ends."""

    RELEASED = "released"
    ABORTED = "aborted"
    CUT = "cut"


@dataclass(frozen=True, kw_only=True)
class Series:
    """One series.

    Attributes:
        count: How many objects it has.
        frames: How many frames each of them has; 1 where it is no multi-frame object.
        matrix: Rows and columns of its images; 0 for a document.
    """

    number: int
    modality: str
    content: Content
    description: str
    count: int
    frames: int = 1
    matrix: int


@dataclass(frozen=True, kw_only=True)
class Study:
    """One study.

    Attributes:
        key: What its UIDs are derived from.
        makes: What kind of station has made it, whoever sends it.
        begins_s: When, in seconds from midnight of `date`.
        date: Study Date, DA.
        fault: How it comes badly; `None` where it comes well.
        arrival: What of it a node should have in the end.
        template: The place of what it is made like, where it is made like something.
    """

    number: int
    key: str
    makes: Kind
    person: Person
    accession_number: str
    description: str
    date: str
    begins_s: float
    series: tuple[Series, ...]
    fault: Fault | None = None
    arrival: Arrival = Arrival.WHOLE
    template: int = 0

    @property
    def study_instance_uid(self) -> str:
        """Study Instance UID (0020,000D)."""
        return uid.derived(self.key, str(self.number))

    def series_instance_uid(self, series: Series) -> str:
        """Series Instance UID (0020,000E)."""
        return uid.derived(self.key, str(self.number), str(series.number))

    @property
    def items(self) -> tuple[Item, ...]:
        """Each of its objects, in the order in which they are made."""
        return tuple(
            Item(study=self.number, series=series.number, number=number)
            for series in self.series
            for number in range(1, series.count + 1)
        )


@dataclass(frozen=True, kw_only=True)
class Item:
    """One object.

    Attributes:
        study: The number of its study.
        series: The number of its series.
        number: Its own number in the series, from 1.
    """

    study: int
    series: int
    number: int
    edit: Edit = Edit.NONE


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """One association: who opens it when, what it brings, and how it ends.

    Attributes:
        station: The index of who opens it in the profile.
        at_s: Seconds from midnight.
        fault: Why it is not as it should be, where it is not.
        bytes_per_s: How fast its sender is; `None` for as fast as it can be.
        is_called_wrong: Whether it calls another AE title than the node's.
        copies: How many of its kind are opened at once.
    """

    station: int
    at_s: float
    items: tuple[Item, ...] = ()
    fault: Fault | None = None
    ending: Ending = Ending.RELEASED
    bytes_per_s: int | None = None
    is_called_wrong: bool = False
    copies: int = 1


@dataclass(frozen=True, kw_only=True)
class Day:
    """The plan of a day.

    Attributes:
        studies: Number → study.
        transfers: In the order in which they begin.
    """

    profile: Profile
    studies: Mapping[int, Study] = field(repr=False)
    transfers: tuple[Transfer, ...] = field(repr=False)
