"""The measurement of `make bench-ingest`, on next to nothing: whether it counts what arrives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from bench import ingest, loads, receivers
from rich.console import Console

FEW = loads.Load(name="few", instances=10, side=32, of_several=5, associations=(2,))

pytestmark = pytest.mark.server("dcmtk")


@pytest.fixture
def bench(tmp_path: Path) -> ingest.Bench:
    return ingest.Bench(tmp_path, rounds=2, out=Console(quiet=True))


def test_receivers_take_turns_and_all_that_is_sent_arrives(bench: ingest.Bench) -> None:
    by_name = {receiver.name: receiver for receiver in receivers.every(2)}
    compared = [replace(by_name[name], is_for=(2,)) for name in ("ours", "storescp", "pynetdicom")]
    bench.measure(FEW, compared)
    order = [(one.number, one.receiver) for one in bench.rounds]
    assert order == [
        (0, "ours"), (0, "storescp"), (0, "pynetdicom"),
        (1, "storescp"), (1, "pynetdicom"), (1, "ours"),
    ]  # fmt: skip
    assert [one.fault for one in bench.rounds] == [""] * 6
    assert all(one.seconds > 0 for one in bench.rounds)
    assert ingest.table(bench.rounds, title="").row_count == 3


def test_what_does_not_arrive_is_a_fault(bench: ingest.Bench) -> None:
    more = replace(FEW, instances=FEW.instances + 1, associations=(1,))
    lossy = receivers.Command(
        name="lossy",
        words=("/usr/bin/storescp", "--ignore", "-aet", receivers.CALLED, "{port}"),
    )
    bench.measure(more, [lossy])
    assert bench.rounds[0].fault.startswith("0 arrived")


def test_idle_associations_stand_beside(bench: ingest.Bench) -> None:
    ours = next(iter(receivers.every(2)))
    bench.measure(replace(FEW, associations=(1,), rounds=1), [ours], idle=(0, 5))
    assert [one.receiver for one in bench.rounds] == ["ours", "ours, beside 5 idle"]
    assert [one.fault for one in bench.rounds] == ["", ""]
