"""TLS under associations: PS3.15 B.12, that is RFC 9325 (BCP 195) and RFC 8996.

TLS 1.2 at least, 1.3 where the other side has it; of TLS 1.2 the suites that RFC 9325 recommends:
authenticated encryption under keys that are forgotten. No compression, no renegotiation. Which
certificates are trusted stands in files, and in nothing else that the other side says.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from dicomnode import log
from dicomnode.errors import Misconfigured

_log = log.get(__name__)

# RFC 9325 4.2, in their OpenSSL names; those of TLS 1.3 are all of that kind.
_SUITES = (
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
)

# Why OpenSSL does not take a key → what to say of it.
_KEY_FAULTS = {
    "NO_CERTIFICATE_ASSIGNED": "is not the key of {certificate}",  # it is of another kind
    "KEY_VALUES_MISMATCH": "is not the key of {certificate}",
    "EE_KEY_TOO_SMALL": "is too short to be safe: make one of 2048 bits (RSA) or 256 (ECDSA)",
}
_LONGEST_PASSWORD = 1024  # that OpenSSL takes


class TlsEntry(Protocol):
    """What the configuration says of TLS. All files are PEM."""

    @property
    def certificate(self) -> Path | None:
        """Our certificate, then those that lead to its issuer."""

    @property
    def key(self) -> Path | None:
        """The private key of our certificate."""

    @property
    def key_password_file(self) -> Path | None:
        """The password of the key and nothing else."""

    @property
    def ca(self) -> Path | None:
        """Who signs the peers' certificates; `None` for those that the system trusts."""

    @property
    def client_certificates(self) -> Literal["required", "none"]:
        """Whether who calls us must show a certificate that `ca` has signed."""


@dataclass(frozen=True, kw_only=True)
class Security:
    """How one peer is called with TLS.

    Attributes:
        name: What its certificate must be issued for: a host name or an address. "" takes every
            certificate that our `ca` has signed: hospitals issue them to AE titles, or to nobody
            in particular, and PS3.15 B.12 asks for no more.
    """

    certificates: Certificates
    name: str


class ClientSocket(ssl.SSLSocket):
    """What `Certificates.client` makes of a socket: it remembers what went wrong with TLS.

    Also after the handshake: in TLS 1.3 the peer looks at our certificate when that is over for us,
    and what it has against it comes with the first bytes that are read.
    """

    failure: OSError | None = None

    def connect(self, addr: Any) -> None:
        """As `SSLSocket.connect`; where it is over, so is the handshake."""
        super().connect(addr)
        try:
            self.do_handshake()
        except OSError as error:
            self.failure = error
            raise

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        """As `SSLSocket.recv`."""
        try:
            return super().recv(buflen, flags)
        except ssl.SSLError as error:
            self.failure = error
            raise


@dataclass(frozen=True, kw_only=True)
class _Contexts:
    server: ssl.SSLContext | Misconfigured  # the reason why there is none
    client: ssl.SSLContext
    client_of_any_name: ssl.SSLContext | Misconfigured


# What tells that a file is another one than before.
_Stamp = tuple[int, int, int]


class Certificates:
    """Our certificate and whom we trust, as the files say now.

    Each call looks whether a file has changed, and if so loads them all again. What does not load,
    such as a new certificate whose key has yet to be written, is logged once and the old ones stay
    in use. Associations that are open are not touched. Threads may share it.
    """

    def __init__(self, entry: TlsEntry) -> None:
        """Load the files.

        Raises:
            Misconfigured: `certificate-unusable`, `key-unusable` or `ca-unusable`.
        """
        self._entry = entry
        self._lock = threading.Lock()
        self._stamps = _stamps(entry)
        self._contexts = _load(entry)

    def server(self) -> ssl.SSLContext:
        """For a connection that a peer has made to us.

        Raises:
            Misconfigured: `no-certificate` where we have none; `no-ca` where peers must show one,
                and there is nothing to check it against.
        """
        return _or_raise(self._current().server)

    def client(self, *, any_name: bool = False) -> ssl.SSLContext:
        """For a connection that we make to a peer; we show our certificate where we have one.

        Args:
            any_name: Whether the peer's certificate may be issued for any name.

        Raises:
            Misconfigured: `no-ca` where it may, and whoever the system trusts could have signed it.
        """
        contexts = self._current()
        return _or_raise(contexts.client_of_any_name) if any_name else contexts.client

    def _current(self) -> _Contexts:
        with self._lock:
            stamps = _stamps(self._entry)
            if stamps != self._stamps:
                self._stamps = stamps
                self._load_again()
            return self._contexts

    def _load_again(self) -> None:
        try:
            self._contexts = _load(self._entry)
        except Misconfigured as error:
            _log.error("certificates not replaced", reason=error.reason, detail=error.detail)
        else:
            _log.info("certificates replaced")


