"""Presentation states: what is drawn where, how the images are shown, and that no fault passes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import phantom
import pictures
import pydicom
import pytest
from examples import output
from made import CREATED, KEY, Fault, sets
from numpy.typing import NDArray
from pydicom import Dataset

from dicomnode import bundle, results, volume
from dicomnode.bundle import Bundle, Output
from dicomnode.errors import ResultMismatch, RetryLater
from dicomnode.prediction import Box, Boxes, LabelMap, Masks, Point, Points, Prediction
from dicomnode.profile import Profile
from dicomnode.results import common, plan, regions
from dicomnode.results.writing import grayscale

PROFILE = Profile(
    segmentation="none", maps=False, images=False, registrations=False, capture=False,
    regions=False, report=False, presentation=True,
)  # fmt: skip
PET = Path(__file__).resolve().parents[3] / "shared" / "data" / "pet_with_seg" / "PET"
CODE = {"value": "39607008", "scheme": "SCT", "meaning": "Lung"}


def finding(label: int, **more: Any) -> dict[str, Any]:
    named = {"label": label, "name": f"Nodule {label}", "category": CODE, "type": CODE}
    return named | {"color": "#ff8800"} | more


BOXES = output(kind="boxes", scores="s", coordinates="index", findings=[finding(1), finding(2)])
POINTS = output(kind="points", coordinates="index", landmarks=[finding(1, name="Tip")])
SEGMENTS = output(kind="label_map", segments=[finding(1), finding(2, color="#3fa7ff")])


def build(prediction: Prediction, model: Bundle, folder: Path) -> list[Path]:
    built = results.build(prediction, bundle=model, key=KEY, created=CREATED, profiles=[PROFILE])
    paths = list(results.write(built, folder))
    check(paths, prediction, model)
    return paths


def check(paths: list[Path], prediction: Prediction, model: Bundle) -> None:
    results.check(paths, prediction=prediction, bundle=model, key=KEY, profiles=[PROFILE])


def state(prediction: Prediction, model: Bundle, folder: Path) -> Dataset:
    (path,) = build(prediction, model, folder)
    return pydicom.dcmread(path)


def of_phantom(folder: Path, labels: NDArray[np.uint8] | None = None, **scan: Any) -> Prediction:
    written = phantom.write_series(folder, **scan)
    answer = LabelMap(output="bodies", array=written.labels if labels is None else labels)
    return Prediction(subject=volume.load(written.files), answers=(answer,))


def an_input(**about: Any) -> bundle.Input:
    given = {"form": "image", "modality": "CR", "sop_classes": ["ComputedRadiographyImageStorage"]}
    return bundle.Input.model_validate(given | about)


def on_images(
    files: list[Path], *answers: Any, contract: bundle.Input | None = None, **outputs: Output
) -> tuple[Prediction, Bundle]:
    contract = contract or an_input()
    shown = volume.load_input(files, contract=contract)
    model = phantom.a_bundle(inputs={"image": contract}, outputs=outputs)
    return Prediction(subject=shown, answers=answers), model


def drawn(dataset: Dataset) -> list[Dataset]:
    """The annotations of regions: all but the notice."""
    return list(dataset.GraphicAnnotationSequence)[:-1]


def points(item: Dataset) -> NDArray[np.float64]:
    (graphic,) = item.GraphicObjectSequence
    return np.array(graphic.GraphicData).reshape(-1, 2)


RAMP = np.arange(60 * 80, dtype=np.uint16).reshape(60, 80)


class TestPlaces:
    def test_a_pixel_is_outlined_by_its_corners_and_the_first_corner_is_0(
        self, tmp_path: Path
    ) -> None:
        r"""A corner is 0\0 (PS3.3 C.10.5); the number of a pixel is 1\1 (C.10.4)."""
        labels = np.zeros((14, 24, 22), dtype=np.uint8)
        labels[5, 0, 0] = 1
        labels[6, 23, 21] = 2
        dataset = state(
            of_phantom(tmp_path / "images", labels), phantom.a_bundle(), tmp_path / "results"
        )
        first, last = (points(item) for item in drawn(dataset))
        assert first.min(axis=0).tolist() == [0, 0]
        assert first.max(axis=0).tolist() == [1, 1]
        assert last.min(axis=0).tolist() == [21, 23]
        assert last.max(axis=0).tolist() == [22, 24]
        np.testing.assert_array_equal(first[0], first[-1])
        (area,) = dataset.DisplayedAreaSelectionSequence
        assert list(area.DisplayedAreaTopLeftHandCorner) == [1, 1]
        assert list(area.DisplayedAreaBottomRightHandCorner) == [22, 24]

    @pytest.mark.parametrize("enhanced", [False, True])
    @pytest.mark.parametrize("orientation", phantom.ORIENTATIONS)
    def test_each_outline_lies_on_its_slice(
        self, tmp_path: Path, orientation: str, enhanced: bool
    ) -> None:
        prediction = of_phantom(
            tmp_path / "images", orientation=orientation, reversed=True, enhanced=enhanced
        )
        dataset = state(prediction, phantom.a_bundle(), tmp_path / "results")
        found = regions.of(prediction, phantom.a_bundle(), KEY)
        for item, region in zip(drawn(dataset), found, strict=True):
            (named,) = item.ReferencedImageSequence
            source = prediction.volume.sources[region.frame]
            assert named.ReferencedSOPInstanceUID == source.sop_instance_uid
            assert named.get("ReferencedFrameNumber") == (source.frame_number if enhanced else None)
            np.testing.assert_array_equal(points(item), region.points)
            assert item.GraphicObjectSequence[0].TrackingUID == region.tracking_uid

    def test_only_images_that_something_is_drawn_on_are_named(self, tmp_path: Path) -> None:
        prediction = of_phantom(tmp_path / "images", enhanced=True)
        dataset = state(prediction, phantom.a_bundle(), tmp_path / "results")
        (series,) = dataset.ReferencedSeriesSequence
        (image,) = series.ReferencedImageSequence
        frames = sorted({r.frame for r in regions.of(prediction, phantom.a_bundle(), KEY)})
        sources = prediction.volume.sources
        assert list(image.ReferencedFrameNumber) == [sources[n].frame_number for n in frames]

    def test_boxes_and_points_count_from_the_centre_of_a_pixel_and_are_drawn_from_its_corner(
        self, tmp_path: Path
    ) -> None:
        box = Box(label=2, score=0.875, low=(2.0, 3.0), high=(9.5, 11.0))
        prediction, model = on_images(
            [pictures.write(tmp_path / "images", RAMP)],
            Boxes(output="b", frame=0, boxes=(box,)),
            Points(output="p", frame=0, points=(Point(label=1, at=(4.0, 5.25)),)),
            b=BOXES,
            p=POINTS,
        )
        around, tip = drawn(state(prediction, model, tmp_path / "results"))
        assert points(around).min(axis=0).tolist() == [2.5, 3.5]
        assert points(around).max(axis=0).tolist() == [10, 11.5]
        assert around.GraphicObjectSequence[0].GraphicType == "POLYLINE"
        assert points(tip).tolist() == [[4.5, 5.75]]
        assert tip.GraphicObjectSequence[0].GraphicType == "POINT"
        assert around.TextObjectSequence[0].UnformattedTextValue == "Nodule 2 1: 87.5 %"
        assert tip.TextObjectSequence[0].UnformattedTextValue == "Tip"

    def test_what_reaches_beyond_the_image_is_cut_and_what_lies_beside_it_left_out(
        self, tmp_path: Path
    ) -> None:
        boxes = (
            Box(label=1, score=0.9, low=(70.0, -5.0), high=(95.0, 10.0)),
            Box(label=1, score=0.8, low=(90.0, 5.0), high=(95.0, 10.0)),
        )
        prediction, model = on_images(
            [pictures.write(tmp_path / "images", RAMP)],
            Boxes(output="b", frame=0, boxes=boxes),
            Points(output="p", frame=0, points=(Point(label=1, at=(85.0, 5.0)),)),
            b=BOXES,
            p=POINTS,
        )
        (only,) = drawn(state(prediction, model, tmp_path / "results"))
        assert points(only).min(axis=0).tolist() == [70.5, 0]
        assert points(only).max(axis=0).tolist() == [80, 10.5]

    def test_a_very_long_outline_has_as_many_points_as_an_object_can_hold(
        self, tmp_path: Path
    ) -> None:
        comb = np.zeros((60, 10002), dtype=np.uint8)
        comb[0], comb[1:30, ::2] = 1, 1
        prediction, model = on_images(
            [pictures.write(tmp_path / "images", np.zeros(comb.shape, dtype=np.uint8))],
            LabelMap(output="s", frame=0, array=comb),
            s=SEGMENTS,
        )
        (item,) = drawn(state(prediction, model, tmp_path / "results"))
        (graphic,) = item.GraphicObjectSequence
        assert graphic.NumberOfGraphicPoints <= regions.CORNERS
        assert graphic["GraphicData"].VR == "FL"


class TestWords:
    def test_each_finding_has_a_layer_of_its_name_and_colour(self, tmp_path: Path) -> None:
        dataset = state(of_phantom(tmp_path / "images"), phantom.a_bundle(), tmp_path / "results")
        layers = dataset.GraphicLayerSequence
        assert [one.GraphicLayer for one in layers] == ["1 ELLIPSOID", "2 BOX", "3 BALL", "NOTICE"]
        assert [one.GraphicLayerOrder for one in layers] == [1, 2, 3, 4]
        assert layers[0].GraphicLayerDescription == "Ellipsoid"
        # L*, a*, b* from 0 to 100 and from -128 to 127 (C.10.7.1.1), by another program.
        from skimage.color import rgb2lab

        lab = np.array(layers[0].GraphicLayerRecommendedDisplayCIELabValue)
        np.testing.assert_allclose(
            lab * [100, 255, 255] / 65535 - [0, 128, 128],
            rgb2lab(np.array([[[0xFF, 0x5C, 0x38]]], dtype=np.uint8)).ravel(),
            atol=0.1,
        )

    def test_what_and_how_large_is_written_beside_it(self, tmp_path: Path) -> None:
        dataset = state(of_phantom(tmp_path / "images"), phantom.a_bundle(), tmp_path / "results")
        said = [item.TextObjectSequence[0].UnformattedTextValue for item in drawn(dataset)]
        assert said == ["Ellipsoid: 0.5016 mL", "Box: 0.2531 mL", "Ball: 0.1078 mL"]

    def test_texts_of_one_image_do_not_lie_on_each_other(self, tmp_path: Path) -> None:
        labels = np.zeros((60, 80), dtype=np.uint8)
        masks = np.zeros((2, 60, 80), dtype=np.bool_)
        masks[0, 20:30, 10:20], masks[1, 21:28, 11:22] = True, True
        prediction, model = on_images(
            [pictures.write(tmp_path / "images", labels)],
            Masks(output="m", frame=0, array=masks),
            m=output(kind="masks", segments=[finding(1), finding(2)]),
        )
        one, other = (
            item.TextObjectSequence[0] for item in drawn(state(prediction, model, tmp_path / "r"))
        )
        assert (
            one.BoundingBoxBottomRightHandCorner[1] <= other.BoundingBoxTopLeftHandCorner[1]
            or one.BoundingBoxBottomRightHandCorner[0] <= other.BoundingBoxTopLeftHandCorner[0]
        )

    def test_every_image_says_what_drew_on_it(self, tmp_path: Path) -> None:
        dataset = state(of_phantom(tmp_path / "images"), phantom.a_bundle(), tmp_path / "results")
        notice = dataset.GraphicAnnotationSequence[-1]
        assert "ReferencedImageSequence" not in notice
        (text,) = notice.TextObjectSequence
        assert text.UnformattedTextValue == "AI Phantom bodies v1.2.3 (RESEARCH)"
        assert dataset.ContentLabel == "AI FINDINGS"
        assert dataset.PresentationCreationDate == "20260304"


class TestHowImagesAreShown:
    def test_each_images_own_window_is_kept(self, tmp_path: Path) -> None:
        """What a presentation state leaves out is the identity, not the image's (PS3.4 N.2.1.3)."""

        def window(index: int, dataset: Dataset) -> None:
            dataset.WindowCenter, dataset.WindowWidth = [600 + index, 40], [1200, 80]

        prediction = of_phantom(tmp_path / "images", edit=window)
        dataset = state(prediction, phantom.a_bundle(), tmp_path / "results")
        found = {
            item.ReferencedImageSequence[0].ReferencedSOPInstanceUID: (
                float(item.WindowCenter),
                float(item.WindowWidth),
            )
            for item in dataset.SoftcopyVOILUTSequence
        }
        frames = sorted({r.frame for r in regions.of(prediction, phantom.a_bundle(), KEY)})
        sources = prediction.volume.sources
        assert found == {sources[n].sop_instance_uid: (600.0 + n, 1200.0) for n in frames}

    def test_one_window_for_all_names_no_image(self, tmp_path: Path) -> None:
        prediction = of_phantom(
            tmp_path / "images", attributes={"WindowCenter": 600, "WindowWidth": 1200}
        )
        dataset = state(prediction, phantom.a_bundle(), tmp_path / "results")
        (item,) = dataset.SoftcopyVOILUTSequence
        assert "ReferencedImageSequence" not in item
        assert dataset.PresentationLUTShape == "IDENTITY"

    def test_an_image_without_a_window_gets_one_that_shows_something(self, tmp_path: Path) -> None:
        prediction = of_phantom(tmp_path / "images")
        dataset = state(prediction, phantom.a_bundle(), tmp_path / "results")
        (item,) = dataset.SoftcopyVOILUTSequence
        low = float(item.WindowCenter) - float(item.WindowWidth) / 2
        high = float(item.WindowCenter) + float(item.WindowWidth) / 2
        values = prediction.volume.array
        assert values.min() <= low < np.median(values) < high <= values.max() + 1

    def test_uptake_that_a_model_saw_becomes_activity_again(self) -> None:
        if not PET.is_dir():
            pytest.skip("the real images are not there")
        given = bundle.Input.model_validate(
            {
                "modality": "PT",
                "sop_classes": ["PositronEmissionTomographyImageStorage"],
                "values": "suvbw",
            }
        )
        shown = volume.load(sorted(PET.iterdir()), contract=given)
        for keyword in ("WindowCenter", "WindowWidth"):
            delattr(shown.header, keyword)
        run = common.Run(
            prediction=Prediction(subject=shown, answers=()),
            bundle=phantom.a_bundle(inputs={"image": given}),
            key=KEY,
            created=CREATED,
        )
        voi = grayscale._window(run, None)
        low, high = (
            float(voi.WindowCenter) - 0.5 + side * (float(voi.WindowWidth) - 1) / 2
            for side in (-1, 1)
        )
        stored = pydicom.dcmread(shown.sources[150].path)
        activity = stored.pixel_array * float(stored.RescaleSlope)
        factor = float(shown.array[150].max()) / activity.max()
        assert (low, high * factor) == pytest.approx((0, 7), rel=1e-4)

    def test_a_ct_keeps_hounsfield_units(self, tmp_path: Path) -> None:
        prediction = of_phantom(
            tmp_path / "images", modality="CT", attributes={"WindowCenter": 40, "WindowWidth": 400}
        )
        dataset = state(prediction, phantom.a_bundle(), tmp_path / "results")
        assert (dataset.RescaleSlope, dataset.RescaleIntercept) == (1, -1024)
        assert dataset.RescaleType == "HU"
        assert dataset.SoftcopyVOILUTSequence[0].WindowCenter == 40

    def test_where_the_rescale_differs_windows_are_in_stored_values(self, tmp_path: Path) -> None:
        """As of PET: a presentation state has one Modality LUT for all of its images."""

        def rescale(index: int, dataset: Dataset) -> None:
            dataset.RescaleSlope, dataset.RescaleIntercept = 0.5 + index / 10, -3
            dataset.WindowCenter, dataset.WindowWidth = 100.5, 201

        prediction = of_phantom(tmp_path / "images", edit=rescale)
        dataset = state(prediction, phantom.a_bundle(), tmp_path / "results")
        assert (dataset.RescaleSlope, dataset.RescaleIntercept) == (1, 0)
        frames = sorted({r.frame for r in regions.of(prediction, phantom.a_bundle(), KEY)})
        for item, index in zip(dataset.SoftcopyVOILUTSequence, frames, strict=True):
            slope = 0.5 + index / 10
            center, width = float(item.WindowCenter) - 0.5, float(item.WindowWidth) - 1
            # Black up to 0 and white from 200 on, in the values of the images.
            assert (center - width / 2) * slope - 3 == pytest.approx(0, abs=1e-6)
            assert (center + width / 2) * slope - 3 == pytest.approx(200, abs=1e-6)

    def test_a_table_is_kept(self, tmp_path: Path) -> None:
        table = Dataset()
        table.LUTDescriptor = [4, 0, 16]
        table.LUTData = np.array([0, 9, 99, 65535], dtype=np.uint16).tobytes()
        table["LUTDescriptor"].VR = "US"
        table["LUTData"].VR = "OW"
        path = pictures.write(tmp_path / "images", RAMP, VOILUTSequence=[table])
        prediction, model = on_images(
            [path],
            Boxes(output="b", frame=0, boxes=(Box(label=1, score=1, low=(2, 3), high=(9, 9)),)),
            contract=an_input(values="displayed"),
            b=BOXES,
        )
        dataset = state(prediction, model, tmp_path / "results")
        (item,) = dataset.SoftcopyVOILUTSequence
        assert item.VOILUTSequence[0].LUTData == table.LUTData

    def test_monochrome1_is_inverted(self, tmp_path: Path) -> None:
        """The photometric interpretation of the image plays no part any more (PS3.4 N.2.1.4)."""
        about = {"PhotometricInterpretation": "MONOCHROME1", "WindowCenter": 9, "WindowWidth": 8}
        prediction, model = on_images(
            [pictures.write(tmp_path / "images", RAMP, **about)],
            Boxes(output="b", frame=0, boxes=(Box(label=1, score=1, low=(2, 3), high=(9, 9)),)),
            b=BOXES,
        )
        dataset = state(prediction, model, tmp_path / "results")
        assert dataset.PresentationLUTShape == "INVERSE"

    def test_colour_images_get_a_state_for_colour(self, tmp_path: Path) -> None:
        pixels = np.zeros((60, 80, 3), dtype=np.uint8)
        prediction, model = on_images(
            [pictures.write(tmp_path / "images", pixels)],
            Boxes(output="b", frame=0, boxes=(Box(label=1, score=1, low=(2, 3), high=(9, 9)),)),
            contract=an_input(channels=3),
            b=BOXES,
        )
        dataset = state(prediction, model, tmp_path / "results")
        assert dataset.SOPClassUID.name == "Color Softcopy Presentation State Storage"
        assert dataset.ICCProfile[12:20] == b"scnrRGB "
        for keyword in ("PresentationLUTShape", "SoftcopyVOILUTSequence", "RescaleSlope"):
            assert keyword not in dataset

    def test_a_profile_of_the_image_is_kept(self, tmp_path: Path) -> None:
        pixels = np.zeros((60, 80, 3), dtype=np.uint8)
        prediction, model = on_images(
            [pictures.write(tmp_path / "images", pixels, ICCProfile=b"a profile ")],
            Boxes(output="b", frame=0, boxes=(Box(label=1, score=1, low=(2, 3), high=(9, 9)),)),
            contract=an_input(channels=3),
            b=BOXES,
        )
        assert state(prediction, model, tmp_path / "results").ICCProfile == b"a profile "

    @pytest.mark.parametrize(
        ("about", "keyword", "shape"),
        [
            ({"PixelSpacing": [0.5, 0.25]}, "PresentationPixelSpacing", [0.5, 0.25]),
            ({"PixelAspectRatio": [4, 3]}, "PresentationPixelAspectRatio", [4, 3]),
            # A size at the detector would pass for one that can be measured with.
            ({"ImagerPixelSpacing": [0.2, 0.2]}, "PresentationPixelAspectRatio", [1, 1]),
            ({"ImagerPixelSpacing": [0.2, 0.1]}, "PresentationPixelAspectRatio", [200, 100]),
            ({}, "PresentationPixelAspectRatio", [1, 1]),
        ],
    )
    def test_pixels_have_their_shape(
        self, tmp_path: Path, about: dict[str, Any], keyword: str, shape: list[float]
    ) -> None:
        prediction, model = on_images(
            [pictures.write(tmp_path / "images", RAMP, **about)],
            Boxes(output="b", frame=0, boxes=(Box(label=1, score=1, low=(2, 3), high=(9, 9)),)),
            b=BOXES,
        )
        (area,) = state(prediction, model, tmp_path / "results").DisplayedAreaSelectionSequence
        assert [float(value) for value in area[keyword].value] == shape

    def test_images_of_several_sizes_have_displayed_areas_of_their_own(
        self, tmp_path: Path
    ) -> None:
        files = [
            pictures.write(tmp_path / "images", one, number=n)
            for n, one in enumerate((RAMP, RAMP[:30], RAMP), start=1)
        ]
        box = (Box(label=1, score=1, low=(2, 3), high=(9, 9)),)
        prediction, model = on_images(
            files, *(Boxes(output="b", frame=n, boxes=box) for n in range(3)), b=BOXES
        )
        dataset = state(prediction, model, tmp_path / "results")
        areas = dataset.DisplayedAreaSelectionSequence
        assert [list(one.DisplayedAreaBottomRightHandCorner) for one in areas] == [
            [80, 60],
            [80, 30],
        ]
        uids = [one.sop_instance_uid for one in prediction.subject.sources]
        assert [
            [image.ReferencedSOPInstanceUID for image in one.ReferencedImageSequence]
            for one in areas
        ] == [[uids[0], uids[2]], [uids[1]]]

    def test_images_of_several_kinds_have_states_of_their_own(self, tmp_path: Path) -> None:
        files = [
            pictures.write(tmp_path / "images", RAMP, 1),
            pictures.write(tmp_path / "images", RAMP, 2, PhotometricInterpretation="MONOCHROME1"),
            pictures.write(tmp_path / "images", np.zeros((60, 80, 3), dtype=np.uint8), 3),
        ]
        box = (Box(label=1, score=1, low=(2, 3), high=(9, 9)),)
        prediction, model = on_images(
            files,
            *(Boxes(output="b", frame=n, boxes=box) for n in range(3)),
            contract=an_input(channels=3),
            b=BOXES,
        )
        read = [pydicom.dcmread(path) for path in build(prediction, model, tmp_path / "results")]
        assert [one.get("PresentationLUTShape") for one in read] == ["IDENTITY", "INVERSE", None]
        assert len({one.SeriesInstanceUID for one in read}) == 3


