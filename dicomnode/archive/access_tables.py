"""The tables of the page: who may sign in, who has, who tried in vain, and who did what."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Text,
)

from dicomnode.archive.schema import metadata

# Who may sign in to the page.
person = Table(
    "person",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("role", String(16), nullable=False),  # viewer | operator | administrator
    # argon2, with its salt and its costs; "" for somebody whom a provider names
    Column("password_hash", String(256), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("changed_at", Float, nullable=False),
    Column("issuer", String(255), nullable=False, server_default=""),  # "" for our own accounts
    Column("subject", String(255)),  # what the issuer calls the person, for good
    Index("ix_person_subject", "issuer", "subject", unique=True),
)

session = Table(
    "session",
    metadata,
    Column("digest", String(64), primary_key=True),  # SHA-256 of the token, which is kept nowhere
    Column(
        "person",
        String(64),
        ForeignKey("person.name", ondelete="CASCADE"),
        nullable=False,
        index=True,
    ),
    Column("address", String(64), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("ends_at", Float, nullable=False),
)

# How often somebody failed to sign in: for each account, and for each address.
attempt = Table(
    "attempt",
    metadata,
    Column("key", String(160), primary_key=True),
    Column("failures", Integer, nullable=False),
    Column("last_at", Float, nullable=False),
)

# The sign-ins that a provider has answered: each answer is taken once.
answered = Table(
    "answered",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("ends_at", Float, nullable=False, index=True),
)

# Who did what on the page.
audit = Table(
    "audit",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("at", Float, nullable=False, index=True),
    Column("person", String(64), nullable=False),  # "" for nobody that is known
    Column("address", String(64), nullable=False),
    Column("action", String(32), nullable=False),
    Column("subject", String(160), nullable=False),
    Column("outcome", String(16), nullable=False),  # done | refused | failed
    Column("detail", Text, nullable=False),
)
