"""Problems of the files that a sign-in by OpenID Connect needs, and of the way back from it."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from dicomnode.config import Oidc, Problem, Web, is_loopback, key_path
from dicomnode.oidc import Provider
from dicomnode.oidc.provider import read_secret


def problems(oidc: Oidc, web: Web | None) -> Iterator[Problem]:
    """What is wrong with [oidc] on this machine; nothing where nobody signs in that way."""
    if oidc.issuer is None:
        return
    if oidc.client_secret_file is not None:
        yield from _secret(oidc.client_secret_file)
    if oidc.ca is not None:
        yield from _ca(oidc.ca)
    if web is not None and web.public_url is not None:
        yield from _in_the_clear(web.public_url)


def asked(oidc: Oidc, web: Web) -> None:
    """Ask the provider what it says of itself.

    Raises:
        RetryLater, Misconfigured: As `Provider.discover`.
    """
    if oidc.client_id is not None and web.public_url is not None:
        Provider(oidc, public_url=web.public_url).discover()


def _secret(file: Path) -> Iterator[Problem]:
    key = "client_secret_file"
    try:
        is_empty = not read_secret(file)
        mode = file.stat().st_mode
    except (OSError, UnicodeDecodeError):
        message = f"{file} is no file that this user can read. Name one, or give the right to."
        yield _problem(key, message, "secret-file-missing")
        return
    if is_empty:
        yield _problem(key, f"{file} is empty. Put the client secret there.", "secret-empty")
    elif mode & 0o004:
        message = f"Every user here can read {file}. Leave that to the user of the node."
        yield Problem(
            level="warning", path=key_path("oidc", key), message=message, code="secret-open-to-all"
        )


def _ca(file: Path) -> Iterator[Problem]:
    if not (file.is_file() and os.access(file, os.R_OK)):
        message = f"{file} is no file that this user can read. Name one, or give the right to."
        yield _problem("ca", message, "tls-file-missing")
        return
    try:
        ssl.create_default_context(cafile=file)
    except (OSError, ssl.SSLError):
        message = f"{file} holds no certificates. It is PEM, of who signs the provider's."
        yield _problem("ca", message, "tls-faulty")


def _in_the_clear(public_url: str) -> Iterator[Problem]:
    parts = urlsplit(public_url)
    if parts.scheme != "https" and not is_loopback(parts.hostname or ""):
        message = (
            "Whoever signs in comes back over the network in the clear, and many providers refuse "
            "that. Write https://, and give web.certificate and web.key or a proxy that has them."
        )
        yield Problem(
            level="warning",
            path=key_path("web", "public_url"),
            message=message,
            code="page-in-the-clear",
        )


def _problem(key: str, message: str, code: str) -> Problem:
    return Problem(level="error", path=key_path("oidc", key), message=message, code=code)
