"""A map of one output as a Parametric Map (PS3.3 A.75): the model's own 32-bit numbers.

=============  =================================================================================
probabilities  one object for each finding; of CID 7180 "Fractional Probabilistic Segmentation"
heat map       one object; "Saliency", or what the method that made it is called there
=============  =================================================================================

On the frames of a source each frame of the map lies on one of theirs (`multiframe`). On a slide the
map is one frame with a pixel for each patch: a further, coarse level of the slide's pyramid, in its
Slide Coordinate System (PS3.3 C.8.12.2). A patch that was not looked at has `NOT_SEEN` there.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import ParametricMapStorage

from dicomnode.bundle import ClassificationOutput, Code, HeatMapOutput
from dicomnode.prediction import HeatMap, ProbabilityMap
from dicomnode.results import common, layers
from dicomnode.results.common import Run
from dicomnode.results.part import Part
from dicomnode.results.writing import multiframe, slide_map
from dicomnode.volume import Images, Slide, Volume

#: Float Pixel Padding Value: of patches that were not looked at. No probability is below 0.
NOT_SEEN = -1.0

# Derivation: CID 7203, which has nothing for a heat map and may be extended.
_SEGMENTATION = Code(value="113076", scheme="DCM", meaning="Segmentation")
_CALCULATED = Code(value="112187", scheme="DCM", meaning="Unspecified method of calculation")

# What a number means: CID 7180, as a value of "Quantity" (PS3.3 C.7.6.16.2.11).
_QUANTITY = Code(value="246205007", scheme="SCT", meaning="Quantity")
_FINDING = Code(value="121071", scheme="DCM", meaning="Finding")
_SITE = Code(value="363698007", scheme="SCT", meaning="Finding Site")
_PROBABILITY = Code(value="110854", scheme="DCM", meaning="Fractional Probabilistic Segmentation")
_SALIENCY = Code(value="130404", scheme="DCM", meaning="Saliency")
_GRADCAM = Code(value="130403", scheme="DCM", meaning="Gradient-weighted class activation")
_NO_UNITS = Code(value="1", scheme="UCUM", meaning="no units")

_Map = ProbabilityMap | HeatMap


def build(run: Run, part: Part) -> Dataset:
    """Make the map of one finding, or the heat map of one output."""
    answers = _answers(run, part)
    dataset = _header(run, answers[0])
    common.complete(dataset, run, part)
    meanings = [_meaning(run, part, answer) for answer in answers]
    dataset.ContentDescription = meanings[0].LUTExplanation
    if isinstance(run.prediction.subject, Slide):
        values = _lay_on_slide(dataset, run, part, run.prediction.subject)
    else:
        values = _lay_on_frames(dataset, run, part, meanings)
    shared = dataset.SharedFunctionalGroupsSequence[0]
    if len(set(map(str, meanings))) == 1:
        shared.RealWorldValueMappingSequence = [meanings[0]]
    _share(shared, dataset)
    dataset.FloatPixelData = np.ascontiguousarray(values, dtype="<f4").tobytes()
    return dataset


def _answers(run: Run, part: Part) -> list[_Map]:
    """The answers that the object holds: of images one for each, in the order of `part.frames`."""
    found = [
        one
        for one in run.prediction.answers
        if one.output == part.output and isinstance(one, ProbabilityMap | HeatMap)
    ]
    if not part.frames:
        return found
    by_frame = {one.frame: one for one in found}
    return [by_frame[frame] for frame in part.frames]


def _header(run: Run, answer: _Map) -> Dataset:
    """Parametric Map Series and Image (PS3.3 C.8.32.1, C.8.32.2), Floating Point Image Pixel."""
    dataset = common.new(ParametricMapStorage)
    dataset.Modality = "OT"
    dataset.ImageType = ["DERIVED", "PRIMARY", _flavor(run), "QUANTITY"]
    dataset.ContentLabel = "PROBABILITY" if isinstance(answer, ProbabilityMap) else "HEAT_MAP"
    dataset.ContentCreatorName = None  # type 2 (PS3.3 Table 10-12): nobody drew this
    dataset.ContentQualification = "RESEARCH"
    dataset.AcquisitionContextSequence = []
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.PresentationLUTShape = "IDENTITY"
    dataset.PixelPresentation = "MONOCHROME"
    dataset.BitsAllocated = 32
    dataset.BurnedInAnnotation = dataset.RecognizableVisualFeatures = "NO"
    common.say_lossiness(dataset, run.header)
    return dataset


def _flavor(run: Run) -> str:
    """Value 3 of Image Type (PS3.3 C.8.16.1.3)."""
    subject = run.prediction.subject
    if isinstance(subject, Images):
        return "DYNAMIC" if subject.form == "cine" else "STATIC"
    return "VOLUME"


def _share(shared: Dataset, dataset: Dataset) -> None:
    """What all frames have in common: their type, and that a number is shown as it is."""
    frame_type, values, window = Dataset(), Dataset(), Dataset()
    frame_type.FrameType = dataset.ImageType
    values.RescaleIntercept, values.RescaleSlope, values.RescaleType = 0, 1, "US"
    # LINEAR_EXACT: the other linear function cannot have a window of width 1 (C.11.2.1.3.2).
    window.WindowCenter, window.WindowWidth = "0.5", "1"
    window.VOILUTFunction = "LINEAR_EXACT"
    shared.ParametricMapFrameTypeSequence = [frame_type]
    shared.PixelValueTransformationSequence = [values]
    shared.FrameVOILUTSequence = [window]


def _meaning(run: Run, part: Part, answer: _Map) -> Dataset:
    """What the numbers mean: an item of Real World Value Mapping (PS3.3 C.7.6.16.2.11)."""
    item = Dataset()
    item.RealWorldValueSlope, item.RealWorldValueIntercept = 1.0, 0.0
    item.DoubleFloatRealWorldValueFirstValueMapped = 0.0
    item.DoubleFloatRealWorldValueLastValueMapped = 1.0
    item.MeasurementUnitsCodeSequence = [common.code_item(_NO_UNITS)]
    if isinstance(answer, ProbabilityMap):
        finding = _numbered(run, part).segment
        item.LUTLabel, item.LUTExplanation = "Probability", finding.name
        quantity = [(_QUANTITY, _PROBABILITY), (_FINDING, finding.type)]
        if finding.anatomic_region is not None:
            quantity.append((_SITE, finding.anatomic_region))
    else:
        output = run.bundle.manifest.outputs[answer.of]
        if not isinstance(output, ClassificationOutput):
            raise TypeError(f"{answer.of} is no classification")
        explained = output.classes[answer.explains]
        item.LUTLabel, item.LUTExplanation = "Heat map", explained.name
        quantity = [(_QUANTITY, _method(run, part)), (_FINDING, explained.code)]
    item.QuantityDefinitionSequence = [_pair(*one) for one in quantity]
    return item


def _method(run: Run, part: Part) -> Code:
    """What a heat map is called, by what made it; of a bundle's own this is not known."""
    output = run.bundle.manifest.outputs[part.output]
    is_gradcam = isinstance(output, HeatMapOutput) and output.method == "gradcam"
    return _GRADCAM if is_gradcam else _SALIENCY


