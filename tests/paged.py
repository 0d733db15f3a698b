"""A page without a node: a database with studies in every state, and a browser of sorts before it.

What stands in the database is put there by the archive's own functions, as the node does it.
"""

from __future__ import annotations

import re
import socket
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import argon2
import uvicorn
from PIL import Image
from sqlalchemy import Connection
from starlette.testclient import TestClient

from dicomnode import bundle, config, settings
from dicomnode.archive import journal
from dicomnode.archive.access import people
from dicomnode.archive.access.people import Role
from dicomnode.archive.arrival import End, Ended, Opened
from dicomnode.archive.database import Database
from dicomnode.archive.journal import Kind
from dicomnode.archive.studies import associations, decisions, index
from dicomnode.archive.work import deliveries, jobs, leases, moves, results, revisions
from dicomnode.job import JobState, Priority, result_key
from dicomnode.node import Prepared
from dicomnode.reload import Reload
from dicomnode.study import Instance
from dicomnode.web import app, passwords
from dicomnode.web.surroundings import Surroundings

# The real costs are there to be slow.
passwords._hasher = argon2.PasswordHasher(time_cost=1, memory_cost=1024, parallelism=1)
passwords._NOBODY = passwords._hasher.hash("nobody")

ROOT = Path(__file__).resolve().parents[1]
NOW = 1_795_790_000.0
PASSWORD = "correct horse battery staple"
#: The patient of the first study: what nobody may see who has not signed in.
PATIENT = "Lindqvist^Astrid"
FIRST = "1.2.826.0.1.3680043.8.498.1"

RULE = "hippocampus volumetry"
MODEL = "hippocampus"

CONFIGURATION = f"""
[node]
data_dir = "data"

[listen]
host = "127.0.0.1"
port = 0

[web]
port = 0

[peers.mr1]
ae_title = "MR1"
host = "127.0.0.1"

[peers.pacs]
ae_title = "PACS"
host = "127.0.0.1"
port = 4242

[peers.research]
ae_title = "RESEARCH"
host = "127.0.0.1"
port = 4243
profile = "ohif"

[models.hippocampus]
bundle = "{ROOT}/models/hippocampus_mr_segmentation"

[models.pneumonia]
bundle = "{ROOT}/models/chest_xray_pneumonia"

[[routes]]
name = "hippocampus volumetry"
model = "hippocampus"
series = {{ Modality = "MR", SeriesDescription = "re:(?i)hippo.?crop", instances = ">=16" }}
send_to = ["pacs"]
"""


@dataclass(kw_only=True)
class Clock:
    """Time that stands still until it is told."""

    now: float = NOW

    def __call__(self) -> float:
        return self.now


@dataclass(kw_only=True)
class Pages:
    """A page over a database of its own."""

    here: Surroundings
    clock: Clock
    application: Any = field(repr=False)
    listens: bool = True

    @property
    def database(self) -> Database:
        return self.here.database

    def browser(self, *, address: str = "10.0.0.9", host: str = "node.example") -> TestClient:
        """A browser that nobody has signed in with."""
        return TestClient(
            self.application,
            base_url=f"http{'s' if self.here.is_secure else ''}://{host}",
            client=(address, 50000),
            follow_redirects=False,
        )

    def as_(self, name: str) -> TestClient:
        """A browser of somebody who has signed in."""
        browser = self.browser()
        assert sign_in(browser, name).status_code == 303
        return browser


def sign_in(browser: TestClient, name: str, password: str = PASSWORD, **fields: str) -> Any:
    """Fill in the form."""
    form = browser.get("/sign-in")
    word = re.search(r'name="csrf" value="(\w+)"', form.text)
    assert word is not None
    return browser.post(
        "/sign-in", data={"name": name, "password": password, "csrf": word[1], **fields}
    )


def word(browser: TestClient) -> str:
    """What the forms of a session carry."""
    found = re.search(r'name="csrf" value="(\w+)"', browser.get("/accounting").text)
    assert found is not None
    return found[1]


