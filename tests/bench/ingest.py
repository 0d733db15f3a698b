"""How fast the node receives, beside DCMTK's storescp, plain pynetdicom and Orthanc.

    python tests/bench/ingest.py                        everything: about an hour
    python tests/bench/ingest.py --quick                the same in small: a few minutes
    python tests/bench/ingest.py --only ours storescp --loads ct --on /dev/shm
    python tests/bench/ingest.py --beside-idle 200      ours, alone and with 200 idle associations

One machine's disk may be twice as slow a minute later: the receivers take turns, round by round,
and each ratio is the median over the rounds. Each starts anew, in a fresh folder. The sender is
DCMTK's storescu. The node syncs each instance before it answers; storescp and pynetdicom sync
nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent)]

from bench import loads, machine  # noqa: E402 - found by the path above, as the rest
from bench.loads import Load  # noqa: E402
from bench.receivers import CALLED, HOST, LONGEST_PDU, Ours, Receiver, Running, every  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402
from running import descendants  # noqa: E402
from wire import raw  # noqa: E402

_SENDER = ["/usr/bin/storescu", "--max-pdu", str(LONGEST_PDU), "+sd", "+r", "-aec", CALLED, HOST]
_SETTLE_S = 0.5
_LOOK_EVERY_S = 0.1
_SPARE = 1.2  # files take more than their pixels, and the disk is not to be full
_MIB = 2**20
_IDLE_CONTEXT = raw.Context(
    id=1, abstract_syntax=raw.VERIFICATION, transfer_syntaxes=(raw.IMPLICIT,)
)


@dataclass(frozen=True, kw_only=True)
class Round:
    """One measurement.

    Attributes:
        seconds: From the start of the senders to the end of the last.
        memory_kib: By how much the largest process of the receiver grew meanwhile.
        fault: Why it does not count; "" when all arrived.
    """

    load: str
    instances: int
    bytes: int
    associations: int
    receiver: str
    number: int
    seconds: float
    memory_kib: int
    fault: str


class Bench:
    """All rounds, in a folder that goes at the end."""

    def __init__(self, folder: Path, *, rounds: int, out: Console) -> None:
        self.rounds: list[Round] = []
        self._folder = folder
        self._most = rounds
        self._out = out
        self._runs = 0
        # To delete many files slows a disk down for seconds after: that waits until the end. Memory
        # is not slowed down, and there is less of it.
        self._deletes_at_once = machine.file_system(folder).kind == "tmpfs"

    def require_room(self, chosen: Sequence[Load], receivers: int) -> None:
        """End the program, with a sentence, where the disk is too small for all of it."""
        most = [
            load.bytes(associations) * (1 + receivers * self._rounds_of(load))
            for load in chosen
            for associations in load.associations
        ]
        largest = max(load.bytes(count) for load in chosen for count in load.associations)
        needed = largest * 3 if self._deletes_at_once else sum(most)
        free = shutil.disk_usage(self._folder).free
        if free < _SPARE * needed:
            sys.exit(
                f"{_SPARE * needed / 2**30:.0f} GiB are needed and {free / 2**30:.0f} are free: "
                "choose fewer --rounds, --only some receivers, or another disk with --on"
            )

    def _rounds_of(self, load: Load) -> int:
        return min(self._most, load.rounds or self._most)

    def measure(
        self, load: Load, receivers: Sequence[Receiver], *, idle: Sequence[int] = (0,)
    ) -> None:
        """Measure one load with each receiver, in turns; with each number of idle associations."""
        for associations in load.associations:
            source = self._folder / f"{load.name}-{associations}"
            self._out.log(
                f"{load.name}: writing {load.described(associations)} "
                f"for {associations} associations"
            )
            folders = loads.written(load, associations, source)
            turns = [
                (receiver, count)
                for receiver in receivers
                for count in idle
                if associations in receiver.is_for
            ]
            for number in range(self._rounds_of(load)):
                loads.read_once(folders)
                for receiver, count in turns[number % len(turns) :] + turns[: number % len(turns)]:
                    self._measure_once(load, folders, receiver, number=number, idle=count)
            if self._deletes_at_once:
                shutil.rmtree(source)

    def _measure_once(
        self, load: Load, folders: Sequence[Path], receiver: Receiver, *, number: int, idle: int
    ) -> None:
        self._runs += 1
        folder = self._folder / f"run-{self._runs}"
        folder.mkdir()
        with receiver.running(folder) as running, _idle(running, idle):
            os.sync()
            time.sleep(_SETTLE_S)
            with _watched(running.pid) as grown:
                began = time.perf_counter()
                codes = _sent(folders, running.port)
                seconds = time.perf_counter() - began
            arrived = running.count()
        is_whole = not any(codes) and arrived == load.over(len(folders))
        self.rounds.append(
            Round(
                load=load.name,
                instances=load.over(len(folders)),
                bytes=load.bytes(len(folders)),
                associations=len(folders),
                receiver=receiver.name + (f", beside {idle} idle" if idle else ""),
                number=number,
                seconds=seconds,
                memory_kib=max(grown.values(), default=0),
                fault="" if is_whole else f"{arrived} arrived, storescu ended with {codes}",
            )
        )
        done = self.rounds[-1]
        self._out.log(
            f"{done.load}, {done.associations} associations, round {number + 1}: "
            f"{done.receiver} {seconds:.2f} s {done.fault}"
        )
        if self._deletes_at_once:
            shutil.rmtree(folder)


def _sent(folders: Sequence[Path], port: int) -> list[int]:
    """Send each folder over an association of its own, all at once; how each sender ended."""
    environment = {**os.environ, "TCP_NODELAY": "1"}
    senders = [
        subprocess.Popen(
            [*_SENDER, str(port), str(folder)],
            env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        for folder in folders
    ]  # fmt: skip
    return [sender.wait() for sender in senders]


@contextmanager
def _idle(running: Running, count: int) -> Iterator[None]:
    """Associations that are open and say nothing."""
    with ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(
                raw.Speaker(running.port, [_IDLE_CONTEXT], calling="IDLE", called=CALLED)
            )
        yield


@contextmanager
def _watched(pid: int) -> Iterator[dict[int, int]]:
    """Process → by how many KiB its peak exceeds what it had resident when it was first seen."""
    grown: dict[int, int] = {}
    first: dict[int, int] = {}
    is_over = threading.Event()

    def look() -> None:
        for one in (pid, *descendants(pid)):
            resident, peak = machine.memory_kib(one)
            first.setdefault(one, resident)
            grown[one] = max(grown.get(one, 0), peak - first[one])

    def watch() -> None:
        while not is_over.wait(_LOOK_EVERY_S):
            look()

    for one in (pid, *descendants(pid)):
        machine.forget_peak(one)
    look()
    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield grown
    finally:
        is_over.set()
        watching.join()
        look()


def table(rounds: Sequence[Round], *, title: str) -> Table:
    """Median, spread and ratio of each receiver at each load."""
    made = Table(title=title, title_justify="left", caption_justify="left", caption=(
        "first/this: how many times as fast as this one the first of its load is; the median over "
        "the rounds of the quotients within a round. memory: by how much the largest process grew, "
        "the most of all rounds."
    ))  # fmt: skip
    for heading in ("load", "over", "receiver"):
        made.add_column(heading)
    for heading in ("median s", "from … to", "MiB/s", "instances/s", "first/this", "memory MiB"):
        made.add_column(heading, justify="right")
    for (load, associations), group in _grouped(rounds, "load", "associations"):
        by_receiver = _grouped(group, "receiver")
        first = {one.number: one.seconds for one in by_receiver[0][1]}
        for (receiver,), own in by_receiver:
            seconds = [one.seconds for one in own]
            middle = median(seconds)
            ratio = median(one.seconds / first[one.number] for one in own)
            made.add_row(
                f"{load}: {own[0].instances:,} instances",
                str(associations),
                receiver,
                f"{middle:.2f}",
                f"{min(seconds):.2f} … {max(seconds):.2f}",
                f"{own[0].bytes / _MIB / middle:,.0f}",
                f"{own[0].instances / middle:,.0f}" if own[0].instances > 1 else "",
                f"{ratio:.2f}",
                f"{max(one.memory_kib for one in own) / 1024:,.0f}",
            )
        made.add_section()
    return made


def _grouped(rounds: Sequence[Round], *keys: str) -> list[tuple[tuple[object, ...], list[Round]]]:
    groups: dict[tuple[object, ...], list[Round]] = {}
    for one in sorted(rounds, key=lambda one: one.number):
        groups.setdefault(tuple(getattr(one, key) for key in keys), []).append(one)
    return list(groups.items())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small loads, two rounds")
    parser.add_argument("--rounds", type=int, help="turns of each receiver; 5, or 2 if quick")
    parser.add_argument(
        "--only", nargs="+", metavar="RECEIVER",
        help="names of receivers; the first is what the others are compared with",
    )  # fmt: skip
    parser.add_argument(
        "--loads", nargs="+", choices=[load.name for load in loads.FULL], help="names of loads"
    )
    parser.add_argument("--associations", type=int, nargs="+", choices=(1, 8), default=(1, 8))
    parser.add_argument("--on", type=Path, help="folder whose disk is used; /dev/shm is memory")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write every round")
    parser.add_argument(
        "--beside-idle", type=int, metavar="N", help="ours alone, without and with N idle ones"
    )
    parser.add_argument("--list", action="store_true", help="name the receivers, and end")
    return parser.parse_args()


def _chosen(options: argparse.Namespace) -> tuple[list[Receiver], list[Load]]:
    receivers = list(every(max(2, os.cpu_count() or 2)))
    by_name = {receiver.name: receiver for receiver in receivers}
    if options.beside_idle:
        receivers = [one for one in receivers if isinstance(one, Ours) and one.name == "ours"]
    elif options.only:
        if unknown := set(options.only) - by_name.keys():
            sys.exit(f"no such receiver: {', '.join(sorted(unknown))}; see --list")
        receivers = [by_name[name] for name in options.only]
    chosen = [
        replace(load, associations=_both(load.associations, options.associations))
        for load in (loads.QUICK if options.quick else loads.FULL)
        if not options.loads or load.name in options.loads
    ]
    return receivers, [load for load in chosen if load.associations]


def _both(these: Sequence[int], those: Sequence[int]) -> tuple[int, ...]:
    return tuple(sorted(set(these) & set(those)))


def main() -> int:
    """0 when every instance of every round arrived, otherwise 1."""
    options, out = _options(), Console(stderr=True)
    receivers, chosen = _chosen(options)
    if options.list:
        out.print("\n".join(receiver.name for receiver in receivers), markup=False)
        return 0
    rounds = options.rounds or (2 if options.quick else 5)
    with tempfile.TemporaryDirectory(prefix="dicomnode-bench-", dir=options.on) as folder:
        made = Bench(Path(folder), rounds=rounds, out=out)
        idle = (0, options.beside_idle) if options.beside_idle else (0,)
        made.require_room(chosen, len(receivers) * len(idle))
        about = machine.described(Path(folder))
        for load in chosen:
            made.measure(load, receivers, idle=idle)
        out.log("deleting what was received")
    Console(width=140).print(table(made.rounds, title="\n".join(about)))
    if options.json:
        document = {"machine": about, "rounds": [asdict(one) for one in made.rounds]}
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    faults = [one for one in made.rounds if one.fault]
    for one in faults:
        out.print(f"{one.load}, {one.receiver}: {one.fault}", markup=False)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
