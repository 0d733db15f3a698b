"""What is sent is checked: every object is read again from its bytes and compared with its source.

The reading here is its own: numpy unpacks the bits, pydicom gives the elements, and nothing of the
library that wrote them is used. A fault of writing cannot hide by being made twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.uid import (
    ColorSoftcopyPresentationStateStorage,
    Comprehensive3DSRStorage,
    CTImageStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    KeyObjectSelectionDocumentStorage,
    MRImageStorage,
    ParametricMapStorage,
    PositronEmissionTomographyImageStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
    SpatialRegistrationStorage,
)

from dicomnode.bundle import MAX_SERIES_DESCRIPTION, Bundle
from dicomnode.errors import ResultMismatch
from dicomnode.prediction import Prediction
from dicomnode.profile import Profile
from dicomnode.results import common, plan
from dicomnode.results.checking import (
    capture,
    derived_image,
    key_images,
    parametric_map,
    presentation,
    regions,
    registration,
    report,
    segmentation,
)
from dicomnode.results.checking.expected import Expected, Read, has_code, require, same
from dicomnode.results.checking.segmentation import LABEL_MAP_SEGMENTATION_STORAGE
from dicomnode.results.part import Kind, Part

# Of the identity, what every source must share.
_ONE_FOR_ALL = (
    "PatientID",
    "IssuerOfPatientID",
    "PatientName",
    "PatientBirthDate",
    "StudyInstanceUID",
)
_SOP_CLASSES: dict[Kind, tuple[str, ...]] = {
    "seg": (SegmentationStorage,),
    "map": (ParametricMapStorage,),
    "image": (
        CTImageStorage,
        MRImageStorage,
        PositronEmissionTomographyImageStorage,
        SecondaryCaptureImageStorage,
    ),
    "registration": (SpatialRegistrationStorage,),
    "capture": (SecondaryCaptureImageStorage,),
    "regions": (Comprehensive3DSRStorage,),
    "presentation": (
        GrayscaleSoftcopyPresentationStateStorage,
        ColorSoftcopyPresentationStateStorage,
    ),
    "key-images": (KeyObjectSelectionDocumentStorage,),
    "sr": (Comprehensive3DSRStorage,),
}

#: What is looked at of objects that depend on the run alone.
_CHECK: dict[Kind, Callable[[Dataset, Part, Expected], None]] = {
    "map": parametric_map.check,
    "registration": registration.check,
    "capture": capture.check,
    "regions": regions.check,
    "presentation": presentation.check,
    "key-images": key_images.check,
}


def check(
    files: Sequence[Path],
    *,
    prediction: Prediction,
    bundle: Bundle,
    key: str,
    profiles: Sequence[Profile],
) -> None:
    """Compare written results with the sources' files, the model and what it said.

    Args:
        files: What `write` gave.
        prediction: What the model said.
        bundle: The model.
        key: The idempotency key that the UIDs are derived from.
        profiles: Those of the destinations.

    Raises:
        ResultMismatch: An object differs; the reason says in what.
        RetryLater: A source's file could not be read just now.
    """
    expected = Expected(prediction=prediction, bundle=bundle, key=key, profiles=tuple(profiles))
    datasets = [_read(path) for path in files]
    try:
        _check_all(datasets, expected)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise ResultMismatch("malformed-result", f"A result lacks something: {error}.") from error


def _check_all(datasets: Sequence[Dataset], expected: Expected) -> None:
    parts = [
        (part, number)
        for part in expected.parts
        for number in range(1, plan.count(part, expected.prediction) + 1)
    ]
    require(
        len(datasets) == len(parts)
        and all(
            one.SOPClassUID in _classes(part)
            for one, (part, _) in zip(datasets, parts, strict=True)
        ),
        "unexpected-objects",
        "The results are not the objects that the destinations are to get.",
    )
    read: list[Read] = []
    for dataset, (part, number) in zip(datasets, parts, strict=True):
        _check_identity(dataset, expected, part)
        _check_series(dataset, expected, part, number=number)
        _check_algorithm(dataset, expected)
        read.append(_check_content(dataset, part, number, read, expected))


def _classes(part: Part) -> tuple[str, ...]:
    """What SOP class an object may be of."""
    if part.kind == "seg" and part.variant == "labelmap":
        return (LABEL_MAP_SEGMENTATION_STORAGE,)
    return _SOP_CLASSES[part.kind]


def _check_content(
    dataset: Dataset, part: Part, number: int, read: Sequence[Read], expected: Expected
) -> Read:
    """Check what only this kind of object has."""
    if part.kind == "seg":
        return segmentation.check(dataset, part, expected)
    if part.kind == "sr":
        beside = [one for one in read if part.variant in one.part.profiles]
        report.check(dataset, part, beside, expected)
    elif part.kind == "image":
        derived_image.check(dataset, part, number, expected)
    else:
        _CHECK[part.kind](dataset, part, expected)
    return Read(part=part, sop_instance_uid=str(dataset.SOPInstanceUID))


def _read(path: Path) -> Dataset:
    try:
        return dcmread(path)
    except (OSError, InvalidDicomError, ValueError) as error:
        raise ResultMismatch(
            "unreadable-result", f"{path.name} cannot be read: {error}."
        ) from error


def _check_identity(dataset: Dataset, expected: Expected, part: Part) -> None:
    """Patient, study and accession are the sources', verbatim, as their files have them."""
    first = expected.headers[expected.prediction.subject.sources[0].sop_instance_uid]
    for keyword in (*common.IDENTITY, *(common.BODY if common.has_body(part.kind) else ())):
        require(
            same(dataset.get(keyword), first.get(keyword)),
            "identity-differs",
            f"{keyword} is not what the source has.",
        )
    for header in expected.all_headers.values():
        for keyword in _ONE_FOR_ALL:
            require(
                same(dataset.get(keyword), header.get(keyword)),
                "identity-differs",
                f"{keyword} is not what every source has.",
            )