def act(browser: TestClient, path: str, **fields: str) -> Any:
    """Send a form as a page would."""
    return browser.post(path, data={"csrf": word(browser), **fields})


@cache
def _with_tables() -> bytes:
    """An empty database: made once, for it takes longer than most tests."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "node.db"
        database = Database(f"sqlite:///{file}")
        database.migrate()
        database.close()
        return file.read_bytes()


@dataclass(kw_only=True)
class StandIn:
    """What is changed by a reload where there is no node: the page itself."""

    here: Surroundings

    @property
    def configuration(self) -> config.Configuration:
        return self.here.configuration

    @property
    def bundles(self) -> Mapping[str, str]:
        return settings.digests(self.here.models)

    @property
    def database(self) -> Database:
        return self.here.database

    def prepare(self, proposed: config.Configuration) -> Prepared:
        return Prepared(
            configuration=config.in_force(self.configuration, proposed),
            rules=(),
            bundles=self.bundles,
        )

    def take_up(self, prepared: Prepared) -> bool:
        self.here.change(prepared.configuration, self.here.bundles)
        return True


@contextmanager
def pages(folder: Path, *, url: str | None = None, web: str = "") -> Iterator[Pages]:
    """A page, with an account for each role: viewer, operator and administrator.

    Args:
        web: More of the configuration, beginning with what belongs below [web].
    """
    file = folder / "node.toml"
    file.write_text(CONFIGURATION.replace("[web]\nport = 0\n", f"[web]\nport = 0\n{web}\n"))
    configuration = config.load(file, {})
    configuration.node.data_dir.mkdir(exist_ok=True)
    if url is None:
        database = Database(configuration.database.url)
        Path(str(config.sqlite_file(database.url))).write_bytes(_with_tables())
    else:
        database = Database(url)
        database.migrate()
    kept = passwords.hashed(PASSWORD)
    clock = Clock()
    with database.write() as tx:
        for role in Role:
            people.add(tx, str(role), role=role, password_hash=kept, at=NOW)
    made = Pages(
        here=Surroundings(
            configuration=configuration,
            file=file,
            database=database,
            bundles={
                name: bundle.load(one.bundle, manifest=one.manifest)
                for name, one in configuration.models.items()
            },
            is_listening=lambda: made.listens,
            clock=clock,
            ending=threading.Event(),
        ),
        clock=clock,
        application=None,
    )
    made.here.reload = Reload(file, StandIn(here=made.here), environ={}, clock=clock)
    made.application = app.make(made.here)
    try:
        yield made
    finally:
        made.here.ending.set()
        database.close()


@contextmanager
def served(made: Pages, *, port: int = 0) -> Iterator[str]:
    """The address of a page that real browsers reach, for the length of a block."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", port))
        listening.listen()
        settings = uvicorn.Config(
            made.application, lifespan="off", log_config=None, timeout_graceful_shutdown=1
        )
        server = uvicorn.Server(settings)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            made.here.ending.set()
            server.should_exit = True
            thread.join()


def instances(
    study: str, *, count: int = 20, series: int = 1, at: float = NOW, **header: object
) -> list[index.Received]:
    """The instances of one series as they are indexed."""
    return [
        index.Received(
            instance=Instance(
                sop_instance_uid=f"{study}.{series}.{number}",
                sop_class_uid="1.2.840.10008.5.1.4.1.1.4",
                transfer_syntax_uid="1.2.840.10008.1.2.1",
                series_instance_uid=f"{study}.{series}",
                study_instance_uid=study,
                digest="00",
                path=f"instances/{study}.{series}.{number}.dcm",
                header={
                    "Modality": "MR",
                    "SeriesNumber": series,
                    "SeriesDescription": "T1 Hippo_crop",
                    "InstanceNumber": number,
                    **header,
                },
            ),
            association=f"a{study}",
            size=52_000,
            at=at + number * 0.02,
        )
        for number in range(1, count + 1)
    ]


