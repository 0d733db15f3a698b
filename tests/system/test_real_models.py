"""Third parties' data and networks, all the way from DICOM files to checked results."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import bundles
import numpy as np
import phantom
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom import Dataset

from dicomnode import results, volume
from dicomnode.bundle import Bundle
from dicomnode.prediction import LabelMap, Prediction, Shown
from dicomnode.volume import Volume

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
CREATED = datetime(2026, 3, 4, 23, 6, 7, tzinfo=UTC)
KEY = "0123abcd"

pytestmark = [
    pytest.mark.data,
    # real files, with real faults
    pytest.mark.filterwarnings("ignore:.*[Vv]alue:UserWarning"),
    *bundles.QUIET,
]

PT = 'modality = "PT"\nsop_classes = ["PositronEmissionTomographyImageStorage"]\nvalues = "suvbw"'


def a_bundle(
    root: Path,
    *,
    inputs: Mapping[str, str],
    segments: Mapping[int, tuple[str, str, str]],
    net: str,
    prepare: list[dict[str, Any]],
    finish: list[dict[str, Any]],
    weights: Mapping[str, Any] | None = None,
) -> Bundle:
    manifest = bundles.head(root.name)
    manifest += "".join(f"\n[inputs.{name}]\n{about}\n" for name, about in inputs.items())
    manifest += bundles.LABEL_MAP
    for label, (name, code, color) in segments.items():
        manifest += bundles.segment(label, name, kind=(code, name), color=color, is_measured=True)
    configuration = bundles.evaluated(before=prepare, after=finish)
    return bundles.write(
        root, manifest=manifest, configuration=configuration, script=net, weights=weights
    )


def predicted(model: Bundle, files: Mapping[str, list[Path]]) -> tuple[Prediction, LabelMap]:
    from workers import inference

    inputs: dict[str, Shown] = {}
    for name, contract in model.manifest.inputs.items():
        inputs[name] = volume.load_input(files[name], contract=contract)
    for name, contract in model.manifest.inputs.items():
        if contract.on_grid_of is not None:
            one, onto = inputs[name], inputs[contract.on_grid_of]
            assert isinstance(one, Volume)
            assert isinstance(onto, Volume)
            inputs[name] = volume.resampled(one, onto=onto)
    prediction = inference.load_model(model, device="cpu").predict(inputs)
    (answer,) = prediction.answers
    assert isinstance(answer, LabelMap)
    return prediction, answer


def checked(prediction: Prediction, model: Bundle, folder: Path) -> Dataset:
    """The SEG, after everything was written, read again and compared."""
    built = results.build(
        prediction, bundle=model, key=KEY, created=CREATED, profiles=[phantom.PLAIN]
    )
    files = results.write(built, folder)
    results.check(files, prediction=prediction, bundle=model, key=KEY, profiles=[phantom.PLAIN])
    return pydicom.dcmread(files[0])


MESHNET = """
import torch

DILATIONS = {dilations}


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        layers, before = [], 1
        for dilation in DILATIONS:
            layers.append(
                torch.nn.Conv3d(before, {width}, 3, padding=dilation, dilation=dilation)
            )
            layers.append(torch.nn.ReLU())
            before = {width}
        layers.append(torch.nn.Conv3d(before, 3, 1))
        self.layers = torch.nn.Sequential(*layers)

    def forward(self, image):
        return self.layers(image)
