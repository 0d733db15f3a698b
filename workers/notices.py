"""Notices: made when they are sent, checked like results, and kept beside them.

A delivery that is not there for results carries one object: a report that says why a study was not
analysed, or a key object selection that rejects what an earlier delivery brought.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError

from dicomnode import results
from dicomnode.archive.studies import index
from dicomnode.archive.work import results as kept_results
from dicomnode.archive.work.deliveries import Delivery
from dicomnode.archive.work.jobs import Job
from dicomnode.archive.work.results import ResultFile
from dicomnode.errors import Failed, RetryLater
from dicomnode.job import Purpose
from dicomnode.results import notices
from dicomnode.results.notices import NotAnalysed, Referenced, Rejection
from workers import kept
from workers.context import Context


def of(context: Context, delivery: Delivery, job: Job) -> ResultFile:
    """The notice of a delivery: the one that was made for it before, or a new one.

    Raises:
        Failed: What it needs is not there any more.
        RetryLater: A file could not be read or written just now.
        ResultMismatch: It does not say what it is to say.
    """
    with context.database.read() as tx:
        made = kept_results.notice(tx, delivery.id)
    if made is not None:
        return made
    if delivery.purpose is Purpose.NOT_ANALYSED:
        result, header, about = _not_analysed(context, delivery, job)
    else:
        result, header, about = _rejection(context, delivery)
    file = _keep(context, delivery, job, result)
    path = context.configuration.node.data_dir / file.path
    notices.check(path, meant=result, header=header, about=about)
    with context.database.write() as tx:
        kept_results.record_notice(tx, delivery.id, file)
    return file


_Made = tuple[results.Result, Dataset, Sequence[Referenced]]


def _not_analysed(context: Context, delivery: Delivery, job: Job) -> _Made:
    wanted = {uid for one in job.inputs.values() for uid in one.instances}
    with context.database.read() as tx:
        study = index.study(tx, job.study_instance_uid)
    images = [
        instance
        for series in (study.series if study else ())
        for instance in series.instances
        if instance.sop_instance_uid in wanted
    ]
    if not images:
        raise Failed("no-images", "Not one of the images is kept any more.")
    header = _header(context.store.absolute(images[0].path))
    about = tuple(
        Referenced(
            series_instance_uid=one.series_instance_uid,
            sop_class_uid=one.sop_class_uid,
            sop_instance_uid=one.sop_instance_uid,
        )
        for one in images
    )
    given = NotAnalysed(
        key=_key(job.key, delivery.destination, job.reason),
        header=header,
        model=job.model,
        reason=job.reason,
        detail=job.detail,
        images=about,
        moment=_moment(job.ended_at or job.created_at),
    )
    return notices.not_analysed(given), header, about


def _rejection(context: Context, delivery: Delivery) -> _Made:
    data_dir = context.configuration.node.data_dir
    with context.database.read() as tx:
        files = kept_results.delivered_by(tx, delivery.about or "")
    if not files or not all(file.path for file in files):
        raise Failed("no-results", "What is to be rejected is not kept any more.")
    headers = [_header(data_dir / file.path) for file in files]
    about = tuple(
        Referenced(
            series_instance_uid=file.series_instance_uid,
            sop_class_uid=str(header.SOPClassUID),
            sop_instance_uid=file.sop_instance_uid,
        )
        for file, header in zip(files, headers, strict=True)
    )
    given = Rejection(
        key=_key(*(one.sop_instance_uid for one in about)),
        header=headers[0],
        objects=about,
        moment=_moment(delivery.created_at),
    )
    return notices.rejection(given), headers[0], about


def _key(*parts: str) -> str:
    """What the UIDs of a notice are derived from: the same notice is the same object."""
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()


def _moment(at: float) -> datetime:
    return datetime.fromtimestamp(at, tz=UTC).astimezone()


def _header(path: Path) -> Dataset:
    try:
        return dcmread(path, stop_before_pixels=True)
    except FileNotFoundError as error:
        raise Failed("file-missing", f"{path.name} is not on disk any more.") from error
    except OSError as error:
        raise RetryLater("file-unavailable", f"{path.name}: {error.strerror}.") from error
    except InvalidDicomError as error:
        raise Failed("undecodable", f"{path.name} is not readable DICOM.") from error


def _keep(context: Context, delivery: Delivery, job: Job, result: results.Result) -> ResultFile:
    data_dir = context.configuration.node.data_dir
    try:
        (path,) = results.write([result], data_dir / kept_results.folder(job.id) / delivery.id)
        return kept.of(result, path, data_dir=data_dir)
    except OSError as error:
        raise RetryLater("file-system", f"A notice cannot be kept: {error.strerror}.") from error
