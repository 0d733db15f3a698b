"""Files from the network: whole, of the expected content, or not at all."""

from __future__ import annotations

import hashlib
import http.client
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dicomnode.errors import Misconfigured

#: Seconds without a byte until a server counts as away.
TIMEOUT_S = 30.0
MOST_BYTES = 64 * 1024**3
_MOST_OF_A_TEXT = 16 * 1024**2
_CHUNK = 1024**2
_SCHEMES = ("http", "https")

#: Hash name → hexadecimal digits.
HASHES = {"md5": 32, "sha1": 40, "sha256": 64, "sha512": 128}

Progress = Callable[[int, int | None], None]
"""Bytes so far, and in all, where the server says."""


@dataclass(frozen=True, kw_only=True)
class Hash:
    """What a file's content must come to.

    Attributes:
        kind: One of `HASHES`.
        value: Hexadecimal, small letters.
    """

    kind: str
    value: str

    def fits(self, path: Path) -> bool:
        """Whether a file has it."""
        with path.open("rb") as file:
            found = hashlib.file_digest(file, lambda: _hash(self.kind))
        return found.hexdigest() == self.value


def hash_of(kind: str, value: str) -> Hash:
    """A hash as somebody wrote it down; "" as `kind`: told by its length.

    Raises:
        Misconfigured: `hash-unknown`.
    """
    wanted = value.strip().lower()
    named = kind.strip().lower().replace("-", "")
    if not named:
        named = next((name for name, digits in HASHES.items() if digits == len(wanted)), "")
    if named not in HASHES or not re.fullmatch(rf"[0-9a-f]{{{HASHES[named]}}}", wanted):
        raise Misconfigured(
            "hash-unknown",
            f"'{kind}' '{value}' is no hash that can be checked. Known are {', '.join(HASHES)}.",
        )
    return Hash(kind=named, value=wanted)


def text(url: str) -> str:
    """A small document.

    Raises:
        Misconfigured: `download-failed`.
    """
    with _opened(url) as response:
        content = _read(response, url, _MOST_OF_A_TEXT + 1)
    if len(content) > _MOST_OF_A_TEXT:
        raise _failed(url, "it is larger than any document that is meant")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _failed(url, "it is no text") from error


def fetch(url: str, into: Path, *, expected: Hash | None, progress: Progress | None = None) -> None:
    """Fetch a file; a faulty one is removed again.

    Raises:
        Misconfigured: `download-failed`, or `download-changed` where its hash is another.
    """
    into.parent.mkdir(parents=True, exist_ok=True)
    part = into.with_name(f"{into.name}.part")
    try:
        is_page = _receive(url, part, progress)
        if expected is not None and not expected.fits(part):
            what = "A web page came in its place." if is_page else "It is not the file it was."
            raise Misconfigured(
                "download-changed",
                f"{url}: its {expected.kind} is not {expected.value}. {what} Fetch it in another"
                f" way, put it at {into.name} in the bundle's folder, and add that folder.",
            )
        part.replace(into)
    finally:
        part.unlink(missing_ok=True)


def _receive(url: str, part: Path, progress: Progress | None) -> bool:
    """Write what a server sends; give whether it is a web page."""
    with _opened(url) as response, part.open("wb") as file:
        length = response.headers.get("Content-Length", "")
        total = int(length) if length.isdigit() else None
        count = 0
        while chunk := _read(response, url, _CHUNK):
            file.write(chunk)
            count += len(chunk)
            if count > MOST_BYTES:
                raise _failed(url, "it does not end")
            if progress is not None:
                progress(count, total)
        is_page: bool = response.headers.get_content_type() == "text/html"
    if total is not None and count < total:
        raise _failed(url, f"it ended after {count} of {total} bytes")
    return is_page


def _opened(url: str) -> http.client.HTTPResponse:
    if url.partition(":")[0].lower() not in _SCHEMES:
        raise _failed(url, "only http and https addresses are called")
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "dicomnode"})  # noqa: S310 - checked
        response: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=TIMEOUT_S)  # noqa: S310 - checked
    except urllib.error.HTTPError as error:
        error.close()
        raise _failed(url, f"the server says {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _failed(url, _reason(error)) from error
    return response


def _read(response: http.client.HTTPResponse, url: str, size: int) -> bytes:
    try:
        return response.read(size)
    except (OSError, http.client.HTTPException) as error:
        raise _failed(url, _reason(error)) from error


def _reason(error: Exception) -> str:
    cause = getattr(error, "reason", error)
    return " ".join(str(cause).split()) or type(cause).__name__


def _failed(url: str, why: str) -> Misconfigured:
    return Misconfigured(
        "download-failed",
        f"{url} could not be fetched: {why}. Where this machine has no network, fetch it elsewhere,"
        " then `dicomnode models add` the file or the folder.",
    )


def _hash(kind: str) -> hashlib._Hash:
    return hashlib.new(kind, usedforsecurity=False)
