"""Reads a SEG's bits back into the patient, and compares them with the mask, voxel for voxel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from dicomnode.results import said
from dicomnode.results.checking import Expected, Measured, has_code, require
from dicomnode.results.said import Numbered, Segmented
from dicomnode.volume import Volume
from dicomnode.volume.geometry import POSITION_TOLERANCE

_WRITING_MM = 1e-4  # what may get lost when a position is written as a decimal string
_UNEVEN = 0.5  # of the slice spacing: still nearest to its own slice


@dataclass(frozen=True, kw_only=True, eq=False)
class _Decoded:
    """A SEG as numbers.

    Attributes:
        bits: BINARY pixel data: frame follows frame without a gap, lowest bit first (PS3.5 8.1.1).
        shape: Rows and columns of a frame.
        segments: The segment number of each frame.
        positions: Image Position (Patient) of each frame.
        across: The step in mm to the next row and to the next column: shape (2, 3).
    """

    bits: NDArray[np.uint8]
    shape: tuple[int, int]
    segments: list[int]
    positions: NDArray[np.float64]
    across: NDArray[np.float64]

    def mask(self, frame: int) -> NDArray[np.bool_]:
        """Unpack one frame: shape (rows, columns)."""
        size = self.shape[0] * self.shape[1]
        first_byte, skipped = divmod(frame * size, 8)
        packed = self.bits[first_byte : -(-(frame + 1) * size // 8)]
        unpacked = np.unpackbits(packed, bitorder="little")[skipped : skipped + size]
        return unpacked.reshape(self.shape).astype(bool)

    @property
    def voxel_mm3(self) -> float:
        """Volume of a voxel, from where the frames lie."""
        normal = np.cross(self.across[0], self.across[1])  # its length is the area of a pixel
        heights = np.unique(np.round(self.positions @ normal, 6))
        return float((heights[-1] - heights[0]) / (heights.size - 1))


def check(dataset: Dataset, answer: Segmented, expected: Expected) -> Measured:
    """Check one SEG, and measure what its bits say.

    Raises:
        ResultMismatch: It is not `answer`, or does not lie where the source lies.
    """
    items = said.numbered(expected.bundle, answer.output)
    _check_segments(dataset.SegmentSequence, items, answer.output, expected)
    _check_grid(dataset, expected)
    decoded = _decode(dataset)
    slices = [_slice(decoded, frame, expected) for frame in range(len(decoded.segments))]
    _check_complete(decoded, slices, items, expected.prediction.volume)
    _check_references(dataset, slices, expected)
    voxels = _compared(decoded, slices, answer, items)
    return Measured(
        answer=answer,
        sop_instance_uid=dataset.SOPInstanceUID,
        volumes_ml={number: n * decoded.voxel_mm3 / 1000 for number, n in voxels.items()},
    )


def _compared(
    decoded: _Decoded, slices: Sequence[int], answer: Segmented, items: Sequence[Numbered]
) -> dict[int, int]:
    """Compare every voxel with the mask; gives segment number → voxels."""
    masks = {item.number: said.mask(answer, item) for item in items}
    voxels = dict.fromkeys(masks, 0)
    for frame, (number, index) in enumerate(zip(decoded.segments, slices, strict=True)):
        mask = decoded.mask(frame)
        require(
            bool((mask == masks[number][index]).all()),
            "mask-differs",
            f"Segment {number} of the SEG is not what the model marked on slice {index}.",
        )
        voxels[number] += int(mask.sum())
    return voxels


def _decode(dataset: Dataset) -> _Decoded:
    frames = dataset.PerFrameFunctionalGroupsSequence
    shared = dataset.SharedFunctionalGroupsSequence[0]
    cosines = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, dtype=np.float64)
    between = np.array(shared.PixelMeasuresSequence[0].PixelSpacing, dtype=np.float64)
    positions = [frame.PlanePositionSequence[0].ImagePositionPatient for frame in frames]
    return _Decoded(
        bits=np.frombuffer(dataset.PixelData, dtype=np.uint8),
        shape=(dataset.Rows, dataset.Columns),
        # One segment alone stands in the shared group (PS3.3 C.7.6.16.1.1).
        segments=[
            int(
                (frame if "SegmentIdentificationSequence" in frame else shared)
                .SegmentIdentificationSequence[0]
                .ReferencedSegmentNumber
            )
            for frame in frames
        ],
        positions=np.array(positions, dtype=np.float64),
        across=np.stack([cosines[3:] * between[0], cosines[:3] * between[1]]),
    )


def _check_grid(dataset: Dataset, expected: Expected) -> None:
    volume = expected.prediction.volume
    require(
        (dataset.SegmentationType, dataset.BitsAllocated) == ("BINARY", 1)
        and dataset.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian,
        "encoding-differs",
        "The SEG is not binary, or not in Explicit VR Little Endian.",
    )
    require(
        (dataset.Rows, dataset.Columns) == volume.array.shape[1:],
        "grid-differs",
        "The frames of the SEG have not the size of the source's.",
    )
    for header in expected.headers.values():
        require(
            dataset.get("FrameOfReferenceUID") == header.FrameOfReferenceUID,
            "frame-of-reference-differs",
            "The SEG lies in another frame of reference than its source.",
        )


def _slice(decoded: _Decoded, frame: int, expected: Expected) -> int:
    """The slice of the volume that a frame lies on, corner on corner."""
    volume = expected.prediction.volume
    position = decoded.positions[frame]
    index = round(float((np.linalg.inv(volume.affine) @ [*position, 1])[0]))
    slices, rows, columns = volume.array.shape
    require(0 <= index < slices, "frame-elsewhere", "A frame lies beyond the slices of the source.")
    last_row, last_column = rows - 1, columns - 1
    corners = np.array([[0, 0], [last_row, 0], [0, last_column], [last_row, last_column]])
    found = position + corners @ decoded.across
    placed = np.column_stack([np.full(4, index), corners, np.ones(4)]) @ volume.affine[:3].T
    source = expected.position(volume.sources[index])
    require(
        bool(np.linalg.norm(found - placed, axis=1).max() <= _tolerance(expected))
        and bool(np.linalg.norm(position - source) <= _WRITING_MM),
        "frame-elsewhere",
        f"A frame does not lie where slice {index} of the source lies.",
    )
    return index


def _tolerance(expected: Expected) -> float:
    """How far in mm a slice may lie from where the affine puts it."""
    uneven = any(given.irregular_spacing for given in expected.bundle.manifest.inputs.values())
    share = _UNEVEN if uneven else POSITION_TOLERANCE
    return share * expected.prediction.volume.spacing[0] + _WRITING_MM


def _check_complete(
    decoded: _Decoded, slices: Sequence[int], items: Sequence[Numbered], volume: Volume
) -> None:
    """Each slice has one frame for each segment, in the source's order; nothing is left out."""
    found = list(zip(decoded.segments, slices, strict=True))
    meant = [(item.number, index) for item in items for index in range(volume.array.shape[0])]
    require(
        found == meant, "frames-differ", "Not every slice has one frame for each segment, in order."
    )


