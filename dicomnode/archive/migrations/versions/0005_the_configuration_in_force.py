"""Which configuration is in force, and which one each worker runs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "in_force",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("serial", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_in_force")),
    )
    with op.batch_alter_table("worker", schema=None) as batch_op:
        batch_op.add_column(sa.Column("serial", sa.Integer(), nullable=False, server_default="0"))
        batch_op.add_column(
            sa.Column("configuration", sa.String(64), nullable=False, server_default="")
        )
        batch_op.add_column(sa.Column("behind", sa.Text(), nullable=False, server_default=""))
