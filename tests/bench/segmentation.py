"""What a hundred segments cost on a CT of 300 slices: `make bench-results`.

A CT is made, and a label map of blobs as large as organs, most of whose frames are empty, as they
are of organs. Measured, each in a process of its own, are the segmentation in both encodings, and
then every object of a destination that gets all there is: seconds of building, writing durably and
checking, and the most memory that the process has had meanwhile, images and label map included.

Claimed is that a segmentation is built and written within 5 seconds and 2 GiB.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

from bench.inference import Laps, write_ct  # noqa: E402 - found by the path above, as the rest
from bench.machine import described, forget_peak, memory_kib  # noqa: E402

from dicomnode import results, volume  # noqa: E402
from dicomnode.bundle import Bundle, Code, Input, LabelMapOutput, Manifest, Segment  # noqa: E402
from dicomnode.prediction import LabelMap, Prediction  # noqa: E402
from dicomnode.profile import Profile  # noqa: E402

SEGMENTS = 104
WITHIN_S, WITHIN_GIB = 5.0, 2.0
CLAIMED = ("binary", "labelmap")

ALONE = Profile(capture=False, regions=False, report=False)
#: What is measured → the destination's profile.
PROFILES = {
    "binary": ALONE,
    "labelmap": ALONE.with_choices({"segmentation": "labelmap"}),
    "everything, binary": Profile(presentation=True, key_images=True),
    "everything, labelmap": Profile(segmentation="labelmap", presentation=True, key_images=True),
}


def a_bundle(segments: int) -> Bundle:
    """A model of that many structures."""
    structure = Code(value="91723000", scheme="SCT", meaning="Anatomical Structure")
    organ = Code(value="113343008", scheme="SCT", meaning="Organ")
    named = tuple(
        Segment(
            label=number,
            name=f"Structure {number}",
            category=structure,
            type=organ,
            color=f"#{number * 2 % 256:02x}{number * 41 % 256:02x}{number * 97 % 256:02x}",
            measure=("volume",),
        )
        for number in range(1, segments + 1)
    )
    manifest = Manifest(
        name="Bench",
        manufacturer="Nobody",
        family=Code(value="123110", scheme="DCM", meaning="Artificial Intelligence"),
        intended_use="Benchmark",
        notice="RESEARCH USE ONLY",
        procedure=Code(value="25045-6", scheme="LN", meaning="CT unspecified body region"),
        inputs={"image": Input(modality="CT", sop_classes=("CTImageStorage",))},
        outputs={"pred": LabelMapOutput(kind="label_map", segments=named)},
    )
    return Bundle(root=Path("bench"), manifest=manifest, version="1.0.0", digest="ab" * 32)


def blobs(shape: tuple[int, int, int], count: int) -> NDArray[np.uint8]:
    """Lumps with rough surfaces within a body that fills the middle of the image."""
    random = np.random.default_rng(0)
    labels = np.zeros(shape, dtype=np.uint8)
    size = np.array(shape)
    for label in range(1, count + 1):
        middle = size * random.uniform([0.05, 0.25, 0.2], [0.95, 0.75, 0.8])
        reach = size * random.uniform([0.03, 0.03, 0.03], [0.12, 0.1, 0.1])
        low = np.maximum(middle - 1.3 * reach, 0).astype(int)
        high = np.minimum(middle + 1.3 * reach + 1, size).astype(int)
        box = tuple(slice(*ends) for ends in zip(low, high, strict=True))
        axes = np.ogrid[box]
        ways = [(axis - m) / r for axis, m, r in zip(axes, middle, reach, strict=True)]
        distance = sum(way**2 for way in ways)
        rough = sum(np.sin(5 * way + label + n) for n, way in enumerate(ways)) / 8
        labels[box][distance + rough <= 1] = label
    return labels


def measure(name: str, files: list[Path], out: Path) -> dict[str, Any]:
    """One profile, in this process."""
    shown = volume.load(files)
    labels = blobs(shown.array.shape, SEGMENTS)  # type: ignore[arg-type]  # three numbers
    prediction = Prediction(subject=shown, answers=(LabelMap(output="pred", array=labels),))
    given: dict[str, Any] = {
        "bundle": a_bundle(SEGMENTS), "key": "0" * 64, "profiles": [PROFILES[name]],
    }  # fmt: skip
    before, _ = memory_kib(os.getpid())
    forget_peak(os.getpid())
    laps = Laps()
    built = results.build(prediction, created=datetime(2026, 3, 4, tzinfo=UTC), **given)
    laps.lap("build")
    paths = results.write(built, out)
    laps.lap("write")
    _, peak = memory_kib(os.getpid())
    results.check(paths, prediction=prediction, **given)
    laps.lap("check")
    _, checked = memory_kib(os.getpid())
    return {
        "name": name,
        "seconds": laps.seconds,
        "before_gib": before / 2**20,
        "written_gib": peak / 2**20,
        "checked_gib": checked / 2**20,
        "files_mib": {path.name: path.stat().st_size / 2**20 for path in paths},
        "filled": float(np.count_nonzero(labels) / labels.size),
        "frames_with_something": float(
            np.mean([np.bincount(one.ravel(), minlength=256)[1:105] > 0 for one in labels])
        ),
    }


def apart(names: list[str], files: list[Path], out: Path) -> Iterator[dict[str, Any]]:
    """Each in a process of its own."""
    for name in names:
        command = [
            sys.executable,
            __file__,
            "--one",
            name,
            "--out",
            str(out / name.replace(" ", "-")),
        ]
        done = subprocess.run(
            [*command, *map(str, files)], check=True, capture_output=True, text=True
        )
        yield json.loads(done.stdout)


def as_text(found: dict[str, Any]) -> str:
    """A few lines."""
    seconds, sizes = found["seconds"], found["files_mib"]
    written = seconds["build"] + seconds["write"]
    holds = written < WITHIN_S and found["written_gib"] < WITHIN_GIB
    verdict = f": {'holds' if holds else 'does not hold'}" if found["name"] in CLAIMED else ""
    largest = max(sizes, key=sizes.__getitem__)
    lines = [
        f"{found['name']}: {len(sizes)} objects, the largest {largest} of {sizes[largest]:.1f} MiB",
        f"  build {seconds['build']:7.2f} s",
        f"  write {seconds['write']:7.2f} s; together {written:.2f} s{verdict}",
        f"  check {seconds['check']:7.2f} s",
        f"  memory {found['before_gib']:6.2f} GiB before, at most {found['written_gib']:.2f} GiB",
        f"  checked {found['checked_gib']:5.2f} GiB at most",
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure, and print a few lines for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", type=int, nargs=3, default=(300, 512, 512))
    parser.add_argument("--quick", action="store_true", help="a small CT")
    parser.add_argument("--one", choices=PROFILES, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("files", type=Path, nargs="*", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        sys.stdout.write(json.dumps(measure(given.one, given.files, given.out)))
        return
    shape = (30, 96, 96) if given.quick else tuple(given.shape)
    with tempfile.TemporaryDirectory() as folder:
        files = write_ct(Path(folder) / "ct", shape)  # type: ignore[arg-type]  # three numbers
        sys.stdout.write("\n".join(described(Path(folder))) + "\n\n")
        for found in apart(list(PROFILES), files, Path(folder)):
            sys.stdout.write(as_text(found) + "\n")
            sys.stdout.flush()
        sys.stdout.write(
            f"\n{SEGMENTS} segments on {' x '.join(map(str, shape))}; filled"
            f" {found['filled']:.0%} of the voxels and {found['frames_with_something']:.0%} of the"
            " frames\n"
        )


if __name__ == "__main__":
    main()
