"""Run-length encoding (PS3.5 Annex G), against a decoder that is not ours."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder
from pydicom.uid import RLELossless

from dicomnode.results.writing import rle


def decoded(encoded: bytes, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    bits = 8 * np.dtype(dtype).itemsize
    pixels, _ = get_decoder(RLELossless).as_array(
        encapsulate([encoded]),
        decoding_plugin="pydicom",
        rows=shape[0],
        columns=shape[1],
        number_of_frames=1,
        samples_per_pixel=1,
        photometric_interpretation="MONOCHROME2",
        pixel_representation=0,
        bits_allocated=bits,
        bits_stored=bits,
        pixel_keyword="PixelData",
    )
    return pixels


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(
    ("rows", "columns"), [(1, 1), (3, 127), (2, 128), (2, 129), (5, 257), (7, 300)]
)
@pytest.mark.parametrize("values", [1, 2, 5, 60000])
def test_what_is_encoded_is_decoded(dtype: Any, rows: int, columns: int, values: int) -> None:
    random = np.random.default_rng(rows * columns + values)
    for plane in (
        random.integers(0, values, (rows, columns)),
        np.sort(random.integers(0, values, (rows, columns)), axis=1),
        np.repeat(random.integers(0, values, (rows, 1)), columns, axis=1),
    ):
        encoded = rle.encoded(plane.astype(dtype))
        assert len(encoded) % 2 == 0
        np.testing.assert_array_equal(decoded(encoded, plane.shape, dtype), plane.astype(dtype))


def test_what_has_no_such_encoding_is_refused() -> None:
    with pytest.raises(TypeError):
        rle.encoded(np.zeros((2, 2), dtype=np.int16))
