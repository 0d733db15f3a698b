"""`dicomnode alerts …`: what the node tells of without being asked."""

from __future__ import annotations

import asyncio
import time

import typer
from rich.console import Group
from rich.table import Table
from rich.text import Text

from dicomnode import config, inquiry
from dicomnode.alerting import trial
from dicomnode.alerting.wording import moment
from dicomnode.console import DEFAULT_FILE, EXIT_FAILED, FileOption, Json, show
from dicomnode.errors import Misconfigured
from dicomnode.inquiry import Document

alerts = typer.Typer(help="What the node tells of without being asked.", no_args_is_help=True)


@alerts.command("list")
def alerts_list(*, file: FileOption = DEFAULT_FILE, as_json: Json = False) -> None:
    """Show what is wrong now, what was, and which channel does not work."""
    show(inquiry.alerts(config.load(file)), as_json=as_json, text=_told)


@alerts.command("test")
def alerts_test(*, file: FileOption = DEFAULT_FILE, as_json: Json = False) -> None:
    """Send a message by every channel, and say what came of each."""
    configuration = config.load(file)
    if not configuration.alerts.channels:
        raise Misconfigured(
            "no-channel", "Nobody would be told: give [alerts.email] or [alerts.webhook]."
        )
    document = asyncio.run(trial.run(configuration, at=time.time()))
    show(document, as_json=as_json, text=_tried)
    raise typer.Exit(0 if all(one["sent"] for one in document["channels"]) else EXIT_FAILED)


def _told(document: Document) -> Group:
    if not document["alerts"]:
        return Group(Text("Nothing is wrong, and nothing was."))
    table = Table("alert", "since", "over", "what", "told", box=None)
    for one in document["alerts"]:
        told = ", ".join(f"{m['channel']} {m['occasion']} {m['state']}" for m in one["messages"])
        over = Text(moment(one["over_at"])) if one["over_at"] else Text("goes on", style="red")
        table.add_row(one["alert"], moment(one["since"]), over, one["says"], told)
    lines = [
        f"{one['channel']} does not work, {one['count']} messages wait:"
        f" {one['reason']}: {one['detail']}"
        for one in document["not_sent"]
    ]
    return Group(table, *(Text(line, style="red") for line in lines))


def _tried(document: Document) -> Group:
    return Group(
        *(
            Text(f"{one['channel']}: sent. {one['detail']}".rstrip())
            if one["sent"]
            else Text(f"{one['channel']}: {one['reason']}: {one['detail']}", style="red")
            for one in document["channels"]
        )
    )
