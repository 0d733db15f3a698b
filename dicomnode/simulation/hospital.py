"""Who sends, how much, at which hours, and how badly: the profile of a simulated hospital."""

from __future__ import annotations

import hashlib
import tomllib
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from dicomnode.config.table import Table
from dicomnode.config.values import AETitle
from dicomnode.errors import Misconfigured

Rate = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(gt=0)]


class Kind(StrEnum):
    """What a station makes, and how it comes."""

    CT = "ct"
    """A localizer, a volume, and a dose report; an association for each series."""
    ENHANCED_CT = "enhanced-ct"
    """The same volume as one multi-frame object."""
    MR = "mr"
    """A localizer and two volumes; an association for each series."""
    ENHANCED_MR = "enhanced-mr"
    """A volume as one multi-frame object."""
    CR = "cr"
    """Two radiographs."""
    MG = "mg"
    """Four views of a mammography."""
    US = "us"
    """Stills and a cine; an association for each object, while the study goes on."""
    ARCHIVE = "archive"
    """A PACS that pushes prior studies of the day's patients, several on each association."""


class Hours(StrEnum):
    """When studies begin."""

    OFFICE = "office"
    """From seven to six, most of them before noon."""
    EMERGENCY = "emergency"
    """Around the clock, with a wave in the evening."""
    EARLY = "early"
    """In bulk, before the day begins."""


#: For each hour from midnight, how many studies begin, relative to the other hours.
CURVES: dict[Hours, tuple[float, ...]] = {
    Hours.OFFICE: (0,) * 7 + (3, 8, 10, 10, 8, 5, 6, 7, 6, 4, 2) + (0,) * 6,
    Hours.EMERGENCY: (
        *(3, 3, 2, 2, 2, 2, 3, 4, 6, 8, 8, 8),
        *(8, 8, 8, 8, 9, 10, 10, 9, 8, 7, 5, 4),
    ),
    Hours.EARLY: (0,) * 4 + (6, 10, 4) + (0,) * 17,
}


class Station(Table):
    """One sender: a modality, or a PACS."""

    ae_title: AETitle
    """What it calls itself."""

    makes: Kind
    """What it sends."""

    share: Share = 1.0
    """Its part of the studies of a day, relative to the other stations."""

    hours: Hours = Hours.OFFICE
    """When its studies begin."""

    parallel: Annotated[int, Field(ge=1, le=64)] = 1
    """How many associations it opens at once."""


class Faults(Table):
    """How many of a day's studies come badly, and how: parts of 1."""

    slow: Rate = 0.01
    """It trickles in at `slow_bytes_per_s`."""

    aborts: Rate = 0.01
    """Half of it comes, then an A-ABORT, and nothing more."""

    cuts: Rate = 0.01
    """The connection ends in the middle of an object; everything comes again a minute later."""

    twice: Rate = 0.02
    """Everything comes a second time."""

    late: Rate = 0.01
    """Its last quarter comes twenty minutes after the rest."""

    wrong_patient: Rate = 0.01
    """One object names another patient."""

    missing_slices: Rate = 0.01
    """One slice in the middle never comes."""

    duplicate_uid: Rate = 0.01
    """A further object has the SOP Instance UID of another, and other content."""

    unknown_class: Rate = 0.01
    """A further object is of a SOP class that nobody knows."""

    unknown_syntax: Rate = 0.01
    """A further object is in a transfer syntax that nobody knows."""

    wrong_called: Rate = 0.01
    """Its sender calls an AE title that is not the node's."""


class Profile(Table):
    """A hospital."""

    stations: Annotated[tuple[Station, ...], Field(min_length=1)]
    """Who sends."""

    faults: Faults = Faults()
    """How badly."""

    slow_bytes_per_s: Annotated[int, Field(ge=1)] = 4000
    """How fast a slow sender is."""

    echoes: Annotated[int, Field(ge=0)] = 24
    """Associations of a day that ask whether somebody is there (C-ECHO), and nothing else."""

    crowd: Annotated[int, Field(ge=0, le=10_000)] = 100
    """Associations that one station opens at once at noon, and holds for a moment."""

    @property
    def variety(self) -> str:
        """What tells the studies of these stations from those of others; "" for `GENERAL`'s.

        Neither what stations call themselves nor how badly they send changes what a study is.
        """
        made = [(one.makes, one.share, one.hours) for one in self.stations]
        usual = [(one.makes, one.share, one.hours) for one in GENERAL.stations]
        return "" if made == usual else hashlib.sha256(repr(made).encode()).hexdigest()


def _station(
    ae_title: str, makes: Kind, share: float, hours: Hours = Hours.OFFICE, parallel: int = 1
) -> Station:
    return Station(ae_title=ae_title, makes=makes, share=share, hours=hours, parallel=parallel)


#: A general hospital of some size. Of a hundred studies, 37 are radiographs and 31 CT or MR.
GENERAL = Profile(
    stations=(
        _station("SIM_CT1", Kind.CT, 9, Hours.EMERGENCY, 2),
        _station("SIM_CT2", Kind.CT, 7, parallel=2),
        _station("SIM_CT3", Kind.ENHANCED_CT, 2),
        _station("SIM_MR1", Kind.MR, 6),
        _station("SIM_MR2", Kind.MR, 4, Hours.EMERGENCY),
        _station("SIM_MR3", Kind.ENHANCED_MR, 3),
        _station("SIM_CR1", Kind.CR, 22, Hours.EMERGENCY, 2),
        _station("SIM_CR2", Kind.CR, 15),
        _station("SIM_MG1", Kind.MG, 5),
        _station("SIM_US1", Kind.US, 7),
        _station("SIM_US2", Kind.US, 5, Hours.EMERGENCY),
        _station("SIM_PACS", Kind.ARCHIVE, 15, Hours.EARLY, 4),
    )
)


def read(path: Path) -> Profile:
    """The profile in a TOML file: `[[stations]]`, `[faults]` and the keys of `Profile`.

    Raises:
        Misconfigured: `bad-profile`, with each fault.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        if isinstance(content.get("stations"), list):
            content["stations"] = tuple(content["stations"])
        return Profile.model_validate(content, strict=False)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise Misconfigured("bad-profile", f"{path} is no profile: {error}.") from error
    except ValidationError as error:
        faults = "; ".join(f"{_place(one['loc'])}: {one['msg']}" for one in error.errors())
        raise Misconfigured("bad-profile", f"{path} is no profile: {faults}.") from error


def _place(keys: tuple[int | str, ...]) -> str:
    return ".".join(map(str, keys)) or "the file"
