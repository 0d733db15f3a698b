"""Asking the provider: over TLS, without a proxy or a redirection, never long and never much."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2

from dicomnode.errors import Misconfigured, NodeError, RetryLater

_TIMEOUT = httpx2.Timeout(5.0, connect=3.0)
#: An answer must be whole within this time (seconds), however it trickles in.
_DEADLINE_S = 10.0
_LONGEST_BYTES = 1024 * 1024
_SERVER_ERROR = 500


@dataclass(frozen=True, kw_only=True)
class Question:
    """A request to the provider; with a form it is sent as one."""

    url: str
    form: Mapping[str, str] = field(default_factory=dict, repr=False)
    password: tuple[str, str] | None = field(default=None, repr=False)
    bearer: str = field(default="", repr=False)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Status and JSON object of an answer; one that holds none is empty."""

    status: int
    document: Mapping[str, Any] = field(repr=False)


def ask(question: Question, *, ca: Path | None) -> Answer:
    """The answer of the provider.

    Args:
        ca: Who signs its certificate, PEM; `None` for those that the system trusts.

    Raises:
        RetryLater: `provider-unreachable`: it is away, too slow, or at fault itself.
        Misconfigured: `provider-not-trusted` where its certificate is not, `ca-unusable`.
    """
    headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
    if question.bearer:
        headers["Authorization"] = f"Bearer {question.bearer}"
    try:
        # The environment may name a proxy, or a password for the host: it is not asked.
        with httpx2.Client(verify=_trusting(ca), timeout=_TIMEOUT, trust_env=False) as client:
            method = "POST" if question.form else "GET"
            with client.stream(
                method,
                question.url,
                headers=headers,
                data=dict(question.form) or None,
                auth=question.password,
            ) as response:
                body = _read(response)
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise _named(question, error) from error
    if response.status_code >= _SERVER_ERROR:
        raise _unreachable(question, f"it answers {response.status_code}")
    return Answer(status=response.status_code, document=_document(body))


def _trusting(ca: Path | None) -> ssl.SSLContext:
    return _like_the_system() if ca is None else _only(ca)


@cache
def _like_the_system() -> ssl.SSLContext:
    return ssl.create_default_context()


def _only(ca: Path) -> ssl.SSLContext:
    """Read anew each time: the file may be replaced while the node runs."""
    try:
        return ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError) as error:
        raise Misconfigured(
            "ca-unusable", f"{ca} holds no certificates that can be used: see oidc.ca."
        ) from error


def _read(response: httpx2.Response) -> bytes:
    until = time.monotonic() + _DEADLINE_S
    body = bytearray()
    for piece in response.iter_raw():
        body += piece
        if len(body) > _LONGEST_BYTES:
            raise httpx2.ReadError("the answer is too long")
        if time.monotonic() > until:
            raise httpx2.ReadTimeout("the answer takes too long")
    return bytes(body)


def _document(body: bytes) -> Mapping[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _named(question: Question, error: Exception) -> NodeError:
    """What went wrong, in our words; the causes of an error say whether it was TLS."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, ssl.SSLError):
        why = getattr(cause, "verify_message", "") or cause.reason or "TLS failed"
        host = urlsplit(question.url).hostname
        return Misconfigured(
            "provider-not-trusted",
            f"The certificate of {host} is not trusted ({why}): see oidc.ca.",
        )
    return _unreachable(question, str(error) or type(error).__name__)


def _unreachable(question: Question, why: str) -> RetryLater:
    host = urlsplit(question.url).netloc
    return RetryLater("provider-unreachable", f"{host} does not answer as it should: {why}.")
