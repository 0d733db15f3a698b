"""Series → volume: what is read, and what is refused, by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import phantom
import pydicom
import pytest
from pydicom import Dataset
from pydicom.uid import (
    JPEG2000Lossless,
    JPEGLSLossless,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    RLELossless,
)

from dicomnode import bundle, volume
from dicomnode.errors import NodeError, NotApplicable, RetryLater, UnsuitableSeries

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"

Edit = Callable[[int, Dataset], None]


def refusal(files: Any, **arguments: Any) -> UnsuitableSeries:
    with pytest.raises(UnsuitableSeries) as caught:
        volume.load(list(files), **arguments)
    return caught.value


@pytest.mark.parametrize("enhanced", [False, True])
@pytest.mark.parametrize("against_normal", [False, True])
@pytest.mark.parametrize("orientation", phantom.ORIENTATIONS)
def test_every_voxel_is_where_it_is_in_the_patient(
    tmp_path: Path, orientation: str, against_normal: bool, enhanced: bool
) -> None:
    scan = phantom.write_series(
        tmp_path, orientation=orientation, reversed=against_normal, enhanced=enhanced
    )
    loaded = volume.load(scan.files)
    np.testing.assert_allclose(loaded.affine, scan.affine, atol=1e-9)
    np.testing.assert_array_equal(loaded.array, scan.values)
    assert loaded.array.dtype == np.float32
    assert loaded.plane == ("axial" if orientation == "oblique" else orientation)
    assert loaded.spacing == pytest.approx((2.5, 1.25, 1.5), rel=1e-6)
    assert loaded.voxel_mm3 == pytest.approx(2.5 * 1.25 * 1.5, rel=1e-5)


@pytest.mark.parametrize("enhanced", [False, True])
def test_every_slice_names_the_frame_that_it_came_from(tmp_path: Path, enhanced: bool) -> None:
    scan = phantom.write_series(tmp_path, orientation="coronal", reversed=True, enhanced=enhanced)
    loaded = volume.load(scan.files)
    for index, source in enumerate(loaded.sources):
        dataset = pydicom.dcmread(source.path)
        frames = dataset.pixel_array.reshape(-1, dataset.Rows, dataset.Columns)
        assert dataset.SOPInstanceUID == source.sop_instance_uid
        assert dataset.SOPClassUID == source.sop_class_uid
        assert source.is_multiframe is enhanced
        np.testing.assert_array_equal(frames[source.frame_number - 1], loaded.array[index])
        np.testing.assert_allclose(source.position, loaded.affine[:3] @ [index, 0, 0, 1], atol=1e-9)


def test_the_header_is_kept_without_the_pixels(tmp_path: Path) -> None:
    loaded = volume.load(phantom.write_series(tmp_path).files)
    assert loaded.header.PatientName == "Fantôme^Amélie"
    assert "PixelData" not in loaded.header
    assert loaded.slice_thickness == 2.5


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless])
def test_compressed_images_are_read_like_plain_ones(tmp_path: Path, syntax: str) -> None:
    # Not smaller: JPEG 2000 halves an image five times.
    scan = phantom.write_series(tmp_path, shape=(6, 40, 36), attributes={"PixelRepresentation": 0})
    for path in scan.files:
        dataset = pydicom.dcmread(path)
        dataset.compress(syntax, generate_instance_uid=False)
        dataset.save_as(path)
    np.testing.assert_array_equal(volume.load(scan.files).array, scan.values)


class TestModalityLut:
    def test_slope_and_intercept_are_applied_slice_by_slice(self, tmp_path: Path) -> None:
        def rescale(index: int, dataset: Dataset) -> None:
            dataset.RescaleSlope, dataset.RescaleIntercept = index + 1, -1000

        scan = phantom.write_series(tmp_path, edit=rescale)
        slopes = np.arange(1, scan.shape[0] + 1)[:, None, None]
        np.testing.assert_array_equal(volume.load(scan.files).array, scan.values * slopes - 1000)

    def test_an_enhanced_image_has_them_for_each_frame(self, tmp_path: Path) -> None:
        def rescale(_: int, dataset: Dataset) -> None:
            for groups in dataset.PerFrameFunctionalGroupsSequence:
                lut = groups.PixelValueTransformationSequence[0]
                lut.RescaleSlope = (
                    2 if groups.PlanePositionSequence[0].ImagePositionPatient[2] > 42 else 1
                )

        scan = phantom.write_series(tmp_path, enhanced=True, edit=rescale)
        high = scan.points[..., 2] > 42
        np.testing.assert_array_equal(
            volume.load(scan.files).array, np.where(high, 2 * scan.values, scan.values)
        )

    def test_an_image_with_groups_may_have_them_itself(self, tmp_path: Path) -> None:
        def rescale(_: int, dataset: Dataset) -> None:
            dataset.SOPClassUID = MultiFrameGrayscaleWordSecondaryCaptureImageStorage
            dataset.RescaleSlope, dataset.RescaleIntercept = 2, -1024
            for groups in dataset.PerFrameFunctionalGroupsSequence:
                del groups.PixelValueTransformationSequence

        scan = phantom.write_series(tmp_path, enhanced=True, edit=rescale)
        np.testing.assert_array_equal(volume.load(scan.files).array, scan.values * 2.0 - 1024)

    def test_a_table_is_looked_up(self, tmp_path: Path) -> None:
        table = np.arange(4096, dtype="<u2")[::-1]

        def look_up(_: int, dataset: Dataset) -> None:
            item = Dataset()
            item.add_new("LUTDescriptor", "US", [4096, 0, 16])
            item.ModalityLUTType = "US"
            item.add_new("LUTData", "OW", table.tobytes())
            dataset.ModalityLUTSequence = [item]

        scan = phantom.write_series(tmp_path, edit=look_up)
        np.testing.assert_array_equal(
            volume.load(scan.files).array, table[np.clip(scan.values, 0, 4095)]
        )

    def test_monochrome1_is_not_inverted(self, tmp_path: Path) -> None:
        scan = phantom.write_series(
            tmp_path, attributes={"PhotometricInterpretation": "MONOCHROME1"}
        )
        np.testing.assert_array_equal(volume.load(scan.files).array, scan.values)

    def test_half_a_rescale_is_refused(self, tmp_path: Path) -> None:
        scan = phantom.write_series(tmp_path, attributes={"RescaleSlope": 2})
        assert refusal(scan.files).reason == "incomplete-rescale"

    def test_values_that_are_no_numbers_are_refused(self, tmp_path: Path) -> None:
        def poison(index: int, dataset: Dataset) -> None:
            if index == 3:
                values = np.zeros((dataset.Rows, dataset.Columns), dtype="<f4")
                values[1, 1] = np.nan
                del dataset.PixelData, dataset.BitsStored, dataset.HighBit
                del dataset.PixelRepresentation
                dataset.BitsAllocated = 32
                dataset.FloatPixelData = values.tobytes()

        scan = phantom.write_series(tmp_path, edit=poison)
        assert refusal(scan.files).reason == "not-finite"


def _at(chosen: int, **attributes: Any) -> Edit:
    """Changes attributes of one slice alone."""

    def edit(index: int, dataset: Dataset) -> None:
        if index == chosen:
            for keyword, value in attributes.items():
                setattr(dataset, keyword, value)

    return edit


def _everywhere(**attributes: Any) -> Edit:
    def edit(_: int, dataset: Dataset) -> None:
        for keyword, value in attributes.items():
            setattr(dataset, keyword, value)

    return edit


def _without(keyword: str) -> Edit:
    def edit(index: int, dataset: Dataset) -> None:
        if index == 2:
            delattr(dataset, keyword)

    return edit


def _move(dataset: Dataset, *shift: float) -> None:
    moved = [float(v) + s for v, s in zip(dataset.ImagePositionPatient, shift, strict=True)]
    dataset.ImagePositionPatient = [round(v, 6) for v in moved]


def _tilt(index: int, dataset: Dataset) -> None:
    _move(dataset, 0, 0.3 * index, 0)


def _jump(index: int, dataset: Dataset) -> None:
    _move(dataset, 0, 0, 1.0 if index > 6 else 0)


def _drift(index: int, dataset: Dataset) -> None:
    """Each step is 1.5 % off, which is little; together they are not."""
    _move(dataset, 0, 0, 0.0375 * min(index, 7))


def _sideways(index: int, dataset: Dataset) -> None:
    _move(dataset, 2.0 if index == 5 else 0, 0, 0)


REFUSALS: dict[str, tuple[Edit, str]] = {
    "another patient": (_at(4, PatientID="PHANTOM-2"), "mixed-patients"),
    "another name": (_at(4, PatientName="Other^Name"), "mixed-patients"),
    "another study": (_at(4, StudyInstanceUID="1.2.3"), "mixed-studies"),
    "another series": (_at(4, SeriesInstanceUID="1.2.3"), "mixed-series"),
    "another modality": (_at(4, Modality="CT"), "mixed-modalities"),
    "another frame of reference": (_at(4, FrameOfReferenceUID="1.2"), "two-frames-of-reference"),
    "another size": (_at(4, Rows=12, Columns=44), "mixed-size"),
    "other pixels": (_at(4, PixelSpacing=[1.25, 1.6]), "mixed-pixel-spacing"),
    "another plane": (_at(4, ImageOrientationPatient=[0, 1, 0, 0, 0, -1]), "mixed-orientation"),
    "the mirrored plane": (
        _at(4, ImageOrientationPatient=[-1, 0, 0, 0, 1, 0]),
        "mixed-orientation",
    ),
    "a localizer": (_at(4, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), "localizer"),
    "colours": (
        _at(4, PhotometricInterpretation="RGB", SamplesPerPixel=3, PlanarConfiguration=0),
        "not-monochrome",
    ),
    "no position": (_without("ImagePositionPatient"), "no-geometry"),
    "no orientation": (_without("ImageOrientationPatient"), "no-geometry"),
    "no pixel spacing": (_without("PixelSpacing"), "no-geometry"),
    "an empty position": (_at(2, ImagePositionPatient=None), "no-geometry"),
    "half a position": (_at(2, ImagePositionPatient=[1, 2]), "no-geometry"),
    "no frame of reference": (_everywhere(FrameOfReferenceUID=None), "no-geometry"),
    "pixels of no size": (_everywhere(PixelSpacing=[0, 1.5]), "no-geometry"),
    "a bent orientation": (
        _everywhere(ImageOrientationPatient=[1, 0, 0, 0.5, 1, 0]),
        "no-geometry",
    ),
    "frames without positions": (_at(2, NumberOfFrames=2), "no-geometry"),
    "a tilted gantry": (_tilt, "gantry-tilt"),
    "an uneven distance": (_jump, "irregular-spacing"),
    "a slow drift": (_drift, "irregular-spacing"),
    "a slice off to the side": (_sideways, "irregular-spacing"),
    "an empty UID": (_at(2, SeriesInstanceUID=""), "no-identity"),
    "too few pixels": (_at(2, PixelData=b"\0\0"), "undecodable"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_makes_no_regular_volume_is_refused_by_name(tmp_path: Path, case: str) -> None:
    edit, reason = REFUSALS[case]
    plain = phantom.write_series(tmp_path / "plain")
    volume.load(plain.files)  # it is the edit that is refused
    edited = phantom.write_series(tmp_path / "edited", edit=edit)
    assert refusal(edited.files).reason == reason


def test_missing_slices_are_counted_and_their_place_is_said(tmp_path: Path) -> None:
    scan = phantom.write_series(tmp_path)
    missing = {scan.file_of(5), scan.file_of(6), scan.file_of(9)}
    error = refusal(path for path in scan.files if path not in missing)
    assert error.reason == "missing-slices"
    before, after = scan.points[4, 0, 0, 2], scan.points[7, 0, 0, 2]
    assert "3 slices are missing" in error.detail
    assert f"2 between {before:.2f} and {after:.2f} mm" in error.detail


def test_many_gaps_are_not_all_listed(tmp_path: Path) -> None:
    scan = phantom.write_series(tmp_path, shape=(30, 8, 8))
    missing = {scan.file_of(index) for index in (4, 9, 14, 19, 24)}
    error = refusal(path for path in scan.files if path not in missing)
    assert "5 slices are missing" in error.detail
    assert "in 2 more places" in error.detail


def test_one_image_twice_is_refused(tmp_path: Path) -> None:
    scan = phantom.write_series(tmp_path)
    assert refusal([*scan.files, scan.files[0]]).reason == "duplicate-position"


def test_a_series_that_was_scanned_twice_is_refused(tmp_path: Path) -> None:
    series = {"SeriesInstanceUID": "1.2.3"}
    one = phantom.write_series(tmp_path / "one", attributes=series)
    two = phantom.write_series(tmp_path / "two", key="again", attributes=series)
    assert refusal([*one.files, *two.files]).reason == "duplicate-position"


def test_one_slice_is_no_volume(tmp_path: Path) -> None:
    assert refusal(phantom.write_series(tmp_path).files[:1]).reason == "single-slice"


def test_no_files_are_no_volume() -> None:
    assert refusal([]).reason == "no-images"


def test_what_is_not_dicom_is_refused(tmp_path: Path) -> None:
    scan = phantom.write_series(tmp_path)
    scan.files[3].write_bytes(b"not DICOM at all" * 20)
    assert refusal(scan.files).reason == "undecodable"


def test_a_file_that_is_away_is_tried_again_later(tmp_path: Path) -> None:
    with pytest.raises(RetryLater, match="file-unavailable"):
        volume.load([tmp_path / "gone.dcm"])


def test_a_refusal_says_nothing_of_the_patient(tmp_path: Path) -> None:
    scan = phantom.write_series(tmp_path, edit=_at(4, PatientID="PHANTOM-2"))
    assert "PHANTOM" not in str(refusal(scan.files))


def test_the_digits_that_a_scanner_leaves_out_are_no_fault(tmp_path: Path) -> None:
    noise = np.random.default_rng(7)

    def blur(_: int, dataset: Dataset) -> None:
        for keyword, size in (("ImagePositionPatient", 1e-3), ("ImageOrientationPatient", 1e-6)):
            values = np.array(dataset[keyword].value, dtype=float)
            setattr(
                dataset,
                keyword,
                list(np.round(values + noise.uniform(-size, size, values.shape), 6)),
            )

    scan = phantom.write_series(tmp_path, orientation="oblique", edit=blur)
    loaded = volume.load(scan.files)
    np.testing.assert_allclose(loaded.affine, scan.affine, atol=2e-3)


def contract(**clauses: Any) -> bundle.Input:
    return bundle.Input(**({"modality": "MR", "sop_classes": ("MRImageStorage",)} | clauses))


class TestContract:
    def test_what_the_model_asks_for_is_read(self, tmp_path: Path) -> None:
        scan = phantom.write_series(tmp_path)
        loaded = volume.load(
            scan.files,
            contract=contract(
                planes=("axial",),
                slices={"min": 14, "max": 14},
                spacing_mm={"min": 1.25, "max": 2.5},
                slice_spacing_mm={"min": 2.5, "max": 2.5},
                extent_mm={"min": 30, "max": 35},
            ),
        )
        assert loaded.array.shape == (14, 24, 22)

    @pytest.mark.parametrize(
        ("clauses", "reason", "clause"),
        [
            ({"modality": "CT"}, "wrong-modality", "modality"),
            ({"sop_classes": ("CTImageStorage",)}, "wrong-sop-class", "sop_classes"),
            ({"planes": ("sagittal", "coronal")}, "wrong-plane", "planes"),
            ({"slices": {"min": 15}}, "wrong-slice-count", "slices"),
            ({"slices": {"max": 13}}, "wrong-slice-count", "slices"),
            ({"spacing_mm": {"max": 2.0}}, "wrong-spacing", "spacing_mm"),
            ({"spacing_mm": {"min": 1.3}}, "wrong-spacing", "spacing_mm"),
            ({"slice_spacing_mm": {"max": 2.0}}, "wrong-spacing", "slice_spacing_mm"),
            ({"extent_mm": {"min": 31}}, "wrong-extent", "extent_mm"),
        ],
    )
    def test_what_it_does_not_ask_for_is_not_applicable(
        self, tmp_path: Path, clauses: dict[str, Any], reason: str, clause: str
    ) -> None:
        scan = phantom.write_series(tmp_path)
        with pytest.raises(NotApplicable) as caught:
            volume.load(scan.files, contract=contract(**clauses))
        assert caught.value.reason == reason
        assert f"`{clause}`" in caught.value.detail

    @pytest.mark.parametrize(
        ("attributes", "reason"),
        [
            ({"RescaleType": "HU"}, ""),
            ({"RescaleType": "US"}, ""),
            ({"RescaleType": "MGML"}, "not-hounsfield"),
            ({"RescaleType": "Z_EFF"}, "not-hounsfield"),
            ({"RescaleSlope": None, "RescaleIntercept": None}, "incomplete-rescale"),
        ],
    )
    def test_a_ct_is_shown_in_hounsfield_units_or_not_at_all(
        self, tmp_path: Path, attributes: dict[str, Any], reason: str
    ) -> None:
        scan = phantom.write_series(tmp_path, modality="CT", edit=_everywhere(**attributes))
        given = contract(modality="CT", sop_classes=("CTImageStorage",))
        if reason:
            with pytest.raises(NodeError) as caught:
                volume.load(scan.files, contract=given)
            assert caught.value.reason == reason
        else:
            assert volume.load(scan.files, contract=given).array.min() < -500
        volume.load(scan.files)  # to look at, without a model

    def test_the_wrong_modality_is_said_before_a_missing_geometry(self, tmp_path: Path) -> None:
        scan = phantom.write_series(tmp_path, edit=_without("ImagePositionPatient"))
        with pytest.raises(NotApplicable, match="wrong-modality"):
            volume.load(scan.files, contract=contract(modality="PT"))

    def test_a_tolerated_tilt_gives_a_sheared_affine(self, tmp_path: Path) -> None:
        scan = phantom.write_series(tmp_path, edit=_tilt)
        loaded = volume.load(scan.files, contract=contract(gantry_tilt=True))
        np.testing.assert_allclose(loaded.affine[:3, 0], [0, 0.3, 2.5], atol=1e-6)
        assert loaded.voxel_mm3 == pytest.approx(2.5 * 1.25 * 1.5)
        assert loaded.slice_distance == pytest.approx(2.5)

    def test_tolerated_uneven_distances_give_the_mean_one(self, tmp_path: Path) -> None:
        scan = phantom.write_series(tmp_path, edit=_jump)
        loaded = volume.load(scan.files, contract=contract(irregular_spacing=True))
        assert loaded.spacing[0] == pytest.approx(2.5 + 1 / 13)

    @pytest.mark.parametrize("tilted", [False, True])
    def test_slices_off_to_the_side_are_never_tolerated(self, tmp_path: Path, tilted: bool) -> None:
        scan = phantom.write_series(tmp_path, edit=_sideways)
        error = refusal(scan.files, contract=contract(irregular_spacing=True, gantry_tilt=tilted))
        assert error.reason == "irregular-spacing"

    def test_missing_slices_are_never_tolerated(self, tmp_path: Path) -> None:
        scan = phantom.write_series(tmp_path)
        files = [path for path in scan.files if path != scan.file_of(6)]
        error = refusal(files, contract=contract(irregular_spacing=True))
        assert error.reason == "missing-slices"


@pytest.mark.data
class TestRealSeries:
    @pytest.mark.parametrize(
        ("folder", "shape", "spacing"),
        [
            ("brain_mr_study/11_HCropVolume", (40, 50, 34), (1, 1, 1)),
            ("brain_mr_study/36468-FLAIRreg-58706", (22, 320, 280), (6.5, 0.6875, 0.6875)),
        ],
    )
    def test_a_real_mr_series_is_read(
        self, folder: str, shape: tuple[int, ...], spacing: tuple[float, ...]
    ) -> None:
        loaded = volume.load(sorted((DATA / folder).iterdir()))
        assert loaded.array.shape == shape
        assert loaded.spacing == pytest.approx(spacing)

    def test_images_without_uids_are_refused(self) -> None:
        files = sorted((DATA / "ct_blank_uids").rglob("CT*"))
        assert refusal(files).reason == "no-identity"
