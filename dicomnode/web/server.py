"""The page's server: a socket of its own, and uvicorn in a thread of the node."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path

import uvicorn

from dicomnode import bundle, log
from dicomnode.archive.auditing.recording import database_of
from dicomnode.bundle import Bundle
from dicomnode.config import Configuration, Web
from dicomnode.errors import Failed, Misconfigured, NodeError
from dicomnode.reload import Reload
from dicomnode.web import app
from dicomnode.web.connection import Connection
from dicomnode.web.surroundings import Surroundings

_log = log.get(__name__)

_READY_S = 10.0
_POLL_S = 0.01
_STOP_S = 10.0
# Who holds a stream is told to go; then it is cut.
_GRACE_S = 2
_BACKLOG = 128
_CONNECTIONS = 256


class Page:
    """The administrator's page; without `web.port` there is none. `start`, then `stop`."""

    def __init__(self, configuration: Configuration, *, file: Path) -> None:
        """Prepare.

        Args:
            configuration: What is in force.
            file: Where it stands, for `check`.
        """
        self._configuration = configuration
        self._file = file
        self._reload: Reload | None = None
        self._surroundings: Surroundings | None = None
        self._socket: socket.socket | None = None
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int | None:
        """Where it listens; `None` where there is no page."""
        return None if self._socket is None else int(self._socket.getsockname()[1])

    def offer(self, reload: Reload) -> None:
        """Let an administrator bring the file into force; to be said before the start."""
        self._reload = reload

    def change(self, configuration: Configuration) -> None:
        """Show another configuration from now on, and go by it."""
        if self._surroundings is not None:
            self._surroundings.change(configuration, _bundles(configuration))

    def start(self, *, is_listening: Callable[[], bool]) -> None:
        """Serve; returns when the page can be reached.

        Raises:
            Misconfigured: `page-cannot-listen` where the address or the port is not to be had,
                `page-certificate` where certificate and key cannot be used.
            Failed: `page-did-not-start`.
        """
        web = self._configuration.web
        if web.port is None:
            return
        self._socket = _bind(web, web.port)
        self._surroundings = Surroundings(
            configuration=self._configuration,
            file=self._file,
            database=database_of(self._configuration),
            bundles=_bundles(self._configuration),
            is_listening=is_listening,
            clock=time.time,
            reload=self._reload,
        )
        self._server = uvicorn.Server(_settings(web, self._surroundings))
        # In a thread that is not the main one, uvicorn takes no signals.
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, name="page", daemon=True
        )
        self._thread.start()
        self._wait_until_ready()
        _log.info("page", host=web.host, port=self.port)

    def _wait_until_ready(self) -> None:
        assert self._server is not None  # noqa: S101 - made a moment ago
        assert self._thread is not None  # noqa: S101 - likewise
        until = time.monotonic() + _READY_S
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > until:
                raise Failed("page-did-not-start", "The page does not answer; see the log.")
            time.sleep(_POLL_S)

    def stop(self) -> None:
        """End every stream and every connection."""
        if self._surroundings is None or self._socket is None:
            return
        self._surroundings.ending.set()
        if self._server is not None:
            self._server.should_exit = True
        if self._thread is not None:
            self._thread.join(_STOP_S)
        self._socket.close()
        self._surroundings.database.close()


def _bind(web: Web, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            web.host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        made = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _cannot_listen(web, port, error) from error
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen(_BACKLOG)
    except OSError as error:
        made.close()
        raise _cannot_listen(web, port, error) from error
    return made


def _cannot_listen(web: Web, port: int, error: OSError) -> Misconfigured:
    return Misconfigured(
        "page-cannot-listen",
        f"The page cannot listen on {web.host}:{port} ({error.strerror}): see web.host, web.port.",
    )


def _settings(web: Web, surroundings: Surroundings) -> uvicorn.Config:
    settings = uvicorn.Config(
        app.make(surroundings),
        http=Connection,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,  # addresses hold what was looked for: patients' names
        server_header=False,
        proxy_headers=False,  # who says that it is a proxy is believed by nobody
        timeout_graceful_shutdown=_GRACE_S,
        limit_concurrency=_CONNECTIONS,
        ssl_certfile=web.certificate,
        ssl_keyfile=web.key,
        ssl_keyfile_password="",  # one that is needed is not asked for on the terminal
    )
    try:
        settings.load()
    except (OSError, ssl.SSLError, ValueError) as error:
        raise Misconfigured(
            "page-certificate",
            f"{web.certificate} and {web.key} cannot be used ({error}): see web.certificate.",
        ) from error
    return settings


def _bundles(configuration: Configuration) -> dict[str, Bundle | NodeError]:
    """The bundles of the models, or what is wrong with each."""
    found: dict[str, Bundle | NodeError] = {}
    for name, model in configuration.models.items():
        try:
            found[name] = bundle.load(model.bundle, manifest=model.manifest)
        except NodeError as error:
            found[name] = error
    return found
