"""Places for associations: the limits hold over all listener processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from dicomnode.errors import Refused
from dicomnode.network import association
from dicomnode.network.serving.places import (
    Counts,
    Limits,
    Places,
    SharedPlaces,
    columns,
)

PEERS = ("ct1", "pacs")
LIMITS = Limits(total=5, per_peer=2, of_peer={"pacs": 4})


@pytest.fixture
def counts() -> Iterator[Counts]:
    """A table for two processes."""
    table = Counts.create(rows=2, columns=len(columns(PEERS)))
    yield table
    table.close()


@pytest.fixture
def places(counts: Counts) -> list[SharedPlaces]:
    """What each of the two processes sees."""
    return [SharedPlaces(counts, row=row, column=columns(PEERS), limits=LIMITS) for row in range(2)]


def is_taken(places: Places, peer: str) -> bool:
    try:
        places.take(peer)
    except Refused:
        return False
    return True


def test_a_peer_gets_so_many_places_over_all_processes(places: list[SharedPlaces]) -> None:
    first, second = places
    assert is_taken(first, "ct1")
    assert is_taken(second, "ct1")
    assert not is_taken(first, "ct1")
    assert not is_taken(second, "ct1")
    assert is_taken(second, "pacs")


def test_a_peer_may_have_a_limit_of_its_own(places: list[SharedPlaces]) -> None:
    assert [is_taken(places[turn % 2], "pacs") for turn in range(5)] == [True] * 4 + [False]


def test_unknown_peers_count_as_one(places: list[SharedPlaces]) -> None:
    assert [is_taken(places[turn % 2], "") for turn in range(3)] == [True, True, False]


def test_all_together_get_so_many_places(places: list[SharedPlaces]) -> None:
    first, second = places
    for peer in ("ct1", "ct1", "pacs"):
        first.take(peer)
    for peer in ("pacs", "pacs"):
        second.take(peer)
    with pytest.raises(Refused, match="max_associations") as refusal:
        second.take("")
    assert refusal.value.reason == "too-many-associations"
    assert refusal.value.status == association.LOCAL_LIMIT_EXCEEDED


def test_a_place_that_is_given_back_is_free_for_the_other_process(
    places: list[SharedPlaces],
) -> None:
    first, second = places
    first.take("ct1")
    first.take("ct1")
    first.give_back("ct1")
    assert is_taken(second, "ct1")
    assert not is_taken(first, "ct1")


def test_a_refusal_takes_nothing(counts: Counts, places: list[SharedPlaces]) -> None:
    assert [is_taken(places[0], "ct1") for _ in range(4)] == [True, True, False, False]
    assert counts.total() == 2


def test_the_places_of_a_process_that_died_are_free(
    counts: Counts, places: list[SharedPlaces]
) -> None:
    dead, living = places
    dead.take("ct1")
    living.take("ct1")
    counts.clear(0)
    assert is_taken(living, "ct1")
    assert not is_taken(living, "ct1")


_TAKER = """
import sys
from dicomnode.errors import Refused
from dicomnode.network.serving.places import Counts, Limits, SharedPlaces

counts = Counts(int(sys.argv[1]), rows=4, columns=1)
limits = Limits(total=1000, per_peer=100, of_peer={})
places = SharedPlaces(counts, row=int(sys.argv[2]), column={"": 0}, limits=limits)
print("ready", flush=True)
sys.stdin.readline()
for turn in range(2000):
    try:
        places.take("")
    except Refused:
        continue
    if counts.total() > 100:
        sys.exit("more than there are")
    if turn < 1900:
        places.give_back("")
"""


def test_processes_that_ask_at_the_same_time_never_get_more_than_there_are() -> None:
    counts = Counts.create(rows=4, columns=1)
    takers = [
        subprocess.Popen(
            [sys.executable, "-c", _TAKER, str(counts.descriptor), str(row)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[counts.descriptor],
        )
        for row in range(4)
    ]
    for taker in takers:
        assert taker.stdout is not None
        assert taker.stdout.readline() == b"ready\n"
    for taker in takers:
        assert taker.stdin is not None
        taker.stdin.write(b"\n")
        taker.stdin.flush()
    for taker in takers:
        taker.communicate()
        assert taker.returncode == 0
    assert counts.total() == 100
    counts.close()
