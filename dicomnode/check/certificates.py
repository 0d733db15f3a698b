"""Problems of the files that secure associations need, as they are on this machine now."""

from __future__ import annotations

import contextlib
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

from dicomnode.check import file
from dicomnode.config import Problem, Tls, key_path
from dicomnode.errors import Misconfigured
from dicomnode.network import tls
from dicomnode.network.tls import Certificates

_DAY_S = 86_400
#: A certificate that ends within this many days is to be replaced.
SOON_DAYS = 30

# What OpenSSL has against a certificate (X509_V_ERR_…).
_HAS_EXPIRED = 10
_INVALID_PURPOSE = 26


def problems(entry: Tls) -> Iterator[Problem]:
    """What is wrong with the files that [tls] names."""
    unreadable = [
        file.unreadable(one, path=key_path("tls", key), code="tls-file-missing")
        for key, one in tls.files(entry)
        if not file.is_readable(one)
    ]
    yield from unreadable
    if entry.key is not None and _is_open_to_all(entry.key):
        yield file.open_to_all(entry.key, path=key_path("tls", "key"), code="key-open-to-all")
    # A certificate without a key, or a key without one, is told of elsewhere.
    if unreadable or (entry.certificate is None) != (entry.key is None):
        return
    try:
        Certificates(entry)
    except Misconfigured as error:
        yield _error(error.reason.partition("-")[0], error.detail, error.reason)
        return
    if entry.certificate is not None:
        yield from _validity(entry, entry.certificate)


def _error(key: str, message: str, code: str) -> Problem:
    return Problem.error(key_path("tls", key), message, code)


def _warning(key: str, message: str, code: str) -> Problem:
    return Problem.warning(key_path("tls", key), message, code)


def _is_open_to_all(key: Path) -> bool:
    with contextlib.suppress(OSError):
        return file.is_open_to_all(key)
    return False


def _validity(entry: Tls, certificate: Path) -> Iterator[Problem]:
    """Whether a peer that trusts the certificate could still have something against it."""
    try:
        days = (_end(entry, certificate) - time.time()) / _DAY_S
    except ssl.SSLCertVerificationError as error:
        # Who is never called needs no certificate for being called.
        if error.verify_code == _INVALID_PURPOSE and entry.port is None:
            return
        code = "certificate-expired" if error.verify_code == _HAS_EXPIRED else "certificate-invalid"
        message = f"Peers will refuse {certificate}: {error.verify_message}. Have a new one made."
        yield _warning("certificate", message, code)
        return
    if days < SOON_DAYS:
        message = f"{certificate} expires in {days:.0f} days. Have a new one made."
        yield _warning("certificate", message, "certificate-expires-soon")


def _end(entry: Tls, certificate: Path) -> float:
    """When our certificate expires (seconds since 1970), as one learns who calls us.

    Both sides are here, and no network in between.

    Raises:
        ssl.SSLCertVerificationError: Who calls us refuses it.
    """
    caller = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    caller.check_hostname = False
    caller.minimum_version = ssl.TLSVersion.TLSv1_3
    caller.load_verify_locations(certificate)
    caller.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    to_us, to_caller = ssl.MemoryBIO(), ssl.MemoryBIO()
    calling = caller.wrap_bio(to_caller, to_us)
    called = tls.showing_ours(entry).wrap_bio(to_us, to_caller, server_side=True)
    for side in (calling, called, calling):  # in TLS 1.3, after this the caller knows
        with contextlib.suppress(ssl.SSLWantReadError):
            side.do_handshake()
    return ssl.cert_time_to_seconds(str((calling.getpeercert() or {})["notAfter"]))
