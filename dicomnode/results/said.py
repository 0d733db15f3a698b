"""What a model said, as far as all results need it: judged, and taken apart by kind."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from dicomnode import uid
from dicomnode.bundle import Bundle, Manifest, RegistrationOutput
from dicomnode.errors import Misconfigured, ModelFailed, UnsuitableSeries
from dicomnode.prediction import (
    Answer,
    Boxes,
    Classification,
    DerivedImage,
    HeatMap,
    LabelMap,
    Masks,
    Numbers,
    OnGrid,
    Points,
    Prediction,
    ProbabilityMap,
    Registration,
)
from dicomnode.results import layers
from dicomnode.results.layers import Numbered
from dicomnode.volume import Images, Slide, Volume

#: Answers that a DICOM Segmentation holds.
Segmented = LabelMap | Masks
#: Answers that stand in the report alone.
Reported = Boxes | Points | Classification | Numbers

#: keyword → why the inputs of a model may have only one value of it. Series of one study may well
#: belong to several orders, each with its Accession Number: a result has that of its source.
_ONE_FOR_ALL_INPUTS = {
    "PatientID": "mixed-patients",
    "IssuerOfPatientID": "mixed-patients",
    "PatientName": "mixed-patients",
    "PatientBirthDate": "mixed-patients",
    "StudyInstanceUID": "mixed-studies",
    "FrameOfReferenceUID": "two-frames-of-reference",
}


def segmented(prediction: Prediction) -> tuple[Segmented, ...]:
    """The answers that a SEG is made of, in order."""
    return tuple(one for one in prediction.answers if isinstance(one, LabelMap | Masks))


def tracking_uid(key: str, output: str, label: int, *, frame: int | None = None) -> str:
    """Tracking UID of a finding: the same in the SEG and in the report."""
    place = () if frame is None else (f"frame {frame}",)
    return uid.derived(key, "tracking", output, str(label), *place)


def of_piece(tracked: str, number: int) -> str:
    """Tracking UID of one of several pieces of a finding."""
    return uid.derived(tracked, "piece", str(number))


def require_sound(prediction: Prediction, model: Bundle) -> None:
    """Make sure that a model said what its manifest says it says, and nothing else.

    Raises:
        Misconfigured: The manifest's words cannot be written in every source's character set.
        ModelFailed: An output is missing or unknown, lies on another grid or has an unknown label.
        UnsuitableSeries: The model was shown images that do not belong together.
    """
    manifest = model.manifest
    _require_belonging(prediction, manifest)
    # The source's character set stays as it is, and all that it is sure to have is ASCII.
    if not manifest.model_dump_json(exclude={"intended_use"}).isascii():
        raise Misconfigured("manifest-not-ascii", "The manifest's words may only use ASCII.")
    given = list(dict.fromkeys(one.output for one in prediction.answers))
    if sorted([*given, *prediction.silent]) != sorted(manifest.outputs):
        raise ModelFailed(
            "wrong-outputs",
            f"The model gave {', '.join(given) or 'nothing'}; its manifest has the outputs"
            f" {', '.join(manifest.outputs)}.",
        )
    for place, answer in enumerate(prediction.answers):
        if _is_repeated(answer, prediction, place):
            raise ModelFailed("wrong-outputs", f"The model gave {answer.output} more than once.")
        _require_sound(answer, prediction, model)


def _is_repeated(answer: Answer, prediction: Prediction, place: int) -> bool:
    return any(
        (one.output, one.frame) == (answer.output, answer.frame)
        for one in prediction.answers[:place]
    )


def _require_belonging(prediction: Prediction, manifest: Manifest) -> None:
    first = prediction.subject.header
    moving = _moving(manifest)
    for place, other in enumerate(prediction.also_shown):
        for keyword, reason in _ONE_FOR_ALL_INPUTS.items():
            # What is registered may lie in a space of its own: to say where is the model's task.
            # Images that are looked at one by one need not lie in any.
            are_volumes = isinstance(prediction.subject, Volume) and isinstance(other, Volume)
            if keyword == "FrameOfReferenceUID" and (place in moving or not are_volumes):
                continue
            if other.header.get(keyword) != first.get(keyword):
                raise UnsuitableSeries(reason, f"{keyword} is not the same in all inputs.")


def _moving(manifest: Manifest) -> set[int]:
    """Which of `Prediction.also_shown` are registered to the first input."""
    _, *others = manifest.inputs
    outputs = manifest.outputs.values()
    return {others.index(one.moving) for one in outputs if isinstance(one, RegistrationOutput)}


def _require_sound(answer: Answer, prediction: Prediction, model: Bundle) -> None:
    if isinstance(answer, Reported):
        return
    if isinstance(answer, Registration):
        _require_transformation(answer, prediction)
        return
    _require_on_grid(answer, prediction)
    if isinstance(answer, HeatMap | DerivedImage):
        return
    items = layers.numbered(model, answer.output)
    if isinstance(answer, LabelMap | Masks):
        _require_known(answer, items)
    elif len(answer.array) != len(items):
        raise ModelFailed("wrong-grid", f"{answer.output} has not one map for each finding.")


def _require_transformation(answer: Registration, prediction: Prediction) -> None:
    """Make sure that a matrix brings one volume to another (PS3.3 C.20.2)."""
    moving = prediction.also_shown[answer.moving : answer.moving + 1]
    if not isinstance(prediction.subject, Volume) or not (moving and isinstance(moving[0], Volume)):
        raise ModelFailed("wrong-outputs", f"{answer.output} is about no two volumes.")
    if (
        answer.matrix.shape != (4, 4)
        or not np.isfinite(answer.matrix).all()
        or answer.matrix[3].tolist() != [0, 0, 0, 1]
    ):
        raise ModelFailed("not-a-transformation", f"{answer.output} is no transformation.")


def _require_on_grid(answer: OnGrid, prediction: Prediction) -> None:
    shape = _shape(answer, prediction)
    leading = int(isinstance(answer, Masks | ProbabilityMap))
    if answer.array.shape[leading:] != shape or answer.array.ndim != len(shape) + leading:
        raise ModelFailed(
            "wrong-grid", f"{answer.output} has the shape {answer.array.shape}, the image {shape}."
        )


def _require_known(answer: Segmented, items: tuple[Numbered, ...]) -> None:
    """Make sure that the manifest says what each value of an answer means."""
    if isinstance(answer, Masks):
        if len(answer.array) != len(items) or answer.array.dtype != np.bool_:
            raise ModelFailed("wrong-grid", f"{answer.output} has not one mask for each segment.")
        return
    if answer.array.dtype not in (np.uint8, np.uint16):
        raise ModelFailed(
            "wrong-type", f"{answer.output} is {answer.array.dtype}, not a label map."
        )
    known = {item.segment.label for item in items}
    unknown = sorted(set(layers.labels(answer.array)) - known - {0})
    if unknown:
        raise ModelFailed(
            "unknown-label", f"{answer.output} has labels that its manifest has not: {unknown[:5]}."
        )


def _shape(answer: OnGrid, prediction: Prediction) -> tuple[int, ...]:
    """Of what the answer is about: a volume, one of several images, the patches of a slide."""
    subject = prediction.subject
    if isinstance(subject, Volume):
        return subject.array.shape
    if isinstance(subject, Slide) and isinstance(answer, ProbabilityMap) and answer.step:
        return answer.array.shape[-2:]  # which patches it looks at is the model's choice
    if not isinstance(subject, Images) or answer.frame is None:
        raise ModelFailed("wrong-outputs", f"{answer.output} is about no image.")
    return subject.frames[answer.frame].array.shape[:2]


def silent(prediction: Prediction) -> Iterator[str]:
    """Sentences about what could not be said."""
    for output, why in prediction.silent.items():
        yield f"{output}: {why}"
