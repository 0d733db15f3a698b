"""A whole day: a thousand studies and every fault through a real node, with two workers.

While they come, a listener and a worker are killed and the destination goes away for a while. The
accounting is asked all the time. In the end every study is what the plan says that it must be, and
not a word of a patient stands in any log.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import gate
import httpx2
import paged
import pydicom
import pytest
import running
from pydicom import Dataset
from pynetdicom.dsutils import encode
from running import PROGRAM, ROOT, RunningNode, command_line, descendants
from searched import Searched, spoken
from servers import Orthanc, Postgres, RedisServer
from sqlalchemy import Connection, Row, func, select
from wire.receiving import dataset_bytes

from dicomnode import node
from dicomnode.archive import tables
from dicomnode.archive.access import people
from dicomnode.archive.access.people import Role
from dicomnode.archive.asked import accounts
from dicomnode.archive.database import Database
from dicomnode.archive.studies import outcomes
from dicomnode.job import DeliveryState, JobState
from dicomnode.network.calling.sender import Destination
from dicomnode.simulation import day, hospital, objects
from dicomnode.simulation.account import Account, Answer
from dicomnode.simulation.hospital import Kind
from dicomnode.simulation.planned import Arrival, Content, Day, Fault, Item, Study
from dicomnode.simulation.traffic import Pace, Traffic
from dicomnode.web import passwords

STUDIES, SEED = 990, 20
REQUEST = day.Request(studies=STUDIES, seed=SEED)
#: Ten more for the models, whose last objects come when the rest has long been answered.
STRAGGLING = hospital.GENERAL.model_copy(
    update={
        "stations": tuple(
            one for one in hospital.GENERAL.stations if one.makes in {Kind.CT, Kind.MR}
        ),
        "faults": hospital.Faults(**dict.fromkeys(hospital.Faults.model_fields, 0.0) | {"late": 1}),
        "crowd": 0,
        "echoes": 0,
    }
)
STRAGGLERS = day.Request(studies=10, seed=SEED)
FEWEST_SLICES = 8
WORKERS = 2
DELIVERIES = 5  # confirmed before the destination goes away, and put off before it is back
WITHIN_S = 900.0

ROUTES = f"""\
[[routes]]
name    = "chest"
model   = "ct"
series  = {{ SeriesDescription = "re:^Thorax axial", instances = ">={FEWEST_SLICES}" }}
send_to = ["pacs"]

[[routes]]
name    = "head"
model   = "mr"
series  = {{ Modality = "MR", instances = ">={FEWEST_SLICES}" }}
send_to = ["pacs"]
priority = "stat"

