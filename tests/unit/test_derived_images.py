"""Images that a model made → a series: every value to within half a step, where its source lies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import made as making
import numpy as np
import objects
import phantom
import pictures
import pydicom
import pytest
from made import BARE, Fault, Made, code, drops, make, sets, within
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.pixels.processing import apply_rescale
from pydicom.uid import (
    CTImageStorage,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
    SecondaryCaptureImageStorage,
)

from dicomnode import bundle, volume
from dicomnode.errors import ModelFailed, RetryLater
from dicomnode.prediction import DerivedImage, Prediction


def values(dataset: Dataset) -> NDArray[Any]:
    """As pydicom reads them."""
    return apply_rescale(dataset.pixel_array, dataset)


def assert_close(made: Made, which: int, meant: NDArray[np.float32]) -> None:
    dataset = made.datasets[which]
    half = float(dataset.RescaleSlope) / 2
    assert np.abs(values(dataset) - meant.astype(np.float64)).max() <= half * 1.001


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """For tests that only look."""
    return objects.images(tmp_path_factory.mktemp("made"), attributes=objects.SPIN_ECHO)


@pytest.fixture(scope="module")
def pet(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The same of a PET."""
    return objects.pet_images(tmp_path_factory.mktemp("pet"), made=lambda array: array * 1.5 + 1000)


class TestVolume:
    @pytest.mark.parametrize("enhanced", [False, True])
    @pytest.mark.parametrize("orientation", phantom.ORIENTATIONS)
    def test_our_own_loader_finds_the_values_where_they_were_made(
        self, tmp_path: Path, orientation: str, enhanced: bool
    ) -> None:
        made = objects.images(tmp_path, orientation=orientation, reversed=True, enhanced=enhanced)
        (answer,) = made.prediction.answers
        subject = made.prediction.volume
        read = volume.load(made.files)
        np.testing.assert_allclose(read.affine, subject.affine, atol=1e-6)
        assert read.frame_of_reference_uid == subject.frame_of_reference_uid
        assert isinstance(answer, DerivedImage)
        for number in range(14):
            assert_close(made, number, answer.array[number])

    def test_each_slice_names_the_one_that_it_was_made_of(self, made: Made) -> None:
        for source, dataset in zip(made.prediction.volume.sources, made.datasets, strict=True):
            (named,) = dataset.SourceImageSequence
            assert named.ReferencedSOPInstanceUID == source.sop_instance_uid
            assert named.PurposeOfReferenceCodeSequence[0].CodeValue == "121322"
            assert "ReferencedFrameNumber" not in named
            assert dataset.DerivationDescription == "Denoised"
            assert dataset.DerivationCodeSequence[0].CodeMeaning == "Smoothing"

    def test_a_frame_of_an_enhanced_image_is_named_by_its_number(self, tmp_path: Path) -> None:
        made = objects.images(tmp_path, enhanced=True)
        numbers = [one.SourceImageSequence[0].ReferencedFrameNumber for one in made.datasets]
        assert numbers == [source.frame_number for source in made.prediction.volume.sources]

    def test_they_are_one_series_and_numbered(self, made: Made) -> None:
        datasets = made.datasets
        assert [one.InstanceNumber for one in datasets] == list(range(1, 15))
        assert len({one.SeriesInstanceUID for one in datasets}) == 1
        assert len({one.SOPInstanceUID for one in datasets}) == 14
        assert {one.SeriesNumber for one in datasets} == {9006}

    def test_the_same_run_gives_the_same_bytes(self, made: Made) -> None:
        assert [path.read_bytes() for path in made.files] == made.again()

    def test_an_image_on_another_grid_is_refused(self, made: Made) -> None:
        wrong = DerivedImage(output="better", array=np.zeros((14, 22, 24), dtype=np.float32))
        prediction = Prediction(subject=made.prediction.subject, answers=(wrong,))
        with pytest.raises(ModelFailed, match="wrong-grid"):
            making.kinds(prediction, made.model, [BARE])

    def test_a_source_that_is_away_is_tried_again_later(self, tmp_path: Path) -> None:
        made = objects.images(tmp_path)
        Path(made.prediction.volume.sources[3].path).unlink()
        with pytest.raises(RetryLater, match="file-unavailable"):
            making.kinds(made.prediction, made.model, [BARE])


