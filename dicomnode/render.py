"""Documents of `inquiry` and `demo` as text for a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

Document = dict[str, Any]

_COLOURS = {
    "delivered": "green",
    "failed": "red",
    "held": "red",
    "in progress": "yellow",
    "pending": "yellow",
    "predicting": "yellow",
    "delivering": "yellow",
}
_SHOWN_OF_UID = 24


@contextmanager
def progress(console: Console, *, total: int, what: str) -> Iterator[Callable[[], None]]:
    """A bar on a terminal, nothing elsewhere; the block calls what it is given for each step."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=total)
        yield lambda: bar.advance(task)


def status(document: Document) -> Group:
    """The accounting, the workers, the studies and refusals of late."""
    listening = document["node"]["listening_on"]
    where = f"listening on port {listening}" if listening else "not running"
    counts = document["account"]
    identity = (
        f"{counts['received']} received = {counts['delivered']} delivered"
        f" + {counts['not_applicable']} not applicable + {counts['failed']} failed"
        f" + {counts['in_progress']} in progress"
    )
    return Group(
        Text(f"{document['node']['ae_title']}: {where}"),
        Text(identity),
        *_untold(document["commitments_untold"]),
        _workers(document["workers"]),
        _studies(document["studies"]),
        _refused(document["refused"]),
    )


def _untold(count: int) -> list[Text]:
    """A line only where there is something to say: few nodes are asked for commitments."""
    if not count:
        return []
    return [Text(f"{count} storage commitments whose askers have not heard the answer yet")]


def _workers(lines: list[Document]) -> Table | Text:
    if not lines:
        return Text("No worker is running.", style="yellow")
    table = _table("worker", "device", "slots", "since")
    for line in lines:
        device = line["device"] or "delivers"
        if line["requested"] == "auto" and line["device"]:
            device += " (auto)"
        table.add_row(line["id"], device, str(line["slots"] or ""), _time(line["started_at"]))
    return table


def _studies(lines: list[Document]) -> Table | Text:
    if not lines:
        return Text("No study has arrived.")
    table = _table("study", "outcome", "revision", "instances", "arrived")
    for line in lines:
        table.add_row(
            line["study_instance_uid"],
            _state(str(line["outcome"])),
            str(line["revision"]),
            str(line["instances"]),
            _time(line["first_at"]),
        )
    return table


def _refused(lines: list[Document]) -> Table | Text:
    if not lines:
        return Text("")
    table = _table("refused at", "peer", "status", "reason")
    for line in lines:
        reason = f"{line['reason']}: {line['detail']}"
        table.add_row(_time(line["at"]), line["peer"], line["status"], reason)
    return table


def study(document: Document) -> Group:
    """One study: its jobs and its timeline."""
    head = Text.assemble(
        f"{document['study']}  revision {document['revision']},"
        f" {document['instances']} instances: ",
        _state(document["outcome"]),
    )
    return Group(head, _jobs(document["jobs"]), _timeline(document["timeline"]))


def _jobs(entries: list[Document]) -> Table:
    table = _table("rule", "series", "state", "reason, or results")
    for entry in entries:
        results = "\n".join(
            f"{one['kind']}: {one['path'] or 'removed'}" for one in entry["results"]
        )
        told = "\n".join(part for part in (entry["reason"], results) if part)
        table.add_row(entry["route"], _uid(entry["series"]), _state(entry["state"]), told)
    return table


def _timeline(entries: list[Document]) -> Table:
    table = _table("time", "what", "")
    for entry in entries:
        facts = ", ".join(f"{key} {value}" for key, value in entry["facts"].items() if value != "")
        table.add_row(_time(entry["at"]), entry["what"], facts)
    return table


def why(document: Document) -> Group:
    """For each rule and series the clause that decided."""
    table = _table("rule", "series", "decision", "because", "the study had")
    for one in document["decisions"]:
        table.add_row(
            one["rule"],
            _uid(one["series_instance_uid"]),
            _state(one["outcome"]),
            one["clause"] or one["detail"],
            one["value"],
        )
    return Group(Text(document["study"]), table)


def retried(document: Document) -> Text:
    """Which jobs run once more."""
    count = len(document["jobs"])
    return Text(
        f"{document['study']}: {count} failed job{'' if count == 1 else 's'} taken up again."
    )


def models(document: list[Document]) -> Table:
    """The bundles of a configuration."""
    table = _table("model", "what it is", "version", "digest", "inputs", "answers")
    for one in document:
        inputs = ", ".join(f"{key} ({modality})" for key, modality in one["inputs"].items())
        answers = ", ".join(one["outputs"].values())
        table.add_row(
            one["name"], one["title"], one["version"], one["digest"][:16], inputs, answers
        )
    return table


def models_check(document: list[Document]) -> Table:
    """Each bundle with what is wrong with it."""
    table = _table("model", "", "")
    for one in document:
        verdict = Text("sound", style="green") if one["sound"] else Text("refused", style="red")
        table.add_row(one["name"], verdict, one["detail"])
    return table


def demo(document: Document) -> Group:
    """What the demo did: each rule's outcome, and the seconds of each stage."""
    parts: list[Any] = [Text(f"study {document['study']}"), _jobs(document["jobs"])]
    for entry in document["jobs"]:
        if entry["timings_s"]:
            parts.append(_seconds(entry["timings_s"]))
        parts += [
            Text(f"overlay: {Path(one['path']).with_name('overlay.png')}")
            for one in entry["results"]
            if one["kind"] == "seg"
        ]
    return Group(*parts)


def _seconds(timings: dict[str, float]) -> Table:
    table = _table(*timings)
    table.add_row(*(f"{seconds:.2f} s" for seconds in timings.values()))
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _state(state: str) -> Text:
    return Text(state.replace("_", " "), style=_COLOURS.get(state, ""))


def _uid(series: str | list[str]) -> str:
    """A UID's end: that is where they differ."""
    every = [series] if isinstance(series, str) else series
    return "\n".join(
        uid if len(uid) <= _SHOWN_OF_UID else f"…{uid[-_SHOWN_OF_UID:]}" for uid in every
    )


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, tz=UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")
