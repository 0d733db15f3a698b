"""The objects beside segmentations and reports, made of phantoms: maps, images, registrations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import phantom
import pictures
import pydicom
from made import BARE, Made, code, make
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import PositronEmissionTomographyImageStorage

from dicomnode import bundle, volume
from dicomnode.prediction import (
    Classification,
    DerivedImage,
    HeatMap,
    Prediction,
    ProbabilityMap,
    Registration,
)
from dicomnode.profile import Profile

LUNG, NORMAL = code("39607008", "Lung"), code("17621005", "Normal")


def _finding(label: int, name: str, **more: Any) -> bundle.Finding:
    tissue = code("85756007", "Tissue")
    return bundle.Finding(
        label=label, name=name, category=tissue, type=LUNG, color="#ff8800", **more
    )


PROBABILITIES = bundle.ProbabilityMapOutput(
    kind="probability_map",
    findings=(
        _finding(1, "Nodule", anatomic_region=code("12738006", "Brain")),
        _finding(4, "Cyst"),
    ),
)
CLASSES = bundle.ClassificationOutput(
    kind="classification",
    of="image",
    concept=code("404684003", "Clinical finding"),
    classes=(bundle.ClassOf(name="Normal", code=NORMAL), bundle.ClassOf(name="Ill", code=LUNG)),
)
MAPPED: dict[str, bundle.Output] = {
    "likely": PROBABILITIES,
    "kind": CLASSES,
    "where": bundle.HeatMapOutput(kind="heat_map", of="kind", method="gradcam", layer="last"),
}
RADIOGRAPHS = bundle.Input(
    form="image", modality="CR", sop_classes=("ComputedRadiographyImageStorage",)
)
SLIDE = bundle.Input(
    form="slide", modality="SM", channels=3, sop_classes=("VLWholeSlideMicroscopyImageStorage",)
)


def numbers(*shape: int, seed: int = 1) -> NDArray[np.float32]:
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


def maps(folder: Path, **scan: Any) -> Made:
    """Two maps of probabilities and a heat map on the phantom."""
    subject = volume.load(phantom.write_series(folder / "images", **scan).files)
    shape = subject.array.shape
    prediction = Prediction(
        subject=subject,
        answers=(
            ProbabilityMap(output="likely", array=numbers(2, *shape)),
            Classification(output="kind", probabilities=(0.2, 0.8), chosen=(1,)),
            HeatMap(output="where", array=numbers(*shape, seed=2), of="kind", explains=1),
        ),
    )
    return make(folder / "results", prediction, phantom.a_bundle(outputs=MAPPED))


def map_of_slide(
    folder: Path, *, by_centres: bool = False, placed: bool = True, profile: Profile = BARE
) -> Made:
    """A map of 6 by 9 patches of 16 by 16 pixels, of which the first row was not looked at."""
    files = []
    for number, side in ((1, 96), (4, 24)):
        file = pictures.write_slide(
            folder / "images",
            np.full((side, side + side // 2, 3), 200, dtype=np.uint8),
            tile=16,
            number=number,
        )
        dataset = pydicom.dcmread(file)
        inwards = 0.001 * (number - 1) / 2 if by_centres else 0
        origin = Dataset()
        origin.XOffsetInSlideCoordinateSystem = f"{20.5 - inwards:.6f}"
        origin.YOffsetInSlideCoordinateSystem = f"{40.25 - inwards:.6f}"
        if placed:
            dataset.FrameOfReferenceUID = "1.2.3.9"
            dataset.ImageOrientationSlide = [0, -1, 0, -1, 0, 0]
            dataset.TotalPixelMatrixOriginSequence = [origin]
        dataset.save_as(file)
        files.append(file)
    array = numbers(2, 6, 9)
    array[:, 0] = np.nan
    prediction = Prediction(
        subject=volume.load_input(files, contract=SLIDE),
        answers=(ProbabilityMap(output="likely", array=array, step=(16.0, 16.0)),),
    )
    model = phantom.a_bundle(outputs={"likely": PROBABILITIES}, inputs={"image": SLIDE})
    return make(folder / "results", prediction, model, profile=profile)


MR = bundle.Input(modality="MR", sop_classes=("MRImageStorage", "EnhancedMRImageStorage"))
CT = bundle.Input(modality="CT", sop_classes=("CTImageStorage",))
PT = bundle.Input(modality="PT", sop_classes=("PositronEmissionTomographyImageStorage",))

#: What an MR image must have, and the phantom has not.
SPIN_ECHO = {
    "ScanningSequence": "SE",
    "SequenceVariant": "SK",
    "EchoTime": "12.5",
    "RepetitionTime": "500",
    "PatientPosition": "HFS",
    "WindowCenter": "300",
    "WindowWidth": "900",
}
#: And a PET image.
TRACER = {
    "SOPClassUID": PositronEmissionTomographyImageStorage,
    "Modality": "PT",
    "SeriesType": ["STATIC", "IMAGE"],
    "Units": "BQML",
    "CountsSource": "EMISSION",
    "DecayCorrection": "START",
    "CorrectedImage": ["ATTN", "DECY"],
    "NumberOfSlices": 14,
    "FrameReferenceTime": "0",
    "DecayFactor": "1.02",
    "ImageIndex": 1,
    "RescaleSlope": "1",
    "RescaleIntercept": "0",
    "PatientWeight": "70",
    "SeriesTime": "100000",
    "AcquisitionTime": "100100",
}
HOUNSFIELD = code("[hnsf'U]", "Hounsfield unit", "UCUM")

Values = Callable[[NDArray[np.float32]], NDArray[Any]]


def denoised(values: NDArray[np.float32]) -> NDArray[Any]:
    return values * 0.937 - 12.345


def derived(subject: Any, given: bundle.Input, made: Values = denoised, **output: Any) -> Any:
    """A prediction, and its model."""
    spec = bundle.ImageOutput(
        kind="image",
        description="Denoised",
        derivation=code("113087", "Smoothing", "DCM"),
        **output,
    )
    if isinstance(subject, volume.Volume):
        arrays = {None: subject.array}
    else:
        arrays = dict(enumerate(one.array for one in subject.frames))
    answers = tuple(
        DerivedImage(output="better", frame=frame, array=made(array).astype(np.float32))
        for frame, array in arrays.items()
    )
    model = phantom.a_bundle(outputs={"better": spec}, inputs={"image": given})
    return Prediction(subject=subject, answers=answers), model


def images(
    folder: Path,
    *,
    given: bundle.Input = MR,
    made: Values = denoised,
    output: dict[str, Any] | None = None,
    **scan: Any,
) -> Made:
    written = phantom.write_series(folder / "images", modality=given.modalities[0], **scan)
    subject = volume.load(written.files, contract=given)
    return make(folder / "results", *derived(subject, given, made, **(output or {})))


def of_radiographs(folder: Path, *files: Path, given: bundle.Input = RADIOGRAPHS) -> Made:
    subject = volume.load_input(list(files), contract=given)
    return make(folder / "results", *derived(subject, given))


def pet_images(folder: Path, **more: Any) -> Made:
    injected = Dataset()
    injected.RadiopharmaceuticalStartTime = "090000"
    injected.RadionuclideTotalDose = "350000000"
    injected.RadionuclideHalfLife = "6586.2"
    injected.RadionuclideCodeSequence = []
    tracer = {**TRACER, "RadiopharmaceuticalInformationSequence": [injected]}
    attributes = tracer | more.pop("attributes", {})
    given = PT.model_copy(update={"values": more.pop("values", "modality")})
    return images(folder, given=given, attributes=attributes, **more)


REGISTRATION = bundle.RegistrationOutput(kind="registration", moving="before", coordinates="lps")
ELSEWHERE = {"FrameOfReferenceUID": "1.2.3.4"}

Matrix = NDArray[np.float64]


def matrix(
    *, scale: Sequence[float] = (1, 1, 1), shear: float = 0.0, degrees: float = 20
) -> Matrix:
    """Turned about an axis of its own, and shifted."""
    turn = np.radians(degrees)
    made = np.eye(4)
    made[:3, :3] = [
        [np.cos(turn), -np.sin(turn), 0],
        [np.sin(turn), np.cos(turn), shear],
        [0, 0, 1],
    ]
    made[:3, :3] = made[:3, :3] @ np.diag(scale)
    made[:3, 3] = (3.25, -4.5, 12.125)
    return made


def registration(
    folder: Path,
    *,
    given: Matrix | None = None,
    attributes: dict[str, Any] | None = None,
    profile: Profile = BARE,
    **moving: Any,
) -> Made:
    """A model of three inputs that says where the third lies."""
    shown = [
        volume.load(phantom.write_series(folder / name, key=name, **scan).files)
        for name, scan in (
            ("now", {}),
            ("mask", {"orientation": "coronal"}),
            ("before", {"attributes": ELSEWHERE if attributes is None else attributes} | moving),
        )
    ]
    prediction = Prediction(
        subject=shown[0],
        also_shown=tuple(shown[1:]),
        answers=(
            Registration(output="move", moving=1, matrix=matrix() if given is None else given),
        ),
    )
    model = registering(dict.fromkeys(("now", "mask", "before"), MR))
    return make(folder / "results", prediction, model, profile=profile)


def registering(inputs: dict[str, bundle.Input]) -> bundle.Bundle:
    """A bundle that says where the input "before" lies."""
    return phantom.a_bundle(outputs={"move": REGISTRATION}, inputs=inputs)
