"""What is sent: folders of DICOM files, made once, read into memory before they are sent."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian

_MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class Load:
    """So many instances of one form.

    Attributes:
        instances: How many one association sends.
        of_several: How many each of several sends, of its own; `None` as many as one.
        frames: Of each instance.
        side: Rows and columns of a frame.
        associations: Numbers of associations in parallel that it is sent over.
        rounds: How often it is measured at most; `None` as often as the others.
    """

    name: str
    instances: int
    side: int
    frames: int = 1
    of_several: int | None = None
    associations: tuple[int, ...] = (1, 8)
    rounds: int | None = None

    def over(self, associations: int) -> int:
        """How many are sent in all."""
        if associations == 1:
            return self.instances
        return associations * (self.of_several or self.instances)

    def bytes(self, associations: int) -> int:
        """Of pixels, over all that are sent."""
        return self.over(associations) * self.frames * self.side * self.side * 2

    def described(self, associations: int) -> str:
        """What is sent."""
        each = self.frames * self.side * self.side * 2
        size = f"{each / _MIB:,.1f} MiB" if each > _MIB / 4 else f"{each / 1024:,.0f} KiB"
        return f"{self.over(associations):,} of {size}"


FULL = (
    Load(name="ct", instances=500, side=512, of_several=200),
    Load(name="small", instances=5000, side=64, of_several=1000),
    Load(name="large", instances=1, side=512, frames=2048, associations=(1,), rounds=3),
)
QUICK = (
    Load(name="ct", instances=80, side=512, of_several=20),
    Load(name="small", instances=800, side=64, of_several=200),
    Load(name="large", instances=1, side=512, frames=256, associations=(1,)),
)


def written(load: Load, associations: int, folder: Path) -> list[Path]:
    """Write a load: a folder for each association, each with instances of its own."""
    folders = [folder / str(number) for number in range(associations)]
    for made in folders:
        made.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 4096, load.side * load.side, np.uint16).tobytes()
    for number in range(load.over(associations)):
        _write(load, number, pixels, folders[number % associations] / f"{number:06}.dcm")
    return folders


def _write(load: Load, number: int, pixels: bytes, path: Path) -> None:
    ds = Dataset()
    ds.SOPClassUID = CTImageStorage if load.frames == 1 else EnhancedCTImageStorage
    ds.SOPInstanceUID = f"1.2.3.1.1.{number + 1}"
    ds.Modality = "CT"
    ds.PatientName, ds.PatientID = "Bench", "BENCH"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = "1.2.3.1", "1.2.3.1.1"
    ds.InstanceNumber = number + 1
    ds.Rows = ds.Columns = load.side
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 12, 11
    ds.SamplesPerPixel, ds.PixelRepresentation = 1, 0
    ds.PhotometricInterpretation = "MONOCHROME2"
    if load.frames > 1:
        ds.NumberOfFrames = load.frames
    ds.PixelData = pixels * load.frames
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dcmwrite(path, ds, enforce_file_format=True)


def read_once(folders: list[Path]) -> None:
    """Bring every file into the page cache."""
    for folder in folders:
        for path in folder.iterdir():
            with path.open("rb", buffering=0) as file:
                while file.read(_MIB):
                    pass
