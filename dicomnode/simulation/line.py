"""The line between a sender and the node, where it is a bad one: slow, or cut."""

from __future__ import annotations

import socket
import time

from pynetdicom import evt
from pynetdicom.events import Event, EventHandlerType

from dicomnode.network import connection

_PIECES_PER_S = 10


class Line(socket.socket):
    """A connection that takes its time, and ends when it is told to."""

    _bytes_per_s: int | None = None
    _left: int | None = None

    @classmethod
    def over(cls, plain: socket.socket, *, bytes_per_s: int | None) -> Line:
        """The same connection; the socket given is no longer of use."""
        timeout_s = plain.gettimeout()
        made = cls(plain.family, plain.type, plain.proto, fileno=plain.detach())
        made.settimeout(timeout_s)
        made._bytes_per_s = bytes_per_s
        return made

    def cut_after(self, count: int) -> None:
        """Hang up when `count` bytes more have gone out."""
        self._left = count

    def send(self, data: bytes, flags: int = 0, /) -> int:  # type: ignore[override] # of bytes alone
        """Send a little of `data`, at this line's pace.

        Raises:
            ConnectionError: It is cut.
        """
        piece = len(data)
        if self._bytes_per_s is not None:
            piece = min(piece, max(1, self._bytes_per_s // _PIECES_PER_S))
            time.sleep(piece / self._bytes_per_s)
        if self._left is not None:
            piece = min(piece, self._left)
            self._left -= piece
        if not piece:
            connection.hang_up(self)
            raise ConnectionAbortedError("the line was cut")
        return super().send(data[:piece], flags)


class Laid:
    """Puts a line under an association when it connects.

    Attributes:
        line: The line, once there is a connection.
    """

    def __init__(self, *, bytes_per_s: int | None) -> None:
        self._bytes_per_s = bytes_per_s
        self.line: Line | None = None

    @property
    def handlers(self) -> list[EventHandlerType]:
        """What the association is to be asked for with."""
        return [(evt.EVT_CONN_OPEN, self._lay)]

    def close(self) -> None:
        """Close the line: pynetdicom leaves one open that the other side has ended first."""
        if self.line is not None:
            self.line.close()

    def _lay(self, event: Event) -> None:
        below = event.assoc.dul.socket
        if below is not None and below.socket is not None:
            self.line = Line.over(below.socket, bytes_per_s=self._bytes_per_s)
            below.socket = self.line
