"""Documents of `inquiry` and `demo` as text for a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TransferSpeedColumn,
)
from rich.table import Table
from rich.text import Text

from dicomnode.bundle import DIGEST_SHOWN

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
_SHOWN_DIFFERENCES = 50
_GIB = 2**30


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
        *_wrong(document["alerts"]),
        _workers(document["workers"]),
        _studies(document["studies"]),
        _refused(document["refused"]),
    )


def _untold(count: int) -> list[Text]:
    """A line only where there is something to say: few nodes are asked for commitments."""
    if not count:
        return []
    return [Text(f"{count} storage commitments whose askers have not heard the answer yet")]


def _wrong(lines: list[Document]) -> list[Text]:
    """What is wrong now: a line for each alert that is open."""
    return [
        Text(f"{one['alert']} since {_time(one['since'])}: {one['says']}", style="red")
        for one in lines
    ]


def _workers(lines: list[Document]) -> Table | Text:
    if not lines:
        return Text("No worker is running.", style="yellow")
    table = _table("worker", "device", "slots", "since")
    for line in lines:
        device = line["device"] or "delivers"
        if line["requested"] == "auto" and line["device"]:
            device += " (auto)"
        if line["memory_total"]:
            used, total = line["memory_used"] / _GIB, line["memory_total"] / _GIB
            device += f", {used:.1f} of {total:.1f} GiB in use"
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


def people(document: list[Document]) -> Table | Text:
    """The accounts of the page."""
    if not document:
        return Text("Nobody may sign in. `dicomnode users add` makes an account.")
    table = _table("name", "role", "signs in with", "since", "open sessions")
    for one in document:
        how = one["issuer"] or "a password"
        since, sessions = _time(one["created_at"]), str(one["sessions"])
        table.add_row(one["name"], one["role"], how, since, sessions)
    return table


def retried(document: Document) -> Text:
    """Which jobs run once more."""
    count = len(document["jobs"])
    return Text(
        f"{document['study']}: {count} failed job{'' if count == 1 else 's'} taken up again."
    )


def models(document: list[Document]) -> Table:
    """The bundles of a configuration."""
    columns = ("model", "what it is", "version", "digest", "answers", "device", "tuning", "memory")
    table = _table(*columns, "last used")
    for one in document:
        last = _time(one["last_used_at"]) if one["last_used_at"] else "never"
        if one["fault"]:
            table.add_row(one["name"], Text(one["fault"], style="red"), *[""] * 6, last)
            continue
        tuned = one["tuning"] if one["is_tuned"] else None
        table.add_row(
            one["name"],
            one["title"],
            one["version"],
            one["digest"][:DIGEST_SHOWN],
            ", ".join(dict.fromkeys(one["outputs"].values())),
            one["device"] or "not run yet",
            _tuning(one),
            _size(tuned["memory_bytes"]) if tuned else "",
            last,
        )
    return table


def _tuning(one: Document) -> str:
    tuned = one["tuning"]
    if tuned is None:
        return "not tuned"
    if not one["is_tuned"]:
        return "tuned for other files: tune again"
    took, before = tuned["seconds"], tuned["seconds_float32"]
    gain = f" ({took:.2f} s, as published {before:.2f} s)" if took and before else ""
    return f"{tuned['described']}{gain}"


def _size(count: int | None) -> str:
    return "" if count is None else f"{count / _GIB:.1f} GiB"


_LEVELS = {"error": "red", "warning": "yellow", "note": "dim"}


def models_check(document: list[Document]) -> Group:
    """Each bundle with what is wrong with it, if anything."""
    parts: list[Any] = []
    for one in document:
        verdict = Text("sound", style="green") if one["sound"] else Text("refused", style="red")
        parts.append(Text.assemble(one["name"], ": ", verdict, f"  {one['detail']}".rstrip()))
        parts += [_finding(each) for each in one["findings"]]
        parts += _trial(one["trial"])
    return Group(*parts)


def _finding(one: Document) -> Text:
    style = _LEVELS[one["level"]]
    return Text.assemble("  ", (one["level"], style), f" {one['code']}: {one['message']}")


def _trial(one: Document | None) -> list[Text]:
    if one is None:
        return []
    if not one["ran"]:
        told = f"  trial: {one['reason']}: {one['detail']}"
        return [Text(told, style="red")]
    took = f" in {one['seconds']:.2f} s" if one["seconds"] is not None else ""
    memory = f", {_size(one['memory_bytes'])} of memory" if one["memory_bytes"] else ""
    lines = [Text(f"  trial: ran on {one['device']}{took}{memory}", style="green")]
    for answer in one["answers"]:
        shape = " x ".join(map(str, answer.get("shape") or ()))
        lines.append(Text(f"    {answer.get('output')}: {answer.get('kind')} {shape}".rstrip()))
    return lines


def added(document: Document) -> Group:
    """A bundle that has just come, and what to do next."""
    path = document["path"]
    parts: list[Any] = [
        Text(f"{path}: version {document['version']}, sha256 {document['digest']}"),
        *(Text(f"  warning: {one}", style="yellow") for one in document["warnings"]),
        *(_finding(one) for one in document["findings"]),
        *_trial(document["trial"]),
        *_next_steps(document),
    ]
    return Group(*parts)


def _next_steps(document: Document) -> list[Text]:
    path, steps = document["path"], []
    tried = document["trial"]
    if tried is not None and not tried["ran"]:
        steps.append(
            f"Mend what kept the trial from running, then: dicomnode models check {path} --run"
        )
    if document["guesses"]:
        count = len(document["guesses"])
        steps.append(
            f"Confirm {count} guess{'' if count == 1 else 'es'} in {path}/dicom.toml: correct each,"
            " take it out of `draft`."
        )
        steps.append(f"dicomnode models lock {path}")
    steps.append(f'Name it in the configuration: [models.{document["name"]}], bundle = "{path}"')
    return [Text(f"  {number}. {step}") for number, step in enumerate(steps, start=1)]


@contextmanager
def download(console: Console) -> Iterator[Callable[[int, int | None], None]]:
    """A bar of bytes on a terminal, nothing elsewhere; it begins with the first byte."""
    columns = (TextColumn("downloading"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("downloading", total=None, visible=False)

        def advance(count: int, total: int | None) -> None:
            bar.update(task, completed=count, total=total, visible=True)

        yield advance


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


def replayed(document: Document) -> Group:
    """What a proposed configuration would change, study by study."""
    counts = ", ".join(f"{count} {what}" for what, count in document["counts"].items() if count)
    lines: list[Any] = [
        Text(
            f"{document['studies']} studies since {_time(document['since'])}:"
            f" {document['runs_before']} runs, {document['runs_after']} as proposed"
        ),
        Text(counts or "nothing would change", style="bold"),
    ]
    if document["without_headers"]:
        removed = f"{document['without_headers']} of them were removed, and cannot be asked"
        lines.append(Text(removed, style="yellow"))
    if document["differences"]:
        lines.append(_differences(document["differences"]))
    return Group(*lines)


def _differences(differences: list[Document]) -> Table:
    table = _table("study", "model", "what", "from", "to", "because")
    for one in differences[:_SHOWN_DIFFERENCES]:
        table.add_row(
            _uid(one["study_instance_uid"]),
            one["model"],
            one["change"],
            ", ".join(one["before"]),
            ", ".join(one["after"]),
            one["because"],
        )
    if len(differences) > _SHOWN_DIFFERENCES:
        table.add_row(f"and {len(differences) - _SHOWN_DIFFERENCES} more: --json", *[""] * 5)
    return table


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
