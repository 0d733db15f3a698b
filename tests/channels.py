"""Where messages go, on loopback: a mail server and a receiver of webhooks, kind and unkind."""

from __future__ import annotations

import asyncio
import base64
import email
import hashlib
import hmac
import json
import socket
import ssl
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.policy import default as default_policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword
from certificates import Issued

HOST = "127.0.0.1"
USER, PASSWORD = "dicomnode", "correct horse battery staple"
SECRET = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def server_context(issued: Issued) -> ssl.SSLContext:
    """What a server shows of itself."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.certificate, issued.key)
    return context


# ── Mail ────────────────────────────────────────────────────────────────────────────────────────


@dataclass(kw_only=True)
class MailServer:
    """A real SMTP server. What it took is in `messages`.

    Attributes:
        refuse: What it answers to a message: "" takes it.
        unknown: A recipient that it does not know.
    """

    tls: ssl.SSLContext | None = None
    implicit: bool = False
    sign_in: bool = False
    refuse: str = ""
    unknown: str = ""
    port: int = 0
    messages: list[EmailMessage] = field(default_factory=list)
    encrypted: list[bool] = field(default_factory=list)
    came: threading.Event = field(default_factory=threading.Event)
    protocols: list[SMTP] = field(default_factory=list)

    async def handle_RCPT(  # noqa: N802 - the name that the server calls it by
        self, _server: Any, _session: Any, envelope: Any, address: str, _options: Any
    ) -> str:
        if address == self.unknown:
            return "550 5.1.1 Nobody of that name"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(  # noqa: N802 - as above
        self, _server: Any, session: Any, envelope: Any
    ) -> str:
        if self.refuse:
            return self.refuse
        content = email.message_from_bytes(envelope.content, policy=default_policy)
        self.messages.append(cast("EmailMessage", content))
        self.encrypted.append(session.ssl is not None or self.implicit)
        self.came.set()
        return "250 OK"

    def protocol(self) -> SMTP:
        with warnings.catch_warnings():
            # TLS from the first byte is none that the server itself would know of.
            warnings.filterwarnings("ignore", "Requiring AUTH while not requiring TLS")
            made = self._protocol()
        self.protocols.append(made)
        return made

    def _protocol(self) -> SMTP:
        return SMTP(
            self,
            loop=asyncio.get_running_loop(),
            auth_exclude_mechanism=[] if self.sign_in else ["LOGIN", "PLAIN"],
            hostname="mail.example",
            tls_context=None if self.implicit else self.tls,
            require_starttls=self.tls is not None and not self.implicit,
            authenticator=_knows if self.sign_in else None,
            auth_required=self.sign_in,
            auth_require_tls=self.tls is not None and not self.implicit,
        )

    def table(self, **more: str) -> str:
        """[alerts.email] for this server, as text."""
        security = "none" if self.tls is None else "tls" if self.implicit else "starttls"
        keys = {
            "host": HOST, "security": security, "from": "node@hospital.example", **more,
        }  # fmt: skip
        lines = [f'{key} = "{value}"' for key, value in keys.items()]
        return "\n".join(
            ["[alerts.email]", *lines, f"port = {self.port}", 'to = ["team@hospital.example"]', ""]
        )


def _knows(
    _server: object, _session: object, _envelope: object, _mechanism: str, data: object
) -> AuthResult:
    assert isinstance(data, LoginPassword)
    known = (data.login, data.password) == (USER.encode(), PASSWORD.encode())
    return AuthResult(success=known, handled=False)


@contextmanager
def mail_server(*, port: int = 0, **how: Any) -> Iterator[MailServer]:
    """A mail server for the length of a block."""
    made = MailServer(**how)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def open_() -> asyncio.Server:
        return await loop.create_server(
            made.protocol, HOST, port, ssl=made.tls if made.implicit else None
        )

    async def close(server: asyncio.Server) -> None:
        server.close()
        for protocol in made.protocols:
            if protocol.transport is not None:
                protocol.transport.abort()
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        for _ in range(20):  # what was aborted is closed in the next turns of the loop
            await asyncio.sleep(0)

    server = asyncio.run_coroutine_threadsafe(open_(), loop).result(10)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        asyncio.run_coroutine_threadsafe(close(server), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


# ── Webhooks ────────────────────────────────────────────────────────────────────────────────────


@dataclass(kw_only=True)
class Receiver:
    """A real HTTP server. What was posted is in `posted`.

    Attributes:
        status: What it answers.
        headers: And with which headers.
        body: And with which body.
        release: It answers only once this is set.
    """

    status: int = 204
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    release: threading.Event | None = None
    url: str = ""
    posted: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    @property
    def documents(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.posted]


def is_genuine(headers: dict[str, str], body: bytes, *, secret: bytes, now: float) -> bool:
    """What a receiver asks before it believes: written anew, after Standard Webhooks 1.0."""
    at = headers["webhook-timestamp"]
    if abs(now - int(at)) > 300:
        return False
    signed = f"{headers['webhook-id']}.{at}.".encode() + body
    expected = base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode()
    given = [one.partition(",")[2] for one in headers["webhook-signature"].split()]
    return any(hmac.compare_digest(expected, one) for one in given)


@contextmanager
def receiver(*, tls: ssl.SSLContext | None = None, **how: Any) -> Iterator[Receiver]:
    """A receiver for the length of a block."""
    made = Receiver(**how)
    server = ThreadingHTTPServer((HOST, 0), _handler(made))
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    scheme = "http" if tls is None else "https"
    made.url = f"{scheme}://{HOST}:{server.server_address[1]}/hooks/T0/token"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield made
    finally:
        if made.release is not None:
            made.release.set()
        server.shutdown()
        thread.join()
        server.server_close()


def _handler(made: Receiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            made.asked.append(self.path)
            made.posted.append(({name.lower(): one for name, one in self.headers.items()}, body))
            if made.release is not None:
                made.release.wait(60)
            try:
                self.send_response(made.status)
                for name, value in made.headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(made.body)))
                self.end_headers()
                self.wfile.write(made.body)
            except OSError:
                pass  # nobody waited for the answer

        do_GET = do_POST  # noqa: N815 - a redirect that was followed would come so

        def log_message(self, *_: object) -> None:
            pass

    return Handler


# ── Servers that are none ───────────────────────────────────────────────────────────────────────


@contextmanager
def rude(talk: Callable[[socket.socket, threading.Event], None]) -> Iterator[int]:
    """The port of a server that does with each connection what `talk` says."""
    end = threading.Event()
    with socket.create_server((HOST, 0)) as listening:
        listening.settimeout(0.05)

        def serve() -> None:
            while not end.is_set():
                try:
                    connection, _ = listening.accept()
                except TimeoutError:
                    continue
                with connection:
                    talk(connection, end)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield int(listening.getsockname()[1])
        finally:
            end.set()
            thread.join()


def says_nothing(_connection: socket.socket, end: threading.Event) -> None:
    """It takes the call, and that is all."""
    end.wait()


def drips(connection: socket.socket, end: threading.Event) -> None:
    """A byte now and then, for ever: each comes in time, and the line never ends."""
    while not end.wait(0.02):
        try:
            connection.sendall(b"2")
        except OSError:
            return


def drips_an_association(connection: socket.socket, end: threading.Event) -> None:
    """The head of an A-ASSOCIATE-AC that is very long, and then a byte now and then."""
    connection.sendall(b"\x02\x00\x7f\xff\xff\xff")
    drips(connection, end)


def hangs_up(_connection: socket.socket, _end: threading.Event) -> None:
    """It takes the call and ends it."""


def written(folder: Path, name: str, text: str) -> Path:
    """A file with a secret that only its owner can read."""
    file = folder / name
    file.write_text(text)
    file.chmod(0o600)
    return file
