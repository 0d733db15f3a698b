"""Reads the numbers of a parametric map back, and compares them with what the model said."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from dicomnode.bundle import ClassificationOutput, Code, Finding, HeatMapOutput
from dicomnode.prediction import HeatMap, ProbabilityMap
from dicomnode.results import layers
from dicomnode.results.checking import places, slide_map
from dicomnode.results.checking.expected import Expected, has_code, require
from dicomnode.results.part import Part
from dicomnode.volume import Slide

_QUANTITY = Code(value="246205007", scheme="SCT", meaning="Quantity")
_FINDING = Code(value="121071", scheme="DCM", meaning="Finding")
_SITE = Code(value="363698007", scheme="SCT", meaning="Finding Site")
_PROBABILITY = Code(value="110854", scheme="DCM", meaning="Fractional Probabilistic Segmentation")
_SALIENCY = Code(value="130404", scheme="DCM", meaning="Saliency")
_GRADCAM = Code(value="130403", scheme="DCM", meaning="Gradient-weighted class activation")
_NO_UNITS = Code(value="1", scheme="UCUM", meaning="no units")
_BITS = 32

_Map = ProbabilityMap | HeatMap


def check(dataset: Dataset, part: Part, expected: Expected) -> None:
    """Check that each number is the model's, lies where its voxel lies, and means what it means.

    Raises:
        ResultMismatch: The map says something else, or lies elsewhere.
    """
    answers = _answers(part, expected)
    _check_encoding(dataset)
    if isinstance(expected.prediction.subject, Slide):
        slide_map.check(dataset, answers[0], expected)
        where = [0]
    else:
        where = places.check(dataset, part, expected)
    values = [_planes(answer, part, expected) for answer in answers]
    meant = np.concatenate([one.reshape(-1, *one.shape[-2:]) for one in values])
    require(
        where == list(range(len(meant))),
        "frames-differ",
        "The frames are not those of the source, in order.",
    )
    found = np.frombuffer(dataset.FloatPixelData, dtype="<f4").reshape(meant.shape)
    padding = dataset.get("FloatPixelPaddingValue")
    require(
        padding == dataset.get("FloatPixelPaddingRangeLimit") and _is_same(found, meant, padding),
        "map-differs",
        "The numbers of the map are not what the model gave.",
    )
    for index, frame in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        answer = answers[index] if part.frames else answers[0]
        _check_meaning(_mapping(dataset, frame), answer, part, expected)


def _answers(part: Part, expected: Expected) -> list[_Map]:
    own = [
        one
        for one in expected.prediction.answers
        if one.output == part.output and isinstance(one, ProbabilityMap | HeatMap)
    ]
    if not part.frames:
        return own
    return [next(one for one in own if one.frame == frame) for frame in part.frames]


def _planes(answer: _Map, part: Part, expected: Expected) -> NDArray[np.float32]:
    """The numbers that the object is about: shape (frames, rows, columns) or (rows, columns)."""
    if isinstance(answer, HeatMap):
        return answer.array
    items = layers.numbered(expected.bundle, part.output)
    labels = [str(item.segment.label) for item in items]
    planes: NDArray[np.float32] = answer.array[labels.index(part.variant)]
    return planes


def _is_same(found: NDArray[np.float32], meant: NDArray[np.float32], padding: float | None) -> bool:
    """Whether all numbers are equal, bit for bit; where there is none, there is the padding."""
    is_known = np.isfinite(meant)
    if is_known.all():
        return padding is None and bool(np.array_equal(found, meant))
    if padding is None or not padding < 0:
        return False
    return bool(
        np.array_equal(found[is_known], meant[is_known])
        and (found[~is_known] == np.float32(padding)).all()
    )


def _check_encoding(dataset: Dataset) -> None:
    require(
        (dataset.BitsAllocated, dataset.SamplesPerPixel) == (_BITS, 1)
        and dataset.PhotometricInterpretation == "MONOCHROME2"
        and dataset.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
        and "PixelData" not in dataset,
        "encoding-differs",
        "The map does not hold numbers of 32 bits.",
    )
    shared = dataset.SharedFunctionalGroupsSequence[0]
    values = shared.PixelValueTransformationSequence[0]
    require(
        (values.RescaleSlope, values.RescaleIntercept) == (1, 0)
        and list(dataset.ImageType[:2]) == ["DERIVED", "PRIMARY"]
        and shared.ParametricMapFrameTypeSequence[0].FrameType == dataset.ImageType
        and dataset.ContentQualification == "RESEARCH",
        "encoding-differs",
        "The map does not say that its numbers are as they are, derived, and for research.",
    )


def _mapping(dataset: Dataset, frame: Dataset) -> Dataset:
    """The one Real World Value Mapping of a frame: its own, or the shared one."""
    found: list[Dataset] = [
        item
        for groups in (frame, dataset.SharedFunctionalGroupsSequence[0])
        for item in groups.get("RealWorldValueMappingSequence", ())
    ]
    require(len(found) == 1, "meaning-differs", "A frame has not one meaning.")
    return found[0]


def _check_meaning(item: Dataset, answer: _Map, part: Part, expected: Expected) -> None:
    require(
        (item.RealWorldValueSlope, item.RealWorldValueIntercept) == (1, 0)
        and item.DoubleFloatRealWorldValueFirstValueMapped == 0
        and item.DoubleFloatRealWorldValueLastValueMapped == 1
        and has_code(item.MeasurementUnitsCodeSequence, _NO_UNITS),
        "meaning-differs",
        "The numbers are said to be others than those from 0 to 1 that they are.",
    )
    name, meant = _meant(answer, part, expected)
    pairs = item.QuantityDefinitionSequence
    require(
        len(pairs) == len(meant)
        and all(
            has_code(pair.ConceptNameCodeSequence, one)
            and has_code(pair.ConceptCodeSequence, other)
            for pair, (one, other) in zip(pairs, meant, strict=True)
        )
        and item.LUTExplanation == name,
        "meaning-differs",
        "The map is said to be of another finding, or of another kind.",
    )


def _meant(answer: _Map, part: Part, expected: Expected) -> tuple[str, Sequence[tuple[Code, Code]]]:
    """What the manifest calls what is mapped, and the codes that say it."""
    outputs = expected.bundle.manifest.outputs
    if isinstance(answer, ProbabilityMap):
        finding = _finding(part, expected)
        site = [(_SITE, finding.anatomic_region)] if finding.anatomic_region else []
        return finding.name, [(_QUANTITY, _PROBABILITY), (_FINDING, finding.type), *site]
    output, of = outputs[part.output], outputs[answer.of]
    if not isinstance(of, ClassificationOutput):
        raise TypeError(answer.of)
    is_gradcam = isinstance(output, HeatMapOutput) and output.method == "gradcam"
    quantity = _GRADCAM if is_gradcam else _SALIENCY
    explained = of.classes[answer.explains]
    return explained.name, [(_QUANTITY, quantity), (_FINDING, explained.code)]


def _finding(part: Part, expected: Expected) -> Finding:
    items = layers.numbered(expected.bundle, part.output)
    return next(item.segment for item in items if str(item.segment.label) == part.variant)
