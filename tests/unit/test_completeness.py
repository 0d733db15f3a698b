from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from dicomnode import completeness
from dicomnode.archive.disk import header
from dicomnode.completeness import Evidence
from dicomnode.study import HeaderValue, Instance, Series, Study

SHARED_DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
AXIAL: list[str | int | float] = [1, 0, 0, 0, 1, 0]
SAGITTAL: list[str | int | float] = [0, 1, 0, 0, 0, -1]
MR_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.4"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"


def series_of(headers: Sequence[Mapping[str, HeaderValue]], *, uid: str = "1.2.1") -> Series:
    instances = tuple(
        Instance(
            sop_instance_uid=f"{uid}.{position}",
            sop_class_uid=MR_IMAGE_STORAGE,
            transfer_syntax_uid=EXPLICIT_VR_LITTLE_ENDIAN,
            series_instance_uid=uid,
            study_instance_uid="1.2",
            digest="",
            path="",
            header=header,
        )
        for position, header in enumerate(headers, start=1)
    )
    return Series(series_instance_uid=uid, instances=instances)


def numbered(*numbers: HeaderValue) -> Series:
    return series_of([{"InstanceNumber": n} for n in numbers])


def at(z: float, *, orientation: list[str | int | float] = AXIAL) -> dict[str, HeaderValue]:
    return {"ImagePositionPatient": [-100.0, 20.0, z], "ImageOrientationPatient": orientation}


def placed(*zs: float) -> Series:
    return series_of([at(z) for z in zs])


@pytest.mark.parametrize(
    "series",
    [
        numbered(7),
        series_of([{}]),
        numbered(1, 2, 3),
        numbered(0, 1, 2),
        numbered(3, 1, 2),
        numbered("1", " 2 ", 3.0),
        numbered(1, 1, 2, 2),
        placed(0, 5, 10),
        placed(10, 0, 5),
        placed(0, 5.4, 10.1, 15.6),
        placed(0, 0.001, 5, 5, 10, 10.001),
    ],
)
def test_a_series_without_a_gap_shows_none(series: Series) -> None:
    assert completeness.gaps(series) is None


@pytest.mark.parametrize(
    ("series", "sentence"),
    [
        (numbered(1, 2, 4), "The instance numbers jump from 2 to 4."),
        (numbered(3, 4, 5), "The instance numbers begin with 3."),
        (numbered(1, 1, 2), "Some instance numbers occur more often than others."),
        (placed(0, 5, 15), "Slices lie 5 mm apart, but once 10 mm."),
        (placed(0, 5, 10, 20, 25), "Slices lie 5 mm apart, but once 10 mm."),
        (placed(0, 0, 5, 10, 10), "There are more images at some slice positions than at others."),
    ],
)
def test_a_gap_is_named(series: Series, sentence: str) -> None:
    assert completeness.gaps(series) == sentence


CANNOT_TELL = "Neither instance numbers nor slice positions tell whether something is missing."


@pytest.mark.parametrize(
    "series",
    [
        series_of([{}, {}]),
        placed(0, 5),
        placed(0, 0, 0),
        numbered(1, None),
        numbered(1, 1, 1),
        numbered(1, "two"),
        numbered(1, 1.5),
        numbered("nan", "inf"),
        numbered([1, 2], [3, 4]),
        series_of([at(0), at(5), {}]),
        series_of([{**at(z), "ImagePositionPatient": "rubbish"} for z in (0, 5, 10)]),
        series_of([{**at(z), "ImagePositionPatient": ["a", 0, z]} for z in (0, 5, 10)]),
        series_of([{**at(z), "ImagePositionPatient": [0, z]} for z in (0, 5, 10)]),
        series_of([at(z, orientation=[0] * 6) for z in (0, 5, 10)]),
        series_of([at(z, orientation=[10.0**200] * 6) for z in (0, 5, 10)]),
        series_of([{**at(0), "ImagePositionPatient": [10**400, 0, z]} for z in (0, 5, 10)]),
    ],
)
def test_headers_that_say_nothing_leave_it_open(series: Series) -> None:
    assert completeness.gaps(series) == CANNOT_TELL


def test_numbers_vouch_where_positions_are_missing_or_too_few() -> None:
    localizers = [at(0, orientation=AXIAL), at(0, orientation=SAGITTAL)]
    assert completeness.gaps(series_of(localizers)) == CANNOT_TELL
    counted = [{**one, "InstanceNumber": n} for n, one in enumerate(localizers, start=1)]
    assert completeness.gaps(series_of(counted)) is None


def test_a_hole_between_slices_counts_although_the_numbers_run_on() -> None:
    headers = [{**at(z), "InstanceNumber": n} for n, z in enumerate((0, 5, 15, 20), start=1)]
    assert completeness.gaps(series_of(headers)) == "Slices lie 5 mm apart, but once 10 mm."


def test_each_orientation_is_a_stack_of_its_own() -> None:
    axial: list[Mapping[str, HeaderValue]] = [at(z) for z in (0, 5, 10)]
    sagittal: list[Mapping[str, HeaderValue]] = [
        {"ImagePositionPatient": [x, 0, 0], "ImageOrientationPatient": SAGITTAL}
        for x in (2, 3, 4, 7)
    ]
    assert completeness.gaps(series_of(axial + sagittal[:3])) is None
    gap = "Slices lie 1 mm apart, but once 3 mm."
    assert completeness.gaps(series_of(axial + sagittal)) == gap


