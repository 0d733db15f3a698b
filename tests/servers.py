"""Real servers for tests: Redis, Orthanc, PostgreSQL. Each on 127.0.0.1 and a port of its own.

A server is ready when it answers, and it is ended by the process id that was started here. The
kernel ends it too should the test run itself be killed (`setpriv --pdeathsig`).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import psycopg
import pytest
import redis

HOST = "127.0.0.1"

# Set where everything must be there, in continuous integration: a skip would hide a breakage.
_REQUIRE_SERVERS = os.environ.get("DICOMNODE_TESTS_REQUIRE_SERVERS") == "1"

ORTHANC_DICOMWEB = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
POSTGRES_BIN = Path("/usr/lib/postgresql")

#: Debian package → how to tell that it is there.
_IS_THERE: dict[str, Callable[[], bool]] = {
    "redis-server": lambda: shutil.which("redis-server") is not None,
    "orthanc": lambda: shutil.which("Orthanc") is not None,
    "orthanc-dicomweb": ORTHANC_DICOMWEB.exists,
    "dcmtk": lambda: Path("/usr/bin/storescu").exists(),  # pynetdicom brings a storescu of its own
    "dicom3tools": lambda: shutil.which("dciodvfy") is not None,
    "openssl": lambda: shutil.which("openssl") is not None,
    "e2fsprogs": lambda: Path("/sbin/mkfs.ext4").exists(),
    "pixelmed-apps": lambda: shutil.which("DicomSRValidator") is not None,
    "chromium": lambda: shutil.which("chromium") is not None,
    "npm": lambda: shutil.which("npm") is not None,
    "postgresql": lambda: any(POSTGRES_BIN.glob("*/bin/postgres")),
    "systemd": lambda: shutil.which("systemd-analyze") is not None,
    "prometheus": lambda: shutil.which("promtool") is not None,
    "rsyslog": lambda: Path("/usr/sbin/rsyslogd").exists(),
    "rsyslog-gnutls": lambda: any(Path("/usr/lib").glob("*/rsyslog/lmnsd_gtls.so")),
    "sqlite3": lambda: shutil.which("sqlite3") is not None,
    "rsync": lambda: shutil.which("rsync") is not None,
}

#: The fixtures below → the packages that they start.
PACKAGES_OF_FIXTURE = {
    "redis_server": ("redis-server",),
    "orthanc": ("orthanc", "orthanc-dicomweb"),
    "authority": ("openssl",),
    "postgres_url": ("postgresql",),
}

_READY_WITHIN_S = 60.0
_ASK_EVERY_S = 0.02
_END_WITHIN_S = 20.0


def missing(packages: tuple[str, ...]) -> list[str]:
    """Those of `packages` that this machine lacks. An unknown name is a fault of the test."""
    return [package for package in packages if not _IS_THERE[package]()]


def do_without(reason: str) -> NoReturn:
    """Skip the test for what this machine lacks, or fail where nothing may be lacking."""
    if _REQUIRE_SERVERS:
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def free_port() -> int:
    """A port on 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