"""


def meshnet() -> tuple[str, dict[str, Any]]:
    """The network of a third party: its code as a module, and its weights."""
    import torch

    folder = DATA / "brain_tissue_meshnet" / "model5_gw_ae"
    described = json.loads((folder / "model.json").read_text())
    layers = described["modelTopology"]["model_config"]["config"]["layers"]
    dilations = [
        layer["config"]["dilation_rate"][0]
        for layer in layers
        if layer["class_name"] == "Conv3D" and layer["config"]["name"] != "output"
    ]
    (manifest,) = described["weightsManifest"]
    raw = np.fromfile(folder / manifest["paths"][0], dtype="<f4")
    state: dict[str, Any] = {}
    begin = 0
    for number, weight in enumerate(manifest["weights"]):
        count = int(np.prod(weight["shape"]))
        values = raw[begin : begin + count].reshape(weight["shape"])
        begin += count
        layer = f"layers.{number // 2 * 2}"
        if values.ndim > 1:  # depth, height, width, in, out
            state[f"{layer}.weight"] = torch.as_tensor(values.transpose(4, 3, 0, 1, 2).copy())
        else:
            state[f"{layer}.bias"] = torch.as_tensor(values.copy())
    assert begin == raw.size
    return MESHNET.format(dilations=dilations, width=5), state


@pytest.mark.timeout(900)
def test_a_third_partys_network_finds_grey_and_white_matter_on_an_oblique_grid(
    tmp_path: Path,
) -> None:
    with tarfile.open(DATA / "brain_t1_defaced" / "dicoms.tar.xz") as archive:
        archive.extractall(tmp_path / "images", filter="data")
    files = [path for path in (tmp_path / "images").rglob("*") if path.is_file()]
    net, weights = meshnet()
    model = a_bundle(
        tmp_path / "Brain tissue",
        inputs={"image": bundles.MR},
        segments={
            1: ("White matter", "68523003", "#f0f0f0"),
            2: ("Grey matter", "389080008", "#808080"),
        },
        net=net,
        weights=weights,
        prepare=[
            {"_target_": "LoadImaged", "keys": "image"},
            {"_target_": "EnsureChannelFirstd", "keys": "image"},
            {"_target_": "Orientationd", "keys": "image", "axcodes": "LIA", "labels": None},
            {"_target_": "Spacingd", "keys": "image", "pixdim": [1.0, 1.0, 1.0]},
            {
                "_target_": "ResizeWithPadOrCropd",
                "keys": "image",
                "spatial_size": [256, 256, 256],
            },
            {
                # What the makers' own conforming does to the brightest voxels: fat, and vessels.
                "_target_": "ScaleIntensityRangePercentilesd",
                "keys": "image",
                "lower": 0,
                "upper": 99.9,
                "b_min": 0,
                "b_max": 1,
                "clip": True,
            },
        ],
        finish=[
            {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
            {
                "_target_": "Invertd",
                "keys": "pred",
                "transform": "@preprocessing",
                "orig_keys": "image",
                "nearest_interp": True,
            },
        ],
    )

    prediction, answer = predicted(model, {"image": files})

    shown = prediction.volume
    assert shown.array.shape == (384, 384, 274)
    millilitres = {
        label: (answer.array == label).sum() * shown.voxel_mm3 / 1000 for label in (1, 2)
    }
    assert all(400 <= found <= 900 for found in millilitres.values()), millilitres
    segmentation = checked(prediction, model, tmp_path / "results")
    shared = segmentation.SharedFunctionalGroupsSequence[0]
    orientation = shared.PlaneOrientationSequence[0].ImageOrientationPatient
    np.testing.assert_allclose(np.array(orientation, float), shown.orientation, atol=1e-6)
    assert not set(np.abs(np.round(shown.orientation, 3))) <= {0.0, 1.0}  # oblique indeed
    assert segmentation.FrameOfReferenceUID == shown.frame_of_reference_uid
    assert len(segmentation.PerFrameFunctionalGroupsSequence) == 2 * 384


THRESHOLD = """
import torch


class Net(torch.nn.Module):
    def forward(self, image):
        return torch.cat([3.0 - image, image - 3.0], dim=1)
