"""The next job's images are read while this one's model computes.

A guess, and nothing more: no job is claimed. Whoever takes a job up looks whether its images are
here already, known by their files and digests; what nobody comes for is forgotten at the next look.
A fault of reading is not told here: the job itself will meet it.
"""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from dicomnode import log
from dicomnode.archive.studies import index
from dicomnode.archive.work import jobs, leases
from dicomnode.archive.work.jobs import Job
from dicomnode.bundle import Bundle
from dicomnode.errors import NodeError
from dicomnode.prediction import Shown
from workers import limits
from workers.context import Context

_log = log.get(__name__)

#: How many times the size of its files the images of a job may take in memory while they are read.
_GROWTH = 6
#: Of what is free now, how much they may take: the running job has the first claim.
_SHARE = 0.25

Load = Callable[[Context, Job, Bundle], Mapping[str, Shown]]


@dataclass(frozen=True, kw_only=True)
class _Read:
    files: frozenset[str]
    shown: Mapping[str, Shown]


class Ahead:
    """One job's images, read ahead of it, in one process."""

    def __init__(self, load: Load) -> None:
        """Read nothing yet.

        Args:
            load: Reads the images of a job.
        """
        self._load = load
        self._read: _Read | None = None
        self._thread: threading.Thread | None = None

    def look(self, context: Context) -> None:
        """Begin to read for whichever job is next, beside what runs."""
        if self._thread is None or not self._thread.is_alive():
            self._read = None
            self._thread = threading.Thread(
                target=self._look, args=(context,), name="ahead", daemon=True
            )
            self._thread.start()

    def take(self, context: Context, job: Job) -> Mapping[str, Shown] | None:
        """The images of `job`, if they are what was read; they are given away."""
        if self._thread is not None:
            self._thread.join()
        read, self._read = self._read, None
        if read is None or read.files != _files(context, job):
            return None
        _log.info("loaded ahead", job=job.id)
        return read.shown

    def _look(self, context: Context) -> None:
        try:
            with context.database.read() as tx:
                job_id = leases.next_up(
                    tx, at=context.now(), models=context.bundles, position=_position(context)
                )
                job = None if job_id is None else jobs.job(tx, job_id)
            if job is None or not self._fits(context, job):
                return
            bundle = context.bundles[job.model]
            if bundle.digest == job.model_digest:
                files = _files(context, job)
                self._read = _Read(files=files, shown=self._load(context, job, bundle))
        except (NodeError, OSError) as error:
            _log.info("nothing loaded ahead", error=type(error).__name__)
        except Exception:  # noqa: BLE001 - the edge of this thread: the job itself will say why
            _log.exception("nothing loaded ahead")

    def _fits(self, context: Context, job: Job) -> bool:
        size = sum(
            path.stat().st_size
            for path in map(context.store.absolute, _paths(context, job).values())
        )
        return size * _GROWTH < limits.available() * _SHARE


def _files(context: Context, job: Job) -> frozenset[str]:
    """What makes the images of a job the same: the job, and every file with its digest."""
    with context.database.read() as tx:
        digests = index.digests_of(
            tx, [uid for one in job.inputs.values() for uid in one.instances]
        )
    return frozenset({job.id, *(f"{uid} {digest}" for uid, digest in digests.items())})


def _paths(context: Context, job: Job) -> Mapping[str, str]:
    with context.database.read() as tx:
        return index.paths_of(tx, [uid for one in job.inputs.values() for uid in one.instances])


def _position(context: Context) -> int:
    """Which of the waiting jobs: children of one worker each look at another."""
    identity = multiprocessing.current_process()._identity  # noqa: SLF001 - it has no other name
    return (identity[-1] - 1) % context.configuration.worker.slots if identity else 0
