"""`python -m workers tune FILE NAME`: the fastest way of running a model that says the same."""

from __future__ import annotations

import itertools
import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import numpy as np
import typer

from dicomnode import bundle, config, log, volume
from dicomnode.bundle import Bundle
from dicomnode.errors import Misconfigured, NodeError
from dicomnode.prediction import (
    Answer,
    Boxes,
    Classification,
    LabelMap,
    Masks,
    Numbers,
    Points,
    Prediction,
    Registration,
    Shown,
)
from workers import device as devices
from workers import synthetic
from workers.inference import AS_PUBLISHED, Settings, load_model, tuning
from workers.inference.settings import Precision
from workers.inference.tuning import Tuning

if TYPE_CHECKING:
    from workers.inference.loading import Loaded

ROUNDS = 3
LEAST_DICE = 0.999
MOST_APART = 0.01  # of probabilities
MOST_RELATIVE = 0.01  # of coordinates and numbers
_SPAN = 200.0  # mm of a patient: where a registration is looked at
_BATCHES = (1, 2, 4, 8)
_WARM = 1


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One way of running a model.

    Attributes:
        seconds: The median of its runs.
        agreement: What was compared with float32 → how well it agrees.
        is_same: Whether that is well enough.
    """

    settings: Settings
    seconds: float
    agreement: dict[str, float]
    is_same: bool

    @property
    def sentence(self) -> str:
        """For people."""
        batch = self.settings.window_batch
        windows = "" if batch is None else f", {batch} windows at once"
        verdict = "agrees" if self.is_same else "differs"
        return f"{self.settings.described}{windows}: {self.seconds:.3f} s, {verdict}"


def main(
    file: Annotated[Path, typer.Argument(help="The configuration.")],
    name: Annotated[str, typer.Argument(help="The model's name in it.")],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Measure ways of running a model on this machine, and record the fastest that agrees."""
    log.configure(level="error")
    try:
        model, chosen = _asked(file, name)
        found = tune(model, device=chosen, say=(lambda _: None) if as_json else typer.echo)
    except NodeError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2 if isinstance(error, Misconfigured) else 1) from error
    text = json.dumps(found.document(), indent=2)
    tuning.path(model).write_text(text + "\n", encoding="utf-8")
    saved = found.seconds_float32 / found.seconds
    typer.echo(
        text
        if as_json
        else f"{found.settings.described}: {found.seconds:.3f} s, {saved:.2f} times as fast as"
        f" float32 as published. Recorded in {tuning.path(model)}."
    )


def _asked(file: Path, name: str) -> tuple[Bundle, str]:
    configuration = config.load(file)
    model = configuration.models.get(name)
    if model is None:
        known = ", ".join(configuration.models) or "none"
        raise Misconfigured("unknown-model", f"There is no model {name!r}; there are: {known}.")
    chosen = devices.choose(configuration.worker.device)
    return bundle.load(model.bundle, manifest=model.manifest), chosen


