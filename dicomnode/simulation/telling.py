"""What a simulation shows on a terminal: how far it is, and its account at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from dicomnode.simulation.account import Answer, Document

_HINTS = {
    "calling-ae-title-not-recognized": "The node does not know who calls: name the senders below"
    " its [peers], or say with --calling what they call themselves.",
    "called-ae-title-not-recognized": "The node has another AE title than --to says.",
    "peer-unreachable": "Nothing answers there: is the node running, and is the port right?",
}


@contextmanager
def progress(console: Console, *, objects: int) -> Iterator[Callable[[Answer], None]]:
    """A bar on a terminal, nothing elsewhere; the block tells it each answer."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("refused {task.fields[refused]}, tried again {task.fields[again]}"),
        TimeRemainingColumn(),
    )
    refused = again = 0
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("simulating", total=objects, refused=0, again=0)

        def tell(answer: Answer) -> None:
            nonlocal refused, again
            refused += not answer.is_taken and answer.is_final
            again += not answer.is_final
            step = int(answer.is_about_an_object and answer.is_final)
            bar.update(task, advance=step, refused=refused, again=again)

        yield tell


def account(document: Document) -> Group:
    """The account as text."""
    planned, again = document["planned"], document["tried_again"]
    lines = [
        f"{document['acknowledged']} of {planned['objects']} objects acknowledged",
        f"{document['studies']} of {planned['studies']} studies, in {document['seconds']} s",
        f"tried again: {again['associations']} associations, {again['objects']} objects",
        _answers(document["answer_ms"]),
    ]
    if document["taken_though_wrong"]:
        lines.append(f"{document['taken_though_wrong']} taken that were meant to be refused")
    reasons = {one["reason"] for one in document["refused"] if not one["meant"]}
    hints = [hint for reason, hint in _HINTS.items() if reason in reasons]
    return Group(*map(Text, lines), _refused(document["refused"]), *map(Text, hints))


def _answers(milliseconds: Document) -> str:
    if not milliseconds:
        return "no answer"
    return "answers to C-STORE: " + ", ".join(
        f"{'the longest' if name == 'longest' else f'{name} of 100 within'} {value} ms"
        for name, value in milliseconds.items()
    )


def _refused(lines: list[Document]) -> Table | Text:
    if not lines:
        return Text("nothing was refused")
    table = Table("refused", "reason", "count", "as the plan means it", box=None)
    for one in lines:
        table.add_row(
            one["what"], one["reason"], str(one["count"]), "yes" if one["meant"] else "NO"
        )
    return table
