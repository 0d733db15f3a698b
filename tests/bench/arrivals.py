"""A sender that keeps its pace: CT images of their own, evenly spaced, a study on each association.

    python tests/bench/arrivals.py PORT [--a-second 100] [--in-a-study 100] [--side 512]

Runs until its standard input is closed, and prints how many it sent in how many seconds.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections.abc import Iterator

import numpy as np
from pydicom import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from pynetdicom import build_context
from pynetdicom.association import Association

from dicomnode.network.calling import request

_CALLING = "MODALITY"


def images(side: int, *, in_a_study: int) -> Iterator[Dataset]:
    """One study of one series; its pixels are always the same ones."""
    pixels = np.random.default_rng(0).integers(0, 4096, side * side, np.uint16).tobytes()
    study, series = generate_uid(), generate_uid()
    for number in range(in_a_study):
        ds = Dataset()
        ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, generate_uid()
        ds.StudyInstanceUID, ds.SeriesInstanceUID = study, series
        ds.PatientName, ds.PatientID = "Arriving^Steadily", f"A{study[-9:]}"
        ds.StudyDate, ds.Modality, ds.SeriesDescription = "20260102", "CT", "Arriving"
        ds.SeriesNumber, ds.InstanceNumber = 1, number + 1
        ds.Rows = ds.Columns = side
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
        ds.PixelData = pixels
        ds.file_meta = Dataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        yield ds


class Pace:
    """So many a second, from the first one on; who is late does not wait."""

    def __init__(self, a_second: float, *, ended: threading.Event) -> None:
        self._a_second = a_second
        self._ended = ended
        self.began_at = time.monotonic()
        self.count = 0

    def wait(self) -> bool:
        """Wait for the next one's turn; whether there is to be one."""
        turn = self.began_at + self.count / self._a_second
        return not self._ended.wait(max(0.0, turn - time.monotonic()))


def send(associated: Association, pace: Pace, *, side: int, in_a_study: int) -> None:
    """Send one study, image by image."""
    for image in images(side, in_a_study=in_a_study):
        if not pace.wait():
            return
        status = associated.send_c_store(image)
        if status.get("Status") != 0:
            sys.exit(f"An image was not taken: {status}")
        pace.count += 1


def main() -> None:
    """Send until nobody wants more."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("port", type=int)
    parser.add_argument("--a-second", type=float, default=100.0)
    parser.add_argument("--in-a-study", type=int, default=100)
    parser.add_argument("--side", type=int, default=512)
    asked = parser.parse_args()
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    pace = Pace(asked.a_second, ended=ended)
    to = request.Destination(ae_title="DICOMNODE", host="127.0.0.1", port=asked.port)
    contexts = [build_context(CTImageStorage, ExplicitVRLittleEndian)]
    while not ended.is_set():
        with request.requested(to, calling_ae_title=_CALLING, contexts=contexts) as associated:
            send(associated, pace, side=asked.side, in_a_study=asked.in_a_study)
    seconds = time.monotonic() - pace.began_at
    sys.stdout.write(json.dumps({"sent": pace.count, "seconds": round(seconds, 2)}) + "\n")


if __name__ == "__main__":
    main()
