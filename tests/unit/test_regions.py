"""What is drawn on images: outlines, lesions, boxes and points, and where they lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import examples
import numpy as np
import phantom
import pictured
import pytest
from examples import Example, finding, output
from hypothesis import given
from hypothesis.extra import numpy as arrays
from made import BARE, Made, groups, make
from numpy.typing import NDArray
from pydicom import Dataset
from scipy import ndimage

from dicomnode import volume
from dicomnode.bundle import Input
from dicomnode.prediction import LabelMap, Masks, Point, Points, Prediction
from dicomnode.results import contour, regions
from dicomnode.results.checking.regions import filled
from dicomnode.results.regions import Region
from dicomnode.results.writing.regions_report import NOT_ALL

DRAWN = BARE.with_choices({"segmentation": "none", "regions": True, "maps": False})
PROFILES = {"image": DRAWN, "patient": DRAWN.with_choices({"coordinates": "patient"})}

shapes = arrays.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=14)


def steps(outline: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.diff(outline, axis=0)


def enclosed(outline: NDArray[np.float64]) -> float:
    """The area that an outline is around, by its corners alone."""
    x, y = outline.T
    return abs(float(np.dot(x[:-1], y[1:]) - np.dot(x[1:], y[:-1]))) / 2


class TestOutlines:
    @given(arrays.arrays(np.bool_, shapes))
    def test_an_outline_that_is_filled_gives_the_piece_without_its_holes(
        self, mask: NDArray[np.bool_]
    ) -> None:
        piece = contour.largest_piece(mask)
        if not piece.any():
            return
        outline = contour.around(piece)
        meant = ndimage.binary_fill_holes(piece)
        np.testing.assert_array_equal(filled(outline, mask.shape), meant)
        assert enclosed(outline) == np.count_nonzero(meant)

    @given(arrays.arrays(np.bool_, shapes))
    def test_an_outline_is_closed_and_turns_at_each_corner(self, mask: NDArray[np.bool_]) -> None:
        piece = contour.largest_piece(mask)
        if not piece.any():
            return
        outline = contour.around(piece)
        ways = steps(outline)
        np.testing.assert_array_equal(outline[0], outline[-1])
        assert np.count_nonzero(ways, axis=1).tolist() == [1] * len(ways)  # along a row or a column
        along_columns = ways[:, 0] == 0
        assert (along_columns != np.roll(along_columns, 1)).all()

    @given(arrays.arrays(np.bool_, shapes))
    def test_the_largest_piece_is_one_and_none_is_larger(self, mask: NDArray[np.bool_]) -> None:
        piece = contour.largest_piece(mask)
        _, count = ndimage.label(piece)
        labels, _ = ndimage.label(mask)
        sizes = np.bincount(labels.ravel())[1:]
        assert count == min(1, len(sizes))
        assert not (piece & ~mask).any()
        assert np.count_nonzero(piece) == max(sizes, default=0)

    def test_a_single_pixel_is_its_four_corners(self) -> None:
        mask = np.zeros((4, 5), dtype=np.bool_)
        mask[2, 3] = True
        assert contour.around(mask).tolist() == [[3, 2], [4, 2], [4, 3], [3, 3], [3, 2]]

    def test_what_fills_the_image_ends_at_its_edges(self) -> None:
        outline = contour.around(np.ones((3, 5), dtype=np.bool_))
        assert outline.tolist() == [[0, 0], [5, 0], [5, 3], [0, 3], [0, 0]]

    @pytest.mark.parametrize("turns", range(4))
    def test_where_two_arms_touch_in_a_corner_the_outline_passes_it_twice(self, turns: int) -> None:
        ring = np.rot90(
            np.array([[1, 1, 1, 1], [1, 0, 0, 1], [1, 0, 1, 0], [1, 1, 0, 0]], dtype=np.bool_),
            turns,
        )
        outline = contour.around(ring)
        # The hole opens only through a corner: whoever walks along sides does not get out.
        meant = ndimage.binary_fill_holes(ring)
        np.testing.assert_array_equal(filled(outline, ring.shape), meant)
        assert enclosed(outline) == np.count_nonzero(meant)

    @pytest.mark.parametrize("mask", [np.zeros((3, 3)), np.eye(3)])
    def test_nothing_and_several_pieces_have_no_outline(self, mask: NDArray[Any]) -> None:
        with pytest.raises(ValueError, match="one piece"):
            contour.around(mask.astype(np.bool_))


def of(example: Example) -> tuple[Region, ...]:
    return regions.of(example.prediction, example.model, examples.KEY)


def with_masks(folder: Path, masks: NDArray[np.bool_], *, is_lesion: bool) -> Example:
    """One mask on the phantom's grid."""
    shown = volume.load(phantom.write_series(folder, shape=masks.shape).files)
    segments = [finding(1, "Spot", is_lesion=is_lesion, measure=["volume"])]
    return Example(
        prediction=Prediction(subject=shown, answers=(Masks(output="m", array=masks[None]),)),
        model=phantom.a_bundle(outputs={"m": output(kind="masks", segments=segments)}),
    )


