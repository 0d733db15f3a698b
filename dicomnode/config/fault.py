"""What pydantic found, as problems: each with its key path, in the words of the file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from dicomnode.config import tree
from dicomnode.config.problem import Problem, did_you_mean, key_path, nearest

# How pydantic marks that a fault is in a key and not in its value.
_IN_KEY = "[key]"

_EXPECTED = {
    "bool_type": "true or false",
    "dict_type": "a table",
    "float_type": "a number",
    "int_type": "a whole number",
    "is_instance_of": "text in quotes",  # a path
    "model_type": "a table",
    "string_type": "text in quotes",
    "tuple_type": "a list",
}
_EMPTY = {"string_too_short", "too_short"}
_NAMES = {
    bool: "a truth value",
    dict: "a table",
    float: "a number with a fraction",
    int: "a whole number",
    list: "a list",
    str: "text",
}


def problems(
    error: ValidationError, model: type[BaseModel], *, prefix: tuple[str | int, ...]
) -> list[Problem]:
    """Every fault that validation found in the table at `prefix`."""
    faults = error.errors(include_url=False)
    guessed = {nearest(str(f["loc"][-1]), _known(f, model)) for f in faults if _is_unknown(f)}
    return [
        _problem(fault, model, prefix=prefix)
        for fault in faults
        # A misspelt key is one fault, not also the absence of the right one.
        if not (fault["type"] == "missing" and fault["loc"][-1] in guessed)
    ]


def wrong_type(value: Any, *, expected: str, path: str) -> Problem:
    """The problem of a value that is not what stands at `path`."""
    found = _NAMES.get(type(value), f"a {type(value).__name__}")
    message = f"Expects {expected}, not {found}."
    return Problem.error(path, message, "wrong-type")


def unknown_key(key: str, known: Mapping[str, Any], *, path: str) -> Problem:
    """The problem of a key that means nothing where it stands."""
    message = f"There is no such key. {did_you_mean(key, known)}"
    return Problem.error(path, message, "unknown-key")


def _is_unknown(fault: ErrorDetails) -> bool:
    return fault["type"] == "extra_forbidden"


def _known(fault: ErrorDetails, model: type[BaseModel]) -> Mapping[str, Any]:
    """The keys that could have stood where the fault is."""
    for key in fault["loc"][:-1]:
        model = tree.below(model, str(key))
    return tree.keys(model)


def _problem(
    fault: ErrorDetails, model: type[BaseModel], *, prefix: tuple[str | int, ...]
) -> Problem:
    path = key_path(*prefix, *(key for key in fault["loc"] if key != _IN_KEY))
    kind = fault["type"]
    if _is_unknown(fault):
        return unknown_key(str(fault["loc"][-1]), _known(fault, model), path=path)
    if kind in _EXPECTED:
        return wrong_type(fault["input"], expected=_EXPECTED[kind], path=path)
    if kind == "missing":
        return Problem.error(path, "This key is required.", "missing-key")
    return Problem.error(path, _message(fault), "invalid-value")


def _message(fault: ErrorDetails) -> str:
    if fault["type"] in _EMPTY:
        return "Must not be empty."
    if fault["type"] == "value_error":
        return _sentence(str(fault["ctx"]["error"]))
    return _sentence(fault["msg"].replace("Input should be", "Must be", 1))


def _sentence(text: str) -> str:
    whole = text[:1].upper() + text[1:]
    return whole if whole.endswith((".", "?")) else f"{whole}."
