"""Puts spoilt conversations to a receiver in a process of its own, and says what went wrong.

    python tests/soak/fuzz.py --cases 100000

A fault names its case: `--first NUMBER --cases 1` puts that one alone.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent)]

from rich.console import Console  # noqa: E402 - found by the path above, as the rest
from rich.progress import track  # noqa: E402
from wire import fuzzing  # noqa: E402
from wire.receiving import Listen, Peer, Receiver  # noqa: E402
from wire.trial import Counts, Trial, counted, peak_memory_kib  # noqa: E402

from dicomnode import log  # noqa: E402

_BATCH = 1000
_SHOWN = 20
_SHARED_MEMORY = Path("/dev/shm")


def serve(data_dir: Path, reactor: str) -> None:
    """Receive; for each line on standard input say what has been reported so far."""
    log.configure(level="error", as_json=True, strict=True)  # what is turned away is expected
    listen = Listen(reactor=reactor, max_associations_per_peer=256, idle_s=60.0)
    receiver = Receiver(data_dir, listen=listen, peers={"ct1": Peer(ae_title="CT1")})
    receiver.acceptor.start()
    _say({"port": receiver.port})
    for _line in sys.stdin:
        _say(asdict(counted(receiver)))
    receiver.acceptor.stop(grace_s=0)


def _say(document: dict[str, int]) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


@dataclass(kw_only=True)
class Process:
    """A receiver in a process of its own."""

    process: subprocess.Popen[str]
    data_dir: Path
    port: int = 0

    @property
    def pid(self) -> int:
        """Its process."""
        return self.process.pid

    def counts(self) -> Counts:
        """What it says that it has reported."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return Counts(**self.said())

    def said(self) -> dict[str, int]:
        """The next line of it."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the receiver has ended with {self.process.wait()}")
        return dict(json.loads(line))


@contextmanager
def receiving(folder: Path, reactor: str) -> Iterator[Process]:
    """A receiver for the length of a block; its log is `receiver.log`."""
    command = [sys.executable, __file__, "--serve", str(folder / "data"), "--reactor", reactor]
    with (folder / "receiver.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
        )
    made = Process(process=process, data_dir=folder / "data")
    try:
        made.port = made.said()["port"]
        yield made
    finally:
        process.kill()
        process.wait()


def fuzz(options: argparse.Namespace, out: Console) -> list[str]:
    """Put all cases; returns what went wrong."""
    with (
        tempfile.TemporaryDirectory(dir=options.on) as folder,
        receiving(Path(folder), options.reactor) as target,
    ):
        began, before = time.monotonic(), peak_memory_kib(target.pid)
        trial = Trial(target, parallel=options.parallel)
        batches = range(options.first, options.first + options.cases, _BATCH)
        for first in track(batches, description="cases, in thousands", console=out):
            count = min(_BATCH, options.first + options.cases - first)
            trial.run(fuzzing.cases(count, seed=options.seed, first=first))
            if len(trial.faults) > _SHOWN:
                break
        took_s = time.monotonic() - began
        out.print(
            f"{options.reactor}: {options.cases} cases in {took_s:.0f} s, "
            f"{trial.acknowledged} instances acknowledged, "
            f"{(peak_memory_kib(target.pid) - before) // 1024} MiB more memory at most"
        )
        trial.faults += complaints(Path(folder) / "receiver.log")
    return trial.faults


def complaints(log_file: Path) -> list[str]:
    """Each kind of error that a receiver has logged, once, with its number."""
    kinds: Counter[str] = Counter()
    for line in log_file.read_text(errors="replace").splitlines():
        try:
            said = json.loads(line)
        except ValueError:
            continue  # a library's warning
        lines = str(said.get("exception", "")).splitlines()
        error = lines[-1].partition(":")[0] if lines else ""
        frames = [line.strip() for line in lines if line.startswith("  File ")]
        ours = [frame for frame in frames if "/site-packages/" not in frame]
        kinds["; ".join(filter(None, (said["event"], error, *ours[-1:], *frames[-1:])))] += 1
    return [f"logged {count} times: {kind}" for kind, count in kinds.most_common()]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--parallel", type=int, default=8, help="connections at once")
    parser.add_argument("--reactor", choices=("streaming", "stock"), default="streaming")
    parser.add_argument(
        "--on",
        type=Path,
        default=_SHARED_MEMORY if os.access(_SHARED_MEMORY, os.W_OK) else None,
        help="folder for what is received; by default memory, as this is not about the disk",
    )
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    """0 when nothing went wrong, otherwise 1."""
    options = _options()
    if options.serve:
        serve(options.serve, options.reactor)
        return 0
    out = Console(stderr=True)
    faults = fuzz(options, out)
    for fault in faults[:_SHOWN]:
        out.print(fault, markup=False)
    out.print(f"{len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
