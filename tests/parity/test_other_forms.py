"""Detectors, classifiers, landmarks, photographs, slides: our answers equal those of MONAI."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import bundles
import numpy as np
import published
import pytest
from numpy.typing import NDArray
from pictures import write_slide
from PIL import Image
from published import (
    CINE,
    COLOUR,
    SLIDE,
    VOLUME,
    Reference,
    activated,
    channel_first,
    compose,
    configuration,
    discrete,
    findings,
    inverted,
    load,
    oriented,
    saved,
    typed,
)
from pydicom import Dataset
from test_volumes import a_volume, write

from dicomnode import volume
from dicomnode.bundle import Bundle, Input
from dicomnode.prediction import Boxes, Classification, LabelMap, Points, ProbabilityMap, Shown
from dicomnode.volume import Images, Picture, SliceSource
from workers import inference

pytestmark = [
    *bundles.QUIET,
    # torchvision and scikit-image, of what is theirs
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
SOURCE = SliceSource(
    sop_instance_uid="1.2",
    sop_class_uid="1.2.840.10008.5.1.4.1.1.1",
    path="",
    frame_number=1,
    is_multiframe=False,
    position=None,
)


def said(model: Bundle, inputs: dict[str, Shown]) -> tuple[Any, ...]:
    return inference.load_model(model, device="cpu").predict(inputs).answers


def a_photograph(seed: int = 1, shape: tuple[int, int] = (90, 120)) -> NDArray[np.uint8]:
    from scipy import ndimage  # type: ignore[import-untyped]

    noise = np.random.default_rng(seed).standard_normal((*shape, 3))
    smooth = ndimage.gaussian_filter(noise, (6, 6, 0))
    scaled = (smooth - smooth.min()) / (smooth.max() - smooth.min())
    return (scaled * 255).astype(np.uint8)


def picture(array: NDArray[Any], affine: NDArray[np.float64] | None = None) -> Picture:
    return Picture(
        array=array.astype(np.float32),
        source=SOURCE,
        pixel_spacing=None,
        affine=affine,
        header=Dataset(),
    )


INFERER = """
from monai.inferers.inferer import Inferer


class RetinaNetInferer(Inferer):
    def __init__(self, detector, *args, **kwargs):
        Inferer.__init__(self)
        self.detector = detector

    def __call__(self, inputs, network, *args, **kwargs):
        self.detector.eval()
        return self.detector(inputs, use_inferer=self.detector.inferer is not None)
"""
EVALUATOR = """
import torch
from monai.engines.evaluator import SupervisedEvaluator
from monai.engines.utils import IterationEvents


def images_alone(batch, device=None, non_blocking=False, **kwargs):
    return [item["image"].to(device) for item in batch], None


class DetectionEvaluator(SupervisedEvaluator):
    def __init__(self, **kwargs):
        super().__init__(prepare_batch=images_alone, **kwargs)

    def _register_decollate(self):
        pass

    def _iteration(self, engine, batchdata):
        inputs, _ = engine.prepare_batch(batchdata, engine.state.device, engine.non_blocking)
        engine.state.output = [{"image": image} for image in inputs]
        with engine.mode(engine.network), torch.autocast("cuda", enabled=engine.amp):
            predictions = engine.inferer(inputs, engine.network)
        for item, prediction in zip(engine.state.output, predictions):
            item["pred"] = prediction
        engine.fire_event(IterationEvents.FORWARD_COMPLETED)
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        return engine.state.output
"""
DETECTION_SAVER = """
import json
import os

import numpy as np
from ignite.engine import Events


class DetectionSaver:
    def __init__(self, output_dir, filename, output_transform, **keys):
        self.path = os.path.join(output_dir, filename)
        self.output_transform = output_transform

    def attach(self, engine):
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine):
        (item,) = self.output_transform(engine.state.output)
        said = {key: np.asarray(item[key]).tolist() for key in ("box", "label_scores")}
        with open(self.path, "w") as file:
            json.dump(said, file)
