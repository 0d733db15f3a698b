"""What the page needs: people, sessions, an audit trail, and studies that are found quickly."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_SORTED = {
    length: sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")
    for length in (64, 256)
}
_TOGETHER = 500


def upgrade() -> None:
    """Apply. What is known of the studies already is filled in: of many, that takes a while."""
    _new_tables()
    with op.batch_alter_table("study", schema=None) as batch_op:
        for column in _columns():
            batch_op.add_column(column)
    connection = op.get_bind()
    _fill(connection)
    connection.execute(sa.text(_RECEIVED))
    connection.execute(sa.text(_OUTCOME))
    _new_indexes()


def _columns() -> list[sa.Column[Any]]:
    return [
        sa.Column("outcome", sa.String(16), nullable=False, server_default="in progress"),
        sa.Column("source", sa.String(64), nullable=False, server_default=""),
        sa.Column("patient_id", _SORTED[64], nullable=False, server_default=""),
        sa.Column("patient_name", _SORTED[256], nullable=False, server_default=""),
        sa.Column("accession_number", _SORTED[64], nullable=False, server_default=""),
        sa.Column("modalities", sa.String(256), nullable=False, server_default=""),
        sa.Column("received", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("received_bytes", sa.BigInteger(), nullable=False, server_default="0"),
    ]


def _new_tables() -> None:
    op.create_table(
        "person",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("password_hash", sa.String(length=256), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("changed_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_person")),
    )
    op.create_table(
        "session",
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("person", sa.String(length=64), nullable=False),
        sa.Column("address", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("ends_at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(
            ["person"], ["person.name"], name=op.f("fk_session_person"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_session")),
    )
    with op.batch_alter_table("session", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_session_person"), ["person"], unique=False)
    op.create_table(
        "attempt",
        sa.Column("key", sa.String(length=160), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("last_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_attempt")),
    )
    op.create_table(
        "audit",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("person", sa.String(length=64), nullable=False),
        sa.Column("address", sa.String(length=64), nullable=False),
        sa.Column("action", sa.String(length=32), nullable=False),
        sa.Column("subject", sa.String(length=160), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit")),
    )
    with op.batch_alter_table("audit", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_audit_at"), ["at"], unique=False)


def _new_indexes() -> None:
    for table, name, columns in (
        ("association", "association_ended_at", ["ended_at"]),
        ("association", "association_peer", ["peer", "opened_at"]),
        ("delivery", "delivery_destination", ["destination", "state"]),
        ("event", "event_association", ["association"]),
        ("event", "event_kind", ["kind", "at"]),
        ("job", "job_ended_at", ["ended_at"]),
        ("job", "job_model", ["model", "ended_at"]),
        ("study", "study_accession_number", ["accession_number"]),
        ("study", "study_last_at", ["last_at"]),
        ("study", "study_modalities", ["modalities"]),
        ("study", "study_outcome", ["outcome", "first_at"]),
        ("study", "study_patient_id", ["patient_id"]),
        ("study", "study_patient_name", ["patient_name"]),
    ):
        op.create_index(op.f(f"ix_{name}"), table, columns, unique=False)


def _fill(connection: sa.Connection) -> None:
    """Who each study is of, from the headers of its series."""
    found: dict[str, dict[str, Any]] = {}
    rows = connection.execute(
        sa.text(
            "SELECT study_instance_uid, header FROM series"
            " ORDER BY study_instance_uid, series_instance_uid"
        ).columns(header=sa.JSON())
    )
    for row in rows:
        known = found.setdefault(row.study_instance_uid, {"modalities": set()})
        known["modalities"].update(_texts(row.header, "Modality"))
        for column, keyword in _KEYWORDS.items():
            if not known.get(column):
                known[column] = _folded(" ".join(_texts(row.header, keyword)))
    update = sa.text(
        "UPDATE study SET patient_id = :patient_id, patient_name = :patient_name,"
        " accession_number = :accession_number, modalities = :modalities"
        " WHERE study_instance_uid = :uid"
    )
    for batch in _batches(found):
        connection.execute(update, batch)


_KEYWORDS = {
    "patient_id": "PatientID",
    "patient_name": "PatientName",
    "accession_number": "AccessionNumber",
}


def _batches(found: Mapping[str, Mapping[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    every = [
        {
            "uid": uid,
            "patient_id": known["patient_id"][:64],
            "patient_name": known["patient_name"][:256],
            "accession_number": known["accession_number"][:64],
            "modalities": "".join(f" {one} " for one in sorted(known["modalities"]))[:256],
        }
        for uid, known in found.items()
    ]
    for start in range(0, len(every), _TOGETHER):
        yield every[start : start + _TOGETHER]


def _texts(header: Mapping[str, Any], keyword: str) -> list[str]:
    value = header.get(keyword)
    values = value if isinstance(value, list) else [value]
    return [str(one) for one in values if one is not None and str(one).strip()]


def _folded(text: str) -> str:
    for mark in "^=,\0":
        text = text.replace(mark, " ")
    return " ".join(text.casefold().split())


_RECEIVED = """
UPDATE study SET
  received = (
    SELECT count(*) FROM instance AS i WHERE i.study_instance_uid = study.study_instance_uid
  ),
  received_bytes = (
    SELECT coalesce(sum(i.size), 0) FROM instance AS i
    WHERE i.study_instance_uid = study.study_instance_uid
  ),
  source = coalesce((
    SELECT coalesce(nullif(a.peer, ''), a.calling_ae_title)
    FROM instance AS i JOIN association AS a ON a.id = i.association
    WHERE i.study_instance_uid = study.study_instance_uid
    ORDER BY i.received_at LIMIT 1
  ), '')
"""

_OUTCOME = """
UPDATE study SET outcome = CASE
  WHEN state = 'receiving' THEN 'in progress'
  WHEN EXISTS (
    SELECT 1 FROM job WHERE job.study_instance_uid = study.study_instance_uid
    AND job.state IN ('pending', 'predicting', 'delivering')
  ) THEN 'in progress'
  WHEN EXISTS (
    SELECT 1 FROM job WHERE job.study_instance_uid = study.study_instance_uid
    AND job.state = 'failed'
  ) OR EXISTS (
    SELECT 1 FROM decision AS d WHERE d.study_instance_uid = study.study_instance_uid
    AND d.revision = study.revision AND d.outcome = 'held'
  ) THEN 'failed'
  WHEN EXISTS (
    SELECT 1 FROM job WHERE job.study_instance_uid = study.study_instance_uid
    AND job.state = 'delivered'
  ) THEN 'delivered'
  ELSE 'not applicable'
END
"""
