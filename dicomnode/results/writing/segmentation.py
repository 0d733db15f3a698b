"""The segments of one output as a DICOM Segmentation (PS3.3 A.51), on the source's own grid.

=============  =================================================================================
binary         one bit for each voxel and segment
labelmap       the number of its segment for each voxel, run-length encoded (PS3.3 C.8.20.2.3);
               another SOP class, with an item for the background
fractional     masks as occupancy, probability maps as probability, in steps of 1/255
=============  =================================================================================

Which frames there are, and in which order, says `arrangement`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    RLELossless,
    SegmentationStorage,
)

from dicomnode.bundle import Code
from dicomnode.results import arrangement, common, layers, said
from dicomnode.results.common import Run
from dicomnode.results.layers import Layers, Numbered
from dicomnode.results.part import Part
from dicomnode.results.writing import multiframe, rle
from dicomnode.results.writing.multiframe import Frames

#: Label Map Segmentation Storage (PS3.4 B.5), which pydicom does not name yet.
LABEL_MAP_SEGMENTATION_STORAGE = UID("1.2.840.10008.5.1.4.1.1.66.7")
#: Variants of one encoding: frames in the order of the source's, or as `arrangement.aligned` says.
BINARY, ALIGNED = "binary", "aligned"
#: Maximum Fractional Value (0062,000E).
MOST = 255

_CONTENT_LABEL = "SEGMENTATION"  # a CS
_SEGMENTATION = Code(value="113076", scheme="DCM", meaning="Segmentation")
_BACKGROUND = Code(value="125040", scheme="DCM", meaning="Background")


def build(run: Run, part: Part) -> Dataset:
    """Make the SEG of one output."""
    frames = multiframe.of(run.prediction, part)
    segments = layers.of(run.prediction, run.bundle, part.output, part.frames)
    dataset = _header(run, part)
    dataset.SegmentsOverlap = "YES" if segments.overlap else "NO"
    dataset.SegmentSequence = [_description(run, part.output, one) for one in segments.items]
    if part.variant == "labelmap":
        _map_labels(dataset, frames, segments, run, part)
    else:
        _lay_planes(dataset, frames, segments, run, part)
    common.complete(dataset, run, part)
    return dataset


def _header(run: Run, part: Part) -> Dataset:
    """Segmentation Series and Segmentation Image (PS3.3 C.8.20.1, C.8.20.2), but for the pixels."""
    is_label_map = part.variant == "labelmap"
    dataset = common.new(LABEL_MAP_SEGMENTATION_STORAGE if is_label_map else SegmentationStorage)
    dataset.Modality = "SEG"
    dataset.ImageType = ["DERIVED", "PRIMARY"]
    dataset.ContentLabel = _CONTENT_LABEL
    dataset.ContentDescription = run.bundle.manifest.name
    dataset.ContentCreatorName = None  # type 2 (PS3.3 Table 10-12): nobody drew this
    is_binary = part.variant in (BINARY, ALIGNED)
    dataset.SegmentationType = "BINARY" if is_binary else part.variant.upper()
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.PresentationLUTShape = "IDENTITY"
    dataset.PixelRepresentation = 0
    common.say_lossiness(dataset, run.header)
    return dataset


def _bits(dataset: Dataset, bits: int) -> None:
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.HighBit = bits - 1


def _lay_planes(dataset: Dataset, frames: Frames, segments: Layers, run: Run, part: Part) -> None:
    """Write a frame for each segment and frame of the source."""
    kept = _kept(segments, part)
    named = {item.number: _identification(item.number) for item in segments.items}
    order = [(index, named[item.number]) for item, index in kept]
    multiframe.lay(
        dataset,
        frames,
        order,
        organization_uid=part.other_uid(run.key, "dimensions"),
        derivation=_SEGMENTATION,
        segments=[item.number for item, _ in kept],
    )
    chosen = (segments.plane(*one) for one in kept)
    if part.variant in (BINARY, ALIGNED):
        _bits(dataset, 1)
        packed = _packed(chosen, len(kept), frames)
    else:
        _bits(dataset, 8)
        dataset.SegmentationFractionalType = "PROBABILITY" if segments.is_fraction else "OCCUPANCY"
        dataset.MaximumFractionalValue = MOST
        packed = b"".join(np.rint(one * MOST).astype(np.uint8).tobytes() for one in chosen)
    dataset.PixelData = packed + bytes(len(packed) % 2)
    dataset["PixelData"].VR = "OB"


def _kept(segments: Layers, part: Part) -> list[tuple[Numbered, int]]:
    """Segment and source frame of each frame that is written."""
    order = arrangement.plain(segments)
    if part.variant == ALIGNED:
        order = arrangement.aligned(segments) or order
    return [(segments.items[number - 1], index) for number, index in order]


def _packed(chosen: Iterable[NDArray[Any]], count: int, frames: Frames) -> bytes:
    """Bits, frame after frame without a gap, the lowest first (PS3.5 8.1.1)."""
    size = frames.rows * frames.columns
    if size % 8 == 0:
        return b"".join(np.packbits(one, bitorder="little").tobytes() for one in chosen)
    bits = np.empty((count, size), dtype=np.bool_)
    for number, one in enumerate(chosen):
        bits[number] = one.ravel()
    return np.packbits(bits, bitorder="little").tobytes()


def _identification(number: int) -> Dataset:
    item = Dataset()
    item.ReferencedSegmentNumber = number
    group = Dataset()
    group.SegmentIdentificationSequence = [item]
    return group


def _map_labels(dataset: Dataset, frames: Frames, segments: Layers, run: Run, part: Part) -> None:
    """Write one frame for each frame of the source, run-length encoded."""
    numbers = segments.numbers()
    multiframe.lay(
        dataset,
        frames,
        [(index, None) for index in range(len(numbers))],
        organization_uid=part.other_uid(run.key, "dimensions"),
        derivation=_SEGMENTATION,
    )
    _bits(dataset, numbers.dtype.itemsize * 8)
    dataset.PixelPaddingValue = 0
    dataset.SegmentSequence = [_background(run), *dataset.SegmentSequence]
    dataset.file_meta.TransferSyntaxUID = RLELossless
    dataset.PixelData = encapsulate([rle.encoded(plane) for plane in numbers])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True


def _background(run: Run) -> Dataset:
    """The item of the value that stands for no segment: every value must have one."""
    item = Dataset()
    item.SegmentNumber = 0
    item.SegmentLabel = _BACKGROUND.meaning
    item.SegmentedPropertyCategoryCodeSequence = [common.code_item(_BACKGROUND)]
    item.SegmentedPropertyTypeCodeSequence = [common.code_item(_BACKGROUND)]
    item.SegmentAlgorithmType = "AUTOMATIC"
    item.SegmentAlgorithmName = run.bundle.manifest.name
    return item


def _description(run: Run, output: str, item: Numbered) -> hd.seg.SegmentDescription:
    """An item of the Segment Sequence (PS3.3 C.8.20.4)."""
    segment, manifest = item.segment, run.bundle.manifest
    region = segment.anatomic_region
    description = hd.seg.SegmentDescription(
        segment_number=item.number,
        segment_label=segment.name,
        segmented_property_category=_concept(segment.category),
        segmented_property_type=_concept(segment.type),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=manifest.name,
            family=_concept(manifest.family),
            version=run.bundle.algorithm_version,
            source=manifest.manufacturer,
        ),
        tracking_id=segment.name,
        tracking_uid=said.tracking_uid(run.key, output, segment.label),
        anatomic_regions=[_concept(region)] if region else None,
        display_color=hd.color.CIELabColor.from_string(segment.color),
    )
    modifiers = [code for code in (segment.type_modifier, segment.laterality) if code]
    if modifiers:
        property_type = description.SegmentedPropertyTypeCodeSequence[0]
        property_type.SegmentedPropertyTypeModifierCodeSequence = [
            common.code_item(code) for code in modifiers
        ]
    return description


def _concept(code: Code) -> hd.sr.CodedConcept:
    return hd.sr.CodedConcept(code.value, code.scheme, code.meaning)
