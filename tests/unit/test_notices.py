"""Notices are compared with the images that they are about, whatever these are written like."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import phantom
import pydicom
import pytest
from pydicom import Dataset

from dicomnode import results
from dicomnode.errors import ResultMismatch
from dicomnode.results import notices
from dicomnode.results.notices import NotAnalysed, Referenced


def with_group_lengths(_: int, dataset: Dataset) -> None:
    """As old programs write it (PS3.5 7.2)."""
    other = Dataset()
    other.add_new((0x0010, 0x0000), "UL", 24)
    other.PatientID, other.TypeOfPatientID = "OLD-1", "TEXT"
    dataset.OtherPatientIDsSequence = [other]


def test_group_lengths_in_the_identity_are_no_difference(tmp_path: Path) -> None:
    scan = phantom.write_series(tmp_path / "images", edit=with_group_lengths)
    header = pydicom.dcmread(scan.files[0], stop_before_pixels=True)
    # pydicom does not write what old programs do.
    with_group_lengths(0, header)
    about = [
        Referenced(
            series_instance_uid=header.SeriesInstanceUID,
            sop_class_uid=header.SOPClassUID,
            sop_instance_uid=header.SOPInstanceUID,
        )
    ]
    notice = notices.not_analysed(
        NotAnalysed(
            key="k",
            header=header,
            model="m",
            reason="missing-slices",
            detail="There is a gap.",
            images=tuple(about),
            moment=datetime(2026, 3, 4, tzinfo=UTC),
        )
    )
    (path,) = results.write([notice], tmp_path / "results")

    notices.check(path, meant=notice, header=header, about=about)

    header.OtherPatientIDsSequence[0].PatientID = "OLD-2"
    with pytest.raises(ResultMismatch, match="OtherPatientIDsSequence"):
        notices.check(path, meant=notice, header=header, about=about)
