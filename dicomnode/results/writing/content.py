"""Content items that the reports share: who observed, which algorithm, what was looked at."""

from __future__ import annotations

import highdicom as hd
from highdicom.sr import CodedConcept, FindingSite
from pydicom import Dataset
from pydicom.sr.codedict import codes

from dicomnode import __version__
from dicomnode.bundle import Code
from dicomnode.prediction import Shown
from dicomnode.results import common
from dicomnode.results.common import Run
from dicomnode.results.finding_site import Site
from dicomnode.volume import Images, Volume

#: CID 7021 "Measurement Report Document Titles".
IMAGING_MEASUREMENT_REPORT = Code(
    value="126000", scheme="DCM", meaning="Imaging Measurement Report"
)
ONCOLOGY_MEASUREMENT_REPORT = Code(
    value="126001", scheme="DCM", meaning="Oncology Measurement Report"
)

_COMMENT = CodedConcept("121106", "DCM", "Comment")


def concept(code: Code) -> CodedConcept:
    """A code of the manifest as highdicom takes it."""
    return CodedConcept(code.value, code.scheme, code.meaning)


def comment(text: str) -> hd.sr.TextContentItem:
    """A sentence in a container."""
    return hd.sr.TextContentItem(
        name=_COMMENT, value=text, relationship_type=hd.sr.RelationshipTypeValues.CONTAINS
    )


def observation_context() -> hd.sr.ObservationContext:
    """The node itself (TID 1004)."""
    return hd.sr.ObservationContext(
        observer_device_context=hd.sr.ObserverContext(
            observer_type=codes.DCM.Device,
            observer_identifying_attributes=hd.sr.DeviceObserverIdentifyingAttributes(
                uid=common.NODE_DEVICE_UID,
                name=common.NODE,
                manufacturer_name=common.NODE,
                model_name=common.NODE,
                serial_number=__version__,
            ),
        )
    )


def algorithm(run: Run) -> hd.sr.AlgorithmIdentification:
    """What made a finding (TID 4019), and how it was computed."""
    manifest = run.bundle.manifest
    return hd.sr.AlgorithmIdentification(
        name=manifest.name,
        version=run.bundle.algorithm_version,
        parameters=[run.prediction.computed],
        family=concept(manifest.family),
        manufacturer=manifest.manufacturer,
    )


def sites(site: Site | None) -> list[FindingSite] | None:
    """Where a finding is, as a group takes it."""
    if site is None:
        return None
    side, part = (concept(code) if code else None for code in (site.side, site.part))
    return [FindingSite(concept(site.place), side, part)]


def sources(run: Run) -> list[Dataset]:
    """Every instance that the model was shown, once, as highdicom takes evidence."""
    shown = {
        source.sop_instance_uid: common.blank(
            source.sop_class_uid, source.sop_instance_uid, header=one.header
        )
        for one in run.prediction.shown
        for source in one.sources
    }
    return list(shown.values())


def space(subject: Shown, frame: int = 0) -> str:
    """Frame of Reference UID of what was shown; "" where it does not say where it lies."""
    if isinstance(subject, Volume):
        return subject.frame_of_reference_uid
    if isinstance(subject, Images) and subject.frames[frame].affine is not None:
        return str(subject.frames[frame].header.FrameOfReferenceUID)
    return ""
