"""Segmentations in every encoding, of volumes and of images: what stands in them, and no fault."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import examples
import numpy as np
import phantom
import pictured
import pytest
from examples import Example, finding, output
from made import BARE, Made, groups, make
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from dicomnode import volume
from dicomnode.prediction import LabelMap, Masks, Prediction, ProbabilityMap
from dicomnode.results.arrangement import ALL_FRAMES

LABEL_MAP = BARE.with_choices({"segmentation": "labelmap"})
FRACTIONAL = BARE.with_choices({"segmentation": "fractional"})
PROFILES = {"binary": BARE, "labelmap": LABEL_MAP, "fractional": FRACTIONAL}

Edit = Callable[[int, Dataset], None]


def made(example: Example, folder: Path, encoding: str = "binary") -> Made:
    return make(folder, example.prediction, example.model, profile=PROFILES[encoding])


def segments(
    count: int, labels: NDArray[Any], folder: Path, *, edit: Edit | None = None, **more: Any
) -> Example:
    """A label map of many segments, on a phantom of its shape."""
    scan = phantom.write_series(folder, shape=labels.shape, edit=edit)
    named = [finding(label, f"Segment {label}", **more) for label in range(1, count + 1)]
    answer = LabelMap(output="many", array=labels)
    return Example(
        prediction=Prediction(subject=volume.load(scan.files), answers=(answer,)),
        model=phantom.a_bundle(outputs={"many": output(kind="label_map", segments=named)}),
    )


class TestLabelMaps:
    def test_each_voxel_has_the_number_of_its_segment(self, tmp_path: Path) -> None:
        example = examples.bodies(tmp_path / "images", orientation="sagittal", reversed=True)
        (seg,) = made(example, tmp_path / "results", "labelmap").datasets
        (answer,) = example.prediction.answers
        assert isinstance(answer, LabelMap)
        numbers = np.array([0, 1, 2, 4, 0, 3])[answer.array]  # the manifest has 1, 2, 5, 3
        np.testing.assert_array_equal(seg.pixel_array, numbers)
        assert seg.SOPClassUID == seg.file_meta.MediaStorageSOPClassUID
        assert seg.SOPClassUID == "1.2.840.10008.5.1.4.1.1.66.7"
        assert seg.file_meta.TransferSyntaxUID == RLELossless
        assert (seg.SegmentationType, seg.BitsAllocated, seg.HighBit) == ("LABELMAP", 8, 7)
        assert seg.SegmentsOverlap == "NO"

    def test_the_background_is_described_and_is_what_viewers_pad_with(self, tmp_path: Path) -> None:
        example = examples.bodies(tmp_path / "images")
        (seg,) = made(example, tmp_path / "results", "labelmap").datasets
        assert [one.SegmentNumber for one in seg.SegmentSequence] == [0, 1, 2, 3, 4]
        assert seg.PixelPaddingValue == 0
        assert "TrackingUID" not in seg.SegmentSequence[0]

    def test_there_is_a_frame_for_each_slice_and_none_is_of_one_segment(
        self, tmp_path: Path
    ) -> None:
        example = examples.bodies(tmp_path / "images")
        (seg,) = made(example, tmp_path / "results", "labelmap").datasets
        frames = seg.PerFrameFunctionalGroupsSequence
        assert len(frames) == seg.NumberOfFrames == 14
        assert not any("SegmentIdentificationSequence" in frame for frame in frames)
        assert [one.FrameContentSequence[0].DimensionIndexValues for one in frames] == list(
            range(1, 15)
        )
        assert len(seg.DimensionIndexSequence) == 1

    def test_masks_that_overlap_are_written_as_bits_all_the_same(self, tmp_path: Path) -> None:
        example = examples.overlapping(tmp_path / "images")
        (seg,) = made(example, tmp_path / "results", "labelmap").datasets
        assert (seg.SegmentationType, seg.SegmentsOverlap) == ("BINARY", "YES")

    def test_masks_that_do_not_overlap_are_one_label_map(self, tmp_path: Path) -> None:
        example = examples.overlapping(tmp_path / "images")
        (answer,) = example.prediction.answers
        assert isinstance(answer, Masks)
        masks = answer.array.copy()
        masks[0] &= ~masks[1]
        prediction = Prediction(
            subject=example.prediction.subject, answers=(Masks(output="m", array=masks),)
        )
        (seg,) = make(tmp_path / "r", prediction, example.model, profile=LABEL_MAP).datasets
        assert seg.SegmentationType == "LABELMAP"
        np.testing.assert_array_equal(seg.pixel_array, masks[0] + 2 * masks[1])

    @pytest.mark.parametrize(("count", "bits"), [(255, 8), (256, 16)])
    def test_more_than_255_segments_take_16_bits(
        self, count: int, bits: int, tmp_path: Path
    ) -> None:
        labels = (np.arange(2 * 20 * 20).reshape(2, 20, 20) % (count + 1)).astype(np.uint16)
        (seg,) = made(segments(count, labels, tmp_path / "i"), tmp_path / "r", "labelmap").datasets
        assert (seg.BitsAllocated, seg.BitsStored, seg.HighBit) == (bits, bits, bits - 1)
        np.testing.assert_array_equal(seg.pixel_array, labels)

    @pytest.mark.parametrize("size", [(21, 25), (20, 24), (1, 1), (2, 300)])
    def test_a_single_image_of_any_size_has_one(
        self, size: tuple[int, int], tmp_path: Path
    ) -> None:
        images = pictured.radiographs(tmp_path / "images", [size])
        labels = (np.indices(size).sum(axis=0) % 3 // 2).astype(np.uint8)
        example = pictured.pictured(
            lambda number, _: [LabelMap(output="marks", frame=number, array=labels)],
            pictured.FOUND,
            images,
        )
        (seg,) = made(example, tmp_path / "results", "labelmap").datasets
        assert seg.NumberOfFrames == 1
        np.testing.assert_array_equal(seg.pixel_array.reshape(size), labels)


class TestFractions:
    def test_a_probability_is_written_to_within_half_a_step(self, tmp_path: Path) -> None:
        example = examples.probabilities(tmp_path / "images", orientation="oblique")
        (seg,) = made(example, tmp_path / "results", "fractional").datasets
        (answer,) = example.prediction.answers
        assert isinstance(answer, ProbabilityMap)
        found = seg.pixel_array.reshape(answer.array.shape) / seg.MaximumFractionalValue
        assert np.abs(found - answer.array).max() <= 0.5 / 255 + 1e-6
        assert seg.SegmentationFractionalType == "PROBABILITY"
        assert (seg.SegmentationType, seg.BitsAllocated) == ("FRACTIONAL", 8)
        assert seg.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian

    def test_masks_are_occupied_or_not(self, tmp_path: Path) -> None:
        example = examples.bodies(tmp_path / "images")
        (seg,) = made(example, tmp_path / "results", "fractional").datasets
        assert seg.SegmentationFractionalType == "OCCUPANCY"
        assert set(np.unique(seg.pixel_array).tolist()) == {0, 255}

    @pytest.mark.parametrize("encoding", ["binary", "labelmap"])
    def test_in_another_encoding_probabilities_are_no_segmentation(
        self, encoding: str, tmp_path: Path
    ) -> None:
        example = examples.probabilities(tmp_path / "images")
        files = example.write(tmp_path / "results", PROFILES[encoding])
        assert [path.stem for path in files] == ["map", "map-2"]


class TestManyFrames:
    def test_empty_frames_are_left_out_but_every_segment_keeps_one(self, tmp_path: Path) -> None:
        count = ALL_FRAMES // 14 + 1
        labels = np.zeros((14, 24, 22), dtype=np.uint8)
        labels[3:5, 4:8, 4:8] = 7
        labels[9, 2:5, 2:5] = count
        (seg,) = made(segments(count, labels, tmp_path / "i"), tmp_path / "r").datasets
        named = [
            (
                frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber,
                frame.FrameContentSequence[0].DimensionIndexValues[1],
            )
            for frame in seg.PerFrameFunctionalGroupsSequence
        ]
        kept = {7: [4, 5], count: [10]}
        assert named == [
            (number, place) for number in range(1, count + 1) for place in kept.get(number, [1])
        ]
        assert seg.pixel_array.sum() == np.count_nonzero(labels)

    def test_a_few_slices_that_stray_a_little_do_not_change_the_volume(
        self, tmp_path: Path
    ) -> None:
        def stray(index: int, dataset: Dataset) -> None:
            x, y, z = map(float, dataset.ImagePositionPatient)
            dataset.ImagePositionPatient = [x, y, round(z + (0.03 if index == 4 else 0), 6)]

        count = ALL_FRAMES // 14 + 1
        labels = np.zeros((14, 24, 22), dtype=np.uint8)
        labels[3:5, 4:8, 4:8] = 7  # of all frames that are written, one strays, or lies at the end
        example = segments(count, labels, tmp_path / "i", edit=stray, measure=["volume"])
        profile = BARE.with_choices({"report": True})
        seg, _ = make(tmp_path / "r", example.prediction, example.model, profile=profile).datasets
        assert seg.NumberOfFrames < count * 14

    def test_up_to_there_every_frame_is_written(self, tmp_path: Path) -> None:
        count = ALL_FRAMES // 20
        labels = np.zeros((20, 6, 8), dtype=np.uint8)
        labels[3, 2:4, 2:4] = 1
        (seg,) = made(segments(count, labels, tmp_path / "i"), tmp_path / "r").datasets
        assert seg.NumberOfFrames == ALL_FRAMES

    def test_a_frame_left_out_that_has_something_is_found(self, tmp_path: Path) -> None:
        count = ALL_FRAMES // 14 + 1
        labels = np.zeros((14, 24, 24), dtype=np.uint8)
        labels[3:5, 4:8, 4:8] = 1
        sparse = made(segments(count, labels, tmp_path / "i"), tmp_path / "r")

        def leave_out(dataset: Dataset) -> None:
            size = dataset.Rows * dataset.Columns // 8
            del dataset.PerFrameFunctionalGroupsSequence[0]
            dataset.NumberOfFrames -= 1
            dataset.PixelData = dataset.PixelData[size:]

        assert sparse.spoilt(tmp_path, leave_out).reason() == "frames-differ"


class TestImages:
    @pytest.mark.parametrize("name", pictured.PICTURES)
    @pytest.mark.parametrize("encoding", PROFILES)
    def test_each_frame_names_the_image_that_it_is_of(
        self, name: str, encoding: str, tmp_path: Path
    ) -> None:
        images = pictured.PICTURES[name](tmp_path / "images")
        (seg,) = made(pictured.marked(images), tmp_path / "results", encoding).datasets
        count = len(images.frames)
        assert seg.NumberOfFrames == (count if encoding == "labelmap" else 3 * count)
        for place, frame in enumerate(seg.PerFrameFunctionalGroupsSequence):
            (named,) = frame.DerivationImageSequence[0].SourceImageSequence
            source = images.sources[place % count]
            assert named.ReferencedSOPInstanceUID == source.sop_instance_uid
            number = source.frame_number if source.is_multiframe else None
            assert named.get("ReferencedFrameNumber") == number

    @pytest.mark.parametrize("name", ["radiographs", "ultrasound", "photographs"])
    def test_what_has_no_place_is_given_none(self, name: str, tmp_path: Path) -> None:
        images = pictured.PICTURES[name](tmp_path / "images")
        (seg,) = made(pictured.marked(images), tmp_path / "results").datasets
        assert "FrameOfReferenceUID" not in seg
        frame = seg.PerFrameFunctionalGroupsSequence[-1]
        assert "PlanePositionSequence" not in frame
        content = frame.FrameContentSequence[0]
        assert (content.StackID, content.InStackPositionNumber) == ("1", len(images.frames))
        turned = ["L", "F"] if name == "radiographs" else []
        assert list(seg.PatientOrientation or []) == turned

    def test_how_images_are_turned_is_not_said_where_they_differ(self, tmp_path: Path) -> None:
        images = pictured.radiographs(tmp_path / "images")
        images.frames[1].header.PatientOrientation = ["A", "F"]
        (seg,) = made(pictured.marked(images), tmp_path / "results").datasets
        assert not seg.PatientOrientation

    @pytest.mark.parametrize("name", ["slices", "enhanced"])
    def test_what_has_a_place_keeps_it(self, name: str, tmp_path: Path) -> None:
        images = pictured.PICTURES[name](tmp_path / "images")
        (seg,) = made(pictured.marked(images), tmp_path / "results").datasets
        assert seg.FrameOfReferenceUID == images.header.FrameOfReferenceUID
        for frame, source in zip(seg.PerFrameFunctionalGroupsSequence, images.sources * 3,
                                 strict=True):  # fmt: skip
            at = frame.PlanePositionSequence[0].ImagePositionPatient
            assert list(at) == pytest.approx(source.position, abs=1e-4)
        measures = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
        assert list(measures.PixelSpacing) == [1.25, 1.5]
        assert measures.SliceThickness == 2.5
        assert "SpacingBetweenSlices" not in measures

    def test_pixels_of_several_sizes_are_said_frame_by_frame(self, tmp_path: Path) -> None:
        def widen(index: int, dataset: Dataset) -> None:
            dataset.PixelSpacing = [1.25 + index, 1.5]

        scan = phantom.write_series(tmp_path / "images", shape=(3, 24, 22), edit=widen)
        images = pictured.load(scan.files, "MR", "MRImageStorage")
        (seg,) = made(pictured.marked(images), tmp_path / "results").datasets
        rows = [
            frame.PixelMeasuresSequence[0].PixelSpacing[0]
            for frame in seg.PerFrameFunctionalGroupsSequence
        ]
        assert rows == [one.pixel_spacing[0] for one in images.frames if one.pixel_spacing] * 3
        assert "PixelMeasuresSequence" not in seg.SharedFunctionalGroupsSequence[0]

    def test_images_in_two_spaces_are_given_no_place(self, tmp_path: Path) -> None:
        images = pictured.slices(tmp_path / "images")
        images.frames[1].header.FrameOfReferenceUID = "1.2.3"
        files = [Path(source.path) for source in images.sources]
        dataset = examples.read([files[1]])[0]
        dataset.FrameOfReferenceUID = "1.2.3"
        dataset.save_as(files[1])
        (seg,) = made(pictured.marked(images), tmp_path / "results").datasets
        assert "FrameOfReferenceUID" not in seg
        assert "PlanePositionSequence" not in seg.PerFrameFunctionalGroupsSequence[0]

    @pytest.mark.parametrize("encoding", PROFILES)
    def test_images_of_two_sizes_are_two_objects(self, encoding: str, tmp_path: Path) -> None:
        images = pictured.radiographs(tmp_path / "images", ((20, 24), (21, 25), (20, 24)))
        first, second = made(pictured.marked(images), tmp_path / "results", encoding).datasets
        assert (first.Rows, first.Columns, second.Rows, second.Columns) == (20, 24, 21, 25)
        assert first.SeriesInstanceUID != second.SeriesInstanceUID
        listed = [
            {one.ReferencedSOPInstanceUID for one in seg.ReferencedSeriesSequence[0]
             .ReferencedInstanceSequence}
            for seg in (first, second)
        ]  # fmt: skip
        uids = [source.sop_instance_uid for source in images.sources]
        assert listed == [{uids[0], uids[2]}, {uids[1]}]

    @pytest.mark.parametrize("encoding", PROFILES)
    def test_a_segment_that_is_on_no_image_is_described_all_the_same(
        self, encoding: str, tmp_path: Path
    ) -> None:
        images = pictured.radiographs(tmp_path / "images")
        (seg,) = made(pictured.marked(images), tmp_path / "results", encoding).datasets
        assert [one.SegmentLabel for one in seg.SegmentSequence][-3:] == ["Field", "Lesion", "None"]


class TestReferences:
    """An image reference has a frame number or a segment number, and not both."""

    @pytest.mark.parametrize("encoding", PROFILES)
    @pytest.mark.parametrize("name", ["radiographs", "ultrasound"])
    def test_a_finding_names_its_segment_on_its_image(
        self, name: str, encoding: str, tmp_path: Path
    ) -> None:
        images = pictured.PICTURES[name](tmp_path / "images")
        profile = PROFILES[encoding].with_choices({"report": True})
        example = pictured.marked(images)
        seg, report = make(
            tmp_path / "results", example.prediction, example.model, profile=profile
        ).datasets
        named = [one for one in _references(report) if "ReferencedSegmentNumber" in one]
        framed = [
            one
            for one in _references(report)
            if one.ReferencedSOPInstanceUID == seg.SOPInstanceUID and "ReferencedFrameNumber" in one
        ]
        assert not any("ReferencedFrameNumber" in one for one in named)
        # "Field" is on all three images, "Lesion" on the first and the last.
        if encoding == "labelmap":
            assert [one.ReferencedSegmentNumber for one in named] == [1, 1, 1, 2, 2]
            assert framed == []
        else:
            assert [one.ReferencedFrameNumber for one in framed] == [1, 2, 3, 4, 6]
            assert named == []

    def test_a_finding_on_another_frame_is_found(self, tmp_path: Path) -> None:
        example = pictured.marked(pictured.radiographs(tmp_path / "images"))
        profile = BARE.with_choices({"report": True})
        sound = make(tmp_path / "results", example.prediction, example.model, profile=profile)

        def fault(report: Dataset) -> None:
            (first, *_) = [one for one in _references(report) if "ReferencedFrameNumber" in one]
            first.ReferencedFrameNumber = 2

        assert sound.spoilt(tmp_path, fault, which=1).reason() == "reference-differs"

    @pytest.mark.parametrize("name", ["radiographs", "slices"])
    def test_another_area_is_found(self, name: str, tmp_path: Path) -> None:
        example = pictured.marked(pictured.PICTURES[name](tmp_path / "images"))
        profile = BARE.with_choices({"report": True})
        sound = make(tmp_path / "results", example.prediction, example.model, profile=profile)

        def fault(report: Dataset) -> None:
            areas = [
                one
                for group in groups(report)
                for one in group.ContentSequence
                if one.ValueType == "NUM"
            ]
            areas[-1].MeasuredValueSequence[0].NumericValue = "17"

        assert sound.spoilt(tmp_path, fault, which=1).reason() == "measurement-differs"


def _references(item: Dataset) -> list[Dataset]:
    """Every image that a report names in its tree."""
    found = [*item.get("ReferencedSOPSequence", ())] if item.get("ValueType") == "IMAGE" else []
    return found + [one for child in item.get("ContentSequence", ()) for one in _references(child)]
