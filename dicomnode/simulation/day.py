"""A profile and a seed → the plan of a day: the same for everybody who has both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import groupby
from operator import attrgetter

from dicomnode.errors import Misconfigured
from dicomnode.simulation import chance, misbehaviour, people, protocols
from dicomnode.simulation.hospital import CURVES, Kind, Profile, Station
from dicomnode.simulation.people import Person
from dicomnode.simulation.planned import Day, Fault, Item, Series, Study, Transfer
from dicomnode.simulation.protocols import Size

_HOUR_S = 3600
_NOON_S = 12 * _HOUR_S
_FIRST_DATE = date(2001, 1, 1)
_DATES = 1500
# Of ten studies one is the second of its patient on that day.
_SECOND_STUDY = 0.1
_OLDEST_PRIOR_DAYS = 2000
# What an archive sends on one association.
_STUDIES_AT_ONCE = 5
_SERIES_LASTS_S = 240.0
_OBJECT_LASTS_S = 20.0

#: Stations that open an association for each series, and for each object.
_BY_SERIES = frozenset({Kind.CT, Kind.ENHANCED_CT, Kind.MR, Kind.ENHANCED_MR})
_BY_OBJECT = frozenset({Kind.US})


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked for.

    Attributes:
        studies: How many there are in the part of the day.
        seed: What everything follows from.
        hours: The part of the day: from, until, in whole hours from midnight.
        shapes: The series of the studies that those of the day are made like; none where they are
            made from nothing.
        variety: What those are; another variety gives other UIDs.
    """

    studies: int
    seed: int
    hours: tuple[int, int] = (0, 24)
    size: Size = Size.SMALL
    shapes: tuple[tuple[Series, ...], ...] = ()
    variety: str = ""

    @property
    def key(self) -> str:
        """What everything is derived from: two requests that differ share no UID."""
        first, last = self.hours
        asked = (self.seed, self.studies, first, last, self.size, self.variety)
        return "/".join(("simulated", *map(str, asked)))


@dataclass(frozen=True, kw_only=True)
class _Begun:
    number: int
    station: int
    at_s: float


def plan(profile: Profile, request: Request) -> Day:
    """The plan of a day.

    Raises:
        Misconfigured: `nobody-works` where no station of the profile sends in these hours.
    """
    begun = _begun(profile, request)
    studies = _spoilt([_study(profile, request, one) for one in begun], profile, request)
    sent = [*_beside(profile, request)]
    for index, station in enumerate(profile.stations):
        own = [
            (study, one.at_s)
            for study, one in zip(studies, begun, strict=True)
            if one.station == index
        ]
        sent += _of_station(index, station, own, profile)
    return Day(
        profile=profile,
        studies={study.number: study for study in studies},
        transfers=tuple(sorted(sent, key=attrgetter("at_s"))),
    )


def _begun(profile: Profile, request: Request) -> list[_Begun]:
    """Which station begins a study when: by the shares of the stations, and the hours of each."""
    first, last = request.hours
    curves = [CURVES[station.hours][first:last] for station in profile.stations]
    weights = [
        station.share * sum(curve) / sum(CURVES[station.hours])
        for station, curve in zip(profile.stations, curves, strict=True)
    ]
    if not any(weights):
        raise Misconfigured("nobody-works", f"No station sends between {first} and {last} o'clock.")
    found = []
    for number in range(1, request.studies + 1):
        rng = chance.of(request.key, "begun", number)
        (station,) = rng.choices(range(len(curves)), weights)
        (hour,) = rng.choices(range(first, last), curves[station])
        found.append(_Begun(number=number, station=station, at_s=(hour + rng.random()) * _HOUR_S))
    return found


