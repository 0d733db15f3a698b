"""A bundle's `configs/inference.json`, read and taken over, before anything of it is built.

The configuration is evaluated by MONAI's own parser. What the node does itself is taken over:
loaders read from memory, savers and progress reports are left out, the device and the weights are
the node's to choose. What it would have to leave out silently is refused.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from monai.bundle.config_parser import ConfigParser
from monai.data.image_reader import ImageReader
from monai.data.wsi_reader import BaseWSIReader

from dicomnode.bundle import METADATA_NAME
from dicomnode.errors import Misconfigured

_CONFIGURATIONS = ("inference.json", "inference.yaml", "inference.yml")

#: Class names, without their modules. A bundle's own writers end as MONAI's do.
_LOADER = re.compile(r"LoadImage(d|D|Dict)?")
_SAVER = re.compile(r"\w*Save(r|Image)?(d|D|Dict)?")
_REPORTER = re.compile(r"(Stats|TensorBoard\w*|MLFlow|ClearML\w*|Validation)Handler|MetricLogger")
_CHECKPOINT = re.compile(r"CheckpointLoader")
_PROBABILITY_MAP = re.compile(r"ProbMapProducer")
_EVALUATOR = re.compile(r"\w*Evaluator")
_SLIDE_DATASET = re.compile(r"\w*WSIDataset")
#: Loaders that take a file name and give an array, where the others take and give dictionaries.
_ARRAY_LOADER = re.compile(r"LoadImage")
_INVERT = re.compile(r"Invert(d|D|Dict)?")

_CUDA = "cuda"
# What scores an answer that is known already: at inference none is.
_METRICS = ("key_val_metric", "additional_metrics", "metric_cmp_fn")


@dataclass(frozen=True, kw_only=True)
class Component:
    """Something that a configuration builds.

    Attributes:
        path: Its id: "postprocessing::transforms::2".
        name: Its class without the module.
        content: Its description, as in the file.
    """

    path: str
    name: str
    content: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A file of weights, and what it is loaded into.

    Attributes:
        path: The id of the loader's description.
    """

    path: str


@dataclass(frozen=True, kw_only=True)
class Description:
    """A configuration that is ready to be built from.

    Attributes:
        evaluator: The id of the evaluator; "" where the configuration has none.
        checkpoints: Who loads weights; the node does it in their place.
        saver: The id of a saver that makes the answer out of the evaluator's output; "" where none
            does.
        probability_key: Where the evaluator leaves the probability of a slide's patches; "" where
            no map is made of them.
        slide_dataset: The id of the dataset that cuts a slide into patches; "" where none does.
        takes_names: Whether preprocessing takes a file name, and no dictionary.
        interpolates_back: Whether answers are interpolated on their way back to the image.
    """

    parser: ConfigParser
    evaluator: str
    checkpoints: tuple[Checkpoint, ...]
    saver: str
    probability_key: str
    slide_dataset: str
    takes_names: bool
    interpolates_back: bool

    def first(self, *ids: str) -> Any:
        """What the first of `ids` that there is comes to; `None` where there is none."""
        found = next((one for one in ids if one in self.parser), None)
        return None if found is None else self.parser.get_parsed_content(found)


@dataclass(frozen=True, kw_only=True)
class Readers:
    """What stands in for reading files.

    Attributes:
        images: For MONAI's loaders.
        slides: For its datasets of patches.
    """

    images: ImageReader
    slides: BaseWSIReader


def read(root: Path, *, device: str, readers: Readers) -> Description:
    """Read the configuration of the bundle in `root` and take it over. Nothing is built yet.

    Its expressions are evaluated from here on: verify the lock first.

    Raises:
        Misconfigured: `bundle-incomplete` or `bundle-unsupported`.
    """
    parser = ConfigParser()
    parser.read_config(str(_file(root)))
    parser.read_meta(str(root / METADATA_NAME))
    parser["bundle_root"] = str(root)
    parser["device"] = torch.device(device)
    parser.parse()  # macros first: a copied loader must be taken over too
    components = list(_components(parser.config))
    checkpoints = [one for one in components if _CHECKPOINT.fullmatch(one.name)]
    evaluator = _evaluator(parser, components)
    description = Description(
        parser=parser,
        evaluator=evaluator,
        checkpoints=tuple(Checkpoint(path=one.path) for one in checkpoints),
        saver=_saver(parser, components, evaluator),
        probability_key=_probability_key(components),
        slide_dataset=_path_of(components, _SLIDE_DATASET),
        takes_names=any(
            _ARRAY_LOADER.fullmatch(one.name) and "keys" not in one.content for one in components
        ),
        interpolates_back=any(
            _INVERT.fullmatch(one.name) and one.content.get("nearest_interp", True) is not True
            for one in components
        ),
    )
    for component in components:
        _take_over(component, readers)
    for repeated in _repeated_inversions(components):
        repeated.content["_disabled_"] = True
    if evaluator:
        _take_over_evaluator(parser, evaluator)
    parser.parse()
    return description


