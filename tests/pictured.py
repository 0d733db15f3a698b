"""An example of each kind of answer about images that are looked at one by one, and such images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import phantom
import pictures
from examples import HEAT, MADE, SAID, Example, finding, output
from numpy.typing import NDArray
from pydicom.uid import UltrasoundMultiFrameImageStorage, VLPhotographicImageStorage

from dicomnode import volume
from dicomnode.bundle import Input, Output
from dicomnode.prediction import (
    Answer,
    Box,
    Boxes,
    Classification,
    DerivedImage,
    HeatMap,
    LabelMap,
    Numbers,
    Point,
    Points,
    Prediction,
)
from dicomnode.volume import Images


def pictured(
    said: Callable[[int, tuple[int, int]], Sequence[Answer]],
    outputs: Mapping[str, Output],
    images: Images,
) -> Example:
    """What is said of each image by its number and its size."""
    answers = [
        answer
        for number, frame in enumerate(images.frames)
        for answer in said(number, frame.array.shape[:2])  # type: ignore[arg-type]
    ]
    order = {name: place for place, name in enumerate(outputs)}
    answers.sort(key=lambda answer: order[answer.output])
    return Example(
        prediction=Prediction(subject=images, answers=tuple(answers)),
        model=phantom.a_bundle(outputs=dict(outputs)),
    )


MARKED = [
    finding(1, "Field", measure=["area"]),
    finding(4, "Lesion", is_lesion=True, measure=["area"]),
    finding(2, "None", measure=["area"]),
]
MARKS = {"marks": output(kind="label_map", segments=MARKED)}


def marked(images: Images) -> Example:
    """A label map of each image; of the second image the lesion is missing."""
    return pictured(
        lambda number, size: [LabelMap(output="marks", frame=number, array=_labels(number, size))],
        MARKS,
        images,
    )


def _labels(number: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    labels: NDArray[np.uint8] = np.zeros(size, dtype=np.uint8)
    labels[2 : 8 + number, 3:12] = 1
    if number != 1:
        labels[4:7, 5 : 9 + number] = 4
        labels[9 + number :, 14:] = 4
    return labels


FOUND = {"marks": output(kind="label_map", segments=MARKED[:1])}


def found(images: Images) -> Example:
    """A label map of each image, of a model whose one segment is on all of them."""
    return pictured(
        lambda number, size: [
            LabelMap(output="marks", frame=number, array=_labels(number, size) % 4)
        ],
        FOUND,
        images,
    )


def described(images: Images) -> Example:
    """A class, a number, a box and a point of each image."""
    return pictured(_descriptions, SAID, images)


def _descriptions(number: int, _: tuple[int, int]) -> list[Answer]:
    box = Box(label=1, score=0.75, low=(2.0, 3.0 + number), high=(9.5, 11.0 + number))
    return [
        Classification(output="kind", frame=number, probabilities=(0.35, 0.65), chosen=(1,)),
        Numbers(output="size", frame=number, values=(12.5 + number,)),
        Boxes(output="nodules", frame=number, boxes=(box,)),
        Points(output="tips", frame=number, points=(Point(label=1, at=(4.0, 5.25)),)),
    ]


def nowhere(images: Images) -> Example:
    """No box on any image."""
    outputs = {"nodules": SAID["nodules"]}
    return pictured(lambda number, _: [Boxes(output="nodules", frame=number, boxes=())], outputs,
                    images)  # fmt: skip


def warm(images: Images) -> Example:
    """A class of each image, and where it was seen."""
    outputs = {"kind": SAID["kind"], "heat": HEAT}
    return pictured(_heat, outputs, images)


def _heat(number: int, size: tuple[int, int]) -> list[Answer]:
    heat = np.linspace(0, 1, size[0] * size[1], dtype=np.float32).reshape(size)
    return [
        Classification(output="kind", frame=number, probabilities=(0.35, 0.65), chosen=(1,)),
        HeatMap(output="heat", frame=number, array=heat, of="kind", explains=1),
    ]


def remade(images: Images) -> Example:
    """An image made of each image."""
    return pictured(
        lambda number, size: [
            DerivedImage(output="image", frame=number, array=np.full(size, number, np.float32))
        ],
        {"image": MADE},
        images,
    )


#: What stands in the header of every picture: a source that lacks it makes a result that lacks it.
_IN_FULL = {
    "AccessionNumber": "A-0815",
    "PatientBirthDate": "19700131",
    "PatientSex": "O",
    "ReferringPhysicianName": "Ref^Errer",
    "StudyDate": "20240229",
    "StudyID": "S1",
    "StudyTime": "101112",
}


def load(files: Sequence[Path], modality: str, *sop_classes: str, channels: int = 1) -> Images:
    """Images as a model is shown them that looks at each alone."""
    contract = Input.model_validate(
        {"form": "image", "modality": modality, "sop_classes": sop_classes, "channels": channels}
    )
    images = volume.load_input(files, contract=contract)
    assert isinstance(images, Images)
    return images


def radiographs(folder: Path, sizes: Sequence[tuple[int, int]] = ((20, 24),) * 3) -> Images:
    """Projections: they say how large a pixel is, and not where they lie."""
    files = [
        pictures.write(
            folder,
            np.full(size, 100 * number, np.uint16),
            number,
            ImagerPixelSpacing=[0.4, 0.3],
            PatientOrientation=["L", "F"],
            **_IN_FULL,
        )
        for number, size in enumerate(sizes, start=1)
    ]
    return load(files, "CR", "ComputedRadiographyImageStorage")


def slices(folder: Path, *, enhanced: bool = False) -> Images:
    """Slices in the patient, looked at one by one."""
    files = phantom.write_series(
        folder, orientation="oblique", shape=(3, 24, 22), enhanced=enhanced
    ).files
    return load(files, "MR", "MRImageStorage", "EnhancedMRImageStorage")


def ultrasound(folder: Path) -> Images:
    """A loop in colour, one instance of three frames."""
    pixels = np.random.default_rng(1).integers(0, 255, (20, 24, 3), dtype=np.uint8)
    loop = pictures.write(
        folder,
        pixels,
        SOPClassUID=UltrasoundMultiFrameImageStorage,
        Modality="US",
        NumberOfFrames=3,
        FrameTime=40,
        FrameIncrementPointer=0x00181063,
        PixelData=np.stack([pixels, pixels // 2, pixels // 3]).tobytes(),
        **_IN_FULL,
    )
    return load([loop], "US", "UltrasoundMultiFrameImageStorage", channels=3)


def photographs(folder: Path) -> Images:
    """Two photographs."""
    files = [
        pictures.write(
            folder,
            np.full((20, 24, 3), 60 * number, np.uint8),
            number,
            SOPClassUID=VLPhotographicImageStorage,
            Modality="XC",
            **_IN_FULL,
        )
        for number in (1, 2)
    ]
    return load(files, "XC", "VLPhotographicImageStorage", channels=3)


PICTURES: dict[str, Callable[[Path], Images]] = {
    "radiographs": radiographs,
    "slices": slices,
    "enhanced": lambda folder: slices(folder, enhanced=True),
    "ultrasound": ultrasound,
    "photographs": photographs,
}
