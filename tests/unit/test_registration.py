"""Where another input lies: from the bundle's matrix to the Spatial Registration that is sent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import bundles
import made as making
import numpy as np
import objects
import phantom
import pytest
from made import BARE, Fault, Made, make, sets, within
from pydicom import Dataset

from dicomnode import bundle, volume
from dicomnode.bundle import manifest
from dicomnode.errors import Misconfigured, ModelFailed, UnsuitableSeries
from dicomnode.prediction import DerivedImage, Prediction, Registration
from dicomnode.profile import Profile

pytestmark = bundles.QUIET


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """For tests that only look."""
    return objects.registration(tmp_path_factory.mktemp("made"))


def transformation(item: Dataset) -> Dataset:
    (registration,) = item.MatrixRegistrationSequence
    (found,) = registration.MatrixSequence
    return found


class TestObject:
    @pytest.mark.parametrize("enhanced", [False, True])
    @pytest.mark.parametrize("orientation", phantom.ORIENTATIONS)
    def test_a_point_of_the_moving_input_comes_to_where_the_model_says(
        self, tmp_path: Path, orientation: str, enhanced: bool
    ) -> None:
        made = objects.registration(
            tmp_path, orientation=orientation, enhanced=enhanced, reversed=True
        )
        fixed, moving = made.datasets[0].RegistrationSequence
        read = [
            np.array(transformation(item).FrameOfReferenceTransformationMatrix, dtype=float)
            for item in (fixed, moving)
        ]
        np.testing.assert_array_equal(read[0].reshape(4, 4), np.eye(4))
        there = made.prediction.also_shown[1].affine @ [3, 5, 7, 1]
        np.testing.assert_allclose(
            read[1].reshape(4, 4) @ there, objects.matrix() @ there, atol=1e-9
        )

    def test_each_item_is_of_a_space_and_names_its_images(self, made: Made) -> None:
        (dataset,) = made.datasets
        fixed, moving = dataset.RegistrationSequence
        shown = (made.prediction.subject, made.prediction.also_shown[1])
        for item, volume_ in zip((fixed, moving), shown, strict=True):
            assert item.FrameOfReferenceUID == volume_.frame_of_reference_uid
            named = [one.ReferencedSOPInstanceUID for one in item.ReferencedImageSequence]
            assert named == [source.sop_instance_uid for source in volume_.sources]
        assert dataset.FrameOfReferenceUID == shown[0].frame_of_reference_uid
        assert (dataset.Modality, dataset.SeriesNumber) == ("REG", 9007)
        series = [one.SeriesInstanceUID for one in dataset.ReferencedSeriesSequence]
        assert series == [one.header.SeriesInstanceUID for one in shown]

    def test_an_enhanced_image_is_named_once_with_all_its_frames(self, tmp_path: Path) -> None:
        moving = objects.registration(tmp_path, enhanced=True).datasets[0].RegistrationSequence[1]
        (named,) = moving.ReferencedImageSequence
        assert "ReferencedFrameNumber" not in named

    def test_two_inputs_of_one_space_are_told_apart_by_their_images(self, tmp_path: Path) -> None:
        made = objects.registration(tmp_path, attributes={})
        items = made.datasets[0].RegistrationSequence
        assert not any("FrameOfReferenceUID" in item for item in items)
        comments = [
            item.MatrixRegistrationSequence[0].FrameOfReferenceTransformationComment
            for item in items
        ]
        assert set(comments) == {"Both inputs have one Frame of Reference UID: see the images."}

    @pytest.mark.parametrize(
        ("given", "kind"),
        [
            (objects.matrix(), "RIGID"),
            (np.eye(4), "RIGID"),
            (objects.matrix(scale=(1.01, 1, 0.98)), "RIGID_SCALE"),
            (objects.matrix(scale=(1 + 1e-4, 1, 1)), "RIGID_SCALE"),
            (objects.matrix(shear=0.02), "AFFINE"),
        ],
    )
    def test_a_matrix_is_called_what_it_is(
        self, tmp_path: Path, given: objects.Matrix, kind: str
    ) -> None:
        moving = objects.registration(tmp_path, given=given).datasets[0].RegistrationSequence[1]
        assert transformation(moving).FrameOfReferenceTransformationMatrixType == kind

    def test_the_same_run_gives_the_same_bytes(self, made: Made) -> None:
        assert [path.read_bytes() for path in made.files] == made.again()

    def test_a_destination_may_want_none(self, made: Made) -> None:
        profile = BARE.with_choices({"registrations": False})
        assert making.kinds(made.prediction, made.model, [profile]) == []

    def test_the_report_names_it(self, tmp_path: Path) -> None:
        made = objects.registration(tmp_path, profile=Profile(capture=False, regions=False))
        registration, report = made.datasets
        (study,) = report.CurrentRequestedProcedureEvidenceSequence
        named = {
            one.ReferencedSOPInstanceUID
            for series in study.ReferencedSeriesSequence
            for one in series.ReferencedSOPSequence
        }
        assert registration.SOPInstanceUID in named


class TestRefused:
    @staticmethod
    def _build(made: Made, **changed: Any) -> None:
        given: dict[str, Any] = {
            "subject": made.prediction.subject,
            "also_shown": made.prediction.also_shown,
            "answers": made.prediction.answers,
        }
        making.kinds(Prediction(**given | changed), made.model, [BARE])

    def test_an_input_that_is_not_moved_may_not_lie_in_a_space_of_its_own(self, made: Made) -> None:
        mask, before = made.prediction.also_shown
        with pytest.raises(UnsuitableSeries, match="two-frames-of-reference"):
            self._build(made, also_shown=(before, mask))

    def test_what_is_moved_is_of_the_same_patient(self, tmp_path: Path) -> None:
        with pytest.raises(UnsuitableSeries, match="mixed-patients"):
            objects.registration(
                tmp_path, attributes=objects.ELSEWHERE | {"PatientID": "PHANTOM-2"}
            )

    @pytest.mark.parametrize(
        ("given", "reason"),
        [
            (np.eye(3), "not-a-transformation"),
            (np.full((4, 4), np.nan), "not-a-transformation"),
            (np.ones((4, 4)), "not-a-transformation"),
        ],
    )
    def test_what_is_no_transformation(
        self, made: Made, given: objects.Matrix, reason: str
    ) -> None:
        answer = Registration(output="move", moving=1, matrix=given)
        with pytest.raises(ModelFailed, match=reason):
            self._build(made, answers=(answer,))

    def test_an_input_that_was_not_shown(self, made: Made) -> None:
        answer = Registration(output="move", moving=2, matrix=np.eye(4))
        with pytest.raises(ModelFailed, match="wrong-outputs"):
            self._build(made, answers=(answer,))

    def test_an_answer_of_another_kind(self, made: Made) -> None:
        answer = DerivedImage(output="move", array=np.zeros((14, 24, 22), dtype=np.float32))
        with pytest.raises(TypeError):
            make(
                made.files[0].parent,
                Prediction(
                    subject=made.prediction.subject,
                    also_shown=made.prediction.also_shown,
                    answers=(answer,),
                ),
                made.model,
            )


_FIXED, _MOVING = ("RegistrationSequence", 0), ("RegistrationSequence", 1)
_MATRIX = (*_MOVING, "MatrixRegistrationSequence", 0, "MatrixSequence", 0)


def _number(index: int, by: float) -> Fault:
    def change(item: Dataset) -> None:
        values = [float(value) for value in item.FrameOfReferenceTransformationMatrix]
        values[index] += by
        item.FrameOfReferenceTransformationMatrix = values

    return within(*_MATRIX, then=change)


def _inverted(item: Dataset) -> None:
    values = np.array(item.FrameOfReferenceTransformationMatrix, dtype=float).reshape(4, 4)
    inverse = np.round(np.linalg.inv(values), 10).ravel().tolist()
    item.FrameOfReferenceTransformationMatrix = inverse


def _swapped(dataset: Dataset) -> None:
    fixed, moving = dataset.RegistrationSequence
    keyword = "MatrixRegistrationSequence"
    fixed[keyword].value, moving[keyword].value = moving[keyword].value, fixed[keyword].value


FAULTS: dict[str, tuple[Fault, str]] = {
    "another patient": (sets(PatientID="PHANTOM-2"), "identity-differs"),
    "another instance UID": (sets(SOPInstanceUID="1.2.3"), "uid-differs"),
    "another modality": (sets(Modality="MR"), "frame-of-reference-differs"),
    "another space": (sets(FrameOfReferenceUID="1.2.3.4"), "frame-of-reference-differs"),
    "another space of an item": (
        within(*_MOVING, then=sets(FrameOfReferenceUID="1.2.3.5")),
        "frame-of-reference-differs",
    ),
    "no space of an item": (
        within(*_FIXED, then=lambda item: delattr(item, "FrameOfReferenceUID")),
        "frame-of-reference-differs",
    ),
    "an item too few": (
        lambda dataset: dataset.RegistrationSequence.pop(),
        "registration-differs",
    ),
    "an image too few": (
        within(*_MOVING, "ReferencedImageSequence", then=lambda items: items.pop()),
        "reference-differs",
    ),
    "one frame alone": (
        within(*_MOVING, "ReferencedImageSequence", 0, then=sets(ReferencedFrameNumber=1)),
        "reference-differs",
    ),
    "another series": (
        within("ReferencedSeriesSequence", 1, then=sets(SeriesInstanceUID="1.2")),
        "reference-differs",
    ),
    "turned the other way": (within(*_MATRIX, then=_inverted), "matrix-differs"),
    "the wrong one moves": (_swapped, "matrix-differs"),
    "a micrometre": (_number(3, 0.001), "matrix-differs"),
    "a hair's turn": (_number(1, 1e-6), "matrix-differs"),
    "two matrices": (
        within(
            *_MOVING, "MatrixRegistrationSequence", 0, "MatrixSequence",
            then=lambda items: items.append(items[0]),
        ),
        "matrix-differs",
    ),
    "called affine": (
        within(*_MATRIX, then=sets(FrameOfReferenceTransformationMatrixType="AFFINE")),
        "matrix-differs",
    ),
    "called stretched": (
        within(*_MATRIX, then=sets(FrameOfReferenceTransformationMatrixType="RIGID_SCALE")),
        "matrix-differs",
    ),
    "numbers too few": (
        within(*_MATRIX, then=sets(FrameOfReferenceTransformationMatrix=[1, 0, 0, 0])),
        "matrix-differs",
    ),
}  # fmt: skip


class TestCheck:
    @pytest.mark.parametrize("case", FAULTS)
    def test_no_fault_in_a_registration_passes(self, made: Made, tmp_path: Path, case: str) -> None:
        fault, reason = FAULTS[case]
        assert made.spoilt(tmp_path, fault).reason() == reason

    def test_an_affine_matrix_that_is_called_rigid_does_not_pass(self, tmp_path: Path) -> None:
        made = objects.registration(tmp_path, given=objects.matrix(shear=1e-4))
        rigid = within(*_MATRIX, then=sets(FrameOfReferenceTransformationMatrixType="RIGID"))
        assert made.spoilt(tmp_path, rigid).reason() == "matrix-differs"


HEAD = """
name         = "Registers"
manufacturer = "Nobody"
intended_use = "Tests"
notice       = "RESEARCH USE ONLY"
family       = { value = "123110", scheme = "DCM", meaning = "Artificial Intelligence" }
procedure    = { value = "25056-3", scheme = "LN", meaning = "MRI unspecified body region" }
[inputs.now]
modality    = "MR"
sop_classes = ["MRImageStorage"]
[inputs.mask]
modality    = "MR"
sop_classes = ["MRImageStorage"]
[inputs.before]
modality    = "MR"
sop_classes = ["MRImageStorage"]
"""
MOVE = """
[outputs.move]
kind = "registration"
moving = "before"
coordinates = "ras"
direction = "fixed_to_moving"
"""


class TestManifest:
    @staticmethod
    def _read(folder: Path, text: str) -> bundle.Manifest:
        path = folder / "dicom.toml"
        path.write_text(text)
        return manifest.read(path)

    def test_it_names_the_input_that_moves(self, tmp_path: Path) -> None:
        output = self._read(tmp_path, HEAD + MOVE).outputs["move"]
        assert isinstance(output, bundle.RegistrationOutput)
        assert (output.moving, output.direction) == ("before", "fixed_to_moving")

    @pytest.mark.parametrize(
        ("old", "new", "told"),
        [
            ('moving = "before"', 'moving = "now"', "'now' is no input beside the first"),
            ('moving = "before"', 'moving = "later"', "'later' is no input beside the first"),
            ('moving = "before"\n', "", "moving: Field required"),
            ("[inputs.before]", '[inputs.before]\nform = "image"', "only a volume"),
            ("[inputs.now]", '[inputs.now]\nform = "cine"', "only a volume"),
            ('"ras"', '"index"', "coordinates"),
            ('"fixed_to_moving"', '"backwards"', "direction"),
        ],
    )
    def test_what_does_not_fit_is_named(
        self, tmp_path: Path, old: str, new: str, told: str
    ) -> None:
        with pytest.raises(Misconfigured) as caught:
            self._read(tmp_path, (HEAD + MOVE).replace(old, new))
        assert told in caught.value.detail

    def test_a_chain_answers_none(self, tmp_path: Path) -> None:
        """Its step's inputs are not the chain's."""
        step = self._read(tmp_path, HEAD + MOVE)
        chain = HEAD.replace("name  ", 'takes = { move = "one.move" }\nname  ', 1)
        text = chain + '[steps.one]\nbundle = "../one"\n'
        with pytest.raises(Misconfigured, match="a chain answers no registration"):
            self._read(tmp_path, text).with_outputs({"one": step}, path=tmp_path)


class TestAnswer:
    @staticmethod
    def _of(value: Any, **output: Any) -> Registration:
        import torch

        from workers.inference.answers import About, of

        spec = objects.REGISTRATION.model_copy(update=output)
        about = About(subject=phantom_volume(), others=("mask", "before"))
        (answer,) = of({"move": torch.as_tensor(value)}, "move", spec, about)
        assert isinstance(answer, Registration)
        return answer

    @pytest.mark.parametrize("shape", [(4, 4), (1, 4, 4)])
    def test_it_is_the_matrix_and_the_place_of_the_input(self, shape: tuple[int, ...]) -> None:
        answer = self._of(objects.matrix().reshape(shape))
        assert answer.moving == 1
        np.testing.assert_array_equal(answer.matrix, objects.matrix())

    def test_the_other_way_round_is_turned_back(self) -> None:
        answer = self._of(np.linalg.inv(objects.matrix()), direction="fixed_to_moving")
        np.testing.assert_allclose(answer.matrix, objects.matrix(), atol=1e-12)
        assert answer.matrix[3].tolist() == [0, 0, 0, 1]

    def test_the_axes_of_nifti_are_turned(self) -> None:
        """A shift to the right and backwards, and up."""
        shifted = np.eye(4)
        shifted[:3, 3] = (1, 2, 3)
        np.testing.assert_array_equal(
            self._of(shifted, coordinates="ras").matrix[:3, 3], [-1, -2, 3]
        )
        point = np.array([4.0, -5, 6, 1])
        flip = np.diag([-1.0, -1, 1, 1])
        answer = self._of(objects.matrix(shear=0.1), coordinates="ras")
        np.testing.assert_allclose(
            answer.matrix @ point, flip @ objects.matrix(shear=0.1) @ flip @ point
        )

    def test_32_bits_do(self) -> None:
        answer = self._of(objects.matrix().astype(np.float32))
        np.testing.assert_allclose(answer.matrix, objects.matrix(), atol=1e-5)

    @pytest.mark.parametrize(
        ("value", "reason"),
        [
            (np.eye(3), "wrong-shape"),
            (np.stack([np.eye(4)] * 2), "wrong-shape"),
            (np.full((4, 4), np.inf), "not-finite"),
            (np.eye(4) * 1.1, "not-a-transformation"),
            (objects.matrix().T, "not-a-transformation"),
            (np.diag([1.0, 1, 0, 1]), "singular"),
            (np.diag([0.001, 0.001, 0.001, 1]), "singular"),
            (np.diag([-1.0, 1, 1, 1]), "mirrored"),
        ],
    )
    def test_what_is_no_registration_has_a_name(self, value: objects.Matrix, reason: str) -> None:
        with pytest.raises(ModelFailed) as caught:
            self._of(value)
        assert caught.value.reason == reason


def phantom_volume() -> volume.Volume:
    return volume.Volume(
        array=np.zeros((3, 4, 5), dtype=np.float32),
        affine=np.eye(4),
        sources=(),
        modality="MR",
        frame_of_reference_uid="1.2",
        orientation=(1, 0, 0, 0, 1, 0),
        pixel_spacing=(1.0, 1.0),
        slice_thickness=1.0,
        header=Dataset(),
    )


def test_a_bundle_says_where_its_third_input_lies(tmp_path: Path) -> None:
    import torch

    from workers import inference

    root = tmp_path / "registers"
    for folder in ("configs", "models", "scripts"):
        (root / folder).mkdir(parents=True)
    (root / "dicom.toml").write_text(
        HEAD + MOVE.replace("[outputs.move]", '[outputs.move]\nkey="pred"')
    )
    (root / "configs" / "metadata.json").write_text(json.dumps({"version": "0.1"}))
    keys = ["now", "mask", "before"]
    steps = [
        {"_target_": "LoadImaged", "keys": keys},
        {"_target_": "EnsureChannelFirstd", "keys": keys},
        {"_target_": "CopyItemsd", "keys": "now", "names": "image"},
    ]
    configured = {
        "network_def": {"_target_": "scripts.net.Net"},
        "preprocessing": {"_target_": "Compose", "transforms": steps},
        "postprocessing": {"_target_": "Compose", "transforms": []},
    }
    (root / "configs" / "inference.json").write_text(json.dumps(configured))
    (root / "scripts" / "net.py").write_text(
        "import torch\nclass Net(torch.nn.Module):\n    def forward(self, image):\n"
        "        moved = torch.eye(4)\n        moved[:3, 3] = torch.tensor([1.0, 2.0, 3.0])\n"
        "        return moved[None]\n"
    )
    torch.save({}, root / "models" / "model.pt")
    bundle.write_lock(root)
    model = bundle.load(root)
    shown = {
        name: volume.load(phantom.write_series(tmp_path / name, key=name, attributes=at).files)
        for name, at in (("now", {}), ("mask", {}), ("before", objects.ELSEWHERE))
    }
    prediction = inference.load_model(model, device="cpu").predict(shown)
    (answer,) = prediction.answers
    assert isinstance(answer, Registration)
    assert prediction.also_shown[answer.moving] is shown["before"]
    np.testing.assert_array_equal(answer.matrix[:3, 3], [1, 2, -3])
    make(tmp_path / "results", prediction, model)
