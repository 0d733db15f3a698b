"""A worker with one delivery to make, as the tests of deliveries share it."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from sqlalchemy import select
from wire.receiving import HOST, NODE, instance, write

from dicomnode import config
from dicomnode.archive import tables
from dicomnode.archive.database import Database
from dicomnode.archive.disk.files import FileStore
from dicomnode.archive.studies import index
from dicomnode.archive.work import (
    confirmations,
    deliveries,
    jobs,
    leases,
    moves,
    results,
    revisions,
)
from dicomnode.archive.work.confirmations import State
from dicomnode.archive.work.deliveries import Delivery
from dicomnode.archive.work.leases import Task
from dicomnode.job import Priority
from dicomnode.study import Instance
from workers import deliver
from workers.context import Context

WITHIN_S = 30
STUDY = "1.2.3.1"
#: The SOP Instance UIDs of the results.
UIDS = ["1.2.3.4.1", "1.2.3.4.2"]


class Sender:
    """A worker with one delivery of two results."""

    def __init__(
        self, folder: Path, *, port: int, confirm: str, commitment_s: float = 600.0
    ) -> None:
        """Prepare.

        Args:
            folder: Where it works.
            port: Of the destination.
            confirm: How that confirms what it got, as the configuration says it.
            commitment_s: Seconds until it is asked to commit itself once more.
        """
        folder.mkdir()
        file = folder / "node.toml"
        file.write_text(
            f'[node]\nae_title = "{NODE}"\n'
            f"[deliver]\nretry_s = 0.1\nretry_max_s = 0.2\ncommitment_s = {commitment_s}\n"
            f'[peers.pacs]\nae_title = "PACS"\nhost = "{HOST}"\nport = {port}\n'
            f'confirm = "{confirm}"\n'
        )
        configuration = config.load(file, {})
        self.database = Database(configuration.database.url)
        self.database.migrate()
        self.context = Context(
            configuration=configuration,
            database=self.database,
            store=FileStore(configuration.node.data_dir),
            bundles={},
            owner="me",
            device="",
        )
        self._kept = [self._result(number) for number in (1, 2)]
        self._job = self._predicted()

    def _result(self, number: int) -> results.ResultFile:
        path = self.context.configuration.node.data_dir / f"{number}.dcm"
        write(path, instance(number))
        return results.ResultFile(
            kind="seg",
            sop_instance_uid=f"1.2.3.4.{number}",
            series_instance_uid="1.2.3.2",
            path=path.name,
            digest=hashlib.sha256(path.read_bytes()).hexdigest(),
        )

    def _predicted(self) -> str:
        new = revisions.NewJob(
            key="key",
            study_instance_uid=STUDY,
            revision=1,
            rule="rule",
            model="model",
            model_digest="ab" * 32,
            inputs={"image": jobs.JobInput(series=("1.2.3.2",), instances=("1.2.3.9",))},
            send_to=("pacs",),
            priority=Priority.ROUTINE,
        )
        now = time.time()
        with self.database.write() as tx:
            index.add(tx, [_received()])
            revisions.create(tx, new, at=now)
            moves.claim(tx, new.id, owner="me", at=now, lease_s=60)
            moves.predicted(tx, new.id, self._kept, owner="me", at=now, timings={}, device="")
        return new.id

    @property
    def delivery(self) -> Delivery:
        with self.database.read() as tx:
            (found,) = deliveries.of_job(tx, self._job)
        return found

    @property
    def job(self) -> jobs.Job:
        with self.database.read() as tx:
            found = jobs.job(tx, self._job)
        assert found is not None
        return found

    @property
    def states(self) -> list[State]:
        with self.database.read() as tx:
            return [one.state for one in confirmations.of_delivery(tx, self.delivery.id)]

    def not_before(self) -> float:
        with self.database.read() as tx:
            found = tx.scalar(select(tables.delivery.c.not_before))
        assert found is not None
        return found

    def asked_at(self) -> float:
        with self.database.read() as tx:
            return confirmations.of_delivery(tx, self.delivery.id)[-1].asked_at

    def is_due(self) -> bool:
        with self.database.read() as tx:
            return leases.anything_due(tx, Task.DELIVER, at=time.time(), resend_s=15)

    def work(self) -> Delivery:
        """Do what a worker does once the delivery is due."""
        until = time.monotonic() + WITHIN_S
        while not self.is_due():
            assert time.monotonic() < until
            time.sleep(0.01)
        deliver.deliver(self.context, self.delivery.id)
        return self.delivery


def _received() -> index.Received:
    one = Instance(
        sop_instance_uid="1.2.3.9",
        sop_class_uid=CTImageStorage,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        series_instance_uid="1.2.3.2",
        study_instance_uid=STUDY,
        digest="00",
        path="instances/00/1.2.3.9.dcm",
        header={},
    )
    return index.Received(instance=one, association="a", size=1, at=1.0)
