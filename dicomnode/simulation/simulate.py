"""A day from its plan to its account."""

from __future__ import annotations

import ipaddress
import json
import socket
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO

from dicomnode.errors import Misconfigured
from dicomnode.network.calling.request import Destination
from dicomnode.simulation import day, objects
from dicomnode.simulation.account import Account, Answer, Document
from dicomnode.simulation.day import Request
from dicomnode.simulation.hospital import Profile
from dicomnode.simulation.likeness import Likeness
from dicomnode.simulation.planned import Day
from dicomnode.simulation.traffic import Pace, Traffic

_HOUR_S = 3600


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """What is simulated.

    Attributes:
        like: Where its objects are made like others.
        speed: Seconds of the day in one of ours; `None` for as fast as the node answers.
    """

    profile: Profile
    request: Request
    like: Likeness | None
    speed: float | None

    def plan(self) -> Day:
        """The plan of the day.

        Raises:
            Misconfigured: As `day.plan`.
        """
        return day.plan(self.profile, self.request)


def on_loopback(to: Destination) -> Destination:
    """Make sure that invented people get into no archive but one of this machine.

    Returns:
        The same by its address: a name may belong to another machine before the day is over.

    Raises:
        Misconfigured: `not-loopback`, or `unknown-host`.
    """
    try:
        found = [
            ipaddress.ip_address(str(one[4][0]).partition("%")[0])
            for one in socket.getaddrinfo(to.host, to.port, type=socket.SOCK_STREAM)
        ]
    except (OSError, UnicodeError) as error:
        raise Misconfigured("unknown-host", f"{to.host} has no address.") from error
    if not all(one.is_loopback for one in found):
        raise Misconfigured(
            "not-loopback",
            f"{to} is another machine, and a simulation fills its archive with people who do not"
            " exist. If that is what you want, say --really.",
        )
    # IPv4 first, as pynetdicom does.
    return replace(to, host=str(min(found, key=lambda one: one.version)))


def run(
    simulation: Simulation,
    plan: Day,
    *,
    to: Destination,
    tell: Callable[[Answer], None],
    ledger: Path | None = None,
) -> Document:
    """Send a day, and say what came of it.

    Args:
        simulation: What the plan was made of.
        plan: What is sent.
        to: The node.
        tell: Told of each answer.
        ledger: A file to write each answer to, a JSON object on a line.

    Raises:
        Misconfigured: `ledger-unwritable`.
    """
    with ExitStack() as stack:
        lines = None if ledger is None else stack.enter_context(_opened(ledger))
        account = Account(tell=lambda answer: _note(answer, lines, tell))
        # Where the day is broken off, senders go on for a while after the ledger is closed.
        stack.callback(account.silence)
        first, _ = simulation.request.hours
        traffic = Traffic(
            plan,
            make=simulation.like.make if simulation.like else objects.make,
            to=to,
            pace=Pace(speed=simulation.speed, begins_s=first * _HOUR_S),
            account=account,
        )
        begin = time.monotonic()
        try:
            traffic.run()
        except KeyboardInterrupt:  # what was sent until then has its account
            traffic.stop()
        return {
            "to": str(to),
            "seed": simulation.request.seed,
            **account.document(planned=planned(plan), seconds=time.monotonic() - begin),
        }


def planned(plan: Day) -> Document:
    """What a day is to bring, in numbers."""
    faults = Counter(
        [str(study.fault) for study in plan.studies.values() if study.fault]
        + [str(one.fault) for one in plan.transfers if one.fault and not one.items]
    )
    return {
        "studies": len(plan.studies),
        "associations": sum(one.copies for one in plan.transfers),
        "objects": sum(len(one.items) for one in plan.transfers),
        "faults": dict(sorted(faults.items())),
    }


def _opened(ledger: Path) -> TextIO:
    try:
        return ledger.open("w", encoding="utf-8")
    except OSError as error:
        raise Misconfigured("ledger-unwritable", f"{ledger}: {error.strerror}.") from error


def _note(answer: Answer, ledger: TextIO | None, tell: Callable[[Answer], None]) -> None:
    if ledger is not None:
        line = {
            "station": answer.station,
            "study": answer.study_instance_uid,
            "sop_instance": answer.sop_instance_uid,
            "taken": answer.is_taken,
            "reason": answer.reason,
            "final": answer.is_final,
            "meant": answer.is_meant,
        }
        print(json.dumps(line), file=ledger)
    tell(answer)
