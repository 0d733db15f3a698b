"""`python -m workers try BUNDLE`: whether a bundle runs here, before any study comes."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from dicomnode import bundle, log
from dicomnode.errors import NodeError
from dicomnode.prediction import Answer
from workers import device as devices
from workers import synthetic
from workers.inference import Models


def main(
    bundle_dir: Annotated[Path, typer.Argument(help="The bundle's folder.")],
    *,
    device: Annotated[str, typer.Option(help="auto, cpu, or cuda:0.")] = devices.AUTO,
    draft: Annotated[bool, typer.Option("--draft", help="Run it though it is a draft.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Run a bundle once on noise that meets its manifest."""
    log.configure(level="error")
    try:
        document = run(bundle_dir, device=device, draft=draft)
    except NodeError as error:
        document = {"ran": False, "reason": error.reason, "detail": error.detail}
    typer.echo(json.dumps(document, indent=2) if as_json else _sentence(document))
    raise typer.Exit(0 if document["ran"] else 1)


def run(bundle_dir: Path, *, device: str, draft: bool) -> dict[str, Any]:
    """Run a bundle once, and say what came of it.

    Raises:
        Misconfigured, ModelFailed: As `bundle.load`, `load_model` and `Models.predict`.
    """
    model = bundle.load(bundle_dir, draft=draft)
    chosen = devices.choose(device)
    models = Models(chosen)
    models.get(model)
    begin = time.perf_counter()
    prediction = models.predict(model, synthetic.inputs(model))
    return {
        "ran": True,
        "seconds": round(time.perf_counter() - begin, 3),
        "device": chosen,
        "memory_bytes": models.used_bytes(model),
        "answers": [_answer(one, model) for one in prediction.answers],
    }


def _answer(answer: Answer, model: bundle.Bundle) -> dict[str, Any]:
    shape = getattr(getattr(answer, "array", None), "shape", ())
    return {
        "output": answer.output,
        "kind": model.manifest.outputs[answer.output].kind,
        "shape": list(shape),
    }


def _sentence(document: dict[str, Any]) -> str:
    if not document["ran"]:
        return f"does not run: {document['reason']}: {document['detail']}"
    kinds = ", ".join(one["kind"] for one in document["answers"])
    return f"runs on {document['device']} in {document['seconds']} s: {kinds}"
