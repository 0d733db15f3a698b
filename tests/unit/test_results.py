"""Prediction → SEG and SR: what stands in them, and that no fault in them passes the check."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import phantom
import pictured
import pydicom
import pytest
from made import Fault, sets
from pydicom import Dataset
from pydicom.dataelem import DataElement

from dicomnode import bundle, results, volume
from dicomnode.errors import (
    Misconfigured,
    ModelFailed,
    NodeError,
    ResultMismatch,
    RetryLater,
    UnsuitableSeries,
)
from dicomnode.prediction import LabelMap, Prediction
from dicomnode.results import said

KEY = "0123abcd"
CREATED = datetime(2026, 3, 4, 23, 6, 7, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class Made:
    """One run, its results on disk, and the same read again."""

    scan: phantom.Phantom
    prediction: Prediction
    model: bundle.Bundle
    files: tuple[Path, ...]

    @property
    def datasets(self) -> list[Dataset]:
        return [pydicom.dcmread(path) for path in self.files]

    @property
    def seg(self) -> Dataset:
        return self.datasets[0]

    @property
    def sr(self) -> Dataset:
        return self.datasets[-1]

    def check(self, **changed: Any) -> None:
        given = {
            "prediction": self.prediction,
            "bundle": self.model,
            "key": KEY,
            "profiles": [phantom.PLAIN],
        } | changed
        results.check(self.files, **given)

    def mismatch(self, **changed: Any) -> str:
        with pytest.raises(ResultMismatch) as caught:
            self.check(**changed)
        return caught.value.reason


def predict(scan: phantom.Phantom) -> Prediction:
    """A model that is always right."""
    return Prediction(
        subject=volume.load(scan.files),
        answers=(LabelMap(output="bodies", array=scan.labels),),
    )


def make(folder: Path, *, model: bundle.Bundle | None = None, **scan: Any) -> Made:
    written = phantom.write_series(folder / "images", **scan)
    prediction = predict(written)
    model = model or phantom.a_bundle()
    built = results.build(
        prediction, bundle=model, key=KEY, created=CREATED, profiles=[phantom.PLAIN]
    )
    files = results.write(built, folder / "results")
    return Made(scan=written, prediction=prediction, model=model, files=files)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """For tests that only look."""
    return make(tmp_path_factory.mktemp("made"))


@pytest.fixture
def fresh(tmp_path: Path) -> Made:
    """For tests that spoil it."""
    return make(tmp_path)


def elements(dataset: Dataset) -> Iterator[DataElement]:
    """Every element, however deep."""
    for element in dataset:
        yield element
        if element.VR == "SQ":
            for item in element.value:
                yield from elements(item)


def uids(dataset: Dataset) -> set[str]:
    return {str(element.value) for element in elements(dataset) if element.VR == "UI"}


def children(item: Dataset, meaning: str) -> list[Dataset]:
    return [
        child
        for child in item.get("ContentSequence", ())
        if child.ConceptNameCodeSequence[0].CodeMeaning.lower() == meaning.lower()
    ]


def groups(document: Dataset) -> list[Dataset]:
    (container,) = children(document, "Imaging Measurements")
    return children(container, "Measurement Group")


class TestTwiceIsOnce:
    @pytest.mark.parametrize("enhanced", [False, True])
    def test_the_same_run_gives_the_same_bytes(self, tmp_path: Path, enhanced: bool) -> None:
        scan = phantom.write_series(tmp_path, enhanced=enhanced)
        once, again = (
            results.build(
                predict(scan),
                bundle=phantom.a_bundle(),
                key=KEY,
                created=CREATED,
                profiles=[phantom.PLAIN],
            )
            for _ in range(2)
        )
        assert [one.encoded() for one in once] == [one.encoded() for one in again]
        assert [one.kind for one in once] == ["seg", "sr"]

    def test_a_later_repetition_has_the_same_uids(self, made: Made) -> None:
        later = results.build(
            made.prediction,
            bundle=made.model,
            key=KEY,
            created=CREATED + timedelta(days=1),
            profiles=[phantom.PLAIN],
        )
        assert [uids(one.dataset) for one in later] == [uids(one) for one in made.datasets]

    def test_another_key_shares_no_uid_but_the_sources_and_the_makers(self, made: Made) -> None:
        other = results.build(
            made.prediction,
            bundle=made.model,
            key="other",
            created=CREATED,
            profiles=[phantom.PLAIN],
        )
        source = uids(made.prediction.volume.header)
        sources = {s.sop_instance_uid for s in made.prediction.volume.sources} | source
        for one, result in zip(made.datasets, other, strict=True):
            shared = {uid for uid in uids(one) & uids(result.dataset) if uid.startswith("2.25.")}
            names = {e.keyword for e in elements(one) if str(e.value) in shared - sources}
            assert names <= {"DeviceUID", "UID"}  # of the algorithm; of the node, as observer
            assert one.SOPInstanceUID != result.dataset.SOPInstanceUID
            assert one.SeriesInstanceUID != result.dataset.SeriesInstanceUID

    def test_every_uid_is_the_sources_or_derived_or_the_standards(self, made: Made) -> None:
        for dataset in made.datasets:
            assert all(uid.startswith(("2.25.", "1.2.840.10008.")) for uid in uids(dataset))

    def test_another_weight_is_another_device_and_another_version(self, made: Made) -> None:
        model = bundle.Bundle(
            root=made.model.root, manifest=made.model.manifest, version="1.2.3", digest="cd" * 32
        )
        assert made.mismatch(bundle=model) == "algorithm-differs"

    def test_a_time_without_a_zone_is_a_fault_of_the_caller(self, made: Made) -> None:
        with pytest.raises(ValueError, match="zone-aware"):
            results.build(
                made.prediction,
                bundle=made.model,
                key=KEY,
                created=CREATED.replace(tzinfo=None),
                profiles=[phantom.PLAIN],
            )


class TestEveryObject:
    def test_the_identity_is_the_sources_verbatim(self, made: Made) -> None:
        for dataset in made.datasets:
            for keyword in (
                "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex",
                "PatientAge", "StudyInstanceUID", "StudyID", "StudyDate", "StudyTime",
                "StudyDescription", "AccessionNumber", "ReferringPhysicianName",
                "SpecificCharacterSet",
            ):  # fmt: skip
                assert dataset[keyword].value == made.prediction.volume.header[keyword].value

    def test_an_odd_identity_is_copied_and_not_judged(self, tmp_path: Path) -> None:
        odd = {
            "SpecificCharacterSet": "ISO_IR 192",
            "PatientName": "山田^太郎",
            "PatientSex": "X",
            "AccessionNumber": "",
            "OtherPatientIDs": ["A", "B"],
        }
        made = make(tmp_path, attributes=odd)
        made.check()
        for dataset in made.datasets:
            assert dataset.PatientName == "山田^太郎"
            assert dataset.PatientSex == "X"
            assert dataset.AccessionNumber == ""
            assert list(dataset.OtherPatientIDs) == ["A", "B"]

    def test_what_the_source_lacks_stays_empty(self, tmp_path: Path) -> None:
        def strip(_: int, dataset: Dataset) -> None:
            for keyword in ("AccessionNumber", "PatientSex", "StudyID", "PatientAge"):
                delattr(dataset, keyword)

        made = make(tmp_path, edit=strip)
        made.check()
        assert made.sr.AccessionNumber == made.sr.PatientSex == made.sr.StudyID == ""
        assert "PatientAge" not in made.sr

    def test_the_series_says_which_model_and_that_it_is_research(self, made: Made) -> None:
        for dataset, number in zip(made.datasets, (9001, 9002), strict=True):
            assert dataset.SeriesDescription == "AI Phantom bodies v1.2.3 (RESEARCH)"
            assert dataset.SeriesNumber == number
            assert dataset.InstanceNumber == 1

    def test_a_report_has_no_body_part_and_a_segmentation_has(self, made: Made) -> None:
        assert made.seg.BodyPartExamined == "BRAIN"
        assert "BodyPartExamined" not in made.sr

    @pytest.mark.parametrize(
        ("offset", "date", "time"),
        [
            ("+0930", "20260305", "083607"),
            ("", "20260304", "230607"),
            ("east", "20260304", "230607"),
        ],
    )
    def test_it_is_dated_in_the_zone_of_the_source(
        self, tmp_path: Path, offset: str, date: str, time: str
    ) -> None:
        made = make(tmp_path, attributes={"TimezoneOffsetFromUTC": offset} if offset else None)
        for dataset in made.datasets:
            for what in ("Series", "Content", "InstanceCreation"):
                assert dataset[f"{what}Date"].value == date
                assert dataset[f"{what}Time"].value == time

    def test_without_one_it_is_dated_as_the_caller_says(self, made: Made) -> None:
        created = CREATED.astimezone(timezone(timedelta(hours=1)))
        built = results.build(
            made.prediction, bundle=made.model, key=KEY, created=created, profiles=[phantom.PLAIN]
        )
        assert built[0].dataset.SeriesDate == "20260305"
        equipment = built[0].dataset.ContributingEquipmentSequence[-1]
        assert equipment.ContributionDateTime == "20260305000607+0100"

    def test_scanner_and_algorithm_have_contributed(self, made: Made) -> None:
        for dataset in made.datasets:
            scanner, algorithm = dataset.ContributingEquipmentSequence
            assert scanner.PurposeOfReferenceCodeSequence[0].CodeMeaning == "Acquisition Equipment"
            assert scanner.ManufacturerModelName == "Tesla 1"
            assert algorithm.PurposeOfReferenceCodeSequence[0].CodeMeaning == "Processing Equipment"
            assert algorithm.Manufacturer == "Example makers"
            assert algorithm.ManufacturerModelName == "Phantom bodies"
            assert algorithm.SoftwareVersions == "1.2.3+abababababababab"
            assert algorithm.DeviceUID.startswith("2.25.")

    def test_an_unknown_scanner_is_left_out(self, tmp_path: Path) -> None:
        made = make(tmp_path, attributes={"Manufacturer": ""})
        made.check()
        assert len(made.sr.ContributingEquipmentSequence) == 1


class TestSegmentation:
    @pytest.mark.parametrize("enhanced", [False, True])
    def test_each_slice_has_a_frame_for_each_segment_and_names_its_source(
        self, tmp_path: Path, enhanced: bool
    ) -> None:
        made = make(tmp_path, orientation="sagittal", reversed=True, enhanced=enhanced)
        sources = {s.position: s for s in made.prediction.volume.sources}
        assert made.seg.NumberOfFrames == 4 * 14
        for frame in made.seg.PerFrameFunctionalGroupsSequence:
            (named,) = frame.DerivationImageSequence[0].SourceImageSequence
            source = sources[tuple(map(float, frame.PlanePositionSequence[0].ImagePositionPatient))]
            assert named.ReferencedSOPInstanceUID == source.sop_instance_uid
            assert named.ReferencedSOPClassUID == source.sop_class_uid
            assert named.get("ReferencedFrameNumber") == (source.frame_number if enhanced else None)
            assert named.SpatialLocationsPreserved == "YES"

    def test_it_is_binary_uncompressed_and_in_the_frame_of_reference(self, made: Made) -> None:
        assert made.seg.SegmentationType == "BINARY"
        assert made.seg.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
        assert made.seg.FrameOfReferenceUID == made.prediction.volume.frame_of_reference_uid
        assert len(made.seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == 14

    def test_the_segments_are_those_of_the_manifest(self, made: Made) -> None:
        ellipsoid, box, nowhere, ball = made.seg.SegmentSequence
        labels = [segment.SegmentLabel for segment in (ellipsoid, box, nowhere, ball)]
        assert labels == ["Ellipsoid", "Box", "Nowhere", "Ball"]
        modifiers = ellipsoid.SegmentedPropertyTypeCodeSequence[0]
        assert [
            modifier.CodeMeaning for modifier in modifiers.SegmentedPropertyTypeModifierCodeSequence
        ] == ["Anterior", "Left"]
        assert box.AnatomicRegionSequence[0].CodeMeaning == "Brain"
        assert "AnatomicRegionSequence" not in ellipsoid
        algorithm = ball.SegmentationAlgorithmIdentificationSequence[0]
        assert ball.SegmentAlgorithmType == "AUTOMATIC"
        assert algorithm.AlgorithmVersion == "1.2.3+abababababababab"
        assert algorithm.AlgorithmSource == "Example makers"

    def test_a_thickness_that_the_source_does_not_say_is_the_distance(self, tmp_path: Path) -> None:
        made = make(tmp_path, attributes={"SliceThickness": None})
        made.check()
        measures = made.seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
        assert measures.SliceThickness == pytest.approx(2.5)

    def test_one_segment_alone_can_be_read_back(self, tmp_path: Path) -> None:
        only = phantom.a_bundle().manifest.outputs["bodies"].segments[0]
        output = bundle.LabelMapOutput(kind="label_map", segments=(only,))
        scan = phantom.write_series(tmp_path / "images")
        prediction = predict(scan)
        answer = LabelMap(output="bodies", array=(scan.labels == 1).astype(np.uint8))
        prediction = Prediction(subject=prediction.volume, answers=(answer,))
        model = phantom.a_bundle(outputs={"bodies": output})
        built = results.build(
            prediction, bundle=model, key=KEY, created=CREATED, profiles=[phantom.PLAIN]
        )
        files = results.write(built, tmp_path / "results")
        results.check(files, prediction=prediction, bundle=model, key=KEY, profiles=[phantom.PLAIN])


class TestReport:
    def test_each_segment_has_its_volume_in_ml(self, made: Made) -> None:
        counts = np.bincount(made.scan.labels.ravel(), minlength=6)
        for group, label in zip(groups(made.sr), (1, 2, 5, 3), strict=True):
            (volume_item,) = children(group, "Volume")
            measured = volume_item.MeasuredValueSequence[0]
            expected = counts[label] * 2.5 * 1.25 * 1.5 / 1000
            assert float(measured.NumericValue) == pytest.approx(expected, abs=1e-6)
            assert measured.MeasurementUnitsCodeSequence[0].CodeValue == "mL"
            assert measured.MeasurementUnitsCodeSequence[0].CodingSchemeDesignator == "UCUM"

    def test_a_finding_is_tracked_from_the_report_to_the_segment(self, made: Made) -> None:
        for group, segment in zip(groups(made.sr), made.seg.SegmentSequence, strict=True):
            assert children(group, "Tracking Identifier")[0].TextValue == segment.TrackingID
            (tracked,) = children(group, "Tracking Unique Identifier")
            assert segment.TrackingUID == tracked.UID
            (named,) = children(group, "Referenced Segment")[0].ReferencedSOPSequence
            assert named.ReferencedSOPInstanceUID == made.seg.SOPInstanceUID
            assert named.ReferencedSegmentNumber == segment.SegmentNumber

    def test_a_structure_is_its_own_site_and_a_lesion_lies_in_its_region(self, made: Made) -> None:
        structure, lesion, tissue, _ = groups(made.sr)
        (site,) = children(structure, "Finding Site")
        assert site.ConceptCodeSequence[0].CodeMeaning == "Liver"
        assert children(site, "Laterality")[0].ConceptCodeSequence[0].CodeMeaning == "Left"
        modifier = children(site, "Topographical modifier")[0].ConceptCodeSequence[0]
        assert modifier.CodeMeaning == "Anterior"
        (site,) = children(lesion, "Finding Site")
        assert site.ConceptCodeSequence[0].CodeMeaning == "Brain"
        assert children(tissue, "Finding Site") == []

    def test_what_was_not_found_is_said(self, made: Made) -> None:
        said = [[c.TextValue for c in children(group, "Comment")] for group in groups(made.sr)]
        assert said == [[], [], ["The algorithm marked no voxel as this structure."], []]

    def test_a_run_that_found_nothing_at_all_is_a_result(self, tmp_path: Path) -> None:
        scan = phantom.write_series(tmp_path / "images")
        nothing = LabelMap(output="bodies", array=np.zeros_like(scan.labels))
        prediction = Prediction(subject=volume.load(scan.files), answers=(nothing,))
        model = phantom.a_bundle()
        built = results.build(
            prediction, bundle=model, key=KEY, created=CREATED, profiles=[phantom.PLAIN]
        )
        results.check(
            results.write(built, tmp_path / "results"),
            prediction=prediction,
            bundle=model,
            key=KEY,
            profiles=[phantom.PLAIN],
        )
        assert all(children(group, "Comment") for group in groups(built[-1].dataset))

    def test_it_is_unverified_preliminary_and_for_research(self, made: Made) -> None:
        assert made.sr.VerificationFlag == "UNVERIFIED"
        assert made.sr.PreliminaryFlag == "PRELIMINARY"
        assert made.sr.CompletionFlag == "COMPLETE"
        assert children(made.sr, "Comment")[0].TextValue == "Research use only. Not for diagnosis."

    def test_the_observer_is_the_node_and_the_procedure_is_imaging(self, made: Made) -> None:
        observer = children(made.sr, "Observer Type")[0].ConceptCodeSequence[0]
        assert observer.CodeMeaning == "Device"
        procedure = children(made.sr, "Procedure Reported")[0].ConceptCodeSequence[0]
        assert procedure.CodeValue == "25056-3"

    def test_the_evidence_is_the_segmentation_and_every_source(self, made: Made) -> None:
        (study,) = made.sr.CurrentRequestedProcedureEvidenceSequence
        named = {
            item.ReferencedSOPInstanceUID
            for series in study.ReferencedSeriesSequence
            for item in series.ReferencedSOPSequence
        }
        sources = {source.sop_instance_uid for source in made.prediction.volume.sources}
        assert named == sources | {made.seg.SOPInstanceUID}

    def test_it_names_its_predecessor(self, made: Made) -> None:
        predecessor = results.Predecessor(
            study_instance_uid="1.2", series_instance_uid="1.2.3", sop_instance_uid="1.2.3.4"
        )
        built = results.build(
            made.prediction,
            bundle=made.model,
            key=KEY,
            created=CREATED,
            profiles=[phantom.PLAIN],
            predecessors={phantom.PLAIN.digest: predecessor},
        )
        (study,) = built[-1].dataset.PredecessorDocumentsSequence
        (series,) = study.ReferencedSeriesSequence
        (document,) = series.ReferencedSOPSequence
        assert study.StudyInstanceUID == "1.2"
        assert series.SeriesInstanceUID == "1.2.3"
        assert document.ReferencedSOPInstanceUID == "1.2.3.4"
        assert "PredecessorDocumentsSequence" not in made.sr

    def test_its_title_can_be_chosen(self, made: Made) -> None:
        built = results.build(
            made.prediction,
            bundle=made.model,
            key=KEY,
            created=CREATED,
            profiles=[phantom.PLAIN.with_choices({"title": "oncology"})],
        )
        assert built[-1].dataset.ConceptNameCodeSequence[0].CodeValue == "126001"
        assert made.sr.ConceptNameCodeSequence[0].CodeValue == "126000"

    def test_what_is_not_to_be_measured_is_not(self, tmp_path: Path) -> None:
        segments = phantom.a_bundle().manifest.outputs["bodies"].segments
        quiet = tuple(segment.model_copy(update={"measure": ()}) for segment in segments)
        output = bundle.LabelMapOutput(kind="label_map", segments=quiet)
        made = make(tmp_path, model=phantom.a_bundle(outputs={"bodies": output}))
        made.check()
        assert not any(children(group, "Volume") for group in groups(made.sr))


class TestSeveral:
    def test_two_outputs_are_two_segmentations_and_one_report(self, tmp_path: Path) -> None:
        output = phantom.a_bundle().manifest.outputs["bodies"]
        model = phantom.a_bundle(outputs={"one": output, "two": output})
        scan = phantom.write_series(tmp_path / "images")
        answers = tuple(
            LabelMap(output=name, array=array)
            for name, array in (("one", scan.labels), ("two", scan.labels[::-1].copy()))
        )
        prediction = Prediction(subject=volume.load(scan.files), answers=answers)
        built = results.build(
            prediction, bundle=model, key=KEY, created=CREATED, profiles=[phantom.PLAIN]
        )
        files = results.write(built, tmp_path / "results")
        assert [path.name for path in files] == ["seg.dcm", "seg-2.dcm", "sr.dcm"]
        results.check(files, prediction=prediction, bundle=model, key=KEY, profiles=[phantom.PLAIN])
        assert len(groups(built[-1].dataset)) == 8
        swapped = (files[1], files[0], files[2])
        with pytest.raises(ResultMismatch, match="uid-differs"):
            results.check(
                swapped, prediction=prediction, bundle=model, key=KEY, profiles=[phantom.PLAIN]
            )

    def test_another_input_is_evidence(self, tmp_path: Path) -> None:
        scan = phantom.write_series(tmp_path / "t1")
        other = phantom.write_series(tmp_path / "flair", key="flair", orientation="coronal")
        prediction = Prediction(
            subject=volume.load(scan.files),
            answers=predict(scan).answers,
            also_shown=(volume.load(other.files),),
        )
        model = phantom.a_bundle()
        built = results.build(
            prediction, bundle=model, key=KEY, created=CREATED, profiles=[phantom.PLAIN]
        )
        files = results.write(built, tmp_path / "results")
        results.check(files, prediction=prediction, bundle=model, key=KEY, profiles=[phantom.PLAIN])
        (study,) = built[-1].dataset.CurrentRequestedProcedureEvidenceSequence
        assert len(study.ReferencedSeriesSequence) == 3

    def test_images_need_not_lie_in_one_space(self, tmp_path: Path) -> None:
        example = pictured.found(pictured.radiographs(tmp_path))
        others = pictured.radiographs(tmp_path)
        for number, one in enumerate((example.prediction.subject, others)):
            for frame in one.frames:
                frame.header.FrameOfReferenceUID = f"1.2.{number}"
        said.require_sound(replace(example.prediction, also_shown=(others,)), example.model)

    @pytest.mark.parametrize(
        ("attributes", "reason"),
        [
            ({"PatientID": "PHANTOM-2"}, "mixed-patients"),
            ({"StudyInstanceUID": "1.2.3"}, "mixed-studies"),
            ({"FrameOfReferenceUID": "1.2.3"}, "two-frames-of-reference"),
        ],
    )
    def test_an_input_that_does_not_belong_is_refused(
        self, tmp_path: Path, attributes: dict[str, str], reason: str
    ) -> None:
        scan = phantom.write_series(tmp_path / "t1")
        other = phantom.write_series(tmp_path / "flair", key="flair", attributes=attributes)
        prediction = Prediction(
            subject=volume.load(scan.files),
            answers=predict(scan).answers,
            also_shown=(volume.load(other.files),),
        )
        with pytest.raises(UnsuitableSeries) as caught:
            results.build(
                prediction,
                bundle=phantom.a_bundle(),
                key=KEY,
                created=CREATED,
                profiles=[phantom.PLAIN],
            )
        assert caught.value.reason == reason


class TestRefusedPredictions:
    @pytest.mark.parametrize(
        ("answers", "reason"),
        [
            (lambda labels: (), "wrong-outputs"),
            (lambda labels: (("organs", labels),), "wrong-outputs"),
            (lambda labels: (("bodies", labels), ("bodies", labels)), "wrong-outputs"),
            (lambda labels: (("bodies", labels[:-1]),), "wrong-grid"),
            (lambda labels: (("bodies", labels.transpose(0, 2, 1)),), "wrong-grid"),
            (lambda labels: (("bodies", labels.astype(np.int16)),), "wrong-type"),
            (lambda labels: (("bodies", np.where(labels == 3, 4, labels)),), "unknown-label"),
        ],
    )
    def test_what_the_manifest_does_not_promise_is_refused(
        self, tmp_path: Path, answers: Callable[..., Any], reason: str
    ) -> None:
        scan = phantom.write_series(tmp_path)
        given = tuple(LabelMap(output=o, array=array) for o, array in answers(scan.labels))
        prediction = Prediction(subject=volume.load(scan.files), answers=given)
        with pytest.raises(ModelFailed) as caught:
            results.build(
                prediction,
                bundle=phantom.a_bundle(),
                key=KEY,
                created=CREATED,
                profiles=[phantom.PLAIN],
            )
        assert caught.value.reason == reason

    @pytest.mark.parametrize(
        ("manifest", "version", "reason"),
        [
            ({"notice": "Nur für Forschung"}, "1.2.3", "manifest-not-ascii"),
        ],
    )
    def test_words_that_do_not_fit_into_dicom_are_a_misconfiguration(
        self, tmp_path: Path, manifest: dict[str, str], version: str, reason: str
    ) -> None:
        plain = phantom.a_bundle(**manifest)
        model = bundle.Bundle(
            root=plain.root, manifest=plain.manifest, version=version, digest=plain.digest
        )
        prediction = predict(phantom.write_series(tmp_path))
        with pytest.raises(Misconfigured) as caught:
            results.build(
                prediction, bundle=model, key=KEY, created=CREATED, profiles=[phantom.PLAIN]
            )
        assert caught.value.reason == reason


class TestWriting:
    def test_the_files_are_whole_and_nothing_else_is_left(
        self, fresh: Made, tmp_path: Path
    ) -> None:
        folder = tmp_path / "results"
        assert sorted(path.name for path in folder.iterdir()) == ["seg.dcm", "sr.dcm"]
        assert all(path.read_bytes()[128:132] == b"DICM" for path in fresh.files)

    def test_writing_again_takes_the_place_of_what_was_there(self, fresh: Made) -> None:
        before = [path.read_bytes() for path in fresh.files]
        fresh.files[0].write_bytes(b"half")
        built = results.build(
            fresh.prediction, bundle=fresh.model, key=KEY, created=CREATED, profiles=[phantom.PLAIN]
        )
        results.write(built, fresh.files[0].parent)
        assert [path.read_bytes() for path in fresh.files] == before


# Every fault below is one that a person might not see: the object stays readable DICOM.


def _in_segment(**attributes: Any) -> Fault:
    return lambda dataset: sets(**attributes)(dataset.SegmentSequence[1])


def _algorithm(**attributes: Any) -> Fault:
    return lambda dataset: sets(**attributes)(dataset.ContributingEquipmentSequence[-1])


def _flip_a_bit(dataset: Dataset) -> None:
    data = bytearray(dataset.PixelData)
    data[len(data) // 3] ^= 1
    dataset.PixelData = bytes(data)


def _reverse_the_frames(dataset: Dataset) -> None:
    """The masks of each segment in the opposite order: a mirror along the slices."""
    frames, size = 14, dataset.Rows * dataset.Columns
    bits = np.unpackbits(np.frombuffer(dataset.PixelData, np.uint8), bitorder="little")
    stacked = bits[: 4 * frames * size].reshape(4, frames, size)[:, ::-1]
    dataset.PixelData = np.packbits(stacked.ravel(), bitorder="little").tobytes()


def _mirror_the_rows(dataset: Dataset) -> None:
    size = (4 * 14, dataset.Rows, dataset.Columns)
    bits = np.unpackbits(np.frombuffer(dataset.PixelData, np.uint8), bitorder="little")
    mirrored = bits[: int(np.prod(size))].reshape(size)[:, :, ::-1]
    dataset.PixelData = np.packbits(mirrored.ravel(), bitorder="little").tobytes()


def _swap_two_segments(dataset: Dataset) -> None:
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        item = frame.SegmentIdentificationSequence[0]
        item.ReferencedSegmentNumber = {1: 2, 2: 1}.get(
            item.ReferencedSegmentNumber, item.ReferencedSegmentNumber
        )


def _reverse_the_positions(dataset: Dataset) -> None:
    frames = dataset.PerFrameFunctionalGroupsSequence
    positions = [list(f.PlanePositionSequence[0].ImagePositionPatient) for f in frames]
    for frame, position in zip(frames, reversed(positions), strict=True):
        frame.PlanePositionSequence[0].ImagePositionPatient = position


def _shift_the_frames(*shift: float) -> Fault:
    def fault(dataset: Dataset) -> None:
        for frame in dataset.PerFrameFunctionalGroupsSequence:
            plane = frame.PlanePositionSequence[0]
            moved = [float(v) + s for v, s in zip(plane.ImagePositionPatient, shift, strict=True)]
            plane.ImagePositionPatient = [round(v, 6) for v in moved]

    return fault


def _in_shared(group: str, **attributes: Any) -> Fault:
    def fault(dataset: Dataset) -> None:
        sets(**attributes)(dataset.SharedFunctionalGroupsSequence[0][group].value[0])

    return fault


def _drop_the_last_frame(dataset: Dataset) -> None:
    del dataset.PerFrameFunctionalGroupsSequence[-1]


def _point_elsewhere(**attributes: Any) -> Fault:
    def fault(dataset: Dataset) -> None:
        derivation = dataset.PerFrameFunctionalGroupsSequence[5].DerivationImageSequence[0]
        sets(**attributes)(derivation.SourceImageSequence[0])

    return fault


def _point_at_the_neighbour(dataset: Dataset) -> None:
    frames = dataset.PerFrameFunctionalGroupsSequence
    uid = frames[6].DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
    _point_elsewhere(ReferencedSOPInstanceUID=uid)(dataset)


def _forget_the_derivation(dataset: Dataset) -> None:
    dataset.PerFrameFunctionalGroupsSequence[5].DerivationImageSequence = []


def _forget_a_source(dataset: Dataset) -> None:
    del dataset.ReferencedSeriesSequence[0].ReferencedInstanceSequence[3]


def _another_source_series(dataset: Dataset) -> None:
    dataset.ReferencedSeriesSequence[0].SeriesInstanceUID = "1.2.3"


def _segment_algorithm(dataset: Dataset) -> None:
    item = dataset.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0]
    item.AlgorithmVersion = "1.2.3+0000000000000000"


def _segment_type(dataset: Dataset) -> None:
    dataset.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0].CodeValue = "64033007"


def _segment_side(dataset: Dataset) -> None:
    modifiers = dataset.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0]
    modifiers.SegmentedPropertyTypeModifierCodeSequence[1].CodeValue = "24028007"


SEG_FAULTS: dict[str, tuple[Fault, str]] = {
    "another patient": (sets(PatientID="PHANTOM-2"), "identity-differs"),
    "another name": (sets(PatientName="Fantome^Amelie"), "identity-differs"),
    "another birth date": (sets(PatientBirthDate="19700130"), "identity-differs"),
    "another study": (sets(StudyInstanceUID="1.2.3"), "identity-differs"),
    "another accession": (sets(AccessionNumber="A-0816"), "identity-differs"),
    "no issuer": (sets(IssuerOfPatientID=None), "identity-differs"),
    "another body part": (sets(BodyPartExamined="LIVER"), "identity-differs"),
    "another series UID": (sets(SeriesInstanceUID="1.2.3"), "uid-differs"),
    "another instance UID": (sets(SOPInstanceUID="1.2.3"), "uid-differs"),
    "a cut description": (sets(SeriesDescription="AI Phantom bodies"), "description-differs"),
    "another series number": (sets(SeriesNumber=4), "series-differs"),
    "another version": (_algorithm(SoftwareVersions="1.2.4+abab"), "algorithm-differs"),
    "another device": (_algorithm(DeviceUID="1.2.3"), "algorithm-differs"),
    "another maker": (_algorithm(Manufacturer="Others"), "algorithm-differs"),
    "no algorithm": (sets(ContributingEquipmentSequence=[]), "algorithm-differs"),
    "another version in a segment": (_segment_algorithm, "algorithm-differs"),
    "a manual segment": (_in_segment(SegmentAlgorithmType="MANUAL"), "algorithm-differs"),
    "another label": (_in_segment(SegmentLabel="Sphere"), "segments-differ"),
    "another meaning": (_segment_type, "segments-differ"),
    "another side": (_segment_side, "segments-differ"),
    "another number": (_in_segment(SegmentNumber=7), "segments-differ"),
    "no segments": (sets(SegmentSequence=[]), "segments-differ"),
    "another tracking UID": (_in_segment(TrackingUID="1.2.3"), "tracking-differs"),
    "another tracking ID": (_in_segment(TrackingID="Bax"), "tracking-differs"),
    "fractional": (sets(SegmentationType="FRACTIONAL"), "encoding-differs"),
    "another size": (sets(Rows=22, Columns=24), "grid-differs"),
    "another frame of reference": (sets(FrameOfReferenceUID="1.2.3"), "frame-of-reference-differs"),
    "one voxel": (_flip_a_bit, "mask-differs"),
    "mirrored along the slices": (_reverse_the_frames, "mask-differs"),
    "mirrored along the rows": (_mirror_the_rows, "mask-differs"),
    "two segments swapped": (_swap_two_segments, "frames-differ"),
    "positions turned round": (_reverse_the_positions, "reference-differs"),
    "shifted by a slice": (_shift_the_frames(0, 0, 2.5), "frame-elsewhere"),
    "shifted by half a millimetre": (_shift_the_frames(0.5, 0, 0), "frame-elsewhere"),
    "shifted far away": (_shift_the_frames(0, 0, 500), "frame-elsewhere"),
    "turned round": (
        _in_shared("PlaneOrientationSequence", ImageOrientationPatient=[-1, 0, 0, 0, 1, 0]),
        "frame-elsewhere",
    ),
    "turned a little": (
        _in_shared(
            "PlaneOrientationSequence",
            ImageOrientationPatient=[0.99995, 0.01, 0, -0.01, 0.99995, 0],
        ),
        "frame-elsewhere",
    ),
    "spacings swapped": (
        _in_shared("PixelMeasuresSequence", PixelSpacing=[1.5, 1.25]),
        "frame-elsewhere",
    ),
    "a frame too few": (_drop_the_last_frame, "frames-differ"),
    "another source": (_point_elsewhere(ReferencedSOPInstanceUID="1.2"), "reference-differs"),
    "another source class": (_point_elsewhere(ReferencedSOPClassUID="1.2"), "reference-differs"),
    "a frame number": (_point_elsewhere(ReferencedFrameNumber=1), "reference-differs"),
    "the neighbour as source": (_point_at_the_neighbour, "reference-differs"),
    "no derivation": (_forget_the_derivation, "reference-differs"),
    "a source too few": (_forget_a_source, "reference-differs"),
    "another source series": (_another_source_series, "reference-differs"),
    "pixels cut short": (
        lambda ds: setattr(ds, "PixelData", ds.PixelData[:100]),
        "malformed-result",
    ),
    "no positions": (lambda ds: delattr(ds, "SharedFunctionalGroupsSequence"), "malformed-result"),
}


def _in_group(name: str, change: Fault) -> Fault:
    def fault(dataset: Dataset) -> None:
        change(children(groups(dataset)[0], name)[0])

    return fault


def _value(**attributes: Any) -> Fault:
    return _in_group("Volume", lambda item: sets(**attributes)(item.MeasuredValueSequence[0]))


def _unit(dataset: Dataset) -> None:
    measured = children(groups(dataset)[0], "Volume")[0].MeasuredValueSequence[0]
    measured.MeasurementUnitsCodeSequence[0].CodeValue = "mm3"


def _finding(item: Dataset) -> None:
    item.ConceptCodeSequence[0].CodeValue = "64033007"


def _drop(name: str, group: int = 0) -> Fault:
    def fault(dataset: Dataset) -> None:
        content = groups(dataset)[group].ContentSequence
        content.remove(children(groups(dataset)[group], name)[0])

    return fault


def _drop_a_group(dataset: Dataset) -> None:
    del children(dataset, "Imaging Measurements")[0].ContentSequence[1]


def _double_a_volume(dataset: Dataset) -> None:
    group = groups(dataset)[0]
    group.ContentSequence.append(children(group, "Volume")[0])


def _claim_nothing_found(dataset: Dataset) -> None:
    comment = children(groups(dataset)[2], "Comment")[0]
    groups(dataset)[0].ContentSequence.append(comment)


def _drop_the_notice(dataset: Dataset) -> None:
    dataset.ContentSequence.remove(children(dataset, "Comment")[0])


def _forget_evidence(dataset: Dataset) -> None:
    study = dataset.CurrentRequestedProcedureEvidenceSequence[0]
    del study.ReferencedSeriesSequence[0].ReferencedSOPSequence[2]


def _another_procedure(dataset: Dataset) -> None:
    _finding(children(dataset, "Procedure Reported")[0])


def _another_segment(item: Dataset) -> None:
    item.ReferencedSOPSequence[0].ReferencedSegmentNumber = 2


def _another_segmentation(item: Dataset) -> None:
    item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID = "1.2.3"


def _side(site: Dataset) -> None:
    (side,) = children(site, "Laterality")
    side.ConceptCodeSequence[0].CodeValue = "24028007"


SR_FAULTS: dict[str, tuple[Fault, str]] = {
    "another patient": (sets(PatientID="PHANTOM-2"), "identity-differs"),
    "another study": (sets(StudyInstanceUID="1.2.3"), "identity-differs"),
    "another accession": (sets(AccessionNumber=""), "identity-differs"),
    "another instance UID": (sets(SOPInstanceUID="1.2.3"), "uid-differs"),
    "another version": (_algorithm(SoftwareVersions="1.2.4"), "algorithm-differs"),
    "another description": (sets(SeriesDescription="Bodies"), "description-differs"),
    "a little more": (
        _value(NumericValue="0.5017", FloatingPointValue=0.5017),
        "measurement-differs",
    ),
    "a thousand times more": (_value(NumericValue="501.5625"), "measurement-differs"),
    "two numbers": (_value(FloatingPointValue=0.4), "measurement-differs"),
    "no number": (_value(NumericValue=None), "malformed-result"),
    "another unit": (_unit, "unit-differs"),
    "no volume": (_drop("Volume"), "measurement-differs"),
    "two volumes": (_double_a_volume, "measurement-differs"),
    "another tracking UID": (
        _in_group("Tracking Unique Identifier", sets(UID="1.2.3")),
        "tracking-differs",
    ),
    "another tracking ID": (
        _in_group("Tracking Identifier", sets(TextValue="Egg")),
        "tracking-differs",
    ),
    "a group too few": (_drop_a_group, "tracking-differs"),
    "another finding": (_in_group("Finding", _finding), "finding-differs"),
    "another place": (_in_group("Finding Site", _finding), "site-differs"),
    "another side": (_in_group("Finding Site", _side), "site-differs"),
    "no place": (_drop("Finding Site"), "site-differs"),
    "found, and not said so": (_drop("Comment", group=2), "finding-differs"),
    "said not found, and found": (_claim_nothing_found, "finding-differs"),
    "another version in a group": (
        _in_group("Algorithm Version", sets(TextValue="1.2.4")),
        "algorithm-differs",
    ),
    "another segment": (_in_group("Referenced Segment", _another_segment), "reference-differs"),
    "another SEG": (_in_group("Referenced Segment", _another_segmentation), "reference-differs"),
    "another series": (
        _in_group("Source series for segmentation", sets(UID="1.2.3")),
        "reference-differs",
    ),
    "evidence left out": (_forget_evidence, "reference-differs"),
    "no notice": (_drop_the_notice, "notice-missing"),
    "verified": (sets(VerificationFlag="VERIFIED"), "standing-differs"),
    "final": (sets(PreliminaryFlag="FINAL"), "standing-differs"),
    "partial": (sets(CompletionFlag="PARTIAL"), "standing-differs"),
    "another procedure": (_another_procedure, "procedure-differs"),
}


class TestCheck:
    @pytest.mark.parametrize("enhanced", [False, True])
    @pytest.mark.parametrize("orientation", phantom.ORIENTATIONS)
    def test_sound_results_pass(self, tmp_path: Path, orientation: str, enhanced: bool) -> None:
        make(tmp_path, orientation=orientation, reversed=True, enhanced=enhanced).check()

    @pytest.mark.parametrize("case", SEG_FAULTS)
    def test_no_fault_in_a_segmentation_passes(self, made: Made, tmp_path: Path, case: str) -> None:
        fault, reason = SEG_FAULTS[case]
        assert self._spoilt(made, tmp_path, 0, fault).mismatch() == reason

    @pytest.mark.parametrize("case", SR_FAULTS)
    def test_no_fault_in_a_report_passes(self, made: Made, tmp_path: Path, case: str) -> None:
        fault, reason = SR_FAULTS[case]
        assert self._spoilt(made, tmp_path, 1, fault).mismatch() == reason

    @pytest.mark.filterwarnings("ignore:The value length")
    def test_a_description_that_viewers_would_cut_does_not_pass(
        self, made: Made, tmp_path: Path
    ) -> None:
        described = f"{made.sr.SeriesDescription} {'x' * 60}"
        spoilt = self._spoilt(made, tmp_path, 1, sets(SeriesDescription=described))
        assert spoilt.mismatch() == "description-differs"

    def test_a_wrong_frame_number_of_an_enhanced_image_does_not_pass(self, tmp_path: Path) -> None:
        made = make(tmp_path, enhanced=True)
        spoilt = self._spoilt(made, tmp_path, 0, _point_elsewhere(ReferencedFrameNumber=4))
        assert spoilt.mismatch() == "reference-differs"

    def test_a_volume_that_is_not_where_its_source_is_does_not_pass(self, made: Made) -> None:
        """The check trusts the files, not the volume: a fault of reading is found here, too."""
        moved = made.prediction.volume.affine.copy()
        moved[2, 3] += 2.5
        wrong = replace(made.prediction.volume, affine=moved)
        prediction = Prediction(subject=wrong, answers=made.prediction.answers)
        assert made.mismatch(prediction=prediction) == "frame-elsewhere"

    def test_another_prediction_does_not_pass(self, made: Made) -> None:
        labels = made.scan.labels
        labels[0, 0, 0] = 3
        answers = (LabelMap(output="bodies", array=labels),)
        prediction = Prediction(subject=made.prediction.volume, answers=answers)
        assert made.mismatch(prediction=prediction) == "mask-differs"

    def test_another_key_does_not_pass(self, made: Made) -> None:
        assert made.mismatch(key="another") == "uid-differs"

    def test_a_missing_report_does_not_pass(self, made: Made) -> None:
        with pytest.raises(ResultMismatch, match="unexpected-objects"):
            results.check(
                made.files[:1],
                prediction=made.prediction,
                bundle=made.model,
                key=KEY,
                profiles=[phantom.PLAIN],
            )

    def test_half_a_file_does_not_pass(self, fresh: Made) -> None:
        fresh.files[0].write_bytes(fresh.files[0].read_bytes()[:100])
        assert fresh.mismatch() == "unreadable-result"

    def test_a_source_that_changed_meanwhile_does_not_pass(self, fresh: Made) -> None:
        path = fresh.scan.file_of(3)
        dataset = pydicom.dcmread(path)
        dataset.PatientID = "PHANTOM-2"
        dataset.save_as(path)
        assert fresh.mismatch() == "identity-differs"

    def test_a_source_that_is_away_is_tried_again_later(self, fresh: Made) -> None:
        fresh.scan.file_of(3).unlink()
        with pytest.raises(RetryLater, match="file-unavailable"):
            fresh.check()

    def test_a_mismatch_says_nothing_of_the_patient(self, made: Made, tmp_path: Path) -> None:
        spoilt = self._spoilt(made, tmp_path, 0, sets(PatientID="PHANTOM-2"))
        with pytest.raises(NodeError) as caught:
            spoilt.check()
        assert "PHANTOM" not in str(caught.value)

    @staticmethod
    def _spoilt(made: Made, folder: Path, which: int, fault: Fault) -> Made:
        dataset = made.datasets[which]
        fault(dataset)
        path = folder / "spoilt.dcm"
        dataset.save_as(path)
        files = tuple(path if n == which else file for n, file in enumerate(made.files))
        return Made(scan=made.scan, prediction=made.prediction, model=made.model, files=files)


class TestTolerated:
    def test_a_tilted_gantry_keeps_its_true_volume(self, tmp_path: Path) -> None:
        def tilt(index: int, dataset: Dataset) -> None:
            x, y, z = map(float, dataset.ImagePositionPatient)
            dataset.ImagePositionPatient = [x, round(y + 0.3 * index, 6), z]

        self._run(tmp_path, tilt, gantry_tilt=True)

    def test_uneven_slices_keep_their_places(self, tmp_path: Path) -> None:
        def jump(index: int, dataset: Dataset) -> None:
            x, y, z = map(float, dataset.ImagePositionPatient)
            dataset.ImagePositionPatient = [x, y, round(z + (0.6 if index > 6 else 0), 6)]

        self._run(tmp_path, jump, irregular_spacing=True)

    @staticmethod
    def _run(folder: Path, edit: Callable[[int, Dataset], None], **tolerated: bool) -> None:
        scan = phantom.write_series(folder / "images", edit=edit)
        given = bundle.Input(modality="MR", sop_classes=("MRImageStorage",), **tolerated)
        model = phantom.a_bundle(inputs={"image": given})
        prediction = Prediction(
            subject=volume.load(scan.files, contract=given),
            answers=(LabelMap(output="bodies", array=scan.labels),),
        )
        built = results.build(
            prediction, bundle=model, key=KEY, created=CREATED, profiles=[phantom.PLAIN]
        )
        files = results.write(built, folder / "results")
        results.check(files, prediction=prediction, bundle=model, key=KEY, profiles=[phantom.PLAIN])


class TestOverlay:
    @pytest.mark.parametrize("orientation", phantom.ORIENTATIONS)
    def test_it_shows_every_color_of_what_was_found(self, tmp_path: Path, orientation: str) -> None:
        scan = phantom.write_series(tmp_path, orientation=orientation)
        picture = results.picture(predict(scan), bundle=phantom.a_bundle())
        assert picture.width == 1024
        pixels = np.asarray(picture).reshape(-1, 3).astype(int)
        for segment in phantom.a_bundle().manifest.outputs["bodies"].segments:
            color = [int(segment.color[n : n + 2], 16) for n in (1, 3, 5)]
            shown = int((np.abs(pixels - color) <= 30).all(axis=1).sum())
            legend = 20 * 20
            assert shown > 1.5 * legend if segment.name != "Nowhere" else 0 < shown <= legend

    def test_nothing_found_is_shown_too(self, tmp_path: Path) -> None:
        scan = phantom.write_series(tmp_path)
        nothing = LabelMap(output="bodies", array=np.zeros_like(scan.labels))
        prediction = Prediction(subject=volume.load(scan.files), answers=(nothing,))
        assert results.picture(prediction, bundle=phantom.a_bundle()).height > 400

    def test_a_slice_has_its_shape_in_millimetres(self, tmp_path: Path) -> None:
        """22 columns of 3 mm and 24 rows of 1 mm lie, 22 of 1 and 24 of 3 stand."""
        flat, tall = (
            results.picture(
                predict(phantom.write_series(tmp_path / name, spacing=spacing)),
                bundle=phantom.a_bundle(),
            )
            for name, spacing in (("flat", (2.5, 1.0, 3.0)), ("tall", (2.5, 3.0, 1.0)))
        )
        assert flat.height < tall.height

    def test_it_is_the_same_every_time(self, tmp_path: Path) -> None:
        scan = phantom.write_series(tmp_path)
        one, two = (results.picture(predict(scan), bundle=phantom.a_bundle()) for _ in range(2))
        assert one.tobytes() == two.tobytes()

    def test_a_window_of_the_image_is_taken_if_it_shows_something(self, tmp_path: Path) -> None:
        """The last is far brighter than anything in the image: it would show black."""
        seen = [
            results.picture(
                predict(phantom.write_series(tmp_path / str(center), attributes=window)),
                bundle=phantom.a_bundle(),
            ).tobytes()
            for center in (150, 20000)
            for window in ({}, {"WindowCenter": center, "WindowWidth": 300})
        ]
        assert seen[0] != seen[1]
        assert seen[2] == seen[3]
