"""What a bundle's makers wrote about it, read as data: nothing of it is evaluated.

`configs/metadata.json` is loose: parts may be missing, empty or wrong, and are then passed over.
Of the configuration, references to other entries are followed ("@image_key", "@a#b", "@a::0");
expressions ("$…") stay texts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dicomnode.bundle import METADATA_NAME
from dicomnode.errors import Misconfigured

#: In the order in which the runner looks for them.
CONFIGURATIONS = ("inference.json", "inference.yaml", "inference.yml")

#: What a reference begins with, and what separates its steps.
_REFERENCE = re.compile(r"[@%]([\w]+(?:(?:#|::)\w+)*)")
_STEP = re.compile(r"#|::")
_MAX_HOPS = 8
_MAX_ENTRIES = 200_000  # a few lines of YAML may stand for billions

Config = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Component:
    """Something that a configuration builds.

    Attributes:
        path: Its id: "postprocessing::transforms::2".
        target: Its class as it is written: "scripts.saver.Saver", "LoadImaged".
        content: Its description, references not followed.
    """

    path: str
    target: str
    content: Config

    @property
    def name(self) -> str:
        """Its class without the module, and without what marks a transform of dictionaries."""
        return re.sub(r"(?<=[a-z])(d|D|Dict)$", "", self.target.rpartition(".")[2])


@dataclass(frozen=True, kw_only=True)
class Description:
    """A bundle as its makers describe it.

    Attributes:
        root: Its folder.
        metadata: As read; an empty one where there is none.
        config: Of inference, as read.
        config_path: Its file.
    """

    root: Path
    metadata: Mapping[str, Any]
    config: Config
    config_path: Path

    def value(self, raw: Any) -> Any:
        """`raw`, or what it refers to; an expression stays the text that it is."""
        for _ in range(_MAX_HOPS):
            if not isinstance(raw, str):
                return raw
            match = _REFERENCE.fullmatch(raw)
            if match is None:
                return raw
            raw = self._at(match[1])
        return None

    def texts(self, raw: Any) -> list[str]:
        """`raw` as texts: of `keys` one or several."""
        found = self.value(raw)
        many = found if isinstance(found, list | tuple) else [found]
        return [one for one in map(self.value, many) if isinstance(one, str)]

    def components(self) -> list[Component]:
        """What is built, in the order of the file; what is switched off is left out."""
        return [one for one in _components(self.config, "") if not self._is_off(one)]

    def chain(self, under: str) -> list[Component]:
        """The transforms of one composition, in their order, wherever they are written down."""
        entry = self.value(self._at(under))
        if isinstance(entry, str):  # an expression that wraps another entry
            return [part for name in _REFERENCE.findall(entry) for part in self.chain(name)]
        found = []
        for component in _components(entry, under):
            if self._is_off(component):
                continue
            found.append(component)
            for reference in component.content.get("transforms") or ():
                if isinstance(reference, str) and (match := _REFERENCE.fullmatch(reference)):
                    found += self.chain(match[1])
        return found

    def network_data(self, side: str) -> dict[str, Mapping[str, Any]]:
        """What the metadata says of the network's "inputs" or "outputs"."""
        formats = self.metadata.get("network_data_format")
        entries = formats.get(side) if isinstance(formats, Mapping) else None
        if not isinstance(entries, Mapping):
            return {}
        return {str(name): one for name, one in entries.items() if isinstance(one, Mapping)}

    def said(self, *keys: str) -> str:
        """The texts of the metadata under `keys`, joined."""
        found = (self.metadata.get(key) for key in keys)
        return " ".join(one for one in found if isinstance(one, str)).strip()

    def _is_off(self, component: Component) -> bool:
        return self.value(component.content.get("_disabled_")) is True

    def _at(self, path: str) -> Any:
        content: Any = self.config
        for step in _STEP.split(path):
            if isinstance(content, str):
                content = self.value(content)
            if isinstance(content, list) and step.isdigit() and int(step) < len(content):
                content = content[int(step)]
            elif isinstance(content, Mapping):
                content = content.get(step)
            else:
                return None
        return content


def read(root: Path) -> Description:
    """Read what describes the bundle in `root`.

    Raises:
        Misconfigured: `bundle-incomplete`, `metadata-faulty` or `configuration-faulty`.
    """
    folder = root / "configs"
    files = [folder / name for name in CONFIGURATIONS if (folder / name).is_file()]
    if not files:
        raise Misconfigured(
            "bundle-incomplete",
            f"{folder} has none of {', '.join(CONFIGURATIONS)}: the node runs what the bundle's"
            " makers wrote for inference.",
        )
    return Description(
        root=root,
        metadata=_mapping(root / METADATA_NAME, reason="metadata-faulty"),
        config=_mapping(files[0], reason="configuration-faulty"),
        config_path=files[0],
    )


def references(text: str) -> list[str]:
    """The ids that an expression or a reference names."""
    return _REFERENCE.findall(text)


def _mapping(path: Path, *, reason: str) -> Mapping[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except OSError as error:
        raise Misconfigured("bundle-incomplete", f"{path}: {error.strerror}.") from error
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise Misconfigured(reason, f"{path}: {' '.join(str(error).split())}.") from error
    if not isinstance(content, Mapping) or _is_too_large(content):
        raise Misconfigured(reason, f"{path}: must be a table of entries, and no endless one.")
    return content


def _is_too_large(content: Any) -> bool:
    waiting, seen = [content], 0
    while waiting and seen <= _MAX_ENTRIES:
        seen += 1
        one = waiting.pop()
        if isinstance(one, Mapping):
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one
    return seen > _MAX_ENTRIES


def _components(content: Any, path: str) -> Iterator[Component]:
    if isinstance(content, Mapping):
        target = content.get("_target_")
        if isinstance(target, str):
            yield Component(path=path, target=target, content=content)
        items: Iterator[tuple[Any, Any]] = iter(content.items())
    elif isinstance(content, list):
        items = iter(enumerate(content))
    else:
        return
    for key, value in items:
        yield from _components(value, f"{path}::{key}" if path else str(key))
