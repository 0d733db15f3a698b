"""Matchers: the right-hand sides of a rule's clauses, as data.

=========================  ===================================================================
in the configuration       holds when
=========================  ===================================================================
`"MR"`, `3`                any value equals it; numbers compare as numbers, text case-sensitive
`["CT", "MR"]`             any of the listed forms holds
`"re:(?i)hippo"`           the regular expression is found in any value
`">=16"`, `"< 2.5"`        every value is a number within the limit
`{ exists = true }`        the element is present and not empty
`{ not = … }`              the form inside does not hold
=========================  ===================================================================

An element that is absent or empty satisfies nothing but `{ exists = false }` and `{ not = … }`.
Spaces and NULs around a value are padding (PS3.5 6.2) and are not compared.
"""

from __future__ import annotations

import math
import operator
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

Scalar = str | int | float
Value = Scalar | Sequence[Scalar] | None

_PADDING = " \0"
_REGULAR_EXPRESSION = "re:"
_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_COMPARISON = re.compile(r"(?P<sign>>=|<=|>|<)(?P<limit>.*)", re.DOTALL)
# What DS and IS may hold (PS3.5 Table 6.2-1). float() alone takes "nan" and "1_000" as well.
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", re.ASCII)


class CannotTell(ValueError):
    """A matcher cannot be evaluated on a value. The text never repeats the value."""


class Matcher(ABC):
    """One form of the table above. Frozen, compared by value."""

    def holds(self, value: Value, *, present: bool) -> bool:
        """Whether an element with `value` satisfies this form.

        Args:
            value: The element's value; several values are a list, an empty element is `None`.
            present: Whether the element is there at all; without it `value` is not looked at.

        Raises:
            CannotTell: A number is compared with text.
        """
        return self._holds(_values(value) if present else ())

    def clause(self, keyword: str) -> str:
        """The clause on `keyword` as a person would write it: `Modality = "MR"`."""
        return f"{keyword} {self}"

    @abstractmethod
    def _holds(self, values: tuple[Scalar, ...]) -> bool:
        """Whether the values, stripped and not empty, satisfy this form."""


@dataclass(frozen=True, kw_only=True)
class Equals(Matcher):
    """Any value equals `value`. A number on either side makes it a comparison of numbers."""

    value: Scalar

    def _holds(self, values: tuple[Scalar, ...]) -> bool:
        return any(_equal(value, self.value) for value in values)

    def clause(self, keyword: str) -> str:
        """As `Matcher.clause`."""
        return f"{keyword} = {self}"

    def __str__(self) -> str:
        return f'"{self.value}"' if isinstance(self.value, str) else f"{self.value}"


@dataclass(frozen=True, kw_only=True)
class AnyOf(Matcher):
    """Any of `forms` holds."""

    forms: tuple[Matcher, ...]

    def _holds(self, values: tuple[Scalar, ...]) -> bool:
        # One form that holds settles it, wherever it stands; only then does a doubt count.
        doubt: CannotTell | None = None
        for form in self.forms:
            try:
                if form._holds(values):  # noqa: SLF001 - of the same class
                    return True
            except CannotTell as cannot_tell:
                doubt = cannot_tell
        if doubt is not None:
            raise doubt
        return False

    def __str__(self) -> str:
        return f"any of {', '.join(str(form) for form in self.forms)}"


@dataclass(frozen=True, kw_only=True)
class Matches(Matcher):
    """The regular expression is found, anywhere, in any value."""

    pattern: re.Pattern[str]

    def _holds(self, values: tuple[Scalar, ...]) -> bool:
        return any(self.pattern.search(str(value)) for value in values)

    def clause(self, keyword: str) -> str:
        """As `Matcher.clause`."""
        return f"{keyword} matches {self}"

    def __str__(self) -> str:
        return f"/{self.pattern.pattern}/"


@dataclass(frozen=True, kw_only=True)
class Compares(Matcher):
    """Every value is a number within the limit.

    Every, not any: where an element such as Pixel Spacing has several values, a limit that one of
    them breaks is broken.
    """

    sign: str  # a key of _COMPARISONS
    limit: float

    def _holds(self, values: tuple[Scalar, ...]) -> bool:
        numbers = [number(value) for value in values]
        if None in numbers:
            raise CannotTell("a number is compared with text")
        within = _COMPARISONS[self.sign]
        return bool(numbers) and all(within(n, self.limit) for n in numbers if n is not None)

    def __str__(self) -> str:
        return f"{self.sign} {self.limit:.15g}"


