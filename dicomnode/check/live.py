"""Problems of those that the node speaks with: destinations, broker, database server."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from urllib.parse import SplitResult, unquote, urlsplit

from sqlalchemy import make_url, text

from dicomnode import config
from dicomnode.archive.database import Database
from dicomnode.check import channels, collector, provider
from dicomnode.config import Parts, Problem, key_path
from dicomnode.errors import Misconfigured, NodeError, RetryLater
from dicomnode.network import tls
from dicomnode.network.calling import sender
from dicomnode.network.calling.sender import Destination
from dicomnode.network.tls import Certificates

_TIMEOUT_S = 5
_AT_ONCE = 8
_REDIS_PORT = 6379

# Key path of what is asked, and the question: it raises where the answer is not as it should be.
_Question = tuple[str, Callable[[], None]]


def problems(parts: Parts) -> list[Problem]:
    """Every problem that shows when each of them is asked whether it is there."""
    with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
        answers = list(pool.map(_ask, _questions(parts)))
    return [problem for problem in answers if problem is not None]


def _questions(parts: Parts) -> list[_Question]:
    questions: list[_Question] = []
    if parts.database is not None and config.sqlite_file(parts.database.url) is None:
        questions.append((key_path("database", "url"), partial(_query, parts.database.url)))
    if parts.queue is not None and urlsplit(parts.queue.broker).scheme == "redis":
        questions.append((key_path("queue", "broker"), partial(_ping, parts.queue.broker)))
    if parts.node is not None:
        echo = partial(sender.echo, calling_ae_title=parts.node.ae_title, timeout_s=_TIMEOUT_S)
        questions += [(path, partial(echo, to)) for path, to in _destinations(parts)]
    questions += _of_the_page(parts)
    if parts.alerts is not None and parts.alerts.email is not None:
        path = key_path("alerts", "email", "host")
        questions.append((path, partial(channels.ask, parts.alerts.email)))
    if parts.audit is not None and parts.tls is not None and parts.audit.host is not None:
        asked = partial(collector.asked, parts.audit, parts.tls)
        questions.append((key_path("audit", "host"), asked))
    return questions


def _of_the_page(parts: Parts) -> list[_Question]:
    oidc, web = parts.oidc, parts.web
    if oidc is None or web is None or oidc.issuer is None:
        return []
    return [(key_path("oidc", "issuer"), partial(provider.asked, oidc, web))]


def _destinations(parts: Parts) -> Iterator[tuple[str, Destination]]:
    """Key path and destination of each place where a peer is called; each once."""
    certificates = _certificates(parts)
    for name, peer in parts.peers.items():
        path = key_path("peers", name)
        places = {
            f"{path}.commitment": peer.commitment_at,
            f"{path}.query": peer.query_at,
            path: peer.storage_at,
        }
        # Of one address several times only the last path is kept: the peer's own, if any.
        paths = {address: where for where, address in places.items() if address is not None}
        for address, where in paths.items():
            # Without certificates that load there is nothing to call with; that is told elsewhere.
            if certificates is not None or not address.tls:
                yield where, Destination.at(address, certificates=certificates)


def _certificates(parts: Parts) -> Certificates | None:
    try:
        return tls.for_calling(parts.tls, parts.peers.values()) if parts.tls is not None else None
    except Misconfigured:
        return None


def _ask(question: _Question) -> Problem | None:
    path, ask = question
    try:
        ask()
    except NodeError as error:
        return Problem.error(path, error.detail, error.reason)
    return None


def _query(url: str) -> None:
    """Ask the database server for nothing in particular."""
    patient = make_url(url).update_query_dict({"connect_timeout": str(_TIMEOUT_S)})
    database = Database(patient.render_as_string(hide_password=False))
    try:
        with database.read() as connection:
            connection.execute(text("SELECT 1"))
    finally:
        database.close()


def _ping(url: str) -> None:
    """Say PING to Redis, in its own protocol: `dicomnode` itself knows no queue."""
    parts = urlsplit(url)
    try:
        with (
            socket.create_connection(
                (parts.hostname or "", parts.port or _REDIS_PORT), timeout=_TIMEOUT_S
            ) as connection,
            connection.makefile("rwb") as stream,
        ):
            for words in (*_auth(parts), ["PING"]):
                stream.write(_command(words))
                stream.flush()
                _require_ok(stream.readline())
    except OSError as error:
        why = error.strerror or error
        raise RetryLater(
            "broker-unreachable", f"{parts.hostname}: {why}. Is Redis running there?"
        ) from error


def _auth(parts: SplitResult) -> list[list[str]]:
    if parts.password is None:
        return []
    user = [unquote(parts.username)] if parts.username else []
    return [["AUTH", *user, unquote(parts.password)]]


def _command(words: list[str]) -> bytes:
    """A command in RESP: the number of its words, then each with its length in bytes."""
    encoded = [word.encode() for word in words]
    body = b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in encoded)
    return b"*%d\r\n%b" % (len(encoded), body)


def _require_ok(reply: bytes) -> None:
    if not reply.startswith(b"+"):
        said = reply.decode("utf-8", "replace").strip() or "nothing"
        raise RetryLater(
            "broker-refused", f"What answers there is no Redis for us: it says {said}."
        )
