"""Which results a destination gets; notices: why there is no answer, and that one is rejected."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply. What was made before profiles is for every destination: an empty profile."""
    with op.batch_alter_table("job", schema=None) as batch_op:
        batch_op.add_column(sa.Column("notify", sa.JSON(), nullable=False, server_default="{}"))
    with op.batch_alter_table("result", schema=None) as batch_op:
        batch_op.add_column(sa.Column("profiles", sa.JSON(), nullable=False, server_default="[]"))
        batch_op.create_index(
            batch_op.f("ix_result_series_instance_uid"), ["series_instance_uid"], unique=False
        )
    with op.batch_alter_table("delivery", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column("purpose", sa.String(length=16), nullable=False, server_default="results")
        )
        batch_op.add_column(
            sa.Column("profile", sa.String(length=16), nullable=False, server_default="")
        )
        batch_op.add_column(
            sa.Column("superseded", sa.String(length=16), nullable=False, server_default="keep")
        )
        batch_op.add_column(sa.Column("about", sa.String(length=32), nullable=True))
    op.create_table(
        "notice",
        sa.Column("delivery", sa.String(length=32), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("series_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("path", sa.String(length=256), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(
            ["delivery"], ["delivery.id"], name=op.f("fk_notice_delivery"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("delivery", name=op.f("pk_notice")),
    )
    with op.batch_alter_table("notice", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_notice_series_instance_uid"), ["series_instance_uid"], unique=False
        )
