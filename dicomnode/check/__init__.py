"""Every problem of a configuration, in one pass: of shape, of sense, of the place, of the peers.

A fault in one section hides none in another: each is looked at as far as it can be understood.
Nothing is created, changed or stored by looking.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from dicomnode import config
from dicomnode.check import live as live_checks
from dicomnode.check import place
from dicomnode.config import Parts, Problem, Reading

EXIT_CLEAN = 0
EXIT_WARNINGS = 1
EXIT_ERRORS = 2


def run(
    path: Path, environ: Mapping[str, str] | None = None, *, live: bool = False
) -> tuple[Problem, ...]:
    """Every problem of the configuration in the file at `path`, on this machine, now.

    Args:
        path: The TOML file.
        environ: Where overrides are looked for; `None` is the environment of the process.
        live: Also speak with the destinations, the broker and the database server.
    """
    return of(config.read(path, environ), live=live)


def of(reading: Reading, *, live: bool = False) -> tuple[Problem, ...]:
    """The same of what was read already."""
    if reading.parts == Parts():
        return reading.problems  # nothing of it could be understood
    found = [*reading.problems, *place.problems(reading)]
    if live:
        found += live_checks.problems(reading.parts)
    return tuple(found)


def exit_code(problems: Sequence[Problem]) -> int:
    """0 where there is no problem, 1 where there are only warnings, 2 where there is an error."""
    if any(problem.level == "error" for problem in problems):
        return EXIT_ERRORS
    return EXIT_WARNINGS if problems else EXIT_CLEAN


def as_text(problems: Sequence[Problem]) -> str:
    """The problems for a person: one line each, and how many there are."""
    if not problems:
        return "No problems."
    lines = [f"{problem.level}: {problem} [{problem.code}]" for problem in problems]
    errors = sum(problem.level == "error" for problem in problems)
    total = ", ".join((_counted(errors, "error"), _counted(len(problems) - errors, "warning")))
    return "\n".join([*lines, f"{total}."])


def as_json(problems: Sequence[Problem]) -> str:
    """The problems as one JSON document: `exit_code` and a list of `problems`."""
    document = {
        "exit_code": exit_code(problems),
        "problems": [asdict(problem) for problem in problems],
    }
    return json.dumps(document, indent=2)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
