"""The command line: each command calls one function.

Exit codes: 0 all is well; 1 warnings, or something that was asked for did not succeed; 2 the
configuration or the command line is at fault.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from dicomnode import __version__, check, config, demo, inquiry, log, render
from dicomnode.commands.alerts import alerts
from dicomnode.commands.models import models
from dicomnode.commands.retention import retention
from dicomnode.commands.simulate import simulate_
from dicomnode.commands.users import users
from dicomnode.console import (
    DEFAULT_FILE,
    EXIT_FAILED,
    FileOption,
    Json,
    err,
    out,
    seconds,
    show,
    user,
)
from dicomnode.errors import Misconfigured, NodeError
from dicomnode.hangup import Hangups
from dicomnode.network.calling import sender
from dicomnode.network.tls import Certificates, Security
from dicomnode.node import Node
from dicomnode.reload import Reload
from dicomnode.supervisor import EXIT_MISCONFIGURED, Supervisor
from dicomnode.web import Page

#: The bundles that come with the project.
MODELS_DIR = Path(__file__).resolve().parent.parent / "models"

app = typer.Typer(
    help="A DICOM node: receives studies, runs MONAI bundles on them, sends SEG and SR back.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(models, name="models")
app.add_typer(users, name="users")
app.add_typer(alerts, name="alerts")

File = Annotated[Path, typer.Argument(help="The configuration, a TOML file.")]
_TLS_CA_HELP = "Call with TLS; PEM of who has signed the peer's certificate."
_TLS_NAME_HELP = 'What that certificate is called, if not HOST; "" for anything.'
_STUDY_HELP = "A Study Instance UID, or its beginning."


def main() -> None:
    """Run the command line; what the node can name ends in one sentence and an exit code."""
    try:
        app()
    except NodeError as error:
        _end(error)


def _end(error: NodeError) -> NoReturn:
    problems = getattr(error, "problems", ())
    err.print(check.as_text(problems) if problems else str(error), markup=False)
    sys.exit(EXIT_MISCONFIGURED if isinstance(error, Misconfigured) else EXIT_FAILED)


@app.callback(invoke_without_command=True)
def _common(
    *,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")] = False,
) -> None:
    log.configure(level="debug" if verbose else "info")
    if version:
        typer.echo(__version__)
        raise typer.Exit


@app.command()
def init(directory: Annotated[Path, typer.Argument()] = Path()) -> None:
    """Write a commented starting node.toml."""
    path = config.write_starter(directory, models_dir=MODELS_DIR)
    out.print(f"Wrote {path}. Edit it, then: dicomnode check {path}", markup=False)


@app.command("check")
def check_(
    file: File,
    *,
    live: Annotated[bool, typer.Option("--live", help="Ask the peers and the broker too.")] = False,
    as_json: Json = False,
) -> None:
    """Find every problem of shape, sense, place and (with --live) peers, in one pass."""
    problems = check.run(file, live=live)
    typer.echo(check.as_json(problems) if as_json else check.as_text(problems))
    raise typer.Exit(check.exit_code(problems))


@app.command()
def up(file: File) -> None:
    """Run the whole node on one machine: receiver and workers, restarted when they die."""
    config.load(file)
    commands = {
        "serve": [sys.executable, "-m", "dicomnode", "serve", str(file)],
        "predict": [sys.executable, "-m", "workers", str(file), "--only", "predict"],
        "deliver": [sys.executable, "-m", "workers", str(file), "--only", "deliver"],
    }
    raise typer.Exit(Supervisor(commands).run())


@app.command()
def serve(file: File) -> None:
    """Receive, complete and route; the models run in `python -m workers FILE`."""
    hangups = Hangups()
    configuration = config.load(file)
    page = Page(configuration, file=file)
    node = Node(configuration, page=page)
    reload = Reload(file, node)
    page.offer(reload)
    node.run(once_up=lambda: hangups.follow(reload.by_signal))


@app.command()
def send(
    paths: Annotated[list[Path], typer.Argument(help="DICOM files or folders.")],
    to: Annotated[str, typer.Option(help="AET@HOST:PORT")],
    *,
    calling: Annotated[str, typer.Option(help="Our AE title.")] = "DICOMNODE",
    tls_ca: Annotated[Path | None, typer.Option(help=_TLS_CA_HELP)] = None,
    tls_certificate: Annotated[Path | None, typer.Option(help="Our certificate, PEM.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its key, PEM.")] = None,
    tls_name: Annotated[str | None, typer.Option(help=_TLS_NAME_HELP)] = None,
) -> None:
    """Send DICOM files or folders, with progress."""
    destination = _secured(
        sender.parse_destination(to),
        ca=tls_ca,
        certificate=tls_certificate,
        key=tls_key,
        name=tls_name,
    )
    files = sender.dicom_files(
        paths, skipped=lambda file, why: err.print(f"skipped {file}: {why}", markup=False)
    )
    if not files:
        raise Misconfigured("no-dicom-file", "There is no DICOM file to send.")
    with render.progress(err, total=len(files), what="sending") as advance:
        sent = sender.send(
            files, to=destination, calling_ae_title=calling, progress=lambda _: advance()
        )
    stored = [one for one in sent if sender.outcome(one.status) == "stored"]
    for one in sent:
        if one not in stored:
            err.print(f"0x{one.status:04X} {one.comment} {one.path}", markup=False)
    out.print(f"{len(stored)} of {len(files)} files stored at {to}", markup=False)
    raise typer.Exit(0 if len(stored) == len(files) else EXIT_FAILED)


def _secured(
    to: sender.Destination,
    *,
    ca: Path | None,
    certificate: Path | None,
    key: Path | None,
    name: str | None,
) -> sender.Destination:
    """The destination, to be called with TLS where it is said whom to trust."""
    if ca is None:
        if (certificate, key, name) != (None, None, None):
            raise Misconfigured("no-ca", "Whom is to be trusted? Give --tls-ca.")
        return to
    files = config.Tls(
        ca=ca.absolute(),
        certificate=certificate.absolute() if certificate is not None else None,
        key=key.absolute() if key is not None else None,
    )
    return replace(
        to,
        security=Security(certificates=Certificates(files), name=to.host if name is None else name),
    )


@app.command("demo")
def demo_(
    *,
    study: Annotated[Path | None, typer.Option(help="A folder with one DICOM study.")] = None,
    out: Annotated[Path, typer.Option(help="Where everything is written.")] = Path("demo-out"),
    as_json: Json = False,
) -> None:
    """Do the main job once, from end to end: a study in, a SEG and an SR back."""
    with demo.steps(err, quiet=as_json) as step:
        document = demo.run(study=study, out=out, models_dir=MODELS_DIR, step=step)
    show(document, as_json=as_json, text=render.demo)
    raise typer.Exit(EXIT_FAILED if demo.failed(document) else 0)


@app.command()
def status(
    study: Annotated[str | None, typer.Argument(help=_STUDY_HELP)] = None,
    *,
    file: FileOption = DEFAULT_FILE,
    as_json: Json = False,
) -> None:
    """Show the accounting, or one study's timeline."""
    configuration = config.load(file)
    if study is None:
        show(inquiry.status(configuration, now=time.time()), as_json=as_json, text=render.status)
    else:
        show(inquiry.study(configuration, study), as_json=as_json, text=render.study)


