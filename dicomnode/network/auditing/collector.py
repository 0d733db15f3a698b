"""The collector of audit messages: syslog over TLS (RFC 5425), TCP (RFC 6587) or UDP (RFC 5426).

Syslog has no receipt, and what TCP acknowledges a process need never read. But who reads a stream
to its end closes it, too (RFC 5425 4.4 has it answer a close_notify): that is taken for one.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from dicomnode.auditing import syslog
from dicomnode.errors import RetryLater
from dicomnode.network.calling.handshake import explained
from dicomnode.network.tls import Security

_REFUSAL_S = 1.0
# How OpenSSL says that a connection was closed without a close_notify.
_CLOSED_PLAINLY = frozenset({"UNEXPECTED_EOF_WHILE_READING"})
_LONGEST_REPLY = 4096  # nothing is expected, and what comes is not looked at


class Line(Protocol):
    """A way to the collector that is open."""

    @property
    def longest(self) -> int:
        """Octets of the longest SYSLOG-MSG that it takes."""

    def send(self, framed: Sequence[bytes]) -> None:
        """Send SYSLOG-MSGs, in their order.

        Raises:
            OSError: It is not open any more, or the collector reads nothing for too long.
        """

    def check(self) -> None:
        """Look whether it is still open.

        Raises:
            OSError: It is not, and perhaps why.
        """

    def finish(self, *, within_s: float) -> None:
        """End it, and wait until the collector has read everything.

        Raises:
            OSError: It has not said so; what was sent may be lost.
        """

    def close(self) -> None:
        """Close it, whatever becomes of what was sent."""


@dataclass(frozen=True, kw_only=True)
class Collector:
    """Where audit messages go.

    Attributes:
        security: How it is called with TLS; `None` for tcp and udp.
    """

    host: str
    port: int
    transport: Literal["tls", "tcp", "udp"]
    security: Security | None = None

    def __str__(self) -> str:
        return f"{self.host}:{self.port} ({self.transport})"

    def open(self, *, timeout_s: float) -> Line:
        """Connect.

        Args:
            timeout_s: How long the connection, and later each write, may take.

        Raises:
            RetryLater: `collector-unreachable` or `tls-failed`.
            Misconfigured: As `Certificates.client`.
        """
        try:
            if self.transport == "udp":
                return _Datagrams(_udp(self.host, self.port))
            plain = socket.create_connection((self.host, self.port), timeout=timeout_s)
        except OSError as error:
            why = error.strerror or error
            raise RetryLater(
                "collector-unreachable", f"No audit collector answers at {self}: {why}."
            ) from error
        return _Stream(plain if self.security is None else self._secured(plain, self.security))

    def try_out(self, *, timeout_s: float) -> None:
        """Connect, and look whether the collector would take anything; nothing is sent.

        Raises:
            RetryLater: As `open`; of TLS 1.3 also where it does not like our certificate;
                `collector-broke-off` where it does not close a connection that is over, by which
                it would say that it has read everything.
            Misconfigured: As `open`.
        """
        line = self.open(timeout_s=timeout_s)
        try:
            if isinstance(line, _Stream):
                # In TLS 1.3 a refusal comes after the handshake is over on this side.
                line.await_refusal(within_s=min(_REFUSAL_S, timeout_s))
            line.finish(within_s=timeout_s)
        except OSError as error:
            raise self.broken(error) from error
        finally:
            line.close()

    def broken(self, error: OSError) -> RetryLater:
        """What it means that a line was closed from the other side, or stands still."""
        if isinstance(error, ssl.SSLError):
            return RetryLater("tls-failed", f"The audit collector {self} {explained(error)}.")
        why = error.strerror or error
        return RetryLater("collector-broke-off", f"The audit collector {self} broke off: {why}.")

    def _secured(self, plain: socket.socket, security: Security) -> ssl.SSLSocket:
        try:
            context = security.certificates.client(any_name=not security.name)
            return context.wrap_socket(plain, server_hostname=security.name or None)
        except (OSError, ValueError) as error:
            plain.close()
            why = explained(error) if isinstance(error, OSError) else f"has no such name: {error}"
            raise RetryLater("tls-failed", f"The audit collector {self} {why}.") from error
        except BaseException:
            plain.close()
            raise


def _udp(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    made = socket.socket(family, kind, protocol)
    try:
        made.connect(address)
    except OSError:
        made.close()
        raise
    return made


class _Stream:
    """Octet counting on a connection."""

    longest = sys.maxsize

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._timeout_s = connection.gettimeout()

    def send(self, framed: Sequence[bytes]) -> None:
        self._connection.sendall(b"".join(map(syslog.counted, framed)))

    def check(self) -> None:
        self._connection.settimeout(0)
        try:
            said = self._connection.recv(_LONGEST_REPLY)
        except (BlockingIOError, ssl.SSLWantReadError):
            return
        finally:
            self._connection.settimeout(self._timeout_s)
        if not said:
            raise ConnectionResetError("it has closed the connection")

    def await_refusal(self, *, within_s: float) -> None:
        """Give the other side time to say that it will not have us; as `check`."""
        select.select([self._connection], [], [], within_s)
        self.check()

    def finish(self, *, within_s: float) -> None:
        until = time.monotonic() + within_s
        self._connection.settimeout(within_s)
        if isinstance(self._connection, ssl.SSLSocket):
            try:
                self._connection.unwrap()
            except ssl.SSLEOFError:
                return  # it has closed without a close_notify of its own, as many do
            except ssl.SSLError as error:
                if error.reason not in _CLOSED_PLAINLY:
                    raise
            return
        self._connection.shutdown(socket.SHUT_WR)
        while self._connection.recv(_LONGEST_REPLY):
            # Who goes on talking must not hold up what else waits.
            left_s = until - time.monotonic()
            if left_s <= 0:
                raise TimeoutError("it talks, and does not close the connection")
            self._connection.settimeout(left_s)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._connection.close()


class _Datagrams:
    """One message in each datagram; nobody says whether it came."""

    longest = syslog.LONGEST_DATAGRAM

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def send(self, framed: Sequence[bytes]) -> None:
        for one in framed:
            self._connection.send(one)

    def check(self) -> None:
        """Nothing to look at."""

    def finish(self, *, within_s: float) -> None:
        """Nobody would say."""

    def close(self) -> None:
        self._connection.close()
