from __future__ import annotations

import datetime as dt
import re

import pytest

from dicomnode import matcher
from dicomnode.matcher import CannotTell, Value

ABSENT = object()


def holds(form: object, value: object) -> bool:
    if value is ABSENT:
        return matcher.parse(form).holds(None, present=False)
    assert value is None or isinstance(value, str | int | float | list)
    typed: Value = value
    return matcher.parse(form).holds(typed, present=True)


@pytest.mark.parametrize(
    ("form", "value", "expected"),
    [
        ("MR", "MR", True),
        ("MR", "CT", False),
        ("MR", "mr", False),
        ("MR", "MR ", True),
        (" MR", "MR\0", True),
        ("MR", ["CT", "MR"], True),
        ("a b", "a  b", False),
        (3, 3, True),
        (3, 3.0, True),
        (3, "3", True),
        (3, " 3.0 ", True),
        (3, "three", False),
        (3, [1, 2, 3], True),
        (1.5, "1.50", True),
        ("1.50", 1.5, True),
        ("1.50", "1.5", False),  # text on both sides is text
        (100, "1_00", False),
        ("nan", "nan", True),
    ],
)
def test_a_plain_value_asks_for_equality(form: object, value: object, *, expected: bool) -> None:
    assert holds(form, value) is expected


@pytest.mark.parametrize(
    ("form", "value", "expected"),
    [
        (["CT", "MR"], "MR", True),
        (["CT", "MR"], "PT", False),
        (["CT", "re:^M"], "MR", True),
        ([">=10", {"exists": False}], 3, False),
        ([">=10", {"exists": False}], None, True),
    ],
)
def test_a_list_asks_for_any_of_its_forms(form: object, value: object, *, expected: bool) -> None:
    assert holds(form, value) is expected


@pytest.mark.parametrize(
    ("form", "value", "expected"),
    [
        ("re:hippo", "HippoCrop", False),
        ("re:(?i)hippo.?crop", "my Hippo-Crop 1", True),
        ("re:^crop", "hippocrop", False),
        ("re:^crop", ["hippo", "crop"], True),
        ("re:^1$", 1, True),
    ],
)
def test_a_regular_expression_is_searched_in_any_value(
    form: object, value: object, *, expected: bool
) -> None:
    assert holds(form, value) is expected


@pytest.mark.parametrize(
    ("form", "value", "expected"),
    [
        (">=16", 16, True),
        (">= 16", "15.9", False),
        ("<= 3", 3, True),
        (">3", 3, False),
        ("<3", "2e0", True),
        (" <3 ", 2, True),
        ("<-0.5", "-.75", True),
        ("<1", [0.5, 0.5], True),
        ("<1", [0.5, 1.5], False),
        ("<1", ["0.5", ""], True),
    ],
)
def test_a_comparison_asks_that_every_value_is_within_the_limit(
    form: object, value: object, *, expected: bool
) -> None:
    assert holds(form, value) is expected


@pytest.mark.parametrize("empty", [ABSENT, None, "", "  ", "\0", [], ["", " "]])
@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("MR", False),
        (0, False),
        (["MR"], False),
        ("re:.*", False),
        ("<5", False),
        ({"exists": True}, False),
        ({"exists": False}, True),
        ({"not": "MR"}, True),
        ({"not": {"exists": False}}, False),
    ],
)
def test_an_absent_or_empty_element_satisfies_only_its_absence_and_negations(
    form: object, empty: object, *, expected: bool
) -> None:
    assert holds(form, empty) is expected


@pytest.mark.parametrize("value", ["x", 0, [0, ""]])
def test_exists_asks_for_a_value_and_zero_is_one(value: object) -> None:
    assert holds({"exists": True}, value)
    assert not holds({"exists": False}, value)


def test_not_turns_any_form_around() -> None:
    image_type = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    assert not holds({"not": "LOCALIZER"}, image_type)
    assert holds({"not": ["AXIAL", "re:^LOC$"]}, image_type)
    assert holds({"not": {"not": "LOCALIZER"}}, image_type)


@pytest.mark.parametrize("value", ["many", ["1", "many"], "045Y", "nan", "inf", "1_000"])
@pytest.mark.parametrize("form", [">=16", {"not": ">=16"}, ["CT", ">=16"]])
def test_a_comparison_with_text_cannot_be_told_and_the_text_is_not_repeated(
    form: object, value: object
) -> None:
    with pytest.raises(CannotTell, match=r"^a number is compared with text$"):
        holds(form, value)


@pytest.mark.parametrize("form", [[">=16", "many"], ["many", ">=16"]])
def test_a_form_that_holds_settles_a_list_wherever_the_doubt_stands(form: object) -> None:
    assert holds(form, "many")


def test_a_number_that_no_float_can_hold_is_treated_as_text() -> None:
    with pytest.raises(CannotTell):
        holds(">=16", 10**400)
    with pytest.raises(CannotTell):
        holds(">=16", "9" * 400)


@pytest.mark.parametrize(
    ("form", "sentence"),
    [
        (True, "true is no value of an element; to ask whether it is there write { exists = true"),
        (False, "write { exists = false }"),
        ("", "an empty text matches nothing"),
        (" ", "an empty text matches nothing"),
        ("re:", "an empty regular expression says nothing"),
        ("re:a(b", "missing ), unterminated subpattern at position 1 of 'a(b'"),
        (">= x", "after >= a number is expected, not 'x'"),
        ("<MPR Thick Range>", 'to find a text that begins with < write "re:^<"'),
        (">", "after > a number is expected"),
        (">=nan", "after >= a number is expected"),
        ([], "an empty list matches nothing"),
        (["CT", "re:("], "item 2: not a regular expression"),
        (["CT", True], "item 2: true is no value"),
        ({}, "a table of nothing is no matcher"),
        ({"exist": True}, "a table of exist is no matcher"),
        ({"exists": "yes"}, "a table of exists is no matcher"),
        ({"exists": True, "not": "x"}, "a table of exists, not is no matcher"),
        ({"not": True}, "true is no value of an element"),
        (float("nan"), "nan is no number that an element could have"),
        (float("inf"), "inf is no number"),
        (dt.date(2026, 1, 31), 'as DICOM has them: "20260131"'),
        (None, "a NoneType cannot be matched"),
    ],
)
def test_what_is_no_matcher_is_refused_with_a_hint(form: object, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)) as raised:
        matcher.parse(form)
    assert not isinstance(raised.value, CannotTell)


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("MR", 'K = "MR"'),
        (16, "K = 16"),
        (0.5, "K = 0.5"),
        (">=16", "K >= 16"),
        ("< 2.50", "K < 2.5"),
        (">=1600000", "K >= 1600000"),
        ("re:(?i)hippo.?crop", "K matches /(?i)hippo.?crop/"),
        (["CT", 2, ">=3"], 'K any of "CT", 2, >= 3'),
        ({"not": "LOCALIZER"}, 'K not "LOCALIZER"'),
        ({"exists": True}, "K exists"),
        ({"exists": False}, "K does not exist"),
    ],
)
def test_a_clause_reads_as_a_person_would_write_it(form: object, text: str) -> None:
    assert matcher.parse(form).clause("K") == text


def test_matchers_are_values() -> None:
    form = ["CT", "re:a", ">=3", {"not": {"exists": True}}]
    assert matcher.parse(form) == matcher.parse(form)
    assert len({matcher.parse(form), matcher.parse(form)}) == 1
    assert matcher.parse(form) != matcher.parse("CT")
