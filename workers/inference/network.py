"""The networks of a bundle: their weights, and how they compute."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from monai.inferers.inferer import SlidingWindowInferer

from dicomnode.errors import Misconfigured
from workers.inference.configuration import Description
from workers.inference.settings import AS_PUBLISHED, Settings

_WEIGHTS = ("model.pt", "model.ts")
_TORCHSCRIPT_SUFFIX = ".ts"
#: Where a network stands: what MONAI's workflow uses, then the names that the specification gives.
NETWORK = ("network", "network_def")

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
_VOLUMES = 5  # dimensions of a batch of volumes
_IMAGES = 4


def load_weights(description: Description, root: Path, *, device: str) -> None:
    """Read every checkpoint of a bundle into the networks that it is meant for.

    Raises:
        Misconfigured: `weights-missing`, `weights-unfit` or `bundle-unsupported`.
    """
    if not description.checkpoints:
        _load_default(description, root, device=device)
    for checkpoint in description.checkpoints:
        parser = description.parser
        path = Path(str(parser.get_parsed_content(f"{checkpoint.path}::load_path")))
        into = parser.get_parsed_content(f"{checkpoint.path}::load_dict")
        state = _read(_of_bundle(path, root), device=device)
        for name, network in into.items():
            _fill(network, _state_dict(state, name, alone=len(into) == 1), path)


def _load_default(description: Description, root: Path, *, device: str) -> None:
    """Without a loader the weights are where the specification of bundles puts them."""
    candidates = [root / "models" / name for name in _WEIGHTS]
    path = next((one for one in candidates if one.is_file()), candidates[0])
    path = _of_bundle(path, root)
    name = next((one for one in _network_ids(description) if one in description.parser), None)
    if path.suffix == _TORCHSCRIPT_SUFFIX:
        script: torch.nn.Module = torch.jit.load(path, map_location=device)  # type: ignore[no-untyped-call]  # torch's own
        # Watched from outside: a script takes no hook, and no other `forward`.
        description.parser[name or NETWORK[0]] = Scripted(script)
        description.parser.parse()
        return
    network = description.first(*_network_ids(description))
    if not isinstance(network, torch.nn.Module):
        raise Misconfigured("bundle-unsupported", f"none of {', '.join(NETWORK)} is a network.")
    _fill(network, _state_dict(_read(path, device=device), "model", alone=True), path)


def _network_ids(description: Description) -> tuple[str, ...]:
    return (f"{description.evaluator or 'evaluator'}::network", *NETWORK)


class Scripted(torch.nn.Module):
    """A TorchScript network as a module like any other."""

    def __init__(self, script: torch.nn.Module) -> None:
        super().__init__()
        self.script = script

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the script says."""
        return self.script(*args, **kwargs)


def _of_bundle(path: Path, root: Path) -> Path:
    if not path.is_file():
        raise Misconfigured("weights-missing", f"{path}: no such file.")
    if not path.resolve().is_relative_to(root.resolve()):
        raise Misconfigured(
            "bundle-unsupported", f"{path}: lies outside of the bundle, where no lock lists it."
        )
    return path


def _read(path: Path, *, device: str) -> Mapping[str, Any]:
    """Tensors alone are read, no objects."""
    state: Mapping[str, Any] = torch.load(  # noqa: TID251 - this is the one place
        path, map_location=device, weights_only=True
    )
    return state


def _state_dict(state: Mapping[str, Any], name: str, *, alone: bool) -> Mapping[str, Any]:
    """The weights themselves: ignite nests them under the name that they were saved by."""
    for key in (name, *(("model", "state_dict") if alone else ())):
        if isinstance(state.get(key), Mapping):
            nested: Mapping[str, Any] = state[key]
            return nested
    return state


def _fill(network: torch.nn.Module, state: Mapping[str, Any], path: Path) -> None:
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise Misconfigured(
            "weights-unfit", f"{path}: does not fit the network: {error}"
        ) from error


