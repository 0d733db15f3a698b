"""What every command needs of a terminal: where it writes, and how it ends."""

from __future__ import annotations

import getpass
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

EXIT_FAILED = 1

_WIDE = 200
_UNITS_S = {"m": 60.0, "h": 3600.0, "d": 86400.0}

Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
FileOption = Annotated[Path, typer.Option("--config", "-c", help="The configuration.")]
DEFAULT_FILE = Path("node.toml")

# What is piped or kept is not folded to the width of a terminal that nobody looks at.
out = Console(width=None if sys.stdout.isatty() else _WIDE)
err = Console(stderr=True)


def seconds(text: str) -> float:
    """A length of time as people write it: 90m, 12h, 7d.

    Raises:
        typer.BadParameter: It is none.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([mhd])", text.strip())
    if found is None:
        raise typer.BadParameter(f"{text!r} is no length of time: write 90m, 12h or 7d")
    return float(found[1]) * _UNITS_S[found[2]]


def user() -> str:
    """Who runs this, as far as the machine knows a name: in a container it may know none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def show(document: Any, *, as_json: bool, text: Callable[[Any], Any]) -> None:
    """Print a document: as it is, or as text."""
    if as_json:
        typer.echo(json.dumps(document, indent=2))
    else:
        out.print(text(document))
