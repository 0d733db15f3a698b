"""A collector of audit messages: a syslog receiver on loopback (RFC 5425, RFC 6587, RFC 5426)."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import audit_schema
from certificates import Issued

HOST = "127.0.0.1"

# RFC 5424 6: PRI and VERSION, TIMESTAMP, HOSTNAME, APP-NAME, PROCID, MSGID, STRUCTURED-DATA, MSG.
_MESSAGE = re.compile(
    rb"<(?P<pri>\d{1,3})>(?P<version>\d) (?P<time>\S+) (?P<host>\S+) (?P<app>\S+) (?P<process>\S+)"
    rb" (?P<id>\S+) - \xef\xbb\xbf(?P<body>.*)",
    re.DOTALL,
)


def opened(framed: bytes) -> dict[str, str]:
    """The fields of a SYSLOG-MSG whose header is as PS3.15 A.6 wants it."""
    match = _MESSAGE.fullmatch(framed)
    assert match is not None, framed
    fields = {name: value.decode() for name, value in match.groupdict().items()}
    assert (fields["pri"], fields["version"], fields["id"]) == ("85", "1", "DICOM+RFC3881")
    return fields


@dataclass
class Collector:
    """Takes messages until it is stopped; `start` again takes up the same port.

    Attributes:
        framed: Every SYSLOG-MSG that came, in order.
        reads: Whether it reads what comes; otherwise it takes connections and stands still.
    """

    certificate: Issued | None = None
    client_ca: str = ""
    port: int = 0
    framed: list[bytes] = field(default_factory=list)
    reads: bool = True
    connections: int = 0
    _server: socket.socket | None = None
    _open: list[socket.socket] = field(default_factory=list)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def start(self) -> None:
        """Listen."""
        server = socket.socket()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((HOST, self.port))
        server.listen()
        self.port = server.getsockname()[1]
        self._server = server
        threading.Thread(target=self._accept, args=[server], daemon=True).start()

    def stop(self) -> None:
        """Break off every connection, and listen no more."""
        server, self._server = self._server, None
        if server is not None:
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            server.close()
        for one in self._open:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._open.clear()

    @property
    def bodies(self) -> list[str]:
        """The messages, each once: one that was sent again is the same, byte for byte."""
        return [opened(one)["body"] for one in dict.fromkeys(self.framed)]

    @property
    def events(self) -> list[str]:
        """What the messages tell of, in a few words each."""
        return [told(one) for one in self.bodies]

    def wait_for(
        self, is_enough: Callable[[list[str]], bool], *, within_s: float = 30.0
    ) -> list[str]:
        """The events, once there are enough."""
        with self._changed:
            done = self._changed.wait_for(lambda: is_enough(self.events), within_s)
        assert done, f"the collector has only {self.events}"
        return self.events

    def _accept(self, server: socket.socket) -> None:
        while True:
            try:
                plain, _ = server.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=[plain], daemon=True).start()

    def _serve(self, plain: socket.socket) -> None:
        self._open.append(plain)
        if not self.reads:
            return
        with contextlib.suppress(OSError):
            connection = plain if self.certificate is None else self._secured(plain)
            self._open.append(connection)
            with connection, connection.makefile("rb") as stream:
                for one in _frames(stream):
                    with self._changed:
                        self.framed.append(one)
                        self._changed.notify_all()

    def _secured(self, plain: socket.socket) -> socket.socket:
        assert self.certificate is not None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate.certificate, self.certificate.key)
        if self.client_ca:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.client_ca)
        return context.wrap_socket(plain, server_side=True)


def _frames(stream: object) -> Iterator[bytes]:
    """Octet counting: MSG-LEN, a space, SYSLOG-MSG."""
    while True:
        length = b""
        while not length.endswith(b" "):
            digit = stream.read(1)  # type: ignore[attr-defined]
            if not digit:
                return
            length += digit
        content = stream.read(int(length))  # type: ignore[attr-defined]
        if len(content) < int(length):
            return
        yield content


def told(body: str) -> str:
    """What a message tells of: event, types, action and outcome, whose study it is."""
    root = audit_schema.parsed(body)
    event = root.find("EventIdentification")
    assert event is not None
    words = [event.find("EventID").get("originalText")]  # type: ignore[union-attr]
    words += [f"({one.get('originalText')})" for one in event.findall("EventTypeCode")]
    words += [event.get("EventActionCode"), event.get("EventOutcomeIndicator")]
    return " ".join(str(one) for one in words)


@contextmanager
def collecting(certificate: Issued | None = None, *, client_ca: str = "") -> Iterator[Collector]:
    """A collector for the length of a block."""
    made = Collector(certificate=certificate, client_ca=client_ca)
    made.start()
    try:
        yield made
    finally:
        made.stop()


def until(ask: Callable[[], object], *, within_s: float = 60.0) -> None:
    """Ask until there is an answer that counts as true."""
    deadline = time.monotonic() + within_s
    while not ask():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
