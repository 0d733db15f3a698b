"""Prediction and profiles → the objects that are made, in the order in which they are sent.

What is named comes before what names it: the report of everything is last. Who gets the report has
everything that it is about.

A parametric map must lie in a Frame of Reference (PS3.3 A.75.3: mandatory, of the patient or of a
slide). A radiograph or a photograph lies in none, and to invent one would be to say where in the
patient it is: of such images there is no map, and a heat map is seen in the capture alone. So it
is of a slide whose levels do not say where they lie.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence

from dicomnode.bundle import Bundle
from dicomnode.prediction import (
    Answer,
    DerivedImage,
    HeatMap,
    LabelMap,
    Masks,
    Prediction,
    ProbabilityMap,
    Registration,
)
from dicomnode.profile import Profile
from dicomnode.results import arrangement, layers, presented, regions
from dicomnode.results.layers import Layers
from dicomnode.results.part import Part
from dicomnode.volume import Images, Slide, Volume


def of(prediction: Prediction, bundle: Bundle, profiles: Sequence[Profile]) -> tuple[Part, ...]:
    """Every object that destinations of these profiles get, each once."""
    wanted: dict[Part, set[str]] = defaultdict(set)
    for profile in profiles:
        for part in _of_profile(prediction, bundle, profile):
            wanted[part].add(profile.digest)
    order = {kind: number for number, kind in enumerate(_ORDER)}
    parts = [
        Part(
            kind=part.kind,
            output=part.output,
            variant=part.variant,
            frames=part.frames,
            profiles=frozenset(digests),
        )
        for part, digests in wanted.items()
    ]
    return tuple(sorted(parts, key=lambda part: order[part.kind]))


_SQUARE = 1e-3  # relative
_ORDER = (
    "seg",
    "map",
    "image",
    "registration",
    "capture",
    "regions",
    "presentation",
    "key-images",
    "sr",
)


_OF_A_PLACED_SLIDE = (
    "FrameOfReferenceUID",
    "TotalPixelMatrixOriginSequence",
    "ImageOrientationSlide",
)


def _of_profile(prediction: Prediction, bundle: Bundle, profile: Profile) -> Iterator[Part]:
    outputs = dict.fromkeys(answer.output for answer in prediction.answers)
    for output in outputs:
        answers = [one for one in prediction.answers if one.output == output]
        for frames in _groups(prediction, answers):
            yield from _of_output(answers, prediction, bundle, frames, profile)
    if profile.capture and not isinstance(prediction.subject, Slide):
        yield Part(kind="capture")
    if regions.exist(prediction, bundle):
        yield from _drawn(prediction, bundle, profile)
    if profile.report:
        yield Part(kind="sr", variant=profile.digest)


def _drawn(prediction: Prediction, bundle: Bundle, profile: Profile) -> Iterator[Part]:
    """What shows regions of images."""
    if profile.regions and (profile.workarounds != "ohif" or _is_square(prediction)):
        yield Part(kind="regions", variant=profile.coordinates)
    if profile.presentation:
        for variant in presented.of(prediction, bundle):
            yield Part(kind="presentation", variant=variant)
    if profile.key_images:
        yield Part(kind="key-images")


def _is_square(prediction: Prediction) -> bool:
    """Whether all pixels are square: OHIF draws contours on others in the wrong place."""
    subject = prediction.subject
    every = [subject.pixel_spacing] if isinstance(subject, Volume) else []
    if isinstance(subject, Images):
        every = [one.pixel_spacing for one in subject.frames if one.pixel_spacing is not None]
    return all(math.isclose(rows, columns, rel_tol=_SQUARE) for rows, columns in every)


def _of_output(
    answers: Sequence[Answer],
    prediction: Prediction,
    bundle: Bundle,
    frames: tuple[int, ...],
    profile: Profile,
) -> Iterator[Part]:
    first, output = answers[0], answers[0].output
    if encoding := _encoding(first, prediction, bundle, frames, profile):
        yield Part(kind="seg", output=output, variant=encoding, frames=frames)
    elif isinstance(first, ProbabilityMap | HeatMap) and profile.maps:
        if _is_placed(prediction, frames):
            for label in _mapped(first, bundle):
                yield Part(kind="map", output=output, variant=label, frames=frames)
    elif isinstance(first, DerivedImage) and profile.images:
        yield Part(kind="image", output=output, frames=frames)
    elif isinstance(first, Registration) and profile.registrations:
        yield Part(kind="registration", output=output)


def _encoding(
    first: Answer,
    prediction: Prediction,
    bundle: Bundle,
    frames: tuple[int, ...],
    profile: Profile,
) -> str:
    """How the SEG of an output is encoded; "" where it has none."""
    if isinstance(first, LabelMap | Masks) and profile.segmentation != "none":
        is_map = profile.segmentation == "labelmap"
        if is_map and layers.of(prediction, bundle, first.output, frames).overlap:
            return "binary"
        if profile.segmentation == "binary" and profile.workarounds == "ohif":
            return _readable(layers.of(prediction, bundle, first.output, frames))
        return profile.segmentation
    # A SEG lies on frames of its source (`writing.multiframe`): the patches of a slide are none.
    is_on_frames = not isinstance(prediction.subject, Slide)
    if isinstance(first, ProbabilityMap) and profile.segmentation == "fractional" and is_on_frames:
        return "fractional"
    return ""


def _readable(segments: Layers) -> str:
    """How OHIF reads a binary SEG right; "" where it would show another one."""
    if arrangement.is_aligned(segments):
        return "binary"
    return "" if arrangement.aligned(segments) is None else "aligned"


def _mapped(answer: Answer, bundle: Bundle) -> list[str]:
    """What there is a map of: each finding by its label, or the one thing that a heat map shows."""
    if not isinstance(answer, ProbabilityMap):
        return [""]
    return [str(one.segment.label) for one in layers.numbered(bundle, answer.output)]


def _is_placed(prediction: Prediction, frames: Sequence[int]) -> bool:
    """Whether what an object is about lies in one Frame of Reference, and says where."""
    subject = prediction.subject
    if isinstance(subject, Slide):
        return all(
            level.header.get(keyword) for level in subject.levels for keyword in _OF_A_PLACED_SLIDE
        )
    if not isinstance(subject, Images):
        return True
    shown = [subject.frames[number] for number in frames]
    has_places = all(one.affine is not None and one.pixel_spacing for one in shown)
    return has_places and len({one.header.FrameOfReferenceUID for one in shown}) == 1


def _groups(prediction: Prediction, answers: Sequence[Answer]) -> list[tuple[int, ...]]:
    """The frames of images that one object can hold together: those of one size.

    Of a volume and of a slide there is one group, without numbers.
    """
    subject = prediction.subject
    if isinstance(subject, Volume | Slide) or not isinstance(subject, Images):
        return [()]
    sizes: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for answer in answers:
        if answer.frame is not None:
            sizes[subject.frames[answer.frame].array.shape[:2]].append(answer.frame)
    return [tuple(frames) for frames in sizes.values()]


def count(part: Part, prediction: Prediction) -> int:
    """How many objects a part is: of a series of images one for each frame, else one."""
    if part.kind != "image":
        return 1
    return len(part.frames) or len(prediction.subject.sources)
