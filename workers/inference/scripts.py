"""The bundle's own Python package `scripts`, importable only while that bundle is at work.

Every bundle may have one, and all have the same name. While a bundle is evaluated or runs, the
name means its folder; before and after it means what it meant.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, ModuleType

PACKAGE = "scripts"

# `sys.modules` belongs to the whole process: one bundle at a time.
_ONE_AT_A_TIME = threading.RLock()


class Scripts:
    """What `scripts` means to one bundle; its modules are executed once."""

    def __init__(self, root: Path) -> None:
        self._finder = _Finder(root)
        self._modules: dict[str, ModuleType] = {}

    @contextmanager
    def importable(self) -> Iterator[None]:
        """Let `import scripts` mean this bundle's folder within the `with` block."""
        with _ONE_AT_A_TIME:
            others = _taken_out()
            sys.modules.update(self._modules)
            sys.meta_path.insert(0, self._finder)
            try:
                yield
            finally:
                sys.meta_path.remove(self._finder)
                self._modules = _taken_out()
                sys.modules.update(others)


def _taken_out() -> dict[str, ModuleType]:
    names = [name for name in sys.modules if name.partition(".")[0] == PACKAGE]
    return {name: sys.modules.pop(name) for name in names}


class _Finder(importlib.abc.MetaPathFinder):
    """Finds `scripts` and what is in it below one folder, and nowhere else."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002 - of the interface
        target: ModuleType | None = None,  # noqa: ARG002 - of the interface
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname.partition(".")[0] != PACKAGE:
            return None
        location = self._root.joinpath(*fullname.split("."))
        package, module = location / "__init__.py", location.with_suffix(".py")
        if package.is_file():
            return _spec(fullname, package, search=[str(location)])
        if module.is_file():
            return _spec(fullname, module)
        if location.is_dir():
            folder = importlib.machinery.ModuleSpec(fullname, None, is_package=True)
            folder.submodule_search_locations = [str(location)]
            return folder
        # `None` would let the next finder take another package of the same name from anywhere.
        raise ModuleNotFoundError(f"the bundle has no module '{fullname}'", name=fullname)


def _spec(
    name: str, path: Path, *, search: list[str] | None = None
) -> importlib.machinery.ModuleSpec | None:
    return importlib.util.spec_from_file_location(
        name, path, loader=_FromSource(name, str(path)), submodule_search_locations=search
    )


class _FromSource(importlib.machinery.SourceFileLoader):
    """Compiles the source that the lock lists; a `.pyc` beside it is neither read nor written."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)
