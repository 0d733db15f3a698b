"""The port that is listened on, and what each connection to it gets."""

from __future__ import annotations

import errno
import socket
from socketserver import BaseServer
from typing import Protocol

from pynetdicom import AE, evt
from pynetdicom.events import Event, EventHandlerType
from pynetdicom.transport import ThreadedAssociationServer

from dicomnode.archive.files import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicomnode.errors import Misconfigured
from dicomnode.network import association, connection
from dicomnode.network.connection import PromptSocket

# Each holds threads and, while it sends, one instance in memory.
MAX_ASSOCIATIONS = 100

# A scanner may keep its association while it scans; one that is gone must not stay for ever.
_IDLE_S = 300.0
_ACSE_S = 30.0


class ListenEntry(Protocol):
    """What the configuration says of listening."""

    @property
    def host(self) -> str:
        """Address to listen on."""

    @property
    def port(self) -> int:
        """TCP port; 0 lets the system pick a free one."""

    @property
    def processes(self) -> int:
        """How many listeners share the port."""

    @property
    def accept_unknown_peers(self) -> bool:
        """Whether anyone may associate."""


def bound(
    listen: ListenEntry, *, ae_title: str, handlers: list[EventHandlerType]
) -> ThreadedAssociationServer:
    """A server that peers can connect to, and that serves them once it is run.

    Raises:
        Misconfigured: `cannot-listen` where the address or the port is not to be had.
    """
    try:
        return _application_entity(ae_title).make_server(
            (listen.host, listen.port),
            contexts=association.accepted_contexts(),
            evt_handlers=[(evt.EVT_CONN_OPEN, _set_up), *handlers],
            server_class=_SharedPortServer if listen.processes > 1 else _Server,
        )
    except OSError as error:
        raise _cannot_listen(listen, error) from error


def _set_up(event: Event) -> None:
    connection.set_up(event.assoc, timeout_s=_IDLE_S)


class _Server(ThreadedAssociationServer):
    """pynetdicom's server, with a longer queue, prompt, and not tied to `AE.start_server`."""

    request_queue_size = 128

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        accepted, address = super().get_request()
        return PromptSocket.taking_over(accepted), address

    def shutdown(self) -> None:
        BaseServer.shutdown(self)
        self.server_close()


class _SharedPortServer(_Server):
    """Shares its port with the other listeners; the kernel spreads the connections."""

    def server_bind(self) -> None:
        listening = self.socket
        if listening is not None:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        super().server_bind()


def _application_entity(ae_title: str) -> AE:
    ae = AE(ae_title)
    ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    ae.maximum_associations = MAX_ASSOCIATIONS
    ae.maximum_pdu_size = association.MAX_PDU_LENGTH
    ae.acse_timeout = _ACSE_S
    ae.network_timeout = _IDLE_S
    return ae


def _cannot_listen(listen: ListenEntry, error: OSError) -> Misconfigured:
    where = f"{listen.host}:{listen.port}"
    advice = {
        errno.EADDRINUSE: "another program has it. Stop that one, or set listen.port",
        errno.EACCES: "a port below 1024 needs a privilege. Grant it, or set listen.port",
        errno.EADDRNOTAVAIL: "this machine has no such address. Set listen.host",
    }.get(error.errno or 0, str(error.strerror))
    return Misconfigured("cannot-listen", f"The node cannot listen on {where}: {advice}.")