def _check_references(dataset: Dataset, slices: Sequence[int], expected: Expected) -> None:
    """Each frame names the frame that it lies on, and the object names all of them."""
    volume = expected.prediction.volume
    for frame, index in zip(dataset.PerFrameFunctionalGroupsSequence, slices, strict=True):
        source = volume.sources[index]
        number = source.frame_number if source.is_multiframe else None
        named = [
            (i.ReferencedSOPClassUID, i.ReferencedSOPInstanceUID, i.get("ReferencedFrameNumber"))
            for derivation in frame.get("DerivationImageSequence", ())
            for i in derivation.get("SourceImageSequence", ())
        ]
        require(
            named == [(source.sop_class_uid, source.sop_instance_uid, number)],
            "reference-differs",
            f"The frame on slice {index} names another source.",
        )
    series = dataset.get("ReferencedSeriesSequence", ())
    listed = [
        (item.SeriesInstanceUID, instance.ReferencedSOPInstanceUID)
        for item in series
        for instance in item.ReferencedInstanceSequence
    ]
    meant = [(header.SeriesInstanceUID, uid) for uid, header in expected.headers.items()]
    require(
        sorted(listed) == sorted(meant),
        "reference-differs",
        "Referenced Series Sequence does not list the sources.",
    )


def _check_segments(
    found: Sequence[Dataset], items: Sequence[Numbered], output: str, expected: Expected
) -> None:
    require(
        [item.get("SegmentNumber") for item in found] == [item.number for item in items],
        "segments-differ",
        "The SEG has not the segments of the manifest.",
    )
    for dataset, item in zip(found, items, strict=True):
        _check_concepts(dataset, item)
        _check_algorithm(dataset, expected)
        tracked = said.tracking_uid(expected.key, output, item.segment.label)
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
