"""A MONAI bundle as the node sees it: the manifest `dicom.toml` and the lock `bundle.lock`.

The bundle stays as its makers published it. Nothing here evaluates its configuration.

The lock lists the SHA-256 of every file that can change what the model says, as `sha256sum` writes
it: `sha256sum -c bundle.lock` in the bundle's folder checks it without this program. Documentation
and the sample are not listed: a corrected typing error changes no result.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import pydicom.uid
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from dicomnode.errors import Misconfigured

MANIFEST_NAME = "dicom.toml"
LOCK_NAME = "bundle.lock"
METADATA_NAME = "configs/metadata.json"

#: How many hexadecimal digits of the digest stand in an algorithm version.
DIGEST_SHOWN = 16
#: Algorithm Version is an LO: at most 64 characters (PS3.5 6.2). "+" and the digest are part of it.
MAX_VERSION = 64 - 1 - DIGEST_SHOWN

# What lies in a bundle's folder and cannot change what the model says.
_UNLISTED_AT_TOP = frozenset({LOCK_NAME, "LICENSE", "docs", "sample"})
_UNLISTED_FOLDER = "__pycache__"
_UNLISTED_SUFFIX = ".pyc"  # the runner imports from source alone

_LOCK_LINE = re.compile(r"(?P<digest>[0-9a-f]{64})  (?P<path>\S.*)")
_NAMED_AT_MOST = 5


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Code(_Strict):
    """A coded concept (PS3.3 Table 8.8-1)."""

    value: Annotated[str, Field(min_length=1, max_length=16)]
    scheme: Annotated[str, Field(min_length=1, max_length=16)]
    meaning: Annotated[str, Field(min_length=1, max_length=64)]


class Range(_Strict):
    """Limits, both inclusive; a missing one is no limit."""

    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _is_not_empty(self) -> Self:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"no value lies between min {self.min:g} and max {self.max:g}")
        return self

    def holds(self, value: float) -> bool:
        """Whether `value` lies within the limits."""
        return (self.min is None or value >= self.min) and (self.max is None or value <= self.max)


def _storage_sop_class(keyword: str) -> str:
    uid = getattr(pydicom.uid, keyword, None)
    if not isinstance(uid, pydicom.uid.UID) or uid.type != "SOP Class":
        raise ValueError(f"'{keyword}' is not the keyword of a storage SOP class (PS3.6 Table A-1)")
    return keyword


class Input(_Strict):
    """What one input of the model must be (lengths in mm).

    `extent_mm` limits the field of view: the voxels times their spacing, along each of the three
    axes of the volume. A model made for a crop says there that it is not meant for a whole head.
    """

    modality: Annotated[str, Field(pattern=r"^[A-Z0-9_ ]{1,16}$")]  # a CS, PS3.5 6.2
    sop_classes: Annotated[  # keywords of the dictionary: "MRImageStorage"
        tuple[Annotated[str, AfterValidator(_storage_sop_class)], ...], Field(min_length=1)
    ]
    planes: tuple[Literal["axial", "sagittal", "coronal"], ...] = ()  # empty: any
    slices: Range = Range()
    spacing_mm: Range = Range()  # within the plane and between slices alike
    slice_spacing_mm: Range = Range()
    extent_mm: Range = Range()
    channels: int = 1
    irregular_spacing: bool = False
    gantry_tilt: bool = False


class Segment(_Strict):
    """One label of a label map."""

    label: Annotated[int, Field(ge=1, le=65535)]
    name: Annotated[str, Field(min_length=1, max_length=64)]
    category: Code
    type: Code
    type_modifier: Code | None = None
    anatomic_region: Code | None = None
    laterality: Code | None = None
    color: Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$")]
    measure: tuple[Literal["volume"], ...] = ()


class LabelMapOutput(_Strict):
    """An output that gives one label to each voxel."""

    kind: Literal["label_map"]
    segments: Annotated[tuple[Segment, ...], Field(min_length=1)]

    @field_validator("segments")
    @classmethod
    def _labels_are_unique(cls, segments: tuple[Segment, ...]) -> tuple[Segment, ...]:
        labels = [segment.label for segment in segments]
        twice = sorted({label for label in labels if labels.count(label) > 1})
        if twice:
            raise ValueError(f"each label stands once; more than once: {_listed(map(str, twice))}")
        return segments


class Manifest(_Strict):
    """`dicom.toml`: what DICOM needs to know of a bundle."""

    name: Annotated[str, Field(min_length=1, max_length=40)]  # stands in Series Description
    manufacturer: Annotated[str, Field(min_length=1, max_length=64)]
    family: Code  # Algorithm Family, CID 7162
    intended_use: str
    notice: str
    procedure: Code  # Procedure Reported, CID 100: the imaging procedure, not the algorithm
    inputs: Annotated[dict[str, Input], Field(min_length=1)]
    outputs: Annotated[dict[str, LabelMapOutput], Field(min_length=1)]


#: Series Description is an LO (PS3.5 6.2).
MAX_SERIES_DESCRIPTION = 64


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A bundle that can be run: its manifest is sound and its files are locked.

    Attributes:
        root: The bundle's folder.
        version: As its makers number it, from `configs/metadata.json`.
        digest: SHA-256, in hex, of the canonical lock: the identity of the model.
        manifest_path: The manifest's file where it lies outside of a bundle that must stay
            untouched; `None` for `dicom.toml` in `root`.
    """

    root: Path
    manifest: Manifest
    version: str
    digest: str
    manifest_path: Path | None = None

    @property
    def algorithm_version(self) -> str:
        """What stands as Algorithm Version in every object: it changes with every weight."""
        return f"{self.version}+{self.digest[:DIGEST_SHOWN]}"

    @property
    def series_description(self) -> str:
        """What stands as Series Description of every result: the one label that viewers show."""
        return f"AI {self.manifest.name} v{self.version} (RESEARCH)"