class TestClass:
    """What SOP class an image is of, and what it says of an acquisition."""

    def test_an_mr_stays_one_with_what_its_source_says(self, made: Made) -> None:
        dataset = made.datasets[3]
        assert dataset.SOPClassUID == MRImageStorage
        assert (dataset.ScanningSequence, dataset.EchoTime) == ("SE", 12.5)
        assert (dataset.WindowCenter, dataset.WindowWidth) == (300, 900)
        assert dataset["EchoTrainLength"].is_empty
        assert list(dataset.ImageType) == ["DERIVED", "SECONDARY", "OTHER"]

    @pytest.mark.parametrize("enhanced", [False, True])
    def test_an_mr_that_does_not_say_how_it_was_acquired_is_captured(
        self, tmp_path: Path, enhanced: bool
    ) -> None:
        dataset = objects.images(tmp_path, enhanced=enhanced).datasets[0]
        assert dataset.SOPClassUID == SecondaryCaptureImageStorage
        assert (dataset.Modality, dataset.ConversionType) == ("MR", "WSD")
        assert "ScanningSequence" not in dataset
        assert len(dataset.ImagePositionPatient) == 3

    def test_a_ct_is_in_hounsfield_units(self, tmp_path: Path) -> None:
        dataset = objects.images(tmp_path, given=objects.CT, attributes={"KVP": "120"}).datasets[0]
        assert dataset.SOPClassUID == CTImageStorage
        assert (dataset.RescaleType, dataset.KVP) == ("HU", 120)
        (mapping,) = dataset.RealWorldValueMappingSequence
        assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == "[hnsf'U]"

    @pytest.mark.parametrize("enhanced", [False, True])
    def test_a_ct_made_of_an_mr_makes_up_no_acquisition(
        self, tmp_path: Path, enhanced: bool
    ) -> None:
        made = objects.images(
            tmp_path,
            enhanced=enhanced,
            attributes=objects.SPIN_ECHO,
            output={"modality": "CT", "unit": objects.HOUNSFIELD},
        )
        dataset = made.datasets[0]
        assert (dataset.SOPClassUID, dataset.Modality) == (CTImageStorage, "CT")
        assert dataset["KVP"].is_empty
        assert "EchoTime" not in dataset
        assert "WindowCenter" not in dataset

    def test_an_mr_made_of_a_ct_is_captured(self, tmp_path: Path) -> None:
        made = objects.images(tmp_path, given=objects.CT, output={"modality": "MR"})
        assert made.datasets[0].SOPClassUID == SecondaryCaptureImageStorage
        assert made.datasets[0].Modality == "MR"

    def test_a_pet_keeps_the_time_that_its_decay_is_corrected_to(self, tmp_path: Path) -> None:
        made = objects.pet_images(tmp_path, made=lambda array: array * 1.5)
        dataset = made.datasets[0]
        assert dataset.SOPClassUID == PositronEmissionTomographyImageStorage
        assert (dataset.SeriesDate, dataset.SeriesTime) == ("20240229", "100000")
        assert (dataset.Units, dataset.DecayCorrection, dataset.DecayFactor) == (
            "BQML", "START", 1.02,
        )  # fmt: skip
        uptake = objects.PT.model_copy(update={"values": "suvbw"})
        ours, sources = (
            volume.load(files, contract=uptake).array
            for files in (made.files, [Path(s.path) for s in made.prediction.subject.sources])
        )
        np.testing.assert_allclose(ours, sources * 1.5, atol=float(dataset.RescaleSlope) * 1e-3)

    def test_uptake_values_say_so_and_need_no_decay(self, tmp_path: Path) -> None:
        made = objects.pet_images(tmp_path, values="suvbw", made=lambda array: array * 1.01)
        dataset = made.datasets[0]
        assert (dataset.Units, dataset.SUVType) == ("GML", "BW")
        again = volume.load(made.files, contract=objects.PT.model_copy(update={"values": "suvbw"}))
        (answer,) = made.prediction.answers
        assert isinstance(answer, DerivedImage)
        np.testing.assert_allclose(again.array, answer.array, atol=float(dataset.RescaleSlope))

    def test_the_pixel_0_of_a_pet_stands_for_0(self, tmp_path: Path) -> None:
        made = objects.pet_images(tmp_path, made=lambda array: array * 0.37 + 55.5)
        assert {float(one.RescaleIntercept) for one in made.datasets} == {0}

    @pytest.mark.parametrize(
        "lacking", [{"SeriesType": None}, {"DecayFactor": None}, {"FrameReferenceTime": None}]
    )
    def test_a_pet_that_lacks_what_it_must_have_is_captured(
        self, tmp_path: Path, lacking: dict[str, None]
    ) -> None:
        made = objects.pet_images(tmp_path, attributes=lacking)
        assert made.datasets[0].SOPClassUID == SecondaryCaptureImageStorage

    def test_a_unit_that_pet_does_not_know_is_captured(self, tmp_path: Path) -> None:
        unit = code("mL/min", "milliliter per minute", "UCUM")
        dataset = objects.pet_images(tmp_path, output={"unit": unit}).datasets[0]
        assert dataset.SOPClassUID == SecondaryCaptureImageStorage
        (mapping,) = dataset.RealWorldValueMappingSequence
        assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == "mL/min"

    def test_what_an_image_of_the_class_may_not_have_is_left_out(self, tmp_path: Path) -> None:
        attributes = objects.SPIN_ECHO | {"InversionTime": "150", "TriggerTime": "0"}
        dataset = objects.images(tmp_path, attributes=attributes).datasets[0]
        assert "InversionTime" not in dataset
        assert "TriggerTime" not in dataset


