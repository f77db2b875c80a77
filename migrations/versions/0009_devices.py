"""Workers say what their devices have, and jobs what they need of one."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    kind = sa.Column("device_kind", sa.String(), server_default="cpu", nullable=False)
    op.add_column("workers", kind)
    for name in ("memory_bytes", "free_bytes"):
        op.add_column("workers", sa.Column(name, sa.BigInteger(), nullable=True))
    op.add_column("workers", sa.Column("compute_capability", sa.String(), nullable=True))
    op.add_column("jobs", sa.Column("device_kind", sa.String(), nullable=True))
    for name in ("memory_bytes", "streamed_memory_bytes"):
        op.add_column("jobs", sa.Column(name, sa.BigInteger(), nullable=True))


def downgrade() -> None:
    """Undo."""
    for name in ("streamed_memory_bytes", "memory_bytes", "device_kind"):
        op.drop_column("jobs", name)
    for name in ("compute_capability", "free_bytes", "memory_bytes", "device_kind"):
        op.drop_column("workers", name)
