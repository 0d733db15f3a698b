"""Studies in an archive with the answers to them, and what is known of each of their pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import phantom
import pydicom
import running
import servers
from numpy.typing import NDArray
from scipy import ndimage
from servers import Orthanc

from dicomnode import bundle, results, uid, volume
from dicomnode.bundle import Segment
from dicomnode.prediction import LabelMap, Prediction
from dicomnode.profile import Profile

Floats = NDArray[np.float64]

#: The phantom's grids. Their pixels are large, so that a picture on a screen has many for each.
GRIDS: dict[str, dict[str, Any]] = {
    "square": {"spacing": (2.5, 0.75, 0.75), "shape": (14, 40, 44)},
    "oblong": {"spacing": (2.5, 0.625, 0.75), "shape": (14, 48, 44)},
    "oblique": {
        "spacing": (2.5, 0.75, 0.75),
        "shape": (14, 44, 40),
        "orientation": "oblique",
        "reversed": True,
    },
    # A frame of 241.5 bytes, and 39 frames of 225: the last byte of the pixels is a padding.
    "half-bytes": {"spacing": (2.5, 0.75, 0.75), "shape": (14, 42, 46)},
    "uneven": {"spacing": (2.5, 0.75, 0.75), "shape": (13, 40, 45)},
}
#: The segment that is left out, to get an odd number of them.
_LEFT_OUT = {"uneven": "Nowhere"}


@dataclass(frozen=True, kw_only=True)
class Slice:
    """One image, and what was said of it.

    Attributes:
        points: The centre of every pixel in patient coordinates (rows, columns, 3).
        labels: What the model said of each: the number of a segment, or 0.
    """

    sop_instance_uid: str
    points: Floats
    labels: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study in the archive with an answer to it.

    Attributes:
        answers: Kind of a result → the result.
        segments: From number 1 on.
    """

    uid: str
    answers: dict[str, pydicom.Dataset]
    slices: tuple[Slice, ...]
    segments: tuple[Segment, ...]

    @property
    def names(self) -> list[str]:
        """Of the segments."""
        return [one.name for one in self.segments]

    @property
    def colors(self) -> list[str]:
        """Of the segments."""
        return [one.color for one in self.segments]

    def volume_ml(self, number: int) -> float:
        """What the pixels of a segment measure together."""
        first, second = self.slices[:2]
        origin = first.points[0, 0]
        edges = [first.points[1, 0], first.points[0, 1], second.points[0, 0]]
        voxel_mm3 = abs(np.linalg.det([edge - origin for edge in edges]))
        return sum(_pixels(one, number) for one in self.slices) * voxel_mm3 / 1000

    def largest(self, number: int) -> tuple[Slice, NDArray[np.bool_]]:
        """The slice that has most of a segment, and its largest piece there without holes."""
        one = max(self.slices, key=lambda one: _pixels(one, number))
        pieces, _ = ndimage.label(one.labels == number)
        sizes = np.bincount(pieces.ravel())[1:]
        piece = pieces == sizes.argmax() + 1 if sizes.size else pieces > 0
        return one, ndimage.binary_fill_holes(piece)

    def richest(self) -> Slice:
        """The slice that has most of all segments that are anywhere."""
        numbers = range(1, len(self.segments) + 1)
        return max(self.slices, key=lambda one: sorted(_pixels(one, n) for n in numbers))


def _pixels(one: Slice, number: int) -> int:
    return int(np.count_nonzero(one.labels == number))


