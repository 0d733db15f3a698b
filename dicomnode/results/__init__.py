"""`Prediction` → DICOM objects that answer: built, written, read again and checked.

The SEG first and the SR last: a report that names a SEG never arrives before it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from PIL import Image

from dicomnode.bundle import Bundle, Code
from dicomnode.prediction import Prediction
from dicomnode.results import capture, gallery, report, said, segmentation
from dicomnode.results.check import check
from dicomnode.results.common import Predecessor, Result, Run
from dicomnode.volume import Images, Volume

__all__ = ["Predecessor", "Result", "build", "check", "overlay", "write"]


def build(
    prediction: Prediction,
    *,
    bundle: Bundle,
    key: str,
    created: datetime,
    predecessor: Predecessor | None = None,
    title: Code = report.IMAGING_MEASUREMENT_REPORT,
) -> tuple[Result, ...]:
    """Make the SEG of each answer, and the report of all. The same call gives the same bytes.

    Args:
        prediction: What the model said.
        bundle: The model.
        key: The idempotency key (`job.result_key`): every UID is derived from it.
        created: When the model ran; zone-aware.
        predecessor: The report of an earlier run that this one takes the place of.
        title: The report's title (CID 7021).

    Raises:
        ModelFailed: The model did not say what its manifest says that it says.
        Misconfigured: The manifest's words do not fit into DICOM.
        UnsuitableSeries: The model was shown images that do not belong together.
    """
    if created.tzinfo is None:
        raise ValueError("`created` must be zone-aware")
    said.require_sound(prediction, bundle)
    run = Run(prediction=prediction, bundle=bundle, key=key, created=created)
    segmentations = [segmentation.build(run, answer) for answer in said.segmented(prediction)]
    document = report.build(run, segmentations, predecessor=predecessor, title=title)
    return (
        *(Result(kind="seg", dataset=dataset) for dataset in segmentations),
        Result(kind="sr", dataset=document),
    )


def overlay(prediction: Prediction, *, bundle: Bundle) -> Image.Image | None:
    """A picture of the answer, for people; `None` of a slide, which is no picture."""
    if isinstance(prediction.subject, Volume):
        return capture.overlay(prediction, bundle=bundle)
    if isinstance(prediction.subject, Images):
        return gallery.overlay(prediction, bundle=bundle)
    return None


def write(results: Iterable[Result], folder: Path) -> tuple[Path, ...]:
    """Write results durably: each file is whole on disk, or not there, after a power cut.

    The files are `seg.dcm` (`seg-2.dcm` and so on for more) and `sr.dcm`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    for result in results:
        before = sum(path.name.startswith(result.kind) for path in paths)
        name = f"{result.kind}-{before + 1}.dcm" if before else f"{result.kind}.dcm"
        paths.append(folder / name)
        _write_durably(paths[-1], result.encoded())
    _sync_folder(folder)
    return tuple(paths)


def _write_durably(path: Path, content: bytes) -> None:
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
