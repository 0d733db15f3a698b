"""A listener: a process of its own that receives on sockets which the node opened.

The node's Python indexes and routes; in one process with it, each instance would wait for that. The
node starts this module and writes one line of settings to its standard input, and another one
whenever the configuration changes; the end of the input is the end of the node. Facts go back as
lines over a pipe, each before its instance is acknowledged: what is in the pipe outlives this
process.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import queue
import signal
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from dicomnode import log
from dicomnode.archive import arrival
from dicomnode.archive.arrival import Arrival
from dicomnode.archive.database import Database
from dicomnode.archive.disk.files import FileStore
from dicomnode.archive.disk.space import Space
from dicomnode.archive.studies import index
from dicomnode.config import Disk, Listen, Node, Peer, Tls
from dicomnode.ending import Ending
from dicomnode.errors import Misconfigured
from dicomnode.network.commitment.service import Commitments
from dicomnode.network.serving.acceptor import Acceptor
from dicomnode.network.serving.listener import Sockets
from dicomnode.network.serving.places import Counts, Limits, SharedPlaces
from dicomnode.network.tls import Certificates

_log = log.get(__name__)

EXIT_FAILED, EXIT_MISCONFIGURED = 1, 2

_STDIN = 0
_PIECE = 65_536
_PR_SET_PDEATHSIG = 1
_GIB = 2**30


class ListenerSettings(BaseModel):
    """What a listener is told: the part of the configuration that it needs, and what it inherits.

    Attributes:
        database_url: Holds a password perhaps, so that nothing of this is a command line.
        number: Which listener it is, from 0: its row in the table of places.
        node_pid: Who started it.
        plain: Descriptor of the listening socket.
        secure: The same for TLS, where that is listened for.
        facts: Descriptor of the pipe for facts.
        places: Descriptor of the table of places.
        width: How many columns that table has.
        column: Peer → its column there.
        serial: One more with each change.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    node: Node
    listen: Listen
    tls: Tls
    disk: Disk
    peers: dict[str, Peer]
    database_url: Annotated[str, Field(repr=False)]
    log_style: log.Style
    number: int
    node_pid: int
    plain: int
    secure: int | None
    facts: int
    places: int
    width: int
    column: dict[str, int]
    serial: int

    def to_json(self) -> bytes:
        """One line."""
        return self.model_dump_json(by_alias=True).encode() + b"\n"

    @classmethod
    def from_json(cls, line: bytes) -> ListenerSettings:
        """What `to_json` made."""
        return cls.model_validate(json.loads(line))


#: The line that says that a listener is ready to accept.
READY = b"{}\n"


def refusal(error: Misconfigured) -> bytes:
    """The line that says why a listener does not start."""
    return json.dumps({"reason": error.reason, "detail": error.detail}).encode() + b"\n"


def answer(line: bytes) -> Misconfigured | None:
    """Why a listener does not start, or `None`: it is ready."""
    said: dict[str, str] = json.loads(line)
    return Misconfigured(said["reason"], said["detail"]) if said else None


def taken_up(settings: ListenerSettings) -> bytes:
    """The line that says that a change holds for every association that begins from now on."""
    return json.dumps({"serial": settings.serial}).encode() + b"\n"


def serial_taken_up(line: bytes) -> int | None:
    """Which change a listener has taken up; `None` where the line is about its start."""
    serial = json.loads(line).get("serial")
    return None if serial is None else int(serial)


def is_answer(line: bytes) -> bool:
    """Whether a line says how the start or a change went; it is a fact otherwise."""
    return line.startswith(b"{")


class _Pipe:
    """Where the facts go. Whoever writes waits while it is full: so does the sender."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()

    def report(self, fact: Arrival) -> None:
        """Hand a fact over; it is safe from the end of this process when this returns."""
        self.write(arrival.encode(fact))

    def write(self, line: bytes) -> None:
        """Write a line in one go: nobody else's comes in between."""
        with self._lock:
            try:
                while line:
                    line = line[os.write(self._descriptor, line) :]
            except BrokenPipeError:
                # The node is gone, and so is every acknowledgement: not one more connection.
                os._exit(EXIT_FAILED)


