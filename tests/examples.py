"""An example of each kind of answer, about phantoms and pictures, and the objects made of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import phantom
import pictures
import pydicom
from numpy.typing import NDArray
from pydantic import TypeAdapter
from pydicom import Dataset
from pydicom.uid import UltrasoundMultiFrameImageStorage, VLPhotographicImageStorage

from dicomnode import results, volume
from dicomnode.bundle import Bundle, Code, Input, Output
from dicomnode.prediction import (
    Answer,
    Box,
    Boxes,
    Classification,
    LabelMap,
    Masks,
    Numbers,
    Point,
    Points,
    Prediction,
    ProbabilityMap,
)
from dicomnode.profile import Profile
from dicomnode.volume import Images, Volume

KEY = "0123abcd"
CREATED = datetime(2026, 3, 4, 23, 6, 7, tzinfo=UTC)

LUNG = Code(value="39607008", scheme="SCT", meaning="Lung")
MASS = Code(value="4147007", scheme="SCT", meaning="Mass")
TISSUE = Code(value="85756007", scheme="SCT", meaning="Tissue")
ALTERED = Code(value="49755003", scheme="SCT", meaning="Morphologically Abnormal Structure")
NORMAL = Code(value="17621005", scheme="SCT", meaning="Normal")
LENGTH = Code(value="410668003", scheme="SCT", meaning="Length")
MILLIMETRE = Code(value="mm", scheme="UCUM", meaning="millimeter")
IMPRESSION = Code(value="404684003", scheme="SCT", meaning="Clinical finding")


def output(**spec: Any) -> Output:
    """An output as a manifest has it."""
    made: Output = TypeAdapter(Output).validate_python(spec)
    return made


def finding(label: int, name: str, *, is_lesion: bool = False, **more: Any) -> dict[str, Any]:
    """What a label means: a lesion of the lung, or tissue."""
    about: dict[str, Any] = {"category": TISSUE, "type": TISSUE, "color": "#61e294"}
    if is_lesion:
        about = {"category": ALTERED, "type": MASS, "anatomic_region": LUNG, "color": "#3fa7ff"}
    return {"label": label, "name": name} | about | more


@dataclass(frozen=True, kw_only=True)
class Example:
    """What was said, and by which model."""

    prediction: Prediction
    model: Bundle

    def write(
        self,
        folder: Path,
        *profiles: Profile,
        predecessors: Mapping[str, results.Predecessor] | None = None,
    ) -> tuple[Path, ...]:
        """Make the objects for some profiles, and check them."""
        built = results.build(
            self.prediction,
            bundle=self.model,
            key=KEY,
            created=CREATED,
            profiles=profiles,
            predecessors=predecessors,
        )
        files = results.write(built, folder)
        self.check(files, *profiles)
        return files

    def check(self, files: Sequence[Path], *profiles: Profile) -> None:
        """Check objects that were made for some profiles."""
        results.check(
            files, prediction=self.prediction, bundle=self.model, key=KEY, profiles=profiles
        )

    @property
    def sources(self) -> list[Path]:
        """The files that the model was shown."""
        paths = [source.path for one in self.prediction.shown for source in one.sources]
        return [Path(path) for path in dict.fromkeys(paths)]


# Of volumes.


def bodies(folder: Path, **scan: Any) -> Example:
    """The label map of the phantom."""
    written = phantom.write_series(folder, **scan)
    answer = LabelMap(output="bodies", array=written.labels)
    return Example(
        prediction=Prediction(subject=volume.load(written.files), answers=(answer,)),
        model=phantom.a_bundle(),
    )


def nothing(folder: Path, **scan: Any) -> Example:
    """The same, of a model that found nothing."""
    found = bodies(folder, **scan)
    empty = LabelMap(output="bodies", array=np.zeros(found.prediction.volume.array.shape, np.uint8))
    prediction = Prediction(subject=found.prediction.subject, answers=(empty,))
    return Example(prediction=prediction, model=found.model)


def overlapping(folder: Path, **scan: Any) -> Example:
    """Two masks that overlap, the second a lesion of two pieces; a third that is empty."""
    shown = volume.load(phantom.write_series(folder, **scan).files)
    masks = np.zeros((3, *shown.array.shape), dtype=np.bool_)
    masks[0, 2:9, 3:15, 4:16] = True
    masks[1, 4:8, 5:12, 2:9] = True
    masks[1, 8:11, 16:19, 15:18] = True
    segments = [
        finding(1, "Whole", measure=["volume"]),
        finding(2, "Lesion", is_lesion=True, measure=["volume"]),
        finding(3, "None", measure=["volume"]),
    ]
    return Example(
        prediction=Prediction(subject=shown, answers=(Masks(output="m", array=masks),)),
        model=phantom.a_bundle(outputs={"m": output(kind="masks", segments=segments)}),
    )


def probabilities(folder: Path, **scan: Any) -> Example:
    """A probability for each voxel and each of two findings."""
    shown = volume.load(phantom.write_series(folder, **scan).files)
    steps = np.arange(shown.array.size, dtype=np.float32).reshape(shown.array.shape)
    array = np.stack([steps / steps.max(), (steps % 97) / 96 * (steps % 3 > 0)])
    findings = [finding(1, "Tissue"), finding(2, "Lesion", is_lesion=True)]
    answer = ProbabilityMap(output="p", array=array.astype(np.float32))
    return Example(
        prediction=Prediction(subject=shown, answers=(answer,)),
        model=phantom.a_bundle(outputs={"p": output(kind="probability_map", findings=findings)}),
    )


SAID: dict[str, Output] = {
    "kind": output(
        kind="classification",
        concept=IMPRESSION,
        classes=[
            {"name": "Normal", "code": NORMAL},
            {"name": "Mass", "code": MASS, "operating_point": 0.4},
        ],
    ),
    "size": output(
        kind="numbers", quantities=[{"name": "Diameter", "code": LENGTH, "unit": MILLIMETRE}]
    ),
    "nodules": output(
        kind="boxes",
        scores="s",
        coordinates="index",
        findings=[finding(1, "Nodule", is_lesion=True)],
    ),
    "tips": output(kind="points", coordinates="index", landmarks=[finding(1, "Tip")]),
}


def located(folder: Path, **scan: Any) -> Example:
    """A box and a point in a volume."""
    shown = volume.load(phantom.write_series(folder, **scan).files)
    middle = phantom.CENTER
    box = Box(label=1, score=0.875, low=tuple(middle - [4, 5, 6]), high=tuple(middle + [3, 6, 4]))
    answers = (
        Boxes(output="nodules", boxes=(box,)),
        Points(output="tips", points=(Point(label=1, at=tuple(middle + [1.5, -2.25, 3])),)),
    )
    return Example(
        prediction=Prediction(subject=shown, answers=answers),
        model=phantom.a_bundle(outputs={name: SAID[name] for name in ("nodules", "tips")}),
    )


# Of images that are looked at one by one.


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


MARKS = {
    "marks": output(
        kind="label_map",
        segments=[
            finding(1, "Field", measure=["area"]),
            finding(4, "Lesion", is_lesion=True, measure=["area"]),
            finding(2, "None", measure=["area"]),
        ],
    )
}


def marked(images: Images) -> Example:
    """A label map of each image; of the second image the lesion is missing."""
    return pictured(_marks, MARKS, images)


def _marks(number: int, size: tuple[int, int]) -> list[Answer]:
    labels: NDArray[np.uint8] = np.zeros(size, dtype=np.uint8)
    labels[2 : 8 + number, 3:12] = 1
    if number != 1:
        labels[4:7, 5 : 9 + number] = 4
        labels[9 + number :, 14:] = 4
    return [LabelMap(output="marks", frame=number, array=labels)]


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


def _load(files: Sequence[Path], modality: str, *sop_classes: str, channels: int = 1) -> Images:
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
            folder, np.full(size, 100 * number, np.uint16), number, ImagerPixelSpacing=[0.4, 0.3]
        )
        for number, size in enumerate(sizes, start=1)
    ]
    return _load(files, "CR", "ComputedRadiographyImageStorage")


def slices(folder: Path, *, enhanced: bool = False) -> Images:
    """Slices in the patient, looked at one by one."""
    files = phantom.write_series(
        folder, orientation="oblique", shape=(3, 24, 22), enhanced=enhanced
    ).files
    return _load(files, "MR", "MRImageStorage", "EnhancedMRImageStorage")


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
    )
    return _load([loop], "US", "UltrasoundMultiFrameImageStorage", channels=3)


def photographs(folder: Path) -> Images:
    """Two photographs."""
    files = [
        pictures.write(
            folder,
            np.full((20, 24, 3), 60 * number, np.uint8),
            number,
            SOPClassUID=VLPhotographicImageStorage,
            Modality="XC",
        )
        for number in (1, 2)
    ]
    return _load(files, "XC", "VLPhotographicImageStorage", channels=3)


PICTURES: dict[str, Callable[[Path], Images]] = {
    "radiographs": radiographs,
    "slices": slices,
    "enhanced": lambda folder: slices(folder, enhanced=True),
    "ultrasound": ultrasound,
    "photographs": photographs,
}


def read(files: Sequence[Path]) -> list[Dataset]:
    """The objects of some files."""
    return [pydicom.dcmread(path) for path in files]


def is_volume(example: Example) -> bool:
    """Whether a volume was shown."""
    return isinstance(example.prediction.subject, Volume)