class TestLesions:
    def test_each_piece_of_an_altered_structure_is_one_the_largest_first(
        self, tmp_path: Path
    ) -> None:
        example = examples.overlapping(tmp_path)
        (answer,) = example.prediction.answers
        assert isinstance(answer, Masks)
        whole, first, second = of(example)
        assert [one.tracking_id for one in (whole, first, second)] == [
            "Whole", "Lesion 1", "Lesion 2",
        ]  # fmt: skip
        assert len({one.tracking_uid for one in (whole, first, second)}) == 3
        pieces, _ = ndimage.label(answer.array[1])
        millilitres = example.prediction.volume.voxel_mm3 / 1000
        for region, size in zip((first, second), sorted(np.bincount(pieces.ravel())[1:])[::-1],
                                strict=True):  # fmt: skip
            name, value, _ = region.measurements[0]
            assert name.meaning == "Volume"
            assert value == pytest.approx(size * millilitres, abs=1e-6)

    def test_a_structure_of_two_pieces_is_one(self, tmp_path: Path) -> None:
        masks = np.zeros((5, 12, 14), dtype=np.bool_)
        masks[1, 2:5, 2:9] = masks[3, 6:11, 3:7] = masks[3, 1:3, 10:13] = True
        (region,) = of(with_masks(tmp_path, masks, is_lesion=False))
        assert region.tracking_id == "Spot"
        assert region.frame == 3  # 26 pixels, of 21
        assert region.mask is not None
        assert np.count_nonzero(region.mask) == 20  # the larger of the two pieces there

    def test_a_lesion_is_drawn_where_it_is_largest(self, tmp_path: Path) -> None:
        masks = np.zeros((6, 12, 14), dtype=np.bool_)
        for index, side in enumerate((2, 4, 7, 5, 1)):
            masks[index + 1, 3 : 3 + side, 4 : 4 + side] = True
        (region,) = of(with_masks(tmp_path, masks, is_lesion=True))
        assert region.frame == 3
        assert region.points.tolist() == [[4, 3], [11, 3], [11, 10], [4, 10], [4, 3]]
        area = {name.meaning: value for name, value, _ in region.measurements}["Area"]
        assert area == pytest.approx(49 * 1.25 * 1.5)

    def test_a_small_lesion_beside_a_large_one_keeps_its_own_slice(self, tmp_path: Path) -> None:
        masks = np.zeros((5, 12, 14), dtype=np.bool_)
        masks[0:4, 1:8, 1:8] = True
        masks[2, 10, 10] = masks[3, 10, 10:12] = True
        large, small = of(with_masks(tmp_path, masks, is_lesion=True))
        assert (large.frame, small.frame) == (0, 3)
        assert small.points.tolist() == [[10, 10], [12, 10], [12, 11], [10, 11], [10, 10]]

    def test_of_very_many_only_the_largest_are_drawn_and_the_report_says_so(
        self, tmp_path: Path
    ) -> None:
        masks = np.zeros((2, 30, 24), dtype=np.bool_)
        masks[0, ::3, ::3] = True
        masks[0, 0, 1] = True
        example = with_masks(tmp_path / "images", masks, is_lesion=True)
        found = of(example)
        assert len(found) == regions.LESIONS < 80
        assert found[0].points.tolist() == [[0, 0], [2, 0], [2, 1], [0, 1], [0, 0]]
        (report,) = make(tmp_path / "r", example.prediction, example.model, profile=DRAWN).datasets
        assert NOT_ALL in [item.get("TextValue") for item in report.ContentSequence]

    def test_pieces_on_two_images_are_not_taken_for_the_same(self, tmp_path: Path) -> None:
        found = of(pictured.marked(pictured.radiographs(tmp_path)))
        pieces = [one for one in found if one.tracking_id.startswith("Lesion")]
        assert [one.frame for one in pieces] == [0, 0, 2, 2]
        assert len({one.tracking_uid for one in pieces}) == 4


