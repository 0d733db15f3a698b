"""A map of a slide's patches, laid on the slide: one frame, a pixel for each patch.

=============  ===================================================================================
where          Total Pixel Matrix Origin and Image Orientation (Slide) (PS3.3 C.8.12.14), the
               Frame of Reference of the slide
its pixels     the patches: Pixel Spacing is that of the finest level times the patches' step
=============  ===================================================================================

The origin of a level is where the centre of its first pixel lies. Many makers write one origin for
all levels of a pyramid, and viewers lay levels on each other by their first corners; a map is laid
as the levels of its own slide are.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.tag import Tag

from dicomnode.bundle import Code
from dicomnode.prediction import ProbabilityMap
from dicomnode.results import common
from dicomnode.results.writing import multiframe
from dicomnode.volume import Slide

_OFFSETS = tuple(f"{axis}OffsetInSlideCoordinateSystem" for axis in "XYZ")
_DIMENSIONS = ("ColumnPositionInTotalImagePixelMatrix", "RowPositionInTotalImagePixelMatrix")


def lay(
    dataset: Dataset,
    slide: Slide,
    answer: ProbabilityMap,
    *,
    organization_uid: str,
    derivation: Code,
) -> None:
    """Say where a map lies, and what it was made of.

    Args:
        dataset: The object, of one frame.
        slide: Whose levels say where they lie (`plan` asks for no other).
        answer: The map, with its step and origin in pixels of the finest level.
        organization_uid: Of the dimensions (PS3.3 C.7.6.17).
        derivation: What was done (CID 7203).
    """
    header = slide.header
    dataset.NumberOfFrames = 1
    dataset.Rows, dataset.Columns = answer.array.shape[-2:]
    dataset.TotalPixelMatrixRows, dataset.TotalPixelMatrixColumns = answer.array.shape[-2:]
    dataset.DimensionOrganizationType = "TILED_SPARSE"
    dataset.FrameOfReferenceUID = header.FrameOfReferenceUID
    dataset.PositionReferenceIndicator = header.get("PositionReferenceIndicator") or "SLIDE_CORNER"
    dataset.ImageOrientationSlide = header.ImageOrientationSlide
    offsets = dict(zip(_OFFSETS, map(common.decimal, _origin(slide, answer)), strict=True))
    origin = Dataset()
    for keyword in _OFFSETS[:2]:
        setattr(origin, keyword, offsets[keyword])
    dataset.TotalPixelMatrixOriginSequence = [origin]
    dataset.SharedFunctionalGroupsSequence = [_measured(slide, answer)]
    frame = Dataset()
    position = Dataset()
    for keyword, offset in offsets.items():
        setattr(position, keyword, offset)
    for keyword in _DIMENSIONS:
        setattr(position, keyword, 1)
    frame.PlanePositionSlideSequence = [position]
    content = Dataset()
    content.DimensionIndexValues = [1, 1]
    frame.FrameContentSequence = [content]
    derived = Dataset()
    derived.SourceImageSequence = [multiframe.as_source(one) for one in slide.sources]
    derived.DerivationCodeSequence = [common.code_item(derivation)]
    frame.DerivationImageSequence = [derived]
    dataset.PerFrameFunctionalGroupsSequence = [frame]
    _organize(dataset, organization_uid)
    multiframe.refer(dataset, slide.sources, str(header.SeriesInstanceUID))


def _measured(slide: Slide, answer: ProbabilityMap) -> Dataset:
    shared, measures = Dataset(), Dataset()
    spacing = np.multiply(slide.levels[0].spacing, _step(answer))
    measures.PixelSpacing = [common.decimal(value) for value in spacing.tolist()]
    thickness = (
        slide.header.SharedFunctionalGroupsSequence[0]
        .PixelMeasuresSequence[0]
        .get("SliceThickness")
    )
    if thickness is not None:
        measures.SliceThickness = thickness
    shared.PixelMeasuresSequence = [measures]
    return shared


def _origin(slide: Slide, answer: ProbabilityMap) -> list[float]:
    """Where the map's first pixel lies: mm in the Slide Coordinate System."""
    finest = slide.levels[0].spacing
    origin = _level_origin(slide.header) + _way(slide, np.multiply(answer.origin, finest))
    if _is_by_centres(slide):
        origin += _way(slide, np.multiply(finest, np.subtract(_step(answer), 1) / 2))
    placed: list[float] = origin.tolist()
    return placed


def _step(answer: ProbabilityMap) -> tuple[float, float]:
    if answer.step is None:
        raise TypeError("a map of a slide has a step")
    return answer.step


def _is_by_centres(slide: Slide) -> bool:
    """Whether the origins of a slide's levels are those of their first pixels' centres.

    Then that of the coarsest lies further in than the finest's by half of what its pixels are
    larger.
    """
    finest, coarsest = slide.levels[0], slide.levels[-1]
    moved = _level_origin(coarsest.header) - _level_origin(finest.header)
    grown = _way(slide, np.subtract(coarsest.spacing, finest.spacing) / 2)
    return bool(np.linalg.norm(moved - grown) < np.linalg.norm(grown) / 2)


def _level_origin(header: Dataset) -> NDArray[np.float64]:
    item = header.TotalPixelMatrixOriginSequence[0]
    return np.array([float(item.get(keyword) or 0) for keyword in _OFFSETS])


def _way(slide: Slide, steps: NDArray[np.float64]) -> NDArray[np.float64]:
    """A way of so many mm to the next rows and to the next columns, in the slide's coordinates."""
    cosines = np.array(slide.header.ImageOrientationSlide, dtype=np.float64)
    way: NDArray[np.float64] = cosines[3:] * steps[0] + cosines[:3] * steps[1]
    return way


def _organize(dataset: Dataset, uid: str) -> None:
    """Multi-frame Dimension (PS3.3 C.7.6.17)."""
    organization = Dataset()
    organization.DimensionOrganizationUID = uid
    dataset.DimensionOrganizationSequence = [organization]
    items = []
    for keyword in _DIMENSIONS:
        item = Dataset()
        item.DimensionOrganizationUID = uid
        item.DimensionIndexPointer = Tag(keyword)
        item.FunctionalGroupPointer = Tag("PlanePositionSlideSequence")
        items.append(item)
    dataset.DimensionIndexSequence = items
