"""Label maps, fractions, segments of images: faults that leave a readable object, all found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import examples
import numpy as np
import pictured
import pytest
from examples import Example
from made import BARE, Fault, Made, drops, make, sets, within
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import RLELossless

from dicomnode.volume import Images


def made(example: Example, folder: Path, encoding: str = "binary") -> Made:
    profile = BARE.with_choices({"segmentation": encoding})
    return make(folder, example.prediction, example.model, profile=profile)


def relabelled(change: Callable[[NDArray[Any]], NDArray[Any]]) -> Fault:
    """Another label map in the same encoding."""

    def fault(dataset: Dataset) -> None:
        labels = dataset.pixel_array.reshape(-1, dataset.Rows, dataset.Columns)
        changed = np.ascontiguousarray(change(labels.copy()), dtype=labels.dtype)
        dataset.compress(
            RLELossless, changed, encoding_plugin="pydicom", generate_instance_uid=False
        )

    return fault


def one_voxel(value: int) -> Fault:
    def change(labels: NDArray[Any]) -> NDArray[Any]:
        labels[0, 0, 0] = value
        return labels

    return relabelled(change)


def uncompressed(dataset: Dataset) -> None:
    dataset.decompress(generate_instance_uid=False)


def refilled(change: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]) -> Fault:
    """Other fractions."""

    def fault(dataset: Dataset) -> None:
        stored = np.frombuffer(dataset.PixelData, np.uint8).copy()
        dataset.PixelData = change(stored).tobytes()

    return fault


def two_steps_more(stored: NDArray[np.uint8]) -> NDArray[np.uint8]:
    stored[100] = stored[100] + 2 if stored[100] < 200 else stored[100] - 2
    return stored


def named(**attributes: Any) -> Fault:
    """Another image as the source of a frame."""
    path = ("PerFrameFunctionalGroupsSequence", 1, "DerivationImageSequence", 0,
            "SourceImageSequence", 0)  # fmt: skip
    return within(*path, then=sets(**attributes))


def without_places(dataset: Dataset) -> None:
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        del frame.PlanePositionSequence
    del dataset.FrameOfReferenceUID


def with_places(dataset: Dataset) -> None:
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        frame.PlanePositionSequence = [Dataset()]
        frame.PlanePositionSequence[0].ImagePositionPatient = [0, 0, 0]


def last_frame_dropped(dataset: Dataset) -> None:
    del dataset.PerFrameFunctionalGroupsSequence[-1]


PLACE = within(
    "PerFrameFunctionalGroupsSequence", 2, "PlanePositionSequence", 0,
    then=sets(ImagePositionPatient=[1.5, -2.5, 3]),
)  # fmt: skip
SPACING = within(
    "SharedFunctionalGroupsSequence", 0, "PixelMeasuresSequence", 0,
    then=sets(PixelSpacing=[1.5, 1.25]),
)  # fmt: skip
BACKGROUND = within("SegmentSequence", 0, then=sets(SegmentNumber=9))
OTHERWISE = within(
    "SegmentSequence", 0, "SegmentedPropertyTypeCodeSequence", 0, then=sets(CodeValue="85756007")
)


def no_background(dataset: Dataset) -> None:
    del dataset.SegmentSequence[0]


LABEL_MAP_FAULTS: dict[str, tuple[Fault, str]] = {
    "one voxel": (one_voxel(1), "mask-differs"),
    "a number that nothing has": (one_voxel(200), "mask-differs"),
    "mirrored along the rows": (relabelled(lambda labels: labels[:, :, ::-1]), "mask-differs"),
    "mirrored along the slices": (relabelled(lambda labels: labels[::-1]), "mask-differs"),
    "two segments swapped": (
        relabelled(lambda labels: np.array([0, 2, 1, 3, 4])[labels]), "mask-differs",
    ),
    "no background": (no_background, "segments-differ"),
    "a background of another number": (BACKGROUND, "segments-differ"),
    "a background of another meaning": (OTHERWISE, "segments-differ"),
    "uncompressed": (uncompressed, "encoding-differs"),
    "said to be bits": (sets(SegmentationType="BINARY"), "encoding-differs"),
    "said to overlap": (sets(SegmentsOverlap="YES"), "encoding-differs"),
    "another padding": (sets(PixelPaddingValue=1), "encoding-differs"),
    "no padding": (drops("PixelPaddingValue"), "encoding-differs"),
    "a frame too few": (last_frame_dropped, "frames-differ"),
}  # fmt: skip
FRACTION_FAULTS: dict[str, tuple[Fault, str]] = {
    "two steps more": (refilled(two_steps_more), "mask-differs"),
    "the other way round": (refilled(lambda stored: 255 - stored), "mask-differs"),
    "frames turned round": (refilled(lambda stored: stored[::-1]), "mask-differs"),
    "of another maximum": (sets(MaximumFractionalValue=200), "encoding-differs"),
    "said to be occupancy": (sets(SegmentationFractionalType="OCCUPANCY"), "encoding-differs"),
    "said to be bits": (sets(SegmentationType="BINARY"), "encoding-differs"),
}
PLACED_FAULTS: dict[str, tuple[Fault, str]] = {
    "moved": (PLACE, "frame-elsewhere"),
    "spacings swapped": (SPACING, "frame-elsewhere"),
    "in another space": (sets(FrameOfReferenceUID="1.2.3"), "frame-of-reference-differs"),
    "nowhere": (without_places, "frame-elsewhere"),
    "of another image": (named(ReferencedSOPInstanceUID="1.2.3"), "reference-differs"),
    "of one frame of an image": (named(ReferencedFrameNumber=1), "reference-differs"),
}
UNPLACED_FAULTS: dict[str, tuple[Fault, str]] = {
    "somewhere": (with_places, "frame-elsewhere"),
    "in a space": (sets(FrameOfReferenceUID="1.2.3"), "frame-of-reference-differs"),
    "of another frame": (named(ReferencedFrameNumber=3), "frames-differ"),
    "of all frames": (named(ReferencedFrameNumber=None), "reference-differs"),
    "of another size": (sets(Rows=24, Columns=20), "grid-differs"),
    "a frame too few": (last_frame_dropped, "frames-differ"),
}


def _label_map(folder: Path) -> Made:
    return made(examples.bodies(folder / "images"), folder / "results", "labelmap")


def _fractions(folder: Path) -> Made:
    return made(examples.probabilities(folder / "images"), folder / "results", "fractional")


def _of(images: Callable[[Path], Images]) -> Callable[[Path], Made]:
    return lambda folder: made(pictured.marked(images(folder / "images")), folder / "results")


SOUND: dict[str, tuple[Callable[[Path], Made], dict[str, tuple[Fault, str]]]] = {
    "label map": (_label_map, LABEL_MAP_FAULTS),
    "fractions": (_fractions, FRACTION_FAULTS),
    "placed images": (_of(pictured.slices), PLACED_FAULTS),
    "unplaced images": (_of(pictured.ultrasound), UNPLACED_FAULTS),
}
CASES = [(kind, case) for kind, (_, faults) in SOUND.items() for case in faults]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    """For tests that spoil a copy."""
    return {kind: make(tmp_path_factory.mktemp("sound")) for kind, (make, _) in SOUND.items()}


@pytest.mark.parametrize(("kind", "case"), CASES)
def test_no_fault_passes_the_check(
    kind: str, case: str, sound: dict[str, Made], tmp_path: Path
) -> None:
    fault, reason = SOUND[kind][1][case]
    assert sound[kind].spoilt(tmp_path, fault).reason() == reason
