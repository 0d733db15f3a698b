"""PET activity → standardized uptake values by body weight.

The method is the vendor-neutral one of the Quantitative Imaging Biomarkers Alliance (UPICT Oncology
FDG-PET/CT, appendix on SUV): the dose is decayed from its injection to the time that the images
are corrected to, by the attributes of PS3.3 C.8.9.1 and C.8.9.2. What they do not say is not
guessed.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from pydicom import Dataset
from pydicom.valuerep import DA, DT, TM

from dicomnode.errors import UnsuitableSeries

_GRAMS = 1000.0  # of a kilogram
_CORRECTIONS = frozenset({"ATTN", "DECY"})
_LONGEST = timedelta(days=1)  # from the injection to the scan, of any tracer in use
#: Keywords that all images must agree in: a factor holds for a series.
_SHARED = ("Units", "DecayCorrection", "PatientWeight", "SeriesDate", "SeriesTime", "SUVType")
# Private, and documented by their makers in their conformance statements.
_PHILIPS, _PHILIPS_FACTOR = "Philips PET Private Group", 0x00
_GE, _GE_SCAN_TIME = "GEMS_PETD_01", 0x0D


def factor(datasets: Sequence[Dataset]) -> float:
    """What the values of a series (after its Modality LUT) are multiplied by, to give g/mL.

    Raises:
        UnsuitableSeries: `suv-not-computable`: the sentence names what is missing or contradicts.
    """
    first = datasets[0]
    for keyword in _SHARED:
        if len({str(dataset.get(keyword)) for dataset in datasets}) > 1:
            raise _fault(f"{keyword} is not the same in all images")
    units = str(first.get("Units") or "")
    if units == "GML":
        if str(first.get("SUVType") or "BW") != "BW":
            raise _fault(f"SUVType is {first.SUVType}, and BW is asked for")
        return 1.0
    if units == "CNTS":
        return _counts(first)
    if units != "BQML":
        raise _fault(f"Units is {units or 'empty'}")
    missing = _CORRECTIONS - set(first.get("CorrectedImage") or ())
    if missing:
        raise _fault(f"CorrectedImage does not name {' and '.join(sorted(missing))}")
    return _positive(first, "PatientWeight") * _GRAMS / _dose(datasets)


def _counts(first: Dataset) -> float:
    try:
        value = float(first.private_block(0x7053, _PHILIPS)[_PHILIPS_FACTOR].value)
    except (KeyError, TypeError, ValueError):
        value = 0.0
    if value <= 0:
        raise _fault("Units is CNTS, and no factor of the maker's is there")
    return value


def _dose(datasets: Sequence[Dataset]) -> float:
    """The injected dose in Bq, as it is at the time that the images are corrected to."""
    first = datasets[0]
    injections: Sequence[Dataset] = list(first.get("RadiopharmaceuticalInformationSequence") or [])
    if len(injections) != 1:
        raise _fault(f"there are {len(injections)} radiopharmaceuticals")
    injection = injections[0]
    dose = _positive(injection, "RadionuclideTotalDose")
    correction = str(first.get("DecayCorrection") or "")
    if correction == "ADMIN":
        return dose
    if correction != "START":
        raise _fault(f"DecayCorrection is {correction or 'empty'}")
    half_life = _positive(injection, "RadionuclideHalfLife")
    scanned = _scanned(datasets)
    waited = scanned - _injected(first, injection, scanned)
    if not timedelta(0) <= waited <= _LONGEST:
        raise _fault("the scan does not follow the injection within a day")
    return float(dose * 2 ** (-waited.total_seconds() / half_life))


def _scanned(datasets: Sequence[Dataset]) -> datetime:
    """The start of the scan: Series Time, unless the series was made from another later."""
    first = datasets[0]
    series = _moment(first.get("SeriesDate"), first.get("SeriesTime"))
    acquired = [
        _moment(dataset.get("AcquisitionDate") or dataset.get("SeriesDate"), time)
        for dataset in datasets
        if (time := dataset.get("AcquisitionTime"))
    ]
    earliest = min((one for one in acquired if one is not None), default=None)
    if series is not None and earliest is not None and series <= earliest:
        return series
    try:
        stated = DT(str(first.private_block(0x0009, _GE)[_GE_SCAN_TIME].value))
    except (KeyError, TypeError, ValueError):
        raise _fault("SeriesTime is not before AcquisitionTime") from None
    return _on_the_clock_of(first, stated)


def _injected(first: Dataset, injection: Dataset, scanned: datetime) -> datetime:
    stated = injection.get("RadiopharmaceuticalStartDateTime")
    if stated:
        try:
            found = DT(str(stated))
        except ValueError:
            raise _fault("RadiopharmaceuticalStartDateTime is no time") from None
        return _on_the_clock_of(first, found)
    time = injection.get("RadiopharmaceuticalStartTime")
    moment = _moment(scanned.strftime("%Y%m%d"), time)
    if moment is None:
        raise _fault("RadiopharmaceuticalStartTime is missing")
    # A time without a date: an injection before midnight for a scan after it.
    return moment if moment <= scanned else moment - timedelta(days=1)


def _on_the_clock_of(first: Dataset, stated: datetime) -> datetime:
    """A moment by the clock that the other times of the images are of (PS3.5 6.2, DT).

    A zone that is written beside it may be another one than theirs.
    """
    if stated.tzinfo is None:
        return stated
    try:
        own = datetime.strptime(str(first.get("TimezoneOffsetFromUTC")), "%z").tzinfo
    except ValueError:
        raise _fault(
            "one time has a zone, and TimezoneOffsetFromUTC of the others is missing"
        ) from None
    return stated.astimezone(own).replace(tzinfo=None)


def _moment(date: Any, time: Any) -> datetime | None:
    try:
        return datetime.combine(DA(str(date)), TM(str(time)))
    except (TypeError, ValueError):
        return None


def _positive(dataset: Dataset, keyword: str) -> float:
    try:
        value = float(dataset.get(keyword) or 0)
    except (TypeError, ValueError):
        value = 0.0
    if value <= 0:
        raise _fault(f"{keyword} is missing or not positive")
    return value


def _fault(what: str) -> UnsuitableSeries:
    return UnsuitableSeries("suv-not-computable", f"Uptake values cannot be computed: {what}.")
