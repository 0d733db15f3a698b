"""What stands in the configuration, key by key, as text for people: secrets masked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from dicomnode.config.problem import key_path
from dicomnode.config.tree import Configuration
from dicomnode.config.url import masked
from dicomnode.matcher import Matcher


@dataclass(frozen=True, kw_only=True)
class Key:
    """One key of a table.

    Attributes:
        name: As it is written; of a table within the table with its name before (`query.port`).
        text: Its value as it would be written, secrets masked; "" where it is left out.
        value: The value itself, which may hold a secret: to be compared, never to be shown.
    """

    name: str
    text: str
    about: str
    is_default: bool
    value: Any = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class WrittenTable:
    """One table of the configuration.

    Attributes:
        section: The section that it is, or belongs to.
        name: Its key path; a route's by the name of the route.
    """

    section: str
    name: str
    keys: tuple[Key, ...]


def tables(whole: Configuration) -> Iterator[WrittenTable]:
    """Every table, in the order of the tree."""
    for section in type(whole).model_fields:
        value = getattr(whole, section)
        if isinstance(value, BaseModel):
            yield _table(section, section, value)
        elif isinstance(value, Mapping):
            for name, one in value.items():
                yield _table(section, key_path(section, name), one)
        else:
            for at, one in enumerate(value):
                name = getattr(one, "name", at)
                yield _table(section, key_path(section, name), one)


def _table(section: str, name: str, table: BaseModel) -> WrittenTable:
    return WrittenTable(section=section, name=name, keys=tuple(_keys(table)))


def _keys(table: BaseModel, prefix: str = "") -> Iterator[Key]:
    for name, about in type(table).model_fields.items():
        value = getattr(table, name)
        written = prefix + (about.alias or name)
        if isinstance(value, BaseModel):
            yield from _keys(value, f"{written}.")
            continue
        yield Key(
            name=written,
            text=text(value),
            about=about.description or "",
            is_default=not about.is_required() and value == about.default,
            value=value,
        )


def text(value: Any) -> str:
    """A value as it would be written; of a URL without the password."""
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "; ".join(_clause(key, one) for key, one in value.items())
    if isinstance(value, tuple):
        return ", ".join(text(one) for one in value)
    return "" if value is None else str(value)


def _clause(key: str, value: Any) -> str:
    return value.clause(key) if isinstance(value, Matcher) else f"{key}: {text(value)}"
