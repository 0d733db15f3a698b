"""URLs: which databases, brokers and sites are known, and how a password gets into them."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import SplitResult, quote, urlsplit

SQLITE = "sqlite"
POSTGRESQL = "postgresql+psycopg"
MEMORY = "memory"
REDIS = "redis"

_MASK = "••••••"
_SIGNED = re.compile(r"^([\w+.-]+://[^/:?#]*:).+@", re.DOTALL)
_ASKED = re.compile(r"(?<=[?&])((?:ssl)?password=)[^&]+", re.IGNORECASE)


def database(text: str, *, absolute: Callable[[Path], Path], password_file: Path | None) -> str:
    """The URL of the database as SQLAlchemy takes it: absolute path, password included.

    Args:
        text: As it is written.
        absolute: Makes the path of an SQLite file absolute.
        password_file: Where the password is, if not in the URL.

    Raises:
        ValueError: It is no URL of a known database, or the password cannot be had. The sentence
            never repeats the URL, which may hold a secret.
    """
    parts = _split(text)
    if parts.scheme == SQLITE:
        _no_password(password_file)
        return f"{SQLITE}:///{_sqlite_file(text, absolute)}"
    if parts.scheme != POSTGRESQL:
        raise ValueError(f"expects {SQLITE}:///PATH or {POSTGRESQL}://USER@HOST/NAME")
    if "@" in (parts.password or ""):
        # SQLAlchemy would take what follows the first for the host, which errors name.
        raise ValueError("has an @ in its password: write %40, or name password_file")
    return _with_password(parts, password_file)


def broker(text: str, *, password_file: Path | None) -> str:
    """The URL of the broker, password included.

    Raises:
        ValueError: As `database`.
    """
    parts = _split(text)
    if parts.scheme == MEMORY:
        _no_password(password_file)
        return f"{MEMORY}://"
    if parts.scheme != REDIS or not parts.hostname:
        raise ValueError(f"expects {MEMORY}:// or {REDIS}://HOST:PORT/NUMBER")
    return _with_password(parts, password_file)


def issuer(text: str) -> str:
    """The address of an OpenID Connect provider, exactly as it is written.

    Raises:
        ValueError: It is none: OpenID Connect Discovery 1.0, 3 asks for https without query and
            fragment. On this machine itself http will do.
    """
    parts = _site(text)
    if parts.scheme != "https" and not is_loopback(parts.hostname or ""):
        raise ValueError("expects https://: who answers there decides who may sign in")
    return text


def public(text: str) -> str:
    """The address that browsers know the page by, without a slash at its end.

    Raises:
        ValueError: It is no such address, or has a path.
    """
    parts = _site(text)
    if parts.path not in ("", "/"):
        raise ValueError("expects no path: the page is served from the root of its address")
    return f"{parts.scheme}://{parts.netloc}"


def is_loopback(host: str) -> bool:
    """Whether a host is this machine itself, and nothing crosses a network."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def sqlite_file(complete: str) -> Path | None:
    """The file of a complete SQLite URL; `None` for another database."""
    prefix = f"{SQLITE}:///"
    return Path(complete.removeprefix(prefix)) if complete.startswith(prefix) else None


def holds_password(text: str) -> bool:
    """Whether a password is written in the URL."""
    return masked(text) != text


def masked(text: str) -> str:
    """A text; of a URL without its passwords, each of them replaced.

    As whoever connects reads it: SQLAlchemy takes everything up to the @ for the password, a / or ?
    among it, and libpq takes one from behind the question mark.
    """
    return _ASKED.sub(rf"\g<1>{_MASK}", _SIGNED.sub(rf"\g<1>{_MASK}@", text))


def _site(text: str) -> SplitResult:
    parts = _split(text)
    is_site = parts.scheme in ("https", "http") and parts.hostname and text.isprintable()
    if not is_site or " " in text or "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("expects an address such as https://HOST or https://HOST:PORT")
    return parts


def _split(text: str) -> SplitResult:
    try:
        parts = urlsplit(text)
        parts.port  # noqa: B018 - it is parsed, and refused, only when asked for
    except ValueError as error:
        raise ValueError("is no URL: its host or port cannot be read") from error
    return parts


def _sqlite_file(text: str, absolute: Callable[[Path], Path]) -> Path:
    prefix = f"{SQLITE}:///"
    relative = text.removeprefix(prefix)
    # The node's processes share the rows, so they must be in a file; SQLAlchemy takes what
    # follows a question mark for options.
    if not text.startswith(prefix) or relative in ("", ":memory:") or relative.endswith("/"):
        raise ValueError(f"expects the path of a file after {prefix}, such as data/node.db")
    file = absolute(Path(relative))
    if "?" in str(file):
        raise ValueError("expects a path without a question mark")
    return file


def _no_password(password_file: Path | None) -> None:
    if password_file is not None:
        raise ValueError("has no password; remove the key password_file")


def _with_password(parts: SplitResult, password_file: Path | None) -> str:
    if password_file is None:
        return parts.geturl()
    user, _, host = parts.netloc.rpartition("@")
    if ":" in user:
        raise ValueError("has a password, and password_file names another; remove one of them")
    netloc = f"{user}:{quote(_secret(password_file), safe='')}@{host}"
    return parts._replace(netloc=netloc).geturl()


def _secret(file: Path) -> str:
    try:
        secret = file.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"its password file {file} cannot be read ({_why(error)})") from error
    if not secret:
        raise ValueError(f"its password file {file} is empty")
    return secret


def _why(error: OSError | UnicodeDecodeError) -> str:
    return (error.strerror or "unknown") if isinstance(error, OSError) else "not UTF-8"
