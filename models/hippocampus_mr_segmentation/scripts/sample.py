"""Makes `sample/`: a small DICOM MR series that looks like the real thing and is nobody's.

It is the average of those training images that are most alike, laid on one another. From the
bundle's folder::

    python -m scripts.sample --dataset_dir DIR --output_dir sample

The same images give the same files, UIDs included.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import nibabel
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage
from scipy import ndimage, optimize

from dicomnode import uid
from scripts.training import cases

#: Voxels of 1 mm on NIfTI's axes: to the right, to the front, to the head (RAS).
SHAPE = (34, 50, 36)
#: Where the centre of the hippocampus lies in it: as in the training images, low and near the middle.
CENTRE = np.array([14.5, 25.0, 14.5])
#: How many images are averaged: enough that none can be recognised, few enough to stay sharp.
AVERAGED = 24
ROUNDS = 2

_UID_KEY = "hippocampus_mr_segmentation/sample"
_MIDDLE = (np.array(SHAPE) - 1) / 2
_PIXEL_MIDDLE, _PIXEL_PER_SD, _PIXEL_MAX = 400, 120, 4095  # 12 bits stored

Image = NDArray[np.float64]


def average(dataset_dir: str) -> Image:
    """The average image on the grid of `SHAPE`, with mean 0 and standard deviation 1."""
    images, labels, centres = zip(*(_read(case) for case in cases(dataset_dir, "train")))
    chosen = _most_alike(labels, centres)
    starts = [_start(centres[index]) for index in chosen]
    mean = _mean([_moved(images[index], start) for index, start in zip(chosen, starts)])
    for _ in range(ROUNDS):
        starts = [_aligned(images[index], start, mean) for index, start in zip(chosen, starts)]
        mean = _mean(
            [_moved(images[index], start, order=3) for index, start in zip(chosen, starts)]
        )
    return (mean - mean.mean()) / mean.std()


def _read(case: dict[str, str]) -> tuple[Image, Image, Image]:
    """Image (mean 0, standard deviation 1), hippocampus, and the centre of the hippocampus."""
    image = nibabel.load(case["image"]).get_fdata()
    label = (nibabel.load(case["label"]).get_fdata() > 0).astype(float)
    return (image - image.mean()) / image.std(), label, np.argwhere(label).mean(axis=0)


def _most_alike(labels: tuple[Image, ...], centres: tuple[Image, ...]) -> list[int]:
    """The cases whose hippocampus lies best on the average hippocampus, by Dice."""
    moved = np.stack(
        [
            np.nan_to_num(_moved(label, _start(centre)))
            for label, centre in zip(labels, centres)
        ]
    )
    mean = moved.mean(axis=0) > 0.5
    overlap = [
        2 * (label[mean] > 0.5).sum() / (mean.sum() + (label > 0.5).sum()) for label in moved
    ]
    return sorted(np.argsort(overlap, kind="stable")[-AVERAGED:].tolist())


def _start(centre: Image) -> Image:
    """Parameters of a move: a shift that brings `centre` to `CENTRE`, no turn, no scaling."""
    return np.concatenate([centre - CENTRE, np.zeros(6)])


def _moved(image: Image, move: Image, *, order: int = 1) -> Image:
    """`image` on the grid of `SHAPE`; not a number where it does not reach.

    Args:
        image: On a grid of 1 mm.
        move: Shift (3, voxels), turn (3, radians about each axis), scaling (3, logarithm).
        order: Of the spline that interpolates.
    """
    shift, turn, scaling = move[:3], move[3:6], move[6:]
    matrix = _rotation(turn) * np.exp(scaling)
    offset = CENTRE + shift - matrix @ CENTRE
    return ndimage.affine_transform(
        image, matrix, offset, output_shape=SHAPE, order=order, mode="constant", cval=np.nan
    )


def _rotation(turn: Image) -> Image:
    (cx, cy, cz), (sx, sy, sz) = np.cos(turn), np.sin(turn)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_x @ about_y @ about_z


def _aligned(image: Image, start: Image, target: Image) -> Image:
    """The move near `start` that makes `image` most like `target`."""

    def unlike(move: Image) -> float:
        moved = _moved(image, move)
        seen = np.isfinite(moved)
        if seen.mean() < 0.5:
            return 1.0
        return 1.0 - float(np.corrcoef(moved[seen], target[seen])[0, 1])

    units = np.array([1, 1, 1, 0.05, 0.05, 0.05, 0.05, 0.05, 0.05])
    found = optimize.minimize(
        lambda steps: unlike(start + steps * units),
        np.zeros(9),
        method="Powell",
        options={"maxfev": 300, "xtol": 0.05, "ftol": 1e-4},
    )
    return start + found.x * units


def _mean(images: list[Image]) -> Image:
    """The mean of those that reach a voxel; where none does, the nearest voxel's."""
    seen = np.isfinite(images).sum(axis=0)
    total = np.nansum(images, axis=0)
    nearest = ndimage.distance_transform_edt(seen == 0, return_distances=False, return_indices=True)
    return (total / np.maximum(seen, 1))[tuple(nearest)]


