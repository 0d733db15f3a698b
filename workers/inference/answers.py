"""What a bundle's postprocessing gave → answers, judged and on the grid of what was shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from numpy.typing import NDArray

from dicomnode.bundle import (
    BoxesOutput,
    ClassificationOutput,
    HeatMapOutput,
    ImageOutput,
    LabelMapOutput,
    MasksOutput,
    NumbersOutput,
    Output,
    PointsOutput,
    ProbabilityMapOutput,
    RegistrationOutput,
)
from dicomnode.errors import ModelFailed
from dicomnode.prediction import (
    Answer,
    DerivedImage,
    HeatMap,
    LabelMap,
    Masks,
    Numbers,
    ProbabilityMap,
)
from dicomnode.volume import Images, Picture, Slide, Volume
from workers.inference import classes, grid, places, registration

_BEYOND = 1e-3  # of a probability: what resampling and float32 may add


@dataclass(frozen=True, kw_only=True)
class About:
    """What an answer is about.

    Attributes:
        subject: A volume, one image, all images of a cine, or a slide.
        frame: Of images that are looked at one by one: which.
        is_interpolated: Whether the bundle interpolates answers on their way back to the image,
            and so may leave fractions of labels.
        others: The inputs after the first, by name, in the manifest's order.
    """

    subject: Volume | Picture | Images | Slide
    frame: int | None = None
    is_interpolated: bool = False
    others: tuple[str, ...] = ()


def of(said: Mapping[str, Any], name: str, output: Output, about: About) -> list[Answer]:
    """The answers of one output: one, or of a cine one for each phase.

    Raises:
        ModelFailed: `no-answer`, `no-geometry`, `wrong-shape`, `unknown-label`, `not-finite`,
            `not-a-probability`, `wrong-outputs`, or as `registration.of`.
    """
    value = said.get(output.key or name)
    if value is None:
        raise ModelFailed("no-answer", f"The bundle gave no '{output.key or name}'.")
    if isinstance(output, BoxesOutput):
        return [places.boxes(said, name, output, about.subject, frame=about.frame)]
    if isinstance(output, PointsOutput):
        return list(places.points(value, name, output, about.subject, frame=about.frame))
    if isinstance(output, ClassificationOutput | NumbersOutput | RegistrationOutput):
        return [_without_place(value, name, output, about)]
    if isinstance(about.subject, Slide):
        return [_map_of_patches(value, name, output, about.subject)]
    return _arrays(value, name, output, about)


def _without_place(
    value: Any,
    name: str,
    output: ClassificationOutput | NumbersOutput | RegistrationOutput,
    about: About,
) -> Answer:
    """Answers that lie nowhere in the image."""
    if isinstance(output, ClassificationOutput):
        return classes.of(value, name, output, frame=about.frame)
    if isinstance(output, NumbersOutput):
        return _numbers(value, name, output, frame=about.frame)
    return registration.of(_tensor(value, name), name, output, others=about.others)


def _arrays(value: Any, name: str, output: Output, about: About) -> list[Answer]:
    """Answers that lie on a grid."""
    if isinstance(about.subject, Images):
        phases = _tensor(value, name)
        if phases.shape[-1] != len(about.subject.frames):
            raise ModelFailed(
                "wrong-shape", f"'{name}' has {phases.shape[-1]} phases of as many as were shown."
            )
        return [
            _array(
                phases[..., phase].squeeze(-1),
                name,
                output,
                replace(about, subject=frame, frame=phase),
            )
            for phase, frame in enumerate(about.subject.frames)
        ]
    return [_array(value, name, output, about)]


def _array(value: Any, name: str, output: Output, about: About) -> Answer:
    subject, number = about.subject, about.frame
    if not isinstance(subject, Volume | Picture):
        raise ModelFailed("wrong-outputs", f"'{name}': a slide has maps of probabilities alone.")
    channels, affine = _channels(value, name, subject)
    onto = grid.of(subject)
    if isinstance(output, LabelMapOutput):
        _require_channels(channels, 1, name, "a label map")
        labels = _known(channels[0], name, output, round_off=about.is_interpolated)
        placed = onto.bring(labels, affine=affine, order=grid.NEAREST)
        return LabelMap(output=name, frame=number, array=placed)
    if isinstance(output, MasksOutput):
        return _masks(channels, affine, name, output, onto=onto, number=number)
    if isinstance(output, ProbabilityMapOutput):
        wanted = [one.label for one in output.findings]
        _require_channels(channels, max(wanted), name, "these findings")
        placed = _brought(channels, [label - 1 for label in wanted], affine, onto)
        _require_probabilities(placed, name)
        return ProbabilityMap(output=name, frame=number, array=np.clip(placed, 0, 1))
    _require_channels(channels, 1, name, "an image")
    placed = _brought(channels, [0], affine, onto)[0]
    _require_finite(placed, name)
    if isinstance(output, HeatMapOutput):
        return HeatMap(
            output=name, frame=number, array=_from_0_to_1(placed), of=output.of, explains=0
        )
    if isinstance(output, ImageOutput):
        return DerivedImage(output=name, frame=number, array=placed)
    raise ModelFailed("wrong-outputs", f"'{name}' is no answer about an image.")


def _brought(
    channels: NDArray[Any], which: Sequence[int], affine: NDArray[np.float64], onto: grid.Grid
) -> NDArray[np.float32]:
    brought = [
        onto.bring(channels[index].astype(np.float32), affine=affine, order=grid.LINEAR)
        for index in which
    ]
    return np.stack(brought).astype(np.float32, copy=False)


def _masks(
    channels: NDArray[Any],
    affine: NDArray[np.float64],
    name: str,
    output: MasksOutput,
    *,
    onto: grid.Grid,
    number: int | None,
) -> Masks:
    labels = [segment.label for segment in output.segments]
    _require_channels(channels, max(labels), name, "these segments")
    _require_finite(channels, name)
    array = np.empty((len(labels), *onto.shape[::-1]), dtype=np.bool_)
    # Where nothing was said nothing is marked, whatever the threshold: that of logits may be 0.
    beyond = 0.0 if output.threshold > 0 else output.threshold - 1
    for place, label in enumerate(labels):
        channel = channels[label - 1]
        # What was decided already stays as it was decided; a probability is decided on the grid.
        is_decided = bool(((channel == 0) | (channel == 1)).all())
        order = grid.NEAREST if is_decided else grid.LINEAR
        placed = onto.bring(channel.astype(np.float32), affine=affine, order=order, beyond=beyond)
        np.greater_equal(placed, output.threshold, out=array[place])
    return Masks(output=name, frame=number, array=array)


def _map_of_patches(value: Any, name: str, output: Output, slide: Slide) -> ProbabilityMap:
    if not isinstance(output, ProbabilityMapOutput):
        raise ModelFailed("wrong-outputs", f"'{name}': a slide has maps of probabilities alone.")
    array = np.asarray(value, dtype=np.float32)[np.newaxis]
    _require_channels(array, len(output.findings), name, "these findings")
    _require_probabilities(array[np.isfinite(array)], name)
    rows, columns = array.shape[1:]
    finest = slide.levels[0]
    return ProbabilityMap(
        output=name, array=array, step=(finest.rows / rows, finest.columns / columns)
    )


def _numbers(value: Any, name: str, output: NumbersOutput, *, frame: int | None) -> Numbers:
    values = _tensor(value, name).flatten().tolist()
    if len(values) != len(output.quantities):
        raise ModelFailed(
            "wrong-shape",
            f"'{name}' has {len(values)} numbers; its manifest names {len(output.quantities)}.",
        )
    _require_finite(np.asarray(values), name)
    return Numbers(output=name, frame=frame, values=tuple(float(one) for one in values))


def _tensor(value: Any, name: str) -> torch.Tensor:
    if isinstance(value, torch.Tensor):
        return value.detach().cpu()
    try:
        return torch.as_tensor(np.asarray(value))
    except (TypeError, ValueError) as error:
        raise ModelFailed(
            "wrong-shape", f"'{name}' is a {type(value).__name__}, and no tensor."
        ) from error


def _channels(
    value: Any, name: str, subject: Volume | Picture
) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """The channels of an answer on MONAI's axes, and where it lies."""
    if not isinstance(value, MetaTensor):
        raise ModelFailed("no-geometry", f"'{name}' came without an affine: its place is unknown.")
    size = 3 if isinstance(subject, Volume) else 2
    if value.ndim != size + 1:
        raise ModelFailed(
            "wrong-shape",
            f"'{name}' has shape {tuple(value.shape)}; an answer has channels and {size} spatial"
            " dimensions.",
        )
    array = value.as_tensor().detach().cpu()
    if array.dtype is torch.bfloat16:
        array = array.float()
    return array.numpy(), value.affine.cpu().numpy().astype(np.float64)


