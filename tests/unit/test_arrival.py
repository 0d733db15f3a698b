"""Facts as lines: what a listener says is what the node hears."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomnode.archive import arrival
from dicomnode.archive.arrival import Arrival, End, Ended, Opened, Stored, TurnedAway

# Lone surrogates among them: a peer's bytes are decoded somehow, and no fact may be lost for it.
TEXT = st.text(st.characters())
COUNT = st.integers(min_value=0)
TIME = st.floats(allow_nan=False, allow_infinity=False)

FACTS: st.SearchStrategy[Arrival] = st.one_of(
    st.builds(Opened, association=TEXT, peer=TEXT, calling_ae_title=TEXT, address=TEXT, at=TIME),
    st.builds(Stored, association=TEXT, path=TEXT, at=TIME, repeated=st.booleans()),
    st.builds(
        TurnedAway,
        association=TEXT,
        peer=TEXT,
        reason=TEXT,
        detail=TEXT,
        status=COUNT,
        sop_instance_uid=TEXT,
        study_instance_uid=TEXT,
        at=TIME,
    ),
    st.builds(
        Ended, association=TEXT, end=st.sampled_from(End), stored=COUNT, refused=COUNT, at=TIME
    ),
)


@given(FACTS)
def test_what_is_read_is_what_was_written(fact: Arrival) -> None:
    read = arrival.decode(arrival.encode(fact))
    assert read == fact
    assert type(read) is type(fact)


@given(FACTS)
def test_a_fact_is_one_line(fact: Arrival) -> None:
    line = arrival.encode(fact)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert line.isascii()


@given(FACTS, st.data())
def test_a_torn_line_is_no_fact(fact: Arrival, data: st.DataObject) -> None:
    line = arrival.encode(fact).rstrip(b"\n")
    kept = data.draw(st.integers(min_value=0, max_value=len(line) - 1))
    with pytest.raises(ValueError, match="no fact"):
        arrival.decode(line[:kept])


def test_how_an_association_ended_is_read_as_such() -> None:
    ended = Ended(association="1", end=End.LOST, stored=2, refused=0, at=1.5)
    read = arrival.decode(arrival.encode(ended))
    assert isinstance(read, Ended)
    assert read.end is End.LOST


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"{}\n",
        b"[]\n",
        b'"stored"\n',
        b'["forgotten"]\n',
        b'[["stored"]]\n',
        b'["stored","1","instances/ab/1.dcm"]\n',
        b'["stored","1","instances/ab/1.dcm",1.5,false,0]\n',
        b'["ended","1","vanished",0,0,1.5]\n',
        b"\xff\n",
    ],
)
def test_any_other_line_is_no_fact(line: bytes) -> None:
    with pytest.raises(ValueError, match="no fact"):
        arrival.decode(line)