def test_oblique_slices_are_measured_along_their_normal() -> None:
    cosine = 0.7071068
    orientation: list[str | int | float] = [1, 0, 0, 0, cosine, cosine]
    normal = (0, -cosine, cosine)
    steps = (0, 3, 6, 9)

    def at_step(step: float) -> dict[str, HeaderValue]:
        position: list[str | int | float] = [n * step for n in normal]
        return {"ImagePositionPatient": position, "ImageOrientationPatient": orientation}

    assert completeness.gaps(series_of([at_step(s) for s in steps])) is None
    gap = completeness.gaps(series_of([at_step(s) for s in (*steps, 15)]))
    assert gap is not None
    assert gap.startswith("Slices lie ")


def announced(count: int, *, of: HeaderValue, acquisitions: Sequence[HeaderValue] = (1,)) -> Series:
    return series_of(
        [
            {
                "InstanceNumber": n + 1,
                "ImagesInAcquisition": of,
                "AcquisitionNumber": acquisitions[n % len(acquisitions)],
            }
            for n in range(count)
        ]
    )


def test_fewer_images_than_one_acquisition_announced_are_a_gap() -> None:
    assert completeness.gaps(announced(3, of="40")) == "3 of 40 announced images have come."


@pytest.mark.parametrize(
    "series",
    [
        announced(3, of=3),
        announced(3, of=2),
        announced(3, of="many"),
        announced(4, of=40, acquisitions=(1, 2)),
        series_of([{"InstanceNumber": n, "ImagesInAcquisition": 40 + n} for n in (1, 2)]),
        series_of(
            [{"InstanceNumber": n, "ImagesInAcquisition": 40, "NumberOfFrames": 20} for n in (1, 2)]
        ),
    ],
)
def test_an_announcement_that_is_no_witness_is_not_heard(series: Series) -> None:
    assert completeness.gaps(series) is None


def study_of(*series: Series) -> Study:
    return Study(study_instance_uid="1.2", revision=0, series=series)


WHOLE = study_of(numbered(1, 2, 3))
RELEASED = Evidence(last_received=100.0, last_ended=101.0, ended_in_order=True, open_associations=0)
release_at = functools.partial(completeness.release_at, settle_s=2.0, quiet_s=30.0)


def test_a_study_in_order_settles_after_the_last_association() -> None:
    release = release_at(WHOLE, RELEASED)
    assert release.at == 103.0
    assert release.because == "Every association ended in order and no series shows a gap."


def test_without_the_time_of_an_end_a_study_settles_after_the_last_instance() -> None:
    evidence = Evidence(last_received=100.0, ended_in_order=True, open_associations=0)
    assert release_at(WHOLE, evidence).at == 102.0


def test_an_instance_after_the_last_end_is_waited_for_as_well() -> None:
    evidence = Evidence(
        last_received=100.0, last_ended=90.0, ended_in_order=True, open_associations=0
    )
    assert release_at(WHOLE, evidence).at == 102.0


@pytest.mark.parametrize(
    ("study", "ended_in_order", "open_associations", "because"),
    [
        (WHOLE, True, 1, "An association that brought instances was still open."),
        (WHOLE, False, 0, "An association that brought instances did not end in order."),
        (
            study_of(numbered(1, 2), numbered(1, 3)),
            True,
            0,
            "Series 1.2.1: The instance numbers jump from 1 to 3.",
        ),
    ],
)
def test_anything_else_is_quiet_for_long_after_the_last_instance(
    study: Study, *, ended_in_order: bool, open_associations: int, because: str
) -> None:
    evidence = Evidence(
        last_received=100.0,
        last_ended=120.0,
        ended_in_order=ended_in_order,
        open_associations=open_associations,
    )
    release = release_at(study, evidence)
    assert release.at == 130.0
    assert release.because == f"No new instance came for 30 s. {because}"
    assert completeness.earliest_release(evidence, settle_s=2.0, quiet_s=30.0) <= release.at


@pytest.mark.parametrize(
    ("last_again", "released_at"), [(90.0, 130.0), (110.0, 140.0), (400.0, 430.0), (401.0, 430.0)]
)
def test_who_sends_again_what_there_is_is_waited_for_but_not_for_ever(
    last_again: float, released_at: float
) -> None:
    evidence = Evidence(
        last_received=100.0, last_again=last_again, ended_in_order=False, open_associations=0
    )
    release = release_at(WHOLE, evidence)
    assert release.at == released_at
    assert release.because.startswith(f"No new instance came for {released_at - 100:g} s. ")
    assert completeness.earliest_release(evidence, settle_s=2.0, quiet_s=30.0) == released_at


def test_what_there_is_and_is_in_order_does_not_wait_for_who_sends_it_again() -> None:
    assert release_at(WHOLE, replace(RELEASED, last_again=102.0)).at == 103.0


def test_what_the_node_refused_itself_leaves_a_doubt() -> None:
    release = release_at(WHOLE, replace(RELEASED, turned_away=1))
    assert release.at == 130.0
    assert release.because.endswith("The node refused some of what the associations brought.")


def read(folder: str, *, modality: str) -> Series:
    files = [path for path in (SHARED_DATA / folder).rglob("*") if path.is_file()]
    headers = [header.index_header(path)[2] for path in sorted(files)]
    return series_of([one for one in headers if one["Modality"] == modality])


REAL = [
    ("brain_mr_study/11_HCropVolume", "MR", 40),
    ("brain_mr_study/11-T1post-18670", "MR", 22),
    ("pet_with_seg", "PT", 299),
]


@pytest.mark.data
@pytest.mark.parametrize(("folder", "modality", "count"), REAL)
def test_real_series_are_whole_and_without_a_middle_slice_they_are_not(
    folder: str, modality: str, count: int
) -> None:
    series = read(folder, modality=modality)
    assert len(series.instances) == count
    assert completeness.gaps(series) is None
    middle = count // 2
    rest = series.instances[:middle] + series.instances[middle + 1 :]
    assert completeness.gaps(Series(series_instance_uid="1.2.1", instances=rest)) is not None
