"""Heat maps and probabilities → Parametric Maps: the model's numbers, where their voxels lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import highdicom.pm.sop
import made as making
import numpy as np
import objects
import phantom
import pictures
import pytest
from made import BARE, Fault, Made, drops, make, sets, within
from pydicom import Dataset

from dicomnode import bundle, volume
from dicomnode.errors import ModelFailed
from dicomnode.prediction import Classification, HeatMap, Prediction, ProbabilityMap
from dicomnode.profile import Profile
from dicomnode.results import plan


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """For tests that only look."""
    return objects.maps(tmp_path_factory.mktemp("made"))


class TestVolume:
    @pytest.mark.parametrize("enhanced", [False, True])
    @pytest.mark.parametrize("orientation", phantom.ORIENTATIONS)
    def test_another_reader_finds_each_number_at_its_voxel(
        self, tmp_path: Path, orientation: str, enhanced: bool
    ) -> None:
        made = objects.maps(tmp_path, orientation=orientation, reversed=True, enhanced=enhanced)
        likely, _, where = made.prediction.answers
        assert isinstance(likely, ProbabilityMap)
        assert isinstance(where, HeatMap)
        for path, meant in zip(made.files, (*likely.array, where.array), strict=True):
            read = highdicom.pm.sop.pmread(path).get_volume()
            index = np.moveaxis(np.indices(read.array.shape), 0, -1).reshape(-1, 3)
            to_ours = np.linalg.inv(made.prediction.volume.affine) @ read.affine
            placed = index @ to_ours[:3, :3].T + to_ours[:3, 3]
            ours = np.round(placed).astype(int)
            np.testing.assert_allclose(placed, ours, atol=2e-3)
            np.testing.assert_array_equal(read.array.ravel(), meant[tuple(ours.T)])

    def test_the_numbers_stand_there_as_they_are(self, made: Made) -> None:
        where = made.prediction.answers[2]
        assert isinstance(where, HeatMap)
        np.testing.assert_array_equal(made.datasets[2].pixel_array, where.array)
        assert made.datasets[2].BitsAllocated == 32

    def test_a_map_says_what_its_numbers_mean(self, made: Made) -> None:
        said = []
        for dataset in made.datasets:
            shared = dataset.SharedFunctionalGroupsSequence[0]
            (item,) = shared.RealWorldValueMappingSequence
            assert item.MeasurementUnitsCodeSequence[0].CodeMeaning == "no units"
            values = [
                one.ConceptCodeSequence[0].CodeMeaning for one in item.QuantityDefinitionSequence
            ]
            said.append((dataset.ContentLabel, item.LUTExplanation, *values))
        probability = "Fractional Probabilistic Segmentation"
        assert said == [
            ("PROBABILITY", "Nodule", probability, "Lung", "Brain"),
            ("PROBABILITY", "Cyst", probability, "Lung"),
            ("HEAT_MAP", "Ill", "Gradient-weighted class activation", "Lung"),
        ]

    def test_it_is_derived_research_and_not_lossy(self, made: Made) -> None:
        for dataset in made.datasets:
            assert list(dataset.ImageType) == ["DERIVED", "PRIMARY", "VOLUME", "QUANTITY"]
            assert dataset.ContentQualification == "RESEARCH"
            assert dataset.LossyImageCompression == "00"
            assert dataset.SeriesNumber == 9005

    def test_what_was_once_lossy_stays_so(self, tmp_path: Path) -> None:
        lossy = {"LossyImageCompression": "01", "LossyImageCompressionRatio": "12.5"}
        made = objects.maps(tmp_path, attributes=lossy)
        assert made.datasets[0].LossyImageCompression == "01"
        assert made.datasets[0].LossyImageCompressionRatio == 12.5

    def test_the_same_run_gives_the_same_bytes(self, made: Made) -> None:
        assert [path.read_bytes() for path in made.files] == made.again()

    def test_a_destination_that_wants_fractions_gets_segmentations_instead(
        self, made: Made
    ) -> None:
        profile = BARE.with_choices({"segmentation": "fractional"})
        assert making.kinds(made.prediction, made.model, [profile]) == ["seg", "map"]

    def test_a_destination_that_wants_none_gets_none(self, made: Made) -> None:
        assert making.kinds(made.prediction, made.model, [BARE.with_choices({"maps": False})]) == []

    @pytest.mark.parametrize("shape", [(13, 24, 22), (14, 22, 24), (1, 14, 24, 22)])
    def test_a_heat_map_on_another_grid_is_refused(
        self, made: Made, shape: tuple[int, ...]
    ) -> None:
        wrong = HeatMap(output="where", array=objects.numbers(*shape), of="kind", explains=0)
        answers = (*made.prediction.answers[:2], wrong)
        prediction = Prediction(subject=made.prediction.subject, answers=answers)
        with pytest.raises(ModelFailed, match="wrong-grid"):
            making.kinds(prediction, made.model, [BARE])

    def test_a_map_too_few_is_refused(self, made: Made) -> None:
        few = ProbabilityMap(output="likely", array=objects.numbers(1, 14, 24, 22))
        answers = (few, *made.prediction.answers[1:])
        prediction = Prediction(subject=made.prediction.subject, answers=answers)
        with pytest.raises(ModelFailed, match="wrong-grid"):
            making.kinds(prediction, made.model, [BARE])


class TestImages:
    def test_a_radiograph_lies_nowhere_and_has_no_map(self, tmp_path: Path) -> None:
        shown = np.arange(48, dtype=np.uint8).reshape(6, 8)
        files = [pictures.write(tmp_path, shown, number) for number in (1, 2)]
        prediction, model = self._run(files, objects.RADIOGRAPHS, (6, 8))
        assert making.kinds(prediction, model, [BARE]) == []
        with_report = Profile(capture=False, regions=False)
        assert making.kinds(prediction, model, [with_report]) == ["sr"]

    def test_each_image_has_a_map_of_the_class_that_was_chosen_there(self, tmp_path: Path) -> None:
        scan = phantom.write_series(tmp_path / "images", shape=(2, 24, 22), orientation="oblique")
        given = bundle.Input(form="image", modality="MR", sop_classes=("MRImageStorage",))
        prediction, model = self._run(scan.files, given, (24, 22))
        made = make(tmp_path / "results", prediction, model)
        (dataset,) = made.datasets
        assert "RealWorldValueMappingSequence" not in dataset.SharedFunctionalGroupsSequence[0]
        frames = dataset.PerFrameFunctionalGroupsSequence
        names = [frame.RealWorldValueMappingSequence[0].LUTExplanation for frame in frames]
        assert names == ["Normal", "Ill"]
        assert dataset.ImageType[2] == "STATIC"
        assert [path.read_bytes() for path in made.files] == made.again()

    def test_a_class_of_another_image_is_found_out(self, tmp_path: Path) -> None:
        scan = phantom.write_series(tmp_path / "images", shape=(2, 24, 22))
        given = bundle.Input(form="image", modality="MR", sop_classes=("MRImageStorage",))
        made = make(tmp_path / "results", *self._run(scan.files, given, (24, 22)))

        def swap(dataset: Dataset) -> None:
            one, other = dataset.PerFrameFunctionalGroupsSequence
            keyword = "RealWorldValueMappingSequence"
            one[keyword].value, other[keyword].value = other[keyword].value, one[keyword].value

        assert made.spoilt(tmp_path, swap).reason() == "meaning-differs"

    @staticmethod
    def _run(
        files: Any, given: bundle.Input, shape: tuple[int, int]
    ) -> tuple[Prediction, bundle.Bundle]:
        subject = volume.load_input(list(files), contract=given)
        answers = [
            answer
            for frame in (0, 1)
            for answer in (
                Classification(
                    output="kind", frame=frame, probabilities=(0.5, 0.5), chosen=(frame,)
                ),
                HeatMap(
                    output="where",
                    frame=frame,
                    array=objects.numbers(*shape, seed=frame),
                    of="kind",
                    explains=frame,
                ),
            )
        ]
        ordered = sorted(answers, key=lambda answer: answer.output)
        model = phantom.a_bundle(
            outputs={
                "kind": objects.CLASSES,
                "where": bundle.HeatMapOutput(kind="heat_map", of="kind"),
            },
            inputs={"image": given},
        )
        return Prediction(subject=subject, answers=tuple(ordered)), model


class TestSlide:
    def test_a_pixel_is_a_patch_and_what_was_not_seen_is_padding(self, tmp_path: Path) -> None:
        dataset = objects.map_of_slide(tmp_path).datasets[0]
        assert (dataset.TotalPixelMatrixRows, dataset.TotalPixelMatrixColumns) == (6, 9)
        shared = dataset.SharedFunctionalGroupsSequence[0]
        assert list(shared.PixelMeasuresSequence[0].PixelSpacing) == [0.016, 0.016]
        pixels = dataset.pixel_array
        assert (pixels[0] == dataset.FloatPixelPaddingValue).all()
        np.testing.assert_array_equal(pixels[1:], objects.numbers(2, 6, 9)[0, 1:])

    @pytest.mark.parametrize(("by_centres", "inwards"), [(False, 0.0), (True, 0.0075)])
    def test_its_corner_is_that_of_its_first_patch(
        self, tmp_path: Path, by_centres: bool, inwards: float
    ) -> None:
        """Rows go against x and columns against y: a way inwards is one to lower coordinates."""
        dataset = objects.map_of_slide(tmp_path, by_centres=by_centres).datasets[0]
        origin = dataset.TotalPixelMatrixOriginSequence[0]
        assert origin.XOffsetInSlideCoordinateSystem == pytest.approx(20.5 - inwards)
        assert origin.YOffsetInSlideCoordinateSystem == pytest.approx(40.25 - inwards)
        assert dataset.FrameOfReferenceUID == "1.2.3.9"

    def test_another_reader_takes_it_for_a_tiled_image(self, tmp_path: Path) -> None:
        read = highdicom.pm.sop.pmread(objects.map_of_slide(tmp_path).files[1])
        assert read.is_tiled
        matrix = read.get_total_pixel_matrix(apply_real_world_transform=False)
        np.testing.assert_array_equal(matrix[1:], objects.numbers(2, 6, 9)[1, 1:])

    def test_a_slide_that_lies_nowhere_has_no_map(self, tmp_path: Path) -> None:
        assert objects.map_of_slide(tmp_path, placed=False).files == ()

    def test_its_patches_make_no_segmentation(self, tmp_path: Path) -> None:
        profile = BARE.with_choices({"segmentation": "fractional"})
        made = objects.map_of_slide(tmp_path, profile=profile)
        parts = plan.of(made.prediction, made.model, [profile])
        assert [part.kind for part in parts] == ["map", "map"]

    def test_the_same_run_gives_the_same_bytes(self, tmp_path: Path) -> None:
        made = objects.map_of_slide(tmp_path)
        assert [path.read_bytes() for path in made.files] == made.again()


def _one_number(dataset: Dataset) -> None:
    pixels = np.frombuffer(dataset.FloatPixelData, dtype="<f4").copy()
    pixels[len(pixels) // 3] += np.float32(1e-6)
    dataset.FloatPixelData = pixels.tobytes()


def _mirrored(axis: int) -> Fault:
    def fault(dataset: Dataset) -> None:
        shape = (dataset.NumberOfFrames, dataset.Rows, dataset.Columns)
        pixels = np.frombuffer(dataset.FloatPixelData, dtype="<f4").reshape(shape)
        dataset.FloatPixelData = np.flip(pixels, axis).tobytes()

    return fault


def _reversed_positions(dataset: Dataset) -> None:
    frames = dataset.PerFrameFunctionalGroupsSequence
    positions = [list(one.PlanePositionSequence[0].ImagePositionPatient) for one in frames]
    for frame, position in zip(frames, reversed(positions), strict=True):
        frame.PlanePositionSequence[0].ImagePositionPatient = position


_SHARED = ("SharedFunctionalGroupsSequence", 0)
_MAPPING = (*_SHARED, "RealWorldValueMappingSequence", 0)
_VALUE = (*_MAPPING, "QuantityDefinitionSequence")

FAULTS: dict[str, tuple[Fault, str]] = {
    "another patient": (sets(PatientID="PHANTOM-2"), "identity-differs"),
    "another instance UID": (sets(SOPInstanceUID="1.2.3"), "uid-differs"),
    "another version": (
        within("ContributingEquipmentSequence", -1, then=sets(SoftwareVersions="1.2.4")),
        "algorithm-differs",
    ),
    "one number": (_one_number, "map-differs"),
    "mirrored along the slices": (_mirrored(0), "map-differs"),
    "mirrored along the rows": (_mirrored(1), "map-differs"),
    "mirrored along the columns": (_mirrored(2), "map-differs"),
    "cut short": (
        lambda dataset: setattr(dataset, "FloatPixelData", dataset.FloatPixelData[:400]),
        "malformed-result",
    ),
    "padding": (sets(FloatPixelPaddingValue=-1.0), "map-differs"),
    "positions turned round": (_reversed_positions, "reference-differs"),
    "another frame of reference": (
        sets(FrameOfReferenceUID="1.2.3"),
        "frame-of-reference-differs",
    ),
    "a frame too few": (
        lambda dataset: dataset.PerFrameFunctionalGroupsSequence.pop(),
        "frames-differ",
    ),
    "turned round": (
        within(
            *_SHARED,
            "PlaneOrientationSequence",
            0,
            then=sets(ImageOrientationPatient=[-1, 0, 0, 0, 1, 0]),
        ),
        "frame-elsewhere",
    ),
    "no derivation": (
        within("PerFrameFunctionalGroupsSequence", 3, then=drops("DerivationImageSequence")),
        "reference-differs",
    ),
    "rescaled": (
        within(*_SHARED, "PixelValueTransformationSequence", 0, then=sets(RescaleSlope=2)),
        "encoding-differs",
    ),
    "a slope": (within(*_MAPPING, then=sets(RealWorldValueSlope=100.0)), "meaning-differs"),
    "another range": (
        within(*_MAPPING, then=sets(DoubleFloatRealWorldValueLastValueMapped=2.0)),
        "meaning-differs",
    ),
    "percent": (
        within(*_MAPPING, "MeasurementUnitsCodeSequence", 0, then=sets(CodeValue="%")),
        "meaning-differs",
    ),
    "another name": (within(*_MAPPING, then=sets(LUTExplanation="Cyst")), "meaning-differs"),
    "another quantity": (
        within(*_VALUE, 0, "ConceptCodeSequence", 0, then=sets(CodeValue="130404")),
        "meaning-differs",
    ),
    "another finding": (
        within(*_VALUE, 1, "ConceptCodeSequence", 0, then=sets(CodeValue="17621005")),
        "meaning-differs",
    ),
    "another site": (
        within(*_VALUE, 2, "ConceptCodeSequence", 0, then=sets(CodeValue="17621005")),
        "meaning-differs",
    ),
    "two meanings": (
        within(
            *_SHARED,
            then=lambda shared: shared.RealWorldValueMappingSequence.append(Dataset()),
        ),
        "meaning-differs",
    ),
    "no meaning": (
        within(*_SHARED, then=drops("RealWorldValueMappingSequence")),
        "meaning-differs",
    ),
    "original": (
        sets(ImageType=["ORIGINAL", "PRIMARY", "VOLUME", "QUANTITY"]),
        "encoding-differs",
    ),
    "a product": (sets(ContentQualification="PRODUCT"), "encoding-differs"),
}

SLIDE_FAULTS: dict[str, tuple[Fault, str]] = {
    "one number": (_one_number, "map-differs"),
    "no padding": (drops("FloatPixelPaddingValue"), "map-differs"),
    "a padding that may be a number": (
        sets(FloatPixelPaddingValue=0.5, FloatPixelPaddingRangeLimit=0.5),
        "map-differs",
    ),
    "another frame of reference": (sets(FrameOfReferenceUID="1.2"), "frame-of-reference-differs"),
    "turned": (sets(ImageOrientationSlide=[0, 1, 0, 1, 0, 0]), "frame-of-reference-differs"),
    "larger pixels": (
        within(*_SHARED, "PixelMeasuresSequence", 0, then=sets(PixelSpacing=[0.017, 0.016])),
        "frame-elsewhere",
    ),
    "shifted": (
        within(
            "TotalPixelMatrixOriginSequence", 0, then=sets(XOffsetInSlideCoordinateSystem="20.508")
        ),
        "frame-elsewhere",
    ),
    "a shifted frame": (
        within(
            "PerFrameFunctionalGroupsSequence", 0, "PlanePositionSlideSequence", 0,
            then=sets(RowPositionInTotalImagePixelMatrix=2),
        ),
        "frame-elsewhere",
    ),
    "another matrix": (sets(TotalPixelMatrixRows=9), "grid-differs"),
    "a level too few": (
        within(
            "ReferencedSeriesSequence", 0, "ReferencedInstanceSequence",
            then=lambda items: items.pop(),
        ),
        "reference-differs",
    ),
}  # fmt: skip


class TestCheck:
    @pytest.mark.parametrize("case", FAULTS)
    def test_no_fault_in_a_map_passes(self, made: Made, tmp_path: Path, case: str) -> None:
        fault, reason = FAULTS[case]
        assert made.spoilt(tmp_path, fault).reason() == reason

    @pytest.mark.parametrize("case", SLIDE_FAULTS)
    def test_no_fault_in_a_map_of_a_slide_passes(self, tmp_path: Path, case: str) -> None:
        fault, reason = SLIDE_FAULTS[case]
        assert objects.map_of_slide(tmp_path).spoilt(tmp_path, fault).reason() == reason

    def test_two_maps_do_not_pass_for_each_other(self, made: Made) -> None:
        swapped = Made(
            prediction=made.prediction,
            model=made.model,
            files=(made.files[1], made.files[0], made.files[2]),
            profile=made.profile,
        )
        assert swapped.reason() == "uid-differs"
