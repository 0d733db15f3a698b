"""A bundle's `configs/inference.json` → the parts that make an answer.

The configuration is evaluated by MONAI's own parser. What the node does itself is taken over:
loaders read from memory, savers are disabled, the device and the weights are the node's to choose.
What it would have to leave out silently is refused.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from monai.bundle.config_parser import ConfigParser
from monai.inferers.inferer import SimpleInferer
from monai.transforms.compose import Compose
from monai.transforms.io.array import SaveImage
from monai.transforms.io.dictionary import SaveImaged

from dicomnode.bundle import METADATA_NAME
from dicomnode.errors import Misconfigured
from workers.inference.grid import VolumeReader

_CONFIGURATIONS = ("inference.json", "inference.yaml", "inference.yml")
_WEIGHTS = ("model.pt", "model.ts")
_TORCHSCRIPT_SUFFIX = ".ts"

_LOADERS = frozenset({"LoadImage", "LoadImaged", "LoadImageD", "LoadImageDict"})
_SAVERS = frozenset({"SaveImage", "SaveImaged", "SaveImageD", "SaveImageDict"})
_CHECKPOINT_LOADER = "CheckpointLoader"

# What an evaluator may say: the rest of its arguments would change the answer.
_EVALUATOR = "SupervisedEvaluator"
_EVALUATOR_UNDERSTOOD = frozenset(
    {
        "_target_", "_desc_", "_requires_", "device", "val_data_loader", "epoch_length", "network",
        "inferer", "postprocessing", "key_val_metric", "additional_metrics", "metric_cmp_fn",
        "val_handlers", "non_blocking",
        "amp",  # the node computes in float32
    }
)  # fmt: skip

# Where a part stands: first what MONAI's workflow uses, then the name that the specification gives.
_NETWORK = ("evaluator::network", "network", "network_def")
_INFERER = ("evaluator::inferer", "inferer")
_PREPROCESSING = ("dataset::transform", "preprocessing")
_POSTPROCESSING = ("evaluator::postprocessing", "postprocessing")

Transform = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a configuration gives: from an image to an answer, in the order of use.

    Attributes:
        preprocessing: Input names → tensors; its loaders ask the reader.
        network: On its device, with its weights, in evaluation mode.
        inferer: Called with the images and the network.
        postprocessing: Raw answer → answer.
    """

    preprocessing: Transform
    network: torch.nn.Module
    inferer: Callable[[torch.Tensor, torch.nn.Module], Any]
    postprocessing: Transform


def parts(root: Path, *, device: str, reader: VolumeReader) -> Parts:
    """Evaluate the configuration of the bundle in `root`. Its code runs: verify the lock first.

    Raises:
        Misconfigured: `bundle-incomplete`, `bundle-unsupported`, `weights-missing` or
            `weights-unfit`.
        Exception: Whatever the bundle's own code raises.
    """
    parser = _parser(root, device=device, reader=reader)
    _require_understood(parser)
    with _other_readers_silent():
        inferer = _first(parser, _INFERER)
        return Parts(
            preprocessing=_transform(parser, _PREPROCESSING),
            network=_network(parser, root, device=device),
            inferer=SimpleInferer() if inferer is None else inferer,
            postprocessing=_transform(parser, _POSTPROCESSING),
        )


@contextmanager
def _other_readers_silent() -> Iterator[None]:
    """MONAI's loaders make every reader that there is; one warns of a decoder that is not there."""
    logging.getLogger("monai.data.nvimgcodec_pydicom_plugin").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="NvImgCodecPydicomReader")
        yield


def _parser(root: Path, *, device: str, reader: VolumeReader) -> ConfigParser:
    files = [root / "configs" / name for name in _CONFIGURATIONS]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        raise Misconfigured(
            "bundle-incomplete", f"{root / 'configs'}: has none of {', '.join(_CONFIGURATIONS)}."
        )
    parser = ConfigParser()
    parser.read_config(str(file))
    parser.read_meta(str(root / METADATA_NAME))
    parser["bundle_root"] = str(root)
    parser["device"] = torch.device(device)
    parser.parse()  # macros first: a copied loader must be taken over too
    for _, target, component in _components(parser.config):
        if target in _LOADERS:
            component["reader"] = reader
        elif target in _SAVERS:
            component["_disabled_"] = True
    parser.parse()
    return parser


