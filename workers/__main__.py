"""`python -m workers FILE`: dispatch and work; `try` and `tune`: look at one bundle."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import typer

from dicomnode import config, hangup, log, settings
from dicomnode.archive.database import Database
from dicomnode.archive.work.leases import Task
from dicomnode.bundle import Bundle
from dicomnode.config import Configuration
from dicomnode.errors import Misconfigured, NodeError
from dicomnode.network import tls
from dicomnode.supervisor import EXIT_MISCONFIGURED, Supervisor
from workers import app, device, trial, tune
from workers.context import PerProcess, Worker
from workers.watch import Own, Watch

_log = log.get(__name__)


def command(file: Path, only: Task) -> list[str]:
    """The command line of one kind of worker."""
    return [sys.executable, "-m", "workers", str(file), "--only", str(only)]


def main(
    file: Annotated[Path, typer.Argument(help="The configuration, as for `dicomnode serve`.")],
    only: Annotated[
        Task | None, typer.Option(help="Only predict, or only deliver; both by default.")
    ] = None,
    *,
    again: Annotated[bool, typer.Option("--again", hidden=True)] = False,
) -> None:
    """Run models on studies that wait, and deliver their results.

    SIGTERM finishes what runs; SIGQUIT hands it back. Exit code 2: the configuration is at fault.
    """
    hangup.hold_back()
    log.configure()
    if only is None:
        both = {str(task): command(file, task) for task in Task}
        raise typer.Exit(Supervisor(both).run())
    try:
        _work(file, only)
    except NodeError as error:
        _log.error("worker refuses to start", reason=error.reason, detail=error.detail)
        # Its file was good a moment ago: who keeps it running is to try again.
        is_final = isinstance(error, Misconfigured) and not again
        raise typer.Exit(EXIT_MISCONFIGURED if is_final else 1) from error


def _work(file: Path, task: Task) -> None:
    configuration = config.load(file)
    wanted = settings.bundles if task is Task.PREDICT else _no_bundles
    loaded = wanted(configuration)
    worker = Worker(
        configuration=configuration,
        bundles=loaded,
        owner=f"{socket.gethostname()}:{os.getpid()}:{time.time():.0f}:{task}",
        device=_device(configuration, task),
        certificates=tls.for_calling(configuration.tls, configuration.peers.values()),
    )
    database = Database(configuration.database.url)
    database.migrate()
    database.close()  # nothing that is open here may be inherited by a child
    own = Own(file=file, configuration=configuration, bundles=wanted)
    if app.run(configuration, task, PerProcess(worker), Watch(own, loaded=loaded)):
        _begin_anew(file, task)


def _begin_anew(file: Path, task: Task) -> None:
    """Become a new worker: the same process, as whoever looks after it sees it."""
    hangup.hold_back()  # until the new one listens
    words = [*command(file, task), "--again"]
    os.execv(words[0], words)  # noqa: S606 - our own command


def _no_bundles(_configuration: Configuration) -> Mapping[str, Bundle]:
    return {}


def _device(configuration: Configuration, task: Task) -> str:
    """Choose the device once, before any child is forked; deliveries need none."""
    if task is Task.DELIVER:
        return ""
    chosen = device.probe(configuration.worker.device)
    _log.info("device chosen", requested=configuration.worker.device, chosen=chosen)
    return chosen


if __name__ == "__main__":
    # The first word is a file, or one of these.
    others: dict[str, Callable[..., None]] = {"try": trial.main, "tune": tune.main}
    chosen = others.get(sys.argv[1]) if len(sys.argv) > 1 else None
    if chosen is not None:
        del sys.argv[1]
    typer.run(chosen or main)