class TestTwiceIsOnce:
    @pytest.mark.parametrize("enhanced", [False, True])
    def test_the_same_run_gives_the_same_bytes(self, tmp_path: Path, enhanced: bool) -> None:
        prediction = of_phantom(tmp_path / "images", enhanced=enhanced)
        once, again = (
            build(prediction, phantom.a_bundle(), tmp_path / name)[0].read_bytes() for name in "ab"
        )
        assert once == again

    def test_so_does_one_for_colour(self, tmp_path: Path) -> None:
        prediction, model = on_images(
            [pictures.write(tmp_path / "images", np.zeros((60, 80, 3), dtype=np.uint8))],
            Boxes(output="b", frame=0, boxes=(Box(label=1, score=1, low=(2, 3), high=(9, 9)),)),
            contract=an_input(channels=3),
            b=BOXES,
        )
        once, again = (build(prediction, model, tmp_path / name)[0].read_bytes() for name in "ab")
        assert once == again


def test_where_nothing_was_found_there_is_none(tmp_path: Path) -> None:
    prediction = of_phantom(tmp_path, np.zeros((14, 24, 22), dtype=np.uint8))
    assert plan.of(prediction, phantom.a_bundle(), [PROFILE]) == ()


def test_a_source_that_is_away_is_tried_again_later(tmp_path: Path) -> None:
    prediction = of_phantom(tmp_path)
    for path in tmp_path.iterdir():
        path.unlink()
    with pytest.raises(RetryLater, match="file-unavailable"):
        results.build(
            prediction, bundle=phantom.a_bundle(), key=KEY, created=CREATED, profiles=[PROFILE]
        )


