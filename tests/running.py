"""A whole node as its administrator runs it: `dicomnode up` on a file, in processes of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from dicomnode import config, inquiry, node
from dicomnode.errors import NodeError

ROOT = Path(__file__).resolve().parents[1]
HIPPOCAMPUS = ROOT / "models" / "hippocampus_mr_segmentation"
PROGRAM = [sys.executable, "-m", "dicomnode"]
LISTENER = "dicomnode.network.serving.listener_process"

_ASK_EVERY_S = 0.05

T = TypeVar("T")


def wait_for(ask: Callable[[], T | None], *, what: str, within_s: float = 120.0) -> T:
    """Ask until there is an answer that counts as true."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        answer = ask()
        if answer:
            return answer
        time.sleep(_ASK_EVERY_S)
    raise AssertionError(f"waited in vain for {what}")


class RunningNode:
    """A node with a folder of its own; `command` is "serve" for the receiving half alone.

    `options` are those of the program itself, such as `--verbose`.
    """

    def __init__(
        self, folder: Path, configuration: str, *, command: str = "up", options: Sequence[str] = ()
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.command = command
        self.options = options
        self.file = folder / "node.toml"
        self.file.write_text(configuration)
        self.log_file = folder / "node.log"
        self.configuration = config.load(self.file, {})
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        """What the node has said."""
        return self.log_file.read_text(errors="replace")

    @property
    def port(self) -> int:
        """Where it listens now."""
        return wait_for(
            lambda: node.listening(self.configuration.node.data_dir),
            what=f"a listening node; its log:\n{self.log}",
        )

    def start(self) -> None:
        """Start it, and return when it listens."""
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [*PROGRAM, *self.options, self.command, str(self.file)],
                stdout=log, stderr=log, env=_environment(),
            )  # fmt: skip
        self.wait_for_port()

    def wait_for_port(self) -> int:
        """Return once it listens."""
        return self.port

    def stop(self) -> int:
        """SIGTERM, as systemd would."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(60)

    def kill(self) -> None:
        """End everything at once, as a power cut would."""
        assert self._process is not None
        every = [self._process.pid, *descendants(self._process.pid)]
        for pid in every:
            # A listener ends by itself when its node is gone.
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        wait_for(lambda: not any(map(is_running, every)), what="the end of all processes")

    def end(self) -> None:
        """Leave nothing of it running, whatever is left of it."""
        if self._process is not None:
            if self._process.poll() is None:
                self.kill()
            self._process.wait()

    @property
    def pid(self) -> int:
        """The process that was started."""
        assert self._process is not None
        return self._process.pid

    def processes(self, *words: str) -> list[int]:
        """The process ids of this node's processes whose command line has all `words`."""
        return [
            pid
            for pid in descendants(self.pid)
            if set(words) <= set(command_line(pid))
            and not set(words) <= set(command_line(_parent(pid)))
        ]

    def process(self, *words: str) -> int:
        """The process id of the one process of this node whose command line has all `words`."""

        def find() -> int | None:
            found = self.processes(*words)
            return found[0] if len(found) == 1 else None

        return wait_for(find, what=f"the process {' '.join(words)}")

    def listeners(self, count: int = 1) -> list[int]:
        """The process ids of its listeners, once there are so many."""

        def find() -> list[int] | None:
            found = self.processes(LISTENER)
            return found if len(found) == count else None

        return wait_for(find, what=f"{count} listeners; the log of the node:\n{self.log}")

    def children_of(self, pid: int) -> list[int]:
        """The processes that `pid` forked."""
        return [child for child in descendants(pid) if _parent(child) == pid]

    def study(self, uid: str) -> dict[str, Any] | None:
        """What `dicomnode status STUDY --json` says, or `None` before anything is indexed."""
        run = subprocess.run(
            [*PROGRAM, "status", uid, "--config", str(self.file), "--json"],
            capture_output=True, check=False, env=_environment(),
        )  # fmt: skip
        return json.loads(run.stdout) if run.returncode == 0 else None

    def outcome(self, uid: str, *, within_s: float = 120.0) -> dict[str, Any]:
        """The study's document once nothing of it is in progress."""

        def ask() -> dict[str, Any] | None:
            try:
                found = inquiry.study(self.configuration, uid)
            except NodeError:  # not indexed yet, or the database is busy
                return None
            return found if found["outcome"] != "in progress" else None

        try:
            return wait_for(ask, what=f"the outcome of {uid}", within_s=within_s)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.study(uid)}\n{self.log}") from None


@contextmanager
def running(
    folder: Path, configuration: str, *, command: str = "up", options: Sequence[str] = ()
) -> Iterator[RunningNode]:
    """A node for the length of a block; whatever happens, nothing of it is left running."""
    made = RunningNode(folder, configuration, command=command, options=options)
    try:
        made.start()
        yield made
    finally:
        made.end()


def toml(
    *,
    pacs: Mapping[str, Any] | None = None,
    broker: str = "memory://",
    routes: str = "",
    models: Mapping[str, Path] | None = None,
    extra: str = "",
) -> str:
    """A configuration on 127.0.0.1 whose times are short."""
    bundles = models if models is not None else {"hippocampus": HIPPOCAMPUS}
    sections = [
        '[node]\nae_title = "DICOMNODE"\ndata_dir = "data"',
        '[listen]\nhost = "127.0.0.1"\nport = 0',
        f'[queue]\nbroker = "{broker}"',
        '[worker]\ndevice = "cpu"\nlease_s = 3',
        "[complete]\nsettle_s = 0.3\nquiet_s = 3",
        "[deliver]\nretry_s = 0.5\nretry_max_s = 2",
        '[peers.modality]\nae_title = "MODALITY"\nhost = "127.0.0.1"',
        *(f'[models.{name}]\nbundle = "{path}"' for name, path in bundles.items()),
        extra,
        routes,
    ]
    if pacs is not None:
        sections.insert(
            -2,
            f'[peers.pacs]\nae_title = "{pacs["ae_title"]}"\nhost = "127.0.0.1"\n'
            f"port = {pacs['port']}\n{pacs.get('more', PLAIN)}",
        )
    return "\n\n".join(section for section in sections if section) + "\n"


#: What a PACS is sent that gets the segmentation and the report alone.
PLAIN = "results.capture = false\nresults.regions = false"

HIPPOCAMPUS_ROUTE = """\
[[routes]]
name    = "hippocampus volumetry"
model   = "hippocampus"
series  = { Modality = "MR", SeriesDescription = "re:(?i)hippo.?crop", instances = ">=16" }
send_to = ["pacs"]
"""


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def descendants(pid: int) -> list[int]:
    """Every process below `pid`, children before their own children."""
    parents = {
        int(entry.name): _parent(int(entry.name))
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit()
    }
    found, front = [], [pid]
    while front:
        front = [child for child, parent in parents.items() if parent in front]
        found += front
    return found


def _parent(pid: int) -> int:
    try:
        # The name in brackets may hold anything; the fields after it do not.
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, ValueError):
        return 0


def is_running(pid: int) -> bool:
    """Whether the process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def command_line(pid: int) -> list[str]:
    """The words that a process was started with."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:
        return []