[[routes]]
name    = "hands"
model   = "ct"
series  = {{ Modality = "CR" }}
send_to = ["pacs"]
"""


def predicted(study: Study) -> str | None:
    """What must become of a study in the end; `None` for one of which nothing arrives."""
    if study.arrival is Arrival.NOTHING:
        return None
    has_volume = any(series.content is Content.SLICE for series in study.series)
    if not has_volume or study.arrival is Arrival.HALF:
        return "not applicable"
    return "delivered" if study.arrival is Arrival.WHOLE else "failed"


@dataclass(kw_only=True)
class Hospital:
    """A node with two workers and a page, and the destination of its results."""

    node: RunningNode
    orthanc: Orthanc
    folder: Path
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    stack: ExitStack = field(default_factory=ExitStack)

    def connect(self) -> Database:
        """A way of its own to the rows."""
        opened = Database(self.node.configuration.database.url)
        self.stack.callback(opened.close)
        return opened

    def start_worker(self) -> None:
        """`python -m workers FILE`: one process that predicts and one that delivers."""
        number = len(self.workers)
        log = self.stack.enter_context((self.folder / f"worker{number}.log").open("ab"))
        self.workers.append(
            subprocess.Popen(
                [sys.executable, "-m", "workers", str(self.node.file)],
                stdout=log, stderr=log, env=_environment(),
            )
        )  # fmt: skip

    def kill_a_listener(self) -> None:
        os.kill(self.node.listeners(2)[0], signal.SIGKILL)

    def kill_a_worker(self) -> None:
        """SIGKILL what predicts of the second worker, in the middle of its work."""
        below = [pid for pid in descendants(self.workers[1].pid) if "predict" in command_line(pid)]
        os.kill(below[0], signal.SIGKILL)

    def is_second_worker_at_work(self) -> bool:
        return b'"predicted"' in self.log_of(1)

    def log_of(self, worker: int) -> bytes:
        return (self.folder / f"worker{worker}.log").read_bytes()

    def end(self) -> list[int]:
        """SIGTERM to every part; returns how each ended."""
        for worker in self.workers:
            worker.terminate()
        return [self.node.stop(), *(worker.wait(120) for worker in self.workers)]


@contextmanager
def hospital_of(
    folder: Path, *, orthanc: Orthanc, broker: str, database: str
) -> Iterator[Hospital]:
    """Everything runs; nothing of it is left."""
    models = {
        name: gate.write(folder / name, modality=name.upper(), sop_class=sop_class).bundle
        for name, sop_class in (("ct", "CTImageStorage"), ("mr", "MRImageStorage"))
    }
    titles = json.dumps([station.ae_title for station in hospital.GENERAL.stations])
    text = running.toml(
        pacs={"ae_title": orthanc.ae_title, "port": orthanc.dicom_port},
        broker=broker,
        models=models,
        routes=ROUTES,
        extra=f'[peers.sim]\nae_title = {titles}\nhost = "127.0.0.1"\n\n[web]\nport = 0\n\n'
        f'[database]\nurl = "{database}"',
    )
    text = text.replace("port = 0", "port = 0\nprocesses = 2", 1)
    text = text.replace("lease_s = 3", "lease_s = 6")
    with (
        running.running(folder / "node", text, command="serve", options=["--verbose"]) as served,
        ExitStack() as stack,
    ):
        made = Hospital(node=served, orthanc=orthanc, folder=folder, stack=stack)
        try:
            for number in range(WORKERS):
                made.start_worker()
                running.wait_for(
                    lambda number=number: made.log_of(number).count(b'"worker ready"') == 2,
                    what="a worker",
                )
            yield made
        finally:
            for worker in made.workers:
                for pid in [worker.pid, *descendants(worker.pid)]:
                    _end(pid)
                worker.wait()


def _end(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


class Looker(threading.Thread):
    """Asks for the accounting all the time: the rows, the page, and the command line."""

    def __init__(self, of: Hospital) -> None:
        super().__init__(name="looker")
        self._hospital = of
        self._database = of.connect()
        self._is_over = threading.Event()
        self.looks: Counter[str] = Counter()
        self.faults: list[str] = []
        self.received = 0
        self._browser = self._signed_in()

    def _signed_in(self) -> httpx2.Client:
        with self._database.write() as tx:
            people.add(
                tx, "viewer", role=Role.VIEWER,
                password_hash=passwords.hashed(paged.PASSWORD), at=time.time(),
            )  # fmt: skip
        port = node.page_of(self._hospital.node.configuration.node.data_dir)
        browser = httpx2.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60)
        assert paged.sign_in(browser, "viewer").status_code == 303
        return browser

    def run(self) -> None:
        try:
            while not self._is_over.wait(0.3):
                self._look()
        except BaseException as error:
            self.faults.append(repr(error))
            raise
        finally:
            self._browser.close()

    def stop(self) -> None:
        self._is_over.set()
        self.join()

    def _look(self) -> None:
        self._see("rows", self._rows())
        if self.looks["rows"] % 5 == 0:
            self._see("page", self._page())
        if self.looks["rows"] % 50 == 0:
            self._see("command", self._command())

    def _see(self, where: str, account: Mapping[str, int]) -> None:
        self.looks[where] += 1
        parts = ("delivered", "not_applicable", "failed", "in_progress")
        if account["received"] != sum(account[part] for part in parts):
            self.faults.append(f"{where}: {account}")
        if account["received"] < self.received:
            self.faults.append(f"{where}: fewer than before: {account}")
        self.received = account["received"]

    def _rows(self) -> dict[str, int]:
        with self._database.read() as tx:
            account = accounts.account(tx)
            # In one statement, so that all of it is of one moment.
            wrong = tx.scalar(
                select(func.count()).where(tables.study.c.outcome != outcomes.derived())
            )
        if wrong:
            self.faults.append(f"{wrong} studies are not counted as what their rows say")
        return vars(account)

    def _page(self) -> dict[str, int]:
        said = self._browser.get("/accounting-table").text
        *_, everything = said.split("<section")
        (received,) = re.findall(r"<b>([^<]*)</b> received", everything)
        terms = re.findall(r">([\d\W]*?)<span class=\"hidden\"> ([a-z ]+)</span>", everything)
        counted = {name.replace(" ", "_"): _number(number) for number, name in terms}
        return {"received": _number(received), **counted}

    def _command(self) -> dict[str, int]:
        run = subprocess.run(
            [*PROGRAM, "status", "--json", "--config", str(self._hospital.node.file)],
            check=True, capture_output=True, env=_environment(),
        )  # fmt: skip
        with (self._hospital.folder / "status.log").open("ab") as log:
            log.write(run.stderr)
        account: dict[str, int] = json.loads(run.stdout)["account"]
        return account


def _number(text: str) -> int:
    return int(re.sub(r"\D", "", text))


def simulate(
    of: Hospital, looker: Looker, events: Sequence[tuple[Callable[[], bool], Callable[[], None]]]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The day, as fast as the node takes it: its account, and every answer.

    Args:
        of: Where it happens.
        looker: Whose faults end it.
        events: What is done meanwhile, one after the other, and what is waited for before each.
    """
    ledger = of.folder / "ledger"
    with (of.folder / "simulate.log").open("wb") as said, (of.folder / "account").open("wb") as out:
        process = subprocess.Popen(
            [*PROGRAM, "--verbose", "simulate", "--to", f"DICOMNODE@127.0.0.1:{of.node.port}",
             "--studies", str(STUDIES), "--seed", str(SEED), "--speed", "max",
             "--ledger", str(ledger), "--json"],
            stdout=out, stderr=said, env=_environment(),
        )  # fmt: skip
        try:
            for is_time, act in events:
                running.wait_for(
                    lambda is_time=is_time: looker.faults or is_time(),
                    what=f"the time to {act.__name__}", within_s=WITHIN_S,
                )  # fmt: skip
                act()
            assert process.wait(WITHIN_S) == 0, (of.folder / "account").read_text()
        finally:
            process.kill()
            process.wait()
    account = json.loads((of.folder / "account").read_text())
    return account, [json.loads(line) for line in ledger.read_text().splitlines()]


