"""The configuration in force, its secrets masked, and every problem that `check` finds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from dicomnode import check, config
from dicomnode.archive.access.audit import Action
from dicomnode.matcher import Matcher
from dicomnode.web import security, surroundings
from dicomnode.web.security import ActOfAdministrator, Administrator
from dicomnode.web.shown import shown
from dicomnode.web.surroundings import Surroundings

router = APIRouter()

_MASK = "••••••"


@dataclass(frozen=True, kw_only=True)
class Key:
    """One key of the configuration."""

    name: str
    value: str
    about: str
    is_default: bool


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table of the configuration."""

    name: str
    keys: tuple[Key, ...]


@router.get("/configuration")
def configuration(request: Request, _visitor: Administrator) -> Response:
    """The page."""
    here = surroundings.of(request)
    return shown(request, "configuration.html", problems=None, **_values(here))


@router.post("/configuration/check")
def check_now(request: Request, act: ActOfAdministrator) -> Response:
    """Check the file as it is now: every bundle is compared with its lock, which may take long."""
    here = surroundings.of(request)
    found = check.run(here.file, live=bool(act.text("live")))
    security.note(
        here, act.visitor, Action.CHECK, subject=here.file.name, detail=f"{len(found)} problems"
    )
    return shown(request, "configuration.html", problems=found, **_values(here))


def _values(here: Surroundings) -> dict[str, Any]:
    return {"file": here.file, "tables": list(_tables(here.configuration))}


def _tables(whole: config.Configuration) -> Iterator[Table]:
    for name in type(whole).model_fields:
        value = getattr(whole, name)
        if isinstance(value, BaseModel):
            yield Table(name=name, keys=tuple(_keys(value)))
        elif isinstance(value, Mapping):
            for key, one in value.items():
                yield Table(name=config.key_path(name, key), keys=tuple(_keys(one)))
        else:
            for at, one in enumerate(value):
                yield Table(name=config.key_path(name, at), keys=tuple(_keys(one)))


def _keys(table: BaseModel, prefix: str = "") -> Iterator[Key]:
    for name, about in type(table).model_fields.items():
        value = getattr(table, name)
        written = prefix + (about.alias or name)
        if isinstance(value, BaseModel):
            yield from _keys(value, f"{written}.")
            continue
        yield Key(
            name=written,
            value=_text(value),
            about=about.description or "",
            is_default=not about.is_required() and value == about.default,
        )


def _text(value: Any) -> str:
    """A value as it would be written."""
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "; ".join(_clause(key, one) for key, one in value.items())
    if isinstance(value, tuple):
        return ", ".join(_text(one) for one in value)
    return "" if value is None else str(value)


def _clause(key: str, value: Any) -> str:
    return value.clause(key) if isinstance(value, Matcher) else f"{key}: {_text(value)}"


def masked(text: str) -> str:
    """A text; of a URL without the password."""
    try:
        parts = urlsplit(text)
        password = parts.password
    except ValueError:
        return _MASK
    if not password:
        return text
    user, _, host = parts.netloc.rpartition("@")
    name = user.partition(":")[0]
    return parts._replace(netloc=f"{name}:{_MASK}@{host}").geturl()
