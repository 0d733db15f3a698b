"""What no browser sends: the page's own server, over a socket."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import paged
import pytest

from dicomnode import config
from dicomnode.archive.database import Database
from dicomnode.web import Page, connection, guard

HOST = b"Host: node.example\r\n"
FORM = b"Content-Type: application/x-www-form-urlencoded\r\n"
SMUGGLED = b"GET /healthz HTTP/1.1\r\nHost: smuggled\r\n\r\n"


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    file = tmp_path_factory.mktemp("page") / "node.toml"
    file.write_text(paged.CONFIGURATION)
    configuration = config.load(file, {})
    configuration.node.data_dir.mkdir(exist_ok=True)
    database = Database(configuration.database.url)
    database.migrate()
    database.close()
    page = Page(configuration, file=file)
    page.start(is_listening=lambda: True)
    assert page.port is not None
    yield page.port
    page.stop()


def call(port: int) -> socket.socket:
    made = socket.create_connection(("127.0.0.1", port), timeout=30)
    made.settimeout(30)
    return made


def until_the_end(connected: socket.socket) -> bytes:
    """Everything that comes before the other side closes."""
    said = bytearray()
    with connected:
        try:
            while piece := connected.recv(65536):
                said += piece
        except ConnectionResetError:
            said += b"<reset>"
    return bytes(said)


def asked(port: int, request: bytes) -> list[str]:
    """The status line of each answer, once the other side has closed."""
    connected = call(port)
    connected.sendall(request)
    said = until_the_end(connected)
    assert b"ASGI" not in said
    assert b"Traceback" not in said
    return [line.decode() for line in said.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]


def get(path: bytes, *, more: bytes = b"") -> bytes:
    return b"GET " + path + b" HTTP/1.1\r\n" + HOST + more + b"Connection: close\r\n\r\n"


def post(*headers: bytes, body: bytes = b"") -> bytes:
    return b"POST /sign-in HTTP/1.1\r\n" + HOST + FORM + b"".join(headers) + b"\r\n" + body


BAD = ["HTTP/1.1 400 Bad Request"]


@pytest.mark.parametrize(
    "request_",
    [
        post(b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", body=b"0\r\n\r\n"),
        post(b"Transfer-Encoding: chunked\r\n", b"Content-Length: 5\r\n", body=b"0\r\n\r\n"),
        post(b"Content-Length: 5\r\n", b"Content-Length: 6\r\n", body=b"a=b&c"),
        post(b"Content-Length: 5, 6\r\n", body=b"a=b&c"),
        post(b"Content-Length: +5\r\n", body=b"a=b&c"),
        post(b"Content-Length: -5\r\n", body=b"a=b&c"),
        post(b"Content-Length: 0x5\r\n", body=b"a=b&c"),
        post(b"Content-Length: " + b"9" * 5000 + b"\r\n", body=b"a=b&c"),
        post(b"Transfer-Encoding: xchunked\r\n", body=b"0\r\n\r\n"),
        post(b"Transfer-Encoding: chunked, identity\r\n", body=b"0\r\n\r\n"),
        post(b"Transfer-Encoding: x\r\n", b"Transfer-Encoding: chunked\r\n", body=b"0\r\n\r\n"),
        post(b"Transfer-Encoding : chunked\r\n", body=b"0\r\n\r\n"),
        post(b"Transfer-Encoding: chunked\r\n", body=b"-1\r\n\r\n"),
        post(b"Transfer-Encoding: chunked\r\n", body=b"z\r\n\r\n"),
        b"GET /healthz HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n" + HOST + b"X-\x00: y\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n" + HOST + b"X: a\x00b\r\n\r\n",
        b"GET  /healthz  HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET /health z HTTP/1.1\r\n" + HOST + b"\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),
    ],
    ids=lambda request_: repr(request_[-60:]),
)  # fmt: skip
def test_what_may_be_read_in_two_ways_or_is_no_request_is_not_taken(
    port: int, request_: bytes
) -> None:
    assert asked(port, request_ + SMUGGLED) == BAD


@pytest.mark.parametrize("size", [40_000, 200_000])
@pytest.mark.parametrize("what", ["a header", "headers", "a path", "a question"])
def test_a_head_longer_than_any_browsers_is_not_taken(port: int, what: str, size: int) -> None:
    request = {
        "a header": get(b"/healthz", more=b"X: " + b"a" * size + b"\r\n"),
        "headers": get(b"/healthz", more=b"X: y\r\n" * (size // 2)),
        "a path": get(b"/" + b"a" * size),
        "a question": get(b"/healthz?" + b"a" * size),
    }[what]
    # Of one that comes in pieces the server itself takes no more than 64 KiB.
    assert asked(port, request) in (BAD, ["HTTP/1.1 431 Request Header Fields Too Large"])


def test_what_is_no_request_is_answered_like_everything_else(port: int) -> None:
    connected = call(port)
    connected.sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
    said = until_the_end(connected).decode().lower()
    for name, value in guard.HEADERS.items():
        assert f"{name}: {value}\r\n".lower() in said
    assert "cache-control: no-store" in said
    assert "server:" not in said


def test_a_body_in_pieces_is_read_as_far_as_a_form_goes(port: int) -> None:
    piece = b"1000\r\n" + b"x" * 0x1000 + b"\r\n"
    endless = post(b"Transfer-Encoding: chunked\r\n", body=piece * 17)
    assert asked(port, endless) == ["HTTP/1.1 413 Request Entity Too Large"]


def test_a_body_that_is_announced_too_long_is_not_waited_for(port: int) -> None:
    for more in (b"", b"Expect: 100-continue\r\n"):
        request = post(b"Content-Length: 65537\r\n", more)
        assert asked(port, request) == ["HTTP/1.1 413 Request Entity Too Large"]


@pytest.mark.parametrize(
    "kind",
    [b"multipart/form-data", b"multipart/form-data; boundary=", b"multipart/form-data; boundary=x"],
)
def test_a_form_that_is_none_is_told(port: int, kind: bytes) -> None:
    request = post(b"Content-Length: 4\r\n", body=b"abcd").replace(
        FORM, b"Content-Type: " + kind + b"\r\n"
    )
    connected = call(port)
    connected.sendall(request)
    status = until_the_end(connected).split(b"\r\n")[0]
    assert status in {b"HTTP/1.1 400 Bad Request", b"HTTP/1.1 403 Forbidden"}


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (b"/static/../app.py", 404),
        (b"/static/%2e%2e/app.py", 404),
        (b"/static/..%2f..%2fapp.py", 404),
        (b"/static/%252e%252e/app.py", 404),
        (b"/static//etc/passwd", 404),
        (b"/static/%2fetc%2fpasswd", 404),
        (b"/static/live.js%00.css", 404),
        (b"/static/" + b"a" * 300, 404),
        (b"/static", 404),
        (b"/static/", 404),
        (b"/static/.", 404),
        (b"/%2e%2e/%2e%2e/etc/passwd", 404),
        (b"//evil.example/%2e%2e", 404),
        (b"/\\evil.example", 404),
        (b"http://evil.example/studies", 404),
        (b"/studies/", 404),
        (b"/studies/%ff%fe", 303),
        (b"/%0d%0aSet-Cookie:%20a=b", 404),
        (b"/sign-in?next=%0d%0aSet-Cookie:%20a=b", 200),
        (b"/studies?x=%0d%0aSet-Cookie:%20a=b", 303),
    ],
)
def test_a_path_is_taken_as_it_is_written(port: int, path: bytes, status: int) -> None:
    connected = call(port)
    connected.sendall(get(path))
    head, _, body = until_the_end(connected).partition(b"\r\n\r\n")
    first, *headers = head.split(b"\r\n")
    assert first.split()[1] == b"%d" % status
    assert b"root:" not in body
    names = [line.lower() for line in headers]
    assert not [name for name in names if name.startswith(b"set-cookie: a=")]
    assert not [name for name in names if name.startswith((b"location: //", b"location: http"))]


@pytest.mark.parametrize("method", [b"CONNECT", b"TRACE", b"PROPFIND", b"get"])
def test_a_method_that_no_page_has_does_nothing(port: int, method: bytes) -> None:
    (status,) = asked(port, get(b"/healthz").replace(b"GET", method, 1))
    assert status == "HTTP/1.1 405 Method Not Allowed"


def test_an_upgrade_is_not_taken(port: int) -> None:
    more = b"Upgrade: websocket\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n"
    request = get(b"/live", more=more).replace(b"Connection: close", b"Connection: upgrade, close")
    assert asked(port, request) == ["HTTP/1.1 303 See Other"]


@pytest.mark.parametrize(
    "beginning",
    [b"", b"G", b"GET /healthz HTTP/1.1\r\n", b"GET /healthz HTTP/1.1\r\n" + HOST],
    ids=["nothing", "a letter", "a line", "a header"],
)
def test_who_does_not_say_what_they_want_is_cut_off(
    port: int, monkeypatch: pytest.MonkeyPatch, beginning: bytes
) -> None:
    monkeypatch.setattr(connection, "REQUEST_S", 0.2)
    connected = call(port)
    connected.sendall(beginning)
    assert until_the_end(connected) in (b"", b"<reset>")


def test_who_dawdles_after_an_answer_is_cut_off_as_well(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "REQUEST_S", 0.2)
    connected = call(port)
    connected.sendall(get(b"/healthz").replace(b"Connection: close\r\n", b"") + b"G")
    assert until_the_end(connected).count(b'{"alive":true}') == 1


def test_who_asks_again_in_time_is_answered_again(port: int) -> None:
    request = get(b"/healthz")
    kept = request.replace(b"Connection: close\r\n", b"")
    connected = call(port)
    connected.sendall(kept + kept + request)
    assert until_the_end(connected).count(b'{"alive":true}') == 3


@pytest.mark.parametrize("how", [b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n"])
def test_a_form_that_does_not_arrive_is_not_waited_for(
    port: int, monkeypatch: pytest.MonkeyPatch, how: bytes
) -> None:
    monkeypatch.setattr(guard, "BODY_S", 0.2)
    assert asked(port, post(how)) == ["HTTP/1.1 408 Request Timeout"]


def test_those_who_say_nothing_keep_nobody_else_out_for_long(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "REQUEST_S", 1.0)
    silent = [call(port) for _ in range(260)]  # more than the page takes
    assert asked(port, get(b"/healthz")) == ["HTTP/1.1 503 Service Unavailable"]
    for one in silent:
        until_the_end(one)
    assert asked(port, get(b"/healthz")) == ["HTTP/1.1 200 OK"]