class TestPixels:
    def test_whole_numbers_are_written_as_they_are(self, tmp_path: Path) -> None:
        made = objects.images(tmp_path, given=objects.CT, made=lambda array: array + 3)
        assert made.datasets[0].RescaleSlope == 1
        assert made.datasets[0].RescaleIntercept == 0
        assert made.datasets[0].PixelRepresentation == 1
        (answer,) = made.prediction.answers
        assert isinstance(answer, DerivedImage)
        np.testing.assert_array_equal(made.datasets[5].pixel_array, answer.array[5])

    @pytest.mark.parametrize(
        "made",
        [
            np.zeros_like,
            lambda array: np.full_like(array, 0.1),
            lambda array: np.full_like(array, -1e30),
            lambda array: array * 1e-30,
            lambda array: array * 1e30,
            lambda array: array * 1e-3 + 1e6,
            lambda array: array * 100,
            lambda array: -array * 0.3,
        ],
    )
    def test_all_values_survive(self, tmp_path: Path, made: objects.Values) -> None:
        results = objects.images(tmp_path, made=made)
        (answer,) = results.prediction.answers
        assert isinstance(answer, DerivedImage)
        for number in (0, 7, 13):
            found, meant = values(results.datasets[number]), answer.array[number]
            half = float(results.datasets[number].RescaleSlope) / 2
            assert np.abs(found - meant.astype(np.float64)).max() <= half * 1.2

    def test_one_slope_holds_for_the_series(self, made: Made) -> None:
        assert len({(one.RescaleSlope, one.RescaleIntercept) for one in made.datasets}) == 1


