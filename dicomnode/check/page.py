"""Problems of the administrator's page: who could reach it, and what it needs."""

from __future__ import annotations

import ipaddress
import os
import ssl
from collections.abc import Iterator
from pathlib import Path

from dicomnode.check import port
from dicomnode.config import Problem, Web, key_path


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
    if not _is_loopback(host):
        message = (
            "Passwords and patients' names would cross the network in the clear. Give "
            'web.certificate and web.key, or write host = "127.0.0.1".'
        )
        yield Problem(
            level="warning", path=key_path("web", "host"), message=message, code="page-in-the-clear"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _files(certificate: Path, key: Path) -> Iterator[Problem]:
    for name, file in (("certificate", certificate), ("key", key)):
        if not (file.is_file() and os.access(file, os.R_OK)):
            message = f"{file} is no file that this user can read. Name one, or give the right to."
            yield _error(name, message, "tls-file-missing")
            return
    try:
        # A key with a password would be asked for on the terminal: "" is none.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except (ssl.SSLError, ValueError) as error:
        reason = getattr(error, "reason", None) or "it cannot be read"
        message = f"{certificate} and {key} do not make a pair ({reason}). The key has no password."
        yield _error("certificate", message, "tls-faulty")


def _error(key: str, message: str, code: str) -> Problem:
    return Problem(level="error", path=key_path("web", key), message=message, code=code)
