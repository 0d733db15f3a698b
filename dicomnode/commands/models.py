"""`dicomnode models …`: bundles from their arrival to their last use."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from dicomnode import bundle, config, inquiry, render
from dicomnode.config import Configuration
from dicomnode.console import DEFAULT_FILE, EXIT_FAILED, FileOption, Json, err, out, show
from dicomnode.errors import Misconfigured
from dicomnode.inquiry import Document
from dicomnode.onboarding import add, zoo
from dicomnode.supervisor import EXIT_MISCONFIGURED

_MODELS_DIR = "models"
_AUTO = "auto"

models = typer.Typer(help="The MONAI bundles of a configuration.", no_args_is_help=True)

Device = Annotated[str | None, typer.Option(help="Where the trial runs: cpu, cuda:0.")]
Run = Annotated[bool, typer.Option("--run", help="Run each model once on a synthetic image.")]


@models.command("add")
def models_add(
    source: Annotated[
        str,
        typer.Argument(help="A folder, an archive, or a name of the Model Zoo: NAME[@VERSION]."),
    ],
    *,
    into: Annotated[
        Path | None, typer.Option(help="Where bundles lie; models beside the configuration.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Of the bundle's folder.")] = None,
    file: Annotated[Path | None, typer.Option("--config", "-c", help="The configuration.")] = None,
    index: Annotated[str, typer.Option("--zoo", help="The Zoo's index, or a copy's.")] = zoo.INDEX,
    trial: Annotated[bool, typer.Option("--run/--no-run", help="Run it once.")] = True,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Bring a bundle, draft its dicom.toml, lock it, and run it once on a synthetic image."""
    configuration = None if file is None else config.load(file)
    with render.download(err) as progress:
        added = add.add(
            source,
            into=into or (file or Path()).absolute().parent / _MODELS_DIR,
            name=name,
            index=index,
            progress=progress,
        )
    document = inquiry.added(added, run=trial, device=device or _device(configuration))
    show(document, as_json=as_json, text=render.added)
    ran = document["trial"] is None or document["trial"]["ran"]
    raise typer.Exit(0 if ran else EXIT_FAILED)


@models.command("list")
def models_list(*, file: FileOption = DEFAULT_FILE, as_json: Json = False) -> None:
    """Show each model's version, digest, answers, device, tuning, memory and last use."""
    show(inquiry.models(config.load(file)), as_json=as_json, text=render.models)


@models.command("check")
def models_check(
    bundle_dir: Annotated[
        Path | None, typer.Argument(help="One bundle's folder; left out, those configured.")
    ] = None,
    *,
    file: FileOption = DEFAULT_FILE,
    run: Run = False,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Find what is wrong with each bundle, and what it needs and this installation lacks.

    Exit code 0: nothing, or notes; 1: warnings; 2: errors.
    """
    found = _checked(bundle_dir, file, run=run, device=device)
    show(found, as_json=as_json, text=render.models_check)
    if not all(one["sound"] for one in found):
        raise typer.Exit(EXIT_MISCONFIGURED)
    raise typer.Exit(EXIT_FAILED if any(map(inquiry.has_warning, found)) else 0)


def _checked(
    bundle_dir: Path | None, file: Path, *, run: bool, device: str | None
) -> list[Document]:
    if bundle_dir is None:
        configuration = config.load(file)
        return inquiry.check_models(configuration, run=run, device=device or _device(configuration))
    if not bundle_dir.is_dir():
        raise Misconfigured("bundle-missing", f"{bundle_dir} is no folder. Name the bundle's.")
    return [inquiry.check_bundle(bundle_dir, run=run, device=device)]


def _device(configuration: Configuration | None) -> str | None:
    """The device that the workers of a configuration are told; `None` leaves the choice to them."""
    chosen = _AUTO if configuration is None else configuration.worker.device
    return None if chosen == _AUTO else chosen


@models.command("lock")
def models_lock(
    bundle_dir: Annotated[Path, typer.Argument(help="The bundle's folder.")],
    *,
    manifest: Annotated[Path | None, typer.Option(help="dicom.toml, if elsewhere.")] = None,
) -> None:
    """Write bundle.lock: trust the files as they are now."""
    digest = bundle.write_lock(bundle_dir, manifest=manifest)
    out.print(f"{bundle.lock_path(bundle_dir, manifest=manifest)}: {digest}", markup=False)


@models.command("tune")
def models_tune(
    name: Annotated[str, typer.Argument(help="Of the model, in the configuration.")],
    *,
    file: FileOption = DEFAULT_FILE,
) -> None:
    """Measure the fastest way of running a model on this machine that says the same."""
    line = [sys.executable, "-m", "workers", "tune", str(file), name]
    raise typer.Exit(subprocess.run(line, check=False).returncode)  # noqa: S603 - our own program