GRIDS = [{"orientation": name, "reversed": turned} for name in phantom.ORIENTATIONS
         for turned in (False, True)]  # fmt: skip


class TestPlaces:
    @pytest.mark.parametrize("grid", GRIDS)
    def test_a_box_is_drawn_around_all_of_its_corners_on_its_middle_slice(
        self, grid: dict[str, Any], tmp_path: Path
    ) -> None:
        example = examples.located(tmp_path, **grid)
        box, _ = of(example)
        vol = example.prediction.volume
        (given_box,) = example.prediction.answers[0].boxes
        low, high = np.array(given_box.low), np.array(given_box.high)
        to_index = np.linalg.inv(vol.affine)
        middle = (to_index @ [*((low + high) / 2), 1])[0]
        assert abs(box.frame - middle) <= 0.5
        inside = np.random.default_rng(1).uniform(low, high, (500, 3))
        index = inside @ to_index[:3, :3].T + to_index[:3, 3]
        (left, top), (right, bottom) = box.points.min(axis=0), box.points.max(axis=0)
        assert left - 1e-4 <= index[:, 2].min() + 0.5
        assert index[:, 2].max() + 0.5 <= right + 1e-4
        assert top - 1e-4 <= index[:, 1].min() + 0.5
        assert index[:, 1].max() + 0.5 <= bottom + 1e-4
        # And no wider than the corners are.
        corners = np.array([[x, y, z] for x in (low[0], high[0]) for y in (low[1], high[1])
                            for z in (low[2], high[2])])  # fmt: skip
        reached = corners @ to_index[:3, :3].T + to_index[:3, 3] + 0.5
        assert (left, right) == pytest.approx((reached[:, 2].min(), reached[:, 2].max()), abs=1e-4)
        assert (top, bottom) == pytest.approx((reached[:, 1].min(), reached[:, 1].max()), abs=1e-4)

    @pytest.mark.parametrize("grid", GRIDS)
    def test_a_point_is_drawn_on_the_nearest_slice_straight_above_itself(
        self, grid: dict[str, Any], tmp_path: Path
    ) -> None:
        example = examples.located(tmp_path, **grid)
        _, point = of(example)
        vol = example.prediction.volume
        at = np.array(example.prediction.answers[1].points[0].at)
        placed = regions.in_patient(point, example.prediction)
        assert placed is not None
        normal = vol.affine[:3, 0] / np.linalg.norm(vol.affine[:3, 0])
        away = placed[0] - at
        assert abs(away @ normal) <= vol.spacing[0] / 2 + 1e-3
        assert np.linalg.norm(away - (away @ normal) * normal) < 1e-3

    def test_a_point_beyond_the_volume_is_drawn_on_its_last_slice(self, tmp_path: Path) -> None:
        example = examples.located(tmp_path)
        x, y, z = map(float, phantom.CENTER)
        answers = (Points(output="tips", points=(Point(label=1, at=(x, y, z + 500)),)),)
        prediction = Prediction(subject=example.prediction.subject, answers=answers)
        (region,) = regions.of(prediction, example.model)
        assert region.frame == 13

    @pytest.mark.parametrize("grid", GRIDS)
    def test_what_lies_in_the_patient_is_what_is_drawn_through_the_affine(
        self, grid: dict[str, Any], tmp_path: Path
    ) -> None:
        example = examples.bodies(tmp_path / "images", **grid)
        (report,) = made(example, tmp_path, "patient").datasets
        vol = example.prediction.volume
        places = [one for group in groups(report) for one in group.ContentSequence
                  if one.ValueType == "SCOORD3D"]  # fmt: skip
        for place, region in zip(places, of(example), strict=True):
            columns, rows = region.points.T - 0.5
            index = np.stack([np.full(len(rows), region.frame), rows, columns, np.ones(len(rows))])
            meant = (vol.affine @ index)[:3].T
            found = np.array(place.GraphicData, dtype=np.float64).reshape(-1, 3)
            np.testing.assert_allclose(found, meant, atol=1e-4)
            assert place.GraphicType == "POLYGON"
            assert place.ReferencedFrameOfReferenceUID == vol.frame_of_reference_uid

    @pytest.mark.parametrize("uneven", [False, True])
    def test_what_lies_in_the_patient_lies_in_the_plane_of_its_image(
        self, tmp_path: Path, uneven: bool
    ) -> None:
        def stray(index: int, dataset: Dataset) -> None:
            x, y, z = map(float, dataset.ImagePositionPatient)
            step = 1.6 if uneven and index > 6 else 0.0
            aside = 0.045 if index % 2 and index < 13 else 0.0  # as far as a regular series may
            dataset.ImagePositionPatient = [round(x + aside, 6), y, round(z + step, 6)]

        scan = phantom.write_series(tmp_path / "images", edit=stray)
        contract = Input(modality="MR", sop_classes=("MRImageStorage",), irregular_spacing=uneven)
        prediction = Prediction(
            subject=volume.load(scan.files, contract=contract),
            answers=(LabelMap(output="bodies", array=scan.labels),),
        )
        model = phantom.a_bundle(inputs={"image": contract})
        make(tmp_path / "results", prediction, model, profile=PROFILES["patient"])
        for region in regions.of(prediction, model):
            placed = regions.in_patient(region, prediction)
            assert placed is not None
            x, y, z = prediction.subject.sources[region.frame].position
            np.testing.assert_allclose(placed[:, 2], z, atol=1e-6)
            column, row = region.points[0] - 0.5
            np.testing.assert_allclose(placed[0, :2], (x + 1.5 * column, y + 1.25 * row), atol=1e-6)

    def test_what_has_no_place_is_drawn_on_the_image_all_the_same(self, tmp_path: Path) -> None:
        example = pictured.marked(pictured.radiographs(tmp_path / "images"))
        (report,) = made(example, tmp_path, "patient").datasets
        kinds = {one.ValueType for group in groups(report) for one in group.ContentSequence}
        assert "SCOORD" in kinds
        assert "SCOORD3D" not in kinds

    def test_slices_looked_at_one_by_one_have_their_own_place(self, tmp_path: Path) -> None:
        example = pictured.described(pictured.slices(tmp_path / "images"))
        made(example, tmp_path, "patient")
        for region in of(example):
            placed = regions.in_patient(region, example.prediction)
            frame = example.prediction.subject.frames[region.frame]
            assert placed is not None
            down, right = frame.affine[:3, 1], frame.affine[:3, 2]
            column, row = region.points[0] - 0.5
            meant = np.array(frame.source.position) + row * down + column * right
            np.testing.assert_allclose(placed[0], meant, atol=1e-3)


def made(example: Example, folder: Path, coordinates: str) -> Made:
    return make(
        folder / "results", example.prediction, example.model, profile=PROFILES[coordinates]
    )
