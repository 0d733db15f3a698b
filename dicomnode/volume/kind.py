"""What can be told of a series before its pixels are looked at: whose it is, and of what kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pydicom.uid
from pydicom import Dataset

from dicomnode import bundle
from dicomnode.errors import NotApplicable, UnsuitableSeries

MONOCHROME = ("MONOCHROME1", "MONOCHROME2")
_CONTRACT_DECIMALS = 4  # 1.0000000001 mm is 1 mm

#: keyword → why a series may have only one value of it.
ONE_PATIENT = {
    "PatientID": "mixed-patients",
    "IssuerOfPatientID": "mixed-patients",
    "PatientName": "mixed-patients",
    "PatientBirthDate": "mixed-patients",
    "StudyInstanceUID": "mixed-studies",
    "AccessionNumber": "mixed-studies",
    "SeriesInstanceUID": "mixed-series",
    "Modality": "mixed-modalities",
}
ONE_SPACE = {
    "FrameOfReferenceUID": "two-frames-of-reference",
    "Rows": "mixed-size",
    "Columns": "mixed-size",
}


def require_one(datasets: Sequence[Dataset], keywords: Mapping[str, str]) -> None:
    """Refuse images that differ in what all must share.

    Raises:
        UnsuitableSeries: `no-images`, or the reason that stands beside the keyword.
    """
    if not datasets:
        raise UnsuitableSeries("no-images", "The series has no images.")
    for keyword, reason in keywords.items():
        if len({str(dataset.get(keyword) or "") for dataset in datasets}) > 1:
            raise UnsuitableSeries(reason, f"{keyword} is not the same in all images.")


def require_slices(datasets: Sequence[Dataset]) -> None:
    """Refuse what is not one series of one patient's slices, before looking at where they lie."""
    require_one(datasets, ONE_PATIENT | ONE_SPACE)
    for dataset in datasets:
        if "LOCALIZER" in (dataset.get("ImageType") or ()):
            raise UnsuitableSeries("localizer", "There is a localizer among the images.")
        if dataset.get("PhotometricInterpretation") not in MONOCHROME:
            raise UnsuitableSeries("not-monochrome", "There are images that are not monochrome.")


def meets(modality: str, sop_classes: set[str], contract: bundle.Input) -> None:
    """Check modality and SOP classes against what a model asks of its input.

    Raises:
        NotApplicable: `wrong-modality` or `wrong-sop-class`.
    """
    if modality not in contract.modalities:
        raise NotApplicable(
            "wrong-modality",
            f"Modality is {modality or 'empty'}; `modality` asks for"
            f" {' or '.join(contract.modalities)}.",
        )
    meant = {getattr(pydicom.uid, keyword) for keyword in contract.sop_classes}
    for foreign in sorted(sop_classes - meant):
        raise NotApplicable(
            "wrong-sop-class",
            f"{pydicom.uid.UID(foreign).name} is not among `sop_classes`: "
            f"{', '.join(contract.sop_classes)}.",
        )


def within(reason: str, value: float, limits: bundle.Range, clause: str) -> None:
    """Check one number against the limits of a clause.

    Raises:
        NotApplicable: With `reason`.
    """
    if not limits.holds(round(value, _CONTRACT_DECIMALS)):
        low = "any" if limits.min is None else f"{limits.min:g}"
        high = "any" if limits.max is None else f"{limits.max:g}"
        raise NotApplicable(reason, f"`{clause}` asks for {low} to {high}; found {value:.6g}.")