def arrive(tx: Connection, study: str, *, at: float, peer: str = "mr1", **header: object) -> None:
    """A study comes in one association, and is complete."""
    name = f"a{study}"
    associations.opened(
        tx,
        Opened(association=name, peer=peer, calling_ae_title="MR1", address="10.0.0.5", at=at),
    )
    journal.write(
        tx, Kind.ASSOCIATION_OPENED, at=at, association=name, peer=peer, calling_ae_title="MR1",
        address="10.0.0.5",
    )  # fmt: skip
    index.add(tx, instances(study, at=at, **header))
    associations.ended(
        tx, Ended(association=name, end=End.RELEASED, stored=20, refused=0, at=at + 0.6)
    )
    journal.write(
        tx, Kind.ASSOCIATION_ENDED, at=at + 0.6, association=name, end="released", stored=20,
        refused=0,
    )  # fmt: skip
    because = "every association was released and every series is gap-free"
    index.complete(tx, study, revision=1, because=because, at=at + 2.6)
    journal.write(tx, Kind.STUDY_COMPLETE, at=at + 2.6, study=study, revision=1, because=because)


def decide(
    tx: Connection, study: str, *, outcome: str = "job", rule: str = RULE, **facts: str
) -> None:
    """What the rule says of the one series."""
    made = decisions.Recorded(
        revision=1,
        rule=rule,
        series_instance_uid=f"{study}.1",
        model=MODEL,
        outcome=outcome,
        origin="route",
        clause=facts.get("clause", ""),
        value=facts.get("value", ""),
        detail=facts.get("detail", "every clause holds"),
    )
    decisions.record(tx, study, [made])


def ask_for(tx: Connection, study: str, *, at: float, rule: str = RULE) -> str:
    """A job on the one series; returns its id."""
    images = tuple(f"{study}.1.{number}" for number in range(1, 21))
    new = revisions.NewJob(
        key=result_key({"image": images}, model_digest="ab" * 32),
        study_instance_uid=study,
        revision=1,
        rule=rule,
        model=MODEL,
        model_digest="ab" * 32,
        inputs={"image": jobs.JobInput(series=(f"{study}.1",), instances=images)},
        send_to=("pacs",),
        priority=Priority.ROUTINE,
    )
    revisions.create(tx, new, at=at)
    return new.id


TIMINGS: Mapping[str, float] = {
    "model": 0.04, "load": 0.31, "infer": 2.1, "build": 0.42, "check": 0.55,
}  # fmt: skip


def predict(tx: Connection, job: str, data_dir: Path, *, at: float) -> list[deliveries.Delivery]:
    """A worker runs the job, and keeps its results and a picture."""
    assert moves.claim(tx, job, owner="worker", at=at, lease_s=60) is not None
    folder = data_dir / "results" / job / "1-abc"
    folder.mkdir(parents=True, exist_ok=True)
    Image.linear_gradient("L").resize((640, 300)).save(folder / results.PICTURE)
    kept = [
        results.ResultFile(
            kind=kind,
            sop_instance_uid=f"2.25.{int(job[:8], 16)}.{position}",
            series_instance_uid=f"2.25.{int(job[:8], 16)}",
            path=f"results/{job}/1-abc/{kind}.dcm",
            digest="0",
        )
        for position, kind in enumerate(("seg", "sr"))
    ]
    assert moves.predicted(
        tx, job, kept, owner="worker", at=at + 3.4, timings=TIMINGS, device="cuda:0"
    )
    return deliveries.of_job(tx, job)


def deliver(tx: Connection, delivery: deliveries.Delivery, *, at: float) -> None:
    """The destination has everything."""
    taken = deliveries.claim(tx, delivery.id, owner="worker", at=at, lease_s=60)
    assert taken is not None
    deliveries.confirm(tx, taken, owner="worker", at=at + 0.7)


def refuse(tx: Connection, delivery: deliveries.Delivery, *, at: float) -> None:
    """The destination will not have it."""
    taken = deliveries.claim(tx, delivery.id, owner="worker", at=at, lease_s=60)
    assert taken is not None
    deliveries.fail(
        tx,
        taken,
        owner="worker",
        at=at + 0.4,
        reason="destination-refused",
        detail="PACS answered 0xA900 to seg.dcm.",
    )


