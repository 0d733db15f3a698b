"""Loads a bundle, or a chain of them: the one door to torch and MONAI."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, TypeAlias

from dicomnode.bundle import Bundle
from workers.inference.settings import AS_PUBLISHED, Settings

if TYPE_CHECKING:
    from workers.inference.chain import LoadedChain
    from workers.inference.model import LoadedModel

    #: A model in memory.
    Loaded: TypeAlias = LoadedModel | LoadedChain


def load_model(bundle: Bundle, *, device: str, settings: Settings = AS_PUBLISHED) -> Loaded:
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
    one, chain = imported()
    kind = chain if bundle.steps else one
    return kind.of(bundle, device=device, settings=settings)


def imported() -> tuple[type[LoadedModel], type[LoadedChain]]:
    """The classes, and with them torch and MONAI: seconds at the first call."""
    with warnings.catch_warnings():
        # MONAI uses parts of torch that torch deprecates: not the node's to mend.
        warnings.simplefilter("ignore", DeprecationWarning)
        from workers.inference.chain import LoadedChain  # noqa: PLC0415 - after the fork
        from workers.inference.model import LoadedModel  # noqa: PLC0415

    return LoadedModel, LoadedChain
