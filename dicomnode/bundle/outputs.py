"""What a model answers: the kinds of answer, and the codes that each of their labels means."""

from __future__ import annotations

from typing import Annotated, Literal, Self, TypeVar

from pydantic import Field, field_validator, model_validator

from dicomnode.bundle.terms import Code, Color, Name, Strict

#: The frame that a model's coordinates are in: patient coordinates in mm, as DICOM has them (LPS)
#: or as NIfTI has them (RAS), or the indices of the image as the bundle's loader gave it: column,
#: row, slice.
Coordinates = Literal["lps", "ras", "index"]

Label = Annotated[int, Field(ge=1, le=65535)]


class Finding(Strict):
    """What one label of an answer means.

    Attributes:
        label: The number that stands for it. Of channels, the first is 1; of classes of a detector
            that counts from 0, see `BoxesOutput.first_class`.
        category: Segmented Property Category (CID 7150).
        type: What it is.
    """

    label: Label
    name: Name
    category: Code
    type: Code
    type_modifier: Code | None = None
    anatomic_region: Code | None = None
    laterality: Code | None = None
    color: Color


class Segment(Finding):
    """One label of a label map, or one channel of masks.

    Attributes:
        measure: The volume of a segment of a volume; the area of one of a single image, where the
            image says how large its pixels are.
    """

    measure: tuple[Literal["volume", "area"], ...] = ()


class _Output(Strict):
    """What all outputs share.

    Attributes:
        key: What the bundle's postprocessing calls it; left out, as the output is called.
    """

    key: Name | None = None


_Labelled = TypeVar("_Labelled", bound=Finding)


class LabelMapOutput(_Output):
    """One label for each voxel."""

    kind: Literal["label_map"]
    segments: Annotated[tuple[Segment, ...], Field(min_length=1)]

    @field_validator("segments")
    @classmethod
    def _labels_are_unique(cls, segments: tuple[Segment, ...]) -> tuple[Segment, ...]:
        return _unique(segments)


class MasksOutput(_Output):
    """A mask for each channel; they may overlap.

    Attributes:
        threshold: From which value on a voxel belongs to the mask.
    """

    kind: Literal["masks"]
    threshold: float = 0.5
    segments: Annotated[tuple[Segment, ...], Field(min_length=1)]

    @field_validator("segments")
    @classmethod
    def _labels_are_unique(cls, segments: tuple[Segment, ...]) -> tuple[Segment, ...]:
        return _unique(segments)


