"""Senders that keep a pace: CT images of their own, evenly spaced, a study on each association.

    python tests/bench/arrivals.py PORT [--a-second 100] [--modalities 4] [--side 512]

Runs until its standard input is closed, and prints how many were taken in how many seconds.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import CTImageStorage, generate_uid

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from wire import raw

_CALLING, _CALLED = "MODALITY", "DICOMNODE"
_CONTEXT = raw.Context(id=1, abstract_syntax=CTImageStorage, transfer_syntaxes=(raw.EXPLICIT,))
# What is sent must cost little beside what is measured: pixels are the same ones in each image.
_PIXEL_DATA = b"\xe0\x7f\x10\x00OW\x00\x00"


def images(side: int, *, in_a_study: int) -> Iterator[tuple[str, bytes]]:
    """One study of one series: of each image its UID, and its data set in Explicit VR."""
    values = np.random.default_rng(0).integers(0, 4096, side * side, np.uint16).tobytes()
    pixels = _PIXEL_DATA + len(values).to_bytes(4, "little") + values
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
        encoded = DicomBytesIO()
        encoded.is_little_endian, encoded.is_implicit_VR = True, False
        write_dataset(encoded, ds)
        yield str(ds.SOPInstanceUID), encoded.getvalue() + pixels


class Pace:
    """So many a second over all who ask, from the first one on; who is late does not wait."""

    def __init__(self, a_second: float) -> None:
        self._a_second = a_second
        self._lock = threading.Lock()
        self._begun = 0
        self.began_at = time.monotonic()
        self.ended_at = self.began_at
        self.count = 0

    def wait(self, ended: threading.Event) -> bool:
        """Wait for the next one's turn; whether there is to be one."""
        with self._lock:
            turn = self.began_at + self._begun / self._a_second
            self._begun += 1
        return not ended.wait(max(0.0, turn - time.monotonic()))

    def done(self) -> None:
        """One more was taken."""
        with self._lock:
            self.count += 1
            self.ended_at = time.monotonic()


class Modality(threading.Thread):
    """Sends study after study, each over an association of its own."""

    def __init__(
        self, port: int, pace: Pace, ended: threading.Event, *, side: int, in_a_study: int
    ) -> None:
        super().__init__(daemon=True)
        self._port = port
        self._pace = pace
        self._ended = ended
        self._side = side
        self._in_a_study = in_a_study
        self.fault = ""

    def run(self) -> None:
        """Send until told to end, or until an image is not taken."""
        try:
            while not self._ended.is_set():
                with raw.Speaker(self._port, [_CONTEXT], calling=_CALLING, called=_CALLED) as to:
                    self._send(to)
                    to.release()
        except OSError as error:
            self.fault = str(error)
            self._ended.set()

    def _send(self, to: raw.Speaker) -> None:
        for uid, content in images(self._side, in_a_study=self._in_a_study):
            if not self._pace.wait(self._ended):
                return
            status = raw.number(to.store(_CONTEXT, uid, content), raw.STATUS)
            if status != 0:
                raise OSError(f"an image was not taken: status {status:04X}")
            self._pace.done()


def main() -> None:
    """Send until nobody wants more."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("port", type=int)
    parser.add_argument("--a-second", type=float, default=100.0)
    parser.add_argument("--modalities", type=int, default=4)
    parser.add_argument("--in-a-study", type=int, default=100)
    parser.add_argument("--side", type=int, default=512)
    asked = parser.parse_args()
    ended = threading.Event()
    pace = Pace(asked.a_second)
    sending = [
        Modality(asked.port, pace, ended, side=asked.side, in_a_study=asked.in_a_study)
        for _ in range(asked.modalities)
    ]
    for one in sending:
        one.start()
    sys.stdin.read()
    ended.set()
    for one in sending:
        one.join()
        if one.fault:
            sys.exit(one.fault)
    seconds = pace.ended_at - pace.began_at
    sys.stdout.write(json.dumps({"sent": pace.count, "seconds": round(seconds, 2)}) + "\n")


if __name__ == "__main__":
    main()