def straggle(
    of: Hospital, plan: Day, wait_until_settled: Callable[[], None]
) -> list[dict[str, Any]]:
    """Send what comes first, and the rest when all of that is answered; gives each answer."""
    early = {item for study in plan.studies.values() for item in study.items[:1]}
    first = [one for one in plan.transfers if early & set(one.items)]
    told: list[Answer] = []
    for part in (first, [one for one in plan.transfers if one not in first]):
        Traffic(
            replace(plan, transfers=tuple(part)),
            make=objects.make,
            to=Destination(ae_title="DICOMNODE", host="127.0.0.1", port=of.node.port),
            pace=Pace(speed=None, begins_s=0),
            account=Account(tell=told.append),
        ).run()
        wait_until_settled()
    return [{"taken": one.is_taken, "sop_instance": one.sop_instance_uid} for one in told]


def wait_until_settled(database: Database, looker: Looker) -> None:
    running.wait_for(
        lambda: looker.faults or settled(database), what="the end of all", within_s=WITHIN_S
    )


def count_put_off_or_done(database: Database) -> tuple[int, int]:
    """How many deliveries have failed for now, and how many are confirmed."""
    delivery = tables.delivery.c
    again = (delivery.state == DeliveryState.PENDING) & (delivery.attempts > 0)
    with database.read() as tx:
        done = delivery.state == DeliveryState.CONFIRMED
        put_off = tx.scalar(select(func.count()).where(again)) or 0
        return put_off, tx.scalar(select(func.count()).where(done)) or 0


def settled(database: Database) -> bool:
    """Whether nothing is in progress, and nothing is left to be sent."""
    with database.read() as tx:
        open_ = (DeliveryState.PENDING, DeliveryState.SENDING)
        sending = tx.scalar(select(func.count()).where(tables.delivery.c.state.in_(open_)))
        return accounts.account(tx).in_progress == 0 and not sending


