"""Frames on the frames of a source: where each lies, and what it was made of.

Every frame of a result lies on exactly one frame of what the model was shown, corner on corner, and
names it. So a viewer can lay one on the other without calculating anything. Of images that do not
say where they lie, the reference is all there is (PS3.3 A.51.5.1, C.7.6.16).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydicom import Dataset
from pydicom.tag import Tag

from dicomnode.bundle import Code
from dicomnode.prediction import Prediction
from dicomnode.results import common
from dicomnode.results.part import Part
from dicomnode.volume import Images, Picture, SliceSource, Volume

_SOURCE = Code(value="121322", scheme="DCM", meaning="Source image for image processing operation")
_STACK = "1"  # Stack ID of frames that have no place in the patient


@dataclass(frozen=True, kw_only=True)
class Plane:
    """Where a frame lies: DICOM's own attributes of it, in mm."""

    position: tuple[float, ...]
    orientation: tuple[float, ...]
    pixel_spacing: tuple[float, float]
    thickness: float | None
    distance: float | None


@dataclass(frozen=True, kw_only=True)
class Frames:
    """The source's frames that a result lies on, in their order.

    Attributes:
        rows, columns: Of each of them.
        space: Frame of Reference UID; "" where they do not say where they lie.
        series_instance_uid: Their series.
        planes: Where each of them lies; `None` where it does not say.
        turned: Patient Orientation (0020,0020), where it is the same of all; else empty.
    """

    sources: tuple[SliceSource, ...]
    rows: int
    columns: int
    space: str
    series_instance_uid: str
    planes: tuple[Plane | None, ...]
    turned: tuple[str, ...] = ()

    @property
    def has_places(self) -> bool:
        """Whether the frames say where they lie."""
        return bool(self.space)

    @property
    def instances(self) -> tuple[SliceSource, ...]:
        """One source for each instance, in order."""
        return tuple({one.sop_instance_uid: one for one in self.sources}.values())


def of(prediction: Prediction, part: Part) -> Frames:
    """The frames that an object is about.

    Raises:
        TypeError: The model was shown a slide.
    """
    subject = prediction.subject
    series = str(subject.header.SeriesInstanceUID)
    if isinstance(subject, Volume):
        _, rows, columns = subject.array.shape
        return Frames(
            sources=subject.sources,
            rows=rows,
            columns=columns,
            space=subject.frame_of_reference_uid,
            series_instance_uid=series,
            planes=tuple(_of_slice(subject, source) for source in subject.sources),
        )
    if not isinstance(subject, Images):
        raise TypeError(f"frames do not lie on a {type(subject).__name__}")
    pictures = [subject.frames[number] for number in part.frames]
    planes = tuple(_of_picture(one) for one in pictures)
    rows, columns = pictures[0].array.shape[:2]
    spaces = {str(one.header.get("FrameOfReferenceUID")) for one in pictures}
    is_placed = all(plane is not None for plane in planes) and len(spaces) == 1
    turned = {_turned(one) for one in pictures}
    return Frames(
        sources=tuple(one.source for one in pictures),
        rows=rows,
        columns=columns,
        space=spaces.pop() if is_placed else "",
        series_instance_uid=series,
        planes=planes if is_placed else (None,) * len(planes),
        turned=turned.pop() if len(turned) == 1 else (),
    )


def _of_slice(volume: Volume, source: SliceSource) -> Plane:
    return Plane(
        position=_position(source),
        orientation=volume.orientation,
        pixel_spacing=volume.pixel_spacing,
        thickness=volume.slice_thickness or volume.slice_distance,
        distance=volume.slice_distance,
    )


def _of_picture(picture: Picture) -> Plane | None:
    if picture.affine is None or picture.pixel_spacing is None:
        return None
    down, right = picture.affine[:3, 1], picture.affine[:3, 2]
    cosines = [*(right / np.linalg.norm(right)), *(down / np.linalg.norm(down))]
    return Plane(
        position=_position(picture.source),
        orientation=tuple(map(float, cosines)),
        pixel_spacing=picture.pixel_spacing,
        thickness=_thickness(picture),
        distance=None,
    )


def _turned(picture: Picture) -> tuple[str, ...]:
    """Patient Orientation of an image: of its rows and of its columns."""
    value = picture.header.get("PatientOrientation")
    return () if value is None or isinstance(value, str) else tuple(value)


def _thickness(picture: Picture) -> float | None:
    """Slice Thickness in mm, where the image or its frame says."""
    header, number = picture.header, picture.source.frame_number
    groups = [
        *header.get("SharedFunctionalGroupsSequence", ()),
        *header.get("PerFrameFunctionalGroupsSequence", ())[number - 1 : number],
    ]
    measures = [one for group in groups for one in group.get("PixelMeasuresSequence", ())]
    said = [float(one.get("SliceThickness") or 0) for one in (*measures, header)]
    return next((thickness for thickness in said if thickness > 0), None)


def _position(source: SliceSource) -> tuple[float, float, float]:
    if source.position is None:
        raise TypeError("a frame with a place has a position")
    return source.position


