"""TCP under an association: quick, and never for ever."""

from __future__ import annotations

import contextlib
import functools
import socket
import ssl
import struct
import time
from typing import cast

from pynetdicom.association import Association
from pynetdicom.transport import AssociationSocket

_PIECE = 65536
# A timeout of nothing would be none at all.
_LEAST_S = 0.001


def acknowledge(connection: socket.socket) -> None:
    """Let the kernel acknowledge what was read now.

    Most senders leave Nagle's algorithm on: they hold the rest of a message back until its
    beginning is acknowledged, and by itself the kernel puts that off for 40 ms. An instance takes
    several such waits: 20 in a second is all that comes then. The kernel forgets the option
    whenever it likes, so it is set each time.
    """
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


class PromptSocket(socket.socket):
    """A connection that acknowledges what it has read at once, for who reads it unawares."""

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """As `socket.recv`, then acknowledge."""
        content = super().recv(bufsize, flags)
        acknowledge(self)
        return content

    @classmethod
    def taking_over(cls, connection: socket.socket) -> PromptSocket:
        """The same connection; the socket given is no longer of use."""
        return cls(connection.family, connection.type, connection.proto, fileno=connection.detach())


def secured(
    connection: socket.socket, context: ssl.SSLContext, *, timeout_s: float
) -> ssl.SSLSocket | None:
    """Do the TLS handshake as its server; the socket given is no longer of use.

    Returns:
        The connection; `None` where the peer says nothing. Who looks whether a port is open, as
        balancers do every few seconds, does not.

    Raises:
        OSError: The peer speaks no TLS, or not one that `context` allows, or not in time.
    """
    until = time.monotonic() + timeout_s
    if not _speaks(connection, timeout_s=timeout_s):
        return None
    connection.settimeout(max(until - time.monotonic(), _LEAST_S))
    return context.wrap_socket(connection, server_side=True)


def _speaks(connection: socket.socket, *, timeout_s: float) -> bool:
    connection.settimeout(timeout_s)
    try:
        return bool(connection.recv(1, socket.MSG_PEEK))
    except OSError:
        return False


def limit_waiting(connection: socket.socket, *, timeout_s: float) -> None:
    """Give up reading and writing after a while: `TimeoutError` or `BlockingIOError` then.

    Unlike `settimeout` the kernel's limits cost no call of their own before each of them. TLS does
    not see them: a socket that blocks is read again there.
    """
    if isinstance(connection, ssl.SSLSocket):
        connection.settimeout(timeout_s)
        return
    connection.settimeout(None)
    seconds, rest = divmod(timeout_s, 1)
    # struct timeval; all zero would mean for ever
    limit = struct.pack("@ll", int(seconds), max(int(rest * 1e6), int(not seconds)))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)


def make_quick(connection: socket.socket) -> None:
    """Send each message at once, and notice a peer that is gone without a word.

    A message ends with a short segment: without TCP_NODELAY that waits for the peer's delayed
    acknowledgement.
    """
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def set_up(assoc: Association, *, timeout_s: float) -> None:
    """Make the connection of an association that pynetdicom serves quick, and finite.

    pynetdicom reads a PDU to its end: without a timeout a peer that stops in the middle of one is
    waited for until the process ends.
    """
    connection = _of(assoc)
    if connection is not None:
        make_quick(connection)
        connection.settimeout(timeout_s)


def read_within(assoc: Association, *, timeout_s: float) -> None:
    """Let an association that we asked for wait so long for a PDU to be whole, and no longer.

    A timeout counts for each piece of it alone: who sends a byte now and then would be waited for
    for ever, also by who has given up, since pynetdicom aborts only after it has read.
    """
    below = assoc.dul.socket
    if below is not None:
        below.recv = functools.partial(_read, below, timeout_s=timeout_s)  # type: ignore[method-assign]


def _read(below: AssociationSocket, count: int, *, timeout_s: float) -> bytearray:
    """So many bytes, or fewer where the connection ends.

    Raises:
        OSError: It breaks, or they do not come in time.
    """
    connection = cast("socket.socket", below.socket)
    until = time.monotonic() + timeout_s
    content = bytearray(connection.recv(min(count, _PIECE)))
    if not content or len(content) == count:  # nearly always, and without a further call
        return content
    try:
        while len(content) < count:
            connection.settimeout(max(until - time.monotonic(), _LEAST_S))
            piece = connection.recv(min(count - len(content), _PIECE))
            if not piece:
                break
            content += piece
    finally:
        connection.settimeout(timeout_s)
    return content


def cut(assoc: Association) -> None:
    """Shut the connection under an association, which ends it."""
    connection = _of(assoc)
    if connection is not None:
        hang_up(connection)


def hang_up(connection: socket.socket) -> None:
    """Shut a connection; who reads from it is told that it is over."""
    with contextlib.suppress(OSError):  # the peer was quicker
        # Not `SSLSocket.shutdown`: that takes the TLS off, and who reads would get the ciphertext.
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


def stop_reading(connection: socket.socket) -> None:
    """Let who reads from a connection come to its end; what was sent before may still be read."""
    with contextlib.suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RD)  # as above


def _of(assoc: Association) -> socket.socket | None:
    return assoc.dul.socket.socket if assoc.dul.socket is not None else None