@dataclass(frozen=True, kw_only=True)
class Exists(Matcher):
    """The element is present and not empty; or, with `expected` false, is not."""

    expected: bool

    def _holds(self, values: tuple[Scalar, ...]) -> bool:
        return bool(values) is self.expected

    def __str__(self) -> str:
        return "exists" if self.expected else "does not exist"


@dataclass(frozen=True, kw_only=True)
class Not(Matcher):
    """The form inside does not hold."""

    form: Matcher

    def _holds(self, values: tuple[Scalar, ...]) -> bool:
        return not self.form._holds(values)  # noqa: SLF001 - of the same class

    def __str__(self) -> str:
        return f"not {self.form}"


def parse(value: object) -> Matcher:
    """The matcher that a value of the configuration stands for.

    Raises:
        ValueError: It stands for none; the sentence says what to write instead.
    """
    if isinstance(value, bool):
        raise ValueError(  # noqa: TRY004 - pydantic reports a ValueError with its key path
            f"{str(value).lower()} is no value of an element; "
            f"to ask whether it is there write {{ exists = {str(value).lower()} }}"
        )
    if isinstance(value, int | float):
        return _parse_number(value)
    if isinstance(value, str):
        return _parse_text(value)
    if isinstance(value, list):
        return _parse_list(value)
    if isinstance(value, Mapping):
        return _parse_table(value)
    raise ValueError(
        f"a {type(value).__name__} cannot be matched; "
        'dates and times are written as text, as DICOM has them: "20260131"'
    )


def _parse_number(value: float) -> Matcher:
    if number(value) is None:
        raise ValueError(f"{value} is no number that an element could have")
    return Equals(value=value)


def _parse_text(text: str) -> Matcher:
    if text.startswith(_REGULAR_EXPRESSION):
        return _parse_regular_expression(text.removeprefix(_REGULAR_EXPRESSION))
    comparison = _COMPARISON.fullmatch(text.strip(_PADDING))
    if comparison is not None:
        return _parse_comparison(comparison["sign"], comparison["limit"])
    stripped = text.strip(_PADDING)
    if not stripped:
        raise ValueError("an empty text matches nothing; write { exists = false }")
    return Equals(value=stripped)


def _parse_regular_expression(pattern: str) -> Matcher:
    if not pattern:
        raise ValueError("an empty regular expression says nothing; write { exists = true }")
    try:
        return Matches(pattern=re.compile(pattern))
    except re.error as error:
        where = "" if error.pos is None else f" at position {error.pos} of {pattern!r}"
        raise ValueError(f"not a regular expression: {error.msg}{where}") from error


def _parse_comparison(sign: str, limit: str) -> Matcher:
    parsed = number(limit)
    if parsed is None:
        raise ValueError(
            f"after {sign} a number is expected, not {limit.strip()!r}; "
            f'to find a text that begins with {sign} write "re:^{sign}"'
        )
    return Compares(sign=sign, limit=parsed)


def _parse_list(items: Sequence[object]) -> Matcher:
    if not items:
        raise ValueError("an empty list matches nothing; list what may stand there")
    forms = []
    for position, item in enumerate(items, start=1):
        try:
            forms.append(parse(item))
        except ValueError as error:
            raise ValueError(f"item {position}: {error}") from error
    return AnyOf(forms=tuple(forms))


def _parse_table(table: Mapping[object, object]) -> Matcher:
    match dict(table):
        case {"exists": bool(expected), **others} if not others:
            return Exists(expected=expected)
        case {"not": form, **others} if not others:
            return Not(form=parse(form))
    raise ValueError(
        f"a table of {', '.join(sorted(map(str, table))) or 'nothing'} is no matcher; "
        "write { exists = true }, { exists = false } or { not = … }"
    )


def _values(value: Value) -> tuple[Scalar, ...]:
    """The values of an element without padding; those that are empty are left out."""
    if value is None:
        return ()
    several = (value,) if isinstance(value, str | int | float) else value
    stripped = (v.strip(_PADDING) if isinstance(v, str) else v for v in several)
    return tuple(v for v in stripped if v not in ("", None))


def number(value: Scalar) -> float | None:
    """The number that `value` is, or spells as DS and IS do.

    `None` for any other text, and for what no float can hold.
    """
    if isinstance(value, str):
        text = value.strip(_PADDING)
        value = float(text) if _NUMBER.fullmatch(text) else math.nan
    try:
        return value if math.isfinite(value) else None
    except OverflowError:
        return None


def _equal(value: Scalar, expected: Scalar) -> bool:
    if isinstance(value, str) and isinstance(expected, str):
        return value == expected
    given = number(value)
    return given is not None and given == number(expected)