_OTHERS = (
    ("Okafor^Chidi", "P-20418", "Brain without contrast", "delivered"),
    ("Müller^Käthe", "P-20417", "Brain without contrast", "missing-slices"),
    ("Tanaka^Yuki", "P-20399", "Temporal lobe epilepsy protocol", "refused"),
    ("Novak^Jan", "P-20385", "Knee left", "not applicable"),
    ("Haddad^Leila", "P-20377", "Brain follow-up", "held"),
    ("O'Connor^Brendan", "P-20360", "Brain without contrast", "pending"),
    ("Silva^Beatriz", "P-20342", "Dementia protocol", "predicting"),
    ("Kowalska^Zofia", "P-20331", "Brain without contrast", "delivering"),
    ("Nguyen^Minh Anh", "P-20318", "Brain follow-up", "receiving"),
)


def sample(database: Database, data_dir: Path, *, now: float = NOW) -> dict[str, str]:
    """Ten studies, one in each state; returns what became of it → its UID."""
    found = {"first": FIRST}
    with database.write() as tx:
        at = now - 700
        arrive(
            tx, FIRST, at=at, PatientName=PATIENT, PatientID="P-20425", PatientSex="F",
            PatientBirthDate="19530412", StudyDescription="Brain, hippocampus",
            StudyDate="20261126", AccessionNumber="A-77120", InstitutionName="St. Elsewhere",
        )  # fmt: skip
        decide(tx, FIRST)
        (delivery,) = predict(tx, ask_for(tx, FIRST, at=at + 2.6), data_dir, at=at + 4)
        deliver(tx, delivery, at=at + 8)
        for number, (name, patient, description, state) in enumerate(_OTHERS, start=2):
            uid = f"1.2.826.0.1.3680043.8.498.{number}"
            found[state] = uid
            header = {"PatientName": name, "PatientID": patient, "StudyDescription": description}
            _another(tx, uid, state, data_dir, at=at - number * 1700, header=header)
        leases.report_worker(
            tx, owner="gpu1:4711", device="cuda:0", requested="auto", slots=1, at=now - 2
        )
        leases.report_memory(tx, owner="gpu1:4711", used=9 * 2**30, total=80 * 2**30)
        leases.report_worker(tx, owner="gpu1:4712", device="", requested="", slots=0, at=now - 1)
        journal.write(
            tx, Kind.TURNED_AWAY, at=now - 4000, peer="", reason="unknown-peer", status="0x0003",
            detail="No peer CT9 at 10.0.0.77 is in the configuration.", sop_instance="",
        )  # fmt: skip
    return found


def _another(
    tx: Connection, uid: str, state: str, data_dir: Path, *, at: float, header: dict[str, object]
) -> None:
    if state == "receiving":
        index.add(tx, instances(uid, at=NOW - 3, count=7, **header))
        return
    arrive(tx, uid, at=at, **header)
    if state in ("not applicable", "held"):
        decide(
            tx,
            uid,
            outcome="held" if state == "held" else "not_applicable",
            clause="SeriesDescription matches /(?i)hippo.?crop/",
            value="PD_SAG_FS",
            detail="the clause does not hold",
        )
        return
    decide(tx, uid)
    job = ask_for(tx, uid, at=at + 2.6)
    if state == "predicting":
        moves.claim(tx, job, owner="gpu1:4711", at=at + 3, lease_s=1e9)
    elif state == "missing-slices":
        moves.claim(tx, job, owner="worker", at=at + 3, lease_s=60)
        moves.end(
            tx, job, JobState.FAILED, at=at + 3.4, reason="missing-slices", owner="worker",
            detail="Between slices 12 and 13 there is a gap of 3 mm where 1 mm is regular. Have the"
            " series sent again.", timings={"load": 0.3},
        )  # fmt: skip
    elif state != "pending":
        (delivery,) = predict(tx, job, data_dir, at=at + 4)
        if state == "refused":
            refuse(tx, delivery, at=at + 8)
        elif state == "delivered":
            deliver(tx, delivery, at=at + 8)
