"""What was found, drawn by the viewer itself: a Softcopy Presentation State (PS3.3 A.33).

Viewers that show no graphics of reports apply presentation states. Of monochrome images it is a
Grayscale Softcopy Presentation State (A.33.1), of colour ones a Color Softcopy Presentation State
(A.33.2). It refers to the images that something is drawn on, and to no others: on all else a viewer
shows what it always does.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from pydicom import Dataset
from pydicom.uid import (
    ColorSoftcopyPresentationStateStorage,
    GrayscaleSoftcopyPresentationStateStorage,
)

from dicomnode.results import common, presented
from dicomnode.results.common import Run, decimal
from dicomnode.results.part import Part
from dicomnode.results.writing import annotation, grayscale, icc
from dicomnode.volume import Images, SliceSource

CONTENT_LABEL = "AI FINDINGS"  # a CS: viewers list presentation states by it

_MICROMETRES = 1000  # of a millimetre


def build(run: Run, part: Part) -> Dataset:
    """Make the presentation state.

    Raises:
        RetryLater: A source's file could not be read just now.
    """
    found = presented.of(run.prediction, run.bundle, run.key)[part.variant]
    frames = sorted({region.frame for region in found})
    is_color = presented.kind(run.prediction, frames[0]) == presented.COLOR
    dataset = common.new(
        ColorSoftcopyPresentationStateStorage
        if is_color
        else GrayscaleSoftcopyPresentationStateStorage
    )
    dataset.Modality = "PR"
    dataset.ContentLabel = CONTENT_LABEL
    dataset.ContentDescription = run.bundle.series_description
    dataset.ContentCreatorName = None  # type 2 (C.11.10): nobody drew this
    series = Dataset()
    series.SeriesInstanceUID = run.header.SeriesInstanceUID
    series.ReferencedImageSequence = _references(run, frames)
    dataset.ReferencedSeriesSequence = [series]
    dataset.DisplayedAreaSelectionSequence = list(_areas(run, frames))
    if is_color:
        dataset.ICCProfile = icc.profile(run.prediction, frames)
    else:
        _put_grays(dataset, run, frames)
    layers = annotation.layers(found)
    dataset.GraphicLayerSequence = [*layers.values(), annotation.notice_layer(len(layers) + 1)]
    annotations = list(annotation.of(found, run.prediction, layers))
    for item, region in zip(annotations, found, strict=True):
        item.ReferencedImageSequence = _references(run, [region.frame])
    dataset.GraphicAnnotationSequence = [
        *annotations,
        annotation.notice(run.bundle.series_description),
    ]
    common.complete(dataset, run, part)
    dataset.PresentationCreationDate = dataset.ContentDate
    dataset.PresentationCreationTime = dataset.ContentTime
    # The modules of a presentation state have no such attributes (C.11.10).
    del dataset.ContentDate, dataset.ContentTime
    return dataset


def _references(run: Run, frames: Iterable[int]) -> list[Dataset]:
    """Images and, of multi-frame ones, frames (PS3.3 Table 10-3), in order."""
    named: dict[str, list[SliceSource]] = defaultdict(list)
    for frame in frames:
        source = run.prediction.subject.sources[frame]
        named[source.sop_instance_uid].append(source)
    items = []
    for sop_instance_uid, sources in named.items():
        item = Dataset()
        item.ReferencedSOPClassUID = sources[0].sop_class_uid
        item.ReferencedSOPInstanceUID = sop_instance_uid
        if sources[0].is_multiframe:
            item.ReferencedFrameNumber = [source.frame_number for source in sources]
        items.append(item)
    return items


def _areas(run: Run, frames: Sequence[int]) -> Iterator[Dataset]:
    r"""The displayed area of each image: all of it, in its true shape (C.10.4).

    Its corners are whole pixels; the first is 1\1.
    """
    sizes: dict[tuple[int, int, str, tuple[float, ...]], list[int]] = defaultdict(list)
    for frame in frames:
        keyword, shape = _shape(run, frame)
        sizes[(*presented.size(run.prediction, frame), keyword, shape)].append(frame)
    for (rows, columns, keyword, shape), alike in sizes.items():
        area = Dataset()
        if len(sizes) > 1:
            area.ReferencedImageSequence = _references(run, alike)
        area.DisplayedAreaTopLeftHandCorner = [1, 1]
        area.DisplayedAreaBottomRightHandCorner = [columns, rows]
        area.PresentationSizeMode = "SCALE TO FIT"
        setattr(area, keyword, [decimal(v) if isinstance(v, float) else v for v in shape])
        yield area


def _shape(run: Run, frame: int) -> tuple[str, tuple[float, ...]]:
    """The shape of an image's pixels: their size where it is that of the patient, else its ratio.

    A size from the plane of the detector would pass for one that can be measured with.
    """
    subject = run.prediction.subject
    if not isinstance(subject, Images):
        return "PresentationPixelSpacing", tuple(run.prediction.volume.pixel_spacing)
    picture = subject.frames[frame]
    spacing = picture.pixel_spacing
    if spacing is not None and (picture.affine is not None or "PixelSpacing" in picture.header):
        return "PresentationPixelSpacing", spacing
    ratio = picture.header.get("PixelAspectRatio") or (1, 1)
    if spacing is not None and spacing[0] != spacing[1]:
        ratio = tuple(round(value * _MICROMETRES) for value in spacing)
    return "PresentationPixelAspectRatio", (int(ratio[0]), int(ratio[1]))


def _put_grays(dataset: Dataset, run: Run, frames: Sequence[int]) -> None:
    """Modality LUT, VOI LUT and polarity (C.11.1, C.11.8, C.11.6)."""
    vois = grayscale.write(dataset, grayscale.of(run, frames))
    if vois:
        dataset.SoftcopyVOILUTSequence = list(_alike(vois, run, frames))
    # The Photometric Interpretation of the images plays no part any more (PS3.4 N.2.1.4).
    is_inverse = presented.kind(run.prediction, frames[0]) == presented.MONOCHROME1
    dataset.PresentationLUTShape = "INVERSE" if is_inverse else "IDENTITY"


def _alike(vois: Mapping[int, Dataset], run: Run, frames: Sequence[int]) -> Iterator[Dataset]:
    """One item for the frames that have the same window; each frame is in one."""
    same: dict[str, list[int]] = defaultdict(list)
    for frame, voi in vois.items():
        same[voi.to_json()].append(frame)
    for alike in same.values():
        item = vois[alike[0]]
        if len(alike) < len(frames):
            item.ReferencedImageSequence = _references(run, alike)
        yield item