def load(root: Path, *, manifest: Path | None = None) -> Bundle:
    """Read what stands beside a bundle. No file is hashed: that is `verify`.

    Args:
        root: The bundle's folder.
        manifest: The manifest's file where it lies outside of `root`.

    Raises:
        Misconfigured: `bundle-incomplete`, `manifest-faulty`, `metadata-faulty`, `lock-missing` or
            `lock-faulty`; the sentence names the file and the key path.
    """
    path = manifest or root / MANIFEST_NAME
    loaded = Bundle(
        root=root,
        manifest=_read_manifest(path),
        version=_read_version(root / METADATA_NAME),
        digest=_digest(_read_lock(lock_path(root, manifest=manifest))),
        manifest_path=manifest,
    )
    _require_writable(loaded, path)
    return loaded


def _require_writable(loaded: Bundle, path: Path) -> None:
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


def lock_path(root: Path, *, manifest: Path | None = None) -> Path:
    """Where the lock lies: in the bundle, or beside a manifest that lies outside of it."""
    return root / LOCK_NAME if manifest is None else manifest.with_suffix(".lock")


def write_lock(root: Path, *, manifest: Path | None = None) -> str:
    """List the files as they are now in the lock, and give the digest.

    The same files give the same lock on every machine.

    Raises:
        Misconfigured: `bundle-incomplete` or `bundle-unlockable`.
    """
    hashes = _hashes(root, manifest=manifest)
    lock_path(root, manifest=manifest).write_text(_canonical(hashes), encoding="utf-8")
    return _digest(hashes)


def verify(root: Path, *, manifest: Path | None = None) -> str:
    """Compare every file with the lock, and give the lock's digest.

    Raises:
        Misconfigured: `bundle-changed` where a file differs, appeared or vanished; else as `load`.
    """
    lock = lock_path(root, manifest=manifest)
    locked = _read_lock(lock)
    found = _hashes(root, manifest=manifest)
    differences = [
        f"{what} {_listed(sorted(paths))}"
        for what, paths in (
            ("changed:", {path for path in locked.keys() & found if locked[path] != found[path]}),
            ("appeared:", found.keys() - locked.keys()),
            ("vanished:", locked.keys() - found.keys()),
        )
        if paths
    ]
    if differences:
        raise Misconfigured(
            "bundle-changed",
            f"{root} is not what {lock} lists ({'; '.join(differences)}). Put the files back, or"
            " run `dicomnode models lock` if the change is meant.",
        )
    return _digest(locked)


