"""X-Ray radiation dose reports (PS3.3 A.35.8, PS3.16 TID 10011)."""

from __future__ import annotations

from pydicom import Dataset
from pydicom.uid import XRayRadiationDoseSRStorage

from dicomnode import uid
from dicomnode.simulation import header
from dicomnode.simulation.header import Subject
from dicomnode.simulation.images import code, item


def dose_report(subject: Subject) -> Dataset:
    """What a CT scanner says of the dose of one study, without the irradiation events."""
    dataset = header.begun(subject, XRayRadiationDoseSRStorage)
    dataset.CompletionFlag, dataset.VerificationFlag = "COMPLETE", "UNVERIFIED"
    dataset.ReferencedPerformedProcedureStepSequence = []
    dataset.PerformedProcedureCodeSequence = []
    dataset.ValueType = "CONTAINER"
    dataset.ConceptNameCodeSequence = [code("113701", "DCM", "X-Ray Radiation Dose Report")]
    dataset.ContinuityOfContent = "SEPARATE"
    dataset.ContentTemplateSequence = [item(MappingResource="DCMR", TemplateIdentifier="10011")]
    dataset.ContentSequence = [
        _procedure(),
        _coded(
            "CONTAINS",
            code("113876", "DCM", "Device Role in Procedure"),
            code("113859", "DCM", "Irradiating Device"),
        ),
        _scope(subject),
        _accumulated(),
        _coded(
            "CONTAINS",
            code("113854", "DCM", "Source of Dose Information"),
            code("113856", "DCM", "Automated Data Collection"),
        ),
    ]
    return dataset


def _procedure() -> Dataset:
    reported = _coded(
        "HAS CONCEPT MOD",
        code("121058", "DCM", "Procedure reported"),
        code("77477000", "SCT", "Computed Tomography X-Ray"),
    )
    intent = _coded(
        "HAS CONCEPT MOD",
        code("363703001", "SCT", "Has Intent"),
        code("261004008", "SCT", "Diagnostic Intent"),
    )
    reported.ContentSequence = [intent]
    return reported


def _scope(subject: Subject) -> Dataset:
    scope = _coded(
        "HAS OBS CONTEXT",
        code("113705", "DCM", "Scope of Accumulation"),
        code("113014", "DCM", "Study"),
    )
    scope.ContentSequence = [
        item(
            RelationshipType="HAS PROPERTIES",
            ValueType="UIDREF",
            ConceptNameCodeSequence=[code("110180", "DCM", "Study Instance UID")],
            UID=uid.derived(subject.study.key, str(subject.study.number)),
        )
    ]
    return scope


def _accumulated() -> Dataset:
    return item(
        RelationshipType="CONTAINS",
        ValueType="CONTAINER",
        ConceptNameCodeSequence=[code("113811", "DCM", "CT Accumulated Dose Data")],
        ContinuityOfContent="SEPARATE",
        ContentSequence=[
            _number(
                code("113812", "DCM", "Total Number of Irradiation Events"),
                "1",
                code("{events}", "UCUM", "events"),
            ),
            _number(
                code("113813", "DCM", "CT Dose Length Product Total"),
                "210",
                code("mGy.cm", "UCUM", "mGy.cm"),
            ),
        ],
    )


def _coded(relationship: str, name: Dataset, value: Dataset) -> Dataset:
    return item(
        RelationshipType=relationship,
        ValueType="CODE",
        ConceptNameCodeSequence=[name],
        ConceptCodeSequence=[value],
    )


def _number(name: Dataset, value: str, unit: Dataset) -> Dataset:
    return item(
        RelationshipType="CONTAINS",
        ValueType="NUM",
        ConceptNameCodeSequence=[name],
        MeasuredValueSequence=[item(NumericValue=value, MeasurementUnitsCodeSequence=[unit])],
    )
