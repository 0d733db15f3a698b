"""Messages by HTTP: a POST of JSON, signed as Standard Webhooks 1.0 says.

The receiver gets `webhook-id` (the same for each attempt), `webhook-timestamp` (seconds since the
epoch, of this attempt) and `webhook-signature`: `v1,` and the base64 of the HMAC-SHA256 of
`id.timestamp.body` by the secret. It takes nothing whose signature differs, or whose time is more
than a few minutes away. No redirect is followed, and of an answer the status alone is read.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx2

from dicomnode import __version__, config
from dicomnode.alerting import secure
from dicomnode.alerting.letter import Letter
from dicomnode.config import Webhook
from dicomnode.errors import NodeError, RetryLater

TIMEOUT_S = 30.0
_PREFIX = "whsec_"
_LEAST_BYTES = 24  # Standard Webhooks 1.0: a secret has 24 to 64


@dataclass(frozen=True, kw_only=True)
class Poster:
    """Posts letters to one receiver."""

    table: Webhook
    timeout_s: float = TIMEOUT_S
    clock: Callable[[], float] = time.time

    async def send(self, letter: Letter) -> str:
        """Post.

        Returns:
            Nothing: a receiver takes a message or not.

        Raises:
            RetryLater: The receiver did not take it: no answer, or a status other than 2xx.
        """
        url = address(self.table)
        body = json.dumps(letter.document, ensure_ascii=False).encode()
        headers = {
            "content-type": "application/json",
            "user-agent": f"dicomnode/{__version__}",
            **self._signed(letter.id, body),
        }
        where = urlsplit(url).hostname
        try:
            status = await self._post(url, body, headers)
        except NodeError:
            raise
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, TimeoutError) as error:
            raise _translated(error, where) from error
        if not 200 <= status < 300:  # noqa: PLR2004 - RFC 9110 15.3
            raise RetryLater("webhook-refused", f"{where} answered {status}{_hint(status)}.")
        return ""

    async def _post(self, url: str, body: bytes, headers: Mapping[str, str]) -> int:
        context = secure.context(self.table.ca, key="alerts.webhook.ca")
        async with (
            asyncio.timeout(self.timeout_s),
            # Proxies of the environment are none of ours: it is read in `config` alone.
            httpx2.AsyncClient(
                verify=context, timeout=self.timeout_s, follow_redirects=False, trust_env=False
            ) as client,
            # The body of the answer, however long, stays where it is.
            client.stream("POST", url, content=body, headers=dict(headers)) as answer,
        ):
            return int(answer.status_code)

    def _signed(self, name: str, body: bytes) -> dict[str, str]:
        at = str(int(self.clock()))
        headers = {"webhook-id": name, "webhook-timestamp": at}
        if self.table.secret_file is None:
            return headers
        signed = signature(key_of(self.table), name=name, at=at, body=body)
        return {**headers, "webhook-signature": signed}


def signature(key: bytes, *, name: str, at: str, body: bytes) -> str:
    """What `webhook-signature` says."""
    digest = hmac.new(key, b".".join((name.encode(), at.encode(), body)), hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def key_of(table: Webhook) -> bytes:
    """The secret as bytes: base64 behind `whsec_`, otherwise as it is written.

    Raises:
        RetryLater: `webhook-secret-unreadable`: it cannot be read, or is too short.
    """
    assert table.secret_file is not None  # noqa: S101 - asked for where there is one
    try:
        text = config.secret(table.secret_file)
        is_encoded = text.startswith(_PREFIX)
        key = base64.b64decode(text[len(_PREFIX) :], validate=True) if is_encoded else text.encode()
    except (ValueError, binascii.Error) as error:
        message = f"{table.secret_file} holds no secret that can be read."
        raise RetryLater("webhook-secret-unreadable", message) from error
    if len(key) < _LEAST_BYTES:
        message = f"{table.secret_file} holds less than {_LEAST_BYTES} bytes; they can be guessed."
        raise RetryLater("webhook-secret-unreadable", message)
    return key


def address(table: Webhook) -> str:
    """Where to post.

    Raises:
        RetryLater: `webhook-url-unreadable`.
    """
    if table.url is not None:
        return table.url.get_secret_value()
    assert table.url_file is not None  # noqa: S101 - a webhook has one or the other
    try:
        return config.web_url(config.secret(table.url_file))
    except ValueError as error:
        message = f"{table.url_file} holds no URL that can be read."
        raise RetryLater("webhook-url-unreadable", message) from error


def _translated(error: Exception, where: str | None) -> RetryLater:
    if isinstance(error, TimeoutError | httpx2.TimeoutException):
        return RetryLater("webhook-timeout", f"{where} does not answer in time.")
    if secure.is_at_fault(error):
        return RetryLater(
            "webhook-tls-failed", f"{where}: its certificate is not trusted, or it speaks no TLS."
        )
    if isinstance(error, httpx2.ConnectError | OSError):
        return RetryLater("webhook-unreachable", f"{where} is not to be reached.")
    return RetryLater("webhook-broken-off", f"{where}: {type(error).__name__}.")


def _hint(status: int) -> str:
    is_redirect = 300 <= status < 400  # noqa: PLR2004 - RFC 9110 15.4
    return ", elsewhere: no redirect is followed, give the final address" if is_redirect else ""
