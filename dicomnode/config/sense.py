"""Faults of sense: values that are well formed each and do not go together.

They are looked for in the tables as written, so that a fault of shape in one place hides none of
another kind elsewhere. Whatever has not the expected shape is passed over: that was reported.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from dicomnode import profile
from dicomnode.config import channels, collector, sign_in, tree, url
from dicomnode.config.problem import Problem, did_you_mean, key_path
from dicomnode.config.raw import Tables, table, tables

_MAX_NAME_LENGTH = 64  # as long as the columns that keep it


def problems(raw: Tables) -> list[Problem]:
    """Every fault of sense in the tables of the file."""
    routes = list(tables(raw, "routes"))
    return [
        *_names_that_are_none(raw),
        *_written_passwords(raw),
        *_tls(raw),
        *_web(raw),
        *sign_in.problems(raw),
        *channels.problems(raw),
        *collector.problems(raw),
        *_disk(raw),
        *_removed_unconfirmed(raw),
        *_peers_that_are_one(raw),
        *(problem for name, peer in tables(raw, "peers") for problem in _peer(raw, name, peer)),
        *(problem for at, route in routes for problem in _route(raw, at=at, route=route)),
        *_routes_of_one_name(routes),
    ]


def _names(raw: Tables, section: str) -> list[str]:
    return list(table(raw, section))


def _names_that_are_none(raw: Tables) -> Iterator[Problem]:
    for section in ("peers", "models"):
        for name in _names(raw, section):
            if not 0 < len(name) <= _MAX_NAME_LENGTH:
                message = f"A name has 1 to {_MAX_NAME_LENGTH} characters. Give another one."
                yield Problem.error(key_path(section, name), message, "bad-name")


def _written_passwords(raw: Tables) -> Iterator[Problem]:
    for section, key in (("database", "url"), ("queue", "broker")):
        text = table(raw, section).get(key)
        if isinstance(text, str) and url.holds_password(text):
            message = (
                "A password is written here. Put it in a file of its own and name that "
                f"in {section}.password_file."
            )
            yield Problem.warning(key_path(section, key), message, "password-in-url")


def _tls(raw: Tables) -> Iterator[Problem]:
    tls = table(raw, "tls")
    needs = {"key": ["certificate"], "certificate": ["key"], "key_password_file": ["key"]}
    if "port" in tls:
        # What is required of who calls is so unless the file says otherwise.
        checks = tls.get("client_certificates", "required") == "required"
        needs["port"] = ["certificate", "key", *(["ca"] if checks else [])]
    for key, others in needs.items():
        missing = [key_path("tls", other) for other in others if other not in tls]
        if key in tls and missing:
            message = f"Needs {' and '.join(missing)} beside it."
            yield Problem.error(key_path("tls", key), message, "tls-incomplete")
    if tls.get("port") and tls["port"] == _value(raw, "listen", "port"):
        message = "listen.port is the same. Secure associations have a port of their own."
        yield Problem.error(key_path("tls", "port"), message, "one-port-for-two")


def _web(raw: Tables) -> Iterator[Problem]:
    web = table(raw, "web")
    for key, other in (("key", "certificate"), ("certificate", "key")):
        if key in web and other not in web:
            message = f"Needs {key_path('web', other)} beside it."
            yield Problem.error(key_path("web", key), message, "tls-incomplete")
    taken = {"listen.port": _value(raw, "listen", "port"), "tls.port": _value(raw, "tls", "port")}
    for where, port in taken.items():
        if web.get("port") and web["port"] == port:
            message = f"{where} is the same. The page has a port of its own."
            yield Problem.error(key_path("web", "port"), message, "one-port-for-two")


def _value(raw: Tables, section: str, key: str) -> Any:
    """The value of a key, or the one that it has when it is left out."""
    return table(raw, section).get(key, tree.SECTIONS[section].model_fields[key].default)


def _disk(raw: Tables) -> Iterator[Problem]:
    floor, least = (_value(raw, "disk", key) for key in ("floor_gib", "min_free_gib"))
    # True and False are numbers to Python.
    if not {type(floor), type(least)} <= {int, float} or floor == least == 0:  # 0: no limit
        return
    if floor >= least:
        written = "floor_gib" if "floor_gib" in table(raw, "disk") else "min_free_gib"
        message = (
            f"disk.floor_gib ({floor}) must be less than disk.min_free_gib ({least}): new studies "
            "are refused first, so that those that have begun can end."
        )
        yield Problem.error(key_path("disk", written), message, "floor-not-below")


def _removed_unconfirmed(raw: Tables) -> Iterator[Problem]:
    if "keep_delivered_days" not in table(raw, "disk"):
        return
    for name, peer in tables(raw, "peers"):
        if peer.get("confirm") == "none":
            message = (
                "Nobody asks whether it has the results, and disk.keep_delivered_days removes them"
                ' here. Write "find" or "commitment".'
            )
            path = key_path("peers", name, "confirm")
            yield Problem.warning(path, message, "removed-unconfirmed")


def _peers_that_are_one(raw: Tables) -> Iterator[Problem]:
    seen: dict[tuple[str, str], str] = {}
    for name, peer in tables(raw, "peers"):
        owners = {
            seen.setdefault((title.strip(" "), host.casefold()), name)
            for title, host in _origins(peer)
        }
        for first in sorted(owners - {name}):
            message = f'Has an AE title and a host of the peer "{first}". Keep them in one place.'
            yield Problem.error(key_path("peers", name), message, "duplicate-peer")


def _origins(peer: Tables) -> Iterator[tuple[str, str]]:
    """AE title and host of each place that a peer associates with the node from.

    Where C-FIND is answered is none of them: several peers may have one archive that is asked.
    """
    titles, hosts = _texts(peer.get("ae_title")), _texts(peer.get("host"))
    yield from itertools.product(titles, hosts)
    commitment = peer.get("commitment")
    if isinstance(commitment, dict):
        yield from itertools.product(
            _texts(commitment.get("ae_title")) or titles[:1],
            _texts(commitment.get("host")) or hosts[:1],
        )


def _texts(value: Any) -> list[str]:
    """One text or a list of them, as a list; what is none is left out."""
    values = value if isinstance(value, list) else [value]
    return [one for one in values if isinstance(one, str)]


def _peer(raw: Tables, name: str, peer: Tables) -> Iterator[Problem]:
    for service in ("query", "commitment"):
        endpoint = peer.get(service)
        if isinstance(endpoint, dict) and "port" not in endpoint and "port" not in peer:
            message = "Has no port to be reached at. Give one here, or to the peer."
            yield Problem.error(key_path("peers", name, service), message, "endpoint-without-port")
    asks = peer.get("confirm") == "commitment"
    if asks and "port" not in peer and "commitment" not in peer:
        message = f"Commitment cannot be asked for: give {key_path('peers', name, 'port')}."
        yield Problem.error(key_path("peers", name, "confirm"), message, "commitment-without-port")
    yield from _nothing_sent(name, peer)
    if peer.get("tls") is True and peer.get("tls_name") == "" and "ca" not in table(raw, "tls"):
        message = "Any certificate would do, also a stranger's. Give tls.ca, or a name to look for."
        yield Problem.error(key_path("peers", name, "tls_name"), message, "any-certificate")


def _nothing_sent(name: str, peer: Tables) -> Iterator[Problem]:
    """A destination of which nothing would ever hear."""
    named = profile.NAMED.get(peer.get("profile", "standard"))
    results = peer.get("results")
    if named is None or not isinstance(results, dict):
        return
    chosen = named.model_dump() | results
    if chosen["segmentation"] == "none" and not any(chosen[key] is True for key in profile.SENT):
        message = "Nothing of an answer would be sent. Leave at least the report or the capture."
        yield Problem.error(key_path("peers", name, "results"), message, "nothing-sent")


def _routes_of_one_name(routes: list[tuple[Any, Tables]]) -> Iterator[Problem]:
    by_name: dict[str, list[int]] = defaultdict(list)
    for at, route in routes:
        if isinstance(route.get("name"), str):
            by_name[route["name"]].append(at)
    for first, *others in by_name.values():
        for at in others:
            message = f"routes[{first}] has this name. The journal names a rule by it alone."
            yield Problem.error(key_path("routes", at, "name"), message, "duplicate-route")


def _route(raw: Tables, *, at: int, route: Tables) -> Iterator[Problem]:
    yield from _series_or_inputs(route, path=key_path("routes", at))
    model, known = route.get("model"), _names(raw, "models")
    if isinstance(model, str) and model not in known:
        message = f'There is no model "{model}" below [models]. {did_you_mean(model, known)}'
        yield Problem.error(key_path("routes", at, "model"), message, "unknown-model")
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
        yield Problem.error(path, message, "series-or-inputs")


def _destination(raw: Tables, name: str, *, path: str, again: bool) -> Iterator[Problem]:
    known = _names(raw, "peers")
    if name not in known:
        message = f'There is no peer "{name}" below [peers]. {did_you_mean(name, known)}'
        yield Problem.error(path, message, "unknown-peer")
        return
    peer = raw["peers"][name]
    if isinstance(peer, dict) and "port" not in peer:
        message = f'Results cannot be sent to "{name}": give {key_path("peers", name, "port")}.'
        yield Problem.error(path, message, "destination-without-port")
    if again:
        message = f'"{name}" is listed twice. Results are sent there once.'
        yield Problem.error(path, message, "duplicate-destination")