def _graphic(**attributes: Any) -> Fault:
    return lambda dataset: sets(**attributes)(drawn(dataset)[1].GraphicObjectSequence[0])


def _text(**attributes: Any) -> Fault:
    return lambda dataset: sets(**attributes)(drawn(dataset)[1].TextObjectSequence[0])


def _layer(**attributes: Any) -> Fault:
    return lambda dataset: sets(**attributes)(dataset.GraphicLayerSequence[1])


def _area(**attributes: Any) -> Fault:
    return lambda dataset: sets(**attributes)(dataset.DisplayedAreaSelectionSequence[0])


def _window(**attributes: Any) -> Fault:
    return lambda dataset: sets(**attributes)(dataset.SoftcopyVOILUTSequence[0])


def _reference(**attributes: Any) -> Fault:
    return lambda dataset: sets(**attributes)(drawn(dataset)[1].ReferencedImageSequence[0])


def _shifted(by: float) -> Fault:
    def fault(dataset: Dataset) -> None:
        graphic = drawn(dataset)[1].GraphicObjectSequence[0]
        graphic.GraphicData = [value + by for value in graphic.GraphicData]

    return fault


def _without_a_corner(dataset: Dataset) -> None:
    graphic = drawn(dataset)[1].GraphicObjectSequence[0]
    graphic.GraphicData = list(graphic.GraphicData)[2:]
    graphic.NumberOfGraphicPoints -= 1