class CalledEntry(Protocol):
    """What the configuration says of a peer that we may call."""

    @property
    def tls(self) -> bool:
        """Whether it is called with TLS."""


def for_calling(entry: TlsEntry, peers: Iterable[CalledEntry]) -> Certificates | None:
    """What peers are called with, where any of them is called with TLS.

    Raises:
        Misconfigured: As `Certificates`.
    """
    return Certificates(entry) if any(peer.tls for peer in peers) else None


def _or_raise(context: ssl.SSLContext | Misconfigured) -> ssl.SSLContext:
    if isinstance(context, Misconfigured):
        raise context
    return context


def files(entry: TlsEntry) -> Iterator[tuple[str, Path]]:
    """Key and file of each file that is named."""
    for key, file in (
        ("certificate", entry.certificate),
        ("key", entry.key),
        ("key_password_file", entry.key_password_file),
        ("ca", entry.ca),
    ):
        if file is not None:
            yield key, file


def _stamps(entry: TlsEntry) -> tuple[_Stamp | None, ...]:
    return tuple(_stamp(file) for _, file in files(entry))


def _stamp(file: Path) -> _Stamp | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _load(entry: TlsEntry) -> _Contexts:
    client = _client(entry)
    of_any_name: ssl.SSLContext | Misconfigured = Misconfigured(
        "no-ca", "Any certificate would do, also a stranger's. Give tls.ca, or a name to look for."
    )
    if entry.ca is not None:
        of_any_name = _client(entry)
        of_any_name.check_hostname = False
    return _Contexts(server=_server(entry), client=client, client_of_any_name=of_any_name)


def _server(entry: TlsEntry) -> ssl.SSLContext | Misconfigured:
    if entry.certificate is None:
        return Misconfigured("no-certificate", "Secure associations need tls.certificate.")
    context = showing_ours(entry)
    if entry.client_certificates == "none":
        return context
    if entry.ca is None:
        return Misconfigured("no-ca", "Certificates of clients are required: give tls.ca.")
    context.verify_mode = ssl.CERT_REQUIRED
    _trust(context, entry.ca)
    return context


def showing_ours(entry: TlsEntry) -> ssl.SSLContext:
    """A context for the side that is called: it shows our certificate, and asks for none.

    Raises:
        Misconfigured: `certificate-unusable` or `key-unusable`.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER)
    _show_ours(context, entry)
    return context


def _client(entry: TlsEntry) -> ssl.SSLContext:
    context = _context(ssl.PROTOCOL_TLS_CLIENT)  # checks certificate and name
    context.sslsocket_class = ClientSocket
    if entry.ca is None:
        context.load_default_certs()
    else:
        _trust(context, entry.ca)
    if entry.certificate is not None:
        _show_ours(context, entry)
    return context


def _context(protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(":".join(_SUITES))
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    return context


def _trust(context: ssl.SSLContext, ca: Path) -> None:
    try:
        context.load_verify_locations(ca)
    except OSError as error:  # an SSLError is one
        raise _unusable("ca", ca, error, "holds no certificate") from error
    # What stands in the file is trusted by itself, also where it is not the root of its chain.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN


def _show_ours(context: ssl.SSLContext, entry: TlsEntry) -> None:
    certificate, key = entry.certificate, entry.key
    if certificate is None or key is None:
        raise Misconfigured("key-unusable", "A certificate needs its key: give tls.key.")
    try:
        _context(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(certificate)
    except OSError as error:
        raise _unusable("certificate", certificate, error, "holds no certificate") from error
    password = _password(entry.key_password_file)
    try:
        context.load_cert_chain(certificate, key, password=password)
    except OSError as error:
        why = _KEY_FAULTS.get(
            str(getattr(error, "reason", "")),
            "holds no key, or one that the password does not open",
        )
        raise _unusable("key", key, error, why.format(certificate=certificate)) from error


def _password(file: Path | None) -> Callable[[], bytes]:
    """What OpenSSL asks for where a key is encrypted: without it, it asks on the terminal."""
    if file is None:
        return lambda: b""
    try:
        password = file.read_bytes().rstrip(b"\r\n")
    except OSError as error:
        raise _unusable("key", file, error, "") from error
    return lambda: password[:_LONGEST_PASSWORD]


def _unusable(what: str, file: Path, error: OSError, why: str) -> Misconfigured:
    if not isinstance(error, ssl.SSLError):
        why = f"cannot be read ({error.strerror})"
    return Misconfigured(f"{what}-unusable", f"{file} {why}.")