"""


def test_lung_nodule_ct_detection(tmp_path: Path, reference: Reference) -> None:
    """Its own evaluator, inferer and saver; the saver makes the answer."""
    resnet = "$monai.networks.nets.resnet.resnet10(spatial_dims=3,n_input_channels=1,"
    anchors = "monai.apps.detection.utils.anchor_utils"
    features = "$monai.apps.detection.networks.retinanet_network.resnet_fpn_feature_extractor("
    tree = published.run_as(
        configuration(
            {
                "_target_": "RetinaNet",
                "spatial_dims": 3,
                "num_classes": 1,
                "num_anchors": 3,
                "feature_extractor": "@feature_extractor",
                "size_divisible": [16, 16, 8],
            },
            compose(
                load("image", meta_key_postfix="meta_dict", _disabled_="@whether_raw"),
                load(
                    "image",
                    meta_key_postfix="meta_dict",
                    reader="nibabelreader",
                    _disabled_="@whether_resampled",
                ),
                channel_first("image"),
                oriented("image"),
                {
                    "_target_": "ScaleIntensityRanged",
                    "keys": "image",
                    "a_min": -1024.0,
                    "a_max": 300.0,
                    "b_min": 0.0,
                    "b_max": 1.0,
                    "clip": True,
                },
                typed(),
            ),
            {"_target_": "scripts.detection_inferer.RetinaNetInferer", "detector": "@detector"},
            None,
            whether_raw=False,
            whether_resampled="$(not @whether_raw)",
            infer_patch_size=[32, 32, 16],
            anchor_generator={
                "_target_": f"{anchors}.AnchorGeneratorWithAnchorShape",
                "feature_map_scales": [1, 2, 4],
                "base_anchor_shapes": [[6, 8, 4], [8, 6, 5], [10, 10, 6]],
            },
            backbone=f"{resnet}conv1_t_stride=[2,2,1],conv1_t_size=[7,7,7])",
            feature_extractor=f"{features}@backbone,3,False,[1,2],None)",
            detector={
                "_target_": "RetinaNetDetector",
                "network": "@network",
                "anchor_generator": "@anchor_generator",
                "debug": False,
            },
            detector_ops=[
                "$@detector.set_target_keys(box_key='box', label_key='label')",
                (
                    "$@detector.set_box_selector_parameters(score_thresh=0.02,"
                    "topk_candidates_per_level=1000,nms_thresh=0.22,detections_per_img=300)"
                ),
                (
                    "$@detector.set_sliding_window_inferer(roi_size=@infer_patch_size,"
                    "overlap=0.25,sw_batch_size=1,mode='constant',device='cpu')"
                ),
            ],
            answer=compose(
                {
                    "_target_": "ClipBoxToImaged",
                    "box_keys": "box",
                    "label_keys": "label",
                    "box_ref_image_keys": "image",
                    "remove_empty": True,
                },
                {
                    "_target_": "AffineBoxToWorldCoordinated",
                    "box_keys": "box",
                    "box_ref_image_keys": "image",
                    "image_meta_key_postfix": "meta_dict",
                    "affine_lps_to_ras": True,
                },
                {
                    "_target_": "ConvertBoxModed",
                    "box_keys": "box",
                    "src_mode": "xyzxyz",
                    "dst_mode": "cccwhd",
                },
                {"_target_": "DeleteItemsd", "keys": ["image"]},
            ),
        ),
        "evaluating",
    )
    tree["imports"].append("$import monai")
    tree["postprocessing"] = tree.pop("answer")
    tree["dataloader"]["collate_fn"] = "$monai.data.utils.no_collation"
    tree["evaluator"] |= {
        "_target_": "scripts.evaluator.DetectionEvaluator",
        "_requires_": "@detector_ops",
    }
    tree["handlers"].append(
        {
            "_target_": "scripts.detection_saver.DetectionSaver",
            "output_dir": "@output_dir",
            "filename": "result.json",
            "output_transform": "$lambda x: [@postprocessing({**xx['pred'], 'image': xx['image']})"
            " for xx in x]",
            "pred_box_key": "box",
        }
    )
    manifest = (
        f'[inputs.image]\n{VOLUME}\n[outputs.nodules]\nkind = "boxes"\nkey = "box"\n'
        'scores = "label_scores"\nclasses = "label"\nmode = "center"\ncoordinates = "lps"\n'
        f"least_score = 0.02\nfindings = {findings(1)}"
    )
    scripts = {
        "detection_inferer": INFERER,
        "evaluator": EVALUATOR,
        "detection_saver": DETECTION_SAVER,
    }
    model = published.write(
        tmp_path / "nodules", tree, manifest, scripts=scripts, last="cls_logits.bias"
    )
    shown = a_volume(shape=(16, 40, 48))
    write(tmp_path / "data" / "a.nii.gz", shown)
    folder = reference(model.root, tmp_path / "data", words="evaluating")
    expected = json.loads((folder / "result.json").read_text())

    (answer,) = said(model, {"image": shown})

    assert isinstance(answer, Boxes)
    assert len(answer.boxes) == len(expected["box"]) > 5
    found = np.array([[*box.low, *box.high, box.score] for box in answer.boxes])
    center, size = np.split(np.array(expected["box"]), 2, axis=1)
    scores = np.array(expected["label_scores"])[:, None]
    meant = np.hstack([center - size / 2, center + size / 2, scores])
    order = np.lexsort(meant.T), np.lexsort(found.T)
    np.testing.assert_allclose(found[order[1]], meant[order[0]], atol=1e-3, rtol=1e-4)


def test_breast_density_classification(tmp_path: Path, reference: Reference) -> None:
    """A mistyped key, a network of torchvision's, a cached data set, a classification saver."""
    tree = published.run_as(
        configuration(
            {
                "_target_": "TorchVisionFCModel",
                "model_name": "inception_v3",
                "aux_logits": False,
                "num_classes": 4,
                "in_channels": 2048,
                "use_conv": False,
                "pool": "",
            },
            compose(
                load("image"),
                channel_first("image"),
                {"_target_": "ScaleIntensityd", "keys": "image", "minv": 0.0, "maxv": 1.0},
                {"_target_": "Resized", "keys": "image", "spatial_size": [299, 299]},
            ),
            {"_target_": "SimpleInferer"},
            compose(activated("sigmoid")),
            datalist="$sorted(glob.glob(@dataset_dir + '/*.png'))",
            dataset={
                "_target_": "CacheDataset",
                "data": "$[{'image': i, 'label': 0} for i in @datalist]",
                "transform": "@preprocessing",
                "cache_rate": 1,
                "num_workers": 0,
                "progress": False,
            },
        ),
        "evaluating",
    )
    tree["import"] = ["$import torchvision"]
    tree["dataloader"]["batch_size"] = 4
    tree["handlers"].append(
        {
            "_target_": "ClassificationSaver",
            "output_dir": "@output_dir",
            "batch_transform": "$lambda batch: [one['image'].meta for one in batch]",
            "output_transform": "$monai.handlers.from_engine(['pred'])",
        }
    )
    classes = ", ".join(f'{{ name = "{name}", code = {published.CODE} }}' for name in "ABCD")
    manifest = (
        f'[inputs.image]\n{COLOUR}\n[outputs.pred]\nkind = "classification"\nof = "image"\n'
        f"concept = {published.CODE}\nexclusive = false\nclasses = [{classes}]"
    )
    model = published.write(tmp_path / "density", tree, manifest, gain=0.8)
    photographs = [a_photograph(seed) for seed in (1, 2)]
    (tmp_path / "data").mkdir()
    for number, one in enumerate(photographs):
        Image.fromarray(one).save(tmp_path / "data" / f"{number}.png")
    folder = reference(model.root, tmp_path / "data", words="evaluating")
    rows = list(csv.reader((folder / "predictions.csv").read_text().splitlines()))
    expected = np.array([[float(value) for value in row[1:]] for row in rows])

    frames = tuple(picture(one) for one in photographs)
    answers = said(model, {"image": Images(frames=frames, form="image", modality="CR")})

    assert all(isinstance(one, Classification) for one in answers)
    found = np.array([one.probabilities for one in answers])
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert np.ptp(found) > 0.01