def _on_the_neighbour(dataset: Dataset) -> None:
    one, other = (item.ReferencedImageSequence[0] for item in drawn(dataset)[:2])
    one.ReferencedSOPInstanceUID, other.ReferencedSOPInstanceUID = (
        other.ReferencedSOPInstanceUID,
        one.ReferencedSOPInstanceUID,
    )


def _in_the_other_layer(dataset: Dataset) -> None:
    drawn(dataset)[1].GraphicLayer = drawn(dataset)[0].GraphicLayer


def _without_an_annotation(dataset: Dataset) -> None:
    del dataset.GraphicAnnotationSequence[1]


def _without_the_notice(dataset: Dataset) -> None:
    dataset.GraphicAnnotationSequence[-1].TextObjectSequence[0].UnformattedTextValue = "Bodies"


def _without_an_image(dataset: Dataset) -> None:
    del dataset.ReferencedSeriesSequence[0].ReferencedImageSequence[0]


def _another_series(dataset: Dataset) -> None:
    dataset.ReferencedSeriesSequence[0].SeriesInstanceUID = "1.2.3"


def _two_areas(dataset: Dataset) -> None:
    dataset.DisplayedAreaSelectionSequence.append(dataset.DisplayedAreaSelectionSequence[0])


FAULTS: dict[str, tuple[Fault, str]] = {
    "another patient": (sets(PatientID="PHANTOM-2"), "identity-differs"),
    "another instance UID": (sets(SOPInstanceUID="1.2.3"), "uid-differs"),
    "another description": (sets(SeriesDescription="Bodies"), "description-differs"),
    "counted from 1": (_shifted(1), "place-differs"),
    "from the centres of pixels": (_shifted(-0.5), "place-differs"),
    "a corner too few": (_without_a_corner, "place-differs"),
    "another number of points": (_graphic(NumberOfGraphicPoints=3), "place-differs"),
    "in shares of the display": (_graphic(GraphicAnnotationUnits="DISPLAY"), "tracking-differs"),
    "interpolated": (_graphic(GraphicType="INTERPOLATED"), "tracking-differs"),
    "another tracking UID": (_graphic(TrackingUID="1.2.3"), "tracking-differs"),
    "another image": (_reference(ReferencedSOPInstanceUID="1.2.3"), "reference-differs"),
    "two images swapped": (_on_the_neighbour, "reference-differs"),
    "a frame": (_reference(ReferencedFrameNumber=2), "reference-differs"),
    "an image too few": (_without_an_image, "reference-differs"),
    "another series": (_another_series, "reference-differs"),
    "another name": (_layer(GraphicLayerDescription="Bax"), "finding-differs"),
    "another colour": (
        _layer(GraphicLayerRecommendedDisplayCIELabValue=[42631, 18841, 44020]),
        "color-differs",
    ),
    "another finding's layer": (_in_the_other_layer, "finding-differs"),
    "another volume": (_text(UnformattedTextValue="Box: 0.3 mL"), "measurement-differs"),
    "a text beside the image": (
        _text(BoundingBoxBottomRightHandCorner=[90.0, 10.0]),
        "place-differs",
    ),
    "an annotation too few": (_without_an_annotation, "place-differs"),
    "no notice": (_without_the_notice, "notice-missing"),
    "part of the image": (_area(DisplayedAreaBottomRightHandCorner=[20, 24]), "area-differs"),
    "counted from 0": (_area(DisplayedAreaTopLeftHandCorner=[0, 0]), "area-differs"),
    "another shape": (_area(PresentationPixelSpacing=[1.5, 1.25]), "area-differs"),
    "two areas": (_two_areas, "area-differs"),
    "another window": (_window(WindowCenter=650), "window-differs"),
    "another function": (_window(VOILUTFunction="SIGMOID"), "window-differs"),
    "another rescale": (sets(RescaleSlope=2, RescaleIntercept=0), "window-differs"),
    "inverted": (sets(PresentationLUTShape="INVERSE"), "polarity-differs"),
    "no window": (
        lambda dataset: delattr(dataset, "SoftcopyVOILUTSequence"),
        "malformed-result",
    ),
    "no areas": (
        lambda dataset: delattr(dataset, "DisplayedAreaSelectionSequence"),
        "malformed-result",
    ),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Prediction, Path]:
    folder = tmp_path_factory.mktemp("made")
    prediction = of_phantom(
        folder / "images", attributes={"WindowCenter": 600, "WindowWidth": 1200}
    )
    (path,) = build(prediction, phantom.a_bundle(), folder / "results")
    return prediction, path


@pytest.mark.parametrize("case", FAULTS)
def test_no_fault_passes_the_check(
    made: tuple[Prediction, Path], tmp_path: Path, case: str
) -> None:
    prediction, path = made
    spoil, reason = FAULTS[case]
    dataset = pydicom.dcmread(path)
    spoil(dataset)
    dataset.save_as(tmp_path / "spoilt.dcm")
    with pytest.raises(ResultMismatch) as caught:
        check([tmp_path / "spoilt.dcm"], prediction, phantom.a_bundle())
    assert caught.value.reason == reason
