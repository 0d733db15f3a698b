"""What the node adds to a model: `make bench-inference`.

A CT is made, and stored as the receiver stores it. Measured are, in turns:

- the node: from the complete study (its images on disk) to checked result objects on disk, with the
  model warm, by the same functions that a worker calls;
- the bare forward pass: the same inferer and network on the tensor that preprocessing made;
- `python -m monai.bundle run` from a cold start, on the same volume as a NIfTI file;
- two jobs in a row, the second of which is read ahead while the first computes.

Claimed is that the node adds at most 20 % or one second to the bare forward pass, whichever is
more.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from dicomnode import bundle, results, volume
from dicomnode.bundle import Bundle
from dicomnode.profile import Profile
from dicomnode.volume import Volume

KEY = "0" * 64
MANIFEST = """
name         = "Bench"
manufacturer = "Nobody"
intended_use = "Benchmark"
notice       = "RESEARCH USE ONLY"
family       = { value = "123110", scheme = "DCM", meaning = "Artificial Intelligence" }
procedure    = { value = "25045-6", scheme = "LN", meaning = "CT unspecified body region" }

[inputs.image]
modality    = "CT"
sop_classes = ["CTImageStorage"]

[outputs.pred]
kind = "label_map"

[[outputs.pred.segments]]
label    = 1
name     = "Dense"
category = { value = "91723000", scheme = "SCT", meaning = "Anatomical Structure" }
type     = { value = "272673000", scheme = "SCT", meaning = "Bone" }
color    = "#e69f00"
measure  = ["volume"]
"""
UNET = {
    "_target_": "UNet",
    "spatial_dims": 3,
    "in_channels": 1,
    "out_channels": 2,
    "channels": [16, 32, 64],
    "strides": [2, 2],
    "num_res_units": 2,
    "norm": "batch",
}


def configuration() -> dict[str, Any]:
    """A small UNet behind a sliding window, as published bundles have it."""
    return {
        "imports": ["$import glob"],
        "bundle_root": ".",
        "dataset_dir": ".",
        "output_dir": "eval",
        "datalist": "$sorted(glob.glob(@dataset_dir + '/*.nii.gz'))",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "network_def": UNET,
        "network": "$@network_def.to(@device)",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", "keys": "image"},
                {"_target_": "EnsureChannelFirstd", "keys": "image"},
                {
                    "_target_": "ScaleIntensityRanged",
                    "keys": "image",
                    "a_min": -1000,
                    "a_max": 1000,
                    "b_min": 0,
                    "b_max": 1,
                    "clip": True,
                },
                {"_target_": "EnsureTyped", "keys": "image"},
            ],
        },
        "dataset": {
            "_target_": "Dataset",
            "data": "$[{'image': i} for i in @datalist]",
            "transform": "@preprocessing",
        },
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "num_workers": 0},
        "inferer": {
            "_target_": "SlidingWindowInferer",
            "roi_size": [128, 128, 64],
            "sw_batch_size": 2,
            "overlap": 0.25,
        },
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
                {"_target_": "SaveImaged", "keys": "pred", "output_dir": "@output_dir"},
            ],
        },
        "handlers": [
            {
                "_target_": "CheckpointLoader",
                "load_path": "$@bundle_root + '/models/model.pt'",
                "load_dict": {"model": "@network"},
            }
        ],
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
            "val_handlers": "@handlers",
        },
        "run": ["$@evaluator.run()"],
    }


def write_bundle(root: Path) -> Bundle:
    """The bundle, with weights drawn from a seed."""
    import torch
    from monai.networks.nets.unet import UNet

    for folder in ("configs", "models"):
        (root / folder).mkdir(parents=True)
    (root / "dicom.toml").write_text(MANIFEST)
    (root / "configs" / "metadata.json").write_text(json.dumps({"version": "1.0.0"}))
    (root / "configs" / "inference.json").write_text(json.dumps(configuration()))
    torch.manual_seed(0)
    network = UNet(**{key: value for key, value in UNET.items() if key != "_target_"})  # type: ignore[arg-type]
    torch.save({"model": network.state_dict()}, root / "models" / "model.pt")
    bundle.write_lock(root)
    return bundle.load(root)


def write_ct(folder: Path, shape: tuple[int, int, int]) -> list[Path]:
    """A CT of blocks and noise: shape (slices, rows, columns)."""
    folder.mkdir(parents=True)
    slices, rows, columns = shape
    random = np.random.default_rng(0)
    blocks = random.integers(-800, 800, (-(-slices // 20), -(-rows // 32), -(-columns // 32)))
    paths = []
    for index in range(slices):
        plane = blocks[index // 20].repeat(32, axis=0).repeat(32, axis=1)[:rows, :columns]
        pixels = (plane + random.integers(0, 100, plane.shape)).astype(np.int16)
        paths.append(_write_slice(folder, pixels, index))
    return paths


def _write_slice(folder: Path, pixels: NDArray[np.int16], index: int) -> Path:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
    uid = f"1.2.826.0.1.3680043.2.1125.9.{index + 1}"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3", "1.2.3.4"
    dataset.FrameOfReferenceUID, dataset.Modality = "1.2.3.5", "CT"
    dataset.PatientID, dataset.PatientName = "BENCH", "BENCH^CT"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.InstanceNumber = index + 1
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.ImagePositionPatient = [-200, -200, 1.5 * index]
    dataset.PixelSpacing, dataset.SliceThickness = [0.8, 0.8], 1.5
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelRepresentation = 1
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, 0
    dataset.PixelData = pixels.tobytes()
    path = folder / f"{index:04}.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return path


class Laps:
    """Seconds from one call to the next."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.seconds[stage] = now - self._last
        self._last = now


