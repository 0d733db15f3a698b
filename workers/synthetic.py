"""Something to show a model where no study is at hand: noise that meets its manifest."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from dicomnode import volume
from dicomnode.bundle import Bundle, Input, Range
from dicomnode.errors import Misconfigured
from dicomnode.prediction import Shown
from dicomnode.volume import Images, Picture, SliceSource, Volume

_SLICES, _SIDE, _IMAGE_SIDE = 48, 64, 256
_SPACING_MM = 1.5
_SEED = 1


def inputs(bundle: Bundle) -> dict[str, Shown]:
    """Noise for each input of a model, as it would come from a study: the same at every call.

    Raises:
        Misconfigured: `no-synthetic-slide`: a slide cannot be made up.
    """
    made: dict[str, Shown] = {
        name: _one(contract, number)
        for number, (name, contract) in enumerate(bundle.manifest.inputs.items())
    }
    return {name: _on_its_grid(name, made, bundle) for name in made}


def _on_its_grid(name: str, made: Mapping[str, Shown], bundle: Bundle) -> Shown:
    one, onto = made[name], bundle.manifest.inputs[name].on_grid_of
    if onto is None or not isinstance(one, Volume):
        return one
    other = made[onto]
    return volume.resampled(one, onto=other) if isinstance(other, Volume) else one


def _one(contract: Input, number: int) -> Shown:
    random = np.random.default_rng(_SEED + number)
    if contract.form == "volume":
        return _volume(contract, random)
    if contract.form == "slide":
        raise Misconfigured(
            "no-synthetic-slide", "A slide cannot be made up: try the model on a real one."
        )
    count = 8 if contract.form == "cine" else 1
    count = int(_within(contract.images, count))
    frames = tuple(_picture(contract, random) for _ in range(count))
    return Images(frames=frames, form=contract.form, modality=contract.modalities[0])


def _volume(contract: Input, random: np.random.Generator) -> Volume:
    spacing = _within(contract.spacing_mm, _SPACING_MM)
    between = _within(contract.slice_spacing_mm, spacing)
    slices = int(_within(contract.slices, _SLICES))
    extent = Range(min=contract.extent_mm.min, max=contract.extent_mm.max)
    side = int(_within(extent, _SIDE * spacing) / spacing)
    slices = min(slices, int((extent.max or slices * between) / between))
    affine = np.diag([between, spacing, spacing, 1.0])[[2, 1, 0, 3]]
    return Volume(
        array=_noise((slices, side, side), random),
        affine=affine,
        sources=tuple(_source(index) for index in range(slices)),
        modality=contract.modalities[0],
        frame_of_reference_uid="2.25.1",
        orientation=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
        pixel_spacing=(spacing, spacing),
        slice_thickness=between,
        header=Dataset(),
    )


def _picture(contract: Input, random: np.random.Generator) -> Picture:
    shape = (_IMAGE_SIDE, _IMAGE_SIDE) + ((3,) if contract.channels > 1 else ())
    noise = _noise(shape, random)
    return Picture(
        array=np.clip(noise / 8 + 128, 0, 255).astype(np.float32),
        source=_source(0),
        pixel_spacing=None,
        affine=np.eye(4) if contract.form == "cine" else None,
        header=Dataset(),
    )


def _source(index: int) -> SliceSource:
    return SliceSource(
        sop_instance_uid=f"2.25.{index + 1}",
        sop_class_uid="2.25.1",
        path="",
        frame_number=1,
        is_multiframe=False,
        position=(0.0, 0.0, float(index)),
    )


def _noise(shape: tuple[int, ...], random: np.random.Generator) -> NDArray[np.float32]:
    """Blocks of one value, with some noise on them: edges for a network to look at."""
    coarse = random.standard_normal([-(-size // 8) for size in shape[:3]]) * 300
    for axis, size in enumerate(shape[: coarse.ndim]):
        coarse = np.repeat(coarse, 8, axis=axis).take(range(size), axis=axis)
    noise: NDArray[np.float32] = (coarse + random.standard_normal(shape) * 20).astype(np.float32)
    return noise


def _within(limits: Range, wanted: float) -> float:
    if limits.min is not None:
        wanted = max(wanted, limits.min)
    return wanted if limits.max is None else min(wanted, limits.max)
