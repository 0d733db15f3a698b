"""The TLS handshake with a peer that the node calls, so that its failure can be named.

pynetdicom connects by itself and keeps to itself why it could not.
"""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
from typing import cast

from dicomnode.errors import Misconfigured
from dicomnode.network.tls import ClientSocket, Security

# What the two sides cannot agree upon, in OpenSSL's words.
_NO_COMMON_GROUND = frozenset(
    {
        "NO_PROTOCOLS_AVAILABLE",
        "NO_SHARED_CIPHER",
        "SSLV3_ALERT_HANDSHAKE_FAILURE",
        "TLSV1_ALERT_INSUFFICIENT_SECURITY",
        "TLSV1_ALERT_PROTOCOL_VERSION",
        "UNSUPPORTED_PROTOCOL",
    }
)
# How a peer says that our certificate is not the right one, or is missing.
_OURS_REFUSED = re.compile("ALERT_.*(CERTIFICATE|UNKNOWN_CA)")


class Handshake:
    """The handshake of one association; `failure` says why there was none."""

    def __init__(self, security: Security) -> None:
        """Look the certificates up.

        Raises:
            Misconfigured: As `Certificates.client`; `bad-tls-name` where no certificate can have
                that name.
        """
        self._context = security.certificates.client(any_name=not security.name)
        self._name = security.name
        try:  # here, since pynetdicom hangs where it finds out
            self._context.wrap_bio(
                ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname=self._name or None
            )
        except ValueError as error:
            raise Misconfigured(
                "bad-tls-name", f"No certificate is issued for {self._name!r}: {error}."
            ) from error
        self._socket: ClientSocket | None = None

    @property
    def arguments(self) -> tuple[ssl.SSLContext, str]:
        """What pynetdicom takes for `tls_args`; of a context it uses `wrap_socket` alone."""
        return cast("ssl.SSLContext", self), self._name

    def wrap_socket(
        self, plain: socket.socket, *, server_side: bool, server_hostname: str
    ) -> ssl.SSLSocket:
        """The socket that pynetdicom connects. It is not connected yet."""
        self._socket = cast(
            "ClientSocket",
            self._context.wrap_socket(
                plain,
                server_side=server_side,
                server_hostname=server_hostname or None,
                do_handshake_on_connect=False,
            ),
        )
        return self._socket

    @property
    def failure(self) -> OSError | None:
        """What went wrong with TLS; `None` where that was not the matter."""
        return self._socket.failure if self._socket is not None else None

    def close(self) -> None:
        """Close the connection: pynetdicom leaves it open where the peer was quicker."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.close()


def explained(failure: OSError) -> str:
    """What a failed handshake says of the peer, as the rest of a sentence that begins with it."""
    if isinstance(failure, ssl.SSLCertVerificationError):
        return (
            f"shows a certificate that is not trusted: {failure.verify_message}. "
            "Compare it with tls.ca and tls_name"
        )
    reason = str(getattr(failure, "reason", None) or "")
    if reason in _NO_COMMON_GROUND:
        return f"and this node have no version of TLS or no suite in common ({reason})"
    if _OURS_REFUSED.search(reason):
        return f"refuses our certificate ({reason}). Give tls.certificate, and make it known there"
    return f"does not answer in TLS ({reason or failure}). Is that its secure port?"
