"""The chest X-ray bundle does what its card says, and takes real radiographs."""

from __future__ import annotations

from pathlib import Path

import bundles
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset

from dicomnode import bundle, volume
from dicomnode.bundle import Bundle, ClassificationOutput
from dicomnode.errors import NotApplicable
from dicomnode.prediction import Classification, HeatMap, Prediction
from dicomnode.volume import Images, Picture, SliceSource

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "models" / "chest_xray_pneumonia"
DATA = ROOT.parent / "shared" / "data"

pytestmark = bundles.QUIET
real = pytest.mark.skipif(not DATA.is_dir(), reason="the real images are not there")


@pytest.fixture(scope="module")
def chest() -> Bundle:
    return bundle.load(MODEL)


def predict(chest: Bundle, shown: Images) -> Prediction:
    from workers import inference

    return inference.load_model(chest, device="cpu").predict({"image": shown})


def images(pixels: NDArray[np.uint8]) -> Images:
    """Images (n, rows, columns) of 8 bits, as the data set holds them."""
    source = SliceSource(
        sop_instance_uid="1.2",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.1",
        path="",
        frame_number=1,
        is_multiframe=False,
        position=None,
    )
    frames = tuple(
        Picture(
            array=one.astype(np.float32),
            source=source,
            pixel_spacing=None,
            affine=None,
            header=Dataset(),
        )
        for one in pixels
    )
    return Images(frames=frames, form="image", modality="CR")


def probabilities(prediction: Prediction) -> NDArray[np.float64]:
    classified = [one for one in prediction.answers if isinstance(one, Classification)]
    return np.array([one.probabilities[1] for one in classified])


def area(labels: NDArray[np.int64], scores: NDArray[np.float64]) -> float:
    """Under the ROC curve: how often a pneumonia scores higher than a normal image."""
    sick, well = scores[labels == 1], scores[labels == 0]
    higher = (sick[:, None] > well[None]).mean() + (sick[:, None] == well[None]).mean() / 2
    return float(higher)


def test_the_bundle_is_what_its_lock_says(chest: Bundle) -> None:
    assert bundle.verify(MODEL) == chest.digest
    assert (MODEL / "models" / "model.pt").stat().st_size < 10_000_000


@real
def test_it_reaches_what_its_card_says_on_the_validation_images(chest: Bundle) -> None:
    data = np.load(DATA / "chest_xray_28" / "pneumoniamnist_train_val.npz")
    labels = data["val_labels"].ravel().astype(np.int64)

    prediction = predict(chest, images(data["val_images"]))

    scores = probabilities(prediction)
    chosen = np.array([a.chosen[0] for a in prediction.answers if isinstance(a, Classification)])
    assert area(labels, scores) == pytest.approx(0.996, abs=0.001)
    assert (chosen == labels).mean() == pytest.approx(0.956, abs=0.004)
    # Calibrated: of those with a probability around p, about p are ill.
    for low, high in ((0.0, 0.2), (0.8, 1.0)):
        within = (scores >= low) & (scores < high)
        assert labels[within].mean() == pytest.approx(scores[within].mean(), abs=0.06)


@real
def test_an_image_lying_on_its_side_is_another_image(chest: Bundle) -> None:
    data = np.load(DATA / "chest_xray_28" / "pneumoniamnist_train_val.npz")
    pixels, labels = data["val_images"][:100], data["val_labels"].ravel()[:100]
    upright = area(labels, probabilities(predict(chest, images(pixels))))
    lying = area(labels, probabilities(predict(chest, images(pixels.swapaxes(1, 2)))))
    assert upright > lying + 0.05


@real
def test_a_real_radiograph_of_any_size_goes_through(chest: Bundle) -> None:
    shown = volume.load_input(
        [DATA / "single_images" / "RG1_J2KI.dcm"], contract=chest.manifest.inputs["image"]
    )
    assert isinstance(shown, Images)

    classified, heat = predict(chest, shown).answers

    assert isinstance(classified, Classification)
    assert sum(classified.probabilities) == pytest.approx(1)
    assert isinstance(heat, HeatMap)
    assert heat.array.shape == (1955, 1841)
    assert heat.array.max() == pytest.approx(1, abs=0.05)
    assert not heat.array[:40].any()  # above the central square nothing was looked at


@real
def test_what_is_no_radiograph_is_not_applicable(chest: Bundle) -> None:
    with pytest.raises(NotApplicable):
        volume.load_input(
            [DATA / "single_images" / "US1_UNCR.dcm"], contract=chest.manifest.inputs["image"]
        )


def test_the_sample_is_taken(chest: Bundle) -> None:
    shown = volume.load_input(
        sorted((MODEL / "sample").glob("*.dcm")), contract=chest.manifest.inputs["image"]
    )
    assert isinstance(shown, Images)
    (score,) = probabilities(predict(chest, shown))
    assert score > 0.85  # the average of images with pneumonia


def test_the_operating_point_leans_to_no_false_alarm(chest: Bundle) -> None:
    output = chest.manifest.outputs["pred"]
    assert isinstance(output, ClassificationOutput)
    assert [one.operating_point for one in output.classes] == [None, 0.85]