class ProbabilityMapOutput(_Output):
    """A probability from 0 to 1 for each voxel (of a slide: each patch) and channel."""

    kind: Literal["probability_map"]
    findings: Annotated[tuple[Finding, ...], Field(min_length=1)]

    @field_validator("findings")
    @classmethod
    def _labels_are_unique(cls, findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
        return _unique(findings)


class BoxesOutput(_Output):
    """Boxes with scores and classes, along the axes of their coordinates.

    Attributes:
        scores: What postprocessing calls the scores.
        classes: What it calls the classes; left out, all boxes are of the one finding.
        first_class: The number that the model gives to the finding with label 1.
        mode: Lowest and highest corner ("corners": xyzxyz, xyxy), or centre and size ("center":
            cccwhd, ccwh).
        coordinates: Of a volume any; of an image "index".
        least_score: From which score on a box is an answer.
    """

    kind: Literal["boxes"]
    scores: Name
    classes: Name | None = None
    first_class: int = 0
    mode: Literal["corners", "center"] = "corners"
    coordinates: Coordinates
    least_score: Annotated[float, Field(ge=0, le=1)] = 0.5
    findings: Annotated[tuple[Finding, ...], Field(min_length=1)]

    @field_validator("findings")
    @classmethod
    def _labels_are_unique(cls, findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
        return _unique(findings)


class PointsOutput(_Output):
    """One point for each landmark, on each frame that the model was shown.

    Attributes:
        layout: The axes of the tensor: "points" (points, coordinates), or "axes" (coordinates,
            points); a third axis, of a cine, counts frames.
        coordinates: As of boxes.
    """

    kind: Literal["points"]
    layout: Literal["points", "axes"] = "points"
    coordinates: Coordinates
    landmarks: Annotated[tuple[Finding, ...], Field(min_length=1)]

    @field_validator("landmarks")
    @classmethod
    def _labels_are_unique(cls, landmarks: tuple[Finding, ...]) -> tuple[Finding, ...]:
        return _unique(landmarks)


class ClassOf(Strict):
    """One class that an image, a series or a study may be of.

    Attributes:
        code: What it is called.
        operating_point: From which probability on it is said to be so. Left out: where classes
            exclude each other, the most probable one is; else from 0.5 on.
    """

    name: Name
    code: Code
    operating_point: Annotated[float, Field(ge=0, le=1)] | None = None


class ClassificationOutput(_Output):
    """Which classes an image, a series or a study is of, and how probably.

    Attributes:
        concept: What is classified: the name of the answer (PS3.16 TID 1501, "Qualitative
            Evaluation").
        of: What is classified: each image alone, or all that was shown of a series or a study.
        combine: How the probabilities of images become those of a series or a study.
        activation: What makes probabilities of the model's numbers.
        exclusive: Whether exactly one class is right.
        calibration_temperature: What the logits are divided by before the activation.
    """

    kind: Literal["classification"]
    concept: Code
    of: Literal["image", "series", "study"] = "series"
    combine: Literal["mean", "max"] = "mean"
    activation: Literal["none", "sigmoid", "softmax"] = "none"
    exclusive: bool = True
    calibration_temperature: Annotated[float, Field(gt=0)] = 1.0
    classes: Annotated[tuple[ClassOf, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.calibration_temperature != 1.0 and self.activation == "none":
            raise ValueError("calibration_temperature: is of logits, and activation is none")
        names = [one.name for one in self.classes]
        if len(set(names)) != len(names):
            raise ValueError("classes: each name stands once")
        return self


class Quantity(Strict):
    """One number of a measurement.

    Attributes:
        unit: UCUM.
    """

    name: Name
    code: Code
    unit: Code
    anatomic_region: Code | None = None
    laterality: Code | None = None


class NumbersOutput(_Output):
    """Numbers with units, one tensor of them, in this order."""

    kind: Literal["numbers"]
    quantities: Annotated[tuple[Quantity, ...], Field(min_length=1)]


class HeatMapOutput(_Output):
    """Where a classification looked, from 0 to 1.

    Attributes:
        of: The classification output that it explains.
        method: Given by the bundle itself, or made by the node: by gradients (Grad-CAM) or by
            covering parts of the image and looking what changes (occlusion).
        layer: Of Grad-CAM: the module of the network whose activations are weighted.
        window: Of occlusion: the side of what is covered, in pixels of the network's input.
    """

    kind: Literal["heat_map"]
    of: Name
    method: Literal["bundle", "gradcam", "occlusion"] = "bundle"
    layer: Name | None = None
    window: Annotated[int, Field(ge=1)] = 16

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if (self.method == "gradcam") != (self.layer is not None):
            raise ValueError("layer: goes with the method gradcam, and with no other")
        return self


class ImageOutput(_Output):
    """An image made of the images: denoised, synthesised, registered.

    Attributes:
        derivation: What was done to it (Derivation Code Sequence, CID 7203).
        modality: Of the new series; left out, that of the source.
        unit: UCUM, of its values; left out, that of the source.
    """

    kind: Literal["image"]
    description: Name
    derivation: Code
    modality: Annotated[str, Field(pattern=r"^[A-Z0-9_ ]{1,16}$")] | None = None
    unit: Code | None = None


class RegistrationOutput(_Output):
    """Where another input lies in the space of the first: a matrix of 4 by 4.

    Attributes:
        moving: The input that is brought into the space of the first.
        coordinates: Of the matrix: patient coordinates as DICOM has them, or as NIfTI has them.
        direction: Whether it maps the moving input's coordinates to the first's, or the other way
            round, as resampling wants it.
    """

    kind: Literal["registration"]
    moving: Name
    coordinates: Literal["lps", "ras"]
    direction: Literal["moving_to_fixed", "fixed_to_moving"] = "moving_to_fixed"


Output = Annotated[
    LabelMapOutput
    | MasksOutput
    | ProbabilityMapOutput
    | BoxesOutput
    | PointsOutput
    | ClassificationOutput
    | NumbersOutput
    | HeatMapOutput
    | ImageOutput
    | RegistrationOutput,
    Field(discriminator="kind"),
]


def _unique(findings: tuple[_Labelled, ...]) -> tuple[_Labelled, ...]:
    labels = [one.label for one in findings]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise ValueError(f"each label stands once; more than once: {', '.join(map(str, twice))}")
    return findings
