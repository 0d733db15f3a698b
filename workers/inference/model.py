"""One bundle in memory: volumes in, `Prediction` out, or a named reason why not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from monai.data.utils import decollate_batch, list_data_collate
from monai.utils.enums import CommonKeys
from numpy.typing import NDArray

from dicomnode.bundle import Bundle, LabelMapOutput, verify
from dicomnode.errors import Misconfigured, ModelFailed, NodeError, RetryLater
from dicomnode.prediction import LabelMap, Prediction
from dicomnode.volume import Volume
from workers.inference import configuration, grid
from workers.inference.scripts import Scripts

_CHANNELS_AND_SPACE = 4  # dimensions of a label map: (1, column, row, slice)
_MAX_MESSAGE = 300  # characters of a foreign message


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A bundle on its device, ready to be shown volumes, one study at a time."""

    bundle: Bundle
    device: str
    parts: configuration.Parts
    reader: grid.VolumeReader
    scripts: Scripts

    @classmethod
    def of(cls, bundle: Bundle, *, device: str) -> Self:
        """Load `bundle`; see `workers.inference.load_model`."""
        _require_locked(bundle)
        reader, scripts = grid.VolumeReader(), Scripts(bundle.root)
        with _faults_named(bundle), scripts.importable():
            parts = configuration.parts(bundle.root, device=device, reader=reader)
        return cls(bundle=bundle, device=device, parts=parts, reader=reader, scripts=scripts)

    def predict(self, inputs: Mapping[str, Volume]) -> Prediction:
        """Show `inputs` to the model.

        Args:
            inputs: The manifest's input names → volumes.

        Returns:
            The answers on the grid of the manifest's first input.

        Raises:
            ModelFailed: `wrong-inputs`, `bundle-error`, `not-finite`, `no-answer`, `no-geometry`,
                `wrong-shape` or `unknown-label`.
            RetryLater: `out-of-memory`: the device is full now.
        """
        manifest = self.bundle.manifest
        if inputs.keys() != manifest.inputs.keys():
            raise ModelFailed(
                "wrong-inputs",
                f"The model takes {_listed(manifest.inputs)}, and was given {_listed(inputs)}.",
            )
        first, *others = manifest.inputs
        volume = inputs[first]
        with _faults_named(self.bundle), self.scripts.importable(), self.reader.showing(inputs):
            said = self._run(inputs)
        return Prediction(
            subject=volume,
            also_shown=tuple(inputs[name] for name in others),
            answers=tuple(
                _label_map(said.get(name), name=name, output=output, volume=volume)
                for name, output in manifest.outputs.items()
            ),
        )

    def _run(self, names: Iterable[str]) -> dict[str, Any]:
        """Do what MONAI's evaluator does with a batch of one."""
        with torch.inference_mode():
            batch = list_data_collate([self.parts.preprocessing({name: name for name in names})])
            image = batch[CommonKeys.IMAGE].to(self.device)
            raw = self.parts.inferer(image, self.parts.network)
            _require_finite(raw)
            batch |= {CommonKeys.IMAGE: image, CommonKeys.PRED: raw}
            (item,) = decollate_batch(batch)
            return self.parts.postprocessing(item)


def _require_locked(bundle: Bundle) -> None:
    if verify(bundle.root, manifest=bundle.manifest_path) != bundle.digest:
        raise Misconfigured(
            "bundle-changed",
            f"{bundle.root}: the lock was written anew since the bundle was read: read it again.",
        )


@contextmanager
def _faults_named(bundle: Bundle) -> Iterator[None]:
    """Translate whatever a bundle's code raises: the one place where it can be anything."""
    try:
        yield
    except NodeError:
        raise
    except Exception as error:
        cause = _first_cause(error)
        said = f"{type(cause).__name__}: {cause}".strip()[:_MAX_MESSAGE]
        if isinstance(cause, torch.OutOfMemoryError):
            raise RetryLater("out-of-memory", f"{bundle.manifest.name}: {said}") from error
        raise ModelFailed("bundle-error", f"{bundle.manifest.name}: {said}") from error


def _first_cause(error: BaseException) -> BaseException:
    """MONAI wraps what a transform raises in a `RuntimeError` that says little."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _require_finite(raw: Any) -> None:
    if isinstance(raw, torch.Tensor):
        if not bool(torch.isfinite(raw).all()):
            raise ModelFailed(
                "not-finite", "The network's output has values that are infinite or no numbers."
            )
    elif isinstance(raw, Mapping):
        _require_finite(list(raw.values()))
    elif isinstance(raw, list | tuple):
        for part in raw:
            _require_finite(part)


def _label_map(answer: Any, *, name: str, output: LabelMapOutput, volume: Volume) -> LabelMap:
    """Judge one answer and bring it to the grid of `volume`."""
    if answer is None:
        raise ModelFailed("no-answer", f"The bundle gave no '{name}'.")
    if not isinstance(answer, MetaTensor):
        raise ModelFailed("no-geometry", f"'{name}' came without an affine: its place is unknown.")
    if answer.ndim != _CHANNELS_AND_SPACE or answer.shape[0] != 1:
        raise ModelFailed(
            "wrong-shape",
            f"'{name}' has shape {tuple(answer.shape)}; a label map has one channel and three"
            " spatial dimensions.",
        )
    labels = _known(answer.as_tensor()[0].cpu().numpy(), name=name, output=output)
    affine = answer.affine.cpu().numpy().astype(np.float64)
    return LabelMap(output=name, array=grid.on_source_grid(labels, affine=affine, volume=volume))


def _known(
    values: NDArray[Any], *, name: str, output: LabelMapOutput
) -> NDArray[np.uint8 | np.uint16]:
    """`values` as the smallest unsigned integers, if the manifest knows each of them."""
    known = {0, *(segment.label for segment in output.segments)}
    unknown = sorted({float(value) for value in np.unique(values)} - known)
    if unknown:
        raise ModelFailed(
            "unknown-label", f"'{name}' has the value {unknown[0]:g}, which no segment stands for."
        )
    return values.astype(np.min_scalar_type(max(known)))


def _listed(names: Mapping[str, Any]) -> str:
    return ", ".join(sorted(names)) or "nothing"
