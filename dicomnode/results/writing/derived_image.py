r"""Images that a model made of the images, as one series: an instance for each slice or frame.

Their values are written in 16 bits, and a Rescale Slope and Intercept bring them back to within
half a step. Whole numbers are written as they are. Classic MR images know no rescale (PS3.3
C.8.3.1): theirs is an extension that readers apply all the same, and General Image's Real World
Value Mapping says it once more, where the unit is known. What else stands in their headers is in
`image_modules`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.valuerep import DSfloat

from dicomnode.bundle import Code, ImageOutput
from dicomnode.errors import RetryLater
from dicomnode.prediction import DerivedImage
from dicomnode.results import common
from dicomnode.results.common import Run
from dicomnode.results.part import Part
from dicomnode.results.writing import image_modules, multiframe
from dicomnode.results.writing.image_modules import Look
from dicomnode.results.writing.multiframe import Frames
from dicomnode.volume import Images, SliceSource, Volume

_BITS = 16
_UNSIGNED, _SIGNED = np.iinfo(np.uint16), np.iinfo(np.int16)
_FINEST = 1e-9  # of the largest value: a decimal string of 16 characters tells no less


def build(run: Run, part: Part) -> list[Dataset]:
    """Make the images of one output, in the order of the sources."""
    output = run.bundle.manifest.outputs[part.output]
    if not isinstance(output, ImageOutput):
        raise TypeError(f"{part.output} is no image")
    frames = multiframe.of(run.prediction, part)
    arrays, headers = _arrays(run, part), list(_headers(run, part, frames))
    given = next(iter(run.bundle.manifest.inputs.values()))
    look = image_modules.look(output, given, headers, placed=frames.has_places)
    encoding = _Encoding.of(arrays, from_zero=look.is_pet)
    made = []
    for number, array in enumerate(arrays, start=1):
        source = frames.sources[number - 1]
        dataset = common.new(look.sop_class_uid)
        common.complete(dataset, run, part, number=number)
        image_modules.describe(dataset, look, headers[number - 1], frames.planes[number - 1])
        common.say_lossiness(dataset, headers[number - 1])
        _derive(dataset, output, source, frames.series_instance_uid)
        encoding.write(dataset, array, look, output)
        made.append(dataset)
    return made


def _arrays(run: Run, part: Part) -> list[NDArray[np.float32]]:
    """The images, each of shape (rows, columns)."""
    answers = [
        one
        for one in run.prediction.answers
        if one.output == part.output and isinstance(one, DerivedImage)
    ]
    if isinstance(run.prediction.subject, Volume):
        return list(answers[0].array)
    by_frame = {one.frame: one.array for one in answers}
    return [by_frame[frame] for frame in part.frames]


def _headers(run: Run, part: Part, frames: Frames) -> Iterator[Dataset]:
    """The header of the source of each image, without its pixels."""
    subject = run.prediction.subject
    if isinstance(subject, Images):
        yield from (subject.frames[number].header for number in part.frames)
        return
    read: dict[str, Dataset] = {}
    for source in frames.sources:
        if source.sop_instance_uid not in read:
            read[source.sop_instance_uid] = _header(source)
        yield read[source.sop_instance_uid]


def _header(source: SliceSource) -> Dataset:
    try:
        return dcmread(source.path, stop_before_pixels=True)
    except OSError as error:
        raise RetryLater(
            "file-unavailable", f"A file could not be read: {error.strerror}."
        ) from error


def _derive(
    dataset: Dataset, output: ImageOutput, source: SliceSource, series_instance_uid: str
) -> None:
    """Say what was done, and to which image (PS3.3 C.12.4)."""
    multiframe.refer(dataset, [source], series_instance_uid)
    image = multiframe.as_source(source)
    if source.is_multiframe:
        image.ReferencedFrameNumber = source.frame_number
    dataset.SourceImageSequence = [image]
    dataset.DerivationDescription = output.description
    dataset.DerivationCodeSequence = [common.code_item(output.derivation)]


@dataclass(frozen=True, kw_only=True)
class _Encoding:
    """How values become pixels of 16 bits: value = pixel * slope + intercept, over a series."""

    slope: DSfloat
    intercept: DSfloat
    limits: np.iinfo[Any]

    @classmethod
    def of(cls, arrays: Sequence[NDArray[np.float32]], *, from_zero: bool) -> _Encoding:
        """The one that keeps most of the values.

        Args:
            arrays: The images of a series.
            from_zero: Whether 0 must be the value of the pixel 0 (PET: PS3.3 C.8.9.4.1.5).
        """
        low = min(float(one.min()) for one in arrays)
        high = max(float(one.max()) for one in arrays)
        fitting = [
            limits for limits in (_UNSIGNED, _SIGNED) if limits.min <= low and high <= limits.max
        ]
        if fitting and all(bool((one == np.rint(one)).all()) for one in arrays):
            return cls(slope=_decimal(1), intercept=_decimal(0), limits=fitting[0])
        largest = max(abs(low), abs(high))
        if from_zero:
            limits = _SIGNED if low < 0 else _UNSIGNED
            slope = largest / limits.max
            return cls(slope=_decimal(slope), intercept=_decimal(0), limits=limits)
        slope = max((high - low) / _UNSIGNED.max, largest * _FINEST)
        return cls(slope=_decimal(slope), intercept=_decimal(low), limits=_UNSIGNED)

    def write(
        self, dataset: Dataset, array: NDArray[np.float32], look: Look, output: ImageOutput
    ) -> None:
        """Write one image (PS3.3 C.7.6.3), and what its pixels mean."""
        steps = (array.astype(np.float64) - float(self.intercept)) / float(self.slope)
        pixels = np.clip(np.rint(steps), self.limits.min, self.limits.max)
        dataset.SamplesPerPixel = 1
        dataset.PhotometricInterpretation = "MONOCHROME1" if look.is_inverted else "MONOCHROME2"
        dataset.Rows, dataset.Columns = array.shape
        dataset.BitsAllocated = dataset.BitsStored = _BITS
        dataset.HighBit = _BITS - 1
        dataset.PixelRepresentation = int(self.limits.min < 0)
        dataset.RescaleSlope, dataset.RescaleIntercept = self.slope, self.intercept
        if not look.is_pet:
            dataset.RescaleType = "HU" if look.unit and look.unit.value == "[hnsf'U]" else "US"
        if look.unit is not None:
            dataset.RealWorldValueMappingSequence = [self._meaning(look.unit, output)]
        dataset.PixelData = pixels.astype(self.limits.dtype.newbyteorder("<")).tobytes()
        dataset["PixelData"].VR = "OW"

    def _meaning(self, unit: Code, output: ImageOutput) -> Dataset:
        """The unit of the values (PS3.3 C.7.6.16.2.11)."""
        item = Dataset()
        item.RealWorldValueSlope = float(self.slope)
        item.RealWorldValueIntercept = float(self.intercept)
        item.RealWorldValueFirstValueMapped = int(self.limits.min)
        item.RealWorldValueLastValueMapped = int(self.limits.max)
        for keyword in ("RealWorldValueFirstValueMapped", "RealWorldValueLastValueMapped"):
            item[keyword].VR = "SS" if self.limits.min < 0 else "US"
        item.MeasurementUnitsCodeSequence = [common.code_item(unit)]
        item.LUTLabel = unit.value
        item.LUTExplanation = output.description
        return item


def _decimal(value: float) -> DSfloat:
    return common.decimal(float(value))