def tune(model: Bundle, *, device: str, say: Callable[[str], object]) -> Tuning:
    """Measure every way that makes sense here, and give the fastest whose answer agrees.

    Ways take turns, so that a machine that slows down slows all of them; medians count.
    """
    from workers.inference import memory  # noqa: PLC0415 - torch

    inputs = sample(model)
    loaded = load_model(model, device=device)
    expected = loaded.using(AS_PUBLISHED).predict(inputs)
    layouts = _measured(loaded, _layouts(device), inputs, expected, say)
    best = _fastest(layouts)
    batches = _measured(loaded, _batches(loaded, best.settings), inputs, expected, say)
    best = _fastest([best, *batches])
    memory.forget_peak(device)
    loaded.using(best.settings).predict(inputs)
    return Tuning(
        digest=model.digest,
        device=device,
        machine=tuning.machine(device),
        settings=best.settings,
        seconds=best.seconds,
        seconds_float32=layouts[0].seconds,
        memory_bytes=memory.peak(device),
        agreement=best.agreement,
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def sample(model: Bundle) -> Mapping[str, Shown]:
    """What comes with the bundle in `sample/`, or else noise that meets the manifest."""
    files = sorted((model.root / "sample").glob("*.dcm"))
    if not files or len(model.manifest.inputs) != 1:
        return synthetic.inputs(model)
    ((name, contract),) = model.manifest.inputs.items()
    return {name: volume.load_input(files, contract=contract)}


def _layouts(device: str) -> Iterator[Settings]:
    precisions: Sequence[Precision] = get_args(Precision)
    for precision, channels_last in itertools.product(precisions, (False, True)):
        if precision == "float16" and device == devices.CPU:
            continue  # no processor computes it faster
        yield Settings(precision=precision, channels_last=channels_last)
        if device != devices.CPU:
            yield Settings(precision=precision, channels_last=channels_last, compile=True)


def _batches(loaded: Loaded, settings: Settings) -> Iterator[Settings]:
    published = loaded.window_batch
    if published is not None:
        for batch in _BATCHES:
            if batch != published:
                yield replace(settings, window_batch=batch)


def _measured(
    loaded: Loaded,
    ways: Iterator[Settings],
    inputs: Mapping[str, Shown],
    expected: Prediction,
    tell: Callable[[str], object],
) -> list[Measured]:
    seconds: dict[Settings, list[float]] = {way: [] for way in ways}
    said: dict[Settings, Prediction] = {}
    for _ in range(_WARM + ROUNDS):
        for way in list(seconds):
            begin = time.perf_counter()
            try:
                said[way] = loaded.using(way).predict(inputs)
            except NodeError:  # what does not run here is no way
                del seconds[way]
            else:
                seconds[way].append(time.perf_counter() - begin)
    found = [_judged(way, runs, compared(expected, said[way])) for way, runs in seconds.items()]
    for one in found:
        tell(one.sentence)
    return found


def _judged(way: Settings, runs: Sequence[float], agreement: dict[str, float]) -> Measured:
    return Measured(
        settings=way,
        seconds=statistics.median(runs[_WARM:]),
        agreement=agreement,
        is_same=_is_same(agreement),
    )


def _fastest(found: Sequence[Measured]) -> Measured:
    return min((one for one in found if one.is_same), key=lambda one: one.seconds)


def compared(expected: Prediction, found: Prediction) -> dict[str, float]:
    """How well two predictions agree: the lowest Dice, and the largest differences."""
    agreement: dict[str, float] = {}
    for one, other in zip(expected.answers, found.answers, strict=True):
        for what, value in _agreement(one, other):
            worst = min if what == "dice" else max
            agreement[what] = worst(agreement.get(what, value), value)
    return agreement


def _is_same(agreement: Mapping[str, float]) -> bool:
    return (
        agreement.get("dice", 1.0) >= LEAST_DICE
        and agreement.get("probability", 0.0) <= MOST_APART
        and agreement.get("relative", 0.0) <= MOST_RELATIVE
    )


def _agreement(one: Answer, other: Answer) -> Iterator[tuple[str, float]]:
    if isinstance(one, LabelMap) and isinstance(other, LabelMap):
        for label in sorted({*np.unique(one.array), *np.unique(other.array)} - {0}):
            yield "dice", _dice(one.array == label, other.array == label)
    elif isinstance(one, Masks) and isinstance(other, Masks):
        for mask, again in zip(one.array, other.array, strict=True):
            yield "dice", _dice(mask, again)
    elif isinstance(one, Classification) and isinstance(other, Classification):
        apart = np.abs(np.subtract(one.probabilities, other.probabilities))
        yield "probability", float(apart.max())
        yield "dice", float(one.chosen == other.chosen)
    elif isinstance(one, Numbers) and isinstance(other, Numbers):
        yield "relative", _relative(one.values, other.values)
    elif isinstance(one, Boxes | Points | Registration):
        yield from _of_places(one, other)
    else:
        first, second = getattr(one, "array", 0.0), getattr(other, "array", 0.0)
        span = float(np.nanmax(first) - np.nanmin(first)) or 1.0
        yield "probability", float(np.nanmax(np.abs(first - second))) / span


def _of_places(one: Answer, other: Answer) -> Iterator[tuple[str, float]]:
    yield "relative", _relative(_places(one), _places(other))
    if isinstance(one, Boxes) and isinstance(other, Boxes):
        pairs = list(zip(one.boxes, other.boxes, strict=False))
        yield "dice", float(all(box.label == again.label for box, again in pairs))
        yield "probability", max((abs(b.score - again.score) for b, again in pairs), default=0.0)


def _places(answer: Answer) -> list[float]:
    if isinstance(answer, Boxes):
        return [value for box in answer.boxes for value in (*box.low, *box.high)]
    if isinstance(answer, Points):
        return [value for point in answer.points for value in point.at]
    if isinstance(answer, Registration):
        corners = np.array([[0, 0, 0, 1], [_SPAN, 0, 0, 1], [0, _SPAN, 0, 1], [0, 0, _SPAN, 1]])
        placed: list[float] = (corners @ answer.matrix[:3].T).ravel().tolist()
        return placed
    return []


def _dice(one: np.ndarray, other: np.ndarray) -> float:
    together = int(one.sum() + other.sum())
    return float(2 * (one & other).sum() / together) if together else 1.0


def _relative(one: Sequence[float], other: Sequence[float]) -> float:
    if len(one) != len(other):
        return float("inf")
    first, second = np.asarray(one), np.asarray(other)
    scale = float(np.abs(first).max(initial=0.0)) or 1.0
    return float(np.abs(first - second).max(initial=0.0) / scale)
