"""Overrides: `DICOMNODE__LISTEN__PORT=104` in the environment stands for `listen.port = 104`.

Two underscores separate; case does not matter. One of several is named by its name or its number:
`DICOMNODE__PEERS__PACS__PORT`, `DICOMNODE__ROUTES__0__PRIORITY`. The value is read as TOML where
it can be (`104`, `true`, `["pacs"]`), and is text otherwise.
"""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from dicomnode.config import tree
from dicomnode.config.problem import Problem, did_you_mean, key_path
from dicomnode.config.tree import COLLECTIONS, SECTIONS

_PREFIX = "DICOMNODE"
_SEPARATOR = "__"


@dataclass(frozen=True, kw_only=True)
class Overridden:
    """The tables of the file with the environment laid over them.

    Attributes:
        variables: Key path → the environment variable that its value comes from.
    """

    raw: dict[str, Any]
    variables: Mapping[str, str]
    problems: tuple[Problem, ...]


def apply(file: Mapping[str, Any], environ: Mapping[str, str]) -> Overridden:
    """Lay the overrides in `environ` over the tables of the file."""
    raw = copy.deepcopy(dict(file))
    variables: dict[str, str] = {}
    problems: list[Problem] = []
    for variable in sorted(environ):
        try:
            keys = _keys(variable, raw)
        except ValueError as error:
            problems.append(Problem.error(variable, str(error), "misspelt-override"))
            continue
        if keys and _set(raw, keys, _value(environ[variable])):
            variables[key_path(*keys)] = variable
    return Overridden(raw=raw, variables=variables, problems=tuple(problems))


def _keys(variable: str, raw: Mapping[str, Any]) -> tuple[str | int, ...]:
    """The keys that a variable names; none for a variable that is not about the node.

    Raises:
        ValueError: It is meant for the node, and names no key.
    """
    prefix, separator, rest = variable.partition(_SEPARATOR)
    if prefix.upper() != _PREFIX or not separator:
        _refuse_lone_underscores(variable)
        return ()
    section, *below = rest.split(_SEPARATOR)
    section = _match(section, (*SECTIONS, *COLLECTIONS))
    if section in SECTIONS:
        (key,) = _exactly(1, below, f"{section.upper()}__KEY")
        return section, _match(key, tree.keys(SECTIONS[section]))
    name, key = _exactly(2, below, f"{section.upper()}__NAME__KEY")
    return section, _member(name, raw.get(section)), _match(key, tree.keys(COLLECTIONS[section]))


def _exactly(count: int, words: list[str], shape: str) -> list[str]:
    if len(words) != count:
        raise ValueError(f"Such an override has the shape {_PREFIX}__{shape}.")
    return words


def _member(name: str, members: Any) -> str | int:
    """Which one of several tables is meant, among those that the file has."""
    if isinstance(members, list):
        return int(_match(name, [str(position) for position in range(len(members))]))
    return _match(name, members if isinstance(members, dict) else ())


def _match(word: str, options: Iterable[str]) -> str:
    found = [option for option in options if _plain(option) == _plain(word)]
    if len(found) != 1:
        what = "names more than one key" if found else "names nothing here"
        raise ValueError(f'"{word}" {what}. {did_you_mean(word, options)}')
    return found[0]


def _plain(name: str) -> str:
    """A name as far as a shell lets it be written as the name of a variable."""
    return name.casefold().replace("-", "_").replace(" ", "_")


def _refuse_lone_underscores(variable: str) -> None:
    """`DICOMNODE_LISTEN_PORT` would otherwise be passed over in silence.

    Other names that begin so are let be: container platforms set some for a service of our name.
    """
    squeezed = variable.upper().replace("_", "")
    if not squeezed.startswith(_PREFIX):
        return
    for section, table in SECTIONS.items():
        for key in tree.keys(table):
            meant = _SEPARATOR.join((_PREFIX, section, key)).upper()
            if meant.replace("_", "") == squeezed:
                raise ValueError(f"Two underscores separate: write {meant}.")


def _value(text: str) -> Any:
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    # A line break in the text could have begun another key.
    return parsed["value"] if len(parsed) == 1 else text


def _set(raw: dict[str, Any], keys: tuple[str | int, ...], value: Any) -> bool:
    """Set the key; what stands there and is no table is left to be reported for its shape."""
    *above, last = keys
    table: Any = raw.setdefault(str(above[0]), {})
    for key in above[1:]:
        table = table[key]
    if isinstance(table, dict):
        table[last] = value
        return True
    return False
