"""Reads the capture's pixels again, and compares them with a picture that is drawn anew."""

from __future__ import annotations

import numpy as np
from pydicom import Dataset

from dicomnode.bundle import Code
from dicomnode.results import drawing
from dicomnode.results.checking.expected import Expected, has_code, require
from dicomnode.results.part import Part
from dicomnode.volume import Images

_SOURCE = Code(value="121322", scheme="DCM", meaning="Source image for image processing operation")

# Keyword → what it must be: a colour image of 8 bits that a program made.
_ENCODED = {
    "Modality": "OT",
    "ConversionType": "WSD",
    "ImageType": ["DERIVED", "SECONDARY"],
    "SamplesPerPixel": 3,
    "PhotometricInterpretation": "RGB",
    "PlanarConfiguration": 0,
    "BitsAllocated": 8,
    "BitsStored": 8,
    "HighBit": 7,
    "PixelRepresentation": 0,
}
# What a picture of several panels must not say of itself.
_FOREIGN = ("PixelSpacing", "ImagePositionPatient", "FrameOfReferenceUID", "WindowCenter")


def check(dataset: Dataset, part: Part, expected: Expected) -> None:  # noqa: ARG001 - as all checks
    """Check the capture.

    Raises:
        ResultMismatch: It shows something else than what the model said, or names other sources.
    """
    for keyword, value in _ENCODED.items():
        require(
            dataset.get(keyword) == value,
            "encoding-differs",
            f"{keyword} of the capture is not {value}.",
        )
    for keyword in _FOREIGN:
        require(
            keyword not in dataset, "encoding-differs", f"The capture has {keyword}: it has none."
        )
    _check_pixels(dataset, expected)
    _check_sources(dataset, expected)
    _check_words(dataset, expected)


def _check_pixels(dataset: Dataset, expected: Expected) -> None:
    drawn = drawing.picture(expected.prediction, bundle=expected.bundle)
    require(drawn is not None, "unexpected-objects", "There is no picture of a slide.")
    meant = np.asarray(drawn)
    require(
        (dataset.Rows, dataset.Columns, 3) == meant.shape,
        "picture-differs",
        "The capture has another size than the picture.",
    )
    stored = np.frombuffer(dataset.PixelData, dtype=np.uint8)[: meant.size]
    require(
        np.array_equal(stored, meant.ravel()),
        "picture-differs",
        "The capture's pixels are not those of the picture.",
    )


def _check_sources(dataset: Dataset, expected: Expected) -> None:
    named = [
        (str(item.ReferencedSOPClassUID), str(item.ReferencedSOPInstanceUID))
        for item in dataset.get("SourceImageSequence", ())
        if has_code(item.get("PurposeOfReferenceCodeSequence"), _SOURCE)
    ]
    meant = [(str(one.SOPClassUID), uid) for uid, one in expected.all_headers.items()]
    require(
        named == meant,
        "reference-differs",
        "The capture does not name exactly what it was made of.",
    )


def _check_words(dataset: Dataset, expected: Expected) -> None:
    """It says what it is, and whether a patient's name may stand in its pixels."""
    description = str(dataset.get("DerivationDescription", ""))
    model = expected.bundle
    require(
        f"{model.manifest.name} {model.algorithm_version}" in description
        and ("not for measuring" in description),
        "description-differs",
        "DerivationDescription does not say what made the picture, and what it is not for.",
    )
    stated = dataset.get("BurnedInAnnotation")
    sources = [str(one.get("BurnedInAnnotation") or "") for one in expected.headers.values()]
    if isinstance(expected.prediction.subject, Images):
        known = "NO" if set(sources) == {"NO"} else None
        meant = "YES" if "YES" in sources else known
    else:
        meant = "YES" if sources[0] == "YES" else "NO"
    require(
        stated == meant,
        "annotation-differs",
        "BurnedInAnnotation is not what follows from the sources.",
    )
