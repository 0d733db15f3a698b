"""What is always said of each kind of alert, in the words of the runbook."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dicomnode.alert import Kind

Facts = Mapping[str, Any]

_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86_400
_GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class About:
    """What is always said of a kind of alert, in the words of the runbook.

    Attributes:
        says: What is wrong, from what it is about and from what was counted.
        over: The same once it is over.
        means: What it means for studies.
        to_do: What to do, step by step.
        path: Where the page shows more.
    """

    says: Callable[[str, Facts], str]
    over: Callable[[str, Facts], str]
    means: str
    to_do: tuple[str, ...]
    path: str


def length(seconds: float) -> str:
    """A length of time in one unit."""
    for unit, size in (("days", _DAY_S), ("hours", _HOUR_S), ("minutes", _MINUTE_S)):
        if seconds >= 2 * size:
            return f"{seconds // size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} seconds"


def _counted(facts: Facts, one: str, many: str) -> str:
    count = int(facts.get("count", 0))
    return f"{count} {one if count == 1 else many}"


def _free(facts: Facts) -> str:
    host = facts.get("host", "")
    free = f"{facts.get('free_bytes', 0) / _GIB:.1f} GiB are free"
    return f"{free} on {host}" if host else free


def _nearly_full(_subject: str, facts: Facts) -> str:
    refused = "everything is" if facts.get("is_full") else "new studies are"
    return f"{_free(facts)}: {refused} refused."


ABOUT: Mapping[Kind, About] = {
    Kind.STUDY_FAILED: About(
        says=lambda _, facts: f"{_counted(facts, 'study has', 'studies have')} failed.",
        over=lambda _, facts: (
            f"no study has failed of late; {_counted(facts, 'study', 'studies')} had."
        ),
        means="nobody gets an answer for them until somebody has looked.",
        to_do=(
            "Look at each: the page, or `dicomnode status STUDY`, gives the reason as a word.",
            "Look that word up in the runbook, below Reasons.",
            (
                "Where the cause is gone, `dicomnode retry STUDY`; where the images are at fault,"
                " have them sent again, whole."
            ),
        ),
        path="/studies?outcome=failed",
    ),
    Kind.EVERYTHING_FAILS: About(
        says=lambda _, facts: (
            f"{_counted(facts, 'study has', 'studies have')} failed within an hour, and none was"
            " delivered."
        ),
        over=lambda *_: "studies come through again, or fail no more.",
        means="a model, a device or a rule is at fault, not a study.",
        to_do=(
            (
                "Look at the reason of the last: a device (out-of-memory, time-limit), a model"
                " (bundle-error, bundle-changed), the disk (file-system)."
            ),
            "When it is put right, `dicomnode retry STUDY` for each.",
        ),
        path="/studies?outcome=failed",
    ),
    Kind.DESTINATION_DOWN: About(
        says=lambda subject, facts: (
            f"{subject} takes no results;"
            f" {_counted(facts, 'delivery does', 'deliveries do')} not get through."
        ),
        over=lambda subject, _: f"{subject} takes results again, or none waits for it.",
        means="they are tried again with growing pauses, and none is lost.",
        to_do=(
            "`dicomnode check node.toml --live` asks it with C-ECHO.",
            "Look the reason up in the runbook, below On the way to the destination.",
            "Deliveries go on by themselves once it is back.",
        ),
        path="/peers",
    ),
    Kind.DELIVERY_FAILED: About(
        says=lambda subject, facts: (
            f"{subject} has refused {_counted(facts, 'delivery', 'deliveries')} for good."
        ),
        over=lambda subject, facts: (
            f"{subject} has refused nothing of late;"
            f" {_counted(facts, 'delivery was', 'deliveries were')} refused."
        ),
        means="they are not tried again by themselves.",
        to_do=(
            "`dicomnode status STUDY` of a failed study says which object, and what was answered.",
            "Then `dicomnode retry STUDY` sends once more and runs no model again.",
        ),
        path="/peers",
    ),
    Kind.NO_WORKER: About(
        says=lambda _, facts: (
            f"no worker runs models; {_counted(facts, 'job waits', 'jobs wait')}."
        ),
        over=lambda *_: "a worker runs models, or none is asked for.",
        means="studies are received and wait. None is lost.",
        to_do=(
            (
                "Look at `systemctl status 'dicomnode-predict@*'` (one unit: dicomnode), and at the"
                " log of the worker."
            ),
            "device-absent: the driver or the GPU is away; after a repair start the unit again.",
            "database-unavailable, broker-away: PostgreSQL or Redis; workers go on by themselves.",
        ),
        path="/workers",
    ),
    Kind.NO_DELIVERER: About(
        says=lambda _, facts: (
            f"no worker delivers results; {_counted(facts, 'delivery waits', 'deliveries wait')}."
        ),
        over=lambda *_: "a worker delivers results, or none waits.",
        means="results are made, kept, and wait to be sent.",
        to_do=(
            "Look at `systemctl status dicomnode-deliver` (one unit: dicomnode), and at its log.",
            "database-unavailable, broker-away: PostgreSQL or Redis; workers go on by themselves.",
        ),
        path="/workers",
    ),
    Kind.QUEUE_OLD: About(
        says=lambda _, facts: (
            f"{_counted(facts, 'job waits', 'jobs wait')} for a model, one for more than half an"
            " hour."
        ),
        over=lambda *_: "no job has waited long for a model.",
        means="more comes than the workers can do, or they stand still.",
        to_do=(
            "Are all workers there? The page, or `dicomnode status`, lists them.",
            (
                "Then start one more, raise worker.slots where the GPU has the memory, or let"
                " `dicomnode models tune` look for a faster way."
            ),
        ),
        path="/workers",
    ),
    Kind.DELIVERIES_OLD: About(
        says=lambda _, facts: (
            f"{_counted(facts, 'delivery waits', 'deliveries wait')}, one for more than four hours."
        ),
        over=lambda *_: "no delivery has waited long.",
        means="a destination does not answer, or has not confirmed what it got.",
        to_do=(
            "Which destination is it? The page lists what waits for each, and why.",
            "awaiting-commitment: it must know the node's AE title, address and port.",
        ),
        path="/peers",
    ),
    Kind.MODEL_SLOW: About(
        says=lambda subject, facts: (
            f"{subject} takes {length(facts.get('seconds', 0))}; after"
            f" {length(facts.get('limit_s', 0))} it is stopped."
        ),
        over=lambda subject, _: f"{subject} is as fast as it was, or does not run.",
        means="past worker.timeout_s the study fails.",
        to_do=(
            "Is its worker on the CPU? Do other programs use the GPU (`nvidia-smi`)?",
            "Then raise worker.timeout_s, and with it the time that units and pods have to end.",
        ),
        path="/models",
    ),
    Kind.DISK_NEARLY_FULL: About(
        says=_nearly_full,
        over=lambda _, facts: f"there is room on the disk again ({_free(facts)} when it was not).",
        means="senders get A700, and may send again once there is room.",
        to_do=(
            "Find what else lies on that disk: `du --max-depth=1 --one-file-system`.",
            (
                "Give it more room, or let the node remove what was delivered long ago:"
                " disk.keep_delivered_days."
            ),
            "Never remove files in instances/ or results/ by hand.",
        ),
        path="/workers",
    ),
    Kind.DISK_FILLS: About(
        says=lambda _, facts: f"the disk will be full within a day; {_free(facts)}.",
        over=lambda *_: "the disk fills no faster than it has room for.",
        means="as fast as it has filled for hours, new studies will be refused.",
        to_do=(
            "Find what else lies on that disk: `du --max-depth=1 --one-file-system`.",
            (
                "Give it more room, or let the node remove what was delivered long ago:"
                " disk.keep_delivered_days."
            ),
        ),
        path="/workers",
    ),
    Kind.NOTHING_RECEIVED: About(
        says=lambda _, facts: (
            "nothing has arrived for an unusual time."
            if facts.get("is_learned")
            else "nothing has arrived for longer than alerts.silence_hours."
        ),
        over=lambda *_: "studies arrive again.",
        means="the node is well; somebody else no longer sends, or cannot reach it.",
        to_do=(
            "Is somebody refused? The page lists it below Peers, as does `dicomnode status`.",
            "`dicomnode check node.toml --live`: do the peers answer?",
            (
                "Then look at the sender: its AE title, address and port for the node, a firewall,"
                " a queue that stands still. A public holiday looks the same."
            ),
        ),
        path="/peers",
    ),
    Kind.MANY_ASSOCIATIONS: About(
        says=lambda _, facts: (
            f"{_counted(facts, 'association is', 'associations are')} open, of"
            f" {facts.get('limit', '?')}."
        ),
        over=lambda *_: "there is room for associations again.",
        means="with listen.max_associations of them, further ones are refused.",
        to_do=(
            "Which peers are they? The page lists them.",
            (
                "One that opens and does not close is ended after listen.idle_s; max_associations"
                " of that peer keeps it from taking every place."
            ),
        ),
        path="/peers",
    ),
}