class TestImages:
    @pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
    def test_a_radiograph_is_captured_and_lies_nowhere(
        self, tmp_path: Path, photometric: str
    ) -> None:
        shown = np.arange(48, dtype=np.uint16).reshape(6, 8) * 100
        about = {
            "PhotometricInterpretation": photometric,
            "ImagerPixelSpacing": [0.2, 0.2],
            "PatientOrientation": ["L", "F"],
            "ImageLaterality": "L",
        }
        file = pictures.write(tmp_path / "images", shown, **about)
        made = objects.of_radiographs(tmp_path, file)
        (dataset,) = made.datasets
        assert dataset.SOPClassUID == SecondaryCaptureImageStorage
        assert (dataset.Modality, dataset.PhotometricInterpretation) == ("CR", photometric)
        assert list(dataset.ImagerPixelSpacing) == [0.2, 0.2]
        assert list(dataset.PatientOrientation) == ["L", "F"]
        assert dataset.ImageLaterality == "L"
        assert "Laterality" not in dataset
        assert "ImagePositionPatient" not in dataset
        assert [path.read_bytes() for path in made.files] == made.again()

    def test_what_was_shown_the_right_way_round_stays_so(self, tmp_path: Path) -> None:
        given = objects.RADIOGRAPHS.model_copy(update={"values": "displayed"})
        shown = np.arange(48, dtype=np.uint16).reshape(6, 8)
        file = pictures.write(tmp_path / "images", shown, PhotometricInterpretation="MONOCHROME1")
        made = objects.of_radiographs(tmp_path, file, given=given)
        assert made.datasets[0].PhotometricInterpretation == "MONOCHROME2"

    def test_pixels_without_a_size_have_none(self, tmp_path: Path) -> None:
        shown = np.arange(48, dtype=np.uint16).reshape(6, 8)
        file = pictures.write(tmp_path / "images", shown, PixelSpacing=[0, 0])
        made = objects.of_radiographs(tmp_path, file)
        assert "PixelSpacing" not in made.datasets[0]

    def test_images_of_two_sizes_are_two_series(self, tmp_path: Path) -> None:
        files = [
            pictures.write(tmp_path / "images", np.ones(shape, dtype=np.uint8), number)
            for number, shape in enumerate([(6, 8), (8, 6), (6, 8)], start=1)
        ]
        made = objects.of_radiographs(tmp_path, *files)
        series = [(one.SeriesInstanceUID, one.InstanceNumber, one.Rows) for one in made.datasets]
        assert [row[1:] for row in series] == [(1, 6), (2, 6), (1, 8)]
        assert len({row[0] for row in series}) == 2

    def test_the_frames_of_one_image_are_named(self, tmp_path: Path) -> None:
        shown = np.arange(96, dtype=np.uint8).reshape(12, 8)
        file = pictures.write(tmp_path / "images", shown, Rows=6, NumberOfFrames=2)
        made = objects.of_radiographs(tmp_path, file)
        numbers = [one.SourceImageSequence[0].ReferencedFrameNumber for one in made.datasets]
        assert numbers == [1, 2]

    def test_a_slice_that_is_looked_at_alone_lies_where_it_lies(self, tmp_path: Path) -> None:
        scan = phantom.write_series(
            tmp_path / "images", orientation="oblique", attributes=objects.SPIN_ECHO
        )
        given = bundle.Input(form="image", modality="MR", sop_classes=("MRImageStorage",))
        subject = volume.load_input(scan.files, contract=given)
        made = make(tmp_path / "results", *objects.derived(subject, given))
        sources = [pydicom.dcmread(source.path) for source in subject.sources]
        for source, dataset in zip(sources, made.datasets, strict=True):
            assert dataset.SOPClassUID == MRImageStorage
            assert dataset.ImagePositionPatient == source.ImagePositionPatient
            assert dataset.ImageOrientationPatient == source.ImageOrientationPatient


def _a_step(dataset: Dataset) -> None:
    pixels = np.frombuffer(dataset.PixelData, dtype="<u2").copy()
    pixels[100] += 1
    dataset.PixelData = pixels.tobytes()


def _mirrored(axis: int) -> Fault:
    def fault(dataset: Dataset) -> None:
        pixels = np.frombuffer(dataset.PixelData, dtype="<u2")
        shape = (dataset.Rows, dataset.Columns)
        dataset.PixelData = np.flip(pixels.reshape(shape), axis).tobytes()

    return fault


def _moved(dataset: Dataset) -> None:
    x, y, z = dataset.ImagePositionPatient
    dataset.ImagePositionPatient = [x, y, z + 2.5]


