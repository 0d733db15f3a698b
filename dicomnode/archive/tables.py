"""The tables. Times are seconds since the epoch; a missing time is NULL.

An instance is safe once its file is; its row may lag and is made again from the file at start.
What happened to jobs and deliveries lives here alone.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Text,
)
from sqlalchemy.types import TypeEngine

from dicomnode.archive import access_tables, schema

metadata = schema.metadata

_UID = String(64)


def _sorted_text(length: int) -> TypeEngine[str]:
    """Text that is compared code point by code point, so that an index finds beginnings."""
    return String(length).with_variant(String(length, collation="C"), "postgresql")


association = Table(
    "association",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("peer", String(64), nullable=False),
    Column("calling_ae_title", String(16), nullable=False),
    Column("address", String(64), nullable=False),
    Column("opened_at", Float, nullable=False),
    Column("ended_at", Float, index=True),
    Column("end", String(16)),
    Column("stored", Integer, nullable=False, default=0),
    Column("refused", Integer, nullable=False, default=0),
    Index("ix_association_peer", "peer", "opened_at"),
)

study = Table(
    "study",
    metadata,
    Column("study_instance_uid", _UID, primary_key=True),
    # "receiving" until the evidence says that it is complete, then "complete"; a late instance
    # makes it "receiving" again. `revision` counts the completions. "removing" and "removed": see
    # `retention`.
    Column("state", String(16), nullable=False, index=True),
    Column("revision", Integer, nullable=False),
    Column("first_at", Float, nullable=False, index=True),
    Column("last_at", Float, nullable=False, index=True),
    Column("completed_at", Float),
    Column("because", Text, nullable=False, default=""),
    # What became of it, over all its rules: `outcomes` keeps it in step with what it follows from.
    Column("outcome", String(16), nullable=False, server_default="in progress"),
    # Who sent its first instance: the peer's name, or the AE title of an unknown one.
    Column("source", String(64), nullable=False, server_default=""),
    # What it is looked for by, as `identity` folds it.
    Column("patient_id", _sorted_text(64), nullable=False, server_default="", index=True),
    Column("patient_name", _sorted_text(256), nullable=False, server_default="", index=True),
    Column("accession_number", _sorted_text(64), nullable=False, server_default="", index=True),
    Column("modalities", String(256), nullable=False, server_default="", index=True),
    # Everything that ever came, removed or not.
    Column("received", Integer, nullable=False, server_default="0"),
    Column("received_bytes", BigInteger, nullable=False, server_default="0"),
    Index("ix_study_outcome", "outcome", "first_at"),
)

series = Table(
    "series",
    metadata,
    Column("study_instance_uid", _UID, ForeignKey("study.study_instance_uid"), primary_key=True),
    Column("series_instance_uid", _UID, primary_key=True),
    # The header of the first instance that came; each instance keeps only how it differs.
    Column("header", JSON, nullable=False),
)

instance = Table(
    "instance",
    metadata,
    Column("sop_instance_uid", _UID, primary_key=True),
    Column("study_instance_uid", _UID, ForeignKey("study.study_instance_uid"), nullable=False),
    Column("series_instance_uid", _UID, nullable=False),
    Column("sop_class_uid", _UID, nullable=False),
    Column("transfer_syntax_uid", _UID, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("path", String(128), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("header", JSON, nullable=False),
    Column("association", String(64), nullable=False, index=True),  # "" when found at start
    Column("received_at", Float, nullable=False),
    Index("ix_instance_study_series", "study_instance_uid", "series_instance_uid"),
)

decision = Table(
    "decision",
    metadata,
    Column("study_instance_uid", _UID, ForeignKey("study.study_instance_uid"), primary_key=True),
    Column("revision", Integer, primary_key=True),
    Column("rule", String(128), primary_key=True),
    Column("series_instance_uid", _UID, primary_key=True),
    Column("model", String(64), nullable=False),
    Column("outcome", String(16), nullable=False),  # job | not_applicable | held
    Column("origin", String(16), nullable=False),
    Column("clause", Text, nullable=False),
    Column("value", Text, nullable=False),
    Column("detail", Text, nullable=False),
)


def _work_columns() -> list[Column[object]]:
    """What each row that a worker takes up carries: when it may run, and who runs it till when."""
    return [
        Column("state", String(16), nullable=False, index=True),
        Column("reason", String(64), nullable=False, default=""),
        Column("detail", Text, nullable=False, default=""),
        Column("attempts", Integer, nullable=False, default=0),
        Column("not_before", Float, nullable=False, default=0.0),
        Column("queued_at", Float),
        Column("lease_owner", String(128)),
        Column("lease_until", Float),
        Column("created_at", Float, nullable=False),
        Column("ended_at", Float),
    ]


job = Table(
    "job",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("key", String(64), nullable=False),
    Column("study_instance_uid", _UID, ForeignKey("study.study_instance_uid"), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("rule", String(128), nullable=False),
    Column("model", String(64), nullable=False),
    Column("model_digest", String(64), nullable=False),
    # input name → {"series": [uid, …], "instances": [uid, …]}: exactly what the key was made of
    Column("inputs", JSON, nullable=False),
    Column("send_to", JSON, nullable=False),
    # destination that is told why there is no answer → what becomes of that once there is one
    Column("notify", JSON, nullable=False, server_default="{}"),
    Column("urgency", Integer, nullable=False),  # 0 is taken first
    Column("timings", JSON, nullable=False),  # stage → seconds
    Column("device", String(32), nullable=False, default=""),
    Column("superseded_by", String(32)),
    *_work_columns(),
    Index("ix_job_study", "study_instance_uid"),
    Index("ix_job_ended_at", "ended_at"),
    Index("ix_job_model", "model", "ended_at"),
)

result = Table(
    "result",
    metadata,
    Column("job", String(32), ForeignKey("job.id"), primary_key=True),
    Column("position", Integer, primary_key=True),  # the order in which they are sent
    Column("kind", String(16), nullable=False),
    Column("sop_instance_uid", _UID, nullable=False),
    Column("series_instance_uid", _UID, nullable=False, index=True),
    Column("path", String(256), nullable=False),  # relative to the data folder
    Column("digest", String(64), nullable=False),
    # the digests of the profiles that it is sent for; none: for all
    Column("profiles", JSON, nullable=False, server_default="[]"),
)

delivery = Table(
    "delivery",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("job", String(32), ForeignKey("job.id"), nullable=False, index=True),
    Column("destination", String(64), nullable=False),
    # results | not-analysed | rejection
    Column("purpose", String(16), nullable=False, server_default="results"),
    Column("profile", String(16), nullable=False, server_default=""),  # of the destination then
    # keep | reject: what becomes of what is delivered once a newer answer is
    Column("superseded", String(16), nullable=False, server_default="keep"),
    Column("about", String(32)),  # of a rejection: the delivery that it takes back
    *_work_columns(),
    Index("ix_delivery_destination", "destination", "state"),
    Index("ix_delivery_ended_at", "destination", "ended_at"),
)

# The one object of a delivery that is no result: that there is none and why, or that one is
# rejected. It is made when it is sent.
notice = Table(
    "notice",
    metadata,
    Column("delivery", String(32), ForeignKey("delivery.id", ondelete="CASCADE"), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("sop_instance_uid", _UID, nullable=False),
    Column("series_instance_uid", _UID, nullable=False, index=True),
    Column("path", String(256), nullable=False),  # relative to the data folder
    Column("digest", String(64), nullable=False),
)

# What peers asked of us: whether we keep their objects safe (PS3.4 Annex J).
commitment = Table(
    "commitment",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("peer", String(64), nullable=False),  # "" for an unknown one
    Column("calling_ae_title", String(16), nullable=False),
    Column("transaction_uid", _UID, nullable=False),
    Column("state", String(16), nullable=False, index=True),  # asked | checked | answered
    Column("references", JSON, nullable=False),  # [[SOP class, SOP instance], …] until answered
    Column("failures", JSON, nullable=False),  # [[SOP class, SOP instance, reason], …]
    Column("checked_at", Float),
    Column("created_at", Float, nullable=False),
    Column("asked_at", Float, nullable=False),  # last
    Column("attempts", Integer, nullable=False),
    Column("not_before", Float, nullable=False),
    Column("answered_at", Float),
    Index("ix_commitment_transaction", "peer", "calling_ae_title", "transaction_uid"),
)

# What we asked of destinations: whether they keep our results safe.
confirmation = Table(
    "confirmation",
    metadata,
    Column("transaction_uid", _UID, primary_key=True),
    Column(
        "delivery",
        String(32),
        # A delivery that begins anew asks anew.
        ForeignKey("delivery.id", ondelete="CASCADE"),
        nullable=False,
        index=True,
    ),
    Column("destination", String(64), nullable=False),
    Column("number", Integer, nullable=False),  # the transactions of one delivery, in their order
    Column("state", String(16), nullable=False),  # asked | lost | confirmed | failed
    Column("references", JSON, nullable=False),
    Column("failures", JSON, nullable=False),
    Column("asked_at", Float, nullable=False),
    Column("answered_at", Float),
)

event = Table(
    "event",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("at", Float, nullable=False, index=True),
    Column("kind", String(32), nullable=False),
    Column("study_instance_uid", _UID, index=True),
    Column("association", String(64), index=True),
    Column("job", String(32)),
    Column("facts", JSON, nullable=False),
    Index("ix_event_kind", "kind", "at"),
)

worker = Table(
    "worker",
    metadata,
    Column("id", String(128), primary_key=True),
    Column("device", String(32), nullable=False),
    Column("requested", String(32), nullable=False),
    Column("slots", Integer, nullable=False),
    Column("started_at", Float, nullable=False),
    Column("seen_at", Float, nullable=False),
    Column("stopped", Boolean, nullable=False, default=False),
    # When it looked last, this was in force (`in_force.serial`).
    Column("serial", Integer, nullable=False, server_default="0"),
    # The digest of the configuration that it runs with (`config.digest`).
    Column("configuration", String(64), nullable=False, server_default=""),
    # Why that is not the one in force, where it is another: a sentence.
    Column("behind", Text, nullable=False, server_default=""),
    # Bytes of its GPU, used and in all, as they were after its last job; NULL before, and on a CPU.
    Column("memory_used", BigInteger),
    Column("memory_total", BigInteger),
)

# The configuration that the node runs with: one row. See `in_force`.
in_force = Table(
    "in_force",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("serial", Integer, nullable=False),  # one more with each start, and each reload
    Column("digest", String(64), nullable=False),
    Column("at", Float, nullable=False),
)

# Who may sign in to the page, and what they did there: `access_tables`.
person = access_tables.person
session = access_tables.session
attempt = access_tables.attempt
answered = access_tables.answered
audit = access_tables.audit

# What an administrator is told of without asking. One of each kind and subject at a time.
alert = Table(
    "alert",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("kind", String(32), nullable=False),
    Column("subject", String(64), nullable=False),  # a destination, a model, a machine; or ""
    # looming: it may pass before anybody is told | open | over
    Column("state", String(16), nullable=False, index=True),
    Column("since", Float, nullable=False),  # of what is wrong
    Column("seen_at", Float, nullable=False),  # last
    Column("facts", JSON, nullable=False),  # what was counted; nothing that names a patient
    Column("begun_at", Float, index=True),  # when it was first told of
    Column("told_at", Float),  # last
    Column("over_at", Float),
)

# One message about an alert to one channel: it waits until it is sent, or too old.
alert_message = Table(
    "alert_message",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column(
        "alert",
        BigInteger().with_variant(Integer, "sqlite"),
        ForeignKey("alert.id", ondelete="CASCADE"),
        nullable=False,
        index=True,
    ),
    Column("channel", String(16), nullable=False),
    Column("occasion", String(16), nullable=False),  # begun | still | over
    Column("state", String(16), nullable=False),  # waiting | sent | dropped
    Column("at", Float, nullable=False),  # of what it says
    Column("facts", JSON, nullable=False),  # of that moment
    Column("attempts", Integer, nullable=False),
    Column("not_before", Float, nullable=False),
    Column("lease_until", Float),  # somebody is sending it
    Column("sent_at", Float),
    Column("reason", String(64), nullable=False),
    Column("detail", Text, nullable=False),
    Index("ix_alert_message_waiting", "state", "channel", "id"),
)

# Audit messages (PS3.15 A.5) that the collector does not have yet.
audit_message = Table(
    "audit_message",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("at", Float, nullable=False, index=True),  # when it happened
    Column("process", String(16), nullable=False),  # that wrote it down
    Column("body", Text, nullable=False),  # its XML
)

# How the audit messages fare: one row. See `auditing.outbox`.
audit_collector = Table(
    "audit_collector",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("sent", BigInteger, nullable=False),
    Column("failed", BigInteger, nullable=False),  # attempts to reach the collector, in vain
    Column("dropped", BigInteger, nullable=False),  # that were too old, too many or too long
    Column("sent_at", Float),
    Column("failing_since", Float),  # NULL while all is well
    Column("reason", String(64), nullable=False),
    Column("detail", Text, nullable=False),
)
