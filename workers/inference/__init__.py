"""Runs one bundle on the volumes of one study, and keeps models warm.

A bundle stays as its makers published it: its `configs/inference.json` says how an image is
prepared, shown to the network and turned into an answer. The node takes that configuration over
(`configuration`), reads the weights (`network`), lends the bundle its own `scripts` (`scripts`),
lets its loaders read from memory (`readers`, `grid`), runs it (`workflow`), judges what it said
(`answers`, `classes`, `places`) and explains it (`explain`). `model` is one bundle, `chain`
several in a row.

Importing this package is cheap. torch and MONAI are imported by the first `load_model`, which is
called in a worker's child: never before the fork.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from typing import TYPE_CHECKING

from dicomnode.bundle import Bundle
from workers.inference.settings import AS_PUBLISHED, Settings

if TYPE_CHECKING:
    from workers.inference.chain import LoadedChain
    from workers.inference.model import LoadedModel

__all__ = ["AS_PUBLISHED", "Models", "Settings", "load_model"]

KEEP = 2  # models: most nodes run one or two, and a GPU holds a few of this size at once


def load_model(
    bundle: Bundle, *, device: str, settings: Settings = AS_PUBLISHED
) -> LoadedModel | LoadedChain:
    """Check the bundle against its lock, read its weights and put it on `device`.

    Args:
        bundle: As `dicomnode.bundle.load` read it.
        device: A torch device, as `workers.device.choose` names it.
        settings: How it computes.

    Raises:
        Misconfigured: The files are not those that are locked, or the configuration asks for what
            the node does not do (`bundle-changed`, `bundle-unsupported`, `weights-missing`,
            `weights-unfit`, …).
        ModelFailed: `bundle-error`: the bundle's own code failed.
    """
    one, chain = _imported()
    kind = chain if bundle.steps else one
    return kind.of(bundle, device=device, settings=settings)


def _imported() -> tuple[type[LoadedModel], type[LoadedChain]]:
    with warnings.catch_warnings():
        # MONAI uses parts of torch that torch deprecates: not the node's to mend.
        warnings.simplefilter("ignore", DeprecationWarning)
        from workers.inference.chain import LoadedChain  # noqa: PLC0415 - after the fork
        from workers.inference.model import LoadedModel  # noqa: PLC0415

    return LoadedModel, LoadedChain


class Models:
    """The models that one worker's child keeps in memory, the least recently used leaves first."""

    def __init__(self, device: str, *, keep: int = KEEP) -> None:
        self._device = device
        self._keep = keep
        self._loaded: OrderedDict[str, LoadedModel | LoadedChain] = OrderedDict()

    @staticmethod
    def warm_up() -> None:
        """Import torch and MONAI now, which takes seconds, and not at the first job."""
        _imported()

    def get(self, bundle: Bundle) -> LoadedModel | LoadedChain:
        """The model of `bundle`, known by its digest: loaded now, or warm.

        Raises:
            Misconfigured, ModelFailed: As `load_model`.
        """
        model = self._loaded.get(bundle.digest)
        if model is None:
            while len(self._loaded) >= self._keep:  # make room first: a GPU may hold no more
                self._loaded.popitem(last=False)
            model = self._loaded[bundle.digest] = load_model(bundle, device=self._device)
        self._loaded.move_to_end(bundle.digest)
        return model