FAULTS: dict[str, tuple[Fault, str]] = {
    "another patient": (sets(PatientID="PHANTOM-2"), "identity-differs"),
    "another number": (sets(InstanceNumber=2), "series-differs"),
    "another class": (sets(SOPClassUID=CTImageStorage), "modality-differs"),
    "a class of no image": (sets(SOPClassUID="1.2.840.10008.5.1.4.1.1.30"), "unexpected-objects"),
    "another modality": (sets(Modality="CT"), "modality-differs"),
    "original": (sets(ImageType=["ORIGINAL", "PRIMARY", "M"]), "image-type-differs"),
    "one pixel by one step": (_a_step, "image-differs"),
    "mirrored along the rows": (_mirrored(0), "image-differs"),
    "mirrored along the columns": (_mirrored(1), "image-differs"),
    "another slope": (sets(RescaleSlope="0.0141"), "image-differs"),
    "another intercept": (sets(RescaleIntercept="0"), "image-differs"),
    "signed": (sets(PixelRepresentation=1), "image-differs"),
    "rows for columns": (sets(Rows=22, Columns=24), "encoding-differs"),
    "fewer bits": (sets(BitsStored=12), "encoding-differs"),
    "pixels cut short": (
        lambda dataset: setattr(dataset, "PixelData", dataset.PixelData[:100]),
        "malformed-result",
    ),
    "shifted by a slice": (_moved, "frame-elsewhere"),
    "turned round": (sets(ImageOrientationPatient=[-1, 0, 0, 0, 1, 0]), "frame-elsewhere"),
    "spacings swapped": (sets(PixelSpacing=[1.5, 1.25]), "frame-elsewhere"),
    "another frame of reference": (
        sets(FrameOfReferenceUID="1.2.3"),
        "frame-of-reference-differs",
    ),
    "no position": (drops("ImagePositionPatient"), "malformed-result"),
    "another source": (
        within("SourceImageSequence", 0, then=sets(ReferencedSOPInstanceUID="1.2")),
        "reference-differs",
    ),
    "a frame number": (
        within("SourceImageSequence", 0, then=sets(ReferencedFrameNumber=1)),
        "reference-differs",
    ),
    "another source series": (
        within("ReferencedSeriesSequence", 0, then=sets(SeriesInstanceUID="1.2")),
        "reference-differs",
    ),
    "another derivation": (
        within("DerivationCodeSequence", 0, then=sets(CodeValue="113085")),
        "derivation-differs",
    ),
    "another description": (sets(DerivationDescription="Resampled"), "derivation-differs"),
    "another echo time": (sets(EchoTime="13"), "acquisition-differs"),
    "a made-up train": (sets(EchoTrainLength=8), "acquisition-differs"),
}


def _in_mapping(**attributes: Any) -> Fault:
    return within("RealWorldValueMappingSequence", 0, then=sets(**attributes))


PET_FAULTS: dict[str, tuple[Fault, str]] = {
    "the time of the run": (sets(SeriesTime="230607"), "acquisition-differs"),
    "another decay": (sets(DecayCorrection="ADMIN"), "acquisition-differs"),
    "other units": (sets(Units="CNTS"), "unit-differs"),
    "an intercept": (sets(RescaleIntercept="0.0001"), "encoding-differs"),
    "another real slope": (_in_mapping(RealWorldValueSlope=1.0), "meaning-differs"),
    "a range too small": (_in_mapping(RealWorldValueLastValueMapped=10), "meaning-differs"),
}


class TestCheck:
    @pytest.mark.parametrize("case", FAULTS)
    def test_no_fault_in_an_image_passes(self, made: Made, tmp_path: Path, case: str) -> None:
        fault, reason = FAULTS[case]
        assert made.spoilt(tmp_path, fault, which=9).reason() == reason

    @pytest.mark.parametrize("case", PET_FAULTS)
    def test_no_fault_in_a_pet_passes(self, pet: Made, tmp_path: Path, case: str) -> None:
        fault, reason = PET_FAULTS[case]
        assert pet.spoilt(tmp_path, fault).reason() == reason

    def test_a_unit_that_is_not_the_manifests_does_not_pass(self, tmp_path: Path) -> None:
        made = objects.images(tmp_path, output={"unit": objects.HOUNSFIELD, "modality": "CT"})
        unit = within(
            "RealWorldValueMappingSequence", 0, "MeasurementUnitsCodeSequence", 0,
            then=sets(CodeValue="mm"),
        )  # fmt: skip
        assert made.spoilt(tmp_path, unit).reason() == "unit-differs"

    def test_slices_do_not_pass_for_each_other(self, made: Made) -> None:
        files = (made.files[1], made.files[0], *made.files[2:])
        swapped = Made(
            prediction=made.prediction, model=made.model, files=files, profile=made.profile
        )
        assert swapped.reason() == "uid-differs"

    def test_a_radiograph_that_claims_a_place_does_not_pass(self, tmp_path: Path) -> None:
        file = pictures.write(tmp_path / "images", np.ones((6, 8), dtype=np.uint8))
        made = objects.of_radiographs(tmp_path, file)
        claim = sets(ImagePositionPatient=[0, 0, 0], FrameOfReferenceUID="1.2.3")
        assert made.spoilt(tmp_path, claim).reason() == "frame-of-reference-differs"