def node(
    model: Any, described: Bundle, shown: Callable[[], Volume], out: Path
) -> tuple[dict[str, float], Any]:
    """One job as a worker does it, by stage; `shown` loads the images, or hands them over."""
    laps = Laps()
    loaded = shown()
    laps.lap("load")
    prediction = model.predict({"image": loaded})
    laps.lap("infer")
    built = results.build(
        prediction,
        bundle=described,
        key=KEY,
        created=datetime.now(UTC),
        profiles=[Profile(capture=False, regions=False)],
    )
    laps.lap("build")
    paths = results.write(built, out)
    laps.lap("write")
    results.check(
        paths,
        prediction=prediction,
        bundle=described,
        key=KEY,
        profiles=[Profile(capture=False, regions=False)],
    )
    laps.lap("check")
    picture = results.picture(prediction, bundle=described)
    if picture is not None:
        picture.save(out / "overlay.png")
    laps.lap("picture")
    parts = model.timings
    return laps.seconds | {f"infer: {name}": value for name, value in parts.items()}, prediction


def bare(model: Any, shown: Volume) -> float:
    """The forward pass alone: the bundle's inferer and network on the prepared tensor."""
    import torch

    workflow = model.workflow
    with torch.no_grad(), model.shelf.showing({"image": shown}):
        batch = workflow._collate([workflow._preprocessing({"image": "image"})])
        image = batch["image"].to(model.device)
        begin = time.perf_counter()
        workflow.inferer(image, workflow.main_network)
        if model.device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter() - begin


def cold(root: Path, nifti: Path, out: Path) -> float:
    """`python -m monai.bundle run` as its makers would run it."""
    command = [
        sys.executable, "-W", "ignore", "-m", "monai.bundle", "run",
        "--config_file", str(root / "configs" / "inference.json"),
        "--bundle_root", str(root), "--dataset_dir", str(nifti), "--output_dir", str(out),
    ]  # fmt: skip
    begin = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, cwd=root, env=os.environ)
    return time.perf_counter() - begin


def in_a_row(model: Any, described: Bundle, files: list[Path], out: Path) -> dict[str, float]:
    """Two jobs: one after the other, and the second's images read while the first computes."""
    contract = described.manifest.inputs["image"]

    def read() -> Volume:
        return volume.load(files, contract=contract)

    begin = time.perf_counter()
    for _ in range(2):
        node(model, described, read, out)
    apart = time.perf_counter() - begin
    begin = time.perf_counter()
    first, ahead = read(), []
    reader = threading.Thread(target=lambda: ahead.append(read()))
    reader.start()
    node(model, described, lambda: first, out)
    reader.join()
    second, _ = node(model, described, lambda: ahead[0], out)
    return {
        "apart": apart,
        "overlapped": time.perf_counter() - begin,
        "second_load": second["load"],
    }


