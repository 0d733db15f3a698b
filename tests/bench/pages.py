"""How long the page takes with many studies, while images arrive: p50 and p95 in milliseconds.

    python tests/bench/pages.py [--studies 100000] [--postgres] [--rounds 30] [--arriving 100]

A node runs as it does in a hospital, its rows in SQLite or PostgreSQL. Its database is filled with
ten instances for each study; then a modality sends it CT images at a steady pace, and each page is
asked for as a browser does, over HTTP, one request at a time. What is asked is varied, so that no
answer is the one before.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import httpx2
import paged
import running
import servers
from bench import arrivals, many_studies
from bench.many_studies import FAMILIES, GIVEN, SPAN_S, arrived_at, count, uid_of
from running import RunningNode

from dicomnode import node
from dicomnode.archive.access import people
from dicomnode.archive.access.people import Role
from dicomnode.archive.database import Database
from dicomnode.web import passwords

#: No page may take longer than this, 19 times of 20.
LIMIT_MS = 200.0
_PAGE_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Arrived:
    """What came while pages were asked for.

    Attributes:
        a_second: Images that were acknowledged, for each second.
        behind: Images that were acknowledged and not indexed, when the last page had answered.
    """

    sent: int
    a_second: float
    behind: int


def pages_asked(studies: int, dice: random.Random, *, now: float) -> dict[str, Callable[[], str]]:
    """Name → the address that is asked for, another one each time."""

    def some() -> int:
        return dice.randrange(studies)

    def day() -> str:
        at = now - dice.random() * SPAN_S
        return time.strftime("%Y-%m-%d", time.localtime(at))

    def deep() -> str:
        number = some()
        return f"/studies?older={arrived_at(number, studies, now=now)!r}_{uid_of(number)}"

    return {
        "list": lambda: "/studies-list",
        "list, whole page": lambda: "/studies",
        "list, far back": deep,
        "list, failed": lambda: "/studies?outcome=failed",
        "list, in progress and CT": lambda: "/studies?outcome=in+progress&modality=CT",
        "list, modality of none": lambda: "/studies?modality=NM",
        "list, one day": lambda: f"/studies?from={(one := day())}&to={one}",
        "search, patient ID": lambda: f"/studies?q=p{some() % (studies // 3):07}",
        "search, family name": lambda: f"/studies?q={dice.choice(FAMILIES)}",
        "search, whole name": lambda: f"/studies?q={dice.choice(FAMILIES)}+{dice.choice(GIVEN)}",
        "search, one letter": lambda: f"/studies?q={dice.choice('abcdefghijklmnopqrstuvwxyz')}",
        "search, accession number": lambda: f"/studies?q=A{some():08}",
        "search, beginning of a UID": lambda: "/studies?q=1.2.826.0.1.3680043",
        "search, one UID": lambda: f"/studies?q={uid_of(some())}",
        "search, nothing like it": lambda: f"/studies?q=zz{some()}",
        "search, name and failed": lambda: f"/studies?outcome=failed&q={dice.choice(FAMILIES)}",
        "one study": lambda: f"/studies/{uid_of(some())}",
        "accounting": lambda: "/accounting",
        "models": lambda: "/models",
        "peers": lambda: "/peers",
        "workers": lambda: "/workers",
        "audit": lambda: "/audit",
        "metrics": lambda: "/metrics",
    }


def measure(
    browser: httpx2.Client,
    asked: dict[str, Callable[[], str]],
    *,
    rounds: int,
    say: Callable[[str], None],
) -> dict[str, dict[str, float]]:
    """Page → its p50 and p95 in milliseconds, after one round that is not counted."""
    found = {}
    for name, address in asked.items():
        taken = []
        for _ in range(rounds + 1):
            path = address()
            began = time.perf_counter()
            answer = browser.get(path)
            taken.append(1000 * (time.perf_counter() - began))
            assert answer.status_code == 200, (path, answer.status_code)
        cuts = statistics.quantiles(taken[1:], n=20, method="inclusive")
        found[name] = {"p50_ms": round(cuts[9], 1), "p95_ms": round(cuts[18], 1)}
        mark = "" if cuts[18] < LIMIT_MS else "   over the limit"
        say(f"{name:30} {cuts[9]:8.1f} {cuts[18]:8.1f}{mark}")
    return found


@contextlib.contextmanager
def database_url(*, postgres: bool) -> Iterator[str | None]:
    """Where the rows are; `None` for an SQLite file beside the rest."""
    if not postgres:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="dicomnode-postgres-") as directory:
        server = servers.Postgres(Path(directory))
        server.start()
        try:
            with server.database() as url:
                yield url
        finally:
            server.stop()


@contextlib.contextmanager
def serving(folder: Path, *, url: str | None) -> Iterator[tuple[RunningNode, Database]]:
    """A node that receives and shows, with an administrator; and its database."""
    text = running.toml(
        pacs={"ae_title": "PACS", "port": servers.free_port()},
        routes=running.HIPPOCAMPUS_ROUTE,
        extra="[web]\nport = 0" + (f'\n[database]\nurl = "{url}"' if url else ""),
    )
    with running.running(folder, text, command="serve") as made:
        database = Database(made.configuration.database.url)
        try:
            with database.write() as tx:
                people.add(
                    tx, "administrator", role=Role.ADMINISTRATOR,
                    password_hash=passwords.hashed(paged.PASSWORD), at=time.time(),
                )  # fmt: skip
            yield made, database
        finally:
            database.close()


@contextlib.contextmanager
def signed_in(to: RunningNode) -> Iterator[httpx2.Client]:
    """A browser of sorts that the administrator has signed in with."""
    port = node.page_of(to.configuration.node.data_dir)
    with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=_PAGE_S) as browser:
        assert paged.sign_in(browser, "administrator").status_code == 303
        yield browser


@contextlib.contextmanager
def arriving(to: RunningNode, *, a_second: float, side: int) -> Iterator[subprocess.Popen[str]]:
    """A modality that sends meanwhile, from a process of its own."""
    command = [
        sys.executable, arrivals.__file__, str(to.port),
        "--a-second", str(a_second), "--side", str(side),
    ]  # fmt: skip
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as sender:
        try:
            yield sender
        finally:
            sender.kill()


def arrived(sender: subprocess.Popen[str], database: Database, *, before: int) -> Arrived:
    """Let the sender end, and count what has come of it."""
    with database.read() as tx:
        indexed = count(tx, "instance") - before
    said, _ = sender.communicate()
    if sender.returncode != 0:
        sys.exit("The modality ended early; see above.")
    told = json.loads(said)
    return Arrived(
        sent=told["sent"],
        a_second=round(told["sent"] / told["seconds"], 1),
        behind=max(0, told["sent"] - indexed),
    )


def main() -> None:
    """Measure, and print a table, or with --json one document."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--arriving", type=float, default=100.0, help="images a second; 0: none")
    parser.add_argument("--side", type=int, default=512, help="rows and columns of an image")
    parser.add_argument("--postgres", action="store_true")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()

    def say(line: str) -> None:
        stream = sys.stderr if asked.json else sys.stdout
        stream.write(f"{line}\n")
        stream.flush()

    with (
        tempfile.TemporaryDirectory() as folder,
        database_url(postgres=asked.postgres) as url,
        serving(Path(folder) / "node", url=url) as (made, database),
    ):
        document = _measured(made, database, asked, say)
    if asked.json:
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
    sys.exit(any(one["p95_ms"] >= LIMIT_MS for one in document["pages"].values()))


def _measured(
    made: RunningNode, database: Database, asked: argparse.Namespace, say: Callable[[str], None]
) -> dict[str, Any]:
    now = time.time()
    many_studies.fill(database, asked.studies, now=now)
    with database.read() as tx:
        rows = {one: count(tx, one) for one in ("study", "instance", "job", "event")}
    kind = "PostgreSQL" if asked.postgres else "SQLite"
    say(f"{kind}: " + ", ".join(f"{number} rows of {name}" for name, number in rows.items()))
    say(f"{'page':30} {'p50 ms':>8} {'p95 ms':>8}")
    addresses = pages_asked(asked.studies, random.Random(2), now=now)
    with contextlib.ExitStack() as stack:
        sender = None
        if asked.arriving:
            sender = stack.enter_context(arriving(made, a_second=asked.arriving, side=asked.side))
        browser = stack.enter_context(signed_in(made))
        found = measure(browser, addresses, rounds=asked.rounds, say=say)
        came = sender and arrived(sender, database, before=rows["instance"])
    if came:
        say(f"{came.sent} images came meanwhile, {came.a_second} a second; {came.behind} behind")
    return {"database": kind, "rows": rows, "arrived": came and vars(came), "pages": found}


if __name__ == "__main__":
    main()
