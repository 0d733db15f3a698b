"""What must hold of geometry whatever the grid, the order of the files and the mask."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import phantom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from dicomnode import results, volume
from dicomnode.errors import UnsuitableSeries
from dicomnode.prediction import LabelMap, Prediction

SHAPE = (7, 6, 9)

spacings = st.tuples(*[st.floats(0.3, 8).map(lambda mm: round(mm, 4))] * 3)


@st.composite
def orientations(draw: st.DrawFn) -> tuple[float, ...]:
    """Direction cosines of any plane, with the six digits that scanners write."""
    w, x, y, z = (draw(st.floats(-1, 1)) for _ in range(4))
    norm = np.sqrt(w * w + x * x + y * y + z * z)
    if norm < 0.1:
        w, x, y, z, norm = 1.0, 0.0, 0.0, 0.0, 1.0
    w, x, y, z = (v / norm for v in (w, x, y, z))
    rows = (1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y))
    columns = (2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x))
    return tuple(round(v, 6) for v in (*rows, *columns))


@contextmanager
def scanned(**arguments: object) -> Iterator[phantom.Phantom]:
    with tempfile.TemporaryDirectory() as folder:
        yield phantom.write_series(Path(folder), **{"shape": SHAPE, **arguments})  # type: ignore[arg-type] # by name


@given(st.permutations(range(SHAPE[0])), st.booleans(), orientations(), spacings)
def test_files_in_any_order_give_the_same_volume(
    order: list[int],
    against_normal: bool,
    orientation: tuple[float, ...],
    spacing: tuple[float, float, float],
) -> None:
    with scanned(orientation=orientation, spacing=spacing, reversed=against_normal) as scan:
        shuffled = volume.load([scan.files[index] for index in order])
    np.testing.assert_allclose(shuffled.affine, scan.affine, atol=1e-6)
    np.testing.assert_array_equal(shuffled.array, scan.values)


@given(st.integers(1, SHAPE[0] - 2), orientations(), spacings)
def test_a_slice_missing_from_the_middle_is_refused(
    missing: int, orientation: tuple[float, ...], spacing: tuple[float, float, float]
) -> None:
    with scanned(orientation=orientation, spacing=spacing) as scan:
        files = [path for path in scan.files if path != scan.file_of(missing)]
        with pytest.raises(UnsuitableSeries) as caught:
            volume.load(files)
    assert caught.value.reason == "missing-slices"
    assert caught.value.detail.startswith("1 slice is missing")


@given(st.integers(0, SHAPE[0] - 1), st.integers(0, SHAPE[0]), orientations(), spacings)
def test_a_slice_that_is_there_twice_is_refused(
    doubled: int, at: int, orientation: tuple[float, ...], spacing: tuple[float, float, float]
) -> None:
    with scanned(orientation=orientation, spacing=spacing) as scan:
        files = list(scan.files)
        files.insert(at, scan.file_of(doubled))
        with pytest.raises(UnsuitableSeries) as caught:
            volume.load(files)
    assert caught.value.reason == "duplicate-position"


@given(
    st.integers(0, 2**32 - 1),
    st.booleans(),
    st.booleans(),
    orientations(),
    spacings,
)
def test_a_mask_that_is_written_is_read_back_as_it_was(
    seed: int,
    enhanced: bool,
    against_normal: bool,
    orientation: tuple[float, ...],
    spacing: tuple[float, float, float],
) -> None:
    with scanned(
        orientation=orientation, spacing=spacing, enhanced=enhanced, reversed=against_normal
    ) as scan:
        prediction = Prediction(
            subject=volume.load(scan.files),
            answers=(LabelMap(output="bodies", array=_any_mask(seed)),),
        )
        model = phantom.a_bundle()
        built = results.build(
            prediction,
            bundle=model,
            key="k",
            created=datetime(2026, 1, 1, tzinfo=UTC),
            profiles=[phantom.PLAIN],
        )
        files = results.write(built, scan.folder / "results")
        results.check(files, prediction=prediction, bundle=model, key="k", profiles=[phantom.PLAIN])


def _any_mask(seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).choice(np.array([0, 1, 2, 3, 5], dtype=np.uint8), size=SHAPE)
