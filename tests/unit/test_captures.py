"""The picture of an answer as a Secondary Capture: what it shows, and that no fault passes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import examples
import numpy as np
import phantom
import pictures
import pytest
from made import Fault, Made, make, sets
from pydicom import Dataset

from dicomnode import bundle, results, volume
from dicomnode.bundle import Bundle
from dicomnode.prediction import Box, Boxes, LabelMap, Prediction, ProbabilityMap
from dicomnode.profile import Profile
from dicomnode.results import plan

CAPTURE = Profile(
    segmentation="none", maps=False, images=False, registrations=False, regions=False, report=False
)
CODE = {"value": "39607008", "scheme": "SCT", "meaning": "Lung"}
NODULE = {"label": 1, "name": "Nodule", "category": CODE, "type": CODE, "color": "#ff8800"}


def captured(prediction: Prediction, folder: Path, model: Bundle | None = None) -> Made:
    return make(folder, prediction, model or phantom.a_bundle(), profile=CAPTURE)


def capture_of(prediction: Prediction, folder: Path, model: Bundle | None = None) -> Dataset:
    (capture,) = captured(prediction, folder, model).datasets
    return capture


def of_phantom(folder: Path, **scan: Any) -> Prediction:
    return examples.bodies(folder, **scan).prediction


def an_input(**about: Any) -> bundle.Input:
    given = {"form": "image", "modality": "CR", "sop_classes": ["ComputedRadiographyImageStorage"]}
    return bundle.Input.model_validate(given | about)


def of_images(folder: Path, *stated: str) -> tuple[Prediction, Bundle]:
    """An image for each Burned In Annotation that is stated, "" for none; one with a nodule."""
    pixels = np.arange(64 * 48, dtype=np.uint16).reshape(64, 48)
    files = [
        pictures.write(folder, pixels, n, **({"BurnedInAnnotation": one} if one else {}))
        for n, one in enumerate(stated, start=1)
    ]
    output = bundle.BoxesOutput.model_validate(
        {"kind": "boxes", "scores": "s", "coordinates": "index", "findings": [NODULE]}
    )
    model = phantom.a_bundle(inputs={"image": an_input()}, outputs={"nodules": output})
    box = Box(label=1, score=0.9, low=(5.0, 6.0), high=(20.0, 25.0))
    answers = [Boxes(output="nodules", frame=0, boxes=(box,))]
    answers += [Boxes(output="nodules", frame=n, boxes=()) for n in range(1, len(stated))]
    shown = volume.load_input(files, contract=an_input())
    return Prediction(subject=shown, answers=tuple(answers)), model


@pytest.mark.parametrize("enhanced", [False, True])
def test_its_pixels_are_the_picture(tmp_path: Path, enhanced: bool) -> None:
    prediction = of_phantom(tmp_path / "images", enhanced=enhanced)
    capture = capture_of(prediction, tmp_path / "results")
    picture = results.picture(prediction, bundle=phantom.a_bundle())
    assert picture is not None
    np.testing.assert_array_equal(capture.pixel_array, np.asarray(picture))
    assert capture.SOPClassUID.name == "Secondary Capture Image Storage"
    assert capture.file_meta.TransferSyntaxUID.name == "Explicit VR Little Endian"
    assert capture.PhotometricInterpretation == "RGB"


def test_it_says_what_it_is_and_whose(tmp_path: Path) -> None:
    prediction = of_phantom(tmp_path / "images")
    capture = capture_of(prediction, tmp_path / "results")
    assert capture.SeriesDescription == "AI Phantom bodies v1.2.3 summary (RESEARCH)"
    assert capture.SeriesNumber == 9003
    assert capture.PatientName == prediction.volume.header.PatientName
    assert capture.BodyPartExamined == "BRAIN"
    assert capture.Modality == "OT"
    assert capture.ConversionType == "WSD"
    assert list(capture.ImageType) == ["DERIVED", "SECONDARY"]
    assert capture.PatientOrientation in ("", None)
    assert "Phantom bodies 1.2.3+abababababababab" in capture.DerivationDescription
    assert "Research use only." in capture.DerivationDescription
    assert (capture.DateOfSecondaryCapture, capture.TimeOfSecondaryCapture) == (
        "20260304",
        "230607",
    )


def test_nobody_can_take_it_for_an_image_that_has_a_scale_or_a_place(tmp_path: Path) -> None:
    prediction = of_phantom(tmp_path / "images")
    capture = capture_of(prediction, tmp_path / "results")
    for keyword in ("PixelSpacing", "FrameOfReferenceUID", "ImagePositionPatient", "WindowCenter"):
        assert keyword not in capture


def test_the_notice_stands_in_the_pixels(tmp_path: Path) -> None:
    prediction = of_phantom(tmp_path / "images")
    plain, other = (
        results.picture(prediction, bundle=phantom.a_bundle(notice=notice))
        for notice in ("Research use only.", "Research use ONLY.")
    )
    assert plain is not None
    assert other is not None
    differ = np.argwhere((np.asarray(plain) != np.asarray(other)).any(axis=-1))
    assert len(differ) > 50
    assert differ[:, 0].min() > plain.height - 60  # the last line


@pytest.mark.parametrize("enhanced", [False, True])
def test_it_names_every_instance_that_was_shown_once(tmp_path: Path, enhanced: bool) -> None:
    subject = of_phantom(tmp_path / "images", enhanced=enhanced)
    other = volume.load(phantom.write_series(tmp_path / "flair", key="flair").files)
    prediction = Prediction(subject=subject.subject, answers=subject.answers, also_shown=(other,))
    capture = capture_of(prediction, tmp_path / "results")
    named = [item.ReferencedSOPInstanceUID for item in capture.SourceImageSequence]
    shown = dict.fromkeys(s.sop_instance_uid for one in prediction.shown for s in one.sources)
    assert named == list(shown)
    assert len(named) == (1 if enhanced else 14) + 14


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    made = captured(of_phantom(tmp_path / "images", orientation="oblique"), tmp_path / "results")
    assert [path.read_bytes() for path in made.files] == made.again()


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        (("NO",), "NO"),
        (("NO", "NO"), "NO"),
        (("NO", "YES"), "YES"),
        (("NO", ""), None),
        (("",), None),
    ],
)
def test_whether_a_name_is_burned_in_is_what_the_images_say(
    tmp_path: Path, stated: tuple[str, ...], expected: str | None
) -> None:
    prediction, model = of_images(tmp_path / "images", *stated)
    capture = capture_of(prediction, tmp_path / "results", model)
    assert capture.get("BurnedInAnnotation") == expected


def test_the_drawing_of_a_volume_names_nobody(tmp_path: Path) -> None:
    prediction = of_phantom(tmp_path / "images")
    capture = capture_of(prediction, tmp_path / "results")
    assert capture.BurnedInAnnotation == "NO"


def test_what_was_lost_once_stays_lost(tmp_path: Path) -> None:
    lossy = {"LossyImageCompression": "01", "LossyImageCompressionRatio": 9}
    prediction = of_phantom(tmp_path / "images", attributes=lossy)
    capture = capture_of(prediction, tmp_path / "results")
    assert capture.LossyImageCompression == "01"
    assert capture.LossyImageCompressionRatio == 9


def test_there_is_one_of_everything_but_a_slide(tmp_path: Path) -> None:
    images, model = of_images(tmp_path / "images", "NO")
    kinds = [part.kind for part in plan.of(images, model, [CAPTURE, Profile()])]
    assert kinds.count("capture") == 1
    pixels = np.zeros((64, 64, 3), dtype=np.uint8)
    slide = volume.load_input(
        [pictures.write_slide(tmp_path / "slide", pixels, tile=32, number=1)],
        contract=an_input(
            form="slide", modality="SM", sop_classes=["VLWholeSlideMicroscopyImageStorage"],
            channels=3,
        ),
    )  # fmt: skip
    output = bundle.ProbabilityMapOutput.model_validate(
        {"kind": "probability_map", "findings": [NODULE]}
    )
    model = phantom.a_bundle(outputs={"map": output})
    answer = ProbabilityMap(output="map", array=np.zeros((1, 2, 2), np.float32), step=(32, 32))
    prediction = Prediction(subject=slide, answers=(answer,))
    assert "capture" not in [part.kind for part in plan.of(prediction, model, [Profile()])]
    assert results.picture(prediction, bundle=model) is None


def _one_pixel(dataset: Dataset) -> None:
    data = bytearray(dataset.PixelData)
    data[len(data) // 2] ^= 8
    dataset.PixelData = bytes(data)


def _without_a_line(dataset: Dataset) -> None:
    dataset.Rows -= 1
    dataset.PixelData = dataset.PixelData[: dataset.Rows * dataset.Columns * 3]


def _without_a_source(dataset: Dataset) -> None:
    del dataset.SourceImageSequence[3]


def _another_source(dataset: Dataset) -> None:
    dataset.SourceImageSequence[3].ReferencedSOPInstanceUID = "1.2.3"


FAULTS: dict[str, tuple[Fault, str]] = {
    "another patient": (sets(PatientID="PHANTOM-2"), "identity-differs"),
    "another study": (sets(StudyInstanceUID="1.2.3"), "identity-differs"),
    "another instance UID": (sets(SOPInstanceUID="1.2.3"), "uid-differs"),
    "another description": (sets(SeriesDescription="Bodies"), "description-differs"),
    "one pixel": (_one_pixel, "picture-differs"),
    "without the last line of the notice": (_without_a_line, "picture-differs"),
    "rows and columns swapped": (sets(Rows=1024, Columns=877), "picture-differs"),
    "colour by plane": (sets(PlanarConfiguration=1), "encoding-differs"),
    "another colour model": (sets(PhotometricInterpretation="YBR_FULL"), "encoding-differs"),
    "an original": (sets(ImageType=["ORIGINAL", "PRIMARY"]), "encoding-differs"),
    "another modality": (sets(Modality="MR"), "encoding-differs"),
    "a scale": (sets(PixelSpacing=[1.0, 1.0]), "encoding-differs"),
    "a source too few": (_without_a_source, "reference-differs"),
    "another source": (_another_source, "reference-differs"),
    "no sources": (sets(SourceImageSequence=[]), "reference-differs"),
    "another maker": (sets(DerivationDescription="Bodies"), "description-differs"),
    "a name burned in": (sets(BurnedInAnnotation="YES"), "annotation-differs"),
    "pixels cut short": (
        lambda dataset: setattr(dataset, "PixelData", dataset.PixelData[:100]),
        "picture-differs",
    ),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("made")
    return captured(of_phantom(folder / "images"), folder / "results")


@pytest.mark.parametrize("case", FAULTS)
def test_no_fault_passes_the_check(made: Made, tmp_path: Path, case: str) -> None:
    fault, reason = FAULTS[case]
    assert made.spoilt(tmp_path, fault).reason() == reason


def test_the_picture_of_another_answer_does_not_pass(made: Made) -> None:
    (answer,) = made.prediction.answers
    assert isinstance(answer, LabelMap)
    moved = LabelMap(output="bodies", array=np.roll(answer.array, 1, axis=1))
    other = Prediction(subject=made.prediction.subject, answers=(moved,))
    assert replace(made, prediction=other).reason() == "picture-differs"
