"""Any study in the index: what is there depends on what came, never on how it came."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomnode.archive.database import Database
from dicomnode.archive.studies import index
from dicomnode.study import HeaderValue, Instance, Study

STUDY = "1.2"
MR_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.4"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"

values: st.SearchStrategy[HeaderValue] = st.sampled_from(["MR", 90.0, "90", "", None, [1, 2]])
# Few elements, so that the headers of a series have some in common and differ in others.
headers = st.dictionaries(st.sampled_from(["Modality", "EchoTime", "ImageType"]), values)


class _NotKept(Exception):
    """Ends a transaction of which nothing stays."""


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    made = Database(f"sqlite:///{tmp_path_factory.mktemp('index')}/node.db")
    made.migrate()
    yield made
    made.close()


@st.composite
def instances(draw: st.DrawFn) -> list[Instance]:
    """The instances of one study: at least one, of few series."""
    places = draw(st.lists(st.integers(1, 3), min_size=1, max_size=10))
    return [an_instance(place, number, draw(headers)) for number, place in enumerate(places)]


def an_instance(series: int, number: int, header: dict[str, HeaderValue]) -> Instance:
    return Instance(
        sop_instance_uid=f"{STUDY}.{series}.{number}",
        sop_class_uid=MR_IMAGE_STORAGE,
        transfer_syntax_uid=EXPLICIT_VR_LITTLE_ENDIAN,
        series_instance_uid=f"{STUDY}.{series}",
        study_instance_uid=STUDY,
        digest=f"{series}.{number}",
        path=f"instances/00/{STUDY}.{series}.{number}.dcm",
        header=header,
    )


def indexed(database: Database, came: Sequence[Sequence[Instance]]) -> Study | None:
    """The study as the index has it once each of these was added; afterwards it is empty again."""
    study: Study | None = None
    with suppress(_NotKept), database.write() as tx:
        for some in came:
            index.add(tx, [_received(one) for one in some])
        study = index.study(tx, STUDY)
        raise _NotKept
    return study


def _received(one: Instance) -> index.Received:
    return index.Received(instance=one, association="", size=10, at=1000.0)


@given(sent=instances(), data=st.data())
def test_any_order_and_any_repeats_give_the_same_study(
    database: Database, sent: list[Instance], data: st.DataObject
) -> None:
    repeats = data.draw(st.lists(st.sampled_from(sent), max_size=5))
    again = data.draw(st.permutations([*sent, *repeats]))
    first = data.draw(st.integers(0, len(again)))
    study = indexed(database, [sent])
    assert study is not None
    assert {one for series in study.series for one in _named(series.instances)} == set(_named(sent))
    assert indexed(database, [again[:first], again[first:]]) == study


def _named(every: Sequence[Instance]) -> list[tuple[str, str]]:
    """What tells instances apart, with their headers."""
    return [(one.sop_instance_uid, repr(sorted(one.header.items()))) for one in every]