LANDMARKS = """
import os

import numpy as np
import torch
from monai.inferers.inferer import Inferer
from monai.transforms import MapTransform


class PointRegressor(torch.nn.Module):
    def __init__(self, in_shape, out_shape, channels):
        super().__init__()
        self.out_shape = tuple(out_shape)
        layers, before = [], in_shape[0]
        for channel in channels:
            layers += [torch.nn.Conv2d(before, channel, 3, 2, 1), torch.nn.PReLU()]
            before = channel
        self.features = torch.nn.Sequential(*layers, torch.nn.AdaptiveAvgPool2d(2))
        self.last = torch.nn.Linear(before * 4, int(np.prod(out_shape)))

    def forward(self, image):
        points = self.last(self.features(image).flatten(1))
        return points.reshape(-1, *self.out_shape) * 10 + 16


class LandmarkInferer(Inferer):
    def __init__(self, spatial_dim, stack_dim):
        Inferer.__init__(self)
        self.spatial_dim, self.stack_dim = spatial_dim, stack_dim

    def __call__(self, inputs, network, *args, **kwargs):
        phases = [network(inputs[..., phase]) for phase in range(inputs.shape[-1])]
        return torch.stack([phase.as_tensor() if hasattr(phase, "as_tensor") else phase
                            for phase in phases], dim=-1)


class NpySaverd(MapTransform):
    def __init__(self, keys, output_dir, data_root_dir):
        super().__init__(keys)
        self.folder = output_dir

    def __call__(self, data):
        for key in self.keys:
            np.save(os.path.join(self.folder, key), np.asarray(data[key]))
        return data
"""


