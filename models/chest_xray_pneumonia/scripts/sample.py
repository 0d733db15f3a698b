"""Makes `sample/`: a DICOM radiograph that looks like the training images and is nobody's.

It is the average of those training images with pneumonia that are most alike. From the bundle's
folder::

    python -m scripts.sample --dataset pneumoniamnist_train_val.npz --output_dir sample

The same images give the same file, UIDs included.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian

from dicomnode import uid

#: Enough that none can be recognised.
AVERAGED = 24
_UID_KEY = "chest_xray_pneumonia/sample"


def average(file: str) -> np.ndarray:
    """The mean of the images nearest to the mean of all: shape (rows, columns), uint8."""
    data = np.load(file)
    chosen = data["train_images"][data["train_labels"].ravel() == 1].astype(np.float64)
    apart = ((chosen - chosen.mean(axis=0)) ** 2).sum(axis=(1, 2))
    nearest = chosen[np.argsort(apart, kind="stable")[:AVERAGED]]
    return nearest.mean(axis=0).round().astype(np.uint8)


def radiograph(pixels: np.ndarray) -> Dataset:
    """`pixels` as a CR image of no person."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = ComputedRadiographyImageStorage
    dataset.SOPInstanceUID = uid.derived(_UID_KEY, "instance")
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.StudyInstanceUID = uid.derived(_UID_KEY, "study")
    dataset.SeriesInstanceUID = uid.derived(_UID_KEY, "series")
    dataset.ImageType = ["DERIVED", "PRIMARY"]
    dataset.Modality, dataset.Manufacturer = "CR", "dicomnode"
    dataset.PatientName, dataset.PatientID = "SAMPLE^CHEST", "SAMPLE-CHEST"
    dataset.PatientBirthDate = dataset.PatientSex = ""
    dataset.StudyDate = dataset.SeriesDate = dataset.ContentDate = "20240101"
    dataset.StudyTime = dataset.SeriesTime = dataset.ContentTime = "120000"
    dataset.StudyID, dataset.SeriesNumber, dataset.InstanceNumber = "1", 1, 1
    dataset.AccessionNumber = dataset.ReferringPhysicianName = ""
    dataset.StudyDescription = "Average of 24 radiographs"
    dataset.SeriesDescription = "Chest, 28 x 28"
    dataset.BodyPartExamined, dataset.ViewPosition = "CHEST", "AP"
    dataset.PatientOrientation = ["L", "F"]
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.PixelData = pixels.tobytes()
    return dataset


def main() -> None:
    """Write the sample."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--output_dir", required=True, type=Path)
    arguments = parser.parse_args()
    arguments.output_dir.mkdir(exist_ok=True)
    dataset = radiograph(average(arguments.dataset))
    dataset.save_as(arguments.output_dir / "0001.dcm", enforce_file_format=True)


if __name__ == "__main__":
    main()
