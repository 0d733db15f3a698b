"""An example of each kind of answer about a volume, and the objects that are made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import phantom
import pydicom
from made import CREATED, KEY
from pydantic import TypeAdapter
from pydicom import Dataset

from dicomnode import results, volume
from dicomnode.bundle import Bundle, Code, Output
from dicomnode.prediction import (
    Box,
    Boxes,
    Classification,
    DerivedImage,
    HeatMap,
    LabelMap,
    Masks,
    Point,
    Points,
    Prediction,
    ProbabilityMap,
    Registration,
)
from dicomnode.profile import Profile

LUNG = Code(value="39607008", scheme="SCT", meaning="Lung")
MASS = Code(value="4147007", scheme="SCT", meaning="Mass")
TISSUE = Code(value="85756007", scheme="SCT", meaning="Tissue")
ALTERED = Code(value="49755003", scheme="SCT", meaning="Morphologically Abnormal Structure")
NORMAL = Code(value="17621005", scheme="SCT", meaning="Normal")
LENGTH = Code(value="410668003", scheme="SCT", meaning="Length")
MILLIMETRE = Code(value="mm", scheme="UCUM", meaning="millimeter")
SMOOTHED = Code(value="113087", scheme="DCM", meaning="Smoothing")
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


def read(files: Sequence[Path]) -> list[Dataset]:
    """The objects of some files."""
    return [pydicom.dcmread(path) for path in files]


HEAT = output(kind="heat_map", of="kind")
MADE = output(kind="image", description="Denoised", derivation=SMOOTHED)

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


def _at(*offset: float) -> tuple[float, ...]:
    """A place in the patient, by how far it is from the middle of the phantom."""
    return tuple(float(v) for v in phantom.CENTER + offset)


def located(folder: Path, **scan: Any) -> Example:
    """A box and a point in a volume."""
    shown = volume.load(phantom.write_series(folder, **scan).files)
    box = Box(label=1, score=0.875, low=_at(-4, -5, -6), high=_at(3, 6, 4))
    answers = (
        Boxes(output="nodules", boxes=(box,)),
        Points(output="tips", points=(Point(label=1, at=_at(1.5, -2.25, 3)),)),
    )
    return Example(
        prediction=Prediction(subject=shown, answers=answers),
        model=phantom.a_bundle(outputs={name: SAID[name] for name in ("nodules", "tips")}),
    )


def heated(folder: Path, **scan: Any) -> Example:
    """A class of a volume, and where it was seen."""
    shown = volume.load(phantom.write_series(folder, **scan).files)
    heat = np.linspace(0, 1, shown.array.size, dtype=np.float32).reshape(shown.array.shape)
    answers = (
        Classification(output="kind", probabilities=(0.35, 0.65), chosen=(1,)),
        HeatMap(output="heat", array=heat, of="kind", explains=1),
    )
    return Example(
        prediction=Prediction(subject=shown, answers=answers),
        model=phantom.a_bundle(outputs={"kind": SAID["kind"], "heat": HEAT}),
    )


def derived(folder: Path, **scan: Any) -> Example:
    """A volume made of a volume, and nothing else."""
    shown = volume.load(phantom.write_series(folder, **scan).files)
    answer = DerivedImage(output="image", array=shown.array * np.float32(0.5) + 1)
    return Example(
        prediction=Prediction(subject=shown, answers=(answer,)),
        model=phantom.a_bundle(outputs={"image": MADE}),
    )


def registered(folder: Path, **scan: Any) -> Example:
    """Another volume in another space, and where it lies in the space of the first."""
    fixed = volume.load(phantom.write_series(folder / "fixed", **scan).files)
    moving = volume.load(
        phantom.write_series(
            folder / "moving",
            key="moving",
            orientation="coronal",
            attributes={"FrameOfReferenceUID": "2.25.7"},
        ).files
    )
    matrix = np.eye(4)
    matrix[:3] = [[0, -1, 0, 2.5], [1, 0, 0, -7.25], [0, 0, 1, 30]]
    model = phantom.a_bundle()
    one = model.manifest.inputs["image"]
    return Example(
        prediction=Prediction(
            subject=fixed,
            answers=(Registration(output="there", moving=0, matrix=matrix),),
            also_shown=(moving,),
        ),
        model=phantom.a_bundle(
            inputs={"image": one, "other": one.model_copy(update={"key": "other"})},
            outputs={"there": output(kind="registration", moving="other", coordinates="lps")},
        ),
    )
