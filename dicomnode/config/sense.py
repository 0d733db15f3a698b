"""Faults of sense: values that are well formed each and do not go together.

They are looked for in the tables as written, so that a fault of shape in one place hides none of
another kind elsewhere. Whatever has not the expected shape is passed over: that was reported.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from dicomnode.config import url
from dicomnode.config.problem import Problem, did_you_mean, key_path

Tables = Mapping[str, Any]

_MAX_NAME_LENGTH = 64  # as long as the columns that keep it


def problems(raw: Tables) -> list[Problem]:
    """Every fault of sense in the tables of the file."""
    routes = list(tables(raw, "routes"))
    return [
        *_more_than_one_listener(raw),
        *_names_that_are_none(raw),
        *_written_passwords(raw),
        *_peers_that_are_one(raw),
        *(problem for at, route in routes for problem in _route(raw, at=at, route=route)),
        *_routes_of_one_name(routes),
    ]


def _error(path: str, message: str, code: str) -> Problem:
    return Problem(level="error", path=path, message=message, code=code)


def tables(raw: Tables, section: str) -> Iterator[tuple[Any, Tables]]:
    """Name or number, and table as written, of each member of a section that is a table."""
    members = raw.get(section)
    if isinstance(members, dict):
        pairs: Iterator[tuple[Any, Any]] = iter(members.items())
    else:
        pairs = enumerate(members if isinstance(members, list) else ())
    return ((key, table) for key, table in pairs if isinstance(table, dict))


def _names(raw: Tables, section: str) -> list[str]:
    members = raw.get(section)
    return list(members) if isinstance(members, dict) else []


def _more_than_one_listener(raw: Tables) -> Iterator[Problem]:
    listen = raw.get("listen")
    processes = listen.get("processes") if isinstance(listen, dict) else None
    if isinstance(processes, int) and processes > 1:
        message = "This version listens with one process. Set it to 1, or leave it out."
        yield _error(key_path("listen", "processes"), message, "one-listener")


def _names_that_are_none(raw: Tables) -> Iterator[Problem]:
    for section in ("peers", "models"):
        for name in _names(raw, section):
            if not 0 < len(name) <= _MAX_NAME_LENGTH:
                message = f"A name has 1 to {_MAX_NAME_LENGTH} characters. Give another one."
                yield _error(key_path(section, name), message, "bad-name")


def _written_passwords(raw: Tables) -> Iterator[Problem]:
    for section, key in (("database", "url"), ("queue", "broker")):
        table = raw.get(section)
        text = table.get(key) if isinstance(table, dict) else None
        if isinstance(text, str) and url.holds_password(text):
            yield Problem(
                level="warning",
                path=key_path(section, key),
                message="A password is written here. Put it in a file of its own and name that "
                f"in {section}.password_file.",
                code="password-in-url",
            )


def _peers_that_are_one(raw: Tables) -> Iterator[Problem]:
    seen: dict[tuple[str, str], str] = {}
    for name, peer in tables(raw, "peers"):
        title, host = peer.get("ae_title"), peer.get("host")
        if not isinstance(title, str) or not isinstance(host, str):
            continue
        first = seen.setdefault((title.strip(" "), host.casefold()), name)
        if first != name:
            message = f'Has the AE title and host of the peer "{first}". Keep one of them.'
            yield _error(key_path("peers", name), message, "duplicate-peer")


def _routes_of_one_name(routes: list[tuple[Any, Tables]]) -> Iterator[Problem]:
    by_name: dict[str, list[int]] = defaultdict(list)
    for at, route in routes:
        if isinstance(route.get("name"), str):
            by_name[route["name"]].append(at)
    for first, *others in by_name.values():
        for at in others:
            message = f"routes[{first}] has this name. The journal names a rule by it alone."
            yield _error(key_path("routes", at, "name"), message, "duplicate-route")


def _route(raw: Tables, *, at: int, route: Tables) -> Iterator[Problem]:
    yield from _series_or_inputs(route, path=key_path("routes", at))
    model, known = route.get("model"), _names(raw, "models")
    if isinstance(model, str) and model not in known:
        message = f'There is no model "{model}" below [models]. {did_you_mean(model, known)}'
        yield _error(key_path("routes", at, "model"), message, "unknown-model")
    send_to = route.get("send_to")
    names = send_to if isinstance(send_to, list) else []
    for position, name in enumerate(names):
        if isinstance(name, str):
            path = key_path("routes", at, "send_to", position)
            yield from _destination(raw, name, path=path, again=name in names[:position])


def _series_or_inputs(route: Tables, *, path: str) -> Iterator[Problem]:
    if ("series" in route) == ("inputs" in route):
        found = "both" if "series" in route else "neither"
        message = f"Expects either series or inputs; {found} is given."
        yield _error(path, message, "series-or-inputs")


def _destination(raw: Tables, name: str, *, path: str, again: bool) -> Iterator[Problem]:
    known = _names(raw, "peers")
    if name not in known:
        message = f'There is no peer "{name}" below [peers]. {did_you_mean(name, known)}'
        yield _error(path, message, "unknown-peer")
        return
    peer = raw["peers"][name]
    if isinstance(peer, dict) and "port" not in peer:
        message = f'Results cannot be sent to "{name}": give {key_path("peers", name, "port")}.'
        yield _error(path, message, "destination-without-port")
    if again:
        message = f'"{name}" is listed twice. Results are sent there once.'
        yield _error(path, message, "duplicate-destination")
