"""Problems of the administrator's page: who could reach it, and what it needs."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

from dicomnode.check import file, port
from dicomnode.config import Problem, Web, is_loopback, key_path


def problems(web: Web) -> Iterator[Problem]:
    """What is wrong with [web] on this machine; nothing where there is no page."""
    if web.port is None:
        return
    unknown = list(port.address(web.host, path=key_path("web", "host")))
    yield from unknown
    if not unknown:
        yield from port.problems(web.host, web.port, path=key_path("web", "port"))
    if web.certificate is None:
        yield from _in_the_clear(web.host)
    elif web.key is not None:
        yield from _files(web.certificate, web.key)


def _in_the_clear(host: str) -> Iterator[Problem]:
    if not is_loopback(host):
        message = (
            "Passwords and patients' names would cross the network in the clear. Give "
            'web.certificate and web.key, or write host = "127.0.0.1".'
        )
        yield Problem.warning(key_path("web", "host"), message, "page-in-the-clear")


def _files(certificate: Path, key: Path) -> Iterator[Problem]:
    for name, one in (("certificate", certificate), ("key", key)):
        if not file.is_readable(one):
            yield file.unreadable(one, path=key_path("web", name), code="tls-file-missing")
            return
    try:
        # A key with a password would be asked for on the terminal: "" is none.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except (ssl.SSLError, ValueError) as error:
        reason = getattr(error, "reason", None) or "it cannot be read"
        message = f"{certificate} and {key} do not make a pair ({reason}). The key has no password."
        yield Problem.error(key_path("web", "certificate"), message, "tls-faulty")