def _pair(name: Code, value: Code) -> Dataset:
    """A name and a value that is a code (PS3.3 Table 10-2)."""
    item = Dataset()
    item.ValueType = "CODE"
    item.ConceptNameCodeSequence = [common.code_item(name)]
    item.ConceptCodeSequence = [common.code_item(value)]
    return item


def _numbered(run: Run, part: Part) -> layers.Numbered:
    """The finding that the object is about."""
    for one in layers.numbered(run.bundle, part.output):
        if str(one.segment.label) == part.variant:
            return one
    raise TypeError(f"{part.output} has no finding {part.variant}")


def _plane_or_planes(run: Run, part: Part, answer: _Map) -> NDArray[np.float32]:
    if isinstance(answer, HeatMap):
        return answer.array
    planes: NDArray[np.float32] = answer.array[_numbered(run, part).number - 1]
    return planes


def _lay_on_frames(
    dataset: Dataset, run: Run, part: Part, meanings: Sequence[Dataset]
) -> NDArray[np.float32]:
    """Lay the map on the frames of a volume or of images; gives shape (frames, rows, columns)."""
    answers = _answers(run, part)
    values = [_plane_or_planes(run, part, answer) for answer in answers]
    stacked = values[0] if isinstance(run.prediction.subject, Volume) else np.stack(values)
    is_shared = len(set(map(str, meanings))) == 1
    order = [(index, None if is_shared else _own(meanings[index])) for index in range(len(stacked))]
    multiframe.lay(
        dataset,
        multiframe.of(run.prediction, part),
        order,
        organization_uid=part.other_uid(run.key, "dimensions"),
        derivation=_SEGMENTATION if isinstance(answers[0], ProbabilityMap) else _CALCULATED,
    )
    return stacked


def _own(meaning: Dataset) -> Dataset:
    """A heat map of several images may explain another class on each."""
    group = Dataset()
    group.RealWorldValueMappingSequence = [meaning]
    return group


def _lay_on_slide(dataset: Dataset, run: Run, part: Part, slide: Slide) -> NDArray[np.float32]:
    """Lay the map on a slide; gives shape (rows, columns)."""
    (answer,) = _answers(run, part)
    if not isinstance(answer, ProbabilityMap) or answer.step is None:
        raise TypeError("a slide has maps of patches alone")
    values = _plane_or_planes(run, part, answer)
    values = np.where(np.isfinite(values), values, np.float32(NOT_SEEN)).astype(np.float32)
    # A range of one value: validators ask for both ends of it.
    dataset.FloatPixelPaddingValue = dataset.FloatPixelPaddingRangeLimit = NOT_SEEN
    slide_map.lay(
        dataset,
        slide,
        answer,
        organization_uid=part.other_uid(run.key, "dimensions"),
        derivation=_SEGMENTATION,
    )
    return values