class Watched:
    """The networks of a bundle while they run: how they compute, and whether they say numbers."""

    def __init__(self, networks: Sequence[torch.nn.Module], *, device: str) -> None:
        self.networks = tuple(networks)
        self._device = device
        self._finite: list[torch.Tensor] = []
        self._settings: Settings | None = None
        self._own = [network.forward for network in self.networks]
        self._arrange(AS_PUBLISHED)

    @property
    def parameter_bytes(self) -> int:
        """What the networks hold in memory."""
        return sum(
            tensor.numel() * tensor.element_size()
            for network in self.networks
            for tensor in (*network.parameters(), *network.buffers())
        )

    @property
    def is_finite(self) -> bool:
        """Whether all that the networks said since `forget` were numbers."""
        return all(bool(one) for one in self._finite)

    def forget(self) -> None:
        """Begin to watch anew."""
        self._finite.clear()

    @contextmanager
    def computing(self, settings: Settings, inferers: Sequence[Any]) -> Iterator[None]:
        """Compute as `settings` say within the `with` block."""
        self._arrange(settings)
        before = [(one, one.sw_batch_size, one.device) for one in inferers]
        for inferer in inferers:
            if settings.window_batch is not None:
                inferer.sw_batch_size = settings.window_batch
            if settings.stitch_on_cpu or settings.network_on_cpu:
                inferer.device = torch.device("cpu")
        try:
            yield
        finally:
            for inferer, batch, device in before:
                inferer.sw_batch_size, inferer.device = batch, device

    def _arrange(self, settings: Settings) -> None:
        if settings == self._settings:
            return
        for network, own in zip(self.networks, self._own, strict=True):
            _lay_out(network, settings.channels_last)
            network.to("cpu" if settings.network_on_cpu else self._device)
            network.forward = self._watching(own, settings)
        self._settings = settings

    def _watching(self, own: Callable[..., Any], settings: Settings) -> Callable[..., Any]:
        compute: Callable[..., Any] = torch.compile(own) if settings.compile else own
        dtype = _DTYPES.get(settings.precision)
        kind = torch.device("cpu" if settings.network_on_cpu else self._device).type

        def forward(*args: Any, **kwargs: Any) -> Any:
            if settings.network_on_cpu:
                args, kwargs = _moved(args), _moved(kwargs)
            with torch.autocast(kind, dtype=dtype, enabled=dtype is not None):
                said = compute(*args, **kwargs)
            said = _as_float32(said) if dtype is not None else said
            self._finite.extend(_finite(said))
            return said

        return forward


def sliding_windows(*places: Any) -> list[SlidingWindowInferer]:
    """The sliding windows among `places` and one step inside of them, each once."""
    found: dict[int, SlidingWindowInferer] = {}
    for place in places:
        inside = list(vars(place).values()) if hasattr(place, "__dict__") else []
        deeper = [v for one in inside if hasattr(one, "__dict__") for v in vars(one).values()]
        for one in (place, *inside, *deeper):
            if isinstance(one, SlidingWindowInferer):
                found[id(one)] = one
    return list(found.values())


def _lay_out(network: torch.nn.Module, channels_last: bool) -> None:  # noqa: FBT001 - what it says
    """Lay the weights of convolutions out; the images follow them."""
    formats = {_VOLUMES: torch.channels_last_3d, _IMAGES: torch.channels_last}
    for parameter in network.parameters():
        if parameter.dim() in formats:
            wanted = formats[parameter.dim()] if channels_last else torch.contiguous_format
            parameter.data = parameter.data.contiguous(memory_format=wanted)


def _moved(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.cpu()
    if isinstance(value, Mapping):
        return {key: _moved(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_moved(one) for one in value)
    return value


def _as_float32(said: Any) -> Any:
    if isinstance(said, torch.Tensor):
        return said.float() if said.is_floating_point() else said
    if isinstance(said, dict):
        return {key: _as_float32(one) for key, one in said.items()}
    if isinstance(said, list | tuple):
        return type(said)(_as_float32(one) for one in said)
    return said


def _finite(said: Any) -> Iterator[torch.Tensor]:
    """For each tensor whether its values are finite: asked later, so that a GPU need not wait."""
    if isinstance(said, torch.Tensor):
        if said.is_floating_point():
            yield torch.isfinite(torch.as_tensor(said)).all()
    elif isinstance(said, Mapping):
        for one in said.values():
            yield from _finite(one)
    elif isinstance(said, list | tuple):
        for one in said:
            yield from _finite(one)