@app.command()
def retry(
    study: Annotated[str, typer.Argument(help=_STUDY_HELP)],
    *,
    file: FileOption = DEFAULT_FILE,
    as_json: Json = False,
) -> None:
    """Run the failed jobs of a study once more, or only send their results again."""
    document = inquiry.retry(config.load(file), study, person=user(), now=time.time())
    show(document, as_json=as_json, text=render.retried)


@app.command()
def why(
    study: Annotated[str, typer.Argument(help=_STUDY_HELP)],
    *,
    file: FileOption = DEFAULT_FILE,
    as_json: Json = False,
) -> None:
    """Say for each rule which clause decided, and what the study had."""
    show(inquiry.why(config.load(file), study), as_json=as_json, text=render.why)


@app.command("replay")
def replay_(
    *,
    proposed: Annotated[
        Path, typer.Option("--config", help="The proposed configuration.", show_default=False)
    ],
    since: Annotated[str, typer.Option(help="How far back: 90m, 12h, 7d.")] = "7d",
    running: Annotated[
        Path | None,
        typer.Option("--of", help="The node's own file, where its data is kept elsewhere."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Route the studies that were seen by a proposed configuration, and show what would change."""
    asked = config.load(proposed)
    document = inquiry.replay_(
        config.load(running) if running else asked,
        proposed=asked,
        since=time.time() - seconds(since),
    )
    show(document, as_json=as_json, text=render.replayed)


@app.command()
def schema() -> None:
    """Print the JSON schema of the configuration."""
    typer.echo(json.dumps(config.json_schema(), indent=2))


app.command("simulate")(simulate_)
app.command("retention")(retention)
