"""The configuration that a new node starts from."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

from dicomnode.errors import Misconfigured

FILE_NAME = "node.toml"

_MODELS_DIR = "models"
_BUNDLE = "hippocampus_mr_segmentation"
# Stands in the text where the bundle's folder is written.
_PLACEHOLDER = f'"{_MODELS_DIR}/{_BUNDLE}"'


def starter(*, models_dir: str = _MODELS_DIR) -> str:
    """The commented text of a first configuration, its bundle lying below `models_dir`."""
    text = (resources.files("dicomnode") / "starter.toml").read_text(encoding="utf-8")
    # JSON and TOML quote a string alike.
    return text.replace(_PLACEHOLDER, json.dumps(f"{models_dir}/{_BUNDLE}", ensure_ascii=False))


def write_starter(directory: Path, *, models_dir: Path) -> Path:
    """Write the first configuration into `directory`, which is made where it is missing.

    Args:
        directory: Where the node is to live.
        models_dir: The folder of the bundles; written as a relative path where it is
            `directory/models`, otherwise as an absolute one.

    Returns:
        The file.

    Raises:
        Misconfigured: There is such a file already, or none can be written.
    """
    file = directory / FILE_NAME
    models = models_dir.absolute()
    beside = models == directory.absolute() / _MODELS_DIR
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with file.open("x", encoding="utf-8") as new:
            new.write(starter(models_dir=_MODELS_DIR if beside else str(models)))
    except FileExistsError as error:
        raise Misconfigured(
            "already-there", f"{error.filename} is there already; nothing was written."
        ) from error
    except OSError as error:
        raise Misconfigured("not-writable", f"{file}: {error.strerror}.") from error
    return file
