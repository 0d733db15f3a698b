"""What a simulated hospital does on the wire: each fault is what the plan calls it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

import channels
import pytest
from servers import free_port
from wire.receiving import HOST, NODE, Receiver, Start

from dicomnode.archive.arrival import End, Ended, Opened, Stored, TurnedAway
from dicomnode.network.calling.sender import Destination
from dicomnode.simulation import account, day, hospital, objects
from dicomnode.simulation.account import Account, Answer, Document
from dicomnode.simulation.day import Request
from dicomnode.simulation.hospital import Faults
from dicomnode.simulation.planned import Day, Fault, Transfer
from dicomnode.simulation.traffic import Pace, Traffic


@pytest.fixture
def reactor() -> str:
    """The node's own."""
    return "streaming"


#: Of every fault some, a crowd that is too large, and one who is slow enough to be seen.
PROFILE = hospital.GENERAL.model_copy(
    update={
        "faults": Faults(**dict.fromkeys(Faults.model_fields, 0.04)),
        "crowd": 30,
        "echoes": 3,
        "slow_bytes_per_s": 40_000,
    }
)
PLAN = day.plan(PROFILE, Request(studies=50, seed=3))


def only(*faults: Fault | None, plan: Day = PLAN) -> Day:
    """The same day without anything else."""
    return replace(plan, transfers=tuple(one for one in plan.transfers if one.fault in faults))


def send(plan: Day, to: Receiver, *, title: str = NODE) -> tuple[Document, list[Answer]]:
    """Send a day as fast as it goes; its account, and each answer."""
    told: list[Answer] = []
    kept = Account(tell=told.append)
    Traffic(
        plan,
        make=objects.make,
        to=Destination(ae_title=title, host=HOST, port=to.port),
        pace=Pace(speed=None, begins_s=0),
        account=kept,
    ).run()
    return kept.document(planned={}, seconds=0), told


def open_to_all(start: Start, **listen: int) -> Receiver:
    return start(accept_unknown_peers=True, **listen)


def uids(transfers: Iterable[Transfer]) -> set[str]:
    return {objects.subject(PLAN, item).sop_instance_uid for one in transfers for item in one.items}


def kept(node: Receiver) -> set[str]:
    return {path.rpartition("/")[2].removesuffix(".dcm") for path in node.on_disk}


def test_a_day_without_faults_is_taken_as_it_is(start: Start) -> None:
    node, plan = open_to_all(start), only(None)
    document, _ = send(plan, node)
    assert document["refused"] == []
    assert document["acknowledged"] == sum(len(one.items) for one in plan.transfers)
    assert kept(node) == uids(plan.transfers)
    ended = node.wait_for(Ended, count=len(plan.transfers))
    assert {one.end for one in ended} == {End.RELEASED}
    assert {one.calling_ae_title for one in node.of(Opened)} == {
        PROFILE.stations[one.station].ae_title for one in plan.transfers
    }


def test_the_same_day_again_is_taken_again_and_changes_nothing(start: Start) -> None:
    node, plan = open_to_all(start), only(None)
    first, _ = send(plan, node)
    stored = kept(node)
    second, _ = send(plan, node)
    assert first["acknowledged"] == second["acknowledged"]
    assert kept(node) == stored
    assert len(node.stored) == len(stored)


def test_what_aborts_ends_with_an_abort_and_keeps_what_was_said(start: Start) -> None:
    node, plan = open_to_all(start), only(Fault.ABORTS)
    document, _ = send(plan, node)
    ended = node.wait_for(Ended, count=len(plan.transfers))
    assert {one.end for one in ended} == {End.ABORTED}
    assert kept(node) == uids(plan.transfers)
    assert account.is_well(document)


def test_what_is_cut_is_lost_in_the_middle_of_an_object_and_comes_again(start: Start) -> None:
    node, plan = open_to_all(start), only(Fault.CUTS)
    document, _ = send(plan, node)
    ended = node.wait_for(Ended, count=len(plan.transfers))
    assert Counter(one.end for one in ended) == {
        End.LOST: len(plan.transfers) / 2, End.RELEASED: len(plan.transfers) / 2,
    }  # fmt: skip
    assert kept(node) == uids(plan.transfers)
    assert node.leftovers == []
    assert account.is_well(document)


