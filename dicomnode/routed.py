"""A complete study → decisions and jobs in the database: what routing says, and what is in its way.

The rules know a study by its headers alone. Here they meet what the node remembers of it: which
series it made itself, and of which something was removed.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection

from dicomnode import routing
from dicomnode.archive import journal
from dicomnode.archive.asked import headers
from dicomnode.archive.journal import Kind
from dicomnode.archive.studies import decisions, index
from dicomnode.archive.work import revisions
from dicomnode.archive.work.jobs import JobInput
from dicomnode.study import Study


def apply(tx: Connection, study: Study, rules: Sequence[routing.Rule], *, at: float) -> int:
    """Record what each rule decides about a study, ask for jobs, and supersede earlier ones.

    Returns:
        How many jobs the study has now that are wanted.
    """
    uid = study.study_instance_uid
    found = routing.route(study, rules, own=headers.own(tx, study.series))
    found = routing.hold(found, _incomplete(tx, study))
    decisions.record(tx, uid, [_recorded(study, one) for one in found.decisions])
    wanted = [_new_job(study, one) for one in found.jobs]
    for job in wanted:
        revisions.create(tx, job, at=at)
    revisions.supersede_unwanted(
        tx,
        uid,
        rules={rule.name for rule in rules},
        wanted=[job.id for job in wanted],
        held={
            (one.rule, one.series_instance_uid)
            for one in found.decisions
            if one.outcome is routing.Outcome.HELD
        },
        at=at,
    )
    return len(wanted)


def hold(
    tx: Connection,
    study_instance_uid: str,
    rules: Sequence[routing.Rule],
    fault: str,
    *,
    at: float,
) -> None:
    """End the routing of a study that cannot be routed: every rule holds it, and says why."""
    study = index.study(tx, study_instance_uid)
    if study is None:
        return
    revision = study.revision + 1
    detail = f"{fault} while the study was routed; the log of the node says more."
    index.complete(tx, study_instance_uid, revision=revision, because=detail, at=at)
    held = [
        decisions.Recorded(
            revision=revision,
            rule=rule.name,
            series_instance_uid=series.series_instance_uid,
            model=rule.model,
            outcome=routing.Outcome.HELD,
            origin="",
            clause="",
            value="",
            detail=detail,
        )
        for rule in rules
        for series in study.series
    ]
    decisions.record(tx, study_instance_uid, held)
    journal.write(tx, Kind.ROUTING_FAILED, at=at, study=study_instance_uid, detail=detail)


def _incomplete(tx: Connection, study: Study) -> dict[str, str]:
    """The series that came in part after the whole had been removed, and what to do about each."""
    return {
        series: f"The series was removed after its delivery, and {count} of its instances have not"
        " come again: send the whole study."
        for series, count in revisions.torn(tx, study.study_instance_uid).items()
    }


def _recorded(study: Study, decision: routing.Decision) -> decisions.Recorded:
    return decisions.Recorded(
        revision=study.revision,
        rule=decision.rule,
        series_instance_uid=decision.series_instance_uid,
        model=decision.model,
        outcome=decision.outcome,
        origin=decision.origin,
        clause=decision.clause,
        value=decision.value,
        detail=decision.detail,
    )


def _new_job(study: Study, routed: routing.NewJob) -> revisions.NewJob:
    instances = {
        one.series_instance_uid: tuple(i.sop_instance_uid for i in one.instances)
        for one in study.series
    }
    return revisions.NewJob(
        key=routed.key,
        study_instance_uid=study.study_instance_uid,
        revision=study.revision,
        rule=routed.rule,
        model=routed.model,
        model_digest=routed.model_digest,
        inputs={
            name: JobInput(
                series=series, instances=tuple(uid for one in series for uid in instances[one])
            )
            for name, series in routed.inputs.items()
        },
        send_to=routed.send_to,
        notify=routed.notify,
        priority=routed.priority,
    )
