"""A model as the node sees it: a MONAI bundle, or a chain of them, with manifest and lock.

The bundle stays as its makers published it. What DICOM needs to know of it stands in `dicom.toml`
(`manifest`, made of `inputs`, `outputs` and `terms`), what its files are in `bundle.lock` (`lock`).
Nothing here evaluates its configuration.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dicomnode.bundle import lock
from dicomnode.bundle import manifest as manifests
from dicomnode.bundle.inputs import Form, Input, Values, View
from dicomnode.bundle.lock import LOCK_NAME, TUNING_NAME, lock_path, verify, write_lock
from dicomnode.bundle.manifest import (
    DIGEST_SHOWN,
    MANIFEST_NAME,
    MAX_VERSION,
    METADATA_NAME,
    Manifest,
    Merge,
    Region,
    Step,
)
from dicomnode.bundle.outputs import (
    BoxesOutput,
    ClassificationOutput,
    ClassOf,
    Coordinates,
    Finding,
    HeatMapOutput,
    ImageOutput,
    LabelMapOutput,
    MasksOutput,
    NumbersOutput,
    Output,
    PointsOutput,
    ProbabilityMapOutput,
    Quantity,
    RegistrationOutput,
    Segment,
)
from dicomnode.bundle.terms import Code, Range
from dicomnode.errors import Misconfigured

__all__ = [
    "DIGEST_SHOWN",
    "LOCK_NAME",
    "MANIFEST_NAME",
    "MAX_SERIES_DESCRIPTION",
    "MAX_VERSION",
    "METADATA_NAME",
    "TUNING_NAME",
    "BoxesOutput",
    "Bundle",
    "ClassOf",
    "ClassificationOutput",
    "Code",
    "Coordinates",
    "Finding",
    "Form",
    "HeatMapOutput",
    "ImageOutput",
    "Input",
    "LabelMapOutput",
    "Manifest",
    "MasksOutput",
    "Merge",
    "NumbersOutput",
    "Output",
    "PointsOutput",
    "ProbabilityMapOutput",
    "Quantity",
    "Range",
    "Region",
    "RegistrationOutput",
    "Segment",
    "Step",
    "Values",
    "View",
    "identity",
    "load",
    "lock_path",
    "verify",
    "write_lock",
]

#: Series Description is an LO (PS3.5 6.2).
MAX_SERIES_DESCRIPTION = 64


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A bundle that can be run: its manifest is sound and its files are locked.

    Attributes:
        root: The bundle's folder.
        manifest: Of a chain, with the outputs that its steps give it.
        version: As its makers number it, from `configs/metadata.json`.
        digest: SHA-256, in hex, of the canonical lock: the identity of the model. That of a chain
            covers its steps.
        manifest_path: The manifest's file where it lies outside of a bundle that must stay
            untouched; `None` for `dicom.toml` in `root`.
        steps: Of a chain: its models, in the order in which they run.
    """

    root: Path
    manifest: Manifest
    version: str
    digest: str
    manifest_path: Path | None = None
    steps: Mapping[str, Bundle] = field(default_factory=dict)

    @property
    def algorithm_version(self) -> str:
        """What stands as Algorithm Version in every object: it changes with every weight."""
        return f"{self.version}+{self.digest[:DIGEST_SHOWN]}"

    @property
    def series_description(self) -> str:
        """What stands as Series Description of a result: the one label that viewers show."""
        return f"AI {self.manifest.name} v{self.version} (RESEARCH)"

    def described(self, word: str) -> str:
        """The same with a word for what the series is, where there is room for it."""
        longer = f"AI {self.manifest.name} v{self.version} {word} (RESEARCH)"
        has_room = word and len(longer) <= MAX_SERIES_DESCRIPTION
        return longer if has_room else self.series_description

    @property
    def models(self) -> Iterator[Bundle]:
        """This one, and the steps of a chain: everything that had a part in an answer."""
        yield self
        for step in self.steps.values():
            yield from step.models


def load(root: Path, *, manifest: Path | None = None, draft: bool = False) -> Bundle:
    """Read what stands beside a bundle. No file is hashed: that is `verify`.

    Args:
        root: The bundle's folder.
        manifest: The manifest's file where it lies outside of `root`.
        draft: Whether a manifest may have entries that nobody has confirmed: for a trial alone.

    Raises:
        Misconfigured: `bundle-incomplete`, `manifest-faulty`, `manifest-draft`, `metadata-faulty`,
            `lock-missing` or `lock-faulty`; the sentence names the file and the key path.
    """
    return _load(root, manifest, below=(), draft=draft)


def _load(root: Path, manifest: Path | None, *, below: tuple[Path, ...], draft: bool) -> Bundle:
    path = manifest or root / MANIFEST_NAME
    if root.resolve() in below:
        raise Misconfigured("manifest-faulty", f"{path}: steps: the chain contains itself.")
    content = manifests.read(path)
    below = (*below, root.resolve())
    steps = {
        name: _load((root / step.bundle), None, below=below, draft=draft)
        for name, step in content.steps.items()
    }
    if steps:
        content = content.with_outputs(
            {name: step.manifest for name, step in steps.items()}, path=path
        )
    loaded = Bundle(
        root=root,
        manifest=content,
        version=manifests.read_version(root / METADATA_NAME),
        digest=identity(lock.digest_of(lock.read(lock_path(root, manifest=manifest))), steps),
        manifest_path=manifest,
        steps=steps,
    )
    if not draft:
        _require_confirmed(loaded, path)
    _require_usable(loaded, path)
    return loaded


def identity(own: str, steps: Mapping[str, Bundle]) -> str:
    """The identity of a model: the digest of its lock, and of a chain those of its steps, too."""
    if not steps:
        return own
    named = "".join(f"{step.digest}  {name}\n" for name, step in steps.items())
    return hashlib.sha256(f"{own}\n{named}".encode()).hexdigest()


def _require_confirmed(loaded: Bundle, path: Path) -> None:
    if loaded.manifest.draft:
        raise Misconfigured(
            "manifest-draft",
            f"{path}: draft: to be confirmed: {lock.listed(loaded.manifest.draft)}. Look at each"
            " guess, correct it, take it out of `draft`, then run `dicomnode models lock`.",
        )


def _require_usable(loaded: Bundle, path: Path) -> None:
    """Make sure that the manifest's words can stand in the results of any image."""
    # The source's character set stays as it is, and all that it is sure to have is ASCII.
    if not loaded.manifest.model_dump_json(exclude={"intended_use"}).isascii():
        raise Misconfigured("manifest-faulty", f"{path}: only intended_use may go beyond ASCII.")
    if len(loaded.series_description) > MAX_SERIES_DESCRIPTION:
        raise Misconfigured(
            "manifest-faulty",
            f"{path}: name: '{loaded.series_description}', the description of the result's series,"
            f" has more than {MAX_SERIES_DESCRIPTION} characters. Give a shorter name.",
        )
