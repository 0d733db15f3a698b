"""TCP under an association: quick, and never for ever."""

from __future__ import annotations

import contextlib
import socket

from pynetdicom.association import Association


class PromptSocket(socket.socket):
    """A connection that acknowledges what it has read at once.

    Most senders leave Nagle's algorithm on: they hold the rest of a message back until its
    beginning is acknowledged, and by itself the kernel puts that off for 40 ms. An instance takes
    several such waits: 20 in a second is all that comes then. The kernel forgets the option
    whenever it likes, so it is set at each read.
    """

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """As `socket.recv`, then acknowledge."""
        content = super().recv(bufsize, flags)
        self.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        return content

    @classmethod
    def taking_over(cls, connection: socket.socket) -> PromptSocket:
        """The same connection; the socket given is no longer of use."""
        return cls(connection.family, connection.type, connection.proto, fileno=connection.detach())


def set_up(assoc: Association, *, timeout_s: float) -> None:
    """Make the connection of an association quick, and finite.

    A message ends with a short segment: without TCP_NODELAY that waits for the peer's delayed
    acknowledgement. pynetdicom reads a PDU to its end: without a timeout a peer that stops in the
    middle of one is waited for until the process ends.
    """
    connection = _of(assoc)
    if connection is not None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.settimeout(timeout_s)


def cut(assoc: Association) -> None:
    """Shut the connection under an association, which ends it."""
    connection = _of(assoc)
    if connection is not None:
        with contextlib.suppress(OSError):  # the peer was quicker
            connection.shutdown(socket.SHUT_RDWR)


def _of(assoc: Association) -> socket.socket | None:
    return assoc.dul.socket.socket if assoc.dul.socket is not None else None
