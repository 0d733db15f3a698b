"""Series → `Images`: each frame of each instance, in the order in which they are looked at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.pixels.processing import apply_color_lut
from pydicom.pixels.utils import pixel_array

from dicomnode import bundle
from dicomnode.errors import NotApplicable, UnsuitableSeries
from dicomnode.volume import frames as reading
from dicomnode.volume import geometry, kind
from dicomnode.volume.display import displayed
from dicomnode.volume.frames import UNDECODABLE, SliceSource, without_pixels
from dicomnode.volume.images import Images, Picture

_DECODERS = 4
_COLOURS = 3
_MONOCHROME_AXES = 2
_PALETTE = "PALETTE COLOR"
_ENTRY_BITS = 8  # of a colour, as a model sees it
_SAME_PLACE = 0.01  # of the pixel spacing: the phases of a cine lie in one plane
# Where an enhanced image says when a frame was (PS3.3 C.7.6.16.2.7, C.7.6.16.2.2).
_IN_TIME = (
    ("CardiacSynchronization", "NominalCardiacTriggerDelayTime"),
    ("FrameContent", "TemporalPositionIndex"),
)


def load(files: Sequence[Path], *, contract: bundle.Input) -> Images:
    """Read the images of one series for an input of the form "image" or "cine".

    Raises:
        NotApplicable: They are not what `contract` asks for.
        UnsuitableSeries: They are not one patient's, or cannot be read as images.
        RetryLater: A file could not be read just now.
    """
    with ThreadPoolExecutor(_DECODERS) as pool:
        datasets = list(pool.map(reading.read, files))
        kind.require_one(datasets, kind.ONE_PATIENT)
        for dataset in datasets:
            kind.meets(str(dataset.get("Modality") or ""), {str(dataset.SOPClassUID)}, contract)
        chosen = sorted(_of_view(datasets, contract), key=_order)
        decoded = pool.map(lambda dataset: _decoded(dataset, contract), chosen)
        frames = [
            picture
            for dataset, arrays in zip(chosen, decoded, strict=True)
            for picture in _pictures(dataset, arrays)
        ]
    if contract.form == "cine":
        frames = _in_time(frames)
    kind.within("wrong-image-count", len(frames), contract.images, "images")
    _require_finite(frames)
    return Images(frames=tuple(frames), form=contract.form, modality=str(frames[0].header.Modality))


def _of_view(datasets: Sequence[Dataset], contract: bundle.Input) -> list[Dataset]:
    view = contract.view
    if view is None:
        return list(datasets)
    found = [
        dataset
        for dataset in datasets
        if view.position in (None, str(dataset.get("ViewPosition") or ""))
        and view.laterality
        in (None, str(dataset.get("ImageLaterality") or dataset.get("Laterality") or ""))
    ]
    if not found:
        asked = " ".join(part for part in (view.laterality, view.position) if part)
        raise NotApplicable("no-such-view", f"`view` asks for {asked}; no image is of it.")
    return found


def _order(dataset: Dataset) -> tuple[int, str]:
    try:
        number = int(dataset.get("InstanceNumber") or 0)
    except (TypeError, ValueError):
        number = 0
    return number, str(dataset.SOPInstanceUID)


def _decoded(dataset: Dataset, contract: bundle.Input) -> list[NDArray[np.float32]]:
    """The frames of an instance, each (rows, columns) or (rows, columns, 3)."""
    try:
        stored = pixel_array(dataset)
        is_colour = int(dataset.SamplesPerPixel) == _COLOURS
        if dataset.PhotometricInterpretation == _PALETTE:
            stored, is_colour = _through_palette(stored, dataset), True
    except UNDECODABLE as error:
        raise UnsuitableSeries("undecodable", f"Pixels could not be decoded: {error}") from error
    axes = _MONOCHROME_AXES + is_colour
    arrays = list(stored) if stored.ndim > axes else [stored]
    if is_colour:
        if contract.channels != _COLOURS:
            raise NotApplicable(
                "wrong-channel-count", "`channels` asks for 1; the images are in colour."
            )
        excess = max(0, int(dataset.BitsStored) - _ENTRY_BITS) if stored.dtype != np.uint8 else 0
        return [array.astype(np.float32) / 2**excess for array in arrays]
    if dataset.PhotometricInterpretation not in kind.MONOCHROME:
        raise UnsuitableSeries(
            "unknown-colours",
            f"Photometric Interpretation is {dataset.PhotometricInterpretation}.",
        )
    return [
        _monochrome(array, dataset, number, contract)
        for number, array in enumerate(arrays, start=1)
    ]


def _through_palette(stored: NDArray[Any], dataset: Dataset) -> NDArray[Any]:
    colours = apply_color_lut(stored, dataset)
    if colours.dtype == np.uint8:
        return colours
    return (colours >> _ENTRY_BITS).astype(np.uint8)


def _monochrome(
    stored: NDArray[Any], dataset: Dataset, number: int, contract: bundle.Input
) -> NDArray[np.float32]:
    values = reading.rescaled(stored, dataset, number)
    if contract.values == "displayed":
        values = displayed(values, reading.display(dataset, number))
    values = values.astype(np.float32, copy=False)
    return np.stack([values] * _COLOURS, axis=-1) if contract.channels == _COLOURS else values


def _pictures(dataset: Dataset, arrays: Sequence[NDArray[np.float32]]) -> Iterator[Picture]:
    header = without_pixels(dataset)
    places = _places(dataset, len(arrays))
    for number, (array, place) in enumerate(zip(arrays, places, strict=True), start=1):
        yield Picture(
            array=array,
            source=SliceSource(
                sop_instance_uid=str(dataset.SOPInstanceUID),
                sop_class_uid=str(dataset.SOPClassUID),
                path=str(Path(str(dataset.filename)).absolute()),
                frame_number=number,
                is_multiframe=len(arrays) > 1 or "NumberOfFrames" in dataset,
                position=None if place is None else place.source.position,
            ),
            pixel_spacing=_spacing(dataset, place),
            affine=None if place is None else geometry.plane_of(place),
            header=header,
        )


def _places(dataset: Dataset, count: int) -> list[reading.Frame | None]:
    """Where each frame lies in the patient, if the image says so."""
    is_placed = dataset.get("ImagePositionPatient") or "PerFrameFunctionalGroupsSequence" in dataset
    if not is_placed or not dataset.get("FrameOfReferenceUID"):
        return [None] * count
    if "PerFrameFunctionalGroupsSequence" not in dataset:
        return [reading.single(dataset)] * count
    return list(reading.split(dataset))


def _spacing(dataset: Dataset, place: reading.Frame | None) -> tuple[float, float] | None:
    if place is not None:
        rows, columns = map(float, place.pixel_spacing)
        return rows, columns
    values = dataset.get("PixelSpacing") or dataset.get("ImagerPixelSpacing")
    if not values or len(values) != _MONOCHROME_AXES or min(map(float, values)) <= 0:
        return None
    return float(values[0]), float(values[1])


def _in_time(frames: Sequence[Picture]) -> list[Picture]:
    """The phases of a cine, after making sure that they show one plane."""
    first = frames[0]
    for frame in frames:
        if frame.array.shape != first.array.shape:
            raise UnsuitableSeries("mixed-size", "The phases differ in size.")
        if (frame.affine is None) != (first.affine is None):
            raise UnsuitableSeries("no-geometry", "Not every phase says where it lies.")
        if frame.affine is not None and first.affine is not None:
            tolerance = _SAME_PLACE * float(np.linalg.norm(first.affine[:3, 1]))
            if np.abs(frame.affine - first.affine).max() > tolerance:
                raise UnsuitableSeries("several-planes", "The phases do not lie in one plane.")
    return sorted(frames, key=_moment)


def _moment(frame: Picture) -> tuple[float, float, str, int]:
    """When a phase was: in the heart beat, else in the series, else by its number."""
    header, number = frame.header, frame.source.frame_number
    said = [header.get("TriggerTime"), header.get("TemporalPositionIdentifier")]
    if "PerFrameFunctionalGroupsSequence" in header:
        said = [reading.attribute(header, number, *place) for place in _IN_TIME]
    trigger, position = map(_number, said)
    order, uid = _order(header)
    return trigger, position or order, uid, number


def _number(value: Any) -> float:
    try:
        return float(value or 0)
    except (TypeError, ValueError):
        return 0.0


def _require_finite(frames: Sequence[Picture]) -> None:
    if not all(np.isfinite(frame.array).all() for frame in frames):
        raise UnsuitableSeries("not-finite", "Some pixels are not finite numbers.")
