"""What a model said, as far as all results need it: judged, and taken apart by kind."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from dicomnode import uid
from dicomnode.bundle import Bundle
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
    Points,
    Prediction,
    ProbabilityMap,
    Registration,
)
from dicomnode.results import layers
from dicomnode.results.layers import Numbered
from dicomnode.volume import Images, Volume

#: Answers that a DICOM Segmentation holds.
Segmented = LabelMap | Masks
#: Answers that stand in the report alone.
Reported = Boxes | Points | Classification | Numbers
#: Answers that objects of their own hold, and the report names.
Beside = HeatMap | ProbabilityMap | DerivedImage | Registration

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


def reported(prediction: Prediction) -> tuple[Reported, ...]:
    """The answers that stand in the report alone, in order."""
    kinds = (Boxes, Points, Classification, Numbers)
    return tuple(one for one in prediction.answers if isinstance(one, kinds))


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
    _require_belonging(prediction)
    manifest = model.manifest
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


def _require_belonging(prediction: Prediction) -> None:
    first = prediction.subject.header
    for other in prediction.also_shown:
        for keyword, reason in _ONE_FOR_ALL_INPUTS.items():
            if other.header.get(keyword) != first.get(keyword):
                raise UnsuitableSeries(reason, f"{keyword} is not the same in all inputs.")


def _require_sound(answer: Answer, prediction: Prediction, model: Bundle) -> None:
    if isinstance(answer, Reported | Beside):
        return
    shape = _shape(answer, prediction)
    if answer.array.shape[-len(shape) :] != shape or answer.array.ndim != _axes(answer, shape):
        raise ModelFailed(
            "wrong-grid", f"{answer.output} has the shape {answer.array.shape}, the image {shape}."
        )
    _require_known(answer, layers.numbered(model, answer.output))


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
    unknown = sorted(set(np.flatnonzero(np.bincount(answer.array.ravel())).tolist()) - known - {0})
    if unknown:
        raise ModelFailed(
            "unknown-label", f"{answer.output} has labels that its manifest has not: {unknown[:5]}."
        )


def _shape(answer: Segmented, prediction: Prediction) -> tuple[int, ...]:
    """Of what the answer is about: a volume, or one of several images."""
    subject = prediction.subject
    if isinstance(subject, Volume):
        return subject.array.shape
    if not isinstance(subject, Images) or answer.frame is None:
        raise ModelFailed("wrong-outputs", f"{answer.output} is about no image.")
    return subject.frames[answer.frame].array.shape[:2]


def _axes(answer: Segmented, shape: tuple[int, ...]) -> int:
    return len(shape) + isinstance(answer, Masks)


def silent(prediction: Prediction) -> Iterator[str]:
    """Sentences about what could not be said."""
    for output, why in prediction.silent.items():
        yield f"{output}: {why}"