def _require_channels(array: NDArray[Any], count: int, name: str, what: str) -> None:
    if array.shape[0] < count or (count == 1 and array.shape[0] != 1):
        raise ModelFailed(
            "wrong-shape", f"'{name}' has shape {array.shape}; {what} needs {count} channels."
        )


def _known(
    values: NDArray[Any], name: str, output: LabelMapOutput, *, round_off: bool
) -> NDArray[np.uint8 | np.uint16]:
    """`values` as the smallest unsigned integers, if the manifest knows each of them.

    Where a bundle interpolates labels on their way back to the image, the nearest label is meant,
    as it is wherever such an answer is written as integers.
    """
    whole = np.rint(values) if round_off else values
    known = {0, *(segment.label for segment in output.segments)}
    highest = max(known)
    # Far faster than sorting all voxels: those that are whole and in range are counted.
    within = bool(whole.min() >= 0 and whole.max() <= highest)
    labels = whole.astype(np.min_scalar_type(highest)) if within else np.empty(0, dtype=np.uint8)
    if within and bool((labels == whole).all()):
        present = set(np.flatnonzero(np.bincount(labels.ravel())).tolist())
        if present <= known:
            return labels
    _require_finite(values, name)
    unknown = sorted({float(value) for value in np.unique(whole)} - known)
    raise ModelFailed(
        "unknown-label", f"'{name}' has the value {unknown[0]:g}, which no segment stands for."
    )


def _require_finite(values: NDArray[Any], name: str) -> None:
    if not np.isfinite(values).all():
        raise ModelFailed("not-finite", f"'{name}' has values that are infinite or no numbers.")


def _require_probabilities(values: NDArray[np.float32], name: str) -> None:
    _require_finite(values, name)
    if values.size and (values.min() < -_BEYOND or values.max() > 1 + _BEYOND):
        raise ModelFailed(
            "not-a-probability",
            f"'{name}' has values from {values.min():.3g} to {values.max():.3g}; a probability lies"
            " between 0 and 1.",
        )


def _from_0_to_1(values: NDArray[np.float32]) -> NDArray[np.float32]:
    low, high = float(values.min()), float(values.max())
    return (values - low) / (high - low) if high > low else np.zeros_like(values)
