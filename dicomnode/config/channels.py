"""Faults of sense in [alerts]: what a channel needs, and what nobody else should read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from dicomnode.config.problem import Problem, key_path
from dicomnode.config.raw import Tables, table
from dicomnode.config.url import is_loopback


def problems(raw: Tables) -> Iterator[Problem]:
    """Every fault of sense in [alerts] as it is written."""
    alerts = table(raw, "alerts")
    yield from _email(table(alerts, "email"))
    if isinstance(alerts.get("webhook"), dict):
        yield from _webhook(alerts["webhook"])


def _email(email: Tables) -> Iterator[Problem]:
    for key, other in (("user", "password_file"), ("password_file", "user")):
        if key in email and other not in email:
            message = f"Needs {key_path('alerts', 'email', other)} beside it."
            yield _error("email", key, message, "sign-in-incomplete")
    in_the_clear = email.get("security") == "none"
    if in_the_clear and "ca" in email:
        message = 'Nothing is checked by it: security is "none".'
        yield _error("email", "ca", message, "ca-without-tls")
    if in_the_clear and "user" in email and not _is_here(email.get("host")):
        message = 'The password would cross the network in the clear. Write "starttls" or "tls".'
        yield _warning("email", "security", message, "mail-in-the-clear")


def _webhook(webhook: Tables) -> Iterator[Problem]:
    if ("url" in webhook) == ("url_file" in webhook):
        found = "both" if "url" in webhook else "neither"
        message = f"Expects either url or url_file; {found} is given."
        yield _error("webhook", "", message, "url-or-url-file")
    url = webhook.get("url")
    if isinstance(url, str) and _is_plain(url):
        message = "Messages would cross the network in the clear. Give an address with https."
        yield _warning("webhook", "url", message, "webhook-in-the-clear")


def _is_plain(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme == "http" and not _is_here(parts.hostname)


def _is_here(host: Any) -> bool:
    return isinstance(host, str) and is_loopback(host)


def _path(channel: str, key: str) -> str:
    return key_path("alerts", channel, *([key] if key else []))


def _error(channel: str, key: str, message: str, code: str) -> Problem:
    return Problem.error(_path(channel, key), message, code)


def _warning(channel: str, key: str, message: str, code: str) -> Problem:
    return Problem.warning(_path(channel, key), message, code)
