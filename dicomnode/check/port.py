"""Problems of an address and a port that the node is to listen on."""

from __future__ import annotations

import socket
from collections.abc import Iterator

from dicomnode.config import Problem


def address(host: str, *, path: str) -> Iterator[Problem]:
    """Whether this machine has the address."""
    try:
        _bind(host, 0)
    except OSError as error:
        message = f"This machine cannot listen on {host} ({error.strerror})."
        yield Problem.error(path, message, "address-not-here")


def problems(host: str, port: int, *, path: str) -> Iterator[Problem]:
    """Whether this user may listen on the port."""
    try:
        _bind(host, port)
    except PermissionError:
        message = (
            f"This user may not listen on port {port}. Give the service the capability "
            "CAP_NET_BIND_SERVICE, or choose a port above 1023."
        )
        yield Problem.warning(path, message, "privileged-port")
    except OSError:
        return  # it is in use, most likely by the node that is being checked


def _bind(host: str, port: int) -> None:
    """Take the address for a moment, without listening."""
    family, kind, protocol, _, sockaddr = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.bind(sockaddr)
