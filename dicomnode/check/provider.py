"""Problems of the files that a sign-in by OpenID Connect needs, and of the way back from it."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from dicomnode.check import file
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


def _secret(secret: Path) -> Iterator[Problem]:
    path = key_path("oidc", "client_secret_file")
    try:
        is_empty = not read_secret(secret)
        is_open_to_all = file.is_open_to_all(secret)
    except (OSError, UnicodeDecodeError):
        yield file.unreadable(secret, path=path, code="secret-file-missing")
        return
    if is_empty:
        message = f"{secret} is empty. Put the client secret there."
        yield Problem.error(path, message, "secret-empty")
    elif is_open_to_all:
        yield file.open_to_all(secret, path=path, code="secret-open-to-all")


def _ca(ca: Path) -> Iterator[Problem]:
    path = key_path("oidc", "ca")
    if not file.is_readable(ca):
        yield file.unreadable(ca, path=path, code="tls-file-missing")
        return
    try:
        ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError):
        message = f"{ca} holds no certificates. It is PEM, of who signs the provider's."
        yield Problem.error(path, message, "tls-faulty")


def _in_the_clear(public_url: str) -> Iterator[Problem]:
    parts = urlsplit(public_url)
    if parts.scheme != "https" and not is_loopback(parts.hostname or ""):
        message = (
            "Whoever signs in comes back over the network in the clear, and many providers refuse "
            "that. Write https://, and give web.certificate and web.key or a proxy that has them."
        )
        yield Problem.warning(key_path("web", "public_url"), message, "page-in-the-clear")
