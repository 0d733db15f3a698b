"""Problems of the channels of alerts: files that they need, and what their servers say."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

from dicomnode.alerting import secure, webhook
from dicomnode.alerting.mail import Mailer
from dicomnode.check import file
from dicomnode.config import Alerts, Email, Problem, Webhook, key_path, secret
from dicomnode.errors import NodeError

_TIMEOUT_S = 5.0


def problems(alerts: Alerts) -> Iterator[Problem]:
    """What is wrong with the files that [alerts] names."""
    if alerts.email is not None:
        yield from _email(alerts.email)
    if alerts.webhook is not None:
        yield from _webhook(alerts.webhook)


def ask(email: Email) -> None:
    """Do everything with the mail server but send.

    Raises:
        RetryLater: It does not answer as it should.
    """
    asyncio.run(Mailer(table=email, timeout_s=_TIMEOUT_S).ask())


def _email(email: Email) -> Iterator[Problem]:
    if email.password_file is not None:
        yield from _secret("email", "password_file", email.password_file)
    yield from _ca("email", email.ca)


def _webhook(table: Webhook) -> Iterator[Problem]:
    for key, one in (("url_file", table.url_file), ("secret_file", table.secret_file)):
        if one is not None:
            yield from _secret("webhook", key, one)
    yield from _ca("webhook", table.ca)
    for key, read in (("url_file", webhook.address), ("secret_file", webhook.key_of)):
        one = getattr(table, key)
        if one is None or not _holds_secret(one):
            continue
        try:
            read(table)
        except NodeError as error:
            yield _error("webhook", key, error.detail, error.reason)


def _holds_secret(named: Path) -> bool:
    with contextlib.suppress(ValueError):
        return bool(secret(named))
    return False


def _secret(channel: str, key: str, named: Path) -> Iterator[Problem]:
    try:
        secret(named)
        is_open_to_all = file.is_open_to_all(named)
    except (ValueError, OSError):
        message = f"{named} is no file with a secret that this user can read. Name one."
        yield _error(channel, key, message, "secret-file-missing")
        return
    if is_open_to_all:
        path = key_path("alerts", channel, key)
        yield file.open_to_all(named, path=path, code="secret-open-to-all")


def _ca(channel: str, ca: Path | None) -> Iterator[Problem]:
    if ca is None:
        return
    try:
        secure.context(ca, key=key_path("alerts", channel, "ca"))
    except NodeError as error:
        yield _error(channel, "ca", error.detail, error.reason)


def _error(channel: str, key: str, message: str, code: str) -> Problem:
    return Problem.error(key_path("alerts", channel, key), message, code)
