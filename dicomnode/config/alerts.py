"""Alerts: when somebody is told, and how."""

from __future__ import annotations

import re
from email.headerregistry import Address as MailAddress
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr

from dicomnode.alert import Channel, Kind
from dicomnode.config.table import Table
from dicomnode.config.values import AnchoredPath, Host, NotNegative, Port, Positive

Security = Literal["starttls", "tls", "none"]
_PORTS: dict[Security, int] = {"starttls": 587, "tls": 465, "none": 25}
_PLAIN = re.compile(r"[!-~]+@[!-~]+")


def _mail(value: str) -> str:
    # Neither quoted names nor addresses beyond ASCII, which many servers refuse.
    try:
        address = MailAddress(addr_spec=value) if _PLAIN.fullmatch(value) else None
    except Exception as error:
        raise ValueError(_NO_MAIL) from error
    if address is None or address.addr_spec != value:
        raise ValueError(_NO_MAIL)
    return value


_NO_MAIL = "expects an e-mail address alone, such as node@hospital.example"


def web_url(value: str) -> str:
    """A URL that a message may be posted to.

    Raises:
        ValueError: It is none. The sentence never repeats it: it may hold a secret.
    """
    try:
        parts = urlsplit(value)
        parts.port  # noqa: B018 - it is parsed, and refused, only when asked for
    except ValueError as error:
        raise ValueError(_NO_URL) from error
    if parts.scheme not in ("http", "https") or not parts.hostname or not value.isprintable():
        raise ValueError(_NO_URL)
    return value


_NO_URL = "expects a URL that begins with https:// or http:// and names a host"


def _secret_url(value: SecretStr) -> SecretStr:
    web_url(value.get_secret_value())
    return value


Mail = Annotated[str, AfterValidator(_mail)]


class Email(Table):
    """Where and how messages are sent by e-mail."""

    host: Host
    """Name or address of the mail server (SMTP submission)."""
    port: Port | None = None
    """Its TCP port; left out, 587 with starttls, 465 with tls, 25 with none."""
    security: Security = "starttls"
    """starttls: in the clear first, then TLS or nothing; tls: from the first byte; none."""
    user: Annotated[str, Field(min_length=1)] | None = None
    """Name to sign in with; left out, nobody signs in."""
    password_file: AnchoredPath | None = None
    """File with the password of that user, and nothing else."""
    sender: Annotated[Mail, Field(alias="from")]
    """Address that messages come from."""
    to: Annotated[tuple[Mail, ...], Field(strict=False, min_length=1)]
    """Addresses that messages go to."""
    ca: AnchoredPath | None = None
    """File with the certificates of who signs the server's, PEM; left out, those that the system
    trusts."""

    @property
    def port_to_call(self) -> int:
        """The port, also where the file names none."""
        return self.port or _PORTS[self.security]


class Webhook(Table):
    """Where messages are posted as JSON. Exactly one of `url` and `url_file` is given."""

    url: Annotated[SecretStr, AfterValidator(_secret_url)] | None = None
    """https://HOST/PATH; it is shown nowhere."""
    url_file: AnchoredPath | None = None
    """File with the URL and nothing else, for one that is a secret itself."""
    secret_file: AnchoredPath | None = None
    """File with the secret that messages are signed with (HMAC-SHA256, Standard Webhooks), at least
    24 bytes, or `whsec_` and base64; left out, they are not signed."""
    ca: AnchoredPath | None = None
    """File with the certificates of who signs the receiver's, PEM; left out, those that the system
    trusts."""


class Alerts(Table):
    """What an administrator is told of without asking."""

    destination_down_minutes: Positive = 15.0
    """Minutes that deliveries to a destination must fail, and none succeed, until it is down."""
    silence_hours: NotNegative | None = None
    """Hours without an arrival until somebody is told; 0 is never. Left out, the node learns from
    the arrivals of the last four weeks which silence is unusual at this time of the week."""
    collect_s: NotNegative = 60.0
    """Seconds that the first study that fails waits for others, so that they make one message."""
    repeat_hours: Positive = 12.0
    """Hours after which an alert that goes on is told of once more."""
    ignore: Annotated[tuple[Annotated[Kind, Field(strict=False)], ...], Field(strict=False)] = ()
    """Kinds of alerts that are neither told of nor shown, by their words: model-slow, …"""
    email: Email | None = None
    """The mail server; left out, nobody is told by e-mail."""
    webhook: Webhook | None = None
    """The receiver of JSON; left out, nothing is posted."""

    @property
    def channels(self) -> tuple[Channel, ...]:
        """How somebody is told."""
        given = {Channel.EMAIL: self.email, Channel.WEBHOOK: self.webhook}
        return tuple(channel for channel, table in given.items() if table is not None)


def secret(file: Path) -> str:
    """What a file holds, without the end of its line.

    Raises:
        ValueError: It cannot be read, or is empty.
    """
    try:
        found = file.read_text(encoding="utf-8").strip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        why = (error.strerror or "unknown") if isinstance(error, OSError) else "not UTF-8"
        raise ValueError(f"{file} cannot be read ({why}).") from error
    if not found:
        raise ValueError(f"{file} is empty.")
    return found
