"""How much of its GPU's memory each worker has seen in use."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("worker", sa.Column("memory_used", sa.BigInteger(), nullable=True))
    op.add_column("worker", sa.Column("memory_total", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    """Undo."""
    with op.batch_alter_table("worker", schema=None) as batch_op:
        batch_op.drop_column("memory_total")
        batch_op.drop_column("memory_used")
