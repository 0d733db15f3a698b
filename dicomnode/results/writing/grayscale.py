"""How the values of images become gray in a presentation state: as in the images themselves.

A presentation state takes the place of all that an image says of it: what it leaves out is the
identity, not the image's own (PS3.4 N.2.1.2, N.2.1.3). So the Modality LUT (PS3.3 C.11.1) and the
window or VOI LUT (C.11.8) of every image are in it. It can hold one Modality LUT alone: where the
images differ in theirs, as those of PET do, it has the identity, and the windows are in stored
values.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pydicom import Dataset, dcmread

from dicomnode.errors import RetryLater
from dicomnode.results.common import Run, decimal
from dicomnode.results.drawing import gray
from dicomnode.volume import Images, SliceSource

_GROUPS = {"rescale": "PixelValueTransformationSequence", "window": "FrameVOILUTSequence"}


_BYTE = 8
_COLOURS = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class Grayscale:
    """How the values of one frame become gray, as its image says.

    Attributes:
        modality: The attributes of the Modality LUT module; empty: the identity.
        voi: Those of the VOI LUT module; empty: the identity.
    """

    modality: Dataset
    voi: Dataset


def of(run: Run, frames: Sequence[int]) -> dict[int, Grayscale]:
    """Frame → how its values become gray.

    Raises:
        RetryLater: A source's file could not be read just now.
    """
    sources = run.prediction.subject.sources
    headers = _headers(run, frames)
    window = functools.cache(functools.partial(_window, run))
    found: dict[int, Grayscale] = {}
    for frame in frames:
        header = headers[sources[frame].sop_instance_uid]
        modality = _modality(header, _group(header, sources[frame], "rescale"))
        voi = _voi(_group(header, sources[frame], "window"))
        is_as_stored = header.get("BitsStored") == _BYTE and not len(modality)
        found[frame] = Grayscale(
            modality=modality, voi=voi if len(voi) or is_as_stored else window(_whole(run, frame))
        )
    return found


def write(dataset: Dataset, grays: Mapping[int, Grayscale]) -> dict[int, Dataset]:
    """Write the Modality LUT, and give the item of the VOI LUT for each frame that has one."""
    if len({one.modality.to_json() for one in grays.values()}) == 1:
        dataset.update(next(iter(grays.values())).modality)
        vois = {frame: one.voi for frame, one in grays.items()}
    else:
        dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = 1, 0, "US"
        vois = {frame: _stored(one) for frame, one in grays.items() if len(one.voi)}
    return {frame: voi for frame, voi in vois.items() if len(voi)}


def _headers(run: Run, frames: Sequence[int]) -> dict[str, Dataset]:
    """SOP Instance UID → header of every image that has one of the frames."""
    subject = run.prediction.subject
    if isinstance(subject, Images):
        return {
            subject.frames[frame].source.sop_instance_uid: subject.frames[frame].header
            for frame in frames
        }
    paths = {subject.sources[n].sop_instance_uid: subject.sources[n].path for n in frames}
    return {uid: _read(path) for uid, path in paths.items()}


def _read(path: str) -> Dataset:
    try:
        return dcmread(path, stop_before_pixels=True)
    except OSError as error:
        reason = f"A source could not be read again: {error.strerror}."
        raise RetryLater("file-unavailable", reason) from error


def _group(header: Dataset, source: SliceSource, what: str) -> Dataset:
    """Where a frame's attributes stand: a functional group of it, or else the image."""
    if "PerFrameFunctionalGroupsSequence" not in header:
        return header
    own = header.PerFrameFunctionalGroupsSequence[source.frame_number - 1]
    for groups in (own, *(header.get("SharedFunctionalGroupsSequence") or ())):
        if items := groups.get(_GROUPS[what]):
            item: Dataset = items[0]
            return item
    return header


def _modality(header: Dataset, group: Dataset) -> Dataset:
    """The Modality LUT (C.11.1): a table, or slope and intercept with their type."""
    made = Dataset()
    if header.get("ModalityLUTSequence"):
        made.ModalityLUTSequence = copy.deepcopy(header.ModalityLUTSequence)
    elif group.get("RescaleSlope") is not None and group.get("RescaleIntercept") is not None:
        made.RescaleSlope = decimal(float(group.RescaleSlope))
        made.RescaleIntercept = decimal(float(group.RescaleIntercept))
        usual = "HU" if header.get("Modality") == "CT" else "US"
        made.RescaleType = str(group.get("RescaleType") or usual)
    return made


def _voi(group: Dataset) -> Dataset:
    """The first window, or the first VOI LUT, of an image (C.11.2, C.11.8)."""
    made = Dataset()
    if group.get("VOILUTSequence"):
        made.VOILUTSequence = [copy.deepcopy(group.VOILUTSequence[0])]
    elif group.get("WindowCenter") not in (None, "") and group.get("WindowWidth"):
        made.WindowCenter = decimal(_first(group, "WindowCenter"))
        made.WindowWidth = decimal(_first(group, "WindowWidth"))
        if group.get("VOILUTFunction"):
            made.VOILUTFunction = group.VOILUTFunction
    return made


def _first(group: Dataset, keyword: str) -> float:
    return float(np.atleast_1d(group[keyword].value)[0])


def _whole(run: Run, frame: int) -> int | None:
    """Whose window a frame has, where its image has none: the volume's, or its own."""
    return frame if isinstance(run.prediction.subject, Images) else None


def _window(run: Run, frame: int | None) -> Dataset:
    """A window as the pictures have it, of a frame or of the volume; empty where none is known."""
    low, high = _limits(run, frame)
    made = Dataset()
    if high > low:
        # A linear window from the lowest, black, to the highest, white (C.11.2.1.2.1).
        made.WindowCenter = decimal((low + high) / 2 + 0.5)
        made.WindowWidth = decimal(high - low + 1)
    return made


def _limits(run: Run, frame: int | None) -> tuple[float, float]:
    """The lowest and the highest value shown, after the Modality LUT; 0 and 0: not known.

    What the model saw are those values, or was made of them.
    """
    subject, model = run.prediction.subject, run.bundle
    values = next(iter(model.manifest.inputs.values())).values
    if values == "suvbw":
        return 0, gray.uptake(run.prediction.volume) or 0
    if values == "displayed":
        return 0, 0
    if isinstance(subject, Images) and frame is not None:
        array = subject.frames[frame].array
        shown = gray.of_values(array[..., 0] if array.ndim == _COLOURS else array)
    else:
        shown = gray.window(run.prediction.volume, model)
    return shown.low, shown.high


def _stored(one: Grayscale) -> Dataset:
    """The same window for stored values; of a table that is for others, the identity."""
    if "VOILUTSequence" in one.voi or "ModalityLUTSequence" in one.modality:
        return Dataset()
    slope = float(one.modality.get("RescaleSlope", 1))
    intercept = float(one.modality.get("RescaleIntercept", 0))
    made = copy.deepcopy(one.voi)
    # The limits of a linear window lie half a value, and a whole one, within (C.11.2.1.2.1).
    is_linear = str(made.get("VOILUTFunction") or "LINEAR") == "LINEAR"
    shift, less = (0.5, 1.0) if is_linear else (0.0, 0.0)
    made.WindowCenter = decimal((float(made.WindowCenter) - shift - intercept) / slope + shift)
    made.WindowWidth = decimal((float(made.WindowWidth) - less) / slope + less)
    return made
