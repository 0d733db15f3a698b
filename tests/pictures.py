"""Writes single images and whole slides as DICOM: what phantoms are to volumes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    ExplicitVRLittleEndian,
    VLWholeSlideMicroscopyImageStorage,
)


def write(folder: Path, pixels: NDArray[Any], number: int = 1, **about: Any) -> Path:
    """One image of one series, monochrome unless `pixels` have three axes."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = (
        ComputedRadiographyImageStorage
    )
    uid = f"1.2.826.0.1.3680043.2.1125.{number}"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3", "1.2.3.4"
    dataset.PatientID, dataset.PatientName, dataset.Modality = "1", "A^B", "CR"
    dataset.InstanceNumber = number
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel = 3 if pixels.ndim == 3 else 1
    dataset.PhotometricInterpretation = "RGB" if pixels.ndim == 3 else "MONOCHROME2"
    if pixels.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.dtype.itemsize
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.tobytes()
    for keyword, value in about.items():
        setattr(dataset, keyword, value)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    folder.mkdir(exist_ok=True)
    path = folder / f"{number}.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return path


def write_slide(
    folder: Path, pixels: NDArray[np.uint8], *, tile: int, number: int, kind: str = "VOLUME"
) -> Path:
    """One level, TILED_FULL, with tiles that reach beyond its edge."""
    rows, columns = pixels.shape[:2]
    down, across = -(-rows // tile), -(-columns // tile)
    padded = np.zeros((down * tile, across * tile, 3), dtype=np.uint8)
    padded[:rows, :columns] = pixels
    frames = padded.reshape(down, tile, across, tile, 3).swapaxes(1, 2).reshape(-1, tile, tile, 3)
    measures = Dataset()
    measures.PixelSpacing = [0.001 * number, 0.001 * number]
    shared = Dataset()
    shared.PixelMeasuresSequence = [measures]
    return write(
        folder,
        frames[0],
        number,
        SOPClassUID=VLWholeSlideMicroscopyImageStorage,
        Modality="SM",
        ImageType=["DERIVED", "PRIMARY", kind, "RESAMPLED"],
        NumberOfFrames=len(frames),
        TotalPixelMatrixRows=rows,
        TotalPixelMatrixColumns=columns,
        DimensionOrganizationType="TILED_FULL",
        SharedFunctionalGroupsSequence=[shared],
        PixelData=frames.tobytes(),
    )
