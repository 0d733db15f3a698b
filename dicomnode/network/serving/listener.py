"""The ports that are listened on, and the servers behind them."""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from socketserver import BaseServer
from typing import Any, Literal, Protocol

from pynetdicom import AE
from pynetdicom.events import EventHandlerType
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

from dicomnode import log
from dicomnode.archive.disk.files import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicomnode.errors import Misconfigured

_log = log.get(__name__)

# Connections that wait to be taken up.
_BACKLOG = 128

ACSE_S = 30.0
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_EXHAUSTED_PAUSE_S = 0.2
# Places are counted by the node, over all its processes; pynetdicom's own count must not interfere.
_NO_LIMIT = 1_000_000


class ListenEntry(Protocol):
    """What the configuration says of listening."""

    @property
    def host(self) -> str:
        """Address to listen on."""

    @property
    def port(self) -> int:
        """TCP port; 0 lets the system pick a free one."""

    @property
    def reactor(self) -> Literal["streaming", "stock"]:
        """Who serves an association: the node's own loop, or pynetdicom's."""

    @property
    def accept_unknown_peers(self) -> bool:
        """Whether anyone may associate."""

    @property
    def max_associations(self) -> int:
        """How many associations may be open at once, over all listeners."""

    @property
    def max_pdu_kib(self) -> int:
        """The longest P-DATA-TF that is taken, in KiB."""

    @property
    def max_instance_gib(self) -> float:
        """The longest instance that is taken, in GiB."""

    @property
    def idle_s(self) -> float:
        """How long an association may be silent, in seconds."""


@dataclass(frozen=True, kw_only=True)
class Sockets:
    """Sockets that listen, perhaps in several processes at once.

    Attributes:
        secure: For associations over TLS, where there are any.
    """

    plain: socket.socket
    secure: socket.socket | None = None


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        Misconfigured: `cannot-listen` where the address or the port is not to be had.
    """
    listening: socket.socket | None = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(_BACKLOG)
    except OSError as error:
        if listening is not None:
            listening.close()
        raise _cannot_listen(f"{host}:{port}", error) from error
    return listening


def _cannot_listen(where: str, error: OSError) -> Misconfigured:
    advice = {
        errno.EADDRINUSE: "another program has it. Stop that one, or set listen.port",
        errno.EACCES: "a port below 1024 needs a privilege. Grant it, or set listen.port",
        errno.EADDRNOTAVAIL: "this machine has no such address. Set listen.host",
    }.get(error.errno or 0, str(error.strerror))
    return Misconfigured("cannot-listen", f"The node cannot listen on {where}: {advice}.")


class _Handler(RequestHandler):
    def handle(self) -> None:
        """Serve the connection; what it became over TLS is closed too."""
        server: Any = self.server
        try:
            server.take_up(self)
        finally:
            server.let_go()
            server.shutdown_request(self.request)


class Server(ThreadedAssociationServer):
    """pynetdicom's server on a socket that listens already, with one thread for each connection."""

    # Whoever stops the server waits for the associations himself, and not for ever.
    daemon_threads = True
    block_on_close = False
    take_up: Callable[[RequestHandler], None]
    most_connections: int

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        """As pynetdicom's; use `on`."""
        self._connections = 0
        self._lock = threading.Lock()
        super().__init__(*arguments, **keywords)

    @classmethod
    def on(
        cls,
        listening: socket.socket,
        *,
        ae: AE,
        contexts: list[PresentationContext],
        events: list[EventHandlerType],
        take_up: Callable[[RequestHandler], None],
        most_connections: int,
    ) -> Server:
        """A server that takes up connections once it is run; the socket becomes its own.

        Args:
            listening: It listens, perhaps in other processes too.
            ae: Whose server it is.
            contexts: What is supported.
            events: The handlers that each association is bound to.
            take_up: Serves a connection to its end, in a thread of its own.
            most_connections: Further ones are hung up on, whatever they want.
        """
        server = cls(
            ae,
            listening.getsockname(),
            ae.ae_title,
            contexts,
            evt_handlers=events,
            request_handler=_Handler,
        )
        server.take_up, server.most_connections = take_up, most_connections
        server.server_close()
        # Other processes may be quicker to take a connection up: then there is none to wait for.
        listening.setblocking(False)
        server.socket = listening
        server.server_address = listening.getsockname()
        return server

    def server_bind(self) -> None:
        """It is bound."""

    def server_activate(self) -> None:
        """It listens."""

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        """Take a connection up. Whether it speaks TLS is found out in its own thread."""
        try:
            accepted, address = self._listening.accept()
        except OSError as error:
            if error.errno in _EXHAUSTED:
                # The connection stays in the queue, and we would be asked again at once.
                _log.error("connections wait", error=error.strerror)
                time.sleep(_EXHAUSTED_PAUSE_S)
            raise
        accepted.setblocking(True)
        return accepted, address

    def verify_request(self, _request: object, client_address: Any) -> bool:
        """Whether there is a thread left for a connection, which has not said yet what it wants."""
        with self._lock:
            if self._connections < self.most_connections:
                self._connections += 1
                return True
        _log.warning("too many connections", address=client_address[0])
        return False

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread of its own, where the system gives one."""
        try:
            super().process_request(request, client_address)
        except BaseException:
            self.let_go()
            raise

    def let_go(self) -> None:
        """A connection that was taken up is over."""
        with self._lock:
            self._connections -= 1

    def handle_error(self, _request: object, _client_address: object) -> None:
        """Say what went wrong with a connection that no association was made of."""
        _log.exception("connection failed unexpectedly")

    def service_actions(self) -> None:
        """Nothing between connections: pynetdicom would collect garbage here, all threads held."""

    def shutdown(self) -> None:
        """Take no more connections up."""
        BaseServer.shutdown(self)
        self.server_close()

    def server_close(self) -> None:
        """Let go of the socket. It is not shut down: other processes may listen on it."""
        self._listening.close()

    @property
    def _listening(self) -> socket.socket:
        if self.socket is None:
            raise RuntimeError("a server without a socket")
        return self.socket


def application_entity(ae_title: str, listen: ListenEntry) -> AE:
    """What pynetdicom knows of the node as an acceptor."""
    ae = AE(ae_title)
    ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    ae.maximum_associations = _NO_LIMIT
    ae.maximum_pdu_size = listen.max_pdu_kib * 1024
    ae.acse_timeout = ACSE_S
    ae.network_timeout = listen.idle_s
    return ae