def test_valve_landmarks(tmp_path: Path, reference: Reference) -> None:
    """Array transforms on a cine, batches that are not taken apart, weights under "net"."""
    tree = published.run_as(
        configuration(
            {
                "_target_": "scripts.valve_landmarks.PointRegressor",
                "in_shape": [1, 32, 32],
                "out_shape": [2, 10],
                "channels": [8, 16],
            },
            compose(
                {"_target_": "LoadImage", "image_only": "true"},
                {"_target_": "EnsureType", "device": "@device"},
                {"_target_": "Transpose", "indices": [2, 0, 1, 3]},
                {"_target_": "ScaleIntensity"},
            ),
            {
                "_target_": "scripts.valve_landmarks.LandmarkInferer",
                "spatial_dim": 2,
                "stack_dim": 1,
            },
            compose(
                {"_target_": "SqueezeDimd", "keys": "pred", "dim": 0},
                {
                    "_target_": "scripts.valve_landmarks.NpySaverd",
                    "keys": "pred",
                    "output_dir": "@output_dir",
                    "data_root_dir": "@dataset_dir",
                },
            ),
            dataset={"_target_": "Dataset", "data": "@datalist", "transform": "@preprocessing"},
            ckpt_path="$@bundle_root + '/models/model.pt'",
            handlers=[
                {
                    "_target_": "CheckpointLoader",
                    "_disabled_": "$not os.path.exists(@ckpt_path)",
                    "load_path": "@ckpt_path",
                    "load_dict": {"net": "@network"},
                }
            ],
        ),
        "evaluating",
    )
    tree["imports"].append("$from scripts import valve_landmarks")
    tree["evaluator"] |= {
        "decollate": False,
        "prepare_batch": "$lambda batch, dev, nb: (batch.to(dev), ())",
    }
    manifest = (
        f'[inputs.cine]\n{CINE}\n[outputs.pred]\nkind = "points"\nlayout = "axes"\n'
        f'coordinates = "index"\nlandmarks = {findings(*range(1, 11))}'
    )
    model = published.write(
        tmp_path / "valve",
        tree,
        manifest,
        scripts={"valve_landmarks": LANDMARKS},
        under="net",
    )
    import nibabel  # type: ignore[import-untyped]

    phases = np.stack([a_photograph(seed, (28, 32))[..., 0] for seed in range(5)])
    affine = np.diag([1.0, 1.5, 1.25, 1.0])
    stored = phases.transpose(2, 1, 0)[:, :, None].astype(np.float32)  # column, row, 1, phase
    ras = np.diag([-1, -1, 1, 1]) @ affine[:, [2, 1, 0, 3]]
    (tmp_path / "data").mkdir()
    nibabel.save(nibabel.Nifti1Image(stored, ras), tmp_path / "data" / "a.nii.gz")
    folder = reference(model.root, tmp_path / "data", words="evaluating")
    expected = np.load(folder / "pred.npy").squeeze()

    frames = tuple(picture(phase, affine) for phase in phases)
    answers = said(model, {"cine": Images(frames=frames, form="cine", modality="MR")})

    assert [one.frame for one in answers] == list(range(5))
    for phase, one in enumerate(answers):
        assert isinstance(one, Points)
        found = np.array([point.at for point in one.points])
        np.testing.assert_allclose(found, expected[..., phase].T, atol=1e-4)
    assert np.ptp(expected) > 1


