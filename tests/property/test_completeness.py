"""Any stack of slices: whole it shows no gap, with a slice missing in the middle it does."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from dicomnode import completeness
from dicomnode.study import HeaderValue, Instance, Series

EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
MR_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.4"
JITTER = 0.05  # of a step

_Vector = tuple[float, float, float]

rubbish: st.SearchStrategy[HeaderValue] = st.one_of(
    st.none(),
    st.text(max_size=8),
    st.integers(),
    st.floats(),
    st.lists(st.one_of(st.text(max_size=4), st.integers(), st.floats()), max_size=7),
)


def an_instance(number: int, header: dict[str, HeaderValue]) -> Instance:
    return Instance(
        sop_instance_uid=f"1.2.1.{number}",
        sop_class_uid=MR_IMAGE_STORAGE,
        transfer_syntax_uid=EXPLICIT_VR_LITTLE_ENDIAN,
        series_instance_uid="1.2.1",
        study_instance_uid="1.2",
        digest="",
        path="",
        header=header,
    )


def a_series(instances: Sequence[Instance]) -> Series:
    return Series(series_instance_uid="1.2.1", instances=tuple(instances))


@st.composite
def stacks(draw: st.DrawFn, *, numbered: bool) -> list[list[Instance]]:
    """For each slice position, in order, its images: one or, in a repeated stack, several.

    The stack lies anywhere at any angle; a series without numbers has at least four positions.
    """
    count = draw(st.integers(4, 30))
    repeats = draw(st.integers(1, 3))
    step = draw(st.floats(0.3, 10))
    first = draw(st.integers(0, 1))
    row, column, normal = draw(frames())
    orientation: list[str | int | float] = [*row, *column]
    positions: list[list[Instance]] = []
    for slice_index in range(count):
        place = step * (slice_index + draw(st.floats(-JITTER, JITTER)))
        position: list[str | int | float] = [50 + n * place for n in normal]
        header: dict[str, HeaderValue] = {
            "ImagePositionPatient": position,
            "ImageOrientationPatient": orientation,
        }
        if numbered:
            header["InstanceNumber"] = first + slice_index
        begin = slice_index * repeats
        positions.append([an_instance(n, header) for n in range(begin, begin + repeats)])
    return positions


@st.composite
def frames(draw: st.DrawFn) -> tuple[_Vector, _Vector, _Vector]:
    """Row, column and normal of a slice: orthonormal, turned about two axes."""
    a = draw(st.floats(0, 2 * math.pi))
    b = draw(st.floats(0, math.pi))
    row = (math.cos(a), math.sin(a), 0.0)
    column = (-math.sin(a) * math.cos(b), math.cos(a) * math.cos(b), math.sin(b))
    normal = (math.sin(a) * math.sin(b), -math.cos(a) * math.sin(b), math.cos(b))
    return row, column, normal


def without_geometry(instance: Instance) -> Instance:
    kept = {k: v for k, v in instance.header.items() if k == "InstanceNumber"}
    return dataclasses.replace(instance, header=kept)


@given(stack=st.booleans().flatmap(lambda numbered: stacks(numbered=numbered)), data=st.data())
def test_a_whole_stack_shows_no_gap_and_one_without_a_middle_slice_does(
    stack: list[list[Instance]], data: st.DataObject
) -> None:
    instances = [image for images in stack for image in images]
    shuffled = data.draw(st.permutations(instances))
    assert completeness.gaps(a_series(shuffled)) is None
    missing = data.draw(st.sampled_from([image for images in stack[1:-1] for image in images]))
    assert completeness.gaps(a_series([one for one in shuffled if one is not missing])) is not None


@given(stack=st.booleans().flatmap(lambda numbered: stacks(numbered=numbered)), data=st.data())
def test_a_stack_without_all_images_of_a_middle_position_shows_a_gap(
    stack: list[list[Instance]], data: st.DataObject
) -> None:
    missing = data.draw(st.integers(1, len(stack) - 2))
    left = [image for n, images in enumerate(stack) if n != missing for image in images]
    assert completeness.gaps(a_series(left)) is not None


@given(stack=stacks(numbered=True), data=st.data())
def test_numbers_alone_show_a_missing_middle_slice(
    stack: list[list[Instance]], data: st.DataObject
) -> None:
    instances = [without_geometry(image) for images in stack for image in images]
    assert completeness.gaps(a_series(instances)) is None
    repeats = len(stack[0])
    missing = data.draw(st.integers(repeats, len(instances) - repeats - 1))
    assert completeness.gaps(a_series(instances[:missing] + instances[missing + 1 :])) is not None


@given(stack=stacks(numbered=True), data=st.data())
def test_the_order_of_the_instances_has_no_part_in_it(
    stack: list[list[Instance]], data: st.DataObject
) -> None:
    instances = [image for images in stack for image in images]
    left = instances[: data.draw(st.integers(1, len(instances)))]
    shuffled = data.draw(st.permutations(left))
    assert completeness.gaps(a_series(shuffled)) == completeness.gaps(a_series(left))


@given(
    headers=st.lists(
        st.fixed_dictionaries(
            {},
            optional=dict.fromkeys(
                (
                    "InstanceNumber",
                    "ImagePositionPatient",
                    "ImageOrientationPatient",
                    "ImagesInAcquisition",
                    "AcquisitionNumber",
                    "NumberOfFrames",
                ),
                rubbish,
            ),
        ),
        min_size=2,
        max_size=6,
    )
)
def test_no_rubbish_in_a_header_breaks_it(headers: list[dict[str, HeaderValue]]) -> None:
    instances = [an_instance(n, header) for n, header in enumerate(headers)]
    gap = completeness.gaps(a_series(instances))
    assert gap is None or gap.endswith(".")


@given(number=rubbish, position=rubbish, count=st.integers(2, 5))
def test_headers_that_are_all_the_same_never_vouch_for_a_series(
    number: HeaderValue, position: HeaderValue, count: int
) -> None:
    header: dict[str, HeaderValue] = {
        "InstanceNumber": number,
        "ImagePositionPatient": position,
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
    }
    series = a_series([an_instance(n, header) for n in range(count)])
    assert completeness.gaps(series) is not None