@dataclass(kw_only=True)
class Server:
    """A program that was started here. Its output goes to `log`.

    Attributes:
        command: The program and its arguments.
        directory: Where it runs, and where `server.log` lies.
        environment: Added to a bare one: nothing of the caller's environment reaches the server.
        user: Whom to run as; only root can say so.
        end_signal: What asks the program to end.
    """

    command: list[str]
    directory: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None
    end_signal: signal.Signals = signal.SIGTERM
    process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        """What the program has said."""
        return (self.directory / "server.log").read_text(errors="replace")

    def start(self, is_ready: Callable[[], bool]) -> None:
        """Start, and return when `is_ready` says so. It may raise OSError as long as it is not."""
        if self.process is not None:
            raise RuntimeError(f"{self.command[0]} runs already")
        with (self.directory / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*_tied_to_us(self.user), *self.command],
                cwd=self.directory,
                env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            self._wait_until(is_ready)
        except BaseException:
            self.kill()
            raise

    def _wait_until(self, is_ready: Callable[[], bool]) -> None:
        assert self.process is not None
        deadline = time.monotonic() + _READY_WITHIN_S
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.command[0]} ended at its start:\n{self.log}")
            with contextlib.suppress(OSError):
                if is_ready():
                    return
            time.sleep(_ASK_EVERY_S)
        raise RuntimeError(f"{self.command[0]} did not answer in time:\n{self.log}")

    def stop(self) -> None:
        """Ask the program to end, and wait for it; after a while end it without asking."""
        if self.process is None:
            return
        self.process.send_signal(self.end_signal)
        try:
            self.process.wait(_END_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.kill()
        self.process = None

    def kill(self) -> None:
        """SIGKILL: the program has no time to write anything."""
        if self.process is None:
            return
        self.process.kill()
        self.process.wait()
        self.process = None


def _tied_to_us(user: str | None) -> list[str]:
    """The command that starts a command which ends when this process does."""
    command = ["setpriv", "--pdeathsig", "KILL"]
    if user is not None:
        command += [f"--reuid={user}", f"--regid={user}", "--init-groups"]
    return command


class RedisServer:
    """A Redis server. It keeps its port and its folder over `kill()` and `start()`.

    With `persistent` every write is on disk before it is answered; otherwise nothing ever is.
    """

    def __init__(self, directory: Path, *, persistent: bool = False) -> None:
        self.port = free_port()
        self.url = f"redis://{HOST}:{self.port}/0"
        options = {
            "bind": HOST,
            "port": str(self.port),
            "dir": str(directory),
            "save": "",
            "appendonly": "yes" if persistent else "no",
            "appendfsync": "always",
        }
        arguments = [word for key, value in options.items() for word in (f"--{key}", value)]
        self._server = Server(command=["redis-server", *arguments], directory=directory)

    def start(self) -> None:
        """Start it, again if need be, and return when it answers."""
        self._server.start(self._is_ready)

    def _is_ready(self) -> bool:
        with contextlib.suppress(redis.ConnectionError), redis.Redis.from_url(self.url) as client:
            return bool(client.ping())
        return False

    def kill(self) -> None:
        """SIGKILL, as a power cut would."""
        self._server.kill()

    def stop(self) -> None:
        """End it properly."""
        self._server.stop()


class Orthanc:
    """An Orthanc with DICOMweb that lets everyone store, find, get and move.

    Its configuration is Debian's default where `options` (Orthanc's own keys) does not say
    otherwise.
    """

    def __init__(
        self,
        directory: Path,
        *,
        ae_title: str = "ORTHANC",
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.ae_title = ae_title
        self.host = HOST
        self.dicom_port = free_port()
        http_port = free_port()
        self.http_url = f"http://{HOST}:{http_port}"
        self.dicomweb_url = f"{self.http_url}/dicom-web"
        configuration = {
            "StorageDirectory": str(directory / "storage"),
            "IndexDirectory": str(directory / "storage"),
            "DicomServerEnabled": True,
            "DicomAet": ae_title,
            "DicomPort": self.dicom_port,
            "HttpPort": http_port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomAlwaysAllowEcho": True,
            "DicomAlwaysAllowStore": True,
            "DicomAlwaysAllowFind": True,
            "DicomAlwaysAllowGet": True,
            "DicomAlwaysAllowMove": True,
            "Plugins": [str(ORTHANC_DICOMWEB)],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
            **(options or {}),
        }
        path = directory / "orthanc.json"
        path.write_text(json.dumps(configuration, indent=2))
        # DCMTK inside Orthanc waits 40 ms for each message unless it may send at once.
        self._server = Server(
            command=["Orthanc", str(path)], directory=directory, environment={"TCP_NODELAY": "1"}
        )
        # No proxy of the surroundings may come between.
        self._http = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def start(self) -> None:
        """Start it, and return when both of its ports answer."""
        self._server.start(self._is_ready)

    def _is_ready(self) -> bool:
        with socket.create_connection((HOST, self.dicom_port)):
            return "Version" in self.request("GET", "/system")

    def kill(self) -> None:
        """SIGKILL."""
        self._server.kill()

    def stop(self) -> None:
        """End it properly."""
        self._server.stop()

    def request(self, method: str, path: str, body: object = None) -> Any:
        """Ask Orthanc's own REST interface. It speaks JSON; a `body` of bytes goes as it is."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.http_url + path, data=data, method=method)
        with self._http.open(request, timeout=60) as response:
            content = response.read()
        return json.loads(content) if content else None

    def add_modality(self, name: str, aet: str, host: str, port: int) -> None:
        """Make a peer known to Orthanc, so that it can send there or be asked to move there."""
        self.request("PUT", f"/modalities/{name}", {"AET": aet, "Host": host, "Port": port})

    def instances(self) -> list[str]:
        """The SOP Instance UIDs of what it holds, sorted."""
        found = self.request("GET", "/instances?expand")
        return sorted(instance["MainDicomTags"]["SOPInstanceUID"] for instance in found)

    def qido(self, query: str) -> list[dict[str, Any]]:
        """What QIDO-RS answers (PS3.18 10.6): `studies?PatientID=…`, `instances?…`: DICOM JSON."""
        found: list[dict[str, Any]] = self.request("GET", f"/dicom-web/{query}")
        return found

    def upload(self, path: Path) -> str:
        """Put a file there past DICOM; the answer is Orthanc's name for the instance."""
        return str(self.request("POST", "/instances", path.read_bytes())["ID"])


class Postgres:
    """A PostgreSQL cluster that forgets on a power cut (no fsync): good for tests alone."""

    def __init__(self, directory: Path) -> None:
        # PostgreSQL refuses to run as root; Debian's package brings a user for it.
        self._user = "postgres" if os.geteuid() == 0 else None
        self._port = free_port()
        programs = max(POSTGRES_BIN.glob("*/bin"), key=lambda path: float(path.parent.name))
        cluster = directory / "cluster"
        if self._user is not None:
            shutil.chown(directory, self._user, self._user)
        self._run(directory, programs / "initdb", "--pgdata", cluster, "--username=postgres",
                  "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C")  # fmt: skip
        options = {
            "listen_addresses": HOST,
            "port": self._port,
            "unix_socket_directories": "",
            "fsync": "off",
            "synchronous_commit": "off",
            "full_page_writes": "off",
        }
        settings = [word for key, value in options.items() for word in ("-c", f"{key}={value}")]
        self._server = Server(
            command=[str(programs / "postgres"), "-D", str(cluster), *settings],
            directory=directory,
            user=self._user,
            end_signal=signal.SIGINT,  # "fast": clients are cut off
        )
        self._databases = 0

    def _run(self, directory: Path, *command: str | Path) -> None:
        subprocess.run(
            [*_tied_to_us(self._user), *map(str, command)],
            cwd=directory, env={"PATH": os.environ["PATH"]}, check=True, capture_output=True,
        )  # fmt: skip

    def start(self) -> None:
        """Start it, and return when it answers a query."""
        self._server.start(self._is_ready)

    def stop(self) -> None:
        """End it, whoever is still connected."""
        self._server.stop()

    def _is_ready(self) -> bool:
        with contextlib.suppress(psycopg.OperationalError):
            self._execute("SELECT 1")
            return True
        return False

    def _execute(self, statement: str) -> None:
        address = f"host={HOST} port={self._port} user=postgres dbname=postgres"
        with psycopg.connect(address, autocommit=True) as connection:
            connection.execute(statement.encode())

    @contextlib.contextmanager
    def database(self) -> Iterator[str]:
        """The URL of a fresh database, dropped at the end whoever is still connected."""
        self._databases += 1
        name = f"test_{self._databases}"
        self._execute(f"CREATE DATABASE {name}")
        try:
            yield f"postgresql+psycopg://postgres@{HOST}:{self._port}/{name}"
        finally:
            self._execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A running Redis that keeps nothing on disk."""
    directory = tmp_path / "redis"
    directory.mkdir()
    server = RedisServer(directory)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[Orthanc]:
    """A running, empty Orthanc."""
    directory = tmp_path / "orthanc"
    directory.mkdir()
    server = Orthanc(directory)
    server.start()
    yield server
    server.kill()  # its folder goes too: a proper end would take seconds for nothing


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A running PostgreSQL, the same for all tests."""
    # pytest's own folder is closed to every user but its owner: PostgreSQL could not enter.
    with tempfile.TemporaryDirectory(prefix="dicomnode-postgres-") as directory:
        server = Postgres(Path(directory))
        server.start()
        yield server
        server.stop()


@pytest.fixture
def postgres_url(postgres: Postgres) -> Iterator[str]:
    """A fresh database, as a URL for SQLAlchemy."""
    with postgres.database() as url:
        yield url
