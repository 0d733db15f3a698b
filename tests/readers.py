"""dcmqi and highdicom as readers: what they find in our objects, on the grid of our volumes."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
from numpy.typing import NDArray

from dicomnode import volume

_TOOLS = Path(sys.executable).parent  # where dcmqi's wheel puts its programs
_NRRD_TYPES = {"short": "<i2", "unsigned char": "u1", "unsigned short": "<u2"}
_VECTOR = re.compile(r"\(([^)]*)\)")
_WITHIN_S = 120


@dataclass(frozen=True, kw_only=True)
class Placed:
    """An array with its place: `affine` maps (slice, row, column, 1) to LPS in mm."""

    array: NDArray[Any]
    affine: NDArray[np.float64]

    @classmethod
    def from_nrrd(cls, path: Path) -> Placed:
        """Read what dcmqi wrote."""
        header, _, data = path.read_bytes().partition(b"\n\n")
        fields = dict(line.split(": ", 1) for line in header.decode().splitlines() if ": " in line)
        assert fields["space"] == "left-posterior-superior"
        assert fields["encoding"] == "gzip"
        fastest_first = [int(size) for size in fields["sizes"].split()]
        values = np.frombuffer(gzip.decompress(data), dtype=_NRRD_TYPES[fields["type"]])
        steps = [_numbers(vector) for vector in _VECTOR.findall(fields["space directions"])]
        affine = np.eye(4)
        affine[:3, :3] = np.stack(steps[::-1], axis=1)
        affine[:3, 3] = _numbers(_VECTOR.findall(fields["space origin"])[0])
        return cls(array=values.reshape(fastest_first[::-1]), affine=affine)

    def on_grid_of(self, vol: volume.Volume) -> NDArray[Any]:
        """The same voxels as an array on the grid of `vol`, by their places in the patient."""
        there = np.moveaxis(np.indices(self.array.shape), 0, -1).reshape(-1, 3)
        index = (np.linalg.inv(vol.affine) @ self.affine)[:3] @ np.c_[there, np.ones(len(there))].T
        rounded = np.round(index).astype(int)
        np.testing.assert_allclose(index, rounded, atol=2e-3)  # no voxel lies between ours
        values = np.full(vol.array.shape, -1, dtype=np.float64)
        values[tuple(rounded)] = self.array.ravel()
        assert (values >= 0).all()  # and each of ours has one
        return values


def _numbers(text: str) -> NDArray[np.float64]:
    return np.array([float(number) for number in text.split(",")])


def _run(program: str, *arguments: str | Path) -> None:
    done = subprocess.run(
        [_TOOLS / program, *arguments],
        capture_output=True,
        text=True,
        timeout=_WITHIN_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@dataclass(frozen=True, kw_only=True)
class Segments:
    """What dcmqi finds in a segmentation.

    Attributes:
        attributes: What it says of each segment, in order.
    """

    folder: Path
    attributes: list[dict[str, Any]]

    @classmethod
    def read(cls, segmentation: Path, folder: Path) -> Segments:
        """Let dcmqi read a segmentation; its files go to `folder`."""
        folder.mkdir(exist_ok=True)
        _run(
            "segimage2itkimage", "--inputDICOM", segmentation, "--outputDirectory", folder,
            "-t", "nrrd",
        )  # fmt: skip
        groups = json.loads((folder / "meta.json").read_text())["segmentAttributes"]
        return cls(folder=folder, attributes=[one for group in groups for one in group])

    def mask(self, number: int, vol: volume.Volume) -> NDArray[np.bool_]:
        """The voxels of a segment, from a file of its own or from the one of a label map."""
        files = sorted(self.folder.glob("*.nrrd"))
        if len(files) == len(self.attributes):
            return Placed.from_nrrd(self.folder / f"{number}.nrrd").on_grid_of(vol) > 0
        (labels,) = files
        return Placed.from_nrrd(labels).on_grid_of(vol) == number


def measurements(report: Path, folder: Path) -> dict[str, Any]:
    """What dcmqi finds in a report on TID 1500."""
    written = folder / f"{report.stem}.json"
    _run("tid1500reader", "--inputDICOM", report, "--outputMetadata", written)
    found: dict[str, Any] = json.loads(written.read_text())
    return found


def by_highdicom(segmentation: Path, number: int, vol: volume.Volume) -> NDArray[Any]:
    """The voxels of a segment as highdicom reads them: 0 and 1, or fractions."""
    read = hd.seg.segread(segmentation)
    found = read.get_volume(segment_numbers=[number], rescale_fractional=True, dtype=np.float64)
    return Placed(array=found.array[..., 0], affine=found.affine).on_grid_of(vol)
