"""What differs between two configurations, and when a node that runs can take each change up.

A key that is not named here waits for a restart: whoever adds a key that can be taken up at once
says so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, SecretStr

from dicomnode.config import written
from dicomnode.config.problem import key_path
from dicomnode.config.tree import Configuration
from dicomnode.config.written import Key, WrittenTable


class When(StrEnum):
    """When a change is taken up."""

    NOW = "now"
    WORKERS = "by each worker, once what it runs has ended"
    RESTART = "after a restart"


#: Sections that a node which runs takes up whole.
_NOW = frozenset({"alerts", "disk", "complete", "deliver", "oidc", "peers", "models", "routes"})
#: Keys that it takes up of others.
_NOW_KEYS: Mapping[str, frozenset[str]] = {
    "listen": frozenset(
        {
            "accept_unknown_peers",
            "max_associations",
            "max_associations_per_peer",
            "max_instance_gib",
            "idle_s",
        }
    ),
    "tls": frozenset({"certificate", "key", "key_password_file", "ca", "client_certificates"}),
    "web": frozenset({"public_url", "session_hours"}),
}
#: Sections that concern the workers alone: each begins anew with them.
_WORKERS = frozenset({"worker", "queue"})
#: What a worker goes by, besides those. A change of anything else it need not begin anew for.
_SEEN_BY_WORKERS = (
    "node", "tls", "database", "worker", "queue", "deliver", "audit", "peers", "models",
)  # fmt: skip
#: What a worker shares with the node as it runs: another one only together with it.
_FIXED_IN_WORKERS = frozenset({"node", "database", "audit"})
#: What node and workers must have in common, wherever their files lie.
_IN_COMMON = ("deliver", "peers", "routes")


@dataclass(frozen=True, kw_only=True)
class Change:
    """One key that differs, or a whole peer, model or route that came or went.

    Attributes:
        path: Its key path; a route by its name.
        old, new: The values as they would be written, secrets masked: one whose password alone
            changed looks the same twice. `None` where there is nothing.
        when: When it is taken up.
    """

    path: str
    old: str | None
    new: str | None
    when: When

    def __str__(self) -> str:
        return f"{self.path}: {_shown(self.old)} → {_shown(self.new)}"


def _shown(value: str | None) -> str:
    return "nothing" if value is None else value or "left out"


def difference(old: Configuration, new: Configuration) -> tuple[Change, ...]:
    """Every change from `old` to `new`, in the order of the tree."""
    before = {one.name: one for one in written.tables(old)}
    after = {one.name: one for one in written.tables(new)}
    changes: list[Change] = []
    for name in {**before, **after}:
        changes += _of_table(before.get(name), after.get(name))
    return (*changes, *_order_of_routes(old, new))


def _of_table(old: WrittenTable | None, new: WrittenTable | None) -> Iterator[Change]:
    if old is None and new is not None:
        yield Change(path=new.name, old=None, new=_summary(new), when=_when(new.section))
    elif new is None and old is not None:
        yield Change(path=old.name, old=_summary(old), new=None, when=_when(old.section))
    elif old is not None and new is not None:
        yield from _of_keys(old, new)


def _of_keys(old: WrittenTable, new: WrittenTable) -> Iterator[Change]:
    before, after = _by_name(old), _by_name(new)
    for name in {**before, **after}:
        was, is_now = before.get(name), after.get(name)
        if _value(was) == _value(is_now):
            continue
        yield Change(
            path=f"{new.name}.{name}",
            old=was.text if was else "",
            new=is_now.text if is_now else "",
            when=_when(new.section, name),
        )


def _by_name(table: WrittenTable) -> dict[str, Key]:
    return {one.name: one for one in table.keys}


def _value(key: Key | None) -> Any:
    return None if key is None else key.value


def _summary(table: WrittenTable) -> str:
    chosen = [f"{one.name} = {one.text}" for one in table.keys if one.text and not one.is_default]
    return "; ".join(chosen)


def _when(section: str, key: str = "") -> When:
    if section in _NOW or key in _NOW_KEYS.get(section, ()):
        return When.NOW
    return When.WORKERS if section in _WORKERS else When.RESTART


def _order_of_routes(old: Configuration, new: Configuration) -> Iterator[Change]:
    was, is_now = [one.name for one in old.routes], [one.name for one in new.routes]
    # Of those that stay: what came or went is named besides.
    before = [name for name in was if name in is_now]
    after = [name for name in is_now if name in was]
    if before != after:
        yield Change(
            path="routes", old=", ".join(before), new=", ".join(after), when=_when("routes")
        )


def in_force(running: Configuration, proposed: Configuration) -> Configuration:
    """`proposed`, as far as a node that runs with `running` can take it up.

    Each key that waits for a restart is as it was.
    """
    kept: dict[str, Any] = {}
    for section in Configuration.model_fields:
        if section in _NOW or section in _WORKERS:
            continue
        old, new = getattr(running, section), getattr(proposed, section)
        takes = _NOW_KEYS.get(section, frozenset())
        if not takes or not isinstance(new, BaseModel):
            kept[section] = old
            continue
        kept[section] = old.model_copy(update={name: getattr(new, name) for name in takes})
    return proposed.model_copy(update=kept)


def concerns_workers(old: Configuration, new: Configuration) -> bool:
    """Whether a worker that runs with `old` must begin anew to run with `new`."""
    return any(getattr(old, one) != getattr(new, one) for one in _SEEN_BY_WORKERS)


def waits_in_workers(running: Configuration, proposed: Configuration) -> tuple[Change, ...]:
    """The changes that a worker cannot make while the node still runs without them."""
    every = difference(running, proposed)
    return tuple(one for one in every if one.path.partition(".")[0] in _FIXED_IN_WORKERS)


def digest(configuration: Configuration) -> str:
    """What node and workers can compare: SHA-256, in hex, of what both must have alike.

    That is the AE title, how and where results are sent, which models there are, and the rules. The
    places of files, the devices and the addresses of servers may differ between machines.
    """
    lines = [f"node.ae_title = {configuration.node.ae_title}"]
    lines += sorted(key_path("models", name) for name in configuration.models)
    tables = [one for one in written.tables(configuration) if one.section in _IN_COMMON]
    # The order of the routes is kept. That of the peers says nothing, and is no difference either.
    for table in sorted(tables, key=lambda one: "" if one.section == "routes" else one.name):
        lines += [f"{table.name}.{key.name} = {key.text}" for key in table.keys if key.text]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def fingerprint(configuration: Configuration, *, bundles: Mapping[str, str], secret: bytes) -> str:
    """What tells whether a configuration is still the one that was shown: every key of it.

    Args:
        bundles: Model → the digest of its bundle, which may change while the file does not.
        secret: Of this process: without it nobody can try passwords against the fingerprint.
    """
    lines = [
        f"{table.name}.{key.name} = {_bare(key.value)!r}"
        for table in written.tables(configuration)
        for key in table.keys
    ]
    lines += [f"{name}: {one}" for name, one in bundles.items()]
    return hashlib.blake2b("\n".join(lines).encode(), key=secret, digest_size=16).hexdigest()


def _bare(value: object) -> object:
    """A value that would not be shown, as it is."""
    return value.get_secret_value() if isinstance(value, SecretStr) else value
