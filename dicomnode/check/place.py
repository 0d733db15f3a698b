"""Problems of the place: folders, disk, port, bundles, as they are on this machine now."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dicomnode import bundle, config
from dicomnode.bundle import Bundle, Input
from dicomnode.check import certificates, channels, collector, page, port, provider
from dicomnode.config import Disk, Listen, Model, Parts, Problem, Reading, did_you_mean, key_path
from dicomnode.errors import NodeError

_GIB = 1024**3


def problems(reading: Reading) -> Iterator[Problem]:
    """Every problem that this machine has with what could be understood."""
    parts = reading.parts
    if parts.node is not None:
        yield from _data_dir(parts.node.data_dir, parts.disk)
    if parts.database is not None:
        yield from _sqlite(config.sqlite_file(parts.database.url))
    if parts.listen is not None:
        yield from port.address(parts.listen.host, path=key_path("listen", "host"))
        host = parts.listen.host
        yield from port.problems(host, parts.listen.port, path=key_path("listen", "port"))
        if parts.tls is not None and parts.tls.port is not None:
            yield from port.problems(host, parts.tls.port, path=key_path("tls", "port"))
        yield from _who_may_come(parts.listen, any_peer=bool(reading.raw.get("peers")))
    if parts.tls is not None:
        yield from certificates.problems(parts.tls)
    yield from _of_services(parts)
    if parts.alerts is not None:
        yield from channels.problems(parts.alerts)
    yield from _bundles_and_routes(reading)


def _of_services(parts: Parts) -> Iterator[Problem]:
    """What stands beside receiving and working."""
    if parts.web is not None:
        yield from page.problems(parts.web)
    if parts.oidc is not None:
        yield from provider.problems(parts.oidc, parts.web)
    if parts.audit is not None and parts.tls is not None:
        yield from collector.problems(parts.audit, parts.tls)


def _data_dir(folder: Path, disk: Disk | None) -> Iterator[Problem]:
    path = key_path("node", "data_dir")
    obstacle = _obstacle(folder)
    if obstacle is not None:
        yield Problem.error(path, obstacle, "data-dir-not-writable")
        return
    free_gib = shutil.disk_usage(_nearest(folder)).free / _GIB
    if disk is not None and free_gib < disk.min_free_gib:
        message = (
            f"Only {free_gib:.1f} GiB are free for {folder}; below {disk.min_free_gib:g} "
            "(disk.min_free_gib) studies are refused. Make room, or choose another."
        )
        yield Problem.warning(path, message, "disk-nearly-full")


def _sqlite(file: Path | None) -> Iterator[Problem]:
    if file is None:
        return
    path = key_path("database", "url")
    obstacle = _obstacle(file.parent)
    if obstacle is not None:
        yield Problem.error(path, obstacle, "database-not-writable")
    elif file.exists() and not (file.is_file() and os.access(file, os.R_OK | os.W_OK)):
        message = f"{file} cannot be written. Make it a file of the node's user, or move it away."
        yield Problem.error(path, message, "database-not-writable")


def _nearest(folder: Path) -> Path:
    """The folder itself, or the nearest one above it that is there."""
    return next(one for one in (folder, *folder.parents) if os.path.lexists(one))


def _obstacle(folder: Path) -> str | None:
    """What keeps the node from writing in `folder`, which it makes where it is missing."""
    nearest = _nearest(folder)
    if not nearest.is_dir():
        return f"{nearest} is no folder. Choose another path, or move it away."
    if not os.access(nearest, os.W_OK | os.X_OK):
        return f"This user cannot write in {nearest}. Give it the right, or choose another path."
    return None


def _who_may_come(listen: Listen, *, any_peer: bool) -> Iterator[Problem]:
    if listen.accept_unknown_peers:
        message = "Anyone who reaches the port may send. List your senders below [peers] instead."
        yield Problem.warning(key_path("listen", "accept_unknown_peers"), message, "open-to-anyone")
    elif not any_peer:
        message = "No peer may associate. Add a [peers.NAME] for each sender."
        yield Problem.warning("peers", message, "no-peer-may-associate")


def _bundles_and_routes(reading: Reading) -> Iterator[Problem]:
    bundles: dict[str, Bundle] = {}
    for name, model in reading.parts.models.items():
        yield from _bundle(name, model, bundles)
    for at, route in config.tables(reading.raw, "routes"):
        loaded = bundles.get(str(route.get("model")))
        if loaded is not None:
            yield from _inputs(route, loaded.manifest.inputs, path=key_path("routes", at))
    if not reading.raw.get("routes"):
        message = "There is no route: what is received is kept, and no model runs. Add [[routes]]."
        yield Problem.warning("routes", message, "no-routes")


def _bundle(name: str, model: Model, bundles: dict[str, Bundle]) -> Iterator[Problem]:
    """The problems of one bundle; it is added to `bundles` where its manifest can be read."""
    path = key_path("models", name, "bundle")
    if not model.bundle.is_dir():
        yield Problem.error(
            path, f"{model.bundle} is no folder. Name the bundle's.", "bundle-missing"
        )
        return
    if model.manifest is not None and not model.manifest.is_file():
        message = f"{model.manifest} is no file. Name the manifest of the bundle."
        yield Problem.error(key_path("models", name, "manifest"), message, "manifest-missing")
        return
    found: dict[str, str] = {}
    try:
        bundles[name] = bundle.load(model.bundle, manifest=model.manifest)
    except NodeError as error:
        found[error.reason] = error.detail
    try:
        bundle.verify(model.bundle, manifest=model.manifest)
    except NodeError as error:
        found.setdefault(error.reason, error.detail)
    except OSError as error:
        found["bundle-unreadable"] = f"{error.filename}: {error.strerror}."
    for reason, detail in found.items():
        yield Problem.error(path, detail, reason)


def _inputs(
    route: Mapping[str, Any], inputs: Mapping[str, Input], *, path: str
) -> Iterator[Problem]:
    """Whether a route, as written, feeds each input of its model."""
    if "series" in route and len(inputs) > 1:
        message = f"The model has several inputs. Write inputs.NAME for each: {', '.join(inputs)}."
        yield Problem.error(f"{path}.series", message, "several-inputs")
    asked = route.get("inputs")
    if not isinstance(asked, dict):
        return
    for name in asked.keys() - inputs.keys():
        message = f"The model has no such input. {did_you_mean(name, inputs)}"
        yield Problem.error(f"{path}.{key_path('inputs', name)}", message, "unknown-input")
    missing = [name for name in inputs if name not in asked]
    if missing:
        message = f"The model also needs {', '.join(missing)}. Say which series that is."
        yield Problem.error(f"{path}.inputs", message, "missing-input")