def datasets(image: Image) -> list[FileDataset]:
    """`image` as axial slices, from the feet to the head, in patient coordinates LPS."""
    # RAS → LPS: a column index grows to the left, a row index to the back (PS3.3 C.7.6.2.1.1).
    slices = image[::-1, ::-1, :].transpose(2, 1, 0)
    pixels = np.clip(_PIXEL_MIDDLE + _PIXEL_PER_SD * slices, 0, _PIXEL_MAX).round().astype("<u2")
    digest = hashlib.sha256(pixels.tobytes()).hexdigest()
    return [_dataset(frame, index, digest) for index, frame in enumerate(pixels)]


def _dataset(pixels: NDArray[np.uint16], index: int, digest: str) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = MRImageStorage
    meta.MediaStorageSOPInstanceUID = uid.derived(_UID_KEY, digest, "instance", str(index))
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID = meta.MediaStorageSOPClassUID
    ds.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    _describe(ds, digest)
    _place(ds, index)
    _draw(ds, pixels)
    return ds


def _describe(ds: FileDataset, digest: str) -> None:
    """Whose image, which study and series, which scanner: all of it invented."""
    ds.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
    ds.StudyDate = ds.SeriesDate = ds.ContentDate = "20260101"
    ds.StudyTime = ds.SeriesTime = ds.ContentTime = "120000"
    ds.AccessionNumber = "SAMPLE"
    ds.Modality = "MR"
    ds.Manufacturer = "dicomnode"
    ds.ReferringPhysicianName = ""
    ds.StudyDescription = "Sample of the hippocampus bundle"
    ds.SeriesDescription = "HippoCrop"
    ds.DerivationDescription = (
        f"Average of {AVERAGED} aligned training images of the Medical Segmentation Decathlon, "
        "Task04 (CC BY-SA 4.0, arXiv:1902.09063)"
    )
    ds.PatientName = "Sample^Average"
    ds.PatientID = "SAMPLE"
    ds.PatientBirthDate = ""
    ds.PatientSex = "O"
    ds.BodyPartExamined = "BRAIN"
    ds.ScanningSequence = "RM"
    ds.SequenceVariant = "NONE"
    ds.ScanOptions = ""
    ds.MRAcquisitionType = "3D"
    ds.EchoTime = None
    ds.EchoTrainLength = None
    ds.RepetitionTime = None
    ds.PatientPosition = "HFS"
    ds.StudyInstanceUID = uid.derived(_UID_KEY, digest, "study")
    ds.SeriesInstanceUID = uid.derived(_UID_KEY, digest, "series")
    ds.FrameOfReferenceUID = uid.derived(_UID_KEY, digest, "frame of reference")
    ds.StudyID = "1"
    ds.SeriesNumber = 1
    ds.PositionReferenceIndicator = ""


def _place(ds: FileDataset, index: int) -> None:
    """Image Plane (PS3.3 C.7.6.2): the middle of the volume is the origin."""
    left, back, head = (-float(middle) for middle in _MIDDLE)
    ds.SliceThickness = 1
    ds.SpacingBetweenSlices = 1
    ds.PixelSpacing = [1, 1]
    ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    ds.ImagePositionPatient = [left, back, head + index]
    ds.SliceLocation = head + index
    ds.InstanceNumber = index + 1


def _draw(ds: FileDataset, pixels: NDArray[np.uint16]) -> None:
    """Image Pixel (PS3.3 C.7.6.3) and a window that shows it."""
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.Rows, ds.Columns = pixels.shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 12, 11
    ds.PixelRepresentation = 0
    ds.BurnedInAnnotation = "NO"
    ds.LossyImageCompression = "00"
    ds.WindowCenter = _PIXEL_MIDDLE
    ds.WindowWidth = 5 * _PIXEL_PER_SD
    ds.PixelData = pixels.tobytes()


def main() -> None:
    """Read the arguments, write the files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset_dir", required=True)
    parser.add_argument("--output_dir", type=Path, default=Path("sample"))
    arguments = parser.parse_args()
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    for ds in datasets(average(arguments.dataset_dir)):
        name = f"{ds.InstanceNumber:04d}.dcm"
        pydicom.dcmwrite(arguments.output_dir / name, ds, enforce_file_format=True)


if __name__ == "__main__":
    main()
