"""Bundles in the structure of published ones: what their makers write, without their weights.

Names, shapes and steps are those that a kind of bundle has; the sentences are ours.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Tree = dict[str, Any]

WHOLE_BODY = (
    "spleen kidney_right kidney_left gallbladder liver stomach aorta inferior_vena_cava"
    " portal_vein_and_splenic_vein pancreas adrenal_gland_right adrenal_gland_left"
    " lung_upper_lobe_left lung_lower_lobe_left lung_upper_lobe_right lung_middle_lobe_right"
    " lung_lower_lobe_right vertebrae_L5 vertebrae_L4 vertebrae_L3 vertebrae_L2 vertebrae_L1"
    " vertebrae_T12 vertebrae_T11 vertebrae_T10 vertebrae_T9 vertebrae_T8 vertebrae_T7"
    " vertebrae_T6 vertebrae_T5 vertebrae_T4 vertebrae_T3 vertebrae_T2 vertebrae_T1 vertebrae_C7"
    " vertebrae_C6 vertebrae_C5 vertebrae_C4 vertebrae_C3 vertebrae_C2 vertebrae_C1 esophagus"
    " trachea heart_myocardium heart_atrium_left heart_ventricle_left heart_atrium_right"
    " heart_ventricle_right pulmonary_artery brain iliac_artery_left iliac_artery_right"
    " iliac_vena_left iliac_vena_right small_bowel duodenum colon rib_left_1 rib_left_2 rib_left_3"
    " rib_left_4 rib_left_5 rib_left_6 rib_left_7 rib_left_8 rib_left_9 rib_left_10 rib_left_11"
    " rib_left_12 rib_right_1 rib_right_2 rib_right_3 rib_right_4 rib_right_5 rib_right_6"
    " rib_right_7 rib_right_8 rib_right_9 rib_right_10 rib_right_11 rib_right_12 humerus_left"
    " humerus_right scapula_left scapula_right clavicula_left clavicula_right femur_left"
    " femur_right hip_left hip_right sacrum face gluteus_maximus_left gluteus_maximus_right"
    " gluteus_medius_left gluteus_medius_right gluteus_minimus_left gluteus_minimus_right"
    " autochthon_left autochthon_right iliopsoas_left iliopsoas_right urinary_bladder"
)


def metadata(
    task: str,
    *,
    modality: str | None,
    outputs: Tree,
    channels: int = 1,
    shape: tuple[int, ...] = (96, 96, 96),
    input_channels: Tree | None = None,
    **more: Any,
) -> Tree:
    image: Tree = {
        "type": "image",
        "format": "magnitude",
        "modality": modality,
        "num_channels": channels,
        "spatial_shape": list(shape),
        "dtype": "float32",
        "value_range": [0, 1],
        "is_patch_data": True,
        "channel_def": input_channels if input_channels is not None else {"0": "image"},
    }
    if modality is None:
        del image["modality"]
    return {
        "version": "0.4.2",
        "changelog": {"0.4.2": "anything"},
        "monai_version": "1.4.0",
        "pytorch_version": "2.4.0",
        "numpy_version": "1.24.4",
        "optional_packages_version": {"nibabel": "5.2.1", "pytorch-ignite": "0.4.11"},
        "task": task,
        "description": f"A trained model: {task}",
        "authors": "The makers",
        "intended_use": "An example; not for diagnosis",
        "network_data_format": {"inputs": {"image": image}, "outputs": outputs},
    } | more


def segmentation(channels: int, defined: Any, **more: Any) -> Tree:
    return {
        "pred": {
            "type": "image",
            "format": "segmentation",
            "num_channels": channels,
            "spatial_shape": [96, 96, 96],
            "dtype": "float32",
            "value_range": [],
            "is_patch_data": True,
            "channel_def": defined,
        }
        | more
    }


def config(
    *,
    post: list[Tree],
    pre: list[Tree] | None = None,
    network: Tree | None = None,
    **more: Any,
) -> Tree:
    loading = [
        {"_target_": "LoadImaged", "keys": "image"},
        {"_target_": "EnsureChannelFirstd", "keys": "image"},
        {"_target_": "Spacingd", "keys": "image", "pixdim": [1.5, 1.5, 2.0]},
    ]
    return {
        "imports": ["$import glob", "$import os"],
        "bundle_root": ".",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "network_def": network or {"_target_": "UNet", "spatial_dims": 3, "out_channels": 2},
        "network": "$@network_def.to(@device)",
        "preprocessing": {"_target_": "Compose", "transforms": loading if pre is None else pre},
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [96, 96, 96]},
        "postprocessing": {"_target_": "Compose", "transforms": post},
        "handlers": [{"_target_": "StatsHandler", "iteration_log": False}],
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
            "val_handlers": "@handlers",
        },
    } | more


SOFTMAX: Tree = {"_target_": "Activationsd", "keys": "pred", "softmax": True}
SIGMOID: Tree = {"_target_": "Activationsd", "keys": "pred", "sigmoid": True}
INVERT: Tree = {
    "_target_": "Invertd", "keys": "pred", "transform": "@preprocessing", "orig_keys": "image",
    "nearest_interp": False,
}  # fmt: skip
ARGMAX: Tree = {"_target_": "AsDiscreted", "keys": "pred", "argmax": True}
THRESHOLD: Tree = {"_target_": "AsDiscreted", "keys": "pred", "threshold": 0.5}
SAVE: Tree = {"_target_": "SaveImaged", "keys": "pred", "output_dir": "@output_dir"}
LABELS = [SOFTMAX, INVERT, ARGMAX, SAVE]


def spleen() -> tuple[Tree, Tree]:
    outputs = segmentation(2, {"0": "background", "1": "spleen"})
    return metadata("Spleen segmentation", modality="CT", outputs=outputs), config(post=LABELS)


def whole_body() -> tuple[Tree, Tree]:
    defined = {"0": "background"} | {str(n): name for n, name in enumerate(WHOLE_BODY.split(), 1)}
    key = [{"_target_": "LoadImaged", "keys": "@image_key"}]
    return (
        metadata("Whole body segments", modality="CT", outputs=segmentation(105, defined)),
        config(
            post=[SOFTMAX, ARGMAX, INVERT | {"nearest_interp": True}, SAVE],
            pre=key,
            network={"_target_": "SegResNet", "spatial_dims": 3, "out_channels": 105},
            image_key="image",
        ),
    )


def brats() -> tuple[Tree, Tree]:
    series = {"0": "T1c", "1": "T1", "2": "T2", "3": "FLAIR"}
    outputs = segmentation(3, {"0": "Tumor core", "1": "Whole tumor", "2": "Enhancing tumor"})
    fold = (
        "$lambda x: torch.where(x[[2]] > 0, 4,"
        " torch.where(x[[0]] > 0, 1, torch.where(x[[1]] > 0, 2, 0)))"
    )
    return (
        metadata(
            "Multimodal brain tumor segmentation", modality="MR", outputs=outputs, channels=4,
            input_channels=series,
        ),
        config(
            post=[SIGMOID, INVERT, THRESHOLD,
                  {"_target_": "Lambdad", "keys": "pred", "func": fold}, SAVE],
            network={"_target_": "SegResNet", "in_channels": 4, "out_channels": 3},
        ),
    )  # fmt: skip


def prostate() -> tuple[Tree, Tree]:
    defined = {"0": "background", "1": "central gland", "2": "peripheral zone"}
    keep = {"_target_": "KeepLargestConnectedComponentd", "keys": "pred", "applied_labels": [1, 2]}
    return (
        metadata(
            "Zones of the prostate",
            modality="MR",
            outputs=segmentation(3, defined, format="labels"),
        ),
        config(
            post=[ARGMAX, keep, INVERT, SAVE],
            network={"_target_": "UNet", "spatial_dims": 3, "out_channels": 3},
            imports=["$import pandas as pd", "$import os"],
        ),
    )


def ventricles() -> tuple[Tree, Tree]:
    defined = {"0": "background", "1": "lv_pool", "2": "myocardium", "3": "rv_pool"}
    return (
        metadata(
            "Ventricles in short axis images", modality="MR", shape=(256, 256),
            outputs=segmentation(4, defined, spatial_shape=[256, 256]),
        ),
        config(
            post=LABELS,
            network={"_target_": "UNet", "spatial_dims": 2, "out_channels": 4},
            inferer={"_target_": "SliceInferer", "roi_size": [256, 256], "spatial_dim": 2},
        ),
    )  # fmt: skip


def nodules() -> tuple[Tree, Tree]:
    outputs = {"pred": {"type": "object", "format": "dict", "num_channels": 1}}
    world = {"_target_": "AffineBoxToWorldCoordinated", "box_keys": "box",
             "box_ref_image_keys": "image", "affine_lps_to_ras": True}  # fmt: skip
    center = {"_target_": "ConvertBoxModed", "box_keys": "box", "src_mode": "xyzxyz",
              "dst_mode": "cccwhd"}  # fmt: skip
    clip = {"_target_": "ClipBoxToImaged", "box_keys": "box", "label_keys": "label"}
    saver = {
        "_target_": "scripts.detection_saver.DetectionSaver", "output_dir": "@output_dir",
        "output_transform": "$lambda x: [@postprocessing(y) for y in x]", "pred_box_key": "box",
        "pred_label_key": "label", "pred_score_key": "label_scores",
    }  # fmt: skip
    made = config(
        post=[clip, world, center],
        network={"_target_": "RetinaNet", "spatial_dims": 3, "num_classes": 1},
        detector={"_target_": "RetinaNetDetector", "network": "@network"},
    )
    made["handlers"].append(saver)
    made["evaluator"]["_target_"] = "scripts.evaluator.DetectionEvaluator"
    del made["evaluator"]["postprocessing"]
    return metadata("CT lung nodule detection", modality="CT", outputs=outputs), made


def breast_density() -> tuple[Tree, Tree]:
    defined = {"0": "A", "1": "B", "2": "C", "3": "D"}
    outputs = {
        "pred": {
            "type": "image", "format": "labels", "num_channels": 4, "spatial_shape": [1, 4],
            "channel_def": defined,
        }
    }  # fmt: skip
    made = config(
        post=[SIGMOID, THRESHOLD],
        network={"_target_": "TorchVisionFCModel", "model_name": "inception_v3", "num_classes": 4},
        inferer={"_target_": "SimpleInferer"},
    )
    made["import"] = ["$import torchvision"]
    made["handlers"].append({"_target_": "ClassificationSaver", "output_dir": "@output_dir"})
    return (
        metadata(
            "Breast density classification", modality="Mammogram", channels=3, shape=(299, 299),
            outputs=outputs, data_type="Jpeg", pred_classes="One hot data",
            optional_packages_version={"torchvision": "0.13.1"},
        ),
        made,
    )  # fmt: skip


def valves() -> tuple[Tree, Tree]:
    meanings = {"0": "mitral anterior 2CH", "1": "mitral posterior 2CH", "2": "aortic septal"}
    outputs = {
        "pred": {
            "type": "tuples", "format": "points", "num_channels": 2, "spatial_shape": [2, 3],
            "channel_def": {"0": "Y", "1": "X"},
        }
    }  # fmt: skip
    return (
        metadata(
            "Where valves attach, through the cardiac cycle", modality="MR", shape=(256, 256),
            outputs=outputs, coordinate_meanings=meanings,
        ),
        config(
            pre=[
                {"_target_": "LoadImage", "image_only": "true"},
                {"_target_": "Transpose", "indices": [2, 0, 1, 3]},
            ],
            post=[
                {"_target_": "SqueezeDimd", "keys": "pred", "dim": 0},
                {"_target_": "valve_landmarks.NpySaverd", "keys": "pred"},
            ],
            network={"_target_": "valve_landmarks.PointRegressor", "out_shape": [2, 3]},
            imports=["$import os", "$from scripts import valve_landmarks"],
        ),
    )  # fmt: skip


def tools() -> tuple[Tree, Tree]:
    return (
        metadata(
            "Surgical tools in endoscopic images", modality="regular", channels=3,
            shape=(736, 480), input_channels={"0": "R", "1": "G", "2": "B"}, data_type="RGB",
            outputs=segmentation(2, {"0": "background", "1": "tools"}, spatial_shape=[736, 480]),
        ),
        config(
            post=[
                INVERT,
                {"_target_": "AsDiscreted", "argmax": True, "to_onehot": 2, "keys": ["pred"]},
                {"_target_": "Lambdad", "keys": ["pred"], "func": "$lambda x : x[1:]"},
                SAVE,
            ],
            network={"_target_": "FlexibleUNet", "spatial_dims": 2, "out_channels": 2},
            inferer={"_target_": "SimpleInferer"},
        ),
    )  # fmt: skip


def tumor_patches() -> tuple[Tree, Tree]:
    outputs = {
        "pred": {
            "type": "probability", "format": "classification", "num_channels": 1,
            "spatial_shape": [1, 1], "channel_def": {"0": "metastasis"},
        }
    }  # fmt: skip
    made = config(
        pre=[{"_target_": "CastToTyped", "keys": "image", "dtype": "float32"}],
        post=[SIGMOID, {"_target_": "ToNumpyd", "keys": "pred"}],
        network={"_target_": "TorchVisionFCModel", "model_name": "resnet18", "num_classes": 1},
        inferer={"_target_": "SimpleInferer"},
        datalist={"_target_": "CSVDataset", "src": "testing.csv"},
        dataset={"_target_": "MaskedPatchWSIDataset", "data": "@datalist", "reader": "cuCIM"},
        dataloader={"_target_": "DataLoader", "dataset": "@dataset"},
    )
    made["handlers"].append({"_target_": "monai.handlers.ProbMapProducer"})
    made["evaluator"]["val_data_loader"] = "@dataloader"
    return (
        metadata(
            "Metastases in pathology", modality=None, channels=3, shape=(224, 224),
            outputs=outputs,
            optional_packages_version={"cucim-cu12": "24.6.0", "pandas": "2.2.1"},
        ),
        made,
    )  # fmt: skip


def renal() -> tuple[Tree, Tree]:
    keys = ["artery", "vein", "excret"]
    defined = {"0": "background", "1": "artery", "2": "vein", "3": "ureter", "4": "neoplasm",
               "5": "parenchyma"}  # fmt: skip
    return (
        metadata(
            "Renal structures in contrast-enhanced CT", modality="CT", channels=3,
            outputs=segmentation(6, defined),
        ),
        config(
            pre=[
                {"_target_": "LoadImaged", "keys": keys},
                {"_target_": "Spacingd", "keys": keys, "pixdim": [0.8, 0.8, 0.8]},
                {"_target_": "scripts.my_transforms.ConcatImages", "keys_merge": keys},
            ],
            post=[
                SIGMOID | {"softmax": False},
                INVERT,
                {"_target_": "AsDiscreted", "keys": "pred", "argmax": False, "threshold": 0.5},
                SAVE,
            ],
            network={"_target_": "SegResNet", "in_channels": 3, "out_channels": 6},
        ),
    )  # fmt: skip


def pancreas() -> tuple[Tree, Tree]:
    defined = {"0": "background", "1": "pancreas", "2": "pancreatic tumor"}
    return (
        metadata("Pancreas segmentation", modality="CT", outputs=segmentation(3, defined)),
        config(
            post=LABELS,
            network={"_target_": "monai.networks.nets.DiNTS", "num_classes": "@output_classes"},
            output_classes=3,
        ),
    )


def abdomen() -> tuple[Tree, Tree]:
    names = (
        "background|spleen|Right Kidney|Left Kideny|Gallbladder|Esophagus|Liver|Stomach|Aorta|IVC"
        "|Portal and Splenic Veins|Pancreas|Right adrenal gland|Left adrenal gland"
    )
    defined = dict(enumerate(names.split("|")))
    return (
        metadata(
            "Abdominal organs", modality="CT",
            outputs=segmentation(14, {str(n): name for n, name in defined.items()}),
            optional_packages_version={"einops": "0.4.1"},
        ),
        config(
            pre=[{"_target_": "LoadImaged", "keys": "image", "reader": "ITKReader"}],
            post=LABELS,
            network={"_target_": "SwinUNETR", "spatial_dims": 3, "out_channels": 14},
        ),
    )  # fmt: skip


def nuclei() -> tuple[Tree, Tree]:
    shape = ["164", "164"]
    outputs = {
        "nucleus_prediction": {
            "type": "probability", "format": "segmentation", "num_channels": 3,
            "spatial_shape": shape, "channel_def": {"0": "background", "1": "nuclei"},
        },
        "horizontal_vertical": {
            "type": "probability", "format": "regression", "num_channels": 2,
            "spatial_shape": shape, "channel_def": {"0": "across", "1": "down"},
        },
        "type_prediction": {
            "type": "probability", "format": "classification", "num_channels": 2,
            "spatial_shape": shape, "channel_def": {"0": "background", "1": "type of nucleus"},
        },
    }  # fmt: skip
    return (
        metadata(
            "Nuclei in histology, segmented and classified", modality=None, channels=3,
            shape=(256, 256), outputs=outputs,
            optional_packages_version={"scikit-image": "0.19.3"},
        ),
        config(
            pre=[{"_target_": "LoadImaged", "keys": "image"}],
            post=[
                {"_target_": "FlattenSubKeysd", "keys": "pred",
                 "sub_keys": ["horizontal_vertical", "nucleus_prediction", "type_prediction"]},
                {"_target_": "HoVerNetInstanceMapPostProcessingd", "sobel_kernel_size": 3},
                {"_target_": "HoVerNetNuclearTypePostProcessingd"},
                {"_target_": "SaveImaged", "keys": "instance_map"},
                {"_target_": "SaveImaged", "keys": "type_map"},
            ],
            network={"_target_": "HoVerNet", "in_channels": 3, "out_classes": 5},
            inferer={"_target_": "SlidingWindowHoVerNetInferer", "roi_size": 270},
        ),
    )  # fmt: skip


EVERY: dict[str, Callable[[], tuple[Tree, Tree]]] = {
    "spleen_ct_segmentation": spleen,
    "wholeBody_ct_segmentation": whole_body,
    "brats_mri_segmentation": brats,
    "prostate_mri_anatomy": prostate,
    "ventricular_short_axis_3label": ventricles,
    "lung_nodule_ct_detection": nodules,
    "breast_density_classification": breast_density,
    "valve_landmarks": valves,
    "endoscopic_tool_segmentation": tools,
    "pathology_tumor_detection": tumor_patches,
    "renalStructures_CECT_segmentation": renal,
    "pancreas_ct_dints_segmentation": pancreas,
    "swin_unetr_btcv_segmentation": abdomen,
    "pathology_nuclei_segmentation_classification": nuclei,
}


def write(folder: Path, about: Tree, how: Tree) -> Path:
    """A bundle's folder, with weights that are none."""
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    (folder / "configs" / "metadata.json").write_text(json.dumps(about), encoding="utf-8")
    (folder / "configs" / "inference.json").write_text(json.dumps(how), encoding="utf-8")
    (folder / "models" / "model.pt").write_bytes(b"weights")
    return folder


def written(name: str, root: Path) -> Path:
    """One of the bundles above."""
    return write(root / name, *EVERY[name]())