@pytest.mark.timeout(1200)
def test_a_day_ends_as_it_must_and_names_nobody(
    tmp_path: Path,
    redis_server: RedisServer,
    postgres: Postgres,
    postgres_url: str,
    orthanc: Orthanc,
) -> None:
    plan = day.plan(hospital.GENERAL, REQUEST)
    stragglers = day.plan(STRAGGLING, STRAGGLERS)
    with hospital_of(
        tmp_path, orthanc=orthanc, broker=redis_server.url, database=postgres_url
    ) as made:
        database = made.connect()
        looker = Looker(made)
        looker.start()
        try:
            account, answers = simulate(
                made,
                looker,
                [
                    (lambda: looker.received >= STUDIES // 5, made.kill_a_listener),
                    (lambda: count_put_off_or_done(database)[1] >= DELIVERIES, orthanc.stop),
                    (made.is_second_worker_at_work, made.kill_a_worker),
                    (lambda: count_put_off_or_done(database)[0] >= DELIVERIES, orthanc.start),
                ],
            )
            wait_until_settled(database, looker)
            answers += straggle(made, stragglers, lambda: wait_until_settled(database, looker))
        finally:
            looker.stop()
        assert looker.faults == []
        assert min(looker.looks[where] for where in ("rows", "page", "command")) > 0
        assert_the_account_is_that_of_the_plan(account, plan)
        assert_what_was_acknowledged_is_kept(made, answers, plan, stragglers)
        for each in (plan, stragglers):
            assert_studies_ended_as_planned(database, each)
        assert_reasons_are_those_of_the_faults(database, plan)
        assert_stragglers_made_a_new_revision(database, stragglers)
        assert_each_result_is_there_once(database, made, plan, stragglers)
        assert made.end() == [0, 0, 0]
    logs = {str(path): path.read_bytes() for path in tmp_path.rglob("*.log")}
    logs["redis"] = redis_server._server.log.encode()
    logs["postgres"] = postgres._server.log.encode()
    assert_that_something_is_logged(logs)
    assert_nobody_is_named(logs, plan, stragglers)


def assert_the_account_is_that_of_the_plan(account: Mapping[str, Any], plan: Day) -> None:
    assert set(account["planned"]["faults"]) == set(Fault)
    assert account["taken_though_wrong"] == 0
    refused = {one["reason"]: one["count"] for one in account["refused"] if one["what"] == "object"}
    faults = account["planned"]["faults"]
    assert refused == {
        "0x0111": faults["duplicate-uid"],
        "not-accepted": faults["unknown-class"] + faults["unknown-syntax"],
    }
    nothing = sum(study.arrival is Arrival.NOTHING for study in plan.studies.values())
    assert account["studies"] == STUDIES - nothing


def made_by_uid(plan: Day) -> dict[str, Item]:
    """SOP Instance UID → what the plan sends under it first."""
    found: dict[str, Item] = {}
    for transfer in plan.transfers:
        for item in transfer.items:
            found.setdefault(objects.subject(plan, item).sop_instance_uid, item)
    return found


def assert_what_was_acknowledged_is_kept(
    made: Hospital, answers: list[dict[str, Any]], *plans: Day
) -> None:
    """Each instance that was taken lies in the store, byte for byte, and has one row."""
    taken = {one["sop_instance"] for one in answers if one["taken"] and one["sop_instance"]}
    with made.connect().read() as tx:
        instance = tables.instance.c
        rows = tx.execute(select(instance.sop_instance_uid, instance.path)).all()
    kept = {row.sop_instance_uid: row.path for row in rows}
    assert len(kept) == len(rows)
    assert taken <= kept.keys()
    data_dir = made.node.configuration.node.data_dir
    sent = {uid: (plan, item) for plan in plans for uid, item in made_by_uid(plan).items()}
    differing = [
        uid
        for uid in taken
        if dataset_bytes(data_dir / kept[uid]) != encoded(objects.make(*sent[uid]))
    ]
    assert differing == []


def encoded(dataset: Dataset) -> bytes:
    content = encode(dataset, False, True)
    assert content is not None
    return content


def assert_studies_ended_as_planned(database: Database, plan: Day) -> None:
    study = tables.study.c
    with database.read() as tx:
        found = {
            row.study_instance_uid: row.outcome
            for row in tx.execute(select(study.study_instance_uid, study.outcome))
        }
    expected = {
        one.study_instance_uid: outcome
        for one in plan.studies.values()
        if (outcome := predicted(one)) is not None
    }
    differing = {
        one.number: (one.fault, one.arrival, found.get(one.study_instance_uid))
        for one in plan.studies.values()
        if found.get(one.study_instance_uid) != expected.get(one.study_instance_uid)
    }
    assert differing == {}


def assert_reasons_are_those_of_the_faults(database: Database, plan: Day) -> None:
    job = tables.job.c
    with database.read() as tx:
        rows = tx.execute(
            select(job.study_instance_uid, job.reason).where(job.state == JobState.FAILED)
        ).all()
    reasons = {row.study_instance_uid: row.reason for row in rows}
    by_fault: dict[Fault | None, set[str]] = {}
    for study in plan.studies.values():
        if study.study_instance_uid in reasons:
            by_fault.setdefault(study.fault, set()).add(reasons[study.study_instance_uid])
    assert by_fault.pop(Fault.MISSING_SLICES) == {"missing-slices"}
    assert by_fault.pop(Fault.WRONG_PATIENT) <= {"two-patients", "mixed-patients"}
    assert by_fault == {}


def assert_stragglers_made_a_new_revision(database: Database, plan: Day) -> None:
    study = tables.study.c
    uids = [one.study_instance_uid for one in plan.studies.values()]
    with database.read() as tx:
        revisions = tx.execute(
            select(study.revision).where(study.study_instance_uid.in_(uids))
        ).scalars()
        assert sorted(revisions) == [2] * len(uids)


def assert_each_result_is_there_once(database: Database, made: Hospital, *plans: Day) -> None:
    """The destination has every result that counts as delivered, and nothing that is none."""
    with database.read() as tx:
        delivered, every = confirmed_results(tx), all_results(tx)
        sources = {
            row.id: next(iter(row.inputs.values()))["instances"][0]
            for row in tx.execute(select(tables.job.c.id, tables.job.c.inputs))
        }
        paths = dict(
            tx.execute(select(tables.instance.c.sop_instance_uid, tables.instance.c.path)).all()
        )
        twice = tx.execute(
            select(tables.job.c.study_instance_uid, tables.job.c.rule)
            .where(tables.job.c.state == JobState.DELIVERED)
            .group_by(tables.job.c.study_instance_uid, tables.job.c.rule)
            .having(func.count() > 1)
        ).all()
    assert twice == []
    there = made.orthanc.instances()
    assert len(there) == len(set(there))
    assert delivered <= set(there) <= every.keys()
    data_dir = made.node.configuration.node.data_dir
    assert_results_name_their_patients(
        [
            (data_dir / every[uid].path, data_dir / paths[sources[every[uid].job]])
            for uid in delivered
        ],
        {one.person.patient_id: one.person.name for plan in plans for one in plan.studies.values()},
    )


def confirmed_results(tx: Connection) -> set[str]:
    result, delivery = tables.result.c, tables.delivery.c
    return set(
        tx.scalars(
            select(result.sop_instance_uid)
            .join(tables.delivery, delivery.job == result.job)
            .where(delivery.state == DeliveryState.CONFIRMED)
        )
    )


def all_results(tx: Connection) -> dict[str, Row[Any]]:
    """SOP Instance UID → row."""
    rows = tx.execute(select(tables.result))
    return {row.sop_instance_uid: row for row in rows}


def assert_results_name_their_patients(
    results: list[tuple[Path, Path]], names: Mapping[str, str]
) -> None:
    """Name and identifier of a result are those of its source, whatever script they are in.

    Args:
        results: Each result with one of the images that it was made of.
        names: Patient ID → Patient's Name, as they were invented.
    """
    assert results
    tags = ["SpecificCharacterSet", "PatientName", "PatientID", "PatientBirthDate"]
    for result, source in results:
        made = pydicom.dcmread(result, specific_tags=tags)
        given = pydicom.dcmread(source, specific_tags=tags)
        assert made.PatientID == given.PatientID
        assert made.PatientBirthDate == given.PatientBirthDate
        as_made, as_given = raw(made, "PatientName"), raw(given, "PatientName")
        if made.get("SpecificCharacterSet") == given.get("SpecificCharacterSet"):
            assert as_made == as_given
        else:
            assert made.SpecificCharacterSet == "ISO_IR 192"
            assert as_made.decode() == names[made.PatientID]


def raw(dataset: Dataset, keyword: str) -> bytes:
    """A value as it is encoded."""
    element: Any = dataset.get_item(keyword)
    return bytes(element.value).rstrip(b" ")


def assert_that_something_is_logged(logs: Mapping[str, bytes]) -> None:
    said = b"".join(logs.values())
    for event in (
        b"study complete", b"turned away", b"predicted", b"delivered", b"put off",
        b"listener died", b"process died",
    ):  # fmt: skip
        assert event in said


def assert_nobody_is_named(logs: Mapping[str, bytes], *plans: Day) -> None:
    """Not one name, identifier, date or description of what was sent stands in any log."""
    said: dict[tuple[str, tuple[str, ...]], None] = {}
    for plan in plans:
        for item in {item: None for transfer in plan.transfers for item in transfer.items}:
            said |= dict.fromkeys(spoken(objects.make(plan, item)).items())
    searched = Searched(said)
    assert searched.found_in(b"x " + plans[0].studies[1].person.patient_id.encode()) != []
    found = {name: searched.found_in(content)[:5] for name, content in logs.items()}
    assert {name: lines for name, lines in found.items() if lines} == {}
