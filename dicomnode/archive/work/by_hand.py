"""A job that a person asks for, and no rule: the same images through another model.

It stands beside what the rules asked for: a new revision of the study leaves it alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection

from dicomnode import job as job_words
from dicomnode.archive.studies import index, outcomes
from dicomnode.archive.work import jobs, revisions
from dicomnode.job import Priority

_RULE = "by hand: "


def is_by_hand(rule: str) -> bool:
    """Whether a job was asked for by a person, by the name of its rule."""
    return rule.startswith(_RULE)


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is to be run.

    Attributes:
        model: Its name in the configuration.
        digest: Its bundle's.
        input: The one input that it has.
        send_to: Where the results go.
    """

    model: str
    digest: str
    input: str
    send_to: tuple[str, ...]


def run(tx: Connection, job_id: str, order: Order, *, at: float) -> str | None:
    """Ask for a job on the images that another job was made of.

    Returns:
        Its id; `None` where that job has several inputs, its images are not kept any more, or the
        same was asked for before.
    """
    study = outcomes.lock_of_job(tx, job_id)
    source = jobs.job(tx, job_id)
    if study is None or source is None or len(source.inputs) != 1:
        return None
    (images,) = source.inputs.values()
    if not images.instances or not _are_kept(tx, study, images):
        return None
    key = job_words.result_key({order.input: images.instances}, model_digest=order.digest)
    new = revisions.NewJob(
        key=key,
        study_instance_uid=study,
        revision=source.revision,
        rule=f"{_RULE}{order.model}",
        model=order.model,
        model_digest=order.digest,
        inputs={order.input: images},
        send_to=order.send_to,
        priority=Priority.ROUTINE,
    )
    return new.id if revisions.create(tx, new, at=at) else None


def _are_kept(tx: Connection, study: str, images: jobs.JobInput) -> bool:
    wanted = set(images.instances)
    return not index.is_going(tx, study) and len(index.paths_of(tx, wanted)) == len(wanted)