@contextmanager
def quiet() -> Iterator[None]:
    """Keep silent what libraries say of themselves while they build and run a bundle."""
    logging.getLogger("monai.data.nvimgcodec_pydicom_plugin").setLevel(logging.ERROR)
    logging.getLogger("ignite").setLevel(logging.CRITICAL)  # it repeats what is raised anyway
    with warnings.catch_warnings():
        # What MONAI and the bundle's own code do with torch is not the node's to mend, and one of
        # MONAI's readers warns at each load of a decoder that is not there.
        warnings.simplefilter("ignore")
        yield


def _file(root: Path) -> Path:
    files = [root / "configs" / name for name in _CONFIGURATIONS]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        raise Misconfigured(
            "bundle-incomplete", f"{root / 'configs'}: has none of {', '.join(_CONFIGURATIONS)}."
        )
    return file


def _components(config: Any, path: str = "") -> Iterator[Component]:
    """Every component in `config`."""
    if isinstance(config, dict):
        target = config.get("_target_")
        if isinstance(target, str):
            yield Component(path=path, name=target.rpartition(".")[2], content=config)
        items: Iterator[tuple[Any, Any]] = iter(list(config.items()))
    elif isinstance(config, list):
        items = iter(enumerate(config))
    else:
        return
    for key, value in items:
        yield from _components(value, f"{path}::{key}" if path else str(key))


def _take_over(component: Component, readers: Readers) -> None:
    """Change one component to what the node wants of it."""
    content, name = component.content, component.name
    if _LOADER.fullmatch(name):
        content["reader"] = readers.images
    elif _SLIDE_DATASET.fullmatch(name):
        content["reader"] = readers.slides
    elif any(kind.fullmatch(name) for kind in (_SAVER, _REPORTER, _CHECKPOINT, _PROBABILITY_MAP)):
        content["_disabled_"] = True
    # A GPU that a component asks for by name may not be there; that it asks for the CPU is meant.
    if _CUDA in str(content.get("device", "")):
        content["device"] = "@device"


def _repeated_inversions(components: list[Component]) -> Iterator[Component]:
    """Inversions of what was inverted before.

    They leave the voxels as they are, and put the place back that these had before the first one:
    the answer would lie somewhere else.
    """
    seen: set[tuple[str, str]] = set()
    for component in components:
        if _INVERT.fullmatch(component.name):
            content = component.content
            inverted = str(content.get("keys")), str(content.get("transform")).lstrip("$")
            if inverted in seen:
                yield component
            seen.add(inverted)


def _evaluator(parser: ConfigParser, components: list[Component]) -> str:
    """The id of the evaluator: under its usual name, or the only one there is."""
    found = [one.path for one in components if _EVALUATOR.fullmatch(one.name)]
    if "evaluator" in parser and "evaluator" not in found:
        target = parser["evaluator"]
        named = target.get("_target_") if isinstance(target, dict) else target
        raise Misconfigured(
            "bundle-unsupported", f"evaluator: the node runs an evaluator, not '{named}'."
        )
    if "evaluator" in found:
        return "evaluator"
    if len(found) > 1:
        raise Misconfigured(
            "bundle-unsupported", f"several evaluators, and none is the first: {', '.join(found)}."
        )
    return found[0] if found else ""


def _take_over_evaluator(parser: ConfigParser, evaluator: str) -> None:
    content = parser[evaluator]
    if content.get("mode", "eval") != "eval":
        raise Misconfigured(
            "bundle-unsupported",
            f"{evaluator}.mode: '{content['mode']}': its answers would differ from run to run.",
        )
    # It is given batch after batch, each of which is one epoch; none is there while it is built.
    content["val_data_loader"] = []
    for key in _METRICS:
        content.pop(key, None)


def _saver(parser: ConfigParser, components: list[Component], evaluator: str) -> str:
    """A handler that turns the evaluator's output into the answer before it writes it."""
    if not evaluator or "postprocessing" in parser[evaluator]:
        return ""
    return next(
        (
            one.path
            for one in components
            if _SAVER.fullmatch(one.name) and "output_transform" in one.content
        ),
        "",
    )


def _probability_key(components: list[Component]) -> str:
    found = [one for one in components if _PROBABILITY_MAP.fullmatch(one.name)]
    return str(found[0].content.get("prob_key", "pred")) if found else ""


def _path_of(components: list[Component], name: re.Pattern[str]) -> str:
    return next((one.path for one in components if name.fullmatch(one.name)), "")
