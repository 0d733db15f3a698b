"""Images that are looked at one by one, phases of a cine, slides, uptake values, and grids."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import phantom
import pytest
from numpy.typing import NDArray
from pictures import write, write_slide
from pydicom import Dataset, dcmread
from pydicom.uid import EnhancedMRImageStorage, MRImageStorage

from dicomnode import volume
from dicomnode.bundle import Input
from dicomnode.errors import NodeError, NotApplicable, UnsuitableSeries
from dicomnode.volume import Images, Slide, Volume

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
real = pytest.mark.skipif(not DATA.is_dir(), reason="the real images are not there")


def an_input(**about: Any) -> Input:
    given = {"form": "image", "modality": "CR", "sop_classes": ["ComputedRadiographyImageStorage"]}
    return Input.model_validate(given | about)


RAMP = np.arange(12, dtype=np.uint16).reshape(3, 4) * 100


def load(files: list[Path], **about: Any) -> Images:
    images = volume.load_input(files, contract=an_input(**about))
    assert isinstance(images, Images)
    return images


def refusal(files: list[Path], **about: Any) -> NodeError:
    with pytest.raises(NodeError) as caught:
        load(files, **about)
    return caught.value


class TestImages:
    def test_values_are_those_after_the_modality_lut(self, tmp_path: Path) -> None:
        path = write(tmp_path, RAMP, RescaleSlope=2, RescaleIntercept=-50, WindowCenter=5)
        (frame,) = load([path]).frames
        np.testing.assert_array_equal(frame.array, RAMP * 2.0 - 50)
        assert frame.array.dtype == np.float32

    @pytest.mark.parametrize(
        ("about", "expected"),
        [
            # PS3.3 C.11.2.1.2: below c - 0.5 - (w-1)/2 black, above c - 0.5 + (w-1)/2 white
            ({"WindowCenter": 600, "WindowWidth": 401}, np.clip((RAMP - 599.5) / 400 + 0.5, 0, 1)),
            (
                {"WindowCenter": 600, "WindowWidth": 400, "VOILUTFunction": "LINEAR_EXACT"},
                np.clip((RAMP - 600.0) / 400 + 0.5, 0, 1),
            ),
            (
                {"WindowCenter": 600, "WindowWidth": 400, "VOILUTFunction": "SIGMOID"},
                1 / (1 + np.exp(-4 * (RAMP - 600.0) / 400)),
            ),
            ({}, RAMP / 1100),
        ],
    )
    def test_what_is_displayed_goes_from_black_to_white(
        self, tmp_path: Path, about: dict[str, Any], expected: NDArray[Any]
    ) -> None:
        path = write(tmp_path, RAMP, **about)
        (frame,) = load([path], values="displayed").frames
        np.testing.assert_allclose(frame.array, expected * 255, atol=1e-3)

    def test_half_a_rescale_is_refused(self, tmp_path: Path) -> None:
        assert refusal([write(tmp_path, RAMP, RescaleSlope=2)]).reason == "incomplete-rescale"

    def test_monochrome1_is_shown_the_other_way_round(self, tmp_path: Path) -> None:
        plain = load([write(tmp_path / "a", RAMP)], values="displayed").frames[0].array
        path = write(tmp_path / "b", RAMP, PhotometricInterpretation="MONOCHROME1")
        np.testing.assert_allclose(
            load([path], values="displayed").frames[0].array, 255 - plain, atol=1e-3
        )
        np.testing.assert_array_equal(load([path]).frames[0].array, RAMP)

    def test_a_byte_is_displayed_as_it_is(self, tmp_path: Path) -> None:
        pixels = np.array([[3, 200], [7, 90]], dtype=np.uint8)
        (frame,) = load([write(tmp_path, pixels)], values="displayed").frames
        np.testing.assert_array_equal(frame.array, pixels)

    def test_grey_is_repeated_for_a_model_of_colour_and_colour_refused_by_another(
        self, tmp_path: Path
    ) -> None:
        grey = write(tmp_path / "a", RAMP)
        (frame,) = load([grey], channels=3).frames
        assert frame.array.shape == (3, 4, 3)
        np.testing.assert_array_equal(frame.array[..., 0], frame.array[..., 2])
        colour = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)
        path = write(tmp_path / "b", colour)
        np.testing.assert_array_equal(load([path], channels=3).frames[0].array, colour)
        assert refusal([path]).reason == "wrong-channel-count"

    def test_images_come_in_the_order_of_their_numbers_whatever_that_of_the_files(
        self, tmp_path: Path
    ) -> None:
        files = [write(tmp_path, RAMP + n, number=n) for n in (11, 2, 5)]
        numbers = [frame.array[0, 0] for frame in load(files).frames]
        assert numbers == [2, 5, 11]

    def test_images_may_differ_in_size(self, tmp_path: Path) -> None:
        files = [write(tmp_path, RAMP, 1), write(tmp_path, RAMP[:2], 2)]
        assert [frame.array.shape for frame in load(files).frames] == [(3, 4), (2, 4)]

    def test_the_images_of_a_view_are_picked(self, tmp_path: Path) -> None:
        files = [
            write(tmp_path, RAMP + n, n, ViewPosition=position, ImageLaterality=side)
            for n, (side, position) in enumerate([("L", "CC"), ("R", "CC"), ("R", "MLO")], 1)
        ]
        (frame,) = load(files, view={"laterality": "R", "position": "CC"}).frames
        assert frame.array[0, 0] == 2
        found = refusal(files, view={"laterality": "L", "position": "MLO"})
        assert isinstance(found, NotApplicable)
        assert found.reason == "no-such-view"

    def test_two_patients_are_refused(self, tmp_path: Path) -> None:
        files = [write(tmp_path, RAMP, 1), write(tmp_path, RAMP, 2, PatientID="2")]
        assert refusal(files).reason == "mixed-patients"

    def test_how_many_there_may_be_is_said_by_the_model(self, tmp_path: Path) -> None:
        files = [write(tmp_path, RAMP, n) for n in (1, 2)]
        assert refusal(files, images={"max": 1}).reason == "wrong-image-count"

    def test_pixel_spacing_of_a_projection_is_that_of_its_imager(self, tmp_path: Path) -> None:
        (frame,) = load([write(tmp_path, RAMP, ImagerPixelSpacing=[0.2, 0.1])]).frames
        assert frame.pixel_spacing == (0.2, 0.1)
        assert frame.affine is None

    @real
    def test_real_images_of_every_colour_space_are_read(self) -> None:
        for name, modality, keyword, count in (
            ("US1_UNCR.dcm", "US", "UltrasoundImageStorage", 1),
            ("OBXXXX1A_rle_2frame.dcm", "US", "UltrasoundMultiFrameImageStorage", 2),
            ("gdcm-US-ALOKA-16.dcm", "US", "UltrasoundImageStorage", 1),
            ("RG3_J2KR.dcm", "CR", "ComputedRadiographyImageStorage", 1),
        ):
            images = load(
                [DATA / "single_images" / name],
                modality=modality,
                sop_classes=[keyword],
                channels=3,
                values="displayed",
            )
            assert len(images.frames) == count
            for frame in images.frames:
                assert frame.array.shape[-1] == 3
                assert frame.array.min() >= 0
                assert 200 <= frame.array.max() <= 255


class TestCine:
    def cine(self, folder: Path, **about: Any) -> list[Path]:
        """Written out of order; the trigger time says when each was."""
        place = {
            "SOPClassUID": MRImageStorage,
            "Modality": "MR",
            "FrameOfReferenceUID": "1.2.5",
            "ImageOrientationPatient": [0, 1, 0, 0, 0, -1],
            "ImagePositionPatient": [10, 20, 30],
            "PixelSpacing": [2, 1.5],
        }
        return [
            write(folder, RAMP + n, n, TriggerTime=time, **(place | about))
            for n, time in ((1, 300), (2, 100), (3, 200))
        ]

    def test_phases_come_in_the_order_of_the_heart_beat(self, tmp_path: Path) -> None:
        files = self.cine(tmp_path)
        cine = load(files, form="cine", modality="MR", sop_classes=["MRImageStorage"])
        assert [frame.array[0, 0] for frame in cine.frames] == [2, 3, 1]
        affine = cine.frames[0].affine
        assert affine is not None
        np.testing.assert_allclose(affine @ [0, 1, 2, 1], [10, 23, 28, 1])

    def test_two_planes_are_no_cine(self, tmp_path: Path) -> None:
        files = self.cine(tmp_path)
        dataset = dcmread(files[1])
        dataset.ImagePositionPatient = [10, 20, 31]
        dataset.save_as(files[1])
        found = refusal(files, form="cine", modality="MR", sop_classes=["MRImageStorage"])
        assert found.reason == "several-planes"

    def test_frames_of_an_enhanced_image_are_read_by_their_own_groups(self, tmp_path: Path) -> None:
        files = [write_enhanced_cine(tmp_path)]
        about = {"form": "cine", "modality": "MR", "sop_classes": ["EnhancedMRImageStorage"]}
        cine = load(files, **about)
        # In the order of the heart beat, which is not that of the frames.
        assert [frame.source.frame_number for frame in cine.frames] == [2, 3, 1]
        for frame, slope in zip(cine.frames, (2, 3, 1), strict=True):
            np.testing.assert_array_equal(frame.array, RAMP * float(slope) - 7)
        for frame in load(files, values="displayed", **about).frames:
            values = RAMP * float(frame.source.frame_number) - 7
            shown = np.clip((values - 600) / 400 + 0.5, 0, 1) * 255
            np.testing.assert_allclose(frame.array, shown, atol=1e-3)


def write_enhanced_cine(folder: Path) -> Path:
    """One plane at three moments, each frame with a rescale of its own."""
    shared = Dataset()
    shared.PlanePositionSequence, shared.PlaneOrientationSequence = [Dataset()], [Dataset()]
    shared.PlanePositionSequence[0].ImagePositionPatient = [10, 20, 30]
    shared.PlaneOrientationSequence[0].ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
    shared.PixelMeasuresSequence, shared.FrameVOILUTSequence = [Dataset()], [Dataset()]
    shared.PixelMeasuresSequence[0].PixelSpacing = [2, 1.5]
    window = shared.FrameVOILUTSequence[0]
    window.WindowCenter, window.WindowWidth, window.VOILUTFunction = 600, 400, "LINEAR_EXACT"
    frames = []
    for slope, delay in ((1, 300.0), (2, 100.0), (3, 200.0)):
        frame, rescale, moment = Dataset(), Dataset(), Dataset()
        rescale.RescaleSlope, rescale.RescaleIntercept = slope, -7
        moment.NominalCardiacTriggerDelayTime = delay
        frame.PixelValueTransformationSequence = [rescale]
        frame.CardiacSynchronizationSequence = [moment]
        frames.append(frame)
    return write(
        folder,
        RAMP,
        SOPClassUID=EnhancedMRImageStorage,
        Modality="MR",
        FrameOfReferenceUID="1.2.5",
        NumberOfFrames=3,
        SharedFunctionalGroupsSequence=[shared],
        PerFrameFunctionalGroupsSequence=frames,
        PixelData=RAMP.tobytes() * 3,
    )


class TestSlide:
    @pytest.mark.parametrize("has_groups", [False, True])
    def test_a_region_is_the_same_wherever_tiles_end(
        self, tmp_path: Path, has_groups: bool
    ) -> None:
        pixels = np.random.default_rng(1).integers(0, 255, (21, 34, 3), dtype=np.uint8)
        files = [
            write_slide(tmp_path, pixels[::2, ::2], tile=8, number=2),
            write_slide(tmp_path, pixels, tile=8, number=1),
            write_slide(tmp_path, pixels[:5, :5], tile=8, number=3, kind="LABEL"),
        ]
        if has_groups:
            dataset = dcmread(files[1])
            dataset.PerFrameFunctionalGroupsSequence = [Dataset()] * int(dataset.NumberOfFrames)
            dataset.save_as(files[1])
        contract = an_input(
            form="slide", modality="SM", sop_classes=["VLWholeSlideMicroscopyImageStorage"]
        )
        slide = volume.load_input(files, contract=contract)
        assert isinstance(slide, Slide)
        assert [(level.rows, level.columns) for level in slide.levels] == [(21, 34), (11, 17)]
        np.testing.assert_array_equal(
            slide.region(0, row=5, column=6, rows=9, columns=20), pixels[5:14, 6:26]
        )
        beyond = slide.region(1, row=8, column=-2, rows=6, columns=4)
        np.testing.assert_array_equal(beyond[:3, 2:], pixels[16::2, :4:2])
        assert (beyond[3:] == 255).all()
        assert (beyond[:, :2] == 255).all()


def a_pet() -> Dataset:
    dataset = Dataset()
    dataset.Units, dataset.DecayCorrection = "BQML", "START"
    dataset.CorrectedImage = ["ATTN", "DECY"]
    dataset.PatientWeight = 70
    dataset.SeriesDate = dataset.AcquisitionDate = "20240102"
    dataset.SeriesTime, dataset.AcquisitionTime = "000500", "000700.5"
    injection = Dataset()
    injection.RadiopharmaceuticalStartTime = "230500"  # before midnight
    injection.RadionuclideTotalDose, injection.RadionuclideHalfLife = 4e8, 6586.2
    dataset.RadiopharmaceuticalInformationSequence = [injection]
    return dataset


class TestUptake:
    def factor(self, dataset: Dataset) -> float:
        from dicomnode.volume import suv

        return suv.factor([dataset])

    def test_the_dose_is_decayed_to_the_start_of_the_series(self) -> None:
        expected = 70_000 / (4e8 * 2 ** (-3600 / 6586.2))
        assert self.factor(a_pet()) == pytest.approx(expected, rel=1e-9)

    @pytest.mark.parametrize("stated", ["20240101220500+0000", "20240102000500+0200"])
    def test_an_injection_in_another_zone_was_when_it_was(self, stated: str) -> None:
        dataset = a_pet()
        dataset.TimezoneOffsetFromUTC = "+0100"
        (injection,) = dataset.RadiopharmaceuticalInformationSequence
        injection.RadiopharmaceuticalStartDateTime = stated
        assert self.factor(dataset) == pytest.approx(self.factor(a_pet()), rel=1e-9)
        del dataset.TimezoneOffsetFromUTC
        with pytest.raises(UnsuitableSeries, match="TimezoneOffsetFromUTC"):
            self.factor(dataset)

    def test_images_that_are_corrected_to_the_injection_need_no_times(self) -> None:
        dataset = a_pet()
        dataset.DecayCorrection = "ADMIN"
        del dataset.SeriesTime
        assert self.factor(dataset) == pytest.approx(70_000 / 4e8)

    def test_values_in_grams_per_millilitre_stay(self) -> None:
        dataset = a_pet()
        dataset.Units = "GML"
        assert self.factor(dataset) == 1
        dataset.SUVType = "LBM"
        with pytest.raises(UnsuitableSeries):
            self.factor(dataset)

    @pytest.mark.parametrize(
        ("keyword", "value"),
        [
            ("Units", "PROPCNTS"),
            ("PatientWeight", None),
            ("PatientWeight", 0),
            ("DecayCorrection", "NONE"),
            ("CorrectedImage", ["DECY"]),
            ("SeriesTime", "000800"),  # a series made later than the scan
            ("SeriesTime", None),
            ("RadiopharmaceuticalInformationSequence", []),
        ],
    )
    def test_what_is_missing_is_named_and_not_guessed(self, keyword: str, value: Any) -> None:
        dataset = a_pet()
        setattr(dataset, keyword, value)
        with pytest.raises(UnsuitableSeries) as caught:
            self.factor(dataset)
        assert caught.value.reason == "suv-not-computable"

    @real
    def test_the_lesions_of_a_real_scan_take_up_what_lesions_take_up(self) -> None:
        files = [
            path
            for path in (DATA / "pet_with_seg").rglob("*.dcm")
            if dcmread(path, specific_tags=["Modality"]).Modality == "PT"
        ]
        contract = Input(
            modality="PT",
            sop_classes=("PositronEmissionTomographyImageStorage",),
            values="suvbw",
        )
        shown = volume.load_input(files, contract=contract)
        assert isinstance(shown, Volume)
        assert 10 < shown.array.max() < 40
        # Over the patient, uptake is 1 on average by its definition, less what was passed.
        body = shown.array[shown.array > 0.1]
        assert 0.4 < body.mean() < 1.5


class TestGrids:
    def test_a_part_lies_where_it_lay(self, tmp_path: Path) -> None:
        whole = volume.load(phantom.write_series(tmp_path, orientation="oblique").files)
        part = volume.crop(whole, low=(2, 3, 5), high=(6, 9, 14))
        np.testing.assert_array_equal(part.array, whole.array[2:6, 3:9, 5:14])
        np.testing.assert_allclose(part.affine @ [1, 2, 3, 1], whole.affine @ [3, 5, 8, 1])
        assert part.sources == whole.sources[2:6]
        with pytest.raises(ValueError, match="no box"):
            volume.crop(whole, low=(2, 3, 5), high=(2, 9, 14))

    def test_on_another_grid_each_place_has_its_value(self, tmp_path: Path) -> None:
        shown = volume.load(phantom.write_series(tmp_path / "a", orientation="axial").files)
        other = volume.load(phantom.write_series(tmp_path / "b", orientation="coronal").files)
        import dataclasses

        other = dataclasses.replace(other, frame_of_reference_uid=shown.frame_of_reference_uid)
        # A linear field is what linear interpolation gives back exactly.
        grid = np.indices(shown.array.shape).reshape(3, -1)
        places = shown.affine[:3, :3] @ grid + shown.affine[:3, 3:]
        field = (places.T @ [1.0, 2.0, -0.5]).reshape(shown.array.shape).astype(np.float32)
        shown = dataclasses.replace(shown, array=field)

        brought = volume.resampled(shown, onto=other)

        assert brought.array.shape == other.array.shape
        grid = np.indices(other.array.shape).reshape(3, -1)
        places = other.affine[:3, :3] @ grid + other.affine[:3, 3:]
        expected = (places.T @ [1.0, 2.0, -0.5]).reshape(other.array.shape)
        index = np.linalg.inv(shown.affine) @ np.vstack([places, np.ones(places.shape[1])])
        last = np.array(shown.array.shape)[:, None] - 1
        inside = ((index[:3] >= 0) & (index[:3] <= last)).all(axis=0).reshape(other.array.shape)
        assert inside.mean() > 0.3
        beyond = ((index[:3] <= -1) | (index[:3] >= last + 1)).any(axis=0)
        assert (brought.array.ravel()[beyond] == field.min()).all()
        np.testing.assert_allclose(brought.array[inside], expected[inside], atol=1e-2)

    def test_no_slice_is_lost_to_a_rounding_error(self, tmp_path: Path) -> None:
        shown = volume.load(phantom.write_series(tmp_path, orientation="oblique").files)
        for shift in (-1e-9, 1e-9):
            import dataclasses

            moved = shown.affine.copy()
            moved[:3, 3] += shift
            brought = volume.resampled(shown, onto=dataclasses.replace(shown, affine=moved))
            np.testing.assert_allclose(brought.array, shown.array, atol=1e-3)

    def test_two_spaces_are_not_brought_to_one_grid(self, tmp_path: Path) -> None:
        import dataclasses

        shown = volume.load(phantom.write_series(tmp_path, orientation="axial").files)
        other = dataclasses.replace(shown, frame_of_reference_uid="1.2.3")
        with pytest.raises(UnsuitableSeries) as caught:
            volume.resampled(shown, onto=other)
        assert caught.value.reason == "two-frames-of-reference"
