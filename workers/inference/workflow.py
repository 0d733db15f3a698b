"""A bundle's parts put together: from names that its loaders read to what its postprocessing gives.

Where the configuration has an evaluator, the bundle's own evaluator runs, with all that it was told
(how a batch is prepared, an inferer or an iteration of its own, handlers); the node hands it one
batch after the other and takes what comes out. A bundle without one is run as MONAI's would.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.data.dataloader import DataLoader
from monai.data.utils import decollate_batch, list_data_collate
from monai.engines.utils import IterationEvents
from monai.inferers.inferer import SimpleInferer
from monai.transforms.compose import Compose
from monai.transforms.io.array import SaveImage
from monai.transforms.io.dictionary import SaveImaged
from monai.utils.enums import CommonKeys, ProbMapKeys

from dicomnode.errors import Misconfigured, ModelFailed
from workers.inference import network
from workers.inference.configuration import Description

_PREPROCESSING = ("dataset::transform", "preprocessing")
_POSTPROCESSING = ("postprocessing",)
_INFERER = ("inferer",)

Transform = Callable[[Any], Any]


@dataclass(kw_only=True)
class Timings:
    """Seconds of one run, by stage: prepare, forward, finish."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        """Count the block to `stage`."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.add(stage, time.perf_counter() - begin)

    def add(self, stage: str, seconds: float) -> None:
        """Count `seconds` to `stage`."""
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds


@dataclass(frozen=True, kw_only=True)
class Said:
    """What a bundle made of one item.

    Attributes:
        answer: By the keys of the bundle's postprocessing.
        batch: What the network was shown.
    """

    answer: Mapping[str, Any]
    batch: Any


class Workflow:
    """What a bundle does, ready to be run on its device, one item at a time."""

    def __init__(self, description: Description, root: Path, *, device: str) -> None:
        """Build the parts and load the weights.

        Raises:
            Misconfigured: As `network.load_weights`.
            Exception: Whatever the bundle's own code raises.
        """
        network.load_weights(description, root, device=device)
        self._description = description
        self._device = device
        self._evaluator: Any = None
        if description.evaluator:
            self._evaluator = description.parser.get_parsed_content(description.evaluator)
            self._evaluator.amp = False  # precision is the node's to choose, see `Settings`
            self._networks = _networks_of(self._evaluator)
            self.inferer: Any = getattr(self._evaluator, "inferer", None)
        else:
            self._networks = (_network(description).to(device).eval(),)
            self.inferer = description.first(*_INFERER) or SimpleInferer()
        self.watched = network.Watched(self._networks, device=device)
        self._preprocessing = _transform(description, _PREPROCESSING)
        self._postprocessing = _transform(description, _POSTPROCESSING)
        self._output_transform = (
            description.first(f"{description.saver}::output_transform")
            if description.saver
            else None
        )
        self._collate: Transform = description.first("dataloader::collate_fn") or list_data_collate

    @property
    def takes_names(self) -> bool:
        """Whether preprocessing takes a name, and no dictionary of names."""
        return self._description.takes_names

    @property
    def interpolates_back(self) -> bool:
        """Whether answers may come back to the image's grid by interpolation."""
        return self._description.interpolates_back

    @property
    def inferers(self) -> list[Any]:
        """The sliding windows that the bundle looks through."""
        return list(network.sliding_windows(self.inferer, self._evaluator))

    @property
    def main_network(self) -> torch.nn.Module:
        """The network, or the first of several."""
        return self._networks[0]

    def run(self, item: Any, timings: Timings) -> Said:
        """Show one item to the bundle.

        Args:
            item: What its loaders take: a name, or a dictionary of names.
        """
        with torch.no_grad():
            with timings.time("prepare"):
                batch = self._collate([self._preprocessing(item)])
            if self._evaluator is None:
                return self._run_alone(batch, timings)
            ((output, _),) = self._evaluate([batch], timings)
            if self._output_transform is not None:
                with timings.time("finish"):
                    output = self._output_transform(output)
        return Said(answer=_one(output), batch=batch)

    def _run_alone(self, batch: Any, timings: Timings) -> Said:
        """Do what MONAI's evaluator does with a batch of one."""
        with timings.time("forward"):
            image = batch[CommonKeys.IMAGE].to(self._device)
            raw = self.inferer(image, self._networks[0])
        with timings.time("finish"):
            (single,) = decollate_batch({**batch, CommonKeys.IMAGE: image, CommonKeys.PRED: raw})
            return Said(answer=self._postprocessing(single), batch=batch)

    def _evaluate(self, batches: Any, timings: Timings) -> list[tuple[Any, Any]]:
        """Run the evaluator on each batch; gives its output, and the batch as it left it."""
        engine = self._evaluator
        collected: list[tuple[Any, Any]] = []
        begin = time.perf_counter()
        forward: list[float] = []

        def on_forward(_: Engine) -> None:
            forward.append(time.perf_counter())

        def on_iteration(engine: Engine) -> None:
            collected.append((engine.state.output, engine.state.batch))

        with _attached(
            engine,
            {
                IterationEvents.FORWARD_COMPLETED: on_forward,
                Events.ITERATION_COMPLETED: on_iteration,
            },
        ):
            engine.data_loader = batches
            engine.state.epoch_length = len(batches)
            # What an earlier run left when it failed: ignite would resume it, and do nothing.
            engine._internal_run_generator = engine._dataloader_iter = None  # noqa: SLF001
            engine.run()
        end = time.perf_counter()
        split = forward[-1] if forward else end
        timings.add("forward", split - begin)
        timings.add("finish", end - split)
        engine.data_loader, engine.state.output, engine.state.batch = [], None, None
        return collected

    def run_slide(self, name: str, timings: Timings) -> Said:
        """Show the patches of a slide to the bundle, and lay what it says of each on a map.

        Returns:
            The answer has the map, NaN where no patch was looked at, in `probability_key`.

        Raises:
            Misconfigured: `bundle-unsupported`: the bundle does not cut slides into patches.
            ModelFailed: `no-patches`: it found nothing on the slide to look at.
        """
        description = self._description
        if self._evaluator is None or not (
            description.slide_dataset and description.probability_key
        ):
            raise Misconfigured(
                "bundle-unsupported",
                "the bundle has no dataset of patches and map of their answers.",
            )
        with torch.no_grad(), timings.time("prepare"):
            dataset = self._patches(name)
            if not len(dataset):
                raise ModelFailed("no-patches", "The bundle found no tissue on the slide.")
        size = int(description.first("dataloader::batch_size") or 1)
        loader = DataLoader(dataset, batch_size=size, num_workers=0)
        with torch.no_grad():
            outputs = self._evaluate(loader, timings)
        with timings.time("finish"):
            laid = _laid_out(outputs, description.probability_key, dataset.image_data[0])
        return Said(answer={description.probability_key: laid}, batch=None)

    def _patches(self, name: str) -> Any:
        component = self._description.parser.get_parsed_content(
            self._description.slide_dataset, instantiate=False
        )
        return component.instantiate(data=[{CommonKeys.IMAGE: name}])


