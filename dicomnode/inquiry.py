"""What an administrator asks: how the node stands, what became of a study, and why.

Each answer is a plain document: what `--json` prints is what the text is made of.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from dicomnode import bundle, node, replay, routing, settings
from dicomnode.alerting import account
from dicomnode.archive import journal
from dicomnode.archive.access import audit
from dicomnode.archive.access.audit import Action, Result
from dicomnode.archive.alerts import standing
from dicomnode.archive.asked import accounts, usage
from dicomnode.archive.auditing.recording import database_of
from dicomnode.archive.database import Database
from dicomnode.archive.journal import Entry, Kind
from dicomnode.archive.studies import decisions
from dicomnode.archive.work import deliveries, jobs, results, revisions
from dicomnode.archive.work.jobs import Job
from dicomnode.config import Configuration, Model
from dicomnode.errors import Misconfigured, NodeError
from dicomnode.job import JobState
from dicomnode.onboarding import checking, trial, tuning
from dicomnode.onboarding.add import Added

Document = dict[str, Any]

_LIST_LENGTH = 20  # of the studies and refusals of late


def status(configuration: Configuration, *, now: float) -> Document:
    """The accounting, the workers and their devices, the studies and refusals of late."""
    with looking(configuration) as tx:
        # A worker shows itself several times in the length of a lease.
        alive = now - configuration.worker.lease_s
        return {
            "node": {
                "ae_title": configuration.node.ae_title,
                "listening_on": node.listening(configuration.node.data_dir),
            },
            "account": asdict(accounts.account(tx)),
            "commitments_untold": accounts.untold(tx),
            "alerts": [account.line(one) for one in standing.open_now(tx)],
            "workers": [asdict(one) for one in accounts.workers(tx, since=alive)],
            "studies": [asdict(one) for one in accounts.studies(tx, limit=_LIST_LENGTH)],
            "refused": [_refusal(one) for one in journal.refusals(tx, limit=_LIST_LENGTH)],
        }


def alerts(configuration: Configuration) -> Document:
    """What is wrong, what was of late, and which channel does not work."""
    with looking(configuration) as tx:
        return account.document(tx, limit=_LIST_LENGTH)


def study(configuration: Configuration, beginning: str) -> Document:
    """One study's outcome, its jobs and their results, and its timeline.

    Args:
        beginning: The Study Instance UID, or as much of it as tells it from the others.
    """
    with looking(configuration) as tx:
        uid = _find(tx, beginning)
        line = accounts.study(tx, uid)
        entries = journal.of_study(tx, uid)
        return {
            "study": uid,
            "outcome": str(line.outcome) if line else "",
            "revision": line.revision if line else 0,
            "instances": line.instances if line else 0,
            "jobs": outcomes(tx, uid, data_dir=configuration.node.data_dir),
            "timeline": [_line(entry) for entry in entries],
        }


def retry(configuration: Configuration, beginning: str, *, person: str, now: float) -> Document:
    """Run the failed jobs of a study once more; the only answer here that changes something.

    Args:
        person: Who asks for it: it is written down as what is done on the page is.
    """
    with _database(configuration) as database, database.write() as tx:
        uid = _find(tx, beginning)
        begun = revisions.retry(tx, uid, at=now)
        audit.write(
            tx,
            Action.RETRY,
            at=now,
            person=person,
            subject=f"study {uid}",
            outcome=Result.DONE if begun else Result.REFUSED,
            study=uid,
        )
        return {"study": uid, "jobs": begun}


def why(configuration: Configuration, beginning: str) -> Document:
    """For each rule and each series of a study, the clause that decided."""
    with looking(configuration) as tx:
        uid = _find(tx, beginning)
        return {
            "study": uid,
            "decisions": [
                asdict(one) | {"explanation": routing.explain(one)}
                for one in decisions.newest(tx, uid)
            ],
        }


def replay_(configuration: Configuration, *, proposed: Configuration, since: float) -> Document:
    """What a proposed configuration would have done with the studies that were seen.

    Args:
        configuration: Whose database the studies are in.
        proposed: Whose routes, models and peers are asked.
        since: Seconds since the epoch.
    """
    rules = settings.rules(proposed)
    with looking(configuration) as tx:
        found = replay.replay(tx, rules, since=since)
    return {
        "since": since,
        "studies": found.studies,
        "without_headers": found.without_headers,
        "runs_before": found.runs_before,
        "runs_after": found.runs_after,
        "counts": dict(found.counts),
        "differences": [asdict(one) | {"change": str(one.change)} for one in found.differences],
    }


def outcomes(tx: Connection, study_instance_uid: str, *, data_dir: Path) -> list[Document]:
    """How each rule ended for each series: by a job, or by the clause that said no."""
    made = decisions.newest(tx, study_instance_uid)
    every = [
        one for one in jobs.of_study(tx, study_instance_uid) if one.state is not JobState.SUPERSEDED
    ]
    entries = journal.of_study(tx, study_instance_uid)
    by_job = [_job_outcome(tx, one, entries, data_dir=data_dir) for one in every]
    by_clause = [
        {
            "route": one.rule,
            "series": one.series_instance_uid,
            "state": one.outcome,
            "reason": one.detail,
            "results": [],
            "timings_s": {},
        }
        for one in made
        if one.outcome != routing.Outcome.JOB
    ]
    return by_job + by_clause


def _job_outcome(tx: Connection, job: Job, entries: Sequence[Entry], *, data_dir: Path) -> Document:
    series = [uid for one in job.inputs.values() for uid in one.series]
    return {
        "route": job.rule,
        "series": series[0] if len(series) == 1 else series,
        "state": str(job.state),
        "reason": f"{job.reason}: {job.detail}" if job.reason else "",
        "results": [
            {
                "kind": one.kind,
                "path": str(data_dir / one.path) if one.path else "",  # removed
                "sop_instance_uid": one.sop_instance_uid,
            }
            for one in results.of_job(tx, job.id)
        ],
        "timings_s": _timings(tx, job, entries),
        "job": job.id,
        "model": job.model,
        "device": job.device,
        "deliveries": [
            {
                "destination": one.destination,
                "purpose": str(one.purpose),
                "state": str(one.state),
                "attempts": one.attempts,
                "reason": f"{one.reason}: {one.detail}" if one.reason else "",
            }
            for one in deliveries.of_job(tx, job.id)
        ],
    }


def _timings(tx: Connection, job: Job, entries: Sequence[Entry]) -> dict[str, float]:
    """Seconds for each stage of a job's way, from the study's first instance to the end."""
    moved = {
        entry.facts.get("state"): entry.at
        for entry in entries
        if entry.kind == Kind.JOB_MOVED and entry.job == job.id
    }
    began, predicted = moved.get(JobState.PREDICTING), moved.get(JobState.DELIVERING)
    line = accounts.study(tx, job.study_instance_uid)
    first_at, last_at = (line.first_at, line.last_at) if line else (None, None)
    times = {
        "receive": _between(first_at, last_at),
        "complete": _between(last_at, job.created_at),
        "queue": _between(job.created_at, began),
        **job.timings,
        "deliver": _between(predicted, job.ended_at),
        "total": _between(first_at, job.ended_at),
    }
    return {stage: round(seconds, 3) for stage, seconds in times.items() if seconds is not None}


def _between(begin: float | None, end: float | None) -> float | None:
    """Seconds; a late instance may come after the job that it does not belong to began."""
    return None if begin is None or end is None else max(0.0, end - begin)


def _line(entry: Entry) -> Document:
    return {"at": entry.at, "what": entry.kind, "job": entry.job} | {"facts": entry.facts}


def _refusal(entry: Entry) -> Document:
    return {"at": entry.at} | entry.facts


@contextmanager
def looking(configuration: Configuration) -> Iterator[Connection]:
    """One look at the database of a node, which may be running and is left as it is."""
    with _database(configuration) as database, database.read() as tx:
        yield tx


@contextmanager
def _database(configuration: Configuration) -> Iterator[Database]:
    database = database_of(configuration)
    try:
        if not database.has_schema():
            raise Misconfigured(
                "nothing-yet", "This node has never run: there is no database. Start it first."
            )
        yield database
    finally:
        database.close()


def _find(tx: Connection, beginning: str) -> str:
    found = accounts.matching(tx, beginning)
    if len(found) == 1 or beginning in found:
        return beginning if beginning in found else found[0]
    if found:
        raise Misconfigured(
            "ambiguous-study", f"{len(found)} studies begin with {beginning}: give more of the UID."
        )
    raise Misconfigured(
        "unknown-study",
        f"No instance of a study {beginning} is indexed. `dicomnode status` lists the studies, and"
        " what was refused.",
    )


def models(configuration: Configuration) -> list[Document]:
    """The bundles of a configuration: what each is, exactly which, and how it is used."""
    uses = _uses(configuration)
    return [
        _model(name, model) | _used(uses.get(name)) for name, model in configuration.models.items()
    ]


def _model(name: str, model: Model) -> Document:
    place = {"name": name, "bundle": str(model.bundle)}
    try:
        loaded = bundle.load(model.bundle, manifest=model.manifest)
    except NodeError as error:
        return place | {"fault": str(error), "tuning": None, "is_tuned": False}
    tuned = tuning.read(model.bundle, manifest=model.manifest)
    return place | {
        "fault": "",
        "title": loaded.manifest.name,
        "version": loaded.version,
        "digest": loaded.digest,
        "inputs": {key: " or ".join(one.modalities) for key, one in loaded.manifest.inputs.items()},
        "outputs": {key: one.kind for key, one in loaded.manifest.outputs.items()},
        "intended_use": loaded.manifest.intended_use,
        "tuning": asdict(tuned) if tuned else None,
        "is_tuned": tuned is not None and tuned.digest == loaded.digest,
    }


def _uses(configuration: Configuration) -> dict[str, usage.Use]:
    """Model → its last use; nothing where the node has never run."""
    database = database_of(configuration)
    try:
        if not database.has_schema():
            return {}
        with database.read() as tx:
            return usage.last(tx)
    finally:
        database.close()


def _used(use: usage.Use | None) -> Document:
    return {"device": use.device if use else "", "last_used_at": use.at if use else None}


def check_models(
    configuration: Configuration, *, run: bool = False, device: str | None = None
) -> list[Document]:
    """Each bundle of a configuration with what is wrong with it, if anything."""
    return [
        check_bundle(model.bundle, name=name, manifest=model.manifest, run=run, device=device)
        for name, model in configuration.models.items()
    ]


def check_bundle(
    root: Path,
    *,
    name: str | None = None,
    manifest: Path | None = None,
    run: bool = False,
    device: str | None = None,
) -> Document:
    """One bundle with what is wrong with it, and what it needs that is not installed.

    Args:
        run: Run it once on a synthetic image as well, in a process of its own.
    """
    found = checking.check(root, manifest_path=manifest)
    is_draft = any(one.code == "manifest-draft" for one in found)
    tried = trial.run(root, device=device, draft=is_draft) if run else None
    errors = [one for one in found if one.level == "error"]
    sound = not errors and (tried is None or tried.ran)
    return {
        "name": name or root.resolve().name,
        "bundle": str(root),
        "sound": sound,
        "detail": _digest(root, manifest) if sound else "",
        "findings": [asdict(one) for one in found],
        "trial": asdict(tried) if tried else None,
    }


def has_warning(document: Document) -> bool:
    """Whether something of a checked bundle may be wrong."""
    return any(one["level"] == "warning" for one in document["findings"])


def _digest(root: Path, manifest: Path | None) -> str:
    return f"sha256 {bundle.load(root, manifest=manifest).digest}"


def added(one: Added, *, run: bool, device: str | None) -> Document:
    """A bundle that has just come: what it is, what must be confirmed, and how it ran.

    Args:
        run: Run it once on a synthetic image, in a process of its own.
    """
    tried = trial.run(one.path, device=device, draft=bool(one.guesses)) if run else None
    found = checking.check(one.path)
    return asdict(one) | {
        "path": str(one.path),
        "findings": [asdict(each) for each in found if each.code != "manifest-draft"],
        "trial": asdict(tried) if tried else None,
    }