def _study(profile: Profile, request: Request, begun: _Begun) -> Study:
    rng = chance.of(request.key, "study", begun.number)
    makes = profile.stations[begun.station].makes
    today = _FIRST_DATE + timedelta(days=chance.of(request.key, "date").randrange(_DATES))
    when, begins_s = today, begun.at_s
    if makes is Kind.ARCHIVE:
        makes = rng.choice(protocols.KEPT)
        when -= timedelta(days=rng.randrange(1, _OLDEST_PRIOR_DAYS))
        begins_s = rng.uniform(7 * _HOUR_S, 18 * _HOUR_S)
        person = _patient(request, rng.randint(1, request.studies))
    else:
        person = _patient(request, begun.number)
    word = people.latin(rng)
    template = rng.randrange(len(request.shapes)) if request.shapes else 0
    return Study(
        number=begun.number,
        key=request.key,
        makes=makes,
        person=person,
        accession_number=people.identifier(rng, 14),
        description=f"{protocols.title(makes)}, {word}",
        date=when.strftime("%Y%m%d"),
        begins_s=begins_s,
        series=request.shapes[template]
        if request.shapes
        else protocols.series(makes, request.size, rng, word=word),
        template=template,
    )


def _patient(request: Request, number: int) -> Person:
    """The patient of a study; now and then the one of the study before."""
    is_second = chance.of(request.key, "second", number).random() < _SECOND_STUDY
    return people.person(request.key, number - 1 if is_second and number > 1 else number)


def _spoilt(studies: Sequence[Study], profile: Profile, request: Request) -> list[Study]:
    """The studies, as many of them marked with each fault as the profile says."""
    order = list(studies)
    chance.of(request.key, "faults").shuffle(order)
    spoilt: dict[int, Study] = {}
    for fault, rate in misbehaviour.rates(profile.faults).items():
        possible = (
            one
            for one in order
            if one.number not in spoilt and misbehaviour.is_possible(fault, one)
        )
        for _, study in zip(range(round(rate * len(studies))), possible, strict=False):
            spoilt[study.number] = misbehaviour.marked(study, fault)
    return [spoilt.get(study.number, study) for study in studies]


def _of_station(
    index: int, station: Station, studies: Sequence[tuple[Study, float]], profile: Profile
) -> Iterator[Transfer]:
    well: list[tuple[Study, float]] = []
    for study, at_s in studies:
        if study.fault is None:
            well.append((study, at_s))
        else:
            whole = Transfer(station=index, at_s=at_s, items=study.items)
            yield from misbehaviour.transfers(study, whole, profile)
    if station.makes is Kind.ARCHIVE:
        yield from _in_bulk(index, well)
        return
    for study, at_s in well:
        yield from _from_modality(index, study, at_s)


def _in_bulk(index: int, studies: Sequence[tuple[Study, float]]) -> Iterator[Transfer]:
    ordered = sorted(studies, key=lambda one: one[1])
    for start in range(0, len(ordered), _STUDIES_AT_ONCE):
        together = ordered[start : start + _STUDIES_AT_ONCE]
        items = tuple(item for study, _ in together for item in study.items)
        yield Transfer(station=index, at_s=together[0][1], items=items)


def _from_modality(index: int, study: Study, at_s: float) -> Iterator[Transfer]:
    parts: list[tuple[Item, ...]]
    if study.makes in _BY_OBJECT:
        parts = [(item,) for item in study.items]
        lasts_s = _OBJECT_LASTS_S
    elif study.makes in _BY_SERIES:
        parts = [tuple(items) for _, items in groupby(study.items, key=attrgetter("series"))]
        lasts_s = _SERIES_LASTS_S
    else:
        parts, lasts_s = [study.items], 0.0
    for place, items in enumerate(parts):
        yield Transfer(station=index, at_s=at_s + place * lasts_s, items=items)


def _beside(profile: Profile, request: Request) -> Iterator[Transfer]:
    """What brings nothing: echoes at any time, and a crowd at noon."""
    rng = chance.of(request.key, "beside")
    first, last = request.hours
    for _ in range(profile.echoes):
        at_s = rng.uniform(first * _HOUR_S, last * _HOUR_S)
        station = rng.randrange(len(profile.stations))
        yield Transfer(station=station, at_s=at_s, fault=Fault.ECHO)
    noon = min(max(_NOON_S, first * _HOUR_S), last * _HOUR_S)
    if profile.crowd:
        yield Transfer(station=0, at_s=noon, fault=Fault.CROWD, copies=profile.crowd)


def other_patient(item: Item, day: Day) -> Person:
    """Whom an object names that names the wrong patient."""
    study = day.studies[item.study]
    others = (day.studies[number].person for number in sorted(day.studies))
    found = next((one for one in others if one != study.person), None)
    return found or people.person(study.key, "nobody else")
