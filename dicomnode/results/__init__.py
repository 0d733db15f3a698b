"""`Prediction` → DICOM objects that answer: planned, built, written, read again and checked.

=============  ==============================================================================
`plan`         prediction and the destinations' profiles → which objects there will be (`part`)
`said`         what the model said, judged, and what all objects need of it
`findings`     what stands in the report, and `regions` what can be drawn, as plain values
`writing`      one module for each kind of object
`checking`     the same for reading them again, with nothing of what wrote them
`drawing`      pictures, for people
=============  ==============================================================================
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from dicomnode.bundle import Bundle
from dicomnode.durable import sync
from dicomnode.prediction import Prediction
from dicomnode.profile import Profile
from dicomnode.results import plan, said, writing
from dicomnode.results.checking import check
from dicomnode.results.common import Predecessor, Result, Run
from dicomnode.results.drawing import picture
from dicomnode.results.part import Kind, Part

__all__ = [
    "Kind",
    "Part",
    "Predecessor",
    "Result",
    "build",
    "check",
    "picture",
    "write",
]


def build(
    prediction: Prediction,
    *,
    bundle: Bundle,
    key: str,
    created: datetime,
    profiles: Sequence[Profile],
    predecessors: Mapping[str, Predecessor] | None = None,
) -> tuple[Result, ...]:
    """Make every object that destinations of some profiles get, in the order of sending.

    The same call gives the same bytes, and an object that two profiles share is made once.

    Args:
        prediction: What the model said.
        bundle: The model.
        key: The idempotency key (`job.result_key`): every UID is derived from it.
        created: When the model ran; zone-aware.
        profiles: Those of the destinations.
        predecessors: Digest of a profile → the report of an earlier run that its new one takes the
            place of.

    Raises:
        ModelFailed: The model did not say what its manifest says that it says.
        Misconfigured: The manifest's words do not fit into DICOM.
        UnsuitableSeries: The model was shown images that do not belong together.
    """
    if created.tzinfo is None:
        raise ValueError("`created` must be zone-aware")
    said.require_sound(prediction, bundle)
    run = Run(
        prediction=prediction,
        bundle=bundle,
        key=key,
        created=created,
        predecessors=dict(predecessors or {}),
    )
    return writing.write(run, plan.of(prediction, bundle, profiles), profiles)


def write(results: Iterable[Result], folder: Path) -> tuple[Path, ...]:
    """Write results durably: each file is whole on disk, or not there, after a power cut.

    The files are called by their kind: `seg.dcm` (`seg-2.dcm` and so on for more), `sr.dcm`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    counts: dict[Kind, int] = {}
    for result in results:
        count = counts[result.kind] = counts.get(result.kind, 0) + 1
        name = f"{result.kind}-{count}.dcm" if count > 1 else f"{result.kind}.dcm"
        paths.append(folder / name)
        _write_durably(paths[-1], result)
    sync(folder)
    return tuple(paths)


def _write_durably(path: Path, result: Result) -> None:
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        result.write_to(file)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
