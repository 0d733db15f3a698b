"""Kills a receiving node again and again while senders send, and counts what was lost.

    python tests/soak/kills.py --kills 200

Listener processes, and the whole of `dicomnode serve`, get SIGKILL at random moments; whoever
watches over them starts them again. At the end each instance whose success a sender saw has to be
there, byte for byte what was sent, with one row in the database.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent)]

from rich.console import Console  # noqa: E402 - found by the path above, as the rest
from rich.progress import track  # noqa: E402
from running import PROGRAM, ROOT, command_line, descendants, is_running, wait_for  # noqa: E402
from servers import free_port  # noqa: E402
from wire import raw  # noqa: E402
from wire.receiving import dataset_bytes  # noqa: E402

from dicomnode import node as receiving  # noqa: E402

_HOST, _CALLING, _CALLED = "127.0.0.1", "SOAK", "DICOMNODE"
_LISTENER = "dicomnode.network.serving.listener_process"
_CT = "1.2.840.10008.5.1.4.1.1.2"
_CONTEXT = raw.Context(id=1, abstract_syntax=_CT, transfer_syntaxes=(raw.EXPLICIT,))
_OUT_OF_RESOURCES = range(0xA700, 0xA800)
_TRY_AGAIN_S = 0.05
_READY_WITHIN_S = 120.0
_SHOWN = 20

_NODES = 0.3  # of the victims; the others are listeners

Whom = Literal["listener", "node"]

_CONFIGURATION = """\
[node]
ae_title = "{called}"
data_dir = "data"

[database]
url = "sqlite:///data/node.db"

[listen]
host = "{host}"
port = {port}
processes = {processes}

[complete]
settle_s = 0.2
quiet_s = 1

