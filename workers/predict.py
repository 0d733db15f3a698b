"""Job → checked result objects on disk: load, infer, build, check, keep."""

from __future__ import annotations

import errno
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from pydicom.uid import BasicTextSRStorage, Comprehensive3DSRStorage

from dicomnode import log, results, volume
from dicomnode import profile as profiles
from dicomnode.archive.studies import index
from dicomnode.archive.work import jobs, leases, moves
from dicomnode.archive.work import results as kept_results
from dicomnode.archive.work.jobs import Job
from dicomnode.archive.work.results import ResultFile
from dicomnode.bundle import DIGEST_SHOWN, Bundle
from dicomnode.durable import sync
from dicomnode.errors import (
    Failed,
    Misconfigured,
    NodeError,
    NotApplicable,
    RetryLater,
    UnsuitableSeries,
)
from dicomnode.job import JobState
from dicomnode.prediction import Shown
from dicomnode.profile import Profile
from dicomnode.volume import Volume
from workers import kept
from workers.ahead import Ahead
from workers.context import Behind, Context, require_up_to_date
from workers.inference import Models

_log = log.get(__name__)

_REPORT_CLASSES = {"sr": Comprehensive3DSRStorage, "notice": BasicTextSRStorage}
_RETRY_S = 5.0
_PATIENT = ("PatientID", "IssuerOfPatientID")
# Nobody makes room within seconds, and each attempt runs the model anew.
_NO_ROOM_RETRY_S = 60.0
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})


