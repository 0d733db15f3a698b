"""What every command needs of a terminal: where it writes, and how it ends."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

EXIT_FAILED = 1

_WIDE = 200

Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
FileOption = Annotated[Path, typer.Option("--config", "-c", help="The configuration.")]
DEFAULT_FILE = Path("node.toml")

# What is piped or kept is not folded to the width of a terminal that nobody looks at.
out = Console(width=None if sys.stdout.isatty() else _WIDE)
err = Console(stderr=True)


def show(document: Any, *, as_json: bool, text: Callable[[Any], Any]) -> None:
    """Print a document: as it is, or as text."""
    if as_json:
        typer.echo(json.dumps(document, indent=2))
    else:
        out.print(text(document))