def _check_series(dataset: Dataset, expected: Expected, part: Part, *, number: int) -> None:
    uids = {
        "SeriesInstanceUID": part.series_uid(expected.key),
        "SOPInstanceUID": part.instance_uid(expected.key, number),
    }
    for keyword, derived in uids.items():
        require(
            dataset.get(keyword) == derived, "uid-differs", f"{keyword} is not the derived one."
        )
    require(
        dataset.file_meta.get("MediaStorageSOPInstanceUID") == uids["SOPInstanceUID"],
        "uid-differs",
        "The file's meta information names another instance.",
    )
    described = str(dataset.get("SeriesDescription", ""))
    require(
        described == expected.bundle.described(part.word)
        and len(described) <= MAX_SERIES_DESCRIPTION,
        "description-differs",
        "SeriesDescription does not say which model made the result, and that it is for research.",
    )
    require(
        dataset.get("SeriesNumber") == part.series_number
        and dataset.get("InstanceNumber") == number,
        "series-differs",
        "SeriesNumber is not the one that is kept for such results.",
    )


def _check_algorithm(dataset: Dataset, expected: Expected) -> None:
    """The model and its steps, their versions and digests stand in Contributing Equipment."""
    items = [
        item
        for item in dataset.get("ContributingEquipmentSequence", ())
        if has_code(item.get("PurposeOfReferenceCodeSequence"), common.PROCESSING_EQUIPMENT)
    ]
    models = list(expected.bundle.models)
    require(
        len(items) == len(models), "algorithm-differs", "Not every algorithm is named exactly once."
    )
    for item, model in zip(items, models, strict=True):
        meant = {
            "Manufacturer": model.manifest.manufacturer,
            "ManufacturerModelName": model.manifest.name,
            "SoftwareVersions": model.algorithm_version,
            "DeviceUID": common.device_uid(model),
        }
        for keyword, value in meant.items():
            require(
                item.get(keyword) == value,
                "algorithm-differs",
                f"{keyword} of the algorithm is not that of the model which ran.",
            )
