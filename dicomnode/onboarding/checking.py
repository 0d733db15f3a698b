"""What is wrong with a bundle, or lacking here, before any study comes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dicomnode import bundle
from dicomnode.bundle import MANIFEST_NAME, manifest
from dicomnode.errors import NodeError
from dicomnode.onboarding import description, needs, packages
from dicomnode.onboarding.description import Description
from dicomnode.onboarding.needs import Need
from dicomnode.onboarding.packages import Here, Installation

Level = Literal["error", "warning", "note"]

_ALWAYS_NEEDED = ("torch", "monai")
_WEIGHTS = re.compile(r"models/[\w.-]+\.(?:pth?|ts|safetensors|onnx)\b")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that an administrator should know.

    Attributes:
        level: "error": it will not run, or must not; "warning": it may be wrong; "note".
        code: A stable word in kebab case.
        message: What was found and what to do.
    """

    level: Level
    code: str
    message: str


def check(
    root: Path, *, manifest_path: Path | None = None, installation: Installation | None = None
) -> list[Finding]:
    """Everything that can be told without running the bundle in `root`.

    Args:
        manifest_path: Where its manifest lies outside of it.
        installation: Where models run; left out, this one.
    """
    findings = [*_read(root, manifest_path)]
    for folder in _bundles(root, manifest_path):
        findings += _locked(folder, manifest_path if folder == root else None)
        findings += _described(folder, installation or Here())
    return list(dict.fromkeys(findings))


def _read(root: Path, manifest_path: Path | None) -> Iterator[Finding]:
    try:
        bundle.load(root, manifest=manifest_path)
    except NodeError as error:
        yield _error(error.reason, error.detail)


def _locked(root: Path, manifest_path: Path | None) -> Iterator[Finding]:
    try:
        bundle.verify(root, manifest=manifest_path)
    except NodeError as error:
        yield _error(error.reason, error.detail)
    except OSError as error:
        yield _error("bundle-unreadable", f"{error.filename}: {error.strerror}.")


def _described(root: Path, place: Installation) -> Iterator[Finding]:
    try:
        if (root / MANIFEST_NAME).is_file() and manifest.read(root / MANIFEST_NAME).steps:
            return  # a chain has no configuration of its own
    except NodeError:
        pass  # told already; its configuration is looked at all the same
    try:
        described = description.read(root)
    except NodeError as error:
        yield _error(error.reason, error.detail)
    else:
        yield from _of_description(described, place)


def _bundles(root: Path, manifest_path: Path | None) -> Iterator[Path]:
    """The bundle itself, and of a chain its steps."""
    seen: set[Path] = set()
    waiting = [(root, manifest_path or root / MANIFEST_NAME)]
    while waiting:
        folder, path = waiting.pop(0)
        if folder.resolve() in seen:
            continue
        seen.add(folder.resolve())
        try:
            steps = manifest.read(path).steps
        except NodeError:
            steps = {}
        yield folder
        inner = [folder / step.bundle for step in steps.values()]
        waiting += [(one, one / MANIFEST_NAME) for one in inner]


def _of_description(described: Description, place: Installation) -> Iterator[Finding]:
    yield from _weights(described)
    yield from _packages(described, place)
    yield from labels_interpolated(described)


def _weights(described: Description) -> Iterator[Finding]:
    for one in described.components():
        path = described.value(one.content.get("load_path"))
        match = _WEIGHTS.search(path) if isinstance(path, str) else None
        if match and not (described.root / match[0]).is_file():
            yield _error(
                "weights-missing",
                f"{described.root / match[0]}: no such file, and {one.path} loads it. Fetch it, put"
                " it there, then run `dicomnode models lock`.",
            )


def _packages(described: Description, place: Installation) -> Iterator[Finding]:
    if not all(map(place.has, _ALWAYS_NEEDED)):
        yield Finding(
            level="warning",
            code="no-worker-here",
            message="No model runs in this installation: it has no torch or no MONAI. Check where"
            " the workers run.",
        )
    stated = packages.stated(described)
    wanted = {packages.imported_as(name): name for name in stated}
    found = needs.of(described)
    for need in found:
        if not place.has(need.imported):
            yield _missing(need, stated.get(wanted.get(need.imported, ""), ""))
    known = {need.imported for need in found} | set(_ALWAYS_NEEDED)
    for imported, name in wanted.items():
        yield from _stated(name, stated[name], place, is_imported=imported in known)


def _missing(need: Need, version: str) -> Finding:
    name = packages.installed_as(need.imported)
    named = f" (its makers used {version})" if version else ""
    if need.surely:
        return _error(
            "package-missing",
            f"{need.imported}: {need.by} needs it, and it is not installed. Install {name}{named}"
            " where the workers run.",
        )
    return Finding(
        level="warning",
        code="package-perhaps-missing",
        message=f"{need.imported}: {need.by} may import it, and it is not installed; the trial"
        f" (--run) tells. The package is {name}{named}.",
    )


def _stated(
    name: str, version: str, place: Installation, *, is_imported: bool
) -> Iterator[Finding]:
    """A package that the metadata names: is it there, and as new as it was?"""
    installed = place.version(name)
    if installed is None:
        if not is_imported and not place.has(packages.imported_as(name)):
            yield Finding(
                level="note",
                code="package-unused",
                message=f"{name} {version}: the bundle lists it, it is not installed, and nothing"
                " that runs imports it.",
            )
    elif packages.is_older(installed, version):
        yield Finding(
            level="warning" if is_imported else "note",
            code="package-older",
            message=f"{name} {installed} is installed; the bundle was made with {version}.",
        )


def labels_interpolated(described: Description) -> Iterator[Finding]:
    """Labels that are blended on their way back to the image: between 1 and 3 lies 2."""
    decided: set[str] = set()
    for one in described.chain("postprocessing"):
        keys = set(described.texts(one.content.get("keys")))
        nearest = described.value(one.content.get("nearest_interp"))
        if one.name == "AsDiscrete" and described.value(one.content.get("argmax")) in (
            True,
            [True],
        ):
            decided |= keys
        elif one.name == "Invert" and decided & keys and nearest in (False, [False]):
            yield Finding(
                level="warning",
                code="labels-interpolated",
                message=f"{one.path}: labels are chosen first and resampled by interpolation after"
                " (nearest_interp is false): along borders the bundle gives labels that the"
                " network did not choose. Rounding hides it; moving the argmax behind Invertd, or"
                " nearest_interp, mends it.",
            )


def _error(code: str, message: str) -> Finding:
    return Finding(level="error", code=code, message=message)