[peers.soak]
ae_title = "{calling}"
host = "{host}"
"""


class Served:
    """`dicomnode serve` under a watchman who starts it again whenever it has ended."""

    def __init__(self, folder: Path, *, processes: int) -> None:
        self.port = free_port()
        self.data_dir = folder / "data"
        self.log = folder / "node.log"
        self._file = folder / "node.toml"
        self._file.write_text(
            _CONFIGURATION.format(
                called=_CALLED, calling=_CALLING, host=_HOST, port=self.port, processes=processes
            )
        )
        self._is_over = threading.Event()
        self._process = self._started()
        self._watchman = threading.Thread(target=self._watch)
        self._watchman.start()

    def _started(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [*PROGRAM, "serve", str(self._file)],
                stdout=log, stderr=log, env={**os.environ, "PYTHONPATH": str(ROOT)},
            )  # fmt: skip

    def _watch(self) -> None:
        while not self._is_over.is_set():
            self._process.wait()
            if not self._is_over.is_set():
                self._process = self._started()

    @property
    def listeners(self) -> list[int]:
        """Its listener processes that run now."""
        below = descendants(self._process.pid)
        return [pid for pid in below if _LISTENER in command_line(pid) and is_running(pid)]

    def wait_until_it_listens(self) -> None:
        """Return once it takes associations."""
        wait_for(
            lambda: receiving.listening(self.data_dir), what="the node", within_s=_READY_WITHIN_S
        )

    def kill(self, whom: Whom, rng: random.Random) -> None:
        """SIGKILL one of the listeners as soon as there is one, or the node itself."""
        if whom == "node":
            self._process.kill()
            return
        listeners = wait_for(
            lambda: self.listeners, what="a listener process", within_s=_READY_WITHIN_S
        )
        with contextlib.suppress(ProcessLookupError):
            os.kill(rng.choice(listeners), signal.SIGKILL)

    def restart(self) -> None:
        """SIGTERM, and up again."""
        before = self._process
        before.terminate()
        before.wait(_READY_WITHIN_S)
        wait_for(lambda: self._process is not before, what="the watchman")
        self.wait_until_it_listens()

    def stop(self) -> int:
        """SIGTERM; returns how it ended."""
        self._is_over.set()
        process = self._process
        process.terminate()
        try:
            return process.wait(_READY_WITHIN_S)
        finally:
            process.kill()
            self._watchman.join()
            self._process.kill()  # another one, where the watchman was quicker
            self._process.wait()


@contextmanager
def served(folder: Path, *, processes: int) -> Iterator[Served]:
    """A watched node for the length of a block."""
    made = Served(folder, processes=processes)
    try:
        made.wait_until_it_listens()
        yield made
    finally:
        made.stop()


@dataclass(kw_only=True)
class Ledger:
    """What the senders have sent, and what they were told. Several threads write it.

    Attributes:
        sent: SOP Instance UID → digest of its data set.
        acknowledged: The UIDs that were answered with success.
        refused: Statuses that no sender should see.
    """

    sent: dict[str, str] = field(default_factory=dict)
    acknowledged: set[str] = field(default_factory=set)
    refused: list[str] = field(default_factory=list)


def dataset(sop_instance_uid: str, study_instance_uid: str, rng: random.Random) -> bytes:
    """A data set of chance length and content (Explicit VR Little Endian)."""

    def element(group: int, number: int, vr: bytes, value: bytes) -> bytes:
        tag = group.to_bytes(2, "little") + number.to_bytes(2, "little") + vr
        if vr == b"OW":
            return tag + bytes(2) + len(value).to_bytes(4, "little") + value
        return tag + len(value).to_bytes(2, "little") + value

    return b"".join(
        (
            element(0x0008, 0x0016, b"UI", raw.uid(_CT)),
            element(0x0008, 0x0018, b"UI", raw.uid(sop_instance_uid)),
            element(0x0008, 0x0060, b"CS", b"CT"),
            element(0x0010, 0x0020, b"LO", b"SOAK"),
            element(0x0020, 0x000D, b"UI", raw.uid(study_instance_uid)),
            element(0x0020, 0x000E, b"UI", raw.uid(f"{study_instance_uid}.1")),
            element(0x7FE0, 0x0010, b"OW", rng.randbytes(2 * rng.randrange(1, 40_000))),
        )
    )


class Sender(threading.Thread):
    """Sends studies of its own without pause, until it is told to stop."""

    def __init__(self, number: int, *, port: int, ledger: Ledger, seed: int) -> None:
        super().__init__(name=f"sender {number}")
        self._number = number
        self._port = port
        self._ledger = ledger
        self._rng = random.Random(f"{seed}/{number}")
        self._is_over = threading.Event()
        self._studies = self._instances = 0
        self._again: tuple[str, bytes] | None = None

    def stop(self) -> None:
        """End the association that is open, and then the thread."""
        self._is_over.set()

    def run(self) -> None:
        """Associate, send, and do so again whatever happens to the other side."""
        while not self._is_over.is_set():
            self._studies += 1
            try:
                with raw.Speaker(self._port, [_CONTEXT], calling=_CALLING, called=_CALLED) as to:
                    for _ in range(self._rng.randrange(1, 80)):
                        self._send_one(to)
                        if self._is_over.is_set():
                            break
                    to.release()
            except (OSError, ValueError):
                time.sleep(_TRY_AGAIN_S)

    def _send_one(self, to: raw.Speaker) -> None:
        uid, content = self._again or self._next()
        # As a PACS does: what got no answer is sent again, most times.
        self._again = (uid, content) if self._rng.random() < 0.8 else None
        answer = to.store(_CONTEXT, uid, content)
        status = raw.number(answer, raw.STATUS)
        if status == 0:
            self._ledger.acknowledged.add(uid)
            self._again = None
        elif status not in _OUT_OF_RESOURCES:
            self._ledger.refused.append(f"{uid}: {status:04X}")

    def _next(self) -> tuple[str, bytes]:
        self._instances += 1
        study = f"1.2.3.{self._number}.{self._studies}"
        uid = f"{study}.1.{self._instances}"
        content = dataset(uid, study, self._rng)
        self._ledger.sent[uid] = hashlib.sha256(content).hexdigest()
        return uid, content


@dataclass(frozen=True, kw_only=True)
class Report:
    """How a soak ended. `lost` are UIDs, `faults` sentences."""

    kills: Counter[Whom]
    acknowledged: int
    lost: tuple[str, ...]
    faults: tuple[str, ...]

    def __str__(self) -> str:
        kills = ", ".join(f"{count} of a {whom}" for whom, count in sorted(self.kills.items()))
        return (
            f"{len(self.lost)} lost of {self.acknowledged} acknowledged "
            f"in {self.kills.total()} kills ({kills})"
        )


def soak(
    folder: Path,
    *,
    kills: int,
    seed: int,
    senders: int = 4,
    processes: int = 2,
    progress: Callable[[range], Iterator[int]] = iter,
) -> Report:
    """Send and kill; then look at what is left."""
    ledger, rng = Ledger(), random.Random(seed)
    victims: list[Whom] = ["node" if rng.random() < _NODES else "listener" for _ in range(kills)]
    with served(folder, processes=processes) as node:
        sending = [
            Sender(number, port=node.port, ledger=ledger, seed=seed)
            for number in range(1, senders + 1)
        ]
        for sender in sending:
            sender.start()
        try:
            for number in progress(range(kills)):
                _wait_for_a_bad_moment(ledger, rng)
                node.kill(victims[number], rng)
            _wait_for_more(ledger)
        finally:
            for sender in sending:
                sender.stop()
            for sender in sending:
                sender.join()
        faults = [*ledger.refused, *_settled(node)]
        node.restart()
        faults += [f"left in incoming: {path.name}" for path in _incoming(node)]
        if code := node.stop():
            faults.append(f"the node ended with {code}")
    lost, further = _compared(node.data_dir, ledger)
    return Report(
        kills=Counter(victims),
        acknowledged=len(ledger.acknowledged),
        lost=tuple(lost),
        faults=(*faults, *further),
    )


def _wait_for_a_bad_moment(ledger: Ledger, rng: random.Random) -> None:
    """Mostly a moment at which instances come in; now and then one while the node starts."""
    if rng.random() < 0.8:
        _wait_for_more(ledger)
    time.sleep(rng.uniform(0.0, 0.5))


def _wait_for_more(ledger: Ledger) -> None:
    before = len(ledger.acknowledged)
    wait_for(
        lambda: len(ledger.acknowledged) > before,
        what="an acknowledged instance",
        within_s=_READY_WITHIN_S,
    )


def _settled(node: Served) -> list[str]:
    """Wait until every association in the database has ended."""
    database = node.data_dir / "node.db"
    unended = "SELECT count(*) FROM association WHERE ended_at IS NULL"
    try:
        wait_for(lambda: _rows(database, unended) == [(0,)], what="the end of all associations")
    except AssertionError:
        return [f"associations never ended: {_rows(database, unended)[0][0]}"]
    return []


def _incoming(node: Served) -> list[Path]:
    return list((node.data_dir / "incoming").iterdir())


def _rows(database: Path, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(database, timeout=60)) as connection:
        return connection.execute(query).fetchall()


def _compared(data_dir: Path, ledger: Ledger) -> tuple[list[str], list[str]]:
    """What was acknowledged and is not there as it was sent; and what else is not as it should."""
    files = {path.stem: path for path in (data_dir / "instances").rglob("*.dcm")}
    intact = {
        uid
        for uid, path in files.items()
        if hashlib.sha256(dataset_bytes(path)).hexdigest() == ledger.sent.get(uid)
    }
    lost = sorted(ledger.acknowledged - intact)
    rows = _rows(data_dir / "node.db", "SELECT sop_instance_uid, path FROM instance")
    indexed = [str(uid) for uid, _path in rows]
    faults = [f"{uid} is kept and not what was sent" for uid in files.keys() - intact]
    faults += [f"{uid} is kept and has no row" for uid in files.keys() - set(indexed)]
    faults += [f"{uid} has a row and no file" for uid in set(indexed) - files.keys()]
    if len(indexed) != len(set(indexed)):
        faults.append(f"{len(indexed) - len(set(indexed))} instances have more than one row")
    faults += [
        f"{uid}: its row names {path}"
        for uid, path in rows
        if str(uid) in files and data_dir / str(path) != files[str(uid)]
    ]
    return lost, faults


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--senders", type=int, default=4)
    parser.add_argument("--processes", type=int, default=2, help="listener processes")
    parser.add_argument("--on", type=Path, help="folder for what is received")
    return parser.parse_args()


def main() -> int:
    """0 when nothing was lost and nothing else was wrong, otherwise 1."""
    options, out = _options(), Console(stderr=True)
    folder = Path(tempfile.mkdtemp(prefix="dicomnode-kills-", dir=options.on))
    report = soak(
        folder,
        kills=options.kills,
        seed=options.seed,
        senders=options.senders,
        processes=options.processes,
        progress=lambda numbers: track(numbers, description="kills", console=out),
    )
    for fault in (*report.lost, *report.faults)[:_SHOWN]:
        out.print(fault, markup=False)
    out.print(str(report), markup=False)
    if report.lost or report.faults:
        out.print(f"{len(report.faults)} faults; everything is still in {folder}", markup=False)
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