def test_what_is_slow_arrives(start: Start) -> None:
    node, plan = open_to_all(start), only(Fault.SLOW)
    document, answers = send(plan, node)
    assert kept(node) == uids(plan.transfers)
    assert document["answer_ms"] == {}  # its pace is none of the node's
    assert account.is_well(document)
    assert len(answers) == sum(1 + len(one.items) for one in plan.transfers)


def test_what_cannot_be_taken_is_refused_by_name(start: Start) -> None:
    node = open_to_all(start)
    plan = only(Fault.DUPLICATE_UID, Fault.UNKNOWN_CLASS, Fault.UNKNOWN_SYNTAX, Fault.WRONG_CALLED)
    document, _ = send(plan, node)
    refused = {(one["what"], one["reason"]): one["count"] for one in document["refused"]}
    assert refused == {
        ("object", "0x0111"): 2,
        ("object", "not-accepted"): 4,
        ("association", "called-ae-title-not-recognized"): 2,
    }
    assert all(one["meant"] for one in document["refused"])
    assert document["taken_though_wrong"] == 0
    assert account.is_well(document)


def test_a_crowd_takes_the_places_there_are_and_leaves_them(start: Start) -> None:
    node = open_to_all(start, max_associations=20, max_associations_per_peer=20)
    document, _ = send(only(Fault.CROWD), node)
    assert document["refused"] == [
        {"what": "association", "reason": "peer-busy", "count": 10, "meant": True}
    ]
    ended = node.wait_for(Ended, count=20)
    assert Counter(one.end for one in ended) == {End.RELEASED: 20}
    assert len(node.of(TurnedAway)) == 10


def test_a_node_that_hangs_up_on_a_crowd_does_not_as_the_plan_means_it() -> None:
    plan, told = only(Fault.CROWD), Account()
    with channels.rude(channels.hangs_up) as port:
        Traffic(
            plan,
            make=objects.make,
            to=Destination(ae_title=NODE, host=HOST, port=port),
            pace=Pace(speed=None, begins_s=0),
            account=told,
        ).run()
    assert not account.is_well(told.document(planned={}, seconds=0))


def test_who_finds_no_place_comes_again(start: Start) -> None:
    node, plan = open_to_all(start, max_associations=1, max_associations_per_peer=1), only(None)
    some = replace(plan, transfers=plan.transfers[:10])
    document, answers = send(some, node)
    assert document["refused"] == []
    assert {one.reason for one in answers} == {"", "peer-busy"}
    assert kept(node) == uids(some.transfers)


def test_echoes_are_answered_and_bring_nothing(start: Start) -> None:
    node = open_to_all(start)
    document, answers = send(only(Fault.ECHO), node)
    assert (document["acknowledged"], document["refused"]) == (0, [])
    assert [one.is_taken for one in answers] == [True] * 3
    assert node.of(Stored) == []


def test_who_is_not_known_is_told_once_and_gives_up(start: Start) -> None:
    node, plan = start(), only(None)
    some = replace(plan, transfers=plan.transfers[:3])
    document, _ = send(some, node)
    assert document["acknowledged"] == 0
    assert document["tried_again"] == {"objects": 0, "associations": 0}
    refused = {(one["what"], one["reason"], one["meant"]) for one in document["refused"]}
    assert refused == {
        ("association", "calling-ae-title-not-recognized", False),
        ("object", "no-answer", False),
    }
    assert not account.is_well(document)


def test_a_day_that_is_stopped_ends_after_what_is_open() -> None:
    plan, kept_account = only(None), Account()
    traffic = Traffic(
        plan,
        make=objects.make,
        to=Destination(ae_title=NODE, host=HOST, port=free_port()),
        pace=Pace(speed=1, begins_s=0),
        account=kept_account,
    )
    traffic.stop()
    traffic.run()
    assert kept_account.document(planned={}, seconds=0)["acknowledged"] == 0
