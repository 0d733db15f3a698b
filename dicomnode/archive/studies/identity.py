"""Whose study it is, as columns that it is found by: patient, accession number, modalities, source.

They come from the headers of what was received. A study whose instances name several patients is
found by the first that came; that they do is told elsewhere, by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, select, update

from dicomnode.archive import tables
from dicomnode.study import Instance

#: column → the DICOM keyword that fills it, and how much of it is kept.
_COLUMNS = {
    "patient_id": ("PatientID", 64),
    "patient_name": ("PatientName", 256),
    "accession_number": ("AccessionNumber", 64),
}
_LONGEST_MODALITIES = 256


def folded(text: str) -> str:
    """As it is kept and looked for: without case, and the parts of a name with spaces between."""
    for mark in "^=,\0":
        text = text.replace(mark, " ")
    return " ".join(text.casefold().split())


def modalities(kept: str) -> list[str]:
    """The modalities of a study, from their column."""
    return kept.split()


def of_modality(modality: str) -> str:
    """What stands in that column of a study that has this modality."""
    return f" {modality} "


def source(tx: Connection, association: str) -> str:
    """Who opened an association: the peer's name, the AE title of an unknown one, "" if unseen."""
    columns = tables.association.c
    row = tx.execute(
        select(columns.peer, columns.calling_ae_title).where(columns.id == association)
    ).one_or_none()
    return "" if row is None else row.peer or row.calling_ae_title


def note(tx: Connection, study_instance_uid: str, instances: Sequence[Instance]) -> None:
    """Fill in what is not known yet of whose study it is."""
    study = tables.study.c
    row = tx.execute(
        select(*(study[name] for name in (*_COLUMNS, "modalities"))).where(
            study.study_instance_uid == study_instance_uid
        )
    ).one()
    found: dict[str, Any] = {
        name: folded(_first(instances, keyword))[:longest]
        for name, (keyword, longest) in _COLUMNS.items()
        if not getattr(row, name)
    }
    known = set(modalities(row.modalities))
    every = known | {text for one in instances for text in _texts(one, "Modality")}
    if every != known:
        kept = "".join(of_modality(one) for one in sorted(every))
        found["modalities"] = kept[:_LONGEST_MODALITIES]
    if any(found.values()):
        tx.execute(
            update(tables.study).where(study.study_instance_uid == study_instance_uid).values(found)
        )


def _first(instances: Sequence[Instance], keyword: str) -> str:
    found = (" ".join(_texts(one, keyword)) for one in instances)
    return next((text for text in found if text), "")


def _texts(instance: Instance, keyword: str) -> list[str]:
    value = instance.value(keyword)
    values = value if isinstance(value, list) else [value]
    return [str(one) for one in values if one is not None and str(one).strip()]
