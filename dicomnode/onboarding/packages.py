"""Python packages: what they are called where they are installed and where they are imported."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from packaging.version import InvalidVersion, Version

from dicomnode.onboarding.description import Description

#: Packages that are imported by another name than "-" → "_" gives.
_IMPORTED_AS = {
    "pytorch-ignite": "ignite",
    "scikit-image": "skimage",
    "scikit-learn": "sklearn",
    "pillow": "PIL",
    "opencv-python": "cv2",
    "opencv-python-headless": "cv2",
    "pyyaml": "yaml",
    "simpleitk": "SimpleITK",
    "openslide-python": "openslide",
    "cucim-cu11": "cucim",
    "cucim-cu12": "cucim",
    "gdown": "gdown",
    "nvidia-tensorrt": "tensorrt",
    "torch-tensorrt": "torch_tensorrt",
    "monai-weekly": "monai",
}
_INSTALLED_AS = {
    imported: name for name, imported in reversed(_IMPORTED_AS.items()) if imported != name
}
#: Keys of the metadata that name one package each.
_SINGLE = {
    "monai_version": "monai",
    "pytorch_version": "torch",
    "torch_version": "torch",
    "numpy_version": "numpy",
}
_TABLES = ("required_packages_version", "optional_packages_version")


class Installation(Protocol):
    """What is installed where models run."""

    def has(self, imported: str) -> bool:
        """Whether `import NAME` would find something; nothing is imported."""

    def version(self, installed: str) -> str | None:
        """The version of a package, by the name under which it is installed."""


@dataclass(frozen=True)
class Here:
    """This process's own installation."""

    def has(self, imported: str) -> bool:
        """As `Installation.has`."""
        if imported in sys.modules:
            return True
        try:
            return importlib.util.find_spec(imported) is not None
        except (ImportError, ValueError):
            return False

    def version(self, installed: str) -> str | None:
        """As `Installation.version`."""
        try:
            return importlib.metadata.version(installed)
        except importlib.metadata.PackageNotFoundError:
            return None


def imported_as(installed: str) -> str:
    """The name to import: "scikit-image" → "skimage"."""
    name = installed.strip().lower()
    return _IMPORTED_AS.get(name, installed.strip().replace("-", "_"))


def installed_as(imported: str) -> str:
    """The name to install: "skimage" → "scikit-image"."""
    return _INSTALLED_AS.get(imported, imported)


def is_foreign(imported: str) -> bool:
    """Whether it comes neither with Python nor with the bundle."""
    return imported not in sys.stdlib_module_names and imported != "scripts"


def stated(description: Description) -> dict[str, str]:
    """Package, by the name under which it is installed → the version that the metadata name."""
    found: dict[str, str] = {}
    for key in _TABLES:
        table = description.metadata.get(key)
        if isinstance(table, Mapping):
            found |= {str(name): str(version) for name, version in table.items()}
    for key, name in _SINGLE.items():
        version = description.metadata.get(key)
        if isinstance(version, str) and version:
            found.setdefault(name, version)
    return found


def is_older(installed: str, wanted: str) -> bool:
    """Whether one version comes before another; what cannot be compared does not."""
    try:
        return Version(installed) < Version(wanted)
    except InvalidVersion:
        return False