def _laid_out(
    outputs: Sequence[tuple[Any, Any]], key: str, slide: Mapping[str, Any]
) -> np.ndarray[Any, Any]:
    """The probabilities of patches on the map that MONAI's own producer would write."""
    laid = np.full(tuple(slide[ProbMapKeys.SIZE]), np.nan, dtype=np.float32)
    for output, batch in outputs:
        said = output[key] if isinstance(output, Mapping) else [one[key] for one in output]
        places = batch[CommonKeys.IMAGE].meta[ProbMapKeys.LOCATION]
        for place, probability in zip(places, said, strict=True):
            laid[tuple(int(index) for index in place)] = float(np.asarray(probability).squeeze())
    return laid


@contextmanager
def _attached(engine: Any, handlers: Mapping[Any, Callable[[Engine], None]]) -> Iterator[None]:
    for event, handler in handlers.items():
        engine.add_event_handler(event, handler)
    try:
        yield
    finally:
        for event, handler in handlers.items():
            engine.remove_event_handler(handler, event)


def _networks_of(evaluator: Any) -> tuple[torch.nn.Module, ...]:
    found = getattr(evaluator, "networks", None) or [getattr(evaluator, "network", None)]
    networks = tuple(one for one in found if isinstance(one, torch.nn.Module))
    if len(networks) != len(found):
        raise Misconfigured("bundle-unsupported", "the evaluator's network is none.")
    return networks


def _network(description: Description) -> torch.nn.Module:
    found = description.first(*network.NETWORK)
    if not isinstance(found, torch.nn.Module):
        raise Misconfigured(
            "bundle-unsupported", f"none of {', '.join(network.NETWORK)} is a network."
        )
    return found


def _transform(description: Description, ids: tuple[str, ...]) -> Transform:
    transform = description.first(*ids)
    if transform is None:
        return Compose([])
    if any(isinstance(step, SaveImage | SaveImaged) for step in _steps(transform)):
        raise Misconfigured(
            "bundle-unsupported",
            f"{ids[-1]}: an expression makes a transform that writes images to disk.",
        )
    composed: Transform = transform
    return composed


def _steps(transform: Any) -> Iterator[Any]:
    if isinstance(transform, Compose):
        for step in transform.transforms:
            yield from _steps(step)
    else:
        yield transform


def _one(output: Any) -> Mapping[str, Any]:
    """The one item of an output, whether the bundle takes its batches apart or not."""
    if isinstance(output, list | tuple) and len(output) == 1:
        (output,) = output
    if not isinstance(output, Mapping):
        raise ModelFailed(
            "no-answer", f"The bundle gave a {type(output).__name__}, and no answers by name."
        )
    return output
