"""A label map, or masks, as a DICOM Segmentation (PS3.3 A.51): BINARY, on the source's own grid.

Every frame of the source has a frame for each segment, empty ones included, and names it as its
source. So a viewer can lay one on the other without calculating anything.
"""

from __future__ import annotations

from typing import Any

import highdicom as hd
import numpy as np
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from dicomnode import uid
from dicomnode.results import common, said
from dicomnode.results.common import Run
from dicomnode.results.said import Numbered, Segmented
from dicomnode.volume import SliceSource, Volume

CONTENT_LABEL = "SEGMENTATION"  # a CS

# The stand-ins that highdicom sees are numbered; its references are made real ones afterwards.
_STAND_IN = "2.25."


def build(run: Run, answer: Segmented) -> Dataset:
    """Make the SEG of one output."""
    with_numbers = said.pixels(run.bundle, answer)
    dataset = hd.seg.Segmentation(
        source_images=[_stand_in(run, index) for index in range(len(with_numbers))],
        pixel_array=with_numbers,
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[
            _description(run, answer.output, item)
            for item in said.numbered(run.bundle, answer.output)
        ],
        series_instance_uid=common.series_uid(run.key, "seg", answer.output),
        series_number=common.SERIES_NUMBER["seg"],
        sop_instance_uid=common.instance_uid(run.key, "seg", answer.output),
        instance_number=1,
        manufacturer=common.NODE,
        manufacturer_model_name=common.NODE,
        software_versions=run.bundle.version,
        device_serial_number=common.NODE,
        content_label=CONTENT_LABEL,
        content_description=run.bundle.manifest.name,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        omit_empty_frames=False,
    )
    _order(dataset)
    _refer(dataset, run.prediction.volume.sources, series=run.header.SeriesInstanceUID)
    dataset.ContentCreatorName = None  # type 2 (PS3.3 Table 10-12): nobody drew this
    _name_dimensions(dataset, uid.derived(run.key, "seg", answer.output, "dimensions"))
    common.complete(dataset, run, kind="seg")
    return dataset


def _stand_in(run: Run, index: int) -> Dataset:
    """One slice of the volume as the single-frame image that highdicom takes for a source."""
    volume = run.prediction.volume
    dataset = common.blank(MRImageStorage, f"{_STAND_IN}{index + 1}", header=run.header)
    dataset.Modality = volume.modality
    dataset.FrameOfReferenceUID = volume.frame_of_reference_uid
    dataset.PositionReferenceIndicator = run.header.get("PositionReferenceIndicator")
    _, dataset.Rows, dataset.Columns = volume.array.shape
    dataset.ImageOrientationPatient = [common.decimal(v) for v in volume.orientation]
    dataset.ImagePositionPatient = [common.decimal(v) for v in _position(volume, index)]
    dataset.PixelSpacing = [common.decimal(v) for v in volume.pixel_spacing]
    dataset.SliceThickness = common.decimal(volume.slice_thickness or volume.slice_distance)
    dataset.SpacingBetweenSlices = common.decimal(volume.slice_distance)
    return dataset


def _position(volume: Volume, index: int) -> tuple[float, float, float]:
    position = volume.sources[index].position
    if position is None:
        raise TypeError("a slice of a volume has a position")
    return position


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


def _concept(code: Any) -> hd.sr.CodedConcept:
    return hd.sr.CodedConcept(code.value, code.scheme, code.meaning)


def _order(dataset: Dataset) -> None:
    """Put the frames of each segment into the order of the slices, as the volume has them.

    highdicom orders them by an axis of its own choice. A reader that pairs the frames of a SEG with
    those of its source by their number would see the mask upside down.
    """
    groups = dataset.PerFrameFunctionalGroupsSequence
    slices = [_stand_in_number(group) for group in groups]
    segments = [int(group.FrameContentSequence[0].DimensionIndexValues[0]) for group in groups]
    order = np.lexsort((slices, segments))
    size = dataset.Rows * dataset.Columns
    stored = np.frombuffer(dataset.PixelData, dtype=np.uint8)
    bits = np.unpackbits(stored, bitorder="little")[: len(groups) * size].reshape(-1, size)
    packed = np.packbits(bits[order], bitorder="little").tobytes()
    dataset.PixelData = packed + bytes(len(packed) % 2)
    dataset.PerFrameFunctionalGroupsSequence = [groups[frame] for frame in order]
    for frame in order:
        indices = groups[frame].FrameContentSequence[0]
        indices.DimensionIndexValues = [segments[frame], slices[frame]]


def _stand_in_number(group: Dataset) -> int:
    item = group.DerivationImageSequence[0].SourceImageSequence[0]
    return int(item.ReferencedSOPInstanceUID.removeprefix(_STAND_IN))


def _refer(dataset: Dataset, sources: tuple[SliceSource, ...], *, series: str) -> None:
    """Make every reference to a stand-in one to the frame that it stands for."""
    items = {
        id(item): item
        for frame in dataset.PerFrameFunctionalGroupsSequence
        for derivation in frame.DerivationImageSequence
        for item in derivation.SourceImageSequence
    }
    for item in items.values():  # highdicom shares one item among the segments of a slice
        number = int(item.ReferencedSOPInstanceUID.removeprefix(_STAND_IN))
        _point_at(item, sources[number - 1])
        if sources[number - 1].is_multiframe:
            item.ReferencedFrameNumber = sources[number - 1].frame_number
    instances = {source.sop_instance_uid: source for source in sources}
    dataset.SourceImageSequence = [_point_at(Dataset(), s) for s in instances.values()]
    of_series = Dataset()
    of_series.SeriesInstanceUID = series
    of_series.ReferencedInstanceSequence = [_point_at(Dataset(), s) for s in instances.values()]
    dataset.ReferencedSeriesSequence = [of_series]


def _point_at(item: Dataset, source: SliceSource) -> Dataset:
    item.ReferencedSOPClassUID = source.sop_class_uid
    item.ReferencedSOPInstanceUID = source.sop_instance_uid
    return item


def _name_dimensions(dataset: Dataset, organization_uid: str) -> None:
    """Put a derived UID where highdicom draws one (PS3.3 C.7.6.17)."""
    for item in (*dataset.DimensionOrganizationSequence, *dataset.DimensionIndexSequence):
        item.DimensionOrganizationUID = organization_uid
