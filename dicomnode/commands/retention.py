"""`dicomnode retention`: what is removed, and when; nothing is, by asking."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.table import Table
from rich.text import Text

from dicomnode import config, inquiry
from dicomnode.archive.keeping.preview import Amount, Preview, preview
from dicomnode.console import DEFAULT_FILE, FileOption, Json, show

_WHEN = {0: "now", 1: "within a day", 7: "within a week", 30: "within a month"}
_GIB = 2**30


def retention(
    *,
    days: Annotated[
        float | None,
        typer.Option(min=0.001, help="As if studies were kept for so many days."),
    ] = None,
    file: FileOption = DEFAULT_FILE,
    as_json: Json = False,
) -> None:
    """Show what would be removed and when, and what is kept and why; remove nothing."""
    configuration = config.load(file)
    kept_for = configuration.disk.keep_delivered_days if days is None else days
    with inquiry.looking(configuration) as tx:
        found = preview(tx, days=kept_for, now=time.time())
    show(_document(found), as_json=as_json, text=_text)


def _document(found: Preview) -> dict[str, Any]:
    return {
        "days": found.days,
        "due_within_days": {str(ahead): asdict(one) for ahead, one in found.due.items()},
        "later": asdict(found.later),
        "oldest": found.oldest,
        "kept": {str(why): asdict(one) for why, one in found.kept.items()},
    }


def _text(document: dict[str, Any]) -> Group:
    days = document["days"]
    if days is None:
        rule = "Nothing is ever removed: disk.keep_delivered_days is left out. --days N says what"
        rule += " would be."
    else:
        rule = f"Kept for {days:g} days after the last thing that happened to a study."
    due = [(_WHEN[int(ahead)], one) for ahead, one in document["due_within_days"].items()]
    later = "later" if days is not None else "could be, if a time were given"
    rows = [*(due if days is not None else []), (later, document["later"])]
    return Group(
        Text(rule),
        _table("removed", rows),
        _table("kept, whatever the time, because", list(document["kept"].items())),
    )


def _table(title: str, rows: list[tuple[str, dict[str, Any]]]) -> Table:
    table = Table(title, "studies", "GiB", box=None)
    for name, one in rows:
        amount = Amount(**one)
        table.add_row(name, str(amount.studies), f"{amount.size / _GIB:.1f}")
    return table
