"""Pictures for people: what is drawn where, in which gray, and what is told beside it."""

from __future__ import annotations

import dataclasses
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import phantom
import pictures
import pytest
from examples import output
from numpy.typing import NDArray
from PIL import Image, ImageFont
from pydicom import Dataset

from dicomnode import bundle, results, volume
from dicomnode.bundle import Bundle, Output
from dicomnode.prediction import (
    Box,
    Boxes,
    Classification,
    DerivedImage,
    HeatMap,
    LabelMap,
    Masks,
    Numbers,
    Point,
    Points,
    Prediction,
    ProbabilityMap,
    Registration,
)
from dicomnode.results import layers
from dicomnode.results.drawing import canvas, gray, legend, marks, panels, slices, telling
from dicomnode.results.drawing.legend import Chapter, Told
from dicomnode.results.drawing.marks import Mark
from dicomnode.volume import Images, Picture, SliceSource, Volume

CODE = {"value": "39607008", "scheme": "SCT", "meaning": "Lung"}
RED, BLUE = (255, 0, 0), (0, 80, 255)
DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


def finding(label: int, **more: Any) -> dict[str, Any]:
    named = {"label": label, "name": f"Thing {label}", "category": CODE, "type": CODE}
    return named | {"color": "#ff0000"} | more


KINDS = output(
    kind="classification",
    concept=CODE,
    classes=[{"name": name, "code": CODE} for name in ("Sick", "Well")],
)
HEAT = output(kind="heat_map", of="kind")


def near(
    picture: Image.Image | NDArray[np.uint8], color: tuple[int, ...], within: int = 60
) -> NDArray[np.bool_]:
    """Where a picture has a colour, nearly: shape (rows, columns)."""
    pixels = np.asarray(picture).astype(int)
    found: NDArray[np.bool_] = (np.abs(pixels - color) <= within).all(axis=-1)
    return found


def a_volume(folder: Path, **scan: Any) -> Volume:
    return volume.load(phantom.write_series(folder, **scan).files)


def of_labels(shown: Volume, labels: NDArray[Any], **outputs: Output) -> tuple[Prediction, Bundle]:
    chosen = outputs or {"s": output(kind="label_map", segments=[finding(1), finding(2)])}
    answers = (LabelMap(output=next(iter(chosen)), array=labels.astype(np.uint8)),)
    return Prediction(subject=shown, answers=answers), phantom.a_bundle(outputs=chosen)


def drawn(prediction: Prediction, model: Bundle) -> Image.Image:
    picture = results.picture(prediction, bundle=model)
    assert picture is not None
    return picture


