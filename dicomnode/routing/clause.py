"""One series and the clauses of one input: whether it fits, and which clause says no."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from pydicom.config import IGNORE
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.uid import UID

from dicomnode.matcher import CannotTell, Matcher
from dicomnode.study import HeaderValue, Instance, Series

#: The key of a clause on the number of instances in the series.
INSTANCES = "instances"
#: The same number as the count of slices, for the clauses of a model: a multi-frame instance has
#: its slices inside, so there the clause lets pass and they are counted when the volume is loaded.
SLICES = "slices"

_SHOWN_LENGTH = 64
_NOT_SHOWN = "(present, not shown)"
_PATIENT_GROUPS = {0x0010, 0x0038}  # patient, visit (PS3.6 chapter 6)
_PERSONAL_VRS = {"PN", "LT", "ST", "UT"}  # names, and free text in which names stand
_PERSONAL_KEYWORDS = {
    "AccessionNumber",
    "FillerOrderNumberImagingServiceRequest",
    "PerformedProcedureStepID",
    "PlacerOrderNumberImagingServiceRequest",
    "RequestedProcedureID",
    "ScheduledProcedureStepID",
    "StudyID",
}


class Origin(StrEnum):
    """Who asks for a clause."""

    ROUTE = "route"
    MODEL = "model"
    NODE = "node"


class Outcome(StrEnum):
    """What a rule does with a series."""

    JOB = "job"
    NOT_APPLICABLE = "not_applicable"
    HELD = "held"


@dataclass(frozen=True, kw_only=True)
class Clause:
    """One condition on a series.

    Attributes:
        keyword: A keyword of the dictionary, `INSTANCES` or `SLICES`. A UID is matched as itself
            and as its keyword: `SOPClassUID = "CTImageStorage"` means what it says.
    """

    keyword: str
    matcher: Matcher
    origin: Origin

    def __str__(self) -> str:
        return self.matcher.clause(self.keyword)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the clauses of one input say of one series.

    Attributes:
        clause, value, origin, detail: As in `Decision`.
        held_before: How many clauses held before this one decided.
    """

    outcome: Outcome
    clause: str = ""
    value: str = ""
    origin: str = ""
    detail: str
    held_before: int = 0


FITS = Verdict(outcome=Outcome.JOB, detail="Every clause holds.")


@dataclass(frozen=True, kw_only=True)
class _Answer:
    """What one clause says of one series; `holds` is `None` where it cannot be told."""

    holds: bool | None
    value: str = ""
    remark: str = ""


def judge(series: Series, clauses: Sequence[Clause]) -> Verdict:
    """Whether `series` fits: the first clause that says no decides, else the first in doubt."""
    doubt: Verdict | None = None
    for position, clause in enumerate(clauses):
        answer = _ask(clause, series)
        if answer.holds is False:
            return _verdict(Outcome.NOT_APPLICABLE, clause, answer, position)
        if answer.holds is None and doubt is None:
            doubt = _verdict(Outcome.HELD, clause, answer, position)
    return doubt or FITS


def _verdict(outcome: Outcome, clause: Clause, answer: _Answer, position: int) -> Verdict:
    return Verdict(
        outcome=outcome,
        clause=str(clause),
        value=answer.value,
        origin=clause.origin,
        detail=f"The {clause.origin} asks for {clause}; here it is {answer.value}{answer.remark}.",
        held_before=position,
    )


def _ask(clause: Clause, series: Series) -> _Answer:
    if clause.keyword in {INSTANCES, SLICES}:
        return _ask_count(clause, series)
    asked: dict[int, bool | CannotTell] = {}  # an instance may stand for several that are alike
    for one in series.instances:
        if id(one) not in asked:
            asked[id(one)] = _ask_instance(clause, one)
    answers = [asked[id(one)] for one in series.instances]
    doubts = [answer for answer in answers if isinstance(answer, CannotTell)]
    held = answers.count(True)
    if held and clause.origin is Origin.MODEL:
        # A series of which some images are what the model asks for is refused by name when it is
        # loaded: a job that failed is seen, a series that was passed over is not.
        return _Answer(holds=True)
    if False in answers:
        refused = series.instances[answers.index(False)]
        return _Answer(
            holds=False,
            value=_shown(refused, clause.keyword),
            remark=f" (it holds for {held} of {len(answers)} instances)" if held else "",
        )
    if doubts:
        doubtful = series.instances[answers.index(doubts[0])]
        return _Answer(
            holds=None,
            value=_shown(doubtful, clause.keyword),
            remark=f", and whether that holds cannot be told: {doubts[0]}",
        )
    return _Answer(holds=True)


def _ask_count(clause: Clause, series: Series) -> _Answer:
    if clause.keyword == SLICES and any(one.is_multi_frame for one in series.instances):
        return _Answer(holds=True)
    count = len(series.instances)
    return _Answer(holds=clause.matcher.holds(count, present=True), value=str(count))


def _ask_instance(clause: Clause, instance: Instance) -> bool | CannotTell:
    try:
        return clause.matcher.holds(
            _value(instance, clause.keyword), present=instance.has(clause.keyword)
        )
    except CannotTell as cannot_tell:
        return cannot_tell


def _value(instance: Instance, keyword: str) -> HeaderValue:
    """The value to match: for a UID also its keyword."""
    value = instance.value(keyword)
    if isinstance(value, str) and keyword.endswith("UID"):
        return [value, _uid_keyword(value)]
    return value


@functools.lru_cache(maxsize=1024)
def _uid_keyword(uid: str) -> str:
    """The keyword of a UID of the dictionary (PS3.6 Annex A); "" for any other."""
    return str(UID(uid.strip(" \0"), validation_mode=IGNORE).keyword)


def _shown(instance: Instance, keyword: str) -> str:
    """What the instance has, fit to be read by a person who need not know the patient."""
    if not instance.has(keyword):
        return "absent"
    value = instance.value(keyword)
    if value is None or value in ("", []):
        return "empty"
    if _is_personal(keyword):
        return _NOT_SHOWN
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, str) and keyword.endswith("UID"):
        value = _uid_keyword(value) or value
    text = value.strip() if isinstance(value, str) else "\\".join(str(one) for one in value)
    return _quoted(text)


def _quoted(text: str) -> str:
    # What came over the wire may hold what would steer a terminal.
    plain = "".join(character if character.isprintable() else "�" for character in text)
    quoted = f'"{plain}"'
    return quoted if len(quoted) <= _SHOWN_LENGTH else f'{quoted[: _SHOWN_LENGTH - 2]}…"'


def _is_personal(keyword: str) -> bool:
    """Whether a value may name a patient; one whose keyword the dictionary lacks may."""
    tag = tag_for_keyword(keyword)
    return (
        tag is None
        or tag >> 16 in _PATIENT_GROUPS
        or dictionary_VR(tag) in _PERSONAL_VRS
        or keyword in _PERSONAL_KEYWORDS
    )
