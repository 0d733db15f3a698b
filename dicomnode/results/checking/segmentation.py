"""Reads a SEG's pixels back into the patient, and compares them with what the model said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, RLELossless

from dicomnode.bundle import Code
from dicomnode.results import layers, said
from dicomnode.results.arrangement import ALL_FRAMES
from dicomnode.results.checking import places
from dicomnode.results.checking.expected import Expected, Read, has_code, require
from dicomnode.results.layers import Layers, Numbered
from dicomnode.results.part import Part
from dicomnode.volume import Volume

LABEL_MAP_SEGMENTATION_STORAGE = UID("1.2.840.10008.5.1.4.1.1.66.7")

_BACKGROUND = Code(value="125040", scheme="DCM", meaning="Background")
_MOST = 255
_STEP = 0.5 / _MOST + 1e-6  # what may get lost when a probability is written in 255 steps
_ENCODINGS = {
    "aligned": (1, ExplicitVRLittleEndian),
    "binary": (1, ExplicitVRLittleEndian),
    "fractional": (8, ExplicitVRLittleEndian),
    "labelmap": (8, RLELossless),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class _Decoded:
    """The pixels of a SEG.

    Attributes:
        segments: The segment number of each frame; 0 of a label map, whose frames have all.
    """

    dataset: Dataset
    shape: tuple[int, int]
    segments: list[int]

    def plane(self, frame: int) -> NDArray[Any]:
        """The segment of a frame: bool, or of fractions float from 0 to 1."""
        if self.dataset.BitsAllocated == 1:
            return self._unpacked(frame)
        size = self.shape[0] * self.shape[1]
        stored = np.frombuffer(
            self.dataset.PixelData, dtype=np.uint8, count=size, offset=frame * size
        )
        most = float(self.dataset.MaximumFractionalValue)
        return stored.reshape(self.shape).astype(np.float32) / most

    def _unpacked(self, frame: int) -> NDArray[np.bool_]:
        """BINARY: frame follows frame without a gap, lowest bit first (PS3.5 8.1.1)."""
        size = self.shape[0] * self.shape[1]
        first_byte, skipped = divmod(frame * size, 8)
        stored = np.frombuffer(self.dataset.PixelData, dtype=np.uint8)
        packed = stored[first_byte : -(-(frame + 1) * size // 8)]
        unpacked = np.unpackbits(packed, bitorder="little")[skipped : skipped + size]
        return unpacked.reshape(self.shape).astype(bool)

    @cached_property
    def labels(self) -> NDArray[Any]:
        """Of a label map: the segment number of each pixel, shape (frames, rows, columns)."""
        labels: NDArray[Any] = self.dataset.pixel_array.reshape(-1, *self.shape)
        return labels


def check(dataset: Dataset, part: Part, expected: Expected) -> Read:
    """Check one SEG, and measure what its pixels say.

    Raises:
        ResultMismatch: It is not what the model said, or does not lie where the source lies.
    """
    segments = layers.of(expected.prediction, expected.bundle, part.output, part.frames)
    _check_segments(dataset.SegmentSequence, segments.items, part, expected)
    _check_encoding(dataset, segments, part)
    where = places.check(dataset, part, expected)
    decoded = _Decoded(
        dataset=dataset,
        shape=(dataset.Rows, dataset.Columns),
        segments=[_segment_of(dataset, one) for one in dataset.PerFrameFunctionalGroupsSequence],
    )
    _check_complete(decoded, where, segments, part)
    voxels = _compared(decoded, where, segments)
    volumes_ml = {}
    subject = expected.prediction.subject
    if isinstance(subject, Volume):
        voxel_mm3 = places.voxel_mm3(dataset, subject.sources, expected)
        volumes_ml = {number: n * voxel_mm3 / 1000 for number, n in voxels.items()}
    return Read(
        part=part,
        sop_instance_uid=str(dataset.SOPInstanceUID),
        volumes_ml=volumes_ml,
        frames=tuple(zip(decoded.segments, where, strict=True)),
    )


def _segment_of(dataset: Dataset, frame: Dataset) -> int:
    # One segment alone may stand in the shared group (PS3.3 C.7.6.16.1.1).
    for groups in (frame, dataset.SharedFunctionalGroupsSequence[0]):
        if "SegmentIdentificationSequence" in groups:
            return int(groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
    return 0


def _compared(decoded: _Decoded, where: Sequence[int], segments: Layers) -> dict[int, int]:
    """Compare every pixel with what was said; gives segment number → voxels."""
    voxels: NDArray[np.int64] = np.zeros(1 + len(segments.items), dtype=np.int64)
    for frame, (number, index) in enumerate(zip(decoded.segments, where, strict=True)):
        if number == 0:
            labels = decoded.labels[frame]
            same = np.array_equal(labels, _numbered(segments, index))
            voxels += np.bincount(labels.ravel(), minlength=len(voxels))[: len(voxels)]
        else:
            found = decoded.plane(frame)
            meant = segments.plane(segments.items[number - 1], index)
            if found.dtype == np.bool_:
                same = np.array_equal(found, meant)
            else:
                same = bool(np.abs(found - meant).max() <= _STEP)
            voxels[number] += np.count_nonzero(found)
        require(
            same,
            "mask-differs",
            f"Frame {frame + 1} of the SEG is not what the model marked on image {index + 1}.",
        )
    return {item.number: int(voxels[item.number]) for item in segments.items}


def _numbered(segments: Layers, index: int) -> NDArray[np.uint16]:
    """What was said of one frame of the source: the segment number of each pixel, 0 of none."""
    said_of = np.zeros(segments.array.shape[-2:], dtype=np.uint16)
    for item, counts in zip(segments.items, segments.counts, strict=True):
        if counts[index]:
            said_of[segments.plane(item, index)] = item.number
    return said_of


def _check_encoding(dataset: Dataset, segments: Layers, part: Part) -> None:
    bits, syntax = _ENCODINGS[part.variant]
    if part.variant == "labelmap" and len(segments.items) > np.iinfo(np.uint8).max:
        bits = 16
    require(
        (dataset.SegmentationType, dataset.BitsAllocated) == (_type_of(part), bits)
        and dataset.file_meta.TransferSyntaxUID == syntax
        and dataset.SamplesPerPixel == 1
        and dataset.PhotometricInterpretation == "MONOCHROME2"
        and dataset.SegmentsOverlap == ("YES" if segments.overlap else "NO"),
        "encoding-differs",
        f"The SEG is not {part.variant}, or not in the transfer syntax that goes with it.",
    )
    if part.variant == "labelmap":
        require(
            dataset.get("PixelPaddingValue") == 0,
            "encoding-differs",
            "The label map does not say that 0 is what is around the segments.",
        )
    if part.variant == "fractional":
        meant = "PROBABILITY" if segments.is_fraction else "OCCUPANCY"
        require(
            (dataset.SegmentationFractionalType, dataset.MaximumFractionalValue) == (meant, _MOST),
            "encoding-differs",
            "The SEG does not say right what its fractions are.",
        )


def _type_of(part: Part) -> str:
    """Segmentation Type (0062,0001)."""
    return "BINARY" if part.variant == "aligned" else part.variant.upper()


def _check_aligned(decoded: _Decoded, found: Sequence[tuple[int, int]], segments: Layers) -> None:
    """What has something on it starts on a byte, ends before it shares one, and none is odd."""
    size = decoded.shape[0] * decoded.shape[1]
    for frame, (number, index) in enumerate(found):
        plane = segments.plane(segments.items[number - 1], index).ravel()
        require(
            not plane.any() or (frame * size % 8 == 0 and not plane[size - size % 8 :].any()),
            "frames-differ",
            f"Frame {frame + 1} of the SEG would be shown as another one.",
        )
    require(
        -(-len(found) * size // 8) % 2 == 0,
        "frames-differ",
        "The bits of the SEG fill an odd number of bytes.",
    )


def _check_complete(decoded: _Decoded, where: Sequence[int], segments: Layers, part: Part) -> None:
    """Each frame of the source has one for each segment, in order; what is left out is empty."""
    found = list(zip(decoded.segments, where, strict=True))
    numbers = [0] if part.variant == "labelmap" else [one.number for one in segments.items]
    meant = [(number, index) for number in numbers for index in range(segments.frames)]
    may_be_left_out = part.variant != "labelmap" and len(meant) > ALL_FRAMES
    if part.variant == "aligned":
        _check_aligned(decoded, found, segments)
        in_order, may_be_left_out = found, True
    else:
        in_order = sorted(found)
    require(
        found == meant
        or (
            (may_be_left_out and in_order == found and len(set(found)) == len(found))
            and set(found) <= set(meant)
        ),
        "frames-differ",
        "The frames are not in order, or there is one too many.",
    )
    empty = {
        (number, index)
        for number, index in set(meant) - set(found)
        if number and not segments.counts[number - 1, index]
    }
    require(
        set(meant) - set(found) <= empty and {number for number, _ in found} == set(numbers),
        "frames-differ",
        "A frame is left out that has something on it, or a segment has none.",
    )


def _check_segments(
    found: Sequence[Dataset], items: Sequence[Numbered], part: Part, expected: Expected
) -> None:
    described = list(found)
    if part.variant == "labelmap":
        background = described.pop(0)
        require(
            background.SegmentNumber == 0
            and has_code(background.SegmentedPropertyTypeCodeSequence, _BACKGROUND),
            "segments-differ",
            "The label map does not say that 0 is the background.",
        )
    require(
        [item.get("SegmentNumber") for item in described] == [item.number for item in items],
        "segments-differ",
        "The SEG has not the segments of the manifest.",
    )
    for dataset, item in zip(described, items, strict=True):
        _check_concepts(dataset, item)
        _check_algorithm(dataset, expected)
        tracked = said.tracking_uid(expected.key, part.output, item.segment.label)
        require(
            dataset.get("TrackingUID") == tracked
            and dataset.get("TrackingID") == item.segment.name,
            "tracking-differs",
            f"The tracking identifiers of segment {item.number} are not the derived ones.",
        )


def _check_concepts(dataset: Dataset, item: Numbered) -> None:
    segment = item.segment
    property_type = dataset.get("SegmentedPropertyTypeCodeSequence", ())
    modifiers = property_type[0].get("SegmentedPropertyTypeModifierCodeSequence", ())
    meant = [code.value for code in (segment.type_modifier, segment.laterality) if code]
    require(
        dataset.get("SegmentLabel") == segment.name
        and has_code(dataset.get("SegmentedPropertyCategoryCodeSequence"), segment.category)
        and has_code(property_type, segment.type)
        and [modifier.CodeValue for modifier in modifiers] == meant
        and has_code(dataset.get("AnatomicRegionSequence"), segment.anatomic_region),
        "segments-differ",
        f"Segment {item.number} does not mean what the manifest says.",
    )


def _check_algorithm(dataset: Dataset, expected: Expected) -> None:
    named = dataset.get("SegmentationAlgorithmIdentificationSequence", ())
    model = expected.bundle
    require(
        dataset.get("SegmentAlgorithmType") == "AUTOMATIC"
        and [(item.AlgorithmName, item.AlgorithmVersion) for item in named]
        == [(model.manifest.name, model.algorithm_version)],
        "algorithm-differs",
        "A segment names another algorithm, or another version of it, than the one which ran.",
    )