def _read_manifest(path: Path) -> Manifest:
    content = _parsed(path, tomllib.loads, reason="manifest-faulty")
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        faults = "; ".join(f"{_key_path(fault['loc'])}: {fault['msg']}" for fault in error.errors())
        raise Misconfigured("manifest-faulty", f"{path}: {faults}.") from error


def _key_path(location: Iterable[int | str]) -> str:
    """`("segments", 0, "label")` → `segments[0].label`."""
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in location]
    return "".join(parts).removeprefix(".")


def _read_version(path: Path) -> str:
    content = _parsed(path, json.loads, reason="metadata-faulty")
    version = content.get("version") if isinstance(content, dict) else None
    if not isinstance(version, str) or not 0 < len(version) <= MAX_VERSION:
        raise Misconfigured(
            "metadata-faulty", f"{path}: version: must be a text of 1 to {MAX_VERSION} characters."
        )
    return version


def _parsed(path: Path, parse: Callable[[str], Any], *, reason: str) -> Any:
    try:
        return parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Misconfigured("bundle-incomplete", f"{path}: {error.strerror}.") from error
    except ValueError as error:  # what tomllib, json and UTF-8 raise alike
        raise Misconfigured(reason, f"{path}: {error}.") from error


def _read_lock(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise Misconfigured(
            "lock-missing", f"{path}: no lock. Run `dicomnode models lock` once to trust the files."
        ) from error
    hashes: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        match = _LOCK_LINE.fullmatch(line)
        if match is None or match["path"] in hashes:
            raise Misconfigured(
                "lock-faulty", f"{path}: line {number}: must be a SHA-256, two blanks and a path."
            )
        hashes[match["path"]] = match["digest"]
    return hashes


def _hashes(root: Path, *, manifest: Path | None) -> dict[str, str]:
    """Path relative to `root` → SHA-256; an outside manifest takes the place of `dicom.toml`."""
    files = {path.relative_to(root).as_posix(): path for path in _files(root)}
    files[MANIFEST_NAME] = manifest or root / MANIFEST_NAME
    missing = [str(path) for path in files.values() if not path.is_file()]
    if missing or not root.is_dir():
        raise Misconfigured("bundle-incomplete", f"{_listed(missing) or root}: no such file.")
    return {name: _file_digest(path) for name, path in files.items()}


def _files(root: Path) -> Iterator[Path]:
    for path in sorted(root.rglob("*")):
        relative = path.relative_to(root)
        if (
            relative.parts[0] in _UNLISTED_AT_TOP
            or _UNLISTED_FOLDER in relative.parts
            or path.suffix == _UNLISTED_SUFFIX
        ):
            continue
        if path.is_dir() and not path.is_symlink():
            continue
        _require_lockable(path)
        yield path


def _require_lockable(path: Path) -> None:
    """A lock can only list what is a file and has a name that fits on one line."""
    if path.is_dir():
        raise Misconfigured("bundle-unlockable", f"{path}: a link to a folder cannot be locked.")
    if not str(path).isprintable() or "\\" in str(path):
        raise Misconfigured("bundle-unlockable", f"{str(path)!r}: rename it to plain characters.")


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _canonical(hashes: Mapping[str, str]) -> str:
    return "".join(f"{hashes[path]}  {path}\n" for path in sorted(hashes))


def _digest(hashes: Mapping[str, str]) -> str:
    return hashlib.sha256(_canonical(hashes).encode()).hexdigest()


def _listed(names: Iterable[str]) -> str:
    shown = list(names)
    rest = len(shown) - _NAMED_AT_MOST
    return ", ".join(shown[:_NAMED_AT_MOST]) + (f" and {rest} more" if rest > 0 else "")