class _Listener:
    """What a listener consists of."""

    def __init__(self, settings: ListenerSettings, pipe: _Pipe) -> None:
        self._database = Database(settings.database_url)
        self._store = FileStore(settings.node.data_dir)
        self._space = Space(
            settings.node.data_dir,
            min_free_bytes=int(settings.disk.min_free_gib * _GIB),
            floor_bytes=int(settings.disk.floor_gib * _GIB),
            is_open=self._is_open,
        )
        self._places = _places(settings)
        self._acceptor = Acceptor(
            listen=settings.listen,
            node_ae_title=settings.node.ae_title,
            peers=settings.peers,
            store=self._store,
            report=pipe.report,
            clock=time.time,
            gate=self._space,
            places=self._places,
            commitment=self._commitments(settings),
            certificates=_certificates(settings),
            sockets=_sockets(settings),
        )

    def _commitments(self, settings: ListenerSettings) -> Commitments:
        return Commitments(self._database, self._store, settings.peers, clock=time.time)

    def change(self, settings: ListenerSettings) -> None:
        """Let other settings hold for the associations that begin when this has returned.

        Those that are open go on under the settings that they began with, but for the room on disk.
        """
        self._space.change(
            min_free_bytes=int(settings.disk.min_free_gib * _GIB),
            floor_bytes=int(settings.disk.floor_gib * _GIB),
        )
        # Before a new peer is admitted it has a place to be counted at.
        self._places.change(column=settings.column, limits=_limits(settings))
        self._acceptor.change(
            listen=settings.listen,
            peers=settings.peers,
            commitment=self._commitments(settings),
            certificates=_certificates(settings),
        )

    def _is_open(self, study_instance_uid: str) -> bool:
        with self._database.read() as tx:
            return index.is_receiving(tx, study_instance_uid)

    def start(self) -> None:
        self._acceptor.start()

    def stop(self, *, at_once: bool) -> None:
        """End the associations; each is reported as ended when this returns."""
        if at_once:
            self._acceptor.stop(grace_s=0)
        else:
            self._acceptor.stop()
        self._database.close()


def _places(settings: ListenerSettings) -> SharedPlaces:
    return SharedPlaces(
        Counts(settings.places, rows=settings.listen.processes, columns=settings.width),
        row=settings.number,
        column=settings.column,
        limits=_limits(settings),
    )


def _limits(settings: ListenerSettings) -> Limits:
    return Limits(
        total=settings.listen.max_associations,
        per_peer=settings.listen.max_associations_per_peer,
        of_peer={
            name: peer.max_associations
            for name, peer in settings.peers.items()
            if peer.max_associations is not None
        },
    )


def _certificates(settings: ListenerSettings) -> Certificates | None:
    return None if settings.secure is None else Certificates(settings.tls)


def _sockets(settings: ListenerSettings) -> Sockets:
    return Sockets(
        plain=socket.socket(fileno=settings.plain),
        secure=None if settings.secure is None else socket.socket(fileno=settings.secure),
    )


def main() -> int:
    """Receive until SIGTERM, or until the node is gone; returns the exit code."""
    log.configure(as_json=True)
    lines = _lines()
    first = next(lines, b"")
    if not first:
        return EXIT_FAILED
    settings = ListenerSettings.from_json(first)
    log.configure(**asdict(settings.log_style))
    end = Ending()
    end.on_signals()
    changes: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    _end_with_the_node(end, lines, changes)
    pipe = _Pipe(settings.facts)
    try:
        listener = _Listener(settings, pipe)
        # What is there now stays. To search all of it for garbage would hold up every sender.
        gc.freeze()
        listener.start()
        pipe.write(READY)
        _follow(changes, listener, pipe)
    except Misconfigured as error:
        pipe.write(refusal(error))
        return EXIT_MISCONFIGURED
    end.wait()
    # There is nobody to report to: what is going on cannot be acknowledged any more.
    listener.stop(at_once=os.getppid() != settings.node_pid)
    return 0


def _lines() -> Iterator[bytes]:
    """What the node says, line by line, until it is gone."""
    begun = b""
    while piece := os.read(_STDIN, _PIECE):
        *lines, begun = (begun + piece).split(b"\n")
        yield from lines


def _follow(changes: queue.SimpleQueue[bytes], listener: _Listener, pipe: _Pipe) -> None:
    """Take each change up, in a thread, and say so."""

    def follow() -> None:
        while True:
            line = changes.get()
            try:
                settings = ListenerSettings.from_json(line)
                listener.change(settings)
            except Exception:  # noqa: BLE001 - the edge: the node hears of no change that is none
                _log.exception("change not taken up")
            else:
                pipe.write(taken_up(settings))

    threading.Thread(target=follow, name="changes", daemon=True).start()


def _end_with_the_node(
    end: Ending, lines: Iterator[bytes], changes: queue.SimpleQueue[bytes]
) -> None:
    """Tell `end` when the node is gone: the kernel says so by a signal, standard input by its end.

    What the node says before goes to `changes`.

    The signal alone would miss a node that is gone already, and goes by the thread that started
    us; standard input alone would need a thread that gets its turn.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

    def watch() -> None:
        for line in lines:
            changes.put(line)
        end.tell()

    threading.Thread(target=watch, name="end of the node", daemon=True).start()


if __name__ == "__main__":
    code = EXIT_FAILED
    try:
        code = main()
    except Exception:  # noqa: BLE001 - the edge of the process; the node starts another one
        _log.exception("listener failed")
    # Not `sys.exit`: a thread that waits for a disk or a peer would keep the process, its sockets
    # and its places. All that was acknowledged has been handed over.
    os._exit(code)
