"""How long it takes to ask what a proposed configuration would have done with 10,000 studies.

A database is made with a hundred instances for each study, one in two of which the rule runs on;
then a rule with one changed clause is replayed. The differences are counted: they must be exactly
the studies that the clause is about.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from dicomnode import replay, routed
from dicomnode.archive import tables
from dicomnode.archive.database import Database
from dicomnode.job import Priority
from dicomnode.matcher import AnyOf, Equals
from dicomnode.replay import Change
from dicomnode.routing import Rule
from dicomnode.routing.clause import Clause, Origin
from dicomnode.study import Instance, Study

_CT = "1.2.840.10008.5.1.4.1.1.2"
_EXPLICIT = "1.2.840.10008.1.2.1"
_BATCH = 500
_ELEMENTS = 60  # of a header, beside those that are asked for


def a_rule(*regions: str) -> Rule:
    """Runs on CT of some regions of the body."""
    forms = tuple(Equals(value=region) for region in regions)
    return Rule(
        name="liver",
        model="liver",
        model_digest="ab" * 32,
        inputs={
            "image": (
                Clause(keyword="Modality", matcher=Equals(value="CT"), origin=Origin.ROUTE),
                Clause(keyword="BodyPartExamined", matcher=AnyOf(forms=forms), origin=Origin.ROUTE),
            )
        },
        send_to=("pacs",),
        priority=Priority.ROUTINE,
    )


def header(study: int) -> dict[str, Any]:
    """What the instances of a study have in common."""
    filling = {f"Element{number}": f"value {number}" for number in range(_ELEMENTS)}
    region = "LIVER" if study % 2 else "HEAD"
    return {**filling, "Modality": "CT", "BodyPartExamined": region, "Manufacturer": "Makers"}


def fill(database: Database, *, studies: int, instances: int) -> None:
    """Make the index of a node that has seen so many studies, and route each."""
    rule = a_rule("LIVER")
    for start in range(0, studies, _BATCH):
        numbers = range(start, min(start + _BATCH, studies))
        with database.write() as tx:
            tx.execute(
                tables.study.insert(),
                [
                    {
                        "study_instance_uid": f"1.2.{n}", "state": "complete", "revision": 1,
                        "first_at": n, "last_at": n, "completed_at": n, "because": "benchmark",
                    }
                    for n in numbers
                ],
            )  # fmt: skip
            tx.execute(
                tables.series.insert(),
                [
                    {
                        "study_instance_uid": f"1.2.{n}", "series_instance_uid": f"1.2.{n}.1",
                        "header": header(n),
                    }
                    for n in numbers
                ],
            )  # fmt: skip
            tx.execute(
                tables.instance.insert(),
                [_row(n, number) for n in numbers for number in range(instances)],
            )
            for n in numbers:
                routed.apply(tx, _study(n), [rule], at=float(n))


def _row(study: int, number: int) -> dict[str, Any]:
    return {
        "sop_instance_uid": f"1.2.{study}.1.{number}",
        "study_instance_uid": f"1.2.{study}",
        "series_instance_uid": f"1.2.{study}.1",
        "sop_class_uid": _CT,
        "transfer_syntax_uid": _EXPLICIT,
        "digest": "0" * 64,
        "path": f"instances/{study}/{number}.dcm",
        "size": 1,
        "header": {
            "changed": {
                "InstanceNumber": number,
                "ImagePositionPatient": [0.0, 0.0, float(number)],
                "SliceLocation": float(number),
            },
            "missing": [],
        },
        "association": "",
        "received_at": float(study),
    }


def _study(number: int) -> Study:
    instance = Instance(
        sop_instance_uid=f"1.2.{number}.1.0",
        sop_class_uid=_CT,
        transfer_syntax_uid=_EXPLICIT,
        series_instance_uid=f"1.2.{number}.1",
        study_instance_uid=f"1.2.{number}",
        digest="",
        path="",
        header=header(number),
    )
    return Study.from_instances([instance], revision=1)


def measure(database: Database, *, rounds: int) -> dict[str, Any]:
    """Replay a changed clause; each round counts what differs."""
    took: list[float] = []
    for _ in range(rounds):
        begin = time.perf_counter()
        with database.read() as tx:
            found = replay.replay(tx, [a_rule("LIVER", "HEAD")], since=0.0)
        took.append(time.perf_counter() - begin)
        heads = found.studies // 2 + found.studies % 2
        if [one.change for one in found.differences] != [Change.ADDED] * heads:
            raise AssertionError("the differences are not those of the changed clause")
    return {
        "studies": found.studies,
        "differences": len(found.differences),
        "seconds": [round(one, 2) for one in took],
        "median_s": round(statistics.median(took), 2),
    }


def main() -> None:
    """Make the database, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=10_000)
    parser.add_argument("--instances", type=int, default=100, help="of each study")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--url", help="a PostgreSQL database that is empty; otherwise SQLite")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        database = Database(asked.url or f"sqlite:///{Path(folder)}/node.db")
        database.migrate()
        fill(database, studies=asked.studies, instances=asked.instances)
        document = measure(database, rounds=asked.rounds)
        database.close()
    document = {"instances": asked.studies * asked.instances, **document}
    sys.stdout.write(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