def _components(config: Any, path: str = "") -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Every component in `config`: its id, its class name without the module, its description."""
    if isinstance(config, dict):
        target = config.get("_target_")
        if isinstance(target, str):
            yield path, target.rpartition(".")[2], config
        items: Iterator[tuple[Any, Any]] = iter(list(config.items()))
    elif isinstance(config, list):
        items = iter(enumerate(config))
    else:
        return
    for key, value in items:
        yield from _components(value, f"{path}::{key}" if path else str(key))


def _require_understood(parser: ConfigParser) -> None:
    evaluator = parser.get("evaluator", {})
    target = str(evaluator.get("_target_", _EVALUATOR))
    if target.rpartition(".")[2] != _EVALUATOR:
        raise Misconfigured(
            "bundle-unsupported", f"evaluator: the node runs a {_EVALUATOR}, not '{target}'."
        )
    unknown = sorted(evaluator.keys() - _EVALUATOR_UNDERSTOOD)
    if unknown:
        raise Misconfigured(
            "bundle-unsupported",
            f"evaluator.{unknown[0]}: the node does not do what this asks for, and leaving it out"
            " could change the answer.",
        )


def _first(parser: ConfigParser, ids: tuple[str, ...]) -> Any:
    found = next((name for name in ids if name in parser), None)
    return None if found is None else parser.get_parsed_content(found)


def _transform(parser: ConfigParser, ids: tuple[str, ...]) -> Transform:
    transform = _first(parser, ids)
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


def _network(parser: ConfigParser, root: Path, *, device: str) -> torch.nn.Module:
    weights = _weights(parser, root)
    if weights.suffix == _TORCHSCRIPT_SUFFIX:
        script: torch.nn.Module = torch.jit.load(weights, map_location=device)  # type: ignore[no-untyped-call]  # torch's own
        return script.eval()
    network = _first(parser, _NETWORK)
    if not isinstance(network, torch.nn.Module):
        raise Misconfigured("bundle-unsupported", f"none of {', '.join(_NETWORK)} is a network.")
    # Tensors alone are read, no objects.
    state = torch.load(  # noqa: TID251 - this is the one place
        weights, map_location=device, weights_only=True
    )
    try:
        network.load_state_dict(_state_dict(state))
    except RuntimeError as error:
        raise Misconfigured(
            "weights-unfit", f"{weights}: does not fit the network: {error}"
        ) from error
    return network.to(device).eval()


def _weights(parser: ConfigParser, root: Path) -> Path:
    """The file that the configuration's checkpoint loader names, else the specification's."""
    named = {
        str(parser.get_parsed_content(f"{name}::load_path"))
        for name, target, component in _components(parser.config)
        if target == _CHECKPOINT_LOADER and not component.get("_disabled_", False)
    }
    candidates = [Path(name) for name in named] or [root / "models" / name for name in _WEIGHTS]
    if len(named) > 1:
        raise Misconfigured("bundle-unsupported", "several checkpoints: the node loads one.")
    weights = next((path for path in candidates if path.is_file()), None)
    if weights is None:
        raise Misconfigured("weights-missing", f"{candidates[0]}: no such file.")
    if not weights.resolve().is_relative_to(root.resolve()):
        raise Misconfigured(
            "bundle-unsupported", f"{weights}: lies outside of the bundle, where no lock lists it."
        )
    return weights


def _state_dict(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """The weights themselves: ignite nests them under the name that they were saved by."""
    for key in ("model", "state_dict"):
        if isinstance(state.get(key), Mapping):
            nested: Mapping[str, Any] = state[key]
            return nested
    return state