def measure(shape: tuple[int, int, int], *, rounds: int, device: str, folder: Path) -> Any:
    """Everything, in turns; medians."""
    from workers.inference import load_model

    described = write_bundle(folder / "bundle")
    files = write_ct(folder / "ct", shape)
    contract = described.manifest.inputs["image"]
    model: Any = load_model(described, device=device)
    shown = volume.load(files, contract=contract)
    nifti = _as_nifti(folder / "nifti", shown)
    stages: list[dict[str, float]] = []
    forward: list[float] = []
    cold_runs: list[float] = []
    for number in range(rounds + 1):
        spent, _ = node(
            model, described, lambda: volume.load(files, contract=contract), folder / "out"
        )
        passed = bare(model, shown)
        if number:  # the first warms up
            stages.append(spent)
            forward.append(passed)
            cold_runs.append(cold(described.root, nifti, folder / "cold"))
        sys.stderr.write(
            f"round {number} of {rounds}: node {_total(spent):.2f} s, bare {passed:.2f} s\n"
        )
    whole = statistics.median(_total(one) for one in stages)
    alone = statistics.median(forward)
    return {
        "shape": shape,
        "device": device,
        "rounds": rounds,
        "stages_s": {name: statistics.median(one[name] for one in stages) for name in stages[0]},
        "node_s": whole,
        "forward_s": alone,
        "added_s": whole - alone,
        "allowed_s": max(1.0, 0.2 * alone),
        "monai_cold_s": statistics.median(cold_runs),
        "two_jobs_s": in_a_row(model, described, files, folder / "row"),
    }


def _total(stages: dict[str, float]) -> float:
    return sum(seconds for name, seconds in stages.items() if ":" not in name)


def _as_nifti(folder: Path, shown: Volume) -> Path:
    import nibabel

    folder.mkdir()
    ras = np.diag([-1, -1, 1, 1]) @ shown.affine[:, [2, 1, 0, 3]]
    nibabel.save(nibabel.Nifti1Image(shown.array.transpose(2, 1, 0), ras), folder / "a.nii.gz")
    return folder


def as_text(found: Any) -> str:
    """The table."""
    size, rows = " x ".join(map(str, found["shape"])), found["two_jobs_s"]
    verdict = "holds" if found["added_s"] <= found["allowed_s"] else "does not hold"
    colder = found["monai_cold_s"] / found["node_s"]
    stages = [f"  {name:<18}{seconds:8.2f} s" for name, seconds in found["stages_s"].items()]
    whole = [
        f"  node, all of it   {found['node_s']:8.2f} s",
        f"  bare forward pass {found['forward_s']:8.2f} s",
        f"  added             {found['added_s']:8.2f} s of {found['allowed_s']:.2f} s: {verdict}",
        f"  monai.bundle, cold{found['monai_cold_s']:8.2f} s, {colder:.2f} times the node",
        f"  two jobs apart    {rows['apart']:8.2f} s",
        (
            f"  two, read ahead   {rows['overlapped']:8.2f} s; load of the second:"
            f" {rows['second_load']:.2f} s"
        ),
    ]
    head = f"CT of {size} on {found['device']}, medians of {found['rounds']} rounds in turns"
    return "\n".join([head, "", *stages, "", *whole])


def main() -> None:
    """Measure, and print the table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--shape", type=int, nargs=3, default=(300, 512, 512))
    parser.add_argument("--quick", action="store_true", help="a small CT, one round")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    shape = (24, 96, 96) if given.quick else tuple(given.shape)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(
            shape,  # type: ignore[arg-type]
            rounds=1 if given.quick else given.rounds,
            device=given.device,
            folder=Path(folder),
        )
    sys.stdout.write((json.dumps(found, indent=2) if given.json else as_text(found)) + "\n")


if __name__ == "__main__":
    main()