def test_endoscopic_tool_segmentation(tmp_path: Path, reference: Reference) -> None:
    tree = configuration(
        {
            "_target_": "FlexibleUNet",
            "in_channels": 3,
            "out_channels": 2,
            "backbone": "efficientnet-b0",
            "spatial_dims": 2,
            "pretrained": False,
            "is_pad": False,
            "pre_conv": None,
        },
        compose(
            load("image"),
            channel_first("image", channel_dim=-1),
            {
                "_target_": "Resized",
                "keys": ["image"],
                "spatial_size": [128, 96],
                "mode": ["bilinear"],
            },
            {"_target_": "ScaleIntensityd", "keys": ["image"]},
        ),
        {"_target_": "SimpleInferer"},
        compose(
            inverted(meta_key_postfix="meta_dict"),
            discrete(argmax=True, to_onehot=2, keys=["pred"]),
            {"_target_": "Lambdad", "keys": ["pred"], "func": "$lambda x : x[1:]"},
            saved(output_ext=".png", scale=255, squeeze_end_dims=True),
        ),
        datalist="$list(sorted(glob.glob(os.path.join(@dataset_dir, '*.png'))))",
        initialize=["$monai.utils.set_determinism(seed=123)"],
    )
    manifest = f"[inputs.image]\n{COLOUR}\n{published.label_map(1)}"
    model = published.write(tmp_path / "tools", tree, manifest, gain=3.0)
    photograph = a_photograph()
    (tmp_path / "data").mkdir()
    Image.fromarray(photograph).save(tmp_path / "data" / "a.png")
    folder = reference(model.root, tmp_path / "data")
    (path,) = folder.rglob("*.png")
    expected = np.asarray(Image.open(path)) > 127

    images = Images(frames=(picture(photograph),), form="image", modality="CR")
    (answer,) = said(model, {"image": images})

    assert isinstance(answer, LabelMap)
    np.testing.assert_array_equal(answer.array == 1, expected)
    assert 0.01 < expected.mean() < 0.99


