"""What cannot be analysed is refused by name: in the journal, and as a report in the PACS.

And what is taken back: a newer answer rejects the older one where the destination wants that.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
import running
from pydicom import Dataset
from servers import Orthanc

from dicomnode import inquiry
from dicomnode.network.calling import sender
from dicomnode.network.calling.sender import Destination

SAMPLE = running.HIPPOCAMPUS / "sample"
ROUTE = """\
[[routes]]
name = "all"
model = "hippocampus"
series = { Modality = "MR" }
send_to = ["pacs"]
"""

Fault = Callable[[list[Dataset]], list[Dataset]]


def in_order(datasets: list[Dataset]) -> list[Dataset]:
    return sorted(datasets, key=lambda one: float(one.ImagePositionPatient[2]))


def another_patient_among_them(datasets: list[Dataset]) -> list[Dataset]:
    datasets[7].PatientID = "SOMEBODY-ELSE"
    return datasets


def a_second_patient_in_the_study(datasets: list[Dataset]) -> list[Dataset]:
    other = copy.deepcopy(datasets[0])
    other.PatientID = "SOMEBODY-ELSE"
    other.Modality = "CR"
    other.SeriesInstanceUID += ".9"
    other.SOPInstanceUID += ".9"
    return [*datasets, other]


def two_frames_of_reference(datasets: list[Dataset]) -> list[Dataset]:
    for one in in_order(datasets)[:5]:
        one.FrameOfReferenceUID += ".9"
    return datasets


def a_missing_middle_slice(datasets: list[Dataset]) -> list[Dataset]:
    ordered = in_order(datasets)
    del ordered[len(ordered) // 2]
    return ordered


def a_slice_twice(datasets: list[Dataset]) -> list[Dataset]:
    ordered = in_order(datasets)
    again = copy.deepcopy(ordered[3])
    again.SOPInstanceUID += ".9"
    return [*ordered, again]


def a_tilted_gantry(datasets: list[Dataset]) -> list[Dataset]:
    for number, one in enumerate(in_order(datasets)):
        x, y, z = map(float, one.ImagePositionPatient)
        one.ImagePositionPatient = [x, round(y + 0.3 * number, 4), z]
    return datasets


def a_localizer_among_them(datasets: list[Dataset]) -> list[Dataset]:
    datasets[0].ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    return datasets


FAULTS: dict[str, Fault] = {
    "mixed-patients": another_patient_among_them,
    "two-patients": a_second_patient_in_the_study,
    "two-frames-of-reference": two_frames_of_reference,
    "missing-slices": a_missing_middle_slice,
    "duplicate-position": a_slice_twice,
    "gantry-tilt": a_tilted_gantry,
    "localizer": a_localizer_among_them,
}


def write(folder: Path, name: str, fault: Fault) -> str:
    """A study of its own with one fault; gives its Study Instance UID."""
    folder.mkdir()
    datasets = [pydicom.dcmread(path) for path in sorted(SAMPLE.iterdir())]
    suffix = f".{sum(map(ord, name))}"
    for one in datasets:
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
            setattr(one, keyword, f"{one[keyword].value[:50]}{suffix}")
    for number, one in enumerate(fault(datasets)):
        one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID
        one.save_as(folder / f"{number}.dcm")
    return str(datasets[0].StudyInstanceUID)


def send(folder: Path, port: int) -> None:
    to = Destination(ae_title="DICOMNODE", host="127.0.0.1", port=port)
    sent = sender.send(sorted(folder.iterdir()), to=to, calling_ae_title="MODALITY")
    assert all(one.status == 0 for one in sent)


def configuration(orthanc: Orthanc, more: str) -> str:
    return running.toml(
        pacs={"ae_title": orthanc.ae_title, "port": orthanc.dicom_port, "more": more},
        routes=ROUTE,
    )


def fetched(orthanc: Orthanc, study: str) -> list[Dataset]:
    """Everything that the PACS has of a study, documents with their content."""
    found = []
    for identifier in orthanc.request("GET", "/instances"):
        with orthanc._http.open(f"{orthanc.http_url}/instances/{identifier}/file") as answer:
            dataset = pydicom.dcmread(BytesIO(answer.read()))
        if dataset.StudyInstanceUID == study:
            found.append(dataset)
    return found


def sentences(item: Dataset) -> list[str]:
    own = [str(item.TextValue)] if "TextValue" in item else []
    return own + [text for child in item.get("ContentSequence", ()) for text in sentences(child)]


def confirmed(node: running.RunningNode, study: str, purpose: str) -> Callable[[], bool]:
    """Whether the journal says that the PACS has confirmed a delivery of that purpose."""

    def ask() -> bool:
        events: list[dict[str, Any]] = inquiry.study(node.configuration, study)["timeline"]
        return any(
            event["facts"].get("purpose") == purpose and event["facts"].get("state") == "confirmed"
            for event in events
        )

    return ask


def test_each_fault_is_refused_by_its_name_in_the_journal_and_in_the_pacs(
    tmp_path: Path, orthanc: Orthanc
) -> None:
    more = "results.not_analysed = true\nresults.capture = false"
    with running.running(tmp_path / "node", configuration(orthanc, more)) as node:
        studies = {name: write(tmp_path / name, name, fault) for name, fault in FAULTS.items()}
        for name in FAULTS:
            send(tmp_path / name, node.port)
        for name, study in studies.items():
            document = node.outcome(study)
            reasons = [job["reason"] for job in document["jobs"] if "job" in job]
            assert [reason.partition(":")[0] for reason in reasons] == [name], document
            running.wait_for(
                confirmed(node, study, "not-analysed"), what=f"the report of {name} in the PACS"
            )
            (report,) = fetched(orthanc, study)
            assert report.SOPClassUID == "1.2.840.10008.5.1.4.1.1.88.11"
            assert report.SeriesDescription == "AI hippocampus not analysed (RESEARCH)"
            said = " ".join(sentences(report))
            assert f"({name})" in said
            assert "SOMEBODY-ELSE" not in said
        assert node.stop() == 0


def test_a_study_that_nobody_asks_about_leaves_no_report(tmp_path: Path, orthanc: Orthanc) -> None:
    with running.running(
        tmp_path / "node", configuration(orthanc, "results.capture = false")
    ) as node:
        study = write(tmp_path / "gap", "gap", a_missing_middle_slice)
        send(tmp_path / "gap", node.port)
        (job,) = node.outcome(study)["jobs"]
        assert job["state"] == "failed"
        assert job["deliveries"] == []
    assert orthanc.instances() == []


@pytest.mark.parametrize("policy", ["keep", "reject"])
def test_a_late_slice_gives_a_new_answer_that_names_or_rejects_the_older_one(
    tmp_path: Path, orthanc: Orthanc, policy: str
) -> None:
    more = f'results.superseded = "{policy}"\nresults.capture = false'
    with running.running(tmp_path / "node", configuration(orthanc, more)) as node:
        study = write(tmp_path / "whole", "whole", in_order)
        late = tmp_path / "late"
        late.mkdir()
        shutil.move(tmp_path / "whole" / "0.dcm", late)  # the lowest: what is left has no gap
        send(tmp_path / "whole", node.port)
        assert node.outcome(study)["outcome"] == "delivered"
        first = {one.SOPInstanceUID: one for one in fetched(orthanc, study)}
        send(late, node.port)
        running.wait_for(
            lambda: inquiry.study(node.configuration, study)["revision"] == 2,
            what="the second revision",
        )
        assert node.outcome(study)["outcome"] == "delivered"
        if policy == "reject":
            running.wait_for(confirmed(node, study, "rejection"), what="the rejection")
        every = {one.SOPInstanceUID: one for one in fetched(orthanc, study)}
        newer = [one for uid, one in every.items() if uid not in first]
        (root,) = [one for one in newer if "PredecessorDocumentsSequence" in one]
        (named,) = root.PredecessorDocumentsSequence[0].ReferencedSeriesSequence
        assert named.ReferencedSOPSequence[0].ReferencedSOPInstanceUID in first
        selections = [one for one in newer if one.Modality == "KO"]
        if policy == "keep":
            assert not selections
            return
        (selection,) = selections
        assert selection.ConceptNameCodeSequence[0].CodeValue == "113001"
        rejected = {
            item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
            for item in selection.ContentSequence
            if item.ValueType in ("IMAGE", "COMPOSITE")
        }
        assert rejected == set(first)


def test_results_that_come_back_are_no_studies(tmp_path: Path, orthanc: Orthanc) -> None:
    route = ROUTE.replace('{ Modality = "MR" }', '{ instances = ">=1" }')
    text = configuration(orthanc, "results.capture = false").replace(ROUTE, route)
    with running.running(tmp_path / "node", text) as node:
        study = write(tmp_path / "study", "study", in_order)
        send(tmp_path / "study", node.port)
        before = node.outcome(study)
        results = tmp_path / "results"
        results.mkdir()
        for number, one in enumerate(fetched(orthanc, study)):
            one.save_as(results / f"{number}.dcm", enforce_file_format=True)
        send(results, node.port)
        running.wait_for(
            lambda: inquiry.study(node.configuration, study)["revision"] == 2,
            what="the second revision",
        )
        after = node.outcome(study)
        ran = [
            [(job["job"], job["state"], job["results"]) for job in one["jobs"] if "job" in job]
            for one in (before, after)
        ]
        assert ran[0] == ran[1]
        own = [job for job in after["jobs"] if "job" not in job]
        assert {job["reason"] for job in own} == {"The node made this series itself, as a result."}
