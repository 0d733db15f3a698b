"""People whom an OpenID Connect provider names, and the answers of it that were taken."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    with op.batch_alter_table("person", schema=None) as batch_op:
        batch_op.add_column(sa.Column("issuer", sa.String(255), nullable=False, server_default=""))
        batch_op.add_column(sa.Column("subject", sa.String(255), nullable=True))
    op.create_index("ix_person_subject", "person", ["issuer", "subject"], unique=True)
    op.create_table(
        "answered",
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("ends_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_answered")),
    )
    op.create_index("ix_answered_ends_at", "answered", ["ends_at"])


def downgrade() -> None:
    """Undo. Whom a provider names has no password, and is not kept."""
    op.drop_table("answered")
    op.execute("DELETE FROM person WHERE issuer <> ''")
    op.drop_index("ix_person_subject", table_name="person")
    with op.batch_alter_table("person", schema=None) as batch_op:
        batch_op.drop_column("subject")
        batch_op.drop_column("issuer")
