"""What is sent is checked: every object is read again from its bytes and compared with its source.

The reading here is its own: numpy unpacks the bits, pydicom gives the elements, and nothing of the
library that wrote them is used. A fault of writing cannot hide by being made twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.uid import Comprehensive3DSRStorage, SegmentationStorage

from dicomnode.bundle import MAX_SERIES_DESCRIPTION, Bundle
from dicomnode.errors import ResultMismatch
from dicomnode.prediction import Prediction
from dicomnode.results import check_report, check_segmentation, common, said
from dicomnode.results.checking import Expected, has_code, require, same
from dicomnode.results.common import Kind

# Of the identity, what every source must share.
_ONE_FOR_ALL = (
    "PatientID",
    "IssuerOfPatientID",
    "PatientName",
    "PatientBirthDate",
    "StudyInstanceUID",
)
_SOP_CLASS: dict[Kind, str] = {"seg": SegmentationStorage, "sr": Comprehensive3DSRStorage}


def check(files: Sequence[Path], *, prediction: Prediction, bundle: Bundle, key: str) -> None:
    """Compare written results with the sources' files, the model and what it said.

    Args:
        files: What `write` gave: the SEG of each answer, then the report.
        prediction: What the model said.
        bundle: The model.
        key: The idempotency key that the UIDs are derived from.

    Raises:
        ResultMismatch: An object differs; the reason says in what.
        RetryLater: A source's file could not be read just now.
    """
    expected = Expected(prediction=prediction, bundle=bundle, key=key)
    datasets = [_read(path) for path in files]
    try:
        _check_all(datasets, expected)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise ResultMismatch("malformed-result", f"A result lacks something: {error}.") from error


def _check_all(datasets: Sequence[Dataset], expected: Expected) -> None:
    answers = said.segmented(expected.prediction)
    kinds: list[Kind] = ["seg" for _ in answers]
    kinds.append("sr")
    require(
        [dataset.SOPClassUID for dataset in datasets] == [_SOP_CLASS[kind] for kind in kinds],
        "unexpected-objects",
        "The results are not one SEG for each output and one report.",
    )
    outputs = [*(answer.output for answer in answers), ""]
    for dataset, kind, output in zip(datasets, kinds, outputs, strict=True):
        _check_identity(dataset, expected, kind=kind)
        _check_series(dataset, expected, kind=kind, output=output)
        _check_algorithm(dataset, expected)
    *segmentations, document = datasets
    measured = [
        check_segmentation.check(dataset, answer, expected)
        for dataset, answer in zip(segmentations, answers, strict=True)
    ]
    check_report.check(document, measured, expected)


def _read(path: Path) -> Dataset:
    try:
        return dcmread(path)
    except (OSError, InvalidDicomError, ValueError) as error:
        raise ResultMismatch(
            "unreadable-result", f"{path.name} cannot be read: {error}."
        ) from error


def _check_identity(dataset: Dataset, expected: Expected, *, kind: Kind) -> None:
    """Patient, study and accession are the sources', verbatim, as their files have them."""
    first = expected.headers[expected.prediction.subject.sources[0].sop_instance_uid]
    for keyword in (*common.IDENTITY, *(common.BODY if kind == "seg" else ())):
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


def _check_series(dataset: Dataset, expected: Expected, *, kind: Kind, output: str) -> None:
    key = expected.key
    uids = {
        "SeriesInstanceUID": common.series_uid(key, kind, output),
        "SOPInstanceUID": common.instance_uid(key, kind, output),
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
        described == expected.bundle.series_description
        and len(described) <= MAX_SERIES_DESCRIPTION,
        "description-differs",
        "SeriesDescription does not say which model made the result, and that it is for research.",
    )
    require(
        dataset.get("SeriesNumber") == common.SERIES_NUMBER[kind],
        "series-differs",
        "SeriesNumber is not the one that is kept for such results.",
    )


def _check_algorithm(dataset: Dataset, expected: Expected) -> None:
    """The model and its steps, their versions and digests stand in Contributing Equipment."""
    items = [
        item
        for item in dataset.get("ContributingEquipmentSequence", ())
        if has_code(item.get("PurposeOfReferenceCodeSequence"), common.PROCESSING_ALGORITHM)
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