def lay(
    dataset: Dataset,
    frames: Frames,
    order: Sequence[tuple[int, Dataset | None]],
    *,
    organization_uid: str,
    derivation: Code,
    segments: Sequence[int] = (),
) -> None:
    """Say of each frame of a multi-frame object where it lies and what it was made of.

    Args:
        dataset: The object.
        frames: The source's frames.
        order: For each frame of the object: which of `frames` it lies on, and further functional
            groups, which several may share.
        organization_uid: Of the dimensions (PS3.3 C.7.6.17).
        derivation: What was done (CID 7203).
        segments: Of a segmentation: the segment of each frame; the first dimension then.
    """
    dataset.NumberOfFrames = len(order)
    dataset.Rows, dataset.Columns = frames.rows, frames.columns
    if frames.has_places:
        dataset.FrameOfReferenceUID = frames.space
        dataset.PositionReferenceIndicator = None
    else:
        dataset.PatientOrientation = list(frames.turned) or None  # type 2C (PS3.3 C.7.6.1)
    refer(dataset, frames.instances, frames.series_instance_uid)
    shared = Dataset()
    is_shared = frames.has_places and len({_measures(plane) for plane in frames.planes}) == 1
    if is_shared:
        _measure(shared, frames.planes[0])
    dataset.SharedFunctionalGroupsSequence = [shared]
    # Frames on one frame of the source share what they say of it: there may be thousands.
    said = [
        _said_of(source, plane, derivation, is_measured=not is_shared)
        for source, plane in zip(frames.sources, frames.planes, strict=True)
    ]
    groups = []
    for number, (index, own) in enumerate(order):
        group = Dataset()
        group.update(said[index])
        group.update(own or {})
        content = Dataset()
        dimensions = [index + 1]
        if not frames.has_places:
            content.StackID = _STACK
            content.InStackPositionNumber = index + 1
        if segments:
            dimensions.insert(0, segments[number])
        content.DimensionIndexValues = dimensions
        group.FrameContentSequence = [content]
        groups.append(group)
    dataset.PerFrameFunctionalGroupsSequence = groups
    _organize(dataset, organization_uid, has_segments=bool(segments), placed=frames.has_places)


def _said_of(
    source: SliceSource, plane: Plane | None, derivation: Code, *, is_measured: bool
) -> Dataset:
    """The functional groups of any frame on a frame of the source: what it is of, where it lies."""
    groups = Dataset()
    groups.DerivationImageSequence = [_derivation(source, derivation)]
    if plane is not None:
        position = Dataset()
        position.ImagePositionPatient = [common.decimal(v) for v in plane.position]
        groups.PlanePositionSequence = [position]
        if is_measured:
            _measure(groups, plane)
    return groups


def _measures(plane: Plane | None) -> tuple[object, ...]:
    if plane is None:
        return ()
    return (plane.orientation, plane.pixel_spacing, plane.thickness, plane.distance)


def _measure(group: Dataset, plane: Plane | None) -> None:
    """Plane Orientation and Pixel Measures (PS3.3 C.7.6.16.2.1 and .4)."""
    if plane is None:
        return
    orientation, measures = Dataset(), Dataset()
    orientation.ImageOrientationPatient = [common.decimal(v) for v in plane.orientation]
    measures.PixelSpacing = [common.decimal(v) for v in plane.pixel_spacing]
    if plane.thickness is not None:
        measures.SliceThickness = common.decimal(plane.thickness)
    if plane.distance is not None:
        measures.SpacingBetweenSlices = common.decimal(plane.distance)
    group.PlaneOrientationSequence = [orientation]
    group.PixelMeasuresSequence = [measures]


def _derivation(source: SliceSource, code: Code) -> Dataset:
    """Derivation Image (PS3.3 C.7.6.16.2.6)."""
    image = as_source(source)
    if source.is_multiframe:
        image.ReferencedFrameNumber = source.frame_number
    item = Dataset()
    item.SourceImageSequence = [image]
    item.DerivationCodeSequence = [common.code_item(code)]
    return item


def as_source(source: SliceSource) -> Dataset:
    """An item of Source Image Sequence, of all frames of an instance (PS3.3 C.12.4)."""
    image = point_at(Dataset(), source)
    image.SpatialLocationsPreserved = "YES"
    image.PurposeOfReferenceCodeSequence = [common.code_item(_SOURCE)]
    return image


def refer(dataset: Dataset, instances: Sequence[SliceSource], series_instance_uid: str) -> None:
    """Name every source: General Reference and Common Instance Reference (PS3.3 C.12.4, C.12.2)."""
    dataset.SourceImageSequence = [point_at(Dataset(), one) for one in instances]
    of_series = Dataset()
    of_series.SeriesInstanceUID = series_instance_uid
    of_series.ReferencedInstanceSequence = [point_at(Dataset(), one) for one in instances]
    dataset.ReferencedSeriesSequence = [of_series]


def point_at(item: Dataset, source: SliceSource) -> Dataset:
    """Let an item of a sequence refer to the instance of a source; gives the item."""
    item.ReferencedSOPClassUID = source.sop_class_uid
    item.ReferencedSOPInstanceUID = source.sop_instance_uid
    return item


def _organize(dataset: Dataset, uid: str, *, has_segments: bool, placed: bool) -> None:
    """Multi-frame Dimension (PS3.3 C.7.6.17)."""
    organization = Dataset()
    organization.DimensionOrganizationUID = uid
    dataset.DimensionOrganizationSequence = [organization]
    place = (
        ("ImagePositionPatient", "PlanePositionSequence", "Image Position Patient")
        if placed
        else ("InStackPositionNumber", "FrameContentSequence", "In-Stack Position Number")
    )
    segment = (
        "ReferencedSegmentNumber",
        "SegmentIdentificationSequence",
        "Referenced Segment Number",
    )
    dataset.DimensionIndexSequence = [
        _dimension(uid, *one) for one in ([segment, place] if has_segments else [place])
    ]


def _dimension(uid: str, pointer: str, group: str, label: str) -> Dataset:
    item = Dataset()
    item.DimensionOrganizationUID = uid
    item.DimensionIndexPointer = Tag(pointer)
    item.FunctionalGroupPointer = Tag(group)
    item.DimensionDescriptionLabel = label
    return item
