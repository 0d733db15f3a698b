"""The tables of the file as they are written, of which nothing is known yet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Tables = Mapping[str, Any]


def table(raw: Tables, name: str) -> Tables:
    """The table of that name; empty where there is none, or something else in its place."""
    found = raw.get(name)
    return found if isinstance(found, dict) else {}


def tables(raw: Tables, section: str) -> Iterator[tuple[Any, Tables]]:
    """Name or number, and table as written, of each member of a section that is a table."""
    members = raw.get(section)
    if isinstance(members, dict):
        pairs: Iterator[tuple[Any, Any]] = iter(members.items())
    else:
        pairs = enumerate(members if isinstance(members, list) else ())
    return ((key, one) for key, one in pairs if isinstance(one, dict))