@contextmanager
def written() -> Iterator[list[str]]:
    """Everything that is written on pictures meanwhile."""
    said: list[str] = []
    write = canvas.write

    def note(drawing: Any, place: Any, text: str, **how: Any) -> None:
        said.append(text)
        write(drawing, place, text, **how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(canvas, "write", note)
        yield said


def told(prediction: Prediction, model: Bundle) -> list[Chapter]:
    """What is told of a volume."""
    segments = {
        one.output: {None: layers.of(prediction, model, one.output)}
        for one in prediction.answers
        if isinstance(one, LabelMap | Masks)
    }
    return telling.chapters(prediction, model, segments)


def an_image(array: NDArray[Any], **header: Any) -> Images:
    """One image that was never on disk."""
    dataset = Dataset()
    for keyword, value in header.items():
        setattr(dataset, keyword, value)
    spacing = header.get("PixelSpacing") or header.get("ImagerPixelSpacing")
    source = SliceSource(
        sop_instance_uid="1.2", sop_class_uid="1.2.840.10008.5.1.4.1.1.1", path="",
        frame_number=1, is_multiframe=False, position=None,
    )  # fmt: skip
    frame = Picture(
        array=array.astype(np.float32),
        source=source,
        pixel_spacing=(spacing[0], spacing[1]) if spacing else None,
        affine=None,
        header=dataset,
    )
    return Images(frames=(frame,), form="image", modality="CR")


def an_input(**about: Any) -> bundle.Input:
    given = {"form": "image", "modality": "CR", "sop_classes": ["ComputedRadiographyImageStorage"]}
    return bundle.Input.model_validate(given | about)


class TestMarks:
    SHOWN = np.full((20, 20), 90, dtype=np.uint8)

    def outlined(self, mask: NDArray[np.bool_], side: int = 400) -> NDArray[np.uint8]:
        picture = marks.draw(self.SHOWN, [Mark(color=RED, mask=mask)], size=(side, side))
        return np.asarray(picture)

    def test_an_outline_lies_inside_what_it_is_around(self) -> None:
        mask = np.zeros((20, 20), dtype=np.bool_)
        mask[5:10, 8:14] = True
        pixels = self.outlined(mask)
        red = np.argwhere(near(pixels, RED))
        assert np.abs(red.min(axis=0) - (100, 160)).max() <= 1
        assert np.abs(red.max(axis=0) - (199, 279)).max() <= 1
        for row, column in ((101, 220), (198, 220), (150, 161), (150, 278)):  # each edge
            assert near(pixels[row, column], RED)
        for row, column in ((95, 220), (205, 220), (150, 154), (150, 286)):  # beside it
            assert (pixels[row, column] == 90).all()
        inside = pixels[150, 220].astype(int)
        assert inside[0] > 90 > inside[1] == inside[2]  # tinted a little
        assert (pixels[10, 10] == 90).all()

    @pytest.mark.parametrize(("pixels", "side"), [(20, 400), (100, 120), (400, 120)])
    def test_a_single_pixel_is_seen_however_small_it_is_drawn(self, pixels: int, side: int) -> None:
        mask = np.zeros((pixels, pixels), dtype=np.bool_)
        mask[pixels // 3, pixels // 2] = True
        shown = np.full(mask.shape, 90, dtype=np.uint8)
        picture = marks.draw(shown, [Mark(color=RED, mask=mask)], size=(side, side))
        red = np.argwhere(near(picture, RED, within=110))
        assert len(red) >= 20
        middle = np.array([pixels // 3, pixels // 2]) + 0.5
        np.testing.assert_allclose(red.mean(axis=0), middle / pixels * side, atol=1)

    @pytest.mark.parametrize("corner", [(0, 0), (0, 18), (18, 0), (18, 18)])
    def test_what_lies_at_the_edge_of_the_image_is_outlined_there(
        self, corner: tuple[int, int]
    ) -> None:
        mask = np.zeros((20, 20), dtype=np.bool_)
        mask[corner[0] : corner[0] + 2, corner[1] : corner[1] + 2] = True
        red = np.argwhere(near(self.outlined(mask), RED))
        assert np.abs(red.min(axis=0) - np.array(corner) * 20).max() <= 1

    def test_of_masks_that_overlap_each_outline_is_seen(self) -> None:
        one, other = np.zeros((2, 20, 20), dtype=np.bool_)
        one[2:12, 2:12], other[7:17, 7:17] = True, True
        picture = marks.draw(
            self.SHOWN, [Mark(color=RED, mask=one), Mark(color=BLUE, mask=other)], size=(400, 400)
        )
        assert near(picture, RED)[41, 100]
        assert near(picture, RED)[100, 41]
        assert near(picture, BLUE)[141, 200]
        assert near(picture, BLUE)[200, 141]

    def test_boxes_and_points_are_where_they_are(self) -> None:
        picture = marks.draw(
            self.SHOWN,
            [Mark(color=RED, box=(3, 4, 9, 15)), Mark(color=BLUE, point=(15.5, 5.5))],
            size=(400, 400),
        )
        red, blue = np.argwhere(near(picture, RED)), np.argwhere(near(picture, BLUE))
        np.testing.assert_allclose(red.min(axis=0), [80, 60], atol=2)
        np.testing.assert_allclose(red.max(axis=0), [300, 180], atol=2)
        np.testing.assert_allclose(blue.mean(axis=0), [110, 310], atol=2)

    def test_a_label_stays_on_the_picture(self) -> None:
        pixels = [
            np.asarray(
                marks.draw(self.SHOWN, [Mark(color=RED, box=box, label="87%")], size=(400, 400))
            )
            for box in ((0, 0, 3, 3), (17, 17, 20, 20), (19.5, 0.0, 20, 20))
        ]
        for one in pixels:
            assert near(one, canvas.ON_DARK.bright).sum() > 60  # whole words

    def test_heat_is_warm_where_it_is_hot_and_nothing_where_it_is_not(self) -> None:
        heat = np.zeros((20, 20), dtype=np.float32)
        heat[10, 10] = 1
        pixels = np.asarray(marks.draw(self.SHOWN, [], size=(400, 400), heat=heat)).astype(int)
        hot = pixels[210, 210]
        assert hot[0] > hot[2] + 60
        assert (pixels[20, 20] == 90).all()


class TestDirections:
    @pytest.mark.parametrize(
        ("orientation", "expected"),
        [
            ("axial", ("R", "L", "A", "P")),
            ("sagittal", ("A", "P", "H", "F")),
            ("coronal", ("R", "L", "H", "F")),
            ("oblique", ("RA", "LP", "AL", "PR")),
        ],
    )
    def test_each_edge_says_which_side_of_the_patient_it_is(
        self, tmp_path: Path, orientation: str, expected: tuple[str, ...]
    ) -> None:
        shown = a_volume(tmp_path, orientation=orientation)
        assert panels.of_affine(shown.affine) == expected

    def test_a_radiograph_says_it_by_its_patient_orientation(self) -> None:
        assert panels.of_letters(["L", "F"]) == ("R", "L", "H", "F")
        assert panels.of_letters(["PR", "FA"]) == ("AL", "PR", "HP", "FA")
        for nothing in ([], ["L"], ["", ""], ["L", "X"]):
            assert panels.of_letters(nothing) is None


class TestShapeAndScale:
    def plane(self, **about: Any) -> panels.Plane:
        given = {
            "shown": np.zeros((50, 100), dtype=np.uint8), "aspect": 1.0, "pixel_mm": None,
            "directions": None, "label": "",
        }  # fmt: skip
        return panels.Plane(**(given | about))

    def test_an_image_has_its_shape_in_millimetres(self) -> None:
        """50 rows of 3 mm and 100 columns of 1 mm: it stands."""
        shown = np.full((50, 100), 200, dtype=np.uint8)
        panel = panels.draw(self.plane(shown=shown, aspect=3.0), [], size=(300, 300))
        bright = np.argwhere(np.asarray(panel)[..., 0] > 100)
        height, width = np.ptp(bright, axis=0) + 1
        assert height == 300
        assert width == 200

    @pytest.mark.parametrize(("pixel_mm", "length_mm"), [(1.0, 20), (0.2, 5), (4.0, 100)])
    def test_the_bar_is_as_long_as_it_says(self, pixel_mm: float, length_mm: int) -> None:
        with written() as said:
            panel = panels.draw(self.plane(pixel_mm=pixel_mm), [], size=(300, 150))
        assert f"{length_mm} mm" in said
        bar = np.argwhere(near(np.asarray(panel)[-12:], canvas.INK, within=10))
        assert np.ptp(bar[:, 1]) == pytest.approx(length_mm / pixel_mm * 3, abs=2)

    def test_without_a_known_size_there_is_no_bar(self) -> None:
        panel = panels.draw(self.plane(), [], size=(300, 150))
        assert not np.asarray(panel).any()

    def test_millimetres_at_the_detector_are_called_that(self) -> None:
        images = an_image(np.zeros((50, 80)), ImagerPixelSpacing=[0.5, 0.5])
        model = phantom.a_bundle(inputs={"image": an_input()}, outputs={"kind": KINDS})
        prediction = Prediction(
            subject=images,
            answers=(Classification(output="kind", probabilities=(0.1, 0.9), chosen=(1,)),),
        )
        with written() as said:
            drawn(prediction, model)
        assert any(text.endswith("mm at detector") for text in said)


class TestGray:
    def of(self, shown: Volume, **inputs: Any) -> gray.Window:
        model = phantom.a_bundle(
            inputs={"image": bundle.Input.model_validate(
                {"modality": shown.modality, "sop_classes": ["CTImageStorage"]} | inputs
            )}
        )  # fmt: skip
        return gray.window(shown, model)

    def test_a_ct_without_a_window_shows_soft_tissue(self, tmp_path: Path) -> None:
        window = self.of(a_volume(tmp_path, modality="CT", edit=_lighter))
        assert (window.low, window.high) == pytest.approx((-160, 240), abs=1)
        assert window.described == "W 400 L 40"

    def test_the_window_of_the_image_comes_first(self, tmp_path: Path) -> None:
        about = {"WindowCenter": [0, 500], "WindowWidth": [1500, 20]}
        window = self.of(a_volume(tmp_path, modality="CT", attributes=about, edit=_lighter))
        assert (window.low, window.high) == pytest.approx((-750, 749), abs=1)
        assert window.described == "W 1500 L 0"

    def test_pet_is_black_on_white_from_0_to_7(self, tmp_path: Path) -> None:
        shown = dataclasses.replace(a_volume(tmp_path), modality="PT")
        window = self.of(shown, modality="PT", values="suvbw")
        assert (window.low, window.high) == (0, 7)
        assert window.is_inverse
        np.testing.assert_array_equal(window.gray(np.array([0, 7], np.float32)), [255, 0])
        unknown = self.of(shown)
        assert unknown.is_inverse
        assert unknown.low == 0
        assert "SUV" not in unknown.described

    def test_pet_in_becquerel_is_shown_in_uptake_where_it_can_be_computed(self) -> None:
        pet = DATA / "pet_with_seg" / "PET"
        if not pet.is_dir():
            pytest.skip("the real images are not there")
        shown = volume.load(sorted(pet.iterdir()))
        window = self.of(shown)
        assert window.described == "SUV 0 to 7"
        assert window.high > 1000

    def test_mr_goes_from_nearly_the_lowest_to_nearly_the_highest(self, tmp_path: Path) -> None:
        shown = a_volume(tmp_path)
        window = self.of(shown)
        low, high = np.percentile(shown.array, (0.5, 99.7))
        assert (window.low, window.high) == pytest.approx((low, high), rel=0.02)

    def test_monochrome1_is_inverted(self, tmp_path: Path) -> None:
        shown = a_volume(tmp_path, attributes={"PhotometricInterpretation": "MONOCHROME1"})
        assert self.of(shown).is_inverse

    @pytest.mark.parametrize(
        ("header", "is_displayed", "expected"),
        [
            ({}, True, [0, 100, 255]),
            ({"BitsStored": 8}, False, [0, 100, 255]),
            ({"WindowCenter": 100, "WindowWidth": 101}, False, [0, 128, 255]),
            # A window that shows white alone: the values' own range.
            ({"WindowCenter": -9000, "WindowWidth": 100}, False, [0, 100, 255]),
            (
                {
                    "WindowCenter": 100,
                    "WindowWidth": 101,
                    "PhotometricInterpretation": "MONOCHROME1",
                },
                False,
                [255, 128, 0],
            ),
        ],
    )
    def test_a_single_image_is_shown_as_it_says(
        self, header: dict[str, Any], is_displayed: bool, expected: list[int]
    ) -> None:
        images = an_image(np.array([[0, 100, 255]]), **header)
        shown = gray.picture(images.frames[0], is_displayed=is_displayed)
        np.testing.assert_allclose(shown[0].astype(int), expected, atol=2)

    def test_gray_that_was_repeated_for_a_model_of_colour_is_gray(self) -> None:
        values = np.stack([np.array([[-1000, 0, 1000]])] * 3, axis=-1)
        images = an_image(values, SamplesPerPixel=1, PhotometricInterpretation="MONOCHROME2")
        shown = gray.picture(images.frames[0], is_displayed=False)
        assert shown.ndim == 2
        np.testing.assert_allclose(shown[0].astype(int), [0, 128, 255], atol=1)

    def test_colour_stays_as_it_is(self) -> None:
        values = np.array([[[250, 10, 20], [1, 2, 3]]])
        images = an_image(values, SamplesPerPixel=3, PhotometricInterpretation="RGB")
        np.testing.assert_array_equal(
            gray.picture(images.frames[0], is_displayed=False), values.astype(np.uint8)
        )


def _lighter(_: int, dataset: Dataset) -> None:
    """Values around those of tissue."""
    stored = np.frombuffer(dataset.PixelData, dtype="<i2") + 700
    dataset.PixelData = stored.astype("<i2").tobytes()


class TestKeySlices:
    def test_each_thing_is_shown_where_it_is_largest(self) -> None:
        areas = np.zeros((3, 40))
        areas[0, 3:9], areas[1, 20:30], areas[2, 35] = [1, 2, 9, 2, 1, 1], 5, 1
        areas[1, 24] = 7
        chosen = slices.key_slices(areas, most=6)
        assert {5, 24, 35} <= set(chosen)
        assert len(chosen) == 6
        assert chosen == sorted(chosen)

    def test_few_slices_show_as_many_things_as_they_can(self) -> None:
        """A hundred things: no six slices show all, and no thing is worth more for being first."""
        areas = np.zeros((100, 300))
        for number in range(100):
            areas[number, number : number + 40] = 10
        chosen = slices.key_slices(areas, most=6)
        seen = (areas[:, chosen] > 0).any(axis=1).sum()
        assert seen == 100

    def test_where_nothing_stands_out_they_are_spread(self) -> None:
        assert slices.key_slices(np.ones((1, 60)), most=6) == [4, 14, 24, 34, 44, 54]

    def test_what_is_on_one_slice_is_shown_with_its_neighbours(self) -> None:
        areas = np.zeros((1, 40))
        areas[0, 17] = 5
        assert slices.key_slices(areas, most=6) == [16, 17, 18]

    def test_of_few_slices_all_are_shown(self) -> None:
        assert slices.key_slices(np.ones((1, 3)), most=6) == [0, 1, 2]


class TestVolumes:
    def test_a_voxel_is_outlined_where_it_is_and_nowhere_else(self, tmp_path: Path) -> None:
        """Three slices are all shown, so that two pictures differ in what is drawn alone."""
        shown = a_volume(tmp_path, shape=(3, 24, 22), spacing=(2.5, 1.25, 1.5))
        labels = np.zeros(shown.array.shape, dtype=np.uint8)
        labels[1, 3:7, 12:15] = 1
        empty, marked = (np.asarray(drawn(*of_labels(shown, one))) for one in (labels * 0, labels))
        width = canvas.panel_width(3)
        height = round(width * (24 * 1.25) / (22 * 1.5))
        top = canvas.header(phantom.a_bundle(), "").height + canvas.GAP
        rows = slice(top, top + height)
        differ = np.argwhere((empty[rows] != marked[rows]).any(axis=-1))
        left = canvas.MARGIN + width + canvas.GAP
        np.testing.assert_allclose(
            differ.min(axis=0), [3 / 24 * height, left + 12 / 22 * width], atol=3
        )
        np.testing.assert_allclose(
            differ.max(axis=0), [7 / 24 * height, left + 15 / 22 * width], atol=3
        )
        red = np.argwhere(near(marked[rows], RED))
        assert len(red) > 200

    @pytest.mark.parametrize("orientation", phantom.ORIENTATIONS)
    def test_outlines_lie_on_what_is_bright(self, tmp_path: Path, orientation: str) -> None:
        """The phantom's bodies are brighter than all around them: colour is on their rims alone."""
        scan = phantom.write_series(tmp_path, orientation=orientation)
        shown = volume.load(scan.files)
        bright = dataclasses.replace(shown, array=(scan.labels > 0).astype(np.float32))
        prediction, model = of_labels(bright, scan.labels > 0)
        pixels = np.asarray(drawn(prediction, model))
        top = canvas.header(model, "").height
        red = near(pixels[top : top + 500], RED, within=40)
        assert red.sum() > 500
        # The tinted inside of a body: white with a seventh of red.
        inside = near(pixels[top : top + 500], (255, 219, 219), within=12)
        around = np.argwhere(red)
        assert inside.sum() > red.sum()
        for row, column in around[:: len(around) // 50]:
            beside = inside[max(0, row - 9) : row + 10, max(0, column - 9) : column + 10]
            assert beside.any()

    def test_a_small_thing_is_shown_with_what_is_around_it(self, tmp_path: Path) -> None:
        shown = a_volume(tmp_path, shape=(3, 100, 100), spacing=(5, 4, 4))
        labels = np.zeros(shown.array.shape, dtype=np.uint8)
        labels[1, 40:42, 60:62] = 1
        found = list(slices._outlined(slices._segments(*of_labels(shown, labels))))
        rows, columns = slices._field_of_view(found, shown)
        assert (rows.stop - rows.start) * 4 == pytest.approx(160, abs=8)  # of 400 mm
        assert rows.start < 40
        assert rows.stop > 42
        assert columns.start < 60
        assert columns.stop > 62

    def test_everything_at_once(self, tmp_path: Path) -> None:
        """Overlapping masks, boxes, points, classes, numbers, heat: all of it is told."""
        shown = a_volume(tmp_path)
        size = shown.array.shape
        masks = np.zeros((2, *size), dtype=np.bool_)
        masks[0, 4:8, 4:12, 4:12], masks[1, 6:10, 8:16, 8:16] = True, True
        middle = (shown.affine @ [7, 12, 11, 1])[:3]
        box = Box(label=1, score=0.87, low=tuple(middle - 4), high=tuple(middle + 4))
        quantity = {"name": "Age", "code": CODE, "unit": CODE | {"value": "a"}}
        outputs = {
            "m": output(kind="masks", segments=[finding(1), finding(2, name="Other")]),
            "b": output(kind="boxes", scores="s", coordinates="lps", findings=[finding(1)]),
            "p": output(kind="points", coordinates="lps", landmarks=[finding(1, name="Tip")]),
            "kind": KINDS,
            "n": output(kind="numbers", quantities=[quantity]),
            "h": HEAT,
        }
        model = phantom.a_bundle(outputs=outputs)
        prediction = Prediction(
            subject=shown,
            answers=(
                Masks(output="m", array=masks),
                Boxes(output="b", boxes=(box,)),
                Points(output="p", points=(Point(label=1, at=tuple(middle)),)),
                Classification(output="kind", probabilities=(0.75, 0.25), chosen=(0,)),
                Numbers(output="n", values=(61.25,)),
                HeatMap(output="h", array=np.full(size, 0.5, np.float32), of="kind", explains=0),
            ),
        )
        assert drawn(prediction, model).width == 1024
        lines = [
            (one.name, one.value) for chapter in told(prediction, model) for one in chapter.told
        ]
        assert ("Other", "1.20 mL") in lines
        assert ("Thing 1", "87%") in lines
        assert ("1  Tip", "L13 A33 H43 mm") in lines
        assert ("Sick", "75.0%") in lines
        assert ("Age", "61.25 a") in lines
        heat = next(one for one in told(prediction, model) if one.mark)
        assert heat.sentences == ("warmer: what spoke most for Sick",)

    def test_an_image_that_was_made_is_shown_below_its_source(self, tmp_path: Path) -> None:
        shown = a_volume(tmp_path)
        model = phantom.a_bundle(
            outputs={"d": output(kind="image", description="Denoised", derivation=CODE)}
        )
        plain, changed = (
            np.asarray(
                drawn(
                    Prediction(subject=shown, answers=(DerivedImage(output="d", array=array),)),
                    model,
                )
            )
            for array in (shown.array, shown.array[:, ::-1])
        )
        differ = np.argwhere((plain != changed).any(axis=-1))[:, 0]
        assert differ.min() > canvas.header(model, "").height + 250  # the second row alone

    def test_probabilities_are_outlined_from_one_half_on(self, tmp_path: Path) -> None:
        shown = a_volume(tmp_path, shape=(3, 24, 22))
        chances = np.zeros((1, *shown.array.shape), dtype=np.float32)
        chances[0, 1, 3:9, 4:12] = 0.7
        model = phantom.a_bundle(
            outputs={"p": output(kind="probability_map", findings=[finding(1)])}
        )
        high, low = (
            drawn(
                Prediction(subject=shown, answers=(ProbabilityMap(output="p", array=one),)), model
            )
            for one in (chances, chances * 0.5)
        )
        assert near(high, RED).sum() > near(low, RED).sum() + 200

    def test_a_registration_says_how_far(self, tmp_path: Path) -> None:
        shown = a_volume(tmp_path / "a")
        matrix = np.eye(4)
        matrix[:3, 3] = (3, 4, 0)
        given = bundle.Input(modality="MR", sop_classes=("MRImageStorage",))
        model = phantom.a_bundle(
            inputs={"t1": given, "flair": given},
            outputs={"r": output(kind="registration", moving="flair", coordinates="lps")},
        )
        prediction = Prediction(
            subject=shown, answers=(Registration(output="r", moving=0, matrix=matrix),)
        )
        (line,) = [one for chapter in told(prediction, model) for one in chapter.told]
        assert (line.name, line.value) == ("flair is moved by", "5.0 mm, 0.0 deg")
        assert drawn(prediction, model).width == 1024


class TestImages:
    PIXELS = np.full((60, 80), 90.0)

    def shown(self, *answers: Any, **outputs: Output) -> Image.Image:
        model = phantom.a_bundle(
            inputs={"image": an_input(values="displayed")}, outputs=dict(outputs)
        )
        return drawn(Prediction(subject=an_image(self.PIXELS), answers=answers), model)

    @pytest.mark.parametrize("kind", ["label_map", "masks", "probability_map"])
    def test_segments_are_outlined(self, kind: str) -> None:
        mask = np.zeros((60, 80), dtype=np.bool_)
        mask[10:30, 20:60] = True
        answer: Any
        if kind == "label_map":
            answer = LabelMap(output="s", frame=0, array=mask.astype(np.uint8))
        elif kind == "masks":
            answer = Masks(output="s", frame=0, array=mask[None])
        else:
            answer = ProbabilityMap(output="s", frame=0, array=mask[None] * np.float32(0.8))
        named = "findings" if kind == "probability_map" else "segments"
        picture = self.shown(answer, s=output(kind=kind, **{named: [finding(1)]}))
        top, left = canvas.header(phantom.a_bundle(), "").height + canvas.GAP, canvas.MARGIN
        panel = np.asarray(picture)[top:, left : left + 620]
        red = np.argwhere(near(panel[: 60 * 620 // 80], RED))
        scale = 620 / 80
        np.testing.assert_allclose(red.min(axis=0), [10 * scale, 20 * scale], atol=2)
        np.testing.assert_allclose(red.max(axis=0), [30 * scale, 60 * scale], atol=2)

    def test_boxes_and_points_are_counted_from_the_centre_of_a_pixel(self) -> None:
        box = Box(label=1, score=0.5, low=(9.5, 9.5), high=(19.5, 29.5))
        picture = self.shown(
            Boxes(output="b", frame=0, boxes=(box,)),
            b=output(kind="boxes", scores="s", coordinates="index", findings=[finding(1)]),
        )
        top, left = canvas.header(phantom.a_bundle(), "").height + canvas.GAP, canvas.MARGIN
        red = np.argwhere(near(np.asarray(picture)[top:, left : left + 620], RED))
        scale = 620 / 80
        np.testing.assert_allclose(red.min(axis=0), [10 * scale, 10 * scale], atol=2)
        np.testing.assert_allclose(red.max(axis=0), [30 * scale, 20 * scale], atol=2)

    def test_the_legend_stands_beside_an_image_that_is_alone(self) -> None:
        answer = Classification(output="kind", frame=0, probabilities=(0.9, 0.1), chosen=(0,))
        picture = self.shown(answer, kind=KINDS)
        right = np.asarray(picture)[140:300, 660:]
        assert near(right, canvas.WARNING).sum() > 200  # the square of the class that is chosen

    def test_a_wide_image_takes_the_whole_width(self) -> None:
        wide = an_image(np.full((20, 200), 250.0))
        model = phantom.a_bundle(
            inputs={"image": an_input(values="displayed")}, outputs={"kind": KINDS}
        )
        answer = Classification(output="kind", frame=0, probabilities=(0.9, 0.1), chosen=(0,))
        picture = drawn(Prediction(subject=wide, answers=(answer,)), model)
        assert near(picture, (250, 250, 250), within=3).any(axis=0).sum() >= 980

    def test_pixels_that_are_not_square_are_shown_as_they_are(self) -> None:
        tall = an_image(np.full((60, 60), 250.0), PixelSpacing=[1.0, 0.5])
        model = phantom.a_bundle(
            inputs={"image": an_input(values="displayed")}, outputs={"kind": KINDS}
        )
        answer = Classification(output="kind", frame=0, probabilities=(0.9, 0.1), chosen=(0,))
        picture = drawn(Prediction(subject=tall, answers=(answer,)), model)
        white = near(picture, (250, 250, 250), within=3)
        height, width = (np.ptp(np.flatnonzero(white.any(axis=axis))) for axis in (1, 0))
        assert height / width == pytest.approx(2, abs=0.02)

    def test_of_many_images_those_with_findings_are_shown(self, tmp_path: Path) -> None:
        pixels = np.full((60, 80), 90, dtype=np.uint8)
        files = [pictures.write(tmp_path, pixels, n) for n in range(1, 13)]
        shown = volume.load_input(files, contract=an_input())
        boxes = (Box(label=1, score=0.5, low=(9.5, 9.5), high=(19.5, 29.5)),)
        model = phantom.a_bundle(
            inputs={"image": an_input()},
            outputs={
                "b": output(kind="boxes", scores="s", coordinates="index", findings=[finding(1)]),
                "kind": KINDS,
            },
        )
        with written() as said:
            drawn(
                Prediction(
                    subject=shown,
                    answers=(
                        *(
                            Boxes(output="b", frame=n, boxes=boxes if n in (7, 11) else ())
                            for n in range(12)
                        ),
                        *(
                            Classification(
                                output="kind", frame=n, probabilities=(0.9, 0.1), chosen=(0,)
                            )
                            for n in range(12)
                        ),
                    ),
                ),
                model,
            )
        assert {"8 / 12", "12 / 12"} <= set(said)
        assert "CR, 12 images, 6 of them shown, 80 x 60 pixels" in said


class TestLegend:
    def lines(self, chapters: list[Chapter]) -> list[str]:
        with written() as said:
            legend.drawn(chapters)
        return said

    def things(self, count: int, missing: int = 0) -> tuple[Told, ...]:
        found = [
            Told(name=f"Part {n}", color=RED, value=f"{n} mL", weight=n)
            for n in range(1, count + 1)
        ]
        lost = [
            Told(name=f"Gone {n}", color=RED, value="not found", is_found=False)
            for n in range(1, missing + 1)
        ]
        return (*found, *lost)

    def test_a_few_lines_are_all_shown_in_their_order(self) -> None:
        said = self.lines([Chapter(is_search=True, told=self.things(3, 2))])
        names = [text for text in said if text.startswith(("Part", "Gone"))]
        assert names == ["Part 1", "Part 2", "Part 3", "Gone 1", "Gone 2"]
        assert said.count("not found") == 2

    def test_of_a_hundred_the_largest_are_shown_and_the_rest_is_counted(self) -> None:
        chapters = [Chapter(is_search=True, told=self.things(100, 4))]
        said = self.lines(chapters)
        assert [text for text in said if text.startswith("Part")] == [
            f"Part {n}" for n in range(100, 76, -1)
        ]
        assert "and 76 smaller ones." in said
        assert "4 not found: Gone 1, Gone 2, Gone 3, Gone 4." in said
        assert legend.drawn(chapters).height < 500

    def test_names_that_are_too_long_are_cut_and_numbers_are_not(self) -> None:
        long = Told(name="A structure with a very long name " * 3, color=RED, value="1234.56 mL")
        said = self.lines([Chapter(told=(long,))])
        assert "1234.56 mL" in said
        assert any(text.startswith("A structure") and text.endswith("...") for text in said)

    def test_that_nothing_was_found_is_said_in_words(self, tmp_path: Path) -> None:
        shown = a_volume(tmp_path)
        prediction, model = of_labels(shown, np.zeros(shown.array.shape))
        said = self.lines(told(prediction, model))
        assert said == ["Nothing found.", "Looked for: Thing 1, Thing 2."]

    def test_that_no_class_was_chosen_is_said(self, tmp_path: Path) -> None:
        prediction = Prediction(
            subject=a_volume(tmp_path),
            answers=(Classification(output="kind", probabilities=(0.4, 0.3), chosen=()),),
        )
        said = self.lines(told(prediction, phantom.a_bundle(outputs={"kind": KINDS})))
        assert "No class reached its operating point." in said

    def test_what_was_not_analysed_is_said(self, tmp_path: Path) -> None:
        prediction = Prediction(
            subject=a_volume(tmp_path), answers=(), silent={"kind": "there was no region"}
        )
        said = self.lines(told(prediction, phantom.a_bundle(outputs={"kind": KINDS})))
        assert said == ["Not analysed: kind: there was no region"]


class TestEveryPicture:
    def test_no_text_is_too_small_to_be_read_at_half_the_size(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sizes: list[float] = []
        load = ImageFont.load_default
        canvas.font.cache_clear()
        monkeypatch.setattr(
            ImageFont, "load_default", lambda size=None: (sizes.append(size or 0), load(size))[1]
        )
        shown = a_volume(tmp_path)
        drawn(*of_labels(shown, phantom.label_at(_points(shown))))
        canvas.font.cache_clear()
        assert min(sizes) >= 22

    def test_it_says_nothing_of_the_patient(self, tmp_path: Path) -> None:
        with written() as said:
            shown = a_volume(tmp_path)
            drawn(*of_labels(shown, np.zeros(shown.array.shape)))
        words = " ".join(said)
        for private in ("PHANTOM", "Am", "1970", "A-0815", "2024", "hospital"):
            assert private not in words

    def test_a_large_scan_with_a_hundred_segments_is_drawn_soon_and_in_little_memory(
        self, tmp_path: Path
    ) -> None:
        small = a_volume(tmp_path, shape=(3, 32, 32))
        shape = (300, 512, 512)
        labels = np.zeros(shape, dtype=np.uint8)
        places = np.random.default_rng(7).integers((10, 40, 40), (270, 440, 440), size=(104, 3))
        for label, (k, j, i) in enumerate(places, start=1):
            labels[k : k + 25, j : j + 30 + label // 4, i : i + 40] = label
        shown = dataclasses.replace(
            small,
            array=np.zeros(shape, dtype=np.float32),
            sources=small.sources * 100,
        )
        segments = [finding(n) for n in range(1, 105)]
        prediction, model = of_labels(shown, labels, s=output(kind="label_map", segments=segments))
        begun = time.process_time()
        picture = drawn(prediction, model)
        took = time.process_time() - begun
        assert picture.height < 1600
        assert took < 6  # under 2 s on a machine that does nothing else
        tracemalloc.start()
        drawn(prediction, model)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert most < 200e6


def _points(shown: Volume) -> NDArray[np.float64]:
    index = np.moveaxis(np.indices(shown.array.shape), 0, -1)
    return index @ shown.affine[:3, :3].T + shown.affine[:3, 3]