def test_pathology_tumor_detection(tmp_path: Path, reference: Reference) -> None:
    """Patches of a slide, found by its tissue, and a map of their probabilities."""
    tifffile: Any = pytest.importorskip("tifffile")
    tree = published.run_as(
        configuration(
            {
                "_target_": "TorchVisionFCModel",
                "model_name": "resnet18",
                "num_classes": 1,
                "use_conv": True,
                "pretrained": False,
            },
            compose(
                {"_target_": "CastToTyped", "keys": "image", "dtype": "float32"},
                {
                    "_target_": "ScaleIntensityRanged",
                    "keys": "image",
                    "a_min": 0.0,
                    "a_max": 255.0,
                    "b_min": -1.0,
                    "b_max": 1.0,
                },
                {"_target_": "ToTensord", "keys": "image"},
            ),
            {"_target_": "SimpleInferer"},
            compose(
                typed("pred"),
                activated("sigmoid"),
                # a number for each patch: arrays of one are no numbers to NumPy any more
                {"_target_": "Lambdad", "keys": "pred", "func": "$lambda x: x.flatten()"},
                {"_target_": "ToNumpyd", "keys": "pred"},
            ),
            wsi_reader="tifffile",
            patch_size=[224, 224],
            datalist="$[{'image': i} for i in sorted(glob.glob(@dataset_dir + '/*.tif'))]",
            dataset={
                "_target_": "MaskedPatchWSIDataset",
                "data": "@datalist",
                "mask_level": 2,
                "patch_size": "@patch_size",
                "transform": "@preprocessing",
                "reader": "@wsi_reader",
            },
        ),
        "evaluating",
    )
    tree["dataloader"]["batch_size"] = 20
    tree["evaluator"]["decollate"] = False
    tree["handlers"].append(
        {"_target_": "monai.handlers.ProbMapProducer", "output_dir": "@output_dir"}
    )
    manifest = (
        f'[inputs.slide]\n{SLIDE}\n[outputs.pred]\nkind = "probability_map"\n'
        f"findings = {findings(1)}"
    )
    model = published.write(tmp_path / "tumour", tree, manifest, gain=1.0)
    levels = _a_slide()
    (tmp_path / "data").mkdir()
    with tifffile.TiffWriter(tmp_path / "data" / "a.tif") as writer:
        for number, level in enumerate(levels):
            writer.write(
                level,
                photometric="rgb",
                tile=(16, 16),
                metadata=None,
                subfiletype=1 if number else 0,
            )
    folder = reference(model.root, tmp_path / "data", words="evaluating")
    expected = np.load(next(folder.glob("*.npy")))

    files = [
        write_slide(tmp_path / "dicom", level, tile=64, number=number)
        for number, level in enumerate(levels, 1)
    ]
    contract = model.manifest.inputs["slide"]
    assert isinstance(contract, Input)
    (answer,) = said(model, {"slide": volume.load_input(files, contract=contract)})

    assert isinstance(answer, ProbabilityMap)
    found = answer.array[0]
    seen = np.isfinite(found)
    np.testing.assert_array_equal(seen, expected > 0)
    np.testing.assert_allclose(found[seen], expected[seen], atol=1e-4)
    assert 3 <= seen.sum() < seen.size
    assert np.ptp(found[seen]) > 1e-3


def _a_slide() -> list[NDArray[np.uint8]]:
    """Three levels: white, with tissue in the middle, far enough from the edges for patches."""
    finest = np.full((512, 640, 3), 255, dtype=np.uint8)
    tissue = a_photograph(5, (96, 128))
    finest[208:304, 256:384] = tissue // 2 + np.array([90, 20, 90], dtype=np.uint8)
    coarse = [finest]
    for _ in range(4):
        last = coarse[-1].astype(np.uint16)
        mean = (last[::2, ::2] + last[1::2, ::2] + last[::2, 1::2] + last[1::2, 1::2]) // 4
        coarse.append(mean.astype(np.uint8))
    return [coarse[0], coarse[2], coarse[4]]
