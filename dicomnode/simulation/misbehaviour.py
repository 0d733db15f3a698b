"""What goes wrong with a study on its way: one association → the associations of each fault."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from dicomnode.simulation.hospital import Faults, Profile
from dicomnode.simulation.planned import (
    Arrival,
    Content,
    Edit,
    Ending,
    Fault,
    Item,
    Study,
    Transfer,
)

_AGAIN_S = 60.0
_LATE_S = 1200.0

_Bad = Callable[[Study, Transfer, Profile], tuple[Transfer, ...]]


@dataclass(frozen=True, kw_only=True)
class _Kind:
    """One fault.

    Attributes:
        of: Makes the associations of a study that comes so.
        arrival: What of it a node should have in the end.
        contents: What a study must have for it to be possible; anything where it is empty.
    """

    of: _Bad
    arrival: Arrival = Arrival.WHOLE
    contents: frozenset[Content] = frozenset()


def _slow(_study: Study, whole: Transfer, profile: Profile) -> tuple[Transfer, ...]:
    return (replace(whole, bytes_per_s=profile.slow_bytes_per_s),)


def _aborts(_study: Study, whole: Transfer, _profile: Profile) -> tuple[Transfer, ...]:
    return (replace(whole, items=whole.items[: _half(whole)], ending=Ending.ABORTED),)


def _cuts(_study: Study, whole: Transfer, _profile: Profile) -> tuple[Transfer, ...]:
    begun = whole.items[: _half(whole) + 1]
    again = replace(whole, at_s=whole.at_s + _AGAIN_S)
    return (replace(whole, items=begun, ending=Ending.CUT), again)


def _twice(_study: Study, whole: Transfer, _profile: Profile) -> tuple[Transfer, ...]:
    return (whole, replace(whole, at_s=whole.at_s + _AGAIN_S))


def _late(_study: Study, whole: Transfer, _profile: Profile) -> tuple[Transfer, ...]:
    at = len(whole.items) - max(1, len(whole.items) // 4)
    early, late = whole.items[:at], whole.items[at:]
    return (
        replace(whole, items=early),
        replace(whole, items=late, at_s=whole.at_s + _LATE_S),
    )


def _wrong_patient(study: Study, whole: Transfer, _profile: Profile) -> tuple[Transfer, ...]:
    wrong = _middle(study)
    edited = tuple(
        replace(one, edit=Edit.OTHER_PATIENT) if one == wrong else one for one in whole.items
    )
    return (replace(whole, items=edited),)


def _missing_slices(study: Study, whole: Transfer, _profile: Profile) -> tuple[Transfer, ...]:
    missing = _middle(study)
    return (replace(whole, items=tuple(one for one in whole.items if one != missing)),)


def _further(edit: Edit) -> _Bad:
    """Adds an object that cannot be taken, behind all that can."""

    def bad(study: Study, whole: Transfer, _profile: Profile) -> tuple[Transfer, ...]:
        return (replace(whole, items=(*whole.items, replace(_middle(study), edit=edit))),)

    return bad


def _wrong_called(_study: Study, whole: Transfer, _profile: Profile) -> tuple[Transfer, ...]:
    return (replace(whole, is_called_wrong=True),)


def _half(whole: Transfer) -> int:
    return max(1, len(whole.items) // 2)


def _middle(study: Study) -> Item:
    """An object in the middle of the largest series."""
    largest = max(study.series, key=lambda series: series.count)
    return Item(study=study.number, series=largest.number, number=1 + largest.count // 2)


_SLICES = frozenset({Content.SLICE})

_KINDS: Mapping[Fault, _Kind] = {
    Fault.SLOW: _Kind(of=_slow),
    Fault.ABORTS: _Kind(of=_aborts, arrival=Arrival.HALF),
    Fault.CUTS: _Kind(of=_cuts),
    Fault.TWICE: _Kind(of=_twice),
    Fault.LATE: _Kind(of=_late),
    Fault.WRONG_PATIENT: _Kind(of=_wrong_patient, arrival=Arrival.MIXED),
    Fault.MISSING_SLICES: _Kind(of=_missing_slices, arrival=Arrival.GAP, contents=_SLICES),
    Fault.DUPLICATE_UID: _Kind(of=_further(Edit.OTHER_CONTENT)),
    Fault.UNKNOWN_CLASS: _Kind(of=_further(Edit.UNKNOWN_CLASS)),
    Fault.UNKNOWN_SYNTAX: _Kind(of=_further(Edit.UNKNOWN_SYNTAX)),
    Fault.WRONG_CALLED: _Kind(of=_wrong_called, arrival=Arrival.NOTHING),
}


def rates(faults: Faults) -> dict[Fault, float]:
    """How often each fault of a study happens, of all studies."""
    return {fault: getattr(faults, fault.replace("-", "_")) for fault in _KINDS}


def is_possible(fault: Fault, study: Study) -> bool:
    """Whether a study can come so: two objects are needed for anything to lie between."""
    contents = _KINDS[fault].contents
    has = {series.content for series in study.series}
    return len(study.items) > 1 and (not contents or bool(contents & has))


def marked(study: Study, fault: Fault) -> Study:
    """A study that comes badly."""
    return replace(study, fault=fault, arrival=_KINDS[fault].arrival)


def transfers(study: Study, whole: Transfer, profile: Profile) -> tuple[Transfer, ...]:
    """The associations that bring a study badly, in place of `whole`, which would bring it well."""
    if study.fault is None:
        raise ValueError(f"study {study.number} comes well")
    bad = replace(whole, fault=study.fault)
    return _KINDS[study.fault].of(study, bad, profile)