@dataclass(kw_only=True)
class Stopwatch:
    """Seconds for each stage of one job, in order."""

    timings: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        """Count the block to `stage`."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.timings[stage] = round(time.perf_counter() - begin, 3)

    def add(self, parts: Mapping[str, float]) -> None:
        """What a stage was made of."""
        self.timings |= {stage: round(seconds, 3) for stage, seconds in parts.items()}


def predict(context: Context, models: Models, job_id: str, *, ahead: Ahead | None = None) -> None:
    """Run one job, if it is still pending: pending → predicting → delivering.

    Whatever happens, the row says it in the end: not applicable, failed with the reason, or
    pending again.

    Args:
        ahead: What was read for this job while another one computed, and reads for the next.
    """
    with context.database.write() as tx:
        job = moves.claim(
            tx,
            job_id,
            owner=context.owner,
            at=context.now(),
            lease_s=context.configuration.worker.lease_s,
        )
    if job is None:
        return
    watch = Stopwatch()
    try:
        files = _run(context, models, job, watch, ahead)
    except NotApplicable as error:
        _end(context, job, JobState.NOT_APPLICABLE, error, watch)
    except RetryLater as error:
        _try_again(context, job, error, watch)
    except OSError as error:  # the disk is full, or a folder is away: neither is the job's fault
        _wait_for_disk(context, job, error, watch)
    except (Failed, Misconfigured) as error:
        _end(context, job, JobState.FAILED, error, watch)
    except Exception as error:  # noqa: BLE001 - the edge of the task: what nobody named is parked
        _log.exception("job failed unexpectedly", job=job.id, model=job.model)
        unknown = Failed("unexpected-error", f"{type(error).__name__} in the worker; see its log.")
        _end(context, job, JobState.FAILED, unknown, watch)
    else:
        _keep(context, job, files, watch)
    _tell_memory(context, models)


def _tell_memory(context: Context, models: Models) -> None:
    """Let people see how full the device is. No job depends on it."""
    found = models.gpu_memory()
    if found is None:
        return
    used, total = found
    with suppress(RetryLater), context.database.write() as tx:
        leases.report_memory(tx, owner=context.owner, used=used, total=total)


def _run(
    context: Context, models: Models, job: Job, watch: Stopwatch, ahead: Ahead | None
) -> tuple[ResultFile, ...]:
    bundle = _bundle(context, job)
    if not set(job.send_to) <= context.configuration.peers.keys():
        require_up_to_date(context)  # a new peer may have a profile of its own
    asked = list({one.digest: one for one in _profiles(context, job).values()}.values())
    _require_one_patient(context, job)
    with watch.time("model"):
        model = models.get(bundle)
    with watch.time("load"):
        inputs = (ahead and ahead.take(context, job)) or load(context, job, bundle)
    if ahead is not None:
        ahead.look(context)
    with watch.time("infer"):
        prediction = models.predict(bundle, inputs)
    watch.add(model.timings)
    with watch.time("build"):
        built = results.build(
            prediction,
            bundle=bundle,
            key=job.key,
            created=_created(context, job),
            profiles=asked,
            predecessors=_predecessors(context, job),
        )
    with watch.time("check"), _folder(context, job) as folder:
        paths = results.write(built, folder)
        results.check(paths, prediction=prediction, bundle=bundle, key=job.key, profiles=asked)
        picture = results.picture(prediction, bundle=bundle)
        if picture is not None:
            picture.save(folder / kept_results.PICTURE)
        data_dir = context.configuration.node.data_dir
        return tuple(
            kept.of(result, path, data_dir=data_dir)
            for result, path in zip(built, paths, strict=True)
        )


def _created(context: Context, job: Job) -> datetime:
    """When this result was first asked for, by whichever rule: one UID is one object.

    In the zone of this machine: what a result is dated by is the hospital's wall clock.
    """
    with context.database.read() as tx:
        first = jobs.first_with_key(tx, job.study_instance_uid, job.key)
    return datetime.fromtimestamp(
        first.created_at if first else job.created_at, tz=UTC
    ).astimezone()


def _profiles(context: Context, job: Job) -> dict[str, Profile]:
    """Destination → what it is sent, as the configuration is now.

    The delivery to one that is not in the configuration any more fails by that name.
    """
    peers = context.configuration.peers
    return {
        name: peers[name].gets if name in peers else profiles.NAMED["standard"]
        for name in job.send_to
    }


def _shipments(context: Context, job: Job) -> dict[str, moves.Shipment]:
    return {
        name: moves.Shipment(profile=one.digest, superseded=one.superseded)
        for name, one in _profiles(context, job).items()
    }


def _predecessors(context: Context, job: Job) -> dict[str, results.Predecessor]:
    """Digest of a profile → the report that its new one takes the place of, where there is one."""
    with context.database.read() as tx:
        reports = kept_results.superseded_reports(tx, job.id)
    found: dict[str, results.Predecessor] = {}
    for destination, profile in _profiles(context, job).items():
        if report := reports.get(destination):
            predecessor = results.Predecessor(
                study_instance_uid=job.study_instance_uid,
                series_instance_uid=report.series_instance_uid,
                sop_instance_uid=report.sop_instance_uid,
                sop_class_uid=_REPORT_CLASSES[report.kind],
            )
            found.setdefault(profile.digest, predecessor)
    return found


def _bundle(context: Context, job: Job) -> Bundle:
    """The bundle that the job was routed to, and no other."""
    bundle = context.bundles.get(job.model)
    if bundle is None or bundle.digest != job.model_digest:
        require_up_to_date(context)
    if bundle is None:
        raise Misconfigured(
            "unknown-model",
            f"The configuration of this worker has no model {job.model!r}. Give node and workers"
            " the same file, then retry the job.",
        )
    if bundle.digest != job.model_digest:
        raise Misconfigured(
            "model-changed",
            f"The job asks for {job.model!r} with digest {job.model_digest[:DIGEST_SHOWN]}, this"
            f" worker has {bundle.digest[:DIGEST_SHOWN]}. Restart node and workers with the same"
            " bundle.",
        )
    return bundle


def _require_one_patient(context: Context, job: Job) -> None:
    """Refuse a study that holds several patients: whichever of them a result names may be wrong.

    Raises:
        UnsuitableSeries: `two-patients`.
    """
    with context.database.read() as tx:
        study = index.study(tx, job.study_instance_uid)
    patients = {
        series.series_instance_uid: {
            tuple(str(one.value(keyword) or "") for keyword in _PATIENT) for one in series.instances
        }
        for series in (study.series if study else ())
    }
    if any(len(found) > 1 for uid, found in patients.items() if uid in job.series):
        return  # an image of another patient among those to be shown: refused when they are read
    if len(set().union(*patients.values())) > 1:
        raise UnsuitableSeries(
            "two-patients",
            "The study holds images of several patients, by Patient ID and its issuer. Have it put"
            " right at its source and sent again.",
        )


def load(context: Context, job: Job, bundle: Bundle) -> Mapping[str, Shown]:
    """Read the images of a job, for each input of its model.

    Raises:
        NotApplicable, UnsuitableSeries, RetryLater: As `volume.load_input`.
    """
    shown: dict[str, Shown] = {}
    for name, one in job.inputs.items():
        with context.database.read() as tx:
            paths = index.paths_of(tx, one.instances)
        missing = len(one.instances) - len(paths)
        if missing:
            raise RetryLater("not-indexed", f"{missing} instances of the job are not indexed yet.")
        files = [context.store.absolute(paths[uid]) for uid in one.instances]
        shown[name] = volume.load_input(files, contract=bundle.manifest.inputs[name])
    return {name: _on_its_grid(name, shown, bundle) for name in shown}


def _on_its_grid(name: str, shown: Mapping[str, Shown], bundle: Bundle) -> Shown:
    """An input as the model takes it: on its own grid, or on that of another."""
    one, onto = shown[name], bundle.manifest.inputs[name].on_grid_of
    if onto is None:
        return one
    other = shown[onto]
    if not isinstance(one, Volume) or not isinstance(other, Volume):
        raise TypeError("only a volume lies on a grid")
    return volume.resampled(one, onto=other)


@contextmanager
def _folder(context: Context, job: Job) -> Iterator[Path]:
    """A new folder for this run's results, gone again unless the block succeeds.

    Each run has its own: one that comes too late must not touch what another has recorded.
    """
    folder = context.configuration.node.data_dir / kept_results.folder(job.id)
    folder.mkdir(parents=True, exist_ok=True)
    run = Path(tempfile.mkdtemp(prefix=f"{job.attempts}-", dir=folder))
    try:
        yield run
        for each in (run, folder, folder.parent):
            sync(each)  # the database will rely on their entries
    except BaseException:
        shutil.rmtree(run, ignore_errors=True)
        raise


def _keep(context: Context, job: Job, files: Sequence[ResultFile], watch: Stopwatch) -> None:
    with context.database.write() as tx:
        kept = moves.predicted(
            tx,
            job.id,
            files,
            owner=context.owner,
            at=context.now(),
            timings=watch.timings,
            device=context.device,
            shipments=_shipments(context, job),
        )
    if not kept:
        shutil.rmtree((context.configuration.node.data_dir / files[0].path).parent)
        _log.warning("predicted too late", job=job.id, model=job.model)
        return
    _log.info("predicted", job=job.id, model=job.model, device=context.device)


def _end(context: Context, job: Job, state: JobState, error: NodeError, watch: Stopwatch) -> None:
    with context.database.write() as tx:
        moves.end(
            tx,
            job.id,
            state,
            at=context.now(),
            reason=error.reason,
            detail=error.detail,
            owner=context.owner,
            timings=watch.timings,
        )
    _log.warning("job ended", job=job.id, state=str(state), reason=error.reason)


def _wait_for_disk(context: Context, job: Job, fault: OSError, watch: Stopwatch) -> None:
    """Put a job off; one whose results find no room costs no attempt, however often."""
    error = RetryLater("file-system", f"{fault.strerror} in the worker's data folder.")
    if fault.errno not in _NO_ROOM:
        _try_again(context, job, error, watch)
        return
    _wait(context, job, error, delay_s=_NO_ROOM_RETRY_S)


def _wait(context: Context, job: Job, error: RetryLater, *, delay_s: float) -> None:
    """Let a job wait for what is not its fault, however often."""
    with context.database.write() as tx:
        moves.try_again(
            tx,
            job.id,
            owner=context.owner,
            at=context.now(),
            not_before=context.now() + delay_s,
            reason=error.reason,
            detail=error.detail,
            counts=False,
        )
    _log.error("job waits", job=job.id, reason=error.reason, detail=error.detail, delay_s=delay_s)


def _try_again(context: Context, job: Job, error: RetryLater, watch: Stopwatch) -> None:
    if isinstance(error, Behind):
        _wait(context, job, error, delay_s=error.retry_s)
        return
    if job.attempts >= context.configuration.worker.attempts:
        _end(context, job, JobState.FAILED, error, watch)
        return
    with context.database.write() as tx:
        moves.try_again(
            tx,
            job.id,
            owner=context.owner,
            at=context.now(),
            not_before=context.now() + _RETRY_S * 2 ** (job.attempts - 1),
            reason=error.reason,
            detail=error.detail,
        )
    _log.warning("job put off", job=job.id, reason=error.reason, attempt=job.attempts)
