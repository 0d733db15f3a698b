"""Reading the file: what it says as far as it can be understood, and every problem, in one pass."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from dicomnode.config import fault, override, sense
from dicomnode.config.alerts import Alerts
from dicomnode.config.audit import Audit
from dicomnode.config.oidc import Oidc
from dicomnode.config.peer import Peer
from dicomnode.config.problem import Problem, key_path
from dicomnode.config.tree import (
    COLLECTIONS,
    SECTIONS,
    Complete,
    Configuration,
    Database,
    Deliver,
    Disk,
    Listen,
    Model,
    Node,
    Queue,
    Route,
    Tls,
    Web,
    Worker,
)
from dicomnode.config.values import FOLDER
from dicomnode.errors import Misconfigured

_Table = TypeVar("_Table", bound=BaseModel)


class ConfigurationError(Misconfigured):
    """The configuration cannot be used.

    Attributes:
        problems: Every problem of shape and sense, warnings included.
    """

    def __init__(self, path: Path, problems: tuple[Problem, ...]) -> None:
        faults = [problem for problem in problems if problem.level == "error"]
        lines = "".join(f"\n  {problem}" for problem in faults)
        super().__init__("configuration-faulty", f"{path} cannot be used:{lines}")
        self.problems = problems


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The sections that could be understood; what could not is `None` or left out."""

    node: Node | None = None
    listen: Listen | None = None
    tls: Tls | None = None
    database: Database | None = None
    disk: Disk | None = None
    queue: Queue | None = None
    worker: Worker | None = None
    complete: Complete | None = None
    deliver: Deliver | None = None
    web: Web | None = None
    oidc: Oidc | None = None
    alerts: Alerts | None = None
    audit: Audit | None = None
    peers: Mapping[str, Peer] = field(default_factory=dict)
    models: Mapping[str, Model] = field(default_factory=dict)
    routes: Mapping[int, Route] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What the file and the environment say.

    Attributes:
        raw: The tables as written, overrides laid over them.
        parts: What of it could be understood.
        problems: Every problem of shape and sense.
        configuration: The whole; `None` where there is an error.
    """

    raw: Mapping[str, Any] = field(repr=False)
    parts: Parts
    problems: tuple[Problem, ...]
    configuration: Configuration | None


def load(path: Path, environ: Mapping[str, str] | None = None) -> Configuration:
    """The configuration in the file at `path`, overridden by `environ`.

    Args:
        path: The TOML file; paths in it are relative to its folder.
        environ: Where overrides are looked for; `None` is the environment of the process.

    Raises:
        ConfigurationError: It has faults of shape or sense, each among the error's `problems`.
    """
    reading = read(path, environ)
    if reading.configuration is None:
        raise ConfigurationError(path, reading.problems)
    return reading.configuration


def read(path: Path, environ: Mapping[str, str] | None = None) -> Reading:
    """As `load`, for who wants the problems and whatever could be understood beside them."""
    environ = os.environ if environ is None else environ  # noqa: TID251 - here, and nowhere else
    try:
        file = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        problem = _unreadable(path, error)
        return Reading(raw={}, parts=Parts(), problems=(problem,), configuration=None)
    overridden = override.apply(file, environ)
    reader = _Reader(overridden.raw, folder=path.absolute().parent)
    parts = reader.parts()
    found = _with_origin([*reader.problems, *sense.problems(overridden.raw)], overridden.variables)
    problems = (*overridden.problems, *found)
    failed = any(problem.level == "error" for problem in problems)
    return Reading(
        raw=overridden.raw,
        parts=parts,
        problems=problems,
        configuration=None if failed else _whole(parts),
    )


def _unreadable(
    path: Path, error: OSError | UnicodeDecodeError | tomllib.TOMLDecodeError
) -> Problem:
    if isinstance(error, OSError):
        message = f"{path}: {error.strerror}. `dicomnode init` writes a file to start from."
        return Problem.error("", message, "unreadable-file")
    if isinstance(error, UnicodeDecodeError):
        message = f"{path}: Byte {error.start} is not UTF-8. Save the file as UTF-8 text."
    else:
        message = f"{path}: This is not TOML: {error}."  # the error names line and column
    return Problem.error("", message, "syntax")


def _with_origin(problems: list[Problem], variables: Mapping[str, str]) -> list[Problem]:
    """The problems, those that come from the environment saying so."""
    return [_one_with_origin(problem, variables) for problem in problems]


def _one_with_origin(problem: Problem, variables: Mapping[str, str]) -> Problem:
    for path, variable in variables.items():
        if problem.path == path or problem.path.startswith((f"{path}.", f"{path}[")):
            return replace(problem, message=f"{problem.message} {variable} says so.")
    return problem


def _whole(parts: Parts) -> Configuration:
    sections = {name: getattr(parts, name) for name in SECTIONS}
    return Configuration(
        **sections,
        peers=dict(parts.peers),
        models=dict(parts.models),
        routes=tuple(parts.routes.values()),
    )


class _Reader:
    """Understands one section after the other, and keeps the problems that it meets."""

    def __init__(self, raw: Mapping[str, Any], *, folder: Path) -> None:
        self._raw = raw
        self._context = {FOLDER: folder}
        self.problems: list[Problem] = []

    def parts(self) -> Parts:
        """Every section, each validated by itself."""
        known = {**SECTIONS, **COLLECTIONS}
        self.problems += [
            fault.unknown_key(key, known, path=key_path(key))
            for key in self._raw
            if key not in known
        ]
        return Parts(
            node=self._section(Node, "node"),
            listen=self._section(Listen, "listen"),
            tls=self._section(Tls, "tls"),
            database=self._section(Database, "database"),
            disk=self._section(Disk, "disk"),
            queue=self._section(Queue, "queue"),
            worker=self._section(Worker, "worker"),
            complete=self._section(Complete, "complete"),
            deliver=self._section(Deliver, "deliver"),
            web=self._section(Web, "web"),
            oidc=self._section(Oidc, "oidc"),
            alerts=self._section(Alerts, "alerts"),
            audit=self._section(Audit, "audit"),
            peers=self._named(Peer, "peers"),
            models=self._named(Model, "models"),
            routes=self._listed(Route, "routes"),
        )

    def _section(self, model: type[_Table], name: str) -> _Table | None:
        return self._table(model, self._raw.get(name, {}), name)

    def _named(self, model: type[_Table], section: str) -> dict[str, _Table]:
        tables = self._raw.get(section, {})
        if not isinstance(tables, dict):
            self._wrong_type(tables, f"tables such as [{section}.NAME]", section)
            return {}
        read = {name: self._table(model, table, section, name) for name, table in tables.items()}
        return {name: table for name, table in read.items() if table is not None}

    def _listed(self, model: type[_Table], section: str) -> dict[int, _Table]:
        tables = self._raw.get(section, [])
        if not isinstance(tables, list):
            self._wrong_type(tables, f"tables in double brackets: [[{section}]]", section)
            return {}
        read = {at: self._table(model, table, section, at) for at, table in enumerate(tables)}
        return {at: table for at, table in read.items() if table is not None}

    def _table(self, model: type[_Table], value: Any, *keys: str | int) -> _Table | None:
        try:
            return model.model_validate(value, context=self._context)
        except ValidationError as error:
            self.problems += fault.problems(error, model, prefix=keys)
            return None

    def _wrong_type(self, value: Any, expected: str, section: str) -> None:
        self.problems.append(fault.wrong_type(value, expected=expected, path=key_path(section)))
