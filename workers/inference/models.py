"""The models that one worker's child keeps in memory, and what is done where it is too small."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dicomnode import log
from dicomnode.bundle import Bundle
from dicomnode.errors import ModelFailed, RetryLater
from dicomnode.prediction import Prediction, Shown
from workers.inference import loading, tuning
from workers.inference.settings import Settings

if TYPE_CHECKING:
    from workers.inference.loading import Loaded

_log = log.get(__name__)

_FULL = "out-of-memory"
_CPU = "cpu"
#: Of what is free when the first model is loaded: room must be left for computing.
_SHARE = 0.5
_WEIGHTS = ("*.pt", "*.ts", "*.pth")


@dataclass(kw_only=True)
class _Kept:
    """A model in memory.

    Attributes:
        bytes: What it holds, as measured when it was loaded.
        peak_bytes: The most that a run of it took beyond that; 0 before the first.
    """

    model: Loaded
    bytes: int
    peak_bytes: int = 0


class Models:
    """Models in memory, the least recently used leaves first.

    What they may hold together is `budget_bytes`, or half of what the device had free at first;
    what each of them holds, and what a run takes, is measured.
    """

    def __init__(
        self, device: str, *, budget_bytes: int | None = None, cpu_when_full: bool = False
    ) -> None:
        """Nothing is loaded yet.

        Args:
            cpu_when_full: Whether a model may run on the CPU where the device is too small for it.
        """
        self._device = device
        self._budget = budget_bytes
        self._cpu_when_full = cpu_when_full
        self._kept: OrderedDict[str, _Kept] = OrderedDict()

    @staticmethod
    def warm_up() -> None:
        """Import torch and MONAI now, which takes seconds, and not at the first job."""
        loading.imported()

    @property
    def digests(self) -> list[str]:
        """What is in memory, the least recently used first."""
        return list(self._kept)

    def gpu_memory(self) -> tuple[int, int] | None:
        """Bytes of the GPU that are in use, and all that it has; `None` on the CPU."""
        if self._device == _CPU:
            return None
        from workers.inference import memory  # noqa: PLC0415 - after the fork

        return memory.of_gpu(self._device)

    def used_bytes(self, bundle: Bundle) -> int:
        """What a model in memory holds, and what its last run took beyond that."""
        kept = self._kept[bundle.digest]
        return kept.bytes + kept.peak_bytes

    def get(self, bundle: Bundle) -> Loaded:
        """The model of `bundle`, known by its digest: loaded now, or warm.

        Raises:
            Misconfigured, ModelFailed: As `load_model`.
        """
        kept = self._kept.get(bundle.digest)
        if kept is None:
            self._make_room(_weights(bundle))
            kept = self._kept[bundle.digest] = self._load(bundle)
        self._kept.move_to_end(bundle.digest)
        return kept.model

    def predict(self, bundle: Bundle, inputs: Mapping[str, Shown]) -> Prediction:
        """Show `inputs` to the model, in smaller pieces where the device is too small.

        Raises:
            ModelFailed: `out-of-memory`, with what was tried; or as `LoadedModel.predict`.
        """
        from workers.inference import memory  # noqa: PLC0415 - after the fork

        model = self.get(bundle)
        kept = self._kept[bundle.digest]
        if kept.peak_bytes > memory.free(self._device):
            self._evict_others(bundle.digest)
        tried: list[str] = []
        for settings in self._smaller(model):
            before = memory.held(self._device)
            memory.forget_peak(self._device)
            try:
                prediction = model.using(settings).predict(inputs)
            except RetryLater as error:
                if error.reason != _FULL:
                    raise
                tried.append(_described(settings, model))
                _log.warning("device full", model=bundle.manifest.name, detail=tried[-1])
                self._evict_others(bundle.digest)
                memory.give_back(self._device)
            else:
                kept.peak_bytes = max(0, memory.peak(self._device) - before)
                return prediction
        raise ModelFailed(
            _FULL,
            f"{bundle.manifest.name}: the memory of {self._device} does not suffice; tried:"
            f" {'; '.join(tried)}. Give the worker more (worker.memory_gib), or a larger device.",
        )

    def _smaller(self, model: Loaded) -> Iterator[Settings]:
        """As tuned; with fewer windows at once; stitched elsewhere; where allowed on the CPU."""
        settings = model.settings
        yield settings
        batch = model.window_batch
        while batch is not None and batch > 1:
            batch //= 2
            settings = replace(settings, window_batch=batch)
            yield settings
        if self._device != _CPU:
            if batch is not None:
                settings = replace(settings, stitch_on_cpu=True)
                yield settings
            if self._cpu_when_full:
                yield replace(settings, precision="float32", network_on_cpu=True)

    def _load(self, bundle: Bundle) -> _Kept:
        from workers.inference import memory  # noqa: PLC0415 - after the fork

        if self._budget is None:
            self._budget = int(memory.free(self._device) * _SHARE)
        before = memory.held(self._device)
        settings = tuning.settings_for(bundle, device=self._device)
        model = loading.load_model(bundle, device=self._device, settings=settings)
        # Of the process only the growth can be seen, and the first model brings libraries with it.
        grown = memory.held(self._device) - before if self._device != _CPU else 0
        measured = max(grown, model.parameter_bytes)
        _log.info(
            "model loaded",
            model=bundle.manifest.name,
            bytes=measured,
            device=self._device,
            detail=settings.described,
        )
        return _Kept(model=model, bytes=measured)

    def _make_room(self, needed: int) -> None:
        """Let the least recently used go until what comes fits: a GPU may hold no more."""
        while self._kept and self._is_full(needed):
            digest, _ = self._kept.popitem(last=False)
            self._let_go(digest)

    def _is_full(self, needed: int) -> bool:
        from workers.inference import memory  # noqa: PLC0415 - after the fork

        together = sum(kept.bytes for kept in self._kept.values()) + needed
        over = self._budget is not None and together > self._budget
        return over or needed > memory.free(self._device)

    def _evict_others(self, digest: str) -> None:
        for other in [one for one in self._kept if one != digest]:
            del self._kept[other]
            self._let_go(other)

    def _let_go(self, digest: str) -> None:
        from workers.inference import memory  # noqa: PLC0415 - after the fork

        memory.give_back(self._device)
        _log.info("model unloaded", digest=digest, device=self._device)


def _weights(bundle: Bundle) -> int:
    """A first estimate of what a model holds: its files of weights."""
    return sum(
        path.stat().st_size
        for model in bundle.models
        for pattern in _WEIGHTS
        for path in Path(model.root / "models").glob(pattern)
    )


def _described(settings: Settings, model: Loaded) -> str:
    batch = model.using(settings).window_batch
    parts = [
        "as it is" if batch is None else f"{batch} windows at once",
        "stitched on the CPU" if settings.stitch_on_cpu else "",
        "on the CPU" if settings.network_on_cpu else "",
    ]
    return ", ".join(part for part in parts if part)