def a_phantom(orthanc: Orthanc, folder: Path, grid: str, profile: Profile) -> Study:
    """Put the phantom on one of `GRIDS` into the archive, with the right answer to it."""
    key = f"{grid}-{profile.workarounds}"
    study = uid.derived("answered", key)
    attributes = {
        "PatientID": f"PHANTOM-{key}",  # another one's studies are not listed beside it
        "StudyInstanceUID": study,
        "WindowCenter": 600,
        "WindowWidth": 1200,
    }
    scan = phantom.write_series(folder / "images", key=key, attributes=attributes, **GRIDS[grid])
    (output,) = phantom.a_bundle().manifest.outputs.values()
    segments = tuple(one for one in output.segments if one.name != _LEFT_OUT.get(grid))
    model = phantom.a_bundle(outputs={"bodies": output.model_copy(update={"segments": segments})})
    prediction = Prediction(
        subject=volume.load(scan.files), answers=(LabelMap(output="bodies", array=scan.labels),)
    )
    of_run: dict[str, Any] = {"bundle": model, "key": key, "profiles": [profile]}
    built = results.build(prediction, created=datetime(2026, 3, 4, tzinfo=UTC), **of_run)
    files = results.write(built, folder / "results")
    results.check(files, prediction=prediction, **of_run)
    for file in (*scan.files, *files):
        orthanc.upload(file)
    numbers = np.zeros(256, dtype=np.int64)
    numbers[[one.label for one in segments]] = range(1, len(segments) + 1)
    return Study(
        uid=study,
        answers={one.kind: one.dataset for one in built},
        slices=tuple(
            Slice(
                sop_instance_uid=str(pydicom.dcmread(scan.file_of(index)).SOPInstanceUID),
                points=scan.points[index],
                labels=numbers[scan.labels[index]],
            )
            for index in range(scan.shape[0])
        ),
        segments=segments,
    )


def a_hippocampus(orthanc: Orthanc, folder: Path, profile: str) -> Study:
    """Put the sample into the archive, and let a node answer that has it from there."""
    sources = sorted((running.HIPPOCAMPUS / "sample").iterdir())
    study = str(pydicom.dcmread(sources[0]).StudyInstanceUID)
    instances = [orthanc.upload(source) for source in sources]
    route = running.HIPPOCAMPUS_ROUTE.replace("pacs", "viewer")
    configuration = running.toml(extra=_peer(orthanc, profile), routes=route)
    with running.running(folder / "node", configuration) as node:
        orthanc.add_modality("node", "DICOMNODE", servers.HOST, node.port)
        orthanc.request("POST", "/modalities/node/store", {"Resources": instances})
        document = node.outcome(study)
        assert document["outcome"] == "delivered", node.log
        (job,) = document["jobs"]
        answers = {one["kind"]: pydicom.dcmread(one["path"]) for one in job["results"]}
    return Study(
        uid=study,
        answers=answers,
        slices=_slices([pydicom.dcmread(source) for source in sources], answers["seg"]),
        segments=bundle.load(running.HIPPOCAMPUS).manifest.outputs["pred"].segments,
    )


def _peer(orthanc: Orthanc, profile: str) -> str:
    return f"""\
[peers.viewer]
ae_title = "{orthanc.ae_title}"
host     = "{orthanc.host}"
port     = {orthanc.dicom_port}
profile  = "{profile}"
"""


def _slices(sources: Sequence[pydicom.Dataset], seg: pydicom.Dataset) -> tuple[Slice, ...]:
    """The images, and what the segmentation has at their places."""
    labels = {_position(source): np.zeros(source.pixel_array.shape, int) for source in sources}
    frames = zip(seg.PerFrameFunctionalGroupsSequence, seg.pixel_array, strict=True)
    for groups, frame in frames:
        number = groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        labels[_position(groups.PlanePositionSequence[0])][frame > 0] = number
    return tuple(
        Slice(
            sop_instance_uid=str(source.SOPInstanceUID),
            points=_centres(source),
            labels=labels[_position(source)],
        )
        for source in sources
    )


def _position(dataset: pydicom.Dataset) -> tuple[float, ...]:
    return tuple(round(float(one), 3) for one in dataset.ImagePositionPatient)


def _centres(image: pydicom.Dataset) -> Floats:
    """The centre of each pixel in patient coordinates (PS3.3 C.7.6.2.1.1)."""
    along_row, along_column = np.array(image.ImageOrientationPatient, dtype=float).reshape(2, 3)
    between_rows, between_columns = map(float, image.PixelSpacing)
    rows, columns = np.indices((image.Rows, image.Columns))[..., None]
    first = np.array(image.ImagePositionPatient, dtype=float)
    return first + columns * between_columns * along_row + rows * between_rows * along_column