"""


def of_modality(folder: Path, modality: str) -> list[Path]:
    return [
        path
        for path in folder.rglob("*.dcm")
        if pydicom.dcmread(path, specific_tags=["Modality"]).Modality == modality
    ]


def drawn(shown: Volume, path: Path) -> list[NDArray[np.bool_]]:
    """The segments of a SEG on the slices of `shown`, by where their frames lie."""
    dataset = pydicom.dcmread(path)
    pixels = dataset.pixel_array.reshape(-1, dataset.Rows, dataset.Columns)
    masks = [np.zeros(shown.array.shape, dtype=np.bool_) for _ in dataset.SegmentSequence]
    to_index = np.linalg.inv(shown.affine)
    frames = zip(pixels, dataset.PerFrameFunctionalGroupsSequence, strict=True)
    for frame, groups in frames:
        position = [float(v) for v in groups.PlanePositionSequence[0].ImagePositionPatient]
        index = round(float((to_index @ [*position, 1])[0]))
        number = groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        masks[number - 1][index] |= frame > 0
    return masks


def test_uptake_values_find_the_two_lesions_that_were_drawn_by_hand(tmp_path: Path) -> None:
    from scipy import ndimage  # type: ignore[import-untyped]  # SciPy ships no types

    model = a_bundle(
        tmp_path / "Uptake",
        inputs={"image": PT},
        segments={1: ("Increased uptake", "52101004", "#ff4000")},
        net=THRESHOLD,
        prepare=[
            {"_target_": "LoadImaged", "keys": "image"},
            {"_target_": "EnsureChannelFirstd", "keys": "image"},
        ],
        finish=[{"_target_": "AsDiscreted", "keys": "pred", "argmax": True}],
    )
    folder = DATA / "pet_with_seg"

    prediction, answer = predicted(model, {"image": of_modality(folder, "PT")})

    checked(prediction, model, tmp_path / "results")
    lesions = drawn(prediction.volume, of_modality(folder, "SEG")[0])
    assert len(lesions) == 2
    parts, _ = ndimage.label(answer.array)
    found = []
    for lesion in lesions:
        marked = parts[lesion & (parts > 0)]
        assert marked.size >= 0.7 * lesion.sum()
        (part,) = np.unique(marked)  # one spot for a lesion, and no more than it
        assert (parts == part).sum() < 200
        found.append(part)
    assert found[0] != found[1]


THREE = """
import torch


class Net(torch.nn.Module):
    def forward(self, image):
        ct, mr, pet = image[:, :1], image[:, 1:2], image[:, 2:]
        hot = torch.minimum(pet - 2.5, ct + 200) + 0 * mr
        return torch.cat([-hot, hot], dim=1)
"""
LOAD_THREE = [
    {"_target_": "LoadImaged", "keys": ["ct", "mr", "pt"]},
    {"_target_": "EnsureChannelFirstd", "keys": ["ct", "mr", "pt"]},
    {
        "_target_": "ResampleToMatchd",
        "keys": ["mr", "pt"],
        "key_dst": "ct",
        "mode": "bilinear",
        "padding_mode": "zeros",
    },
    {"_target_": "ConcatItemsd", "keys": ["ct", "mr", "pt"], "name": "image"},
]
ARGMAX = [{"_target_": "AsDiscreted", "keys": "pred", "argmax": True}]
TUMOUR = {1: ("Neoplasm", "108369006", "#ff4000")}


@pytest.mark.parametrize("patient", ["STS_002", "STS_003"])
def test_three_series_of_one_study_feed_one_model_each_on_its_own_grid(
    tmp_path: Path, patient: str
) -> None:
    folder = DATA / "sarcoma_ct_mr_pet" / patient / "dicom"
    files = {
        name: [path for path in (folder / sub / "image").iterdir() if path.is_file()]
        for name, sub in (("ct", "CT"), ("mr", "MR_T1"), ("pt", "PET"))
    }
    inputs = {"ct": bundles.CT, "mr": bundles.MR, "pt": PT}
    own = a_bundle(
        tmp_path / "Own grids",
        inputs=inputs,
        segments=TUMOUR,
        net=THREE,
        prepare=LOAD_THREE,
        finish=ARGMAX,
    )
    brought = a_bundle(
        tmp_path / "One grid",
        inputs={
            name: f'{about}\nkey = "image"' + ("" if name == "ct" else '\non_grid_of = "ct"')
            for name, about in inputs.items()
        },
        segments=TUMOUR,
        net=THREE,
        prepare=[{"_target_": "LoadImaged", "keys": "image"}],
        finish=ARGMAX,
    )

    prediction, answer = predicted(own, files)
    together, same = predicted(brought, files)

    shapes = {one.array.shape for one in prediction.shown if isinstance(one, Volume)}
    assert len(shapes) == 3  # three grids indeed
    segmentation = checked(prediction, own, tmp_path / "results")
    named = {one.SeriesInstanceUID for one in segmentation.ReferencedSeriesSequence}
    assert named == {prediction.volume.header.SeriesInstanceUID}
    checked(together, brought, tmp_path / "together")
    assert (answer.array != same.array).mean() < 1e-4
    # The tumour that was outlined by hand is where the uptake is.
    ct, _, pet = prediction.shown
    assert isinstance(ct, Volume)
    assert isinstance(pet, Volume)
    on_ct = volume.resampled(pet, onto=ct)
    expected = (on_ct.array > 2.5) & (ct.array > -200)
    assert (expected == (answer.array == 1)).mean() > 0.9999
    assert expected.sum() > 1000
