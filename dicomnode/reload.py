"""A changed file → what is in force: read, checked, shown, and taken up whole; or nothing changes.

The file is the one source of what is in force after a start, and the row (`archive.work.in_force`)
what tells the workers. A change is written down before it is taken up: a node that dies between the
two reads the same file at its next start.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from sqlalchemy import Connection

from dicomnode import check, config, log, settings
from dicomnode.archive.access import audit
from dicomnode.archive.access.audit import Action, Result
from dicomnode.archive.asked import figures
from dicomnode.archive.database import Database
from dicomnode.archive.keeping import preview
from dicomnode.archive.work import in_force
from dicomnode.bundle import DIGEST_SHOWN
from dicomnode.config import Change, Configuration, Problem, When, key_path
from dicomnode.config.difference import fingerprint
from dicomnode.errors import NodeError
from dicomnode.job import DeliveryState
from dicomnode.node import Prepared

_log = log.get(__name__)

_UNDER_WAY = (DeliveryState.PENDING, DeliveryState.SENDING)
# A rule may name a patient, whom neither the log nor the audit trail names.
_NOT_TOLD = "Patient"
_GIB = 2**30


class Running(Protocol):
    """The node, as far as it is changed here."""

    @property
    def configuration(self) -> Configuration:
        """What is in force."""

    @property
    def bundles(self) -> Mapping[str, str]:
        """Model → the digest of the bundle that studies are routed to."""

    @property
    def database(self) -> Database:
        """Where its rows are."""

    def prepare(self, proposed: Configuration) -> Prepared:
        """Whatever of a configuration can be taken up now."""

    def take_up(self, prepared: Prepared) -> bool:
        """Go by it from now on; whether every listener does."""


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """What the file says, beside what is in force.

    Attributes:
        problems: What `check` finds, and what a change would do to work that is under way.
        changes: What differs, that which waits for a restart among it.
        fingerprint: Tells whether the file still says the same; "" where it cannot be used.
    """

    problems: tuple[Problem, ...]
    changes: tuple[Change, ...] = ()
    fingerprint: str = ""
    configuration: Configuration | None = field(default=None, repr=False)

    @property
    def may_be_applied(self) -> bool:
        """Whether there is something to take up, and nothing against it."""
        return self.configuration is not None and bool(self.changes)

    @property
    def waiting(self) -> tuple[Change, ...]:
        """Those of the changes that wait for a restart."""
        return tuple(one for one in self.changes if one.when is When.RESTART)


@dataclass(frozen=True, kw_only=True)
class By:
    """Who asks; nobody that is known for a signal."""

    person: str = ""
    address: str = ""


@dataclass(frozen=True, kw_only=True)
class Reloaded:
    """What became of it.

    Attributes:
        said: One sentence.
    """

    proposal: Proposal
    applied: bool
    said: str


class Reload:
    """Brings what the file says into force while the node runs. Any thread may ask."""

    def __init__(
        self,
        file: Path,
        node: Running,
        *,
        environ: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._file = file
        self._node = node
        self._environ = environ
        self._clock = clock
        self._secret = secrets.token_bytes(32)
        self._lock = threading.Lock()
        self._waiting: tuple[Change, ...] = ()

    @property
    def waiting(self) -> tuple[Change, ...]:
        """What was asked for and waits for a restart."""
        return self._waiting

    def propose(self, *, live: bool = False) -> Proposal:
        """Read the file as it is now, check it, and compare it; nothing changes.

        Args:
            live: Also ask the peers and the broker.

        Raises:
            RetryLater: `database-unavailable`.
        """
        reading = config.read(self._file, self._environ)
        found = check.of(reading, live=live)
        proposed = reading.configuration
        if proposed is None or check.exit_code(found) == check.EXIT_ERRORS:
            return Proposal(problems=found)
        running = self._node.configuration
        before, after = self._node.bundles, settings.digests(settings.bundles(proposed))
        locked_anew = [name for name in after if before.get(name, after[name]) != after[name]]
        with self._node.database.read() as tx:
            found = (*found, *self._consequences(tx, running, proposed, locked_anew))
        bundles = (_of_bundle(name, before[name], after[name]) for name in locked_anew)
        return Proposal(
            problems=found,
            changes=(*config.difference(running, proposed), *bundles),
            fingerprint=fingerprint(proposed, bundles=after, secret=self._secret),
            configuration=proposed,
        )

    def _consequences(
        self,
        tx: Connection,
        running: Configuration,
        proposed: Configuration,
        locked_anew: Collection[str],
    ) -> list[Problem]:
        """What a change would do to work that is under way, and to studies that are kept."""
        return [
            *_peers_in_use(tx, running, proposed),
            *_models_in_use(tx, running, proposed, locked_anew),
            *_removals(tx, running, proposed, now=self._clock()),
        ]

    def apply(self, *, by: By, only: str | None = None) -> Reloaded:
        """Take up what the file says, all at once; or nothing, and say why.

        Args:
            by: Who asks.
            only: The fingerprint of what somebody has seen: the file must still say that.

        Raises:
            RetryLater: `database-unavailable`; nothing has changed.
        """
        with self._lock:
            proposal = self.propose()
            refusal = _refusal(proposal, only)
            if refusal is None:
                return self._take_up(proposal, by)
            if proposal.configuration is not None and not proposal.changes:
                self._waiting = ()  # what waited has been taken back
            return self._refuse(proposal, by, refusal)

    def _refuse(self, proposal: Proposal, by: By, why: str) -> Reloaded:
        with self._node.database.write() as tx:
            self._note(tx, by, Result.REFUSED, why)
        return Reloaded(proposal=proposal, applied=False, said=why)

    def _take_up(self, proposal: Proposal, by: By) -> Reloaded:
        assert proposal.configuration is not None  # noqa: S101 - it was asked before
        try:
            prepared = self._node.prepare(proposal.configuration)
        except NodeError as error:  # the place has changed, or what waits does not go with the rest
            return self._refuse(proposal, by, str(error))
        told = "; ".join(_told(one) for one in proposal.changes)
        with self._node.database.write(durable=True) as tx:
            digest = config.digest(prepared.configuration)
            in_force.record(tx, digest=digest, at=self._clock())
            self._note(tx, by, Result.DONE, told)
        everywhere = self._node.take_up(prepared)
        self._waiting = config.difference(prepared.configuration, proposal.configuration)
        return Reloaded(proposal=proposal, applied=True, said=_said(proposal, everywhere))

    def _note(self, tx: Connection, by: By, outcome: Result, detail: str) -> None:
        audit.write(
            tx,
            Action.RELOAD,
            at=self._clock(),
            person=by.person,
            address=by.address,
            subject=self._file.name,
            outcome=outcome,
            detail=detail,
        )

    def by_signal(self) -> None:
        """Do it because of a SIGHUP, and log what became of it."""
        try:
            done = self.apply(by=By())
        except NodeError as error:
            _log.error("reload failed", reason=error.reason, detail=error.detail)
            return
        for one in done.proposal.problems:
            report = _log.error if one.level == "error" else _log.warning
            detail = "" if _NOT_TOLD in f"{one.path}{one.message}" else one.message
            report("configuration", reason=one.code, path=one.path, detail=detail)
        if not done.applied:
            _log.warning("nothing was reloaded", detail=done.said)
            return
        for change in done.proposal.changes:
            _log.info("configuration changed", path=change.path, state=str(change.when))
        _log.info("reloaded", detail=done.said, count=len(done.proposal.changes))


def _refusal(proposal: Proposal, only: str | None) -> str | None:
    """Why nothing is taken up; `None` where nothing is against it."""
    if proposal.configuration is None:
        errors = [one for one in proposal.problems if one.level == "error"]
        paths = ", ".join(dict.fromkeys(one.path or one.code for one in errors))
        return f"The file has errors, and nothing has changed: {paths}."
    if only is not None and only != proposal.fingerprint:
        return "The file has changed since it was shown. Look at what it says now."
    return None if proposal.changes else "The file says what is in force: there is nothing to do."


def _said(proposal: Proposal, everywhere: bool) -> str:  # noqa: FBT001 - of this module alone
    paths = ", ".join(one.path for one in proposal.waiting)
    waiting = f"; waiting for a restart: {paths}" if paths else ""
    slow = "" if everywhere else "; a listener does not answer, see the log"
    return f"Applied{waiting}{slow}."


def _of_bundle(model: str, old: str, new: str) -> Change:
    """That the bundle of a model was locked anew."""
    path = f"{key_path('models', model)} (its bundle)"
    return Change(path=path, old=old[:DIGEST_SHOWN], new=new[:DIGEST_SHOWN], when=When.NOW)


def _told(change: Change) -> str:
    """A change, for the audit trail."""
    return change.path if _NOT_TOLD in f"{change.old}{change.new}" else str(change)


def _peers_in_use(tx: Connection, running: Configuration, proposed: Configuration) -> list[Problem]:
    counts = figures.deliveries(tx)
    return [
        Problem.warning(
            key_path("peers", name),
            f"Deliveries on their way there, which would fail: {count}. Keep it until they are"
            " done.",
            "peer-in-use",
        )
        for name in running.peers
        if name not in proposed.peers
        if (count := sum(counts.get((name, state), 0) for state in _UNDER_WAY))
    ]


def _models_in_use(
    tx: Connection,
    running: Configuration,
    proposed: Configuration,
    locked_anew: Collection[str],
) -> list[Problem]:
    counts = figures.waiting_by_model(tx)
    helps = dict.fromkeys(running.models.keys() - proposed.models, "Take its routes out first.")
    # A job is done by the bundle that it was routed to, or not at all.
    helps |= dict.fromkeys(locked_anew, "Wait until they are done.")
    return [
        Problem.warning(
            key_path("models", name),
            f"Jobs that wait for it and would fail: {counts[name]}. {helps[name]}",
            "model-in-use",
        )
        for name in running.models
        if name in helps and counts.get(name)
    ]


def _removals(
    tx: Connection, running: Configuration, proposed: Configuration, *, now: float
) -> list[Problem]:
    days = proposed.disk.keep_delivered_days
    if days is None or days == running.disk.keep_delivered_days:
        return []
    due = preview.preview(tx, days=days, now=now).due[0]
    if not due.studies:
        return []
    message = (
        f"Studies that would be removed within the hour: {due.studies}, with"
        f" {due.size / _GIB:.1f} GiB. `dicomnode retention` says more."
    )
    return [Problem.warning(key_path("disk", "keep_delivered_days"), message, "studies-would-go")]
