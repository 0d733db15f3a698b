"""The picture of an answer as a Secondary Capture (PS3.3 A.8.1): what any viewer shows.

It is a picture of images with marks on it: for people, with the notice in its pixels, and never for
measuring. So it has no pixel spacing, no place in the patient and no window.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image
from pydicom import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from dicomnode.bundle import Code
from dicomnode.prediction import Prediction
from dicomnode.results import common, drawing
from dicomnode.results.common import Run
from dicomnode.results.part import Part
from dicomnode.volume import Images

#: CID 7202 "Source Image Purposes of Reference".
SOURCE = Code(value="121322", scheme="DCM", meaning="Source image for image processing operation")

_MAX_DESCRIPTION = 1024  # an ST, PS3.5 6.2


def build(run: Run, part: Part) -> Dataset:
    """Make the capture of a run.

    Raises:
        TypeError: The model was shown a slide, of which there is no picture.
    """
    picture = drawing.picture(run.prediction, bundle=run.bundle)
    if picture is None:
        raise TypeError("there is no picture of a slide")
    dataset = common.new(SecondaryCaptureImageStorage)
    dataset.Modality = "OT"
    dataset.ConversionType = "WSD"  # a program made it (PS3.3 C.8.6.1)
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    dataset.PatientOrientation = None  # of several panels there is none (type 2C, C.7.6.1)
    dataset.DerivationDescription = described(run)[:_MAX_DESCRIPTION]
    dataset.SourceImageSequence = list(_sources(run.prediction))
    names_patient = burned_in(run.prediction)
    if names_patient is not None:
        dataset.BurnedInAnnotation = names_patient
    common.say_lossiness(dataset, run.header)
    _put(picture, dataset)
    common.complete(dataset, run, part)
    dataset.DateOfSecondaryCapture, dataset.TimeOfSecondaryCapture = (
        dataset.ContentDate,
        dataset.ContentTime,
    )
    return dataset


def described(run: Run) -> str:
    """Derivation Description: what was done, by what, and what it is not for."""
    return (
        f"Images with what {run.bundle.manifest.name} {run.bundle.algorithm_version} found drawn on"
        f" them: a picture, not for measuring. {run.bundle.manifest.notice}"
    )


def burned_in(prediction: Prediction) -> str | None:
    """Burned In Annotation: "YES", "NO", or nothing where nobody knows.

    The drawing itself names no patient. Of single images it shows all pixels, and among those may
    be what a modality burned in: what the images say of that holds for the picture.
    """
    subject = prediction.subject
    headers = [one.header for one in subject.frames] if isinstance(subject, Images) else []
    stated = {str(one.get("BurnedInAnnotation") or "") for one in headers or [subject.header]}
    if "YES" in stated:
        return "YES"
    return "NO" if stated == {"NO"} or not headers else None


def _sources(prediction: Prediction) -> Iterator[Dataset]:
    """Every instance that the model was shown, once, in order."""
    shown = {
        source.sop_instance_uid: source.sop_class_uid
        for one in prediction.shown
        for source in one.sources
    }
    for sop_instance_uid, sop_class_uid in shown.items():
        item = Dataset()
        item.ReferencedSOPClassUID = sop_class_uid
        item.ReferencedSOPInstanceUID = sop_instance_uid
        item.PurposeOfReferenceCodeSequence = [common.code_item(SOURCE)]
        yield item


def _put(picture: Image.Image, dataset: Dataset) -> None:
    """The pixels: RGB of 8 bits, colour by pixel (PS3.3 C.7.6.3)."""
    pixels = np.asarray(picture.convert("RGB"))
    dataset.SamplesPerPixel = 3
    dataset.PhotometricInterpretation = "RGB"
    dataset.PlanarConfiguration = 0
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit = 7
    dataset.PixelRepresentation = 0
    content = pixels.tobytes()
    dataset.PixelData = content + b"\0" * (len(content) % 2)
